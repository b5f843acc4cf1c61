"""A confusion matrix as a picture: a small SVG, which any browser shows."""

from __future__ import annotations

from html import escape

CELL, MARGIN, TOP = 44, 110, 72


def matrix_svg(matrix: list[list[int]], names: list[str]) -> str:
    """The text of a picture with a row for each target and a column for each class that was named.

    A cell is the darker the larger a part of its row it is.
    """
    n = len(names)
    side = CELL * n
    width, height = MARGIN + side + 24, TOP + side + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12" role="img">',
        "<title>Confusion matrix</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{MARGIN + side / 2}" y="24" text-anchor="middle" font-size="14">named as</text>',
        f'<text x="18" y="{TOP + side / 2}" text-anchor="middle" font-size="14" '
        f'transform="rotate(-90 18 {TOP + side / 2})">is</text>',
    ]
    for i, (name, row) in enumerate(zip(names, matrix, strict=True)):
        total = sum(row)
        y = TOP + CELL * i
        shown = escape(name if len(name) <= 10 else name[:9] + "…")
        parts.append(f'<text x="{MARGIN - 8}" y="{y + 27}" text-anchor="end">{shown}</text>')
        x = MARGIN + CELL * i + CELL / 2
        parts.append(f'<text x="{x}" y="{TOP - 8}" text-anchor="middle">{shown[:6]}</text>')
        for j, count in enumerate(row):
            part = count / total if total else 0.0
            red, green, blue = (round(255 - part * (255 - c)) for c in ((31, 95, 168) if i == j else (200, 80, 30)))
            x = MARGIN + CELL * j
            about = f"{escape(names[i])} named as {escape(names[j])}: {count} of {total}"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="rgb({red},{green},{blue})" '
                f'stroke="#ddd"><title>{about}</title></rect>'
            )
            if count:
                colour = "white" if part > 0.5 else "#222"
                parts.append(
                    f'<text x="{x + CELL / 2}" y="{y + 27}" text-anchor="middle" fill="{colour}">{count}</text>'
                )
    right, count = sum(matrix[i][i] for i in range(n)), sum(map(sum, matrix))
    if count:
        parts.append(f'<text x="{MARGIN}" y="{height - 20}">{right} of {count} right, {right / count:.2%}</text>')
    return "\n".join([*parts, "</svg>\n"])
