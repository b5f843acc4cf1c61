"""HTML written as calls: `tag("td", text, cls="number")`. Text is escaped, markup is not."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(part: object) -> str:
    """Anything as HTML."""
    return part if isinstance(part, Markup) else escape(str(part))


def join(*parts: object) -> Markup:
    """Several things as HTML, one after the other."""
    return Markup("".join(map(text, parts)))


def tag(name: str, *inside: object, **attributes: object) -> Markup:
    """An element. `cls` is the attribute class, `_` in a name is `-`; None leaves an attribute out."""
    given = "".join(
        f' {"class" if key == "cls" else key.strip("_").replace("_", "-")}="{escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None and value != ""
    )
    return Markup(f"<{name}{given}>{''.join(map(text, inside))}</{name}>")


def row(*cells: Markup) -> Markup:
    """A row of a table."""
    return tag("tr", *cells)


def number(shown: str, value: object = None) -> Markup:
    """A cell with a number, which sorts by `value`."""
    return tag("td", shown, cls="number", data_value=value)


def titles(*names: str) -> Markup:
    """The head of a table; a name that starts with # is over numbers."""
    cells = (tag("th", name.removeprefix("#"), cls="number" if name.startswith("#") else None) for name in names)
    return tag("thead", row(*cells))


def section(title: str, *parts: object, kind: str = "") -> Markup:
    """A part of the page with a title."""
    return tag("section", tag("h2", title), *parts, cls=kind)


def tall_table(head: Markup, rows: list[Markup], summary: str) -> Markup:
    """A long table that sorts, folds and scrolls by itself."""
    table = tag("table", head, tag("tbody", *rows), cls="sorted")
    return tag("details", tag("summary", summary), tag("div", table, cls="scroll tall"), open="open")
