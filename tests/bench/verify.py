"""Verifies a device from a checkout: conformance, parity with torch, benchmarks beside the peers; one JSON, one page.

    scripts/verify_device.sh cuda                          # everything, into docs/measured/
    scripts/verify_device.sh cuda --quick                  # the same in a few minutes: to see that it works
    scripts/verify_device.sh cuda --part matmul --out DIR  # one part, into another folder
    scripts/verify_device.sh --join DIR/*.json             # the parts of several runs in one report
    scripts/verify_device.sh cuda --wheels DIR             # first install, from a folder, what is missing here

Needs Python 3.11, NumPy and the few packages that HAL itself needs; no network, and no HAL that is installed. Each part
runs in processes of its own, for so many minutes at most: what fails or takes too long is told in the report, and the
others go on. With `--wheels` the packages of that folder that cannot be imported here are unpacked beside the others
for this run alone; `pip download --no-deps --dest DIR NAME...` fills it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from verify_page import page

ROOT = Path(__file__).resolve().parents[2]
BENCH = Path(__file__).resolve().parent
PACKAGES = (
    "numpy", "torch", "torchvision", "cupy-cuda13x", "nvidia-cudnn-cu13", "nvidia-cudnn-frontend", "nvmath-python",
    "jax", "ml_dtypes", "pyopencl", "triton",
)  # fmt: skip
NEEDED = {"numpy": "numpy", "pluggy": "pluggy", "click": "click", "ml_dtypes": "ml_dtypes", "rich": "rich",
          "safetensors": "safetensors"}  # fmt: skip
FOR_TESTS = {"pytest": "pytest", "hypothesis": "hypothesis", "torch": "torch", "expecttest": "expecttest"}
MEASURES = ("memory", "matmul", "elementwise", "rows", "convolution", "attention", "steps")
MINUTES = {"conform": 20.0, "layers": 12.0, "samples": 12.0, "steps": 16.0}  # at most; the others 6
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POCL_MAX_PTHREAD_COUNT")
RESTARTS = 4  # of a benchmark that takes its process down


class Run:
    """One run of this script: its options, where it writes, and what came of each part so far."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.device: str = given.device
        self.quick: bool = given.quick
        self.jobs: int = given.jobs
        self.minutes: float | None = given.minutes
        self.folder = folder
        self.env = environment(self.device, folder, given.wheels, given.threads)

    def seconds(self, part: str) -> float:
        """How long a part may take."""
        found = self.minutes or MINUTES.get(part, 6.0) / (4 if self.quick else 1)
        return found * 60

    def stream(
        self, command: list[str], seconds: float, told: Callable[[str], str | None], env: dict[str, str] | None = None
    ) -> tuple[int | None, list[str]]:
        """Run a command: its exit code, None if it was ended after so many seconds, and all its lines.

        What `told` makes of a line is printed.
        """
        process = subprocess.Popen(
            command, cwd=ROOT, env=self.env | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
        late = threading.Event()

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, end)
        timer.start()
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            words = told(lines[-1])
            if words:
                print(f"  {words}", flush=True)
        code = process.wait()
        timer.cancel()
        return (None if late.is_set() else code), lines


