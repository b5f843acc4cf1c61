"""Finds the user's line: the innermost frame that is not hal's, nn's, or a plugin's own code."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

INTERNAL = {"hal"}  # top-level packages whose frames are passed over; nn and every plugin add theirs
Line = tuple[CodeType, int]


def user_line(depth: int = 2) -> Line | None:
    """The code object and line number of the user's innermost frame. Cheap: nothing is formatted here."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in INTERNAL:
            return frame.f_code, frame.f_lineno
        frame = frame.f_back
    return None


def describe(line: Line | None) -> str:
    """`file.py:12`, or `an unknown line`."""
    return f"{line[0].co_filename}:{line[1]}" if line is not None else "an unknown line"
