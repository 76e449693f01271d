"""Where in a method's own code an error arose: the line that its author looks for, between frames of sepbench, torch and other libraries."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType, TracebackType

from sepbench.errors import MOST, SepbenchError, flat, reason

TRACEBACK = "SEPBENCH_TRACEBACK"
"""Variable of the environment; if it is set, errors show where they come from."""
OURS = ("sepbench", "baselines")
"""Packages of the project."""
FRAMES = 40
"""The most frames of a kept traceback. An endless recursion has a thousand."""
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_PYTHON = Path(sysconfig.get_path("stdlib"))


def wants_traceback() -> bool:
    """Whether somebody asked for tracebacks."""
    return bool(os.environ.get(TRACEBACK))


def place(error: BaseException, module: str = "", *, any_frame: bool = False) -> str:
    """``revpack.py, line 56``: where the innermost frame of an author's own code stands; empty if there is none.

    Args:
        error: with its traceback.
        module: of the method's class. Frames of the same package are the author's wherever it is installed.
        any_frame: else name the innermost frame of all.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    own = _own(frames, module)
    if not own and error.__cause__ is not None:  # of a KeyboardInterrupt that a method raised, say, sepbench makes another error
        own = _own(traceback.walk_tb(error.__cause__.__traceback__), module)
    if not own and not (any_frame and frames):
        return ""
    frame, line = (own or frames)[-1]
    path = Path(flat(frame.f_code.co_filename))
    name = f"{path.parent.name}/{path.name}" if path.name == "__init__.py" else path.name
    return f"{name}, line {line}"


def told(error: BaseException, module: str = "", most: int = MOST, *, any_frame: bool = True) -> str:
    """What a method raised, on one line of about ``most`` letters, with its place: ``ValueError: singular (revpack.py, line 56)``.

    What sepbench itself says is clear by itself; it has a place only where somebody else's method caused it. See ``place`` for the arguments.
    """
    ours = isinstance(error, SepbenchError)
    where = "" if ours and _top(module) in OURS else place(error, module, any_frame=any_frame and not ours)
    return reason(error)[:most] + (f" ({where})" if where else "")


def from_the_method_on(error: BaseException) -> TracebackType | None:
    """An error's traceback from the first frame outside ``sepbench`` on: how it came to call the method says nothing. All of it if there is no such frame."""
    found = error.__traceback__
    while found is not None and _top(_module(found.tb_frame)) == "sepbench":
        found = found.tb_next
    return found or error.__traceback__


def kept_traceback(error: BaseException) -> str:
    """The traceback as text, see ``from_the_method_on``, at most its ``FRAMES`` innermost frames, causes included."""
    return "".join(traceback.format_exception(type(error), error, from_the_method_on(error), limit=-FRAMES))


def _own(frames: Iterable[tuple[FrameType, int]], module: str) -> list[tuple[FrameType, int]]:
    return [(frame, line) for frame, line in frames if _is_own(frame, module)]


def _is_own(frame: FrameType, module: str) -> bool:
    top = _top(_module(frame))
    if module and top == _top(module):
        return top != "sepbench"
    return top not in OURS and not _of_a_library(frame.f_code.co_filename)


def _of_a_library(file: str) -> bool:
    path = Path(file)
    return file.startswith("<frozen") or bool(_INSTALLED.intersection(path.parts)) or path.is_relative_to(_PYTHON)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _top(module: str) -> str:
    return module.partition(".")[0]
