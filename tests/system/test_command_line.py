"""The command line apart from `hal train`: devices with broken plugins among them, env, ops, help, and mistakes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import hal
from hal import config, ops
from hal.cli import cli
from hal.testing.fake import Fake

PLUGINS = {
    "plug-good": """
        from hal.plugin import Backend, Device, Kernels, hookimpl

        class Good(Backend):
            name = "good"
            kernels = Kernels()
            def devices(self): return [Device(self, 0), Device(self, 1)]
            def upload(self, array, device): return array.copy()
            def download(self, buffer, spec): return buffer.copy()
            def describe(self, device): return {"driver": "7.0", "memory": "[1] GiB"}

        @hookimpl
        def hal_backends(): return [Good()]
        """,
    "plug-absent": """
        from hal.plugin import Backend, Kernels, Unavailable, hookimpl

        class Absent(Backend):
            name = "absent"
            kernels = Kernels()
            def devices(self): raise Unavailable("no chip answers", "plug one in")

        class Empty(Backend):
            name = "empty"
            kernels = Kernels()
            def devices(self): return []

        @hookimpl
        def hal_backends(): return [Absent(), Empty()]
        """,
    "plug-wrong": """
        import numpy as np
        from hal import ops
        from hal.plugin import Backend, Device, Kernels, hookimpl

        kernels = Kernels()

        @kernels.register(ops.matmul)
        def matmul(a, b): return a @ b + 1

        class Wrong(Backend):
            name = "wrong"
            kernels = kernels
            def devices(self): return [Device(self)]
            def upload(self, array, device): return array.copy()
            def download(self, buffer, spec): return buffer.copy()

        class Lost(Wrong):
            name = "lost"
            kernels = Kernels()
            def upload(self, array, device): raise OSError("the cable\\nis unplugged")

        class Torn(Wrong):
            name = "torn"
            kernels = Kernels()
            def devices(self): raise KeyError("driver")

        @hookimpl
        def hal_backends(): return [Wrong(), Lost(), Torn()]
        """,
    "plug-broken": "def deep():\n    raise RuntimeError('boom')\ndeep()\n",
    "plug-new": "hal_api = 99\n",
    "plug-commands": """
        import click
        from hal.errors import DataError
        from hal.plugin import hookimpl

        ERRORS = {
            "data": DataError("the file is gone"), "memory": MemoryError("8 EiB"), "bug": ZeroDivisionError("a bug"),
            "file": FileNotFoundError(2, "No such file or directory", "/no/such"), "disk": OSError(28, "No space left"),
        }

        @click.command()
        @click.argument("kind")
        def fail(kind):
            "Fail in some way."
            raise ERRORS[kind]

        @click.command()
        def env():
            "Would hide a command of hal's own."

        @hookimpl
        def hal_commands(): return [fail, env]
        """,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `pip install` of the plugins above would leave there."""
    folder = tmp_path_factory.mktemp("site")
    for name, code in PLUGINS.items():
        module = name.replace("-", "_")
        (folder / f"{module}.py").write_text(textwrap.dedent(code))
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[hal]\n{name} = {module}\n")
    return folder


WITH_HAL = ("cuda", "opencl", "systolic")  # devices that come with HAL and are there on some machines


