"""Runs the conformance suite on a device: levels in order, cases in a worker, all that comes of them in a report."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from hal.config import did_you_mean
from hal.device import Device
from hal.errors import ConfigError
from hal.testing.case import Outcome
from hal.testing.report import NotRun, Report, Result
from hal.testing.running import Listed, Opened, Runner, environment
from hal.testing.worker import Worker, WorkerDied

Progress = Callable[[str, int, int, Result | None], None]
BATCH = 200
PATIENCE = 120.0  # seconds for one case
DEATHS = 25  # workers that may die before the rest of a level is given up


def run(
    device: str | Device,
    levels: Iterable[str] | None = None,
    ops: Iterable[str] | None = None,
    in_process: bool = False,
    progress: Progress | None = None,
    *,
    cases: Iterable[str] | None = None,
    register: Iterable[str] = (),
    timeout: float = PATIENCE,
) -> Report:
    """Run the suite on a device.

    Args:
        device: what a user writes, such as `opencl:0`. A `Device` that no plugin brings needs `in_process`.
        levels: names of levels; default: all that are run by default.
        ops: names of ops; cases that are not about one of them are left out.
        in_process: run the cases here and not in a worker: for a debugger. A crash of the process then ends the run.
        progress: called with the level, the number of its cases that are done and that there are, and the last result.
        cases: ids of cases, or patterns of them with `*`.
        register: devices to register first, as `module:attribute` or `file.py:attribute`: a plugin, a backend, or a
            function that makes one.
        timeout: seconds for a case, after which its worker is ended and the case is a crash.

    Raises:
        DeviceError: no such device.
        ConfigError: no such level, op or case.
        PluginError: what should be registered cannot be, or a level is broken.
    """
    with environment(HAL_FALLBACK="allow", HAL_COPIES="allow"):
        run = _Run(device, register, in_process, timeout, progress)
        try:
            return run.all(levels, ops, cases)
        finally:
            run.close()


def listed(
    device: str | Device, register: Iterable[str] = (), levels: Iterable[str] | None = None
) -> dict[str, list[Listed]]:
    """The cases of each level for a device, without running any.

    Raises:
        DeviceError: no such device.
        ConfigError: no such level.
        PluginError: what should be registered cannot be.
    """
    runner = Worker(PATIENCE)
    try:
        opened = runner.open(str(device), register)
        wanted = list(levels) if levels else [name for name, _, _, default in opened.levels if default]
        _check_levels(wanted, opened)
        return {name: runner.list(name) for name, *_ in opened.levels if name in wanted}
    except WorkerDied as death:
        raise ConfigError(f"device {device} cannot say which cases it has: {death}") from None
    finally:
        runner.close()


def _check_levels(wanted: Iterable[str], opened: Opened) -> None:
    known = [name for name, *_ in opened.levels]
    for name in wanted:
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"there is no level {name!r}; there are {', '.join(known)}{near}")


class _Patterns:
    """Ids of cases, some of them with `*`."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.all = list(patterns)
        self.exact = {p for p in self.all if not any(c in p for c in "*?[")}
        self.wild = [p for p in self.all if p not in self.exact]
        self.levels = {p.partition("/")[0] for p in self.exact}
        self.wild_levels = [p.partition("/")[0] for p in self.wild]

    def fit(self, case: str) -> bool:
        """Whether a case is asked for."""
        return not self.all or case in self.exact or any(fnmatch.fnmatchcase(case, p) for p in self.wild)

    def fit_level(self, level: str) -> bool:
        """Whether a case of a level may be asked for."""
        return not self.all or level in self.levels or any(fnmatch.fnmatchcase(level, p) for p in self.wild_levels)


