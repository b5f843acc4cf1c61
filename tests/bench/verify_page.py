"""The report of `verify.py` as one page that needs nothing else: verdicts first, then figures, then what went wrong."""

from __future__ import annotations

from html import escape
from typing import Any

UNITS = {"TFLOP/s": 1e12, "GB/s": 1e9}
SHOWN = 60  # failures of a part that are listed
TITLES = {
    "conform": "Conformance suite", "layers": "Layers, losses, optimizers and models beside torch's",
    "samples": "torch's own samples of its functions", "memory": "Bandwidth of memory",
    "matmul": "Products of matrices",
    "elementwise": "Elementwise chains", "rows": "Reductions and normalisation", "convolution": "Convolutions",
    "attention": "Attention", "steps": "Training steps with Adam",
}  # fmt: skip
STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #18794e; --bad: #c62a2f; --soft: #8888; }
@media (prefers-color-scheme: dark) { :root { --good: #4cc38a; --bad: #ff8b8b; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; } td.n small { display: block; opacity: .65; }
.good { color: var(--good); } .bad { color: var(--bad); } .soft { opacity: .65; }
pre { overflow-x: auto; font-size: .8rem; padding: .6rem; border: 1px solid var(--line); }
code { font-size: .85rem; overflow-wrap: anywhere; } summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .6rem 0; }
dt { opacity: .65; } dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(report: dict[str, Any]) -> str:
    """The report as HTML."""
    title = f"HAL on {report['device']}"
    parts = report["parts"]
    bandwidth = measured_bandwidth(parts)
    body = [f"<h1>{escape(title)}</h1>", facts(report), summary(parts, bandwidth)]
    body += [section(name, part, bandwidth) for name, part in parts.items()]
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>\n' + "\n".join(body) + "\n</html>\n"
    )


def facts(report: dict[str, Any]) -> str:
    """What was measured, on what, when."""
    told = {
        "date": report["date"],
        "commit": report["commit"] + (", with changes" if report["changed"] else ""),
        "command": report["command"],
        "device": ", ".join(f"{k} {v}" if k != "device" else v for k, v in report["description"].items()),
        "GPU": report["gpu"],
        "host": report["host"] + (f", load {report['load']:.1f} before" if report.get("load") is not None else ""),
        "versions": ", ".join(f"{k} {v}" for k, v in report["versions"].items()),
    }
    rows = "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in told.items() if v)
    quick = (
        "<p>A quick run: it shows that everything works. Its times are not to be quoted.</p>" if report["quick"] else ""
    )
    return f"<dl>{rows}</dl>{quick}"


def summary(parts: dict[str, Any], bandwidth: float) -> str:
    """A line for each part."""
    rows = ""
    for name, part in parts.items():
        counts = part.get("counts", {})
        words = ", ".join(f"{n:,} {k}" for k, n in counts.items())
        if "rows" in part:
            goals = [met for row in part["rows"] if (met := goal_of(row, bandwidth)) is not None]
            words = f"{len(part['rows'])} rows" + (f", {sum(goals)} of {len(goals)} goals met" if goals else "")
        why = f" {part['why']}" if part.get("why") else ""
        rows += (
            f'<tr><td><a href="#{name}">{escape(TITLES.get(name, name))}</a></td><td>{mark(part["status"])}'
            f'{escape(why)}</td><td>{escape(words)}</td><td class="n">{part["seconds"]:,.0f} s</td></tr>'
        )
    return f'<table><tr><th>part</th><th>verdict</th><th></th><th class="n">took</th></tr>{rows}</table>'


def mark(status: str) -> str:
    """A verdict in its colour."""
    kind = {"passed": "good", "failed": "bad", "unfinished": "bad"}.get(status, "soft")
    return f'<span class="{kind}">{escape(status)}</span>'


def section(name: str, part: dict[str, Any], bandwidth: float) -> str:
    """One part in full."""
    text = [f'<h2 id="{name}">{escape(TITLES.get(name, name))}</h2>']
    if part.get("why"):
        text.append(f'<p class="bad">{escape(part["why"])}</p>')
    text += [f"<p>{escape(note)}</p>" for note in part.get("notes", [])[:1]]
    rest = part.get("notes", [])[1:]
    if rest:
        text.append(f"<details><summary>{len(rest)} more</summary>{'<br>'.join(map(escape, rest))}</details>")
    if part.get("levels"):
        text.append(levels(part["levels"]))
    if part.get("rows"):
        text.append(figures(part["rows"], bandwidth))
    if part.get("failures"):
        text.append(failures(part["failures"]))
    for kind, words in (("fallback", "ran on the CPU instead"), ("decomposed", "ran as the ops they consist of")):
        if part.get(kind):
            ops = ", ".join(f"{op} ({n})" for op, n in sorted(part[kind].items(), key=lambda i: -i[1]))
            text.append(f"<details><summary>{len(part[kind])} ops {words}</summary><p>{escape(ops)}</p></details>")
    if part.get("nearest"):
        text.append(nearest(part["nearest"]))
    if part.get("log"):
        log = escape("\n".join(part["log"]))
        text.append(f"<details><summary>the end of its output</summary><pre>{log}</pre></details>")
    return "\n".join(text)


