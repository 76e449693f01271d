"""Lines about what a method raised end with its place, whose number changes with the file it is in."""

from __future__ import annotations

import re

PLACE = r" \([\w/.-]+, line \d+\)"


def without_place(line: str) -> str:
    """The line without its place."""
    return re.sub(PLACE, "", line)