class _Run:
    """One run, with the worker that it has at the moment."""

    def __init__(
        self,
        device: str | Device,
        register: Iterable[str],
        in_process: bool,
        timeout: float,
        progress: Progress | None,
    ) -> None:
        self.device = device
        self.register = list(register)
        self.in_process = in_process
        self.timeout = timeout
        self.progress = progress
        self.runner: Runner | Worker | None = None
        self.opened = self._open()
        self.report = Report(
            str(device), self.opened.facts, self.opened.versions, register=self.register,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        self.failed: set[str] = set()

    def close(self) -> None:
        """End the worker."""
        if isinstance(self.runner, Worker):
            self.runner.close()
        self.runner = None

    def _open(self) -> Opened:
        if self.in_process:
            runner = Runner()
            self.runner = runner
            return runner.open(self.device, self.register)
        worker = Worker(self.timeout)
        self.runner = worker
        try:
            return worker.open(str(self.device), self.register)
        except BaseException as error:
            self.close()
            if isinstance(error, WorkerDied):
                raise ConfigError(f"device {self.device} cannot be opened: {error}") from None
            raise

    def _listed(self, level: str) -> list[Listed]:
        """The cases of a level, from a worker that is alive."""
        if self.runner is None:
            self._open()
        assert self.runner is not None
        return self.runner.list(level)

    def all(self, levels: Iterable[str] | None, ops: Iterable[str] | None, cases: Iterable[str] | None) -> Report:
        """Run what was chosen."""
        start = time.monotonic()
        report = self.report
        wanted_ops, patterns = list(ops or ()), _Patterns(cases or ())
        report.chosen = {
            k: v for k, v in (("levels", list(levels or ())), ("ops", wanted_ops), ("cases", patterns.all)) if v
        }
        stopped = ""
        for name, doc, basic in self._chosen_levels(levels, patterns):
            report.levels[name] = doc
            chosen = self._chosen_cases(name, wanted_ops, patterns)
            if stopped:
                if chosen:
                    report.not_run.append(NotRun(name, len(chosen), stopped))
                continue
            for result in self._run_level(name, chosen, basic):
                if basic and result.outcome.failed:
                    stopped = f"{result.id} failed, without which nothing else means anything"
        if not report.results:
            raise ConfigError(f"no case of device {self.device} fits {report.chosen}; `hal conform --list` shows them")
        if not stopped:
            self._check_excuses()
        report.seconds = time.monotonic() - start
        return report

    def _chosen_levels(self, levels: Iterable[str] | None, patterns: _Patterns) -> Iterator[tuple[str, str, bool]]:
        wanted = list(levels) if levels is not None else None
        _check_levels(wanted or (), self.opened)
        for name, doc, basic, default in self.opened.levels:
            asked = default or bool(patterns.all) if wanted is None else name in wanted
            if asked and patterns.fit_level(name):
                yield name, doc, basic

    def _chosen_cases(self, level: str, ops: list[str], patterns: _Patterns) -> list[Listed]:
        try:
            found = self._listed(level)
        except Exception as error:  # the device's death, or an error of the level
            self.close()
            detail = f"listing the cases of the level failed: {error}"
            self._add(level, Listed(f"{level}/list", "", "", ()), Outcome("crash", detail=detail), 0)
            if self.in_process:
                self._open()
            return []
        return [case for case in found if (not ops or case.op in ops) and patterns.fit(case.id)]

    def _run_level(self, level: str, chosen: list[Listed], basic: bool) -> Iterator[Result]:
        left = {case.id: case for case in chosen if not self._lacks(level, case)}
        total, deaths = len(left), 0
        while left:
            if deaths >= DEATHS:
                self.report.not_run.append(NotRun(level, len(left), f"{deaths} workers died in this level"))
                return
            batch = list(left)[: 1 if basic else BATCH]
            try:
                if self.runner is None:
                    self._listed(level)
                assert self.runner is not None
                for i, outcome, seconds in self.runner.run(batch):
                    result = self._add(level, left.pop(i), outcome, seconds)
                    self._say(level, total - len(left), total, result)
                    yield result
                    if basic and result.outcome.failed:
                        if left:
                            self.report.not_run.append(NotRun(level, len(left), f"{i} failed"))
                        return
            except WorkerDied as death:
                deaths += 1
                self.close()
                case = left.pop(next(iter(left)))
                result = self._add(level, case, Outcome("crash", detail=str(death)), 0)
                self._say(level, total - len(left), total, result)
                yield result
                if basic:
                    return

    def _lacks(self, level: str, case: Listed) -> bool:
        """Note a case as not run if one that it needs has failed."""
        missing = [need for need in case.needs if need in self.failed]
        if not missing:
            return False
        reason = f"{missing[0]} failed"
        for i, left_out in enumerate(self.report.not_run):
            if left_out.level == level and left_out.reason == reason:
                self.report.not_run[i] = NotRun(level, left_out.count + 1, reason)
                return True
        self.report.not_run.append(NotRun(level, 1, reason))
        return True

    def _add(self, level: str, case: Listed, outcome: Outcome, seconds: float) -> Result:
        known = ""
        if outcome.failed:
            self.failed.add(case.id)
            known = next((why for p, why in self.opened.known_failures.items() if fnmatch.fnmatchcase(case.id, p)), "")
            if known:
                detail = f"a known failure: {known}\n{outcome.status}: {outcome.detail}"
                outcome = Outcome(**{**outcome.__dict__, "status": "declined", "detail": detail})
        result = Result(case.id, level, outcome, case.op, case.dtype, seconds, known)
        self.report.results.append(result)
        return result

    def _say(self, level: str, done: int, total: int, result: Result) -> None:
        if self.progress is not None:
            self.progress(level, done, total, result)

    def _check_excuses(self) -> None:
        """A known failure that does not fail is a failure: its excuse no longer holds."""
        narrowed = bool(self.report.chosen.get("ops") or self.report.chosen.get("cases"))
        for pattern, why in self.opened.known_failures.items():
            fitting = [r for r in self.report.results if fnmatch.fnmatchcase(r.id, pattern)]
            if any(r.known for r in fitting) or (narrowed and [r.id for r in fitting] != [pattern]):
                continue
            if not fitting and self.report.chosen:
                continue
            said = f"passes ({len(fitting)} cases)" if fitting else "matches no case"
            detail = f"the known failure {pattern!r} ({why}) {said}: take it out of known_failures"
            self._add("known", Listed(f"known/{pattern}", "", "", ()), Outcome("wrong", detail=detail), 0)