def levels(found: dict[str, dict[str, int]]) -> str:
    """The counts of each level of the conformance suite."""
    kinds = list(dict.fromkeys(k for counts in found.values() for k in counts))
    head = "".join(f'<th class="n">{escape(k)}</th>' for k in kinds)
    bad = ("wrong", "crash", "too late", "not run")
    rows = ""
    for level, counts in found.items():
        cells = "".join(
            f'<td class="n{" bad" if k in bad else ""}">{counts[k]:,}</td>' if k in counts else "<td></td>"
            for k in kinds
        )
        rows += f"<tr><td>{escape(level)}</td>{cells}</tr>"
    return f'<div class="wide"><table><tr><th>level</th>{head}</tr>{rows}</table></div>'


def failures(found: dict[str, str]) -> str:
    """What failed, and how."""
    items = list(found.items())
    rows = "".join(f"<tr><td><code>{escape(k)}</code></td><td>{escape(v)}</td></tr>" for k, v in items[:SHOWN])
    more = f"<p>and {len(items) - SHOWN} more, in the JSON</p>" if len(items) > SHOWN else ""
    return f'<p class="bad">{len(items)} failed</p><div class="wide"><table>{rows}</table></div>{more}'


def nearest(entries: list[dict[str, Any]]) -> str:
    """What comes nearest to its limit."""
    rows = "".join(
        f'<tr><td>{escape(e["op"])}</td><td>{escape(e["dtype"])}</td><td class="n">{e["error"]:.3g}</td>'
        f'<td class="n">{e["allowed"]:.3g} {escape(e["unit"])}</td></tr>'
        for e in entries
    )
    head = '<tr><th>op</th><th>dtype</th><th class="n">error</th><th class="n">allowed</th></tr>'
    return f"<details><summary>nearest to their limits</summary><table>{head}{rows}</table></details>"


# Figures.


def mine(row: dict[str, Any]) -> float | None:
    """HAL's time: compiled where there is a plan."""
    found: float | None = row["times"].get("hal.compile") or row["times"].get("hal")
    return found


def measured_bandwidth(parts: dict[str, Any]) -> float:
    """Bytes a second of the quickest copy that anyone made, 0 where none was measured."""
    rows = parts.get("memory", {}).get("rows", [])
    return max((row["work"] / t for row in rows[-1:] for t in row["times"].values()), default=0.0)


def reached(row: dict[str, Any], bandwidth: float) -> float | None:
    """How nearly hal is as quick as the peer of the row's goal, 1 where it is."""
    own = mine(row)
    if not row.get("goal") or own is None:
        return None
    against = row["goal"][0]
    if against == "memory":
        return row["work"] / own / bandwidth if bandwidth else None
    other = row["times"].get(against)
    return other / own if other else None


def goal_of(row: dict[str, Any], bandwidth: float) -> bool | None:
    """Whether a row's goal is met, None where that was not to be seen."""
    share = reached(row, bandwidth)
    return None if share is None else share >= row["goal"][1]


def figures(rows: list[dict[str, Any]], bandwidth: float) -> str:
    """A table of times, or of rates with times under them; and how hal compares with each peer."""
    names = list(dict.fromkeys(name for row in rows for name in (*row["times"], *row["errors"])))
    head = "".join(f'<th class="n">{escape(n)}</th>' for n in names)
    body = ""
    for row in rows:
        own, cells = mine(row), ""
        for name in names:
            cells += f'<td class="n">{cell(row, name, own)}</td>'
        share, met = reached(row, bandwidth), goal_of(row, bandwidth)
        kind = "" if met is None else " good" if met else " bad"
        goal = f"{share:.2f} of {row['goal'][0]}<small>goal {row['goal'][1]:g}</small>" if share is not None else ""
        note = f"<br><small>{escape(row['note'])}</small>" if row.get("note") else ""
        body += f'<tr><td>{escape(row["name"])}{note}</td>{cells}<td class="n{kind}">{goal}</td></tr>'
    caption = "<p class='soft'>Medians; in brackets how many times as long as hal's (its plan, where there is one).</p>"
    return f'{caption}<div class="wide"><table><tr><th></th>{head}<th class="n">hal has</th></tr>{body}</table></div>'


def cell(row: dict[str, Any], name: str, own: float | None) -> str:
    """One contender's figure."""
    if name in row["errors"]:
        words = row["errors"][name]
        left_out = words.startswith("left out")
        kind, verdict = ("soft", "left out") if left_out else ("bad", "failed")
        return f'<span class="{kind}" title="{escape(words)}">{verdict}</span>'
    if name not in row["times"]:
        return ""
    seconds = row["times"][name]
    time = f"{seconds * 1e3:,.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.3g} µs"
    ratio = f" ({seconds / own:.2f})" if own and not name.startswith("hal") else ""
    if not row.get("rate"):
        return time + ratio
    return f"{row['work'] / seconds / UNITS[row['rate']]:,.3g} {escape(row['rate'])}{ratio}<small>{time}</small>"