def run(site: Path | None, *args: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("HAL_")} | variables
    if site is not None:
        env["PYTHONPATH"] = str(site)
    done = subprocess.run([sys.executable, "-m", "hal", *args], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def here(*args: str) -> Result:
    """Run in this process."""
    return CliRunner().invoke(cli, args)


# hal devices


def test_devices_are_tried_and_what_is_wrong_is_said(site: Path) -> None:
    done = run(site, "devices")
    assert not done.stderr
    title, *lines = done.stdout.splitlines()
    assert title.split() == ["device", "check", "native", "ops"]
    table = {line.split()[0]: line for line in lines[:-2] if line.split()[0].partition(":")[0] not in WITH_HAL}
    total = len(ops.TABLE)
    assert re.fullmatch(rf"cpu +PASS +\d+ of {total} +the default", table.pop("cpu"))
    said = {
        "good:0": rf"PASS +0 of {total}",
        "good:1": rf"PASS +0 of {total}",
        "absent": r"none +no chip answers; plug one in",
        "empty": r"none +the backend found no device",
        "wrong": rf"FAIL +1 of {total} +a product .* came out as \[\[6\.0, 15\.0\], .*, not \[\[5\.0, 14\.0\], .*",
        "lost": rf"FAIL +0 of {total} +\w+: .*the cable is unplugged.*",
        "torn": r"FAIL +it failed to list its devices: KeyError: 'driver'",
        "plug-broken": r"FAIL +left out: it cannot be imported: RuntimeError\('boom'\); upgrade or .* plug-broken",
        "plug-new": r"FAIL +left out: it was built for plugin API 99, this hal speaks 1: upgrade hal-runtime",
    }
    assert table.keys() == said.keys()
    for name, form in said.items():
        assert re.fullmatch(rf"{name} +{form}", table[name]), table[name]
    starts = {line.index(word) for line in table.values() for word in ("PASS", "FAIL", "none") if f" {word}" in line}
    assert len(starts) == 1  # aligned
    assert lines[-1] == "`hal devices -v` shows the tracebacks"


def test_devices_in_full_show_tracebacks_and_sources(site: Path) -> None:
    said = run(site, "devices", "-v").stdout
    assert "\nplug-broken\n  from: plugin plug-broken of plug-broken 1.0\n" in said
    assert re.search(r"  Traceback .*\n(?:.*\n)*?.*in deep\n(?:.*\n)*?  RuntimeError: boom\n", said)
    assert re.search(r"\nlost\n  from: plugin plug-wrong of plug-wrong 1\.0\n(?:.*\n)*?.*in upload\n", said)
    assert re.search(r"\ngood:1\n(?:  .*\n)*?  driver: 7\.0\n  memory: \[1\] GiB\n", said)
    assert re.search(r"\nfake +PASS", said)  # of no use but for tests, so that the short list is without it
    assert "\n  dtypes: bool, int8, int16, " in said


def test_devices_as_json_have_all_of_it(site: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run(site, "devices", "--json").stdout)}
    assert rows["cpu"]["default"]
    assert rows["cpu"]["status"] == rows["good:1"]["status"] == "PASS"
    assert rows["good:1"]["facts"] == {"driver": "7.0", "memory": "[1] GiB"}
    assert (rows["absent"]["status"], rows["absent"]["detail"]) == ("none", "no chip answers; plug one in")
    assert "in deep" in rows["plug-broken"]["trace"]
    assert rows["plug-broken"]["source"] == "plugin plug-broken of plug-broken 1.0"
    assert "cable" in rows["lost"]["trace"]
    assert rows["fake"]["for_tests"]
    assert not rows["cpu"]["for_tests"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("absent", "HAL_BACKEND=absent: device 'absent' was asked for, but no chip answers; plug one in"),
        ("goood", "HAL_BACKEND=goood: there is no backend 'goood'"),
        (
            "plug-broken",
            "backend 'plug-broken' cannot be used: plugin plug-broken of plug-broken 1.0 cannot be imported",
        ),
    ],
)
def test_a_default_that_cannot_be_had_is_an_error_below_the_table(site: Path, wanted: str, said: str) -> None:
    for options in ([], ["--json"]):
        done = run(site, "devices", *options, code=1, HAL_BACKEND=wanted)
        assert done.stderr.startswith(
            f"Error: {said}" if said.startswith("HAL") else "Error: HAL_BACKEND=plug-broken: "
        )
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert "good:0" in done.stdout
        assert "the default" not in done.stdout


def test_a_device_for_tests_is_listed_when_it_is_the_default() -> None:
    assert re.search(r"\nfake +PASS +\d+ of \d+  the default\n", run(None, "devices", HAL_BACKEND="fake").stdout)
    assert "fake" not in run(None, "devices").stdout


def test_devices_of_odd_names_and_numbers_are_aligned() -> None:
    with Fake("chip", count=3).registered(), Fake("a-chip-with-a-rather-long-name", fail_after=0).registered():
        lines = here("devices", "-v").stdout.split("\n\n")[0].splitlines()
    at = lines[0].index("check")
    assert {line[at - 2 : at] for line in lines} == {"  "}
    assert {line[at : at + 4] for line in lines[1:]} <= {"PASS", "FAIL", "none"}
    assert sum(line.startswith("chip:") for line in lines) == 3