def environment(device: str, folder: Path, wheels: Path | None, threads: int | None) -> dict[str, str]:
    """The variables of every process: this checkout as an installed package would be, and no setting of the user's."""
    info = folder / "site" / "hal_runtime-0.0.0.dist-info"
    info.mkdir(parents=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = "".join(f"{name} = {module}\n" for name, module in project["entry-points"]["hal"].items())
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[hal]\n{entries}")
    path = [str(ROOT), str(ROOT / "backends")]
    if not any(True for d in metadata.distributions() if d.name == project["name"]):
        path.append(str(info.parent))
    if wheels is not None:
        path.append(str(unpacked(wheels, folder / "wheels")))
    kept = ("HAL_CACHE_DIR", "HAL_OPENCL_DEVICES", "HAL_CUDA_TF32")
    env = {k: v for k, v in os.environ.items() if not k.startswith("HAL_") or k in kept}
    more = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return env | {
        "PYTHONPATH": os.pathsep.join([*path, *more]),
        "PYTHONUNBUFFERED": "1",
        "HAL_FALLBACK": "allow",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **({} if device.partition(":")[0] == "cuda" else {"JAX_PLATFORMS": "cpu"}),
        **(dict.fromkeys(THREADS, str(threads)) if threads else {}),
    }


def unpacked(wheels: Path, target: Path) -> Path:
    """The folder into which those wheels were installed whose packages are not here."""
    missing = [w for w in sorted(wheels.glob("*.whl")) if not is_here(w.name.split("-")[0])]
    if missing:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        done = subprocess.run(
            [*command, "--target", str(target), *map(str, missing)], capture_output=True, text=True, check=False
        )
        print(done.stderr.strip() or f"installed for this run: {', '.join(w.name.split('-')[0] for w in missing)}")
    target.mkdir(exist_ok=True)
    sys.path.append(str(target))
    importlib.invalidate_caches()
    return target


def is_here(distribution: str) -> bool:
    """Whether a package is installed."""
    try:
        return bool(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return False


def missing(table: dict[str, str]) -> list[str]:
    """The packages of a table that cannot be imported."""
    return [package for module, package in table.items() if importlib.util.find_spec(module) is None]


# The parts.


def conform(run: Run) -> dict[str, Any]:
    """The conformance suite, in as many processes as `--jobs` says."""
    file = run.folder / "conform.json"
    command = [sys.executable, str(BENCH / "verify_conform.py"), run.device, "--json", str(file)]
    command += ["--jobs", str(run.jobs), "--seconds", str(run.seconds("conform") - 15), *(["--quick"] * run.quick)]
    code, lines = run.stream(command, run.seconds("conform"), lambda line: line)
    if not file.is_file():
        return {"status": "failed", "why": ended(code), "log": lines[-40:]}
    return json.loads(file.read_text())


def parity(name: str, *paths: str) -> Callable[[Run], dict[str, Any]]:
    """A part that runs the tests of these folders that compare with torch, with the device as HAL's."""

    def part(run: Run) -> dict[str, Any]:
        absent = missing(FOR_TESTS)
        if absent:
            return {"status": "skipped", "why": f"needs {', '.join(absent)}"}
        command = [sys.executable, "-m", "pytest", "-v", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
        command += ["-W", "default"]  # of versions that HAL was not written with, warnings are no failures
        command += ["-m", "oracle", "--device", run.device, *paths]
        if importlib.util.find_spec("xdist") is not None:
            command += ["-n", str(run.jobs), "--dist", "worksteal"]
        outcomes: dict[str, str] = {}
        shown = [time.monotonic()]

        def told(line: str) -> str | None:
            found = re.search(r"\b(PASSED|FAILED|SKIPPED|ERROR|XFAIL)\b", line)
            case = re.search(r"tests/\S+::.*?(?= (?:PASSED|FAILED|SKIPPED|ERROR|XFAIL)\b| *$| \[ *\d+%\])", line)
            if found is None or case is None or " - " in line:
                return line if line.startswith(("E   ", "opencl:", "cuda:")) and "FAILED" in outcomes.values() else None
            outcomes[case[0].strip()] = found[1]
            if time.monotonic() - shown[0] < 10 and found[1] != "FAILED":
                return None
            shown[0] = time.monotonic()
            failed = sum(o in ("FAILED", "ERROR") for o in outcomes.values())
            return f"{len(outcomes)} tests, {failed} failed" + (f": {case[0]}" if found[1] == "FAILED" else "")

        code, lines = run.stream(command, run.seconds(name), told, {"OMP_NUM_THREADS": "1"})
        counts: dict[str, int] = {}
        for outcome in outcomes.values():
            counts[outcome.lower()] = counts.get(outcome.lower(), 0) + 1
        why = {m[2]: m[3] for line in lines if (m := re.match(r"(FAILED|ERROR) (tests/.*?) - (.*)", line))}
        failures = {case: why.get(case, "") for case, o in outcomes.items() if o in ("FAILED", "ERROR")}
        passed = code == 0 and not failures
        found: dict[str, Any] = {"status": "passed" if passed else "failed", "counts": counts, "failures": failures}
        found["notes"] = [line for line in lines if "samples of" in line or re.search(r"\d+ left out", line)]
        return found if code in (0, 1) else found | {"why": ended(code), "log": lines[-40:]}

    return part


def measure(name: str) -> Callable[[Run], dict[str, Any]]:
    """A part that times contenders in turn; one that takes the process down is left out of that row."""

    def part(run: Run) -> dict[str, Any]:
        rows_file, skipped, why, code = run.folder / f"{name}.jsonl", [], "", None
        end = time.monotonic() + run.seconds(name)
        for _ in range(RESTARTS):
            left = end - time.monotonic()
            if left < 5:
                break
            command = [sys.executable, str(BENCH / "verify_measure.py"), name, run.device, "--rows", str(rows_file)]
            command += ["--seconds", str(left - 2), *(["--quick"] * run.quick)]
            for row, contender in skipped:
                command += ["--skip", f"{row}|{contender}"]
            code, lines = run.stream(command, left + 10, lambda line: line[3:] if line.startswith(":: ") else None)
            why = "" if code == 0 else ended(code)
            if not code:
                break
            events = [json.loads(line) for line in rows_file.read_text().splitlines()] if rows_file.is_file() else []
            trying = next((e for e in reversed(events) if "trying" in e), None)
            if trying is None or code == 1:
                return {"status": "failed", "why": why, "rows": rows_of(events), "log": lines[-40:]}
            skipped.append((trying["trying"], trying["contender"]))
            print(f"  {why} in {trying['trying']} by {trying['contender']}: goes on without it", flush=True)
        events = [json.loads(line) for line in rows_file.read_text().splitlines()] if rows_file.is_file() else []
        rows = rows_of(events)
        wrong = [f"{r['name']}: {k}: {v}" for r in rows for k, v in r["errors"].items() if k.startswith("hal")]
        died = [f"{row}: {contender} took the process down" for row, contender in skipped]
        ours = [words for words, (_, contender) in zip(died, skipped, strict=True) if contender.startswith("hal")]
        late = code is None or any(not r["times"] and r["note"] for r in rows)
        status = "failed" if wrong or ours or (why and not late) else "unfinished" if late else "passed"
        return {"status": status, "why": why, "rows": rows, "notes": died}

    return part


def rows_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The finished rows of a file of events."""
    return [e for e in events if "times" in e]


def ended(code: int | None) -> str:
    """How a process ended, for people."""
    if code is None:
        return "took longer than it may"
    return f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


PARTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "conform": conform,
    "layers": parity("layers", "tests/layers", "tests/core/test_functions_torch.py"),
    "samples": parity("samples", "tests/oracles/test_opinfo.py", "-k", "test_each_device"),
    **{name: measure(name) for name in MEASURES},
}


# The report.


def machine(run: Run, given: argparse.Namespace, asked: list[str]) -> dict[str, Any]:
    """What everything was measured on, and from what."""
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in PACKAGES if is_here(name)}
    code = "import hal, json; d = hal.device({0!r}); print(json.dumps({{'device': str(d), **d.backend.describe(d)}}))"
    done = subprocess.run(
        [sys.executable, "-c", code.format(run.device)], env=run.env, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.strip()]
        sys.exit(f"there is no device {run.device}: {told[-1] if told else ended(done.returncode)}")
    words = shlex.join(asked)
    return {
        "device": run.device,
        "description": json.loads(done.stdout.splitlines()[-1].replace(str(Path.home()), "~")),
        "gpu": said(
            "nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"
        ),
        "host": f"{platform.platform()}, {os.cpu_count()} processors, {processor()}",
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions,
        "commit": given.commit or said("git", "-C", str(ROOT), "rev-parse", "HEAD") or "unknown",
        "changed": bool(said("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": f"scripts/verify_device.sh {words}",
        "quick": run.quick,
    }


def said(*command: str) -> str:
    """What a command prints, or nothing where there is none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def processor() -> str:
    """The name of the host's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def write(report: dict[str, Any], out: Path) -> list[Path]:
    """Write the JSON and the page, named by device and date."""
    out.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", report["device"]) + "-" + report["date"].split()[0] + ("-quick" * report["quick"])
    files = [out / f"{name}.json", out / f"{name}.html"]
    files[0].write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    files[1].write_text(page(report), encoding="utf-8")
    return files


def joined(files: list[Path]) -> dict[str, Any]:
    """One report of several runs on one device: of a part that is in more than one, the last."""
    reports = [json.loads(file.read_text()) for file in files]
    report = reports[0]
    for other in reports[1:]:
        if other["device"] != report["device"]:
            sys.exit(f"{files[0]} is about {report['device']}, another one about {other['device']}")
        report["command"] += f"; {other['command']}"
        if other["commit"] != report["commit"]:
            for part in other["parts"].values():
                part["notes"] = [f"at commit {other['commit']}", *part.get("notes", [])]
        report["parts"] |= other["parts"]
    report["parts"] = {name: report["parts"][name] for name in PARTS if name in report["parts"]}
    return report


def main() -> None:
    """Run the parts that are asked for, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", nargs="?", help="a device of hal, such as cuda, cuda:1, opencl, cpu")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be given several times")
    parser.add_argument("--quick", action="store_true", help="a few minutes: a part of the cases, small sizes")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured", help="where the two files go")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1), help="processes for the tests")
    parser.add_argument("--threads", type=int, help="of every library, on a CPU that others use too (default: theirs)")
    parser.add_argument("--minutes", type=float, help="the most that each part may take")
    parser.add_argument("--wheels", type=Path, help="a folder with wheels of what may be missing here")
    parser.add_argument("--commit", help="what was measured, where git cannot tell")
    parser.add_argument("--join", type=Path, nargs="+", metavar="JSON", help="make one report of several, run nothing")
    given = parser.parse_args()
    if given.join:
        print(*write(joined(given.join), given.out), sep="\n")
        return
    if given.device is None:
        parser.error("name a device, such as cuda")
    with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
        run = Run(given, Path(scratch))
        absent = missing(NEEDED)
        if absent:
            sys.exit(
                f"HAL needs {', '.join(absent)}, which {sys.executable} does not have: pip install them, or fetch "
                "their wheels elsewhere (pip download --no-deps --dest DIR) and say --wheels DIR"
            )
        report: dict[str, Any] = machine(run, given, sys.argv[1:]) | {"parts": {}}
        print(f"{report['device']} at {report['commit'][:12]}, {report['date']}", flush=True)
        failed = False
        for name in given.part or PARTS:
            print(f"{name}: at most {run.seconds(name) / 60:.0f} min", flush=True)
            start = time.monotonic()
            try:
                found = PARTS[name](run)
            except Exception as error:  # whatever it is, the other parts are still worth running
                found = {"status": "failed", "why": repr(error)}
            found["seconds"] = round(time.monotonic() - start, 1)
            failed |= found["status"] == "failed"
            report["parts"][name] = found
            files = write(report, given.out)
            why = f": {found['why']}" if found.get("why") else ""
            print(f"{name}: {found['status']}{why}, {found['seconds']:.0f} s", flush=True)
    print(*files, sep="\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
