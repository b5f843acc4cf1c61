"""The matrix of the page: a row for each op, a column for each dtype, and one for gradients."""

from __future__ import annotations

from hal import dtypes, ops
from hal.testing.case import STATUSES
from hal.testing.page.charts import style_name
from hal.testing.page.markup import Markup, section, tag
from hal.testing.report import Report, Result, count

GRADIENTS = ("gradients", "curvature")  # levels that make the column of gradients
ORDER = ("elementwise", "reduction", "contraction", "composite", "movement", "indexing", "random", "creation", "other")
FIRST = ("float32", "float64", "float16", "bfloat16")
WORST_FIRST = ("crash", "wrong", "fallback", "decomposed", "native", "declined")
SHORT = {"bfloat": "bf", "float": "f", "uint": "u", "int": "i", "complex": "c"}
SIGNS = {"declined": "-", "crash": "!", "wrong": "x"}
EXPLAINED = (
    "Each cell is one op in one dtype. Its colour says how it ran; its number is the largest error that was seen, in "
    "the unit of the op's tolerance (= is exact). A cell of two colours ran in two ways. Hover for more."
)
Cells = dict[tuple[str, str], list[Result]]


def matrix(report: Report) -> Markup:
    """The table, one body for each kind of op; nothing if no case is about an op."""
    cells: Cells = {}
    for r in report.results:
        column = "gradient" if r.level in GRADIENTS else r.dtype
        if r.op and column:
            cells.setdefault((r.op, column), []).append(r)
    if not cells:
        return Markup("")
    present = {column for _, column in cells}
    columns = [c for c in (*FIRST, *(d.name for d in dtypes.ALL if d.name not in FIRST), "gradient") if c in present]
    by_kind: dict[str, list[str]] = {}
    for op in sorted({op for op, _ in cells}):
        record = ops.TABLE.get(op)
        by_kind.setdefault(record.kind if record else "other", []).append(op)
    head = tag("thead", tag("tr", tag("th"), *(tag("th", short(c), scope="col", title=c) for c in columns)))
    bodies = (_body(kind, by_kind[kind], columns, cells) for kind in ORDER if kind in by_kind)
    table = tag("div", tag("table", head, *bodies, cls="matrix"), cls="scroll open")
    return section("Ops and dtypes", tag("p", EXPLAINED), _tools(cells), table)


def _tools(cells: Cells) -> Markup:
    found = {r.status for group in cells.values() for r in group}
    buttons = (tag("button", s, type="button", data_status=style_name(s)) for s in STATUSES if s in found)
    words = "find an op"
    return tag(
        "div", tag("input", type="search", id="find", placeholder=words, aria_label=words), *buttons, cls="tools"
    )


def short(dtype: str) -> str:
    """A dtype's name as it fits over a narrow column."""
    for name, letter in SHORT.items():
        if dtype.startswith(name):
            return letter + dtype.removeprefix(name)
    return dtype


def _body(kind: str, names: list[str], columns: list[str], cells: Cells) -> Markup:
    title = tag("tr", tag("th", kind, " ", tag("small", len(names)), colspan=len(columns) + 1), cls="kind")
    return tag("tbody", title, *(_row(op, columns, cells) for op in names))


def _row(op: str, columns: list[str], cells: Cells) -> Markup:
    has = {style_name(r.status) for c in columns for r in cells.get((op, c), [])}
    shown = (_cell(op, c, cells.get((op, c))) for c in columns)
    return tag("tr", tag("th", op, scope="row"), *shown, data_op=op, data_has=" ".join(sorted(has)))


def _cell(op: str, column: str, results: list[Result] | None) -> Markup:
    if not results:
        return tag("td")
    counts = {s: n for s, n in count(results).items() if n}
    worst = next(s for s in WORST_FIRST if s in counts)
    measured = [r for r in results if r.outcome.unit]
    lines = [f"{op}, {column}: {', '.join(f'{n:,} {s}' for s, n in counts.items())}"]
    if measured:
        most = max(
            measured, key=lambda r: r.outcome.error / r.outcome.allowed if r.outcome.allowed else r.outcome.error
        )
        o = most.outcome
        lines += [f"largest error {o.error:.3g} {o.unit}, allowed {o.allowed:.3g}", o.source, most.id]
    lines += {r.outcome.reason for r in results if r.outcome.reason}
    lines += [r.outcome.detail.partition("\n")[0] for r in results if r.outcome.failed][:1]
    return tag(
        "td",
        SIGNS.get(worst) or _number(measured),
        cls=worst,
        style=_mixed(counts),
        title="\n".join(filter(None, lines)),
    )


def _mixed(counts: dict[str, int]) -> str | None:
    """A background of several colours where an op ran in several ways."""
    ran = {s: n for s, n in counts.items() if s != "declined"}
    if len(ran) < 2 or "wrong" in ran or "crash" in ran:
        return None
    total, at, stops = sum(ran.values()), 0.0, []
    for s, n in ran.items():
        end = min(at + max(15.0, 100 * n / total), 100.0)
        stops.append(f"var(--{s}) {at:.0f}% {end:.0f}%")
        at = min(end, 85.0)
    return f"background:linear-gradient(to right,{','.join(stops)})"


def _number(results: list[Result]) -> str:
    error = max((r.outcome.error for r in results), default=0.0)
    if error == 0 or all(r.outcome.unit == "exact" for r in results):
        return "="
    return f"{error:.1f}" if error < 10 else f"{error:.0f}" if error < 1000 else f"{error:.0e}"
