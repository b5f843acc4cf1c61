"""Runs the conformance suite of a device in several processes, within a given time, and writes what came of it.

Run by `verify.py`. Cases that were not reached in time are counted as such, by level.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from hal.testing import suite
from hal.testing.report import Report, Result

SHARE = 150  # cases that one worker is given at a time
TOLD = 400  # characters of a failure that are kept
WORST = 25  # lines of the certificate


def main() -> None:
    """Deal out the cases, level by level."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    os.environ.update(HAL_FALLBACK="allow", HAL_COPIES="allow")  # once, and not by each of several threads
    start = time.monotonic()
    reports: list[Report] = []
    cases = {level: [c.id for c in found] for level, found in suite.listed(given.device).items()}
    if given.quick:
        cases = {level: found[:: max(1, len(found) // 100)] for level, found in cases.items()}
    done: Counter[str] = Counter()

    def deal(level: str, ids: list[str]) -> None:
        reports.append(suite.run(given.device, cases=ids, timeout=60.0))
        done[level] += len(ids)
        if done[level] == len(cases[level]):
            bad = sum(r.outcome.failed for report in reports for r in report.results if r.level == level)
            print(f"{level}: {done[level]:,} cases, {bad} failed, after {time.monotonic() - start:.0f} s", flush=True)

    pool = ThreadPoolExecutor(given.jobs)
    work = [
        pool.submit(deal, level, ids[i : i + SHARE]) for level, ids in cases.items() for i in range(0, len(ids), SHARE)
    ]
    over, _ = wait(work, given.seconds - (time.monotonic() - start))
    late = Counter({level: len(ids) - done[level] for level, ids in cases.items()})
    errors = [repr(f.exception()) for f in over if f.exception() is not None]
    whole = Report(given.device, results=[r for report in reports for r in report.results])
    given.json.write_text(json.dumps(told(whole, reports, +late, errors, given.quick)))
    os._exit(0)  # though some cases may still be running


def told(whole: Report, reports: list[Report], late: Counter[str], errors: list[str], quick: bool) -> dict[str, Any]:
    """What the report says: counts by level, failures, ops that fall back, and the worst of the certificate."""
    levels: dict[str, Counter[str]] = {}
    for result in whole.results:
        levels.setdefault(result.level, Counter())[result.status] += 1
    for report in reports:
        for n in report.not_run:
            levels.setdefault(n.level, Counter())["not run"] += n.count
    for level, count in late.items():
        levels.setdefault(level, Counter())["too late"] += count
    by_status: dict[str, Counter[str]] = {"fallback": Counter(), "decomposed": Counter()}
    for result in whole.results:
        if result.status in by_status:
            by_status[result.status][result.op or result.id] += 1
    total = sum(map(Counter, levels.values()), Counter())
    nearest = sorted(whole.certificate(), key=lambda e: -e.share)[:WORST]
    failed = bool(whole.failures or errors or total["not run"])
    return {
        "status": "failed" if failed else "unfinished" if total["too late"] else "passed",
        "why": "; ".join(errors),
        "counts": dict(total),
        "levels": {level: dict(counts) for level, counts in levels.items()},
        "failures": {r.id: failure(r) for r in whole.failures},
        "fallback": dict(by_status["fallback"]),
        "decomposed": dict(by_status["decomposed"]),
        "nearest": [
            {"op": e.op, "dtype": e.dtype, "error": e.error, "allowed": e.allowed, "unit": e.unit} for e in nearest
        ],
        "notes": ["--quick: about a hundred cases of each level"] if quick else [],
    }


def failure(result: Result) -> str:
    """How a case failed, in a line."""
    words = f"{result.status}: {result.outcome.detail}"
    return words if len(words) <= TOLD else words[:TOLD] + "…"


if __name__ == "__main__":
    main()
