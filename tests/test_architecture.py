"""Who may import whom, and the other rules that hold for every file: what a reader may rely on anywhere in the tree."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BACKENDS = sorted(path.parent.name for path in ROOT.glob("backends/*/__init__.py"))
NOT_OURS = {"__pycache__", "build", "dist", "node_modules", "runs", "site"}
TEXT = {".cfg", ".cl", ".cu", ".h", ".html", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml", ""}


def files(*suffixes: str) -> Iterator[Path]:
    """Every file of the project with one of these suffixes, the hidden folder of the checks included."""
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = sorted(n for n in subfolders if n not in NOT_OURS and (n == ".ci" or not n.startswith(".")))
        yield from (Path(folder, name) for name in sorted(names) if Path(name).suffix in suffixes)


def where(path: Path, node: ast.AST | None = None) -> str:
    """`file:line` as an editor opens it."""
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def parsed(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """The syntax trees of the Python files below these folders, or of all."""
    for path in files(".py"):
        if not folders or path.relative_to(ROOT).parts[0] in folders:
            yield path, ast.parse(path.read_text(encoding="utf-8"), str(path))


# --- who imports whom -------------------------------------------------------------------------------------------------


def lint_imports(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the packages found from `folder`, under the contracts of `config`."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    paths = os.pathsep.join([str(folder), str(folder / "backends")])
    return subprocess.run(
        [*command, "--config", str(config), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_import_contracts_are_kept() -> None:
    result = lint_imports(ROOT, ROOT / "pyproject.toml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("hal/tensor.py", "import nn", "hal imports neither nn nor a backend"),
        ("hal/device.py", "from hal_cpu import kernels", "hal imports neither nn nor a backend"),
        ("nn/linear.py", "import hal_cpu", "nn imports only hal"),
        ("backends/hal_cpu/kernels.py", "from hal import tensor", "a backend imports the plugin door and the op table"),
        ("backends/hal_cpu/kernels.py", "import nn.linear", "a backend imports the plugin door and the op table"),
        ("backends/hal_cpu/kernels.py", "from hal.plugin import x\nfrom hal.ops import add\nfrom hal import ops", ""),
    ],
)
def test_the_import_contracts_see_a_forbidden_import(tmp_path: Path, file: str, line: str, contract: str) -> None:
    sources = {"hal/__init__.py", "hal/plugin.py", "hal/ops/__init__.py", "hal/tensor.py", "hal/device.py"}
    sources |= {"nn/__init__.py", "nn/linear.py"}
    sources |= {f"backends/{name}/{part}.py" for name in BACKENDS for part in ("__init__", "kernels")}
    for source in sources:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / source).write_text(line if source == file else "", encoding="utf-8")

    result = lint_imports(tmp_path, ROOT / "pyproject.toml")

    broken = re.findall(r"^(.+) BROKEN", result.stdout, re.MULTILINE)
    assert broken == ([contract] if contract else []), result.stdout + result.stderr
    assert result.returncode == (1 if contract else 0)


def test_every_backend_is_under_contract_and_in_the_wheel() -> None:
    assert "hal_cpu" in BACKENDS
    linter = PROJECT["tool"]["importlinter"]
    assert sorted(linter["root_packages"]) == sorted(["hal", "nn", *BACKENDS])
    contracts = {contract["id"]: contract for contract in linter["contracts"]}
    for contract, key in [("hal", "forbidden_modules"), ("nn", "forbidden_modules"), ("backends", "source_modules")]:
        assert set(BACKENDS) <= set(contracts[contract][key]), f"contract {contract!r}: {key}"
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(packages) == sorted(["hal", "nn", "hal_pytest", *(f"backends/{name}" for name in BACKENDS)])
    assert set(BACKENDS) <= set(PROJECT["project"]["entry-points"]["hal"].values())


def outermost_imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """The top-level packages that importing this module imports: not those inside functions or for type checkers."""
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.Import):
            yield from ((node, alias.name.partition(".")[0]) for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node, str(node.module).partition(".")[0]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def test_importing_hal_and_nn_needs_only_the_declared_dependencies() -> None:
    declared = {re.match(r"[\w.-]+", line)[0].replace("-", "_") for line in PROJECT["project"]["dependencies"]}
    strangers = []
    for path, tree in parsed("hal", "nn"):
        allowed = {"hal", "nn", *declared, *sys.stdlib_module_names}
        if "testing" in path.relative_to(ROOT).parts:
            allowed.add("pytest")  # the conformance suite is a pytest suite: whoever runs it has pytest
        strangers += [f"{where(path, node)}: {name}" for node, name in outermost_imports(tree) if name not in allowed]
    assert not strangers, "import an optional package inside the function that needs it:\n" + "\n".join(strangers)


# --- no hardware by name outside backends/ ----------------------------------------------------------------------------

HARDWARE = {"cpu", "cuda", "gpu", "opencl", "systolic", "tpu", *(name.removeprefix("hal_") for name in BACKENDS)}


def hardware_decisions(tree: ast.Module) -> Iterator[ast.AST]:
    """Places where code takes a different way by the name of a device."""

    def names_hardware(node: ast.AST) -> bool:
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return any(names_hardware(element) for element in node.elts)
        return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.split(":")[0] in HARDWARE

    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=others):
                asked = [left, *others]
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith"), args=arguments):
                asked = arguments
            case ast.MatchValue(value=value):
                asked = [value]
            case _:
                asked = []
        if any(map(names_hardware, asked)):
            yield node


def test_no_decision_by_device_name_outside_backends() -> None:
    found = [where(path, node) for path, tree in parsed("hal", "nn") for node in hardware_decisions(tree)]
    assert not found, "ask the device what it can do, not what it is called:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        'if device.type == "cuda": pass',
        'if "opencl:0" != name: pass',
        'if name in ("cpu", "tpu"): pass',
        'if name.startswith("cuda"): pass',
        'match name:\n    case "systolic": pass',
    ],
)
def test_a_decision_by_device_name_is_seen(line: str) -> None:
    assert len(list(hardware_decisions(ast.parse(line)))) == 1


def test_a_device_name_as_data_is_no_decision() -> None:
    assert not list(hardware_decisions(ast.parse('tensor.to("cpu"); names = {"cpu": 1}; name == "relu"')))


# --- every file -------------------------------------------------------------------------------------------------------


def test_every_python_file_opens_with_what_it_is_for() -> None:
    silent = [where(path) for path, tree in parsed() if not ast.get_docstring(tree)]
    assert not silent, "no docstring on top of:\n" + "\n".join(silent)


def test_the_test_folders_are_no_packages() -> None:
    found = [where(path) for path in ROOT.glob("tests/**/__init__.py")]
    assert not found, "a test package can shadow the package it tests; remove:\n" + "\n".join(found)


def test_no_file_names_a_machine() -> None:
    machine = re.compile(r"(?<![\w./~-])/(?:home|mnt|opt|root|Users|work)/\w")
    found = []
    for path in files(*TEXT):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if machine.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found, "paths of one machine:\n" + "\n".join(found)


def exceptions(*kinds: str) -> Iterator[tuple[Path, int, str]]:
    """Every line in which a checker is told to look away."""
    told = re.compile(r"# (?:ruff: )?(?:" + "|".join(kinds) + ")")
    for path in files(".py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if told.search(line) and path != Path(__file__).resolve():
                yield path.relative_to(ROOT), number, line.strip()


def test_every_exception_from_a_check_says_which_and_why() -> None:
    reasoned = re.compile(r"(?:noqa: [A-Z]+\d+(?:, [A-Z]+\d+)*|ignore\[[\w, -]+\])  # \S")
    found = [f"{p}:{n}: {line}" for p, n, line in exceptions("noqa", "type: ignore", "pyright: ignore")
             if not reasoned.search(line)]  # fmt: skip
    assert not found, "write `# noqa: X  # why`:\n" + "\n".join(found)


def test_no_checker_is_silenced_where_none_reads() -> None:
    found = [f"{p}:{n}: {line}" for p, n, line in exceptions("type: ignore", "pyright: ignore") if "tests" in p.parts]
    assert not found, "types of tests are not checked:\n" + "\n".join(found)


def test_every_package_is_typed() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    untyped = [package for package in packages if not (ROOT / package / "py.typed").is_file()]
    assert not untyped
