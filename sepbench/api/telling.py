"""What a function of the API has to say without failing: Python's warnings, told of the caller's own line, and every time."""

from __future__ import annotations

import sys
import warnings

from sepbench.api.arguments import spoken


class RunWarning(UserWarning):
    """Something went wrong without ending the work: a method failed on some mixtures, or a damaged file was made again."""


def tell(text: str) -> None:
    """Warn. Python shows a warning once per line and text by default; here it is shown each time, for a cell of a notebook is run again and again."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (frame.f_globals.get("__name__") or "").partition(".")[0] in ("sepbench", "contextlib", "functools"):
        frame = frame.f_back
    warnings.warn_explicit(spoken(text), RunWarning, frame.f_code.co_filename, frame.f_lineno, module=frame.f_globals.get("__name__") or "sepbench")