def on_a_terminal(columns: int, *args: str, **variables: str) -> list[str]:
    """The lines that a terminal of that width is given, without colours."""
    pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX's")
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **variables}
    process = subprocess.Popen([sys.executable, "-m", "hal", *args], stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, shown
    assert b"Traceback (most recent call last)" not in shown or "-v" in args
    text = shown.decode()
    if args[0] == "devices":
        assert ("\x1b[" in text) == ("NO_COLOR" not in variables)
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


@pytest.mark.parametrize(
    "command", ["devices", "env", "ops", "ops conv2d", "ops --device cpu", "--help", "train --help"]
)
def test_what_is_printed_fits_eighty_columns(site: Path, command: str) -> None:
    lines = on_a_terminal(80, *command.split(), PYTHONPATH=str(site))
    assert max(map(len, lines)) <= 80, [line for line in lines if len(line) > 80]


def test_colours_can_be_left_out() -> None:
    assert any(re.match(r"cpu +PASS ", line) for line in on_a_terminal(80, "devices", NO_COLOR="1"))


# hal env


def test_env_says_what_a_bug_report_needs(site: Path) -> None:
    done = run(site, "env", HAL_BACKEND="good:1", HAL_LOG="")
    facts = dict(line.split(maxsplit=1) for line in done.stdout.split("\n\n")[0].splitlines())
    assert facts["hal"] == hal.__version__
    assert facts["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert "numpy" in facts["libraries"]
    assert "plug-good plug-good 1.0" in facts["plugins"]
    assert "plug-broken: cannot be imported: RuntimeError('boom')" in facts["problems"]
    assert "good:1" in facts["devices"]
    assert facts["variables"] == "HAL_BACKEND=good:1"
    for name in config.VARIABLES:
        assert f"\n  {name} " in done.stdout


def test_env_as_json_is_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    facts = json.loads(here("env", "--json").stdout)
    assert facts["variables"]["HAL_CACHE_DIR"] == facts["cache"] == str(tmp_path)
    assert {"hal", "python", "platform", "cpus", "libraries", "plugins", "problems", "devices"} <= facts.keys()


def test_env_lists_plugins_without_a_package(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def hal_commands(): return []\n")
    facts = json.loads(run(None, "env", "--json", HAL_PLUGIN_PATH=str(tmp_path)).stdout)
    assert facts["plugins"]["mine"] == str(tmp_path / "mine.py")


# hal ops


def test_ops_lists_the_whole_table() -> None:
    said = here("ops").stdout
    listed = [line.split()[0] for line in said.splitlines() if line.startswith("  ") and not line.startswith("   ")]
    assert sorted(listed) == sorted(ops.TABLE)
    primitives = [op for op in ops.TABLE.values() if op.is_primitive]
    assert said.endswith(f"\n{len(ops.TABLE)} ops, {len(primitives)} of them primitives\n")
    assert re.search(r"\n  softmax +\(x, axis=-1\)\n", said)
    assert re.search(r"\n  floor +\(x\)  primitive, no gradient\n", said) or re.search(
        r"\n  floor +\(x\)  primitive\n", said
    )


def test_ops_as_json_are_records() -> None:
    records = {r["op"]: r for r in json.loads(here("ops", "--json", "--device", "cpu").stdout)}
    assert records.keys() == ops.TABLE.keys()
    softmax = records["softmax"]
    assert (softmax["inputs"], softmax["settings"], softmax["level"]) == (["x"], {"axis": "-1"}, "composite")
    assert (softmax["device"], softmax["runs"]) == ("cpu", "native")
    assert {r["gradient"] for r in records.values()} == {"own", "by decomposition", "none"}


def test_primitives_alone() -> None:
    records = json.loads(here("ops", "--primitives", "--json").stdout)
    assert {r["level"] for r in records} == {"primitive"}
    assert len(records) <= 30


def test_ops_of_a_device_say_how_it_runs_them() -> None:
    said = here("ops", "--device", "template").stdout
    assert re.search(r"\n  matmul +native", said) or re.search(r"\n  \w+ +native", said)
    counts = re.search(rf"{len(ops.TABLE)} ops, .*; on template: 1 native, (\d+) decomposed, (\d+) fallback\n", said)
    assert counts is not None
    assert 1 + int(counts[1]) + int(counts[2]) == len(ops.TABLE)


def test_one_op_is_shown_with_its_words() -> None:
    said = here("ops", "layer_norm", "--device", "cpu").stdout
    title, doc, facts = said.split("\n\n")
    assert title == "layer_norm(x, weight?, bias?, dims=1, eps=1e-05)" or title.startswith(
        "layer_norm(x, weight?, bias?, "
    )
    assert " ".join((ops.layer_norm.doc or "").split()) == doc
    assert [line.split()[0] for line in facts.splitlines()] == ["kind", "level", "gradient", "tolerance", "on"]
    assert json.loads(here("ops", "layer_norm", "--json").stdout)[0]["op"] == "layer_norm"


# The whole.


def test_both_ways_to_call_it_are_the_same() -> None:
    script = shutil.which("hal", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("needs hal to be installed: pip install -e .")
    there = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert there.stdout == run(None, "--help").stdout
    assert re.search(r"(?s)\n  devices .*\n  env .*\n  ops .*\n  train ", there.stdout)


@pytest.mark.parametrize(
    ("command", "stays_out"),
    [
        (["--version"], {"nn", "hal_cpu", "rich"}),
        (["--help"], {"nn.everything", "nn.module", "nn.functional", "nn.train.run", "hal_cpu.table", "rich"}),
        (["train", "--help"], {"nn.module", "nn.train.run", "hal_cpu.table", "rich"}),
        (["ops", "add"], {"nn.module", "rich"}),
    ],
)
def test_a_command_imports_no_more_than_it_needs(command: list[str], stays_out: set[str]) -> None:
    call = "from hal.cli import main\ntry:\n    main()\nfinally:\n    print(*sys.modules)"
    code = f"import sys\nsys.argv[1:] = {command}\n{call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert not stays_out & set(loaded)
    assert ("hal_cpu" in loaded) == (command != ["--version"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trian", r"there is no command 'trian'; there are .*conform, .*env, .*ops, .*train; did you mean train\?"),
        ("device", r"there is no command 'device'; .*did you mean devices\?"),
        ("conquer", r"there is no command 'conquer'; there are .*conform, .*env, .*ops, .*train"),
        ("--vresion", r"No such option:? '?--vresion'?.*--version"),
        ("devices --jsn", r"No such option:? '?--jsn'?.*--json"),
        ("devices cpu", r"Got unexpected extra argument \(cpu\)"),
        ("env --jsno", r"No such option:? '?--jsno'?.*--json"),
        ("ops --divice cpu", r"No such option:? '?--divice'?.*--device"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_right_one(arguments: str, said: str) -> None:
    done = here(*arguments.split())
    assert done.exit_code == 2
    assert not done.stdout
    assert re.search(rf"^Error: {said}", done.stderr, re.MULTILINE), done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("ops matmull", r"there is no op 'matmull' in the table of \d+; did you mean matmul"),
        ("ops xyzzy", r"there is no op 'xyzzy' in the table of \d+; `hal ops` lists them"),
        ("ops --device cpuu", r"there is no backend 'cpuu'; .*did you mean cpu\?"),
    ],
)
def test_a_name_that_is_not_there_is_an_error(arguments: str, said: str) -> None:
    done = here(*arguments.split())
    assert done.exit_code == 1
    assert not done.stdout
    assert re.match(rf"Error: {said}", done.stderr)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("data", "Error: the file is gone\n"),
        ("memory", "Error: out of memory: 8 EiB; smaller batches need less\n"),
        ("file", "Error: /no/such: No such file or directory; check the path and the room on its disk\n"),
        ("disk", "Error: No space left; check the path and the room on its disk\n"),
    ],
)
def test_what_a_command_raises_on_purpose_is_told_in_one_line(site: Path, kind: str, said: str) -> None:
    assert run(site, "fail", kind, code=1).stderr == said


def test_a_bug_keeps_its_traceback(site: Path) -> None:
    assert run(site, "fail", "bug", code=1).stderr.startswith("Traceback")


def test_commands_of_plugins_are_listed_and_hide_none_of_ours(site: Path) -> None:
    said = run(site, "--help").stdout
    assert re.search(r"\n  fail +Fail in some way\.", said)
    assert "hide" not in said
    missing = run(site, "conquer", code=2).stderr
    assert "(plugins that were left out: plug-broken, plug-new; `hal devices` says why)" in missing


def test_a_pipe_that_is_closed_early_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "hal", "ops"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert "Traceback" not in said


def test_every_command_has_help_and_json() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options or isinstance(command, click.Group), name
        unexplained = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
        assert not unexplained, name
