"""Plugins: found by entry point, imported late, and harmless when broken, doubled, or of another age."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import hal
from hal.errors import DeviceError, PluginError
from hal.plugin import Backend, Device, Kernels, hookimpl
from hal.registry import Registry, Source
from hal.testing.fake import Fake

GOOD = """
from hal.plugin import Backend, Device, Kernels, hookimpl

class Good(Backend):
    name = "{name}"
    kernels = Kernels()
    def devices(self): return [Device(self)]
    def upload(self, array, device): return array.copy()
    def download(self, buffer, spec): return buffer.copy()

@hookimpl
def hal_backends(): return [Good()]
"""


def install(folder: Path, name: str, code: str, version: str = "1.0") -> None:
    """What `pip install` leaves behind: a module and the metadata with its entry point."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[hal]\n{name} = {module}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [m for m in sys.modules if m.startswith("plug_")]:  # of an earlier test
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def loaded() -> Registry:
    registry = Registry()
    registry.load_entry_points()
    return registry


def test_a_plugin_is_found_by_its_entry_point(site: Path) -> None:
    install(site, "plug-good", GOOD.format(name="goodchip"))
    registry = loaded()
    assert registry.backend("goodchip").name == "goodchip"
    assert str(registry.sources["goodchip"]) == "plugin plug-good of plug-good 1.0"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import a_library_that_is_not_there", "cannot be imported: ModuleNotFoundError"),
        ("raise RuntimeError('boom')", "cannot be imported: RuntimeError('boom')"),
        ("def hal_backends(): raise ValueError('no chip')", "hal_backends failed: ValueError('no chip')"),
        ("def hal_backends(): return [42]", "hal_backends gave 42, which is no Backend"),
        ("hal_api = 99", "was built for plugin API 99, this hal speaks 1: upgrade hal-runtime"),
        ("hal_api = 0", "was built for plugin API 0, this hal speaks 1: upgrade plug-bad 2.0"),
        ("def hal_ops(): return ['exp']", "hal_ops gave 'exp', which is no Op"),
        ("def hal_kernels(): raise KeyError('cpu')", "hal_kernels failed: KeyError('cpu')"),
    ],
)
def test_a_broken_plugin_is_named_and_harms_no_other(site: Path, code: str, message: str) -> None:
    install(site, "plug-bad", code, "2.0")
    install(site, "plug-good", GOOD.format(name="goodchip"))
    registry = loaded()
    problem = next(p for p in registry.problems if p.plugin == "plug-bad")
    assert problem.distribution == "plug-bad 2.0"
    assert message in problem.message
    assert registry.backend("goodchip").name == "goodchip"
    assert registry.backend("cpu").name == "cpu"


def test_the_traceback_of_a_broken_plugin_is_kept(site: Path) -> None:
    install(site, "plug-bad", "def deep():\n    raise RuntimeError('boom')\ndeep()")
    problem = next(p for p in loaded().problems if p.plugin == "plug-bad")
    assert "in deep" in problem.trace
    assert "RuntimeError: boom" in problem.trace


def test_two_plugins_of_one_name_are_both_named(site: Path) -> None:
    install(site, "plug-one", GOOD.format(name="twin"))
    install(site, "plug-two", GOOD.format(name="twin"), "3.1")
    registry = loaded()
    with pytest.raises(PluginError, match=r"plug-one of plug-one 1\.0 and plugin plug-two of plug-two 3\.1: uninstall"):
        registry.backend("twin")
    assert registry.backend("cpu").name == "cpu"


@pytest.mark.parametrize(
    ("value", "there"), [("0", set()), ("plug-b", {"bchip"}), ("plug-a, plug-b", {"achip", "bchip"})]
)
def test_hal_plugins_chooses_third_parties(
    site: Path, monkeypatch: pytest.MonkeyPatch, value: str, there: set[str]
) -> None:
    install(site, "plug-a", GOOD.format(name="achip"))
    install(site, "plug-b", GOOD.format(name="bchip"))
    monkeypatch.setenv("HAL_PLUGINS", value)
    registry = loaded()
    assert {"achip", "bchip"} & registry.backends.keys() == there
    assert "cpu" in registry.backends


def test_kernels_for_an_existing_backend_come_first(site: Path) -> None:
    install(
        site,
        "plug-kernels",
        """
        from hal import ops
        from hal.plugin import Kernels
        mine = Kernels()
        @mine.register(ops.exp)
        def exp(x): return x * 0
        def hal_kernels(): return {"extended": mine}
        """,
    )

    class Extended(Backend):
        name = "extended"
        kernels = Kernels()

    registry = loaded()
    registry.add(Extended(), Source("here", ""))
    registry.add_all_kernels()
    assert hal.ops.exp in registry.backend("extended").kernels


def test_import_hal_imports_no_plugin(site: Path) -> None:
    for i in range(20):
        install(site, f"plug-{i}", "import sys; sys.stderr.write('LOADED')" + GOOD.format(name=f"chip{i}"))
    code = "import sys; sys.path.insert(0, sys.argv[1]); import hal; print('hal_cpu' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(site)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert "LOADED" not in done.stderr


def test_registration_in_code() -> None:
    with Fake("incode").registered():
        assert hal.device("incode").type == "incode"
        assert hal.device_count("incode") == 1
    assert hal.device_count("incode") == 0


def test_registration_in_code_of_a_class_and_of_hooks() -> None:
    class InCode(Backend):
        name = "incode"
        kernels = Kernels()

        def devices(self) -> list[Device]:
            return [Device(self)]

    class Hooks:
        @hookimpl
        def hal_backends(self) -> list[Backend]:
            return [Fake("by-hook")]

    hal.register(InCode)
    hal.register(Hooks())
    try:
        assert hal.device("incode") in hal.devices()
        assert hal.device("by-hook") in hal.devices()
    finally:
        hal.unregister("incode")
        hal.unregister("by-hook")


def test_registering_what_is_no_backend_says_so() -> None:
    class Nameless(Backend):
        pass

    with pytest.raises(PluginError, match="Nameless has no name and no kernels"):
        hal.register(Nameless)


def test_registering_a_name_twice_says_where_both_come_from() -> None:
    with (
        Fake("doubled").registered(),
        pytest.raises(PluginError, match="doubled, registered in code and doubled, registered in code"),
    ):
        hal.register(Fake("doubled"), "doubled")
    hal.unregister("doubled")


def test_an_unknown_backend_lists_what_there_is() -> None:
    with pytest.raises(DeviceError, match=r"there is no backend 'cpuu'; there are cpu.*did you mean cpu\?"):
        hal.device("cpuu")
