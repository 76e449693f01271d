"""Errors a user can cause, and how their lines are made. The command line prints the one line and exits with code 2."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches


class SepbenchError(Exception):
    """Something the user can mend: the message is one line that says what is wrong and what to do next.

    Whatever words of others it holds (of a library, of a damaged file, of a path), it is made one line of printable characters.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(flat(message))


class DataError(SepbenchError):
    """Data are missing, incomplete or corrupt; the message names the file and, where one is known, the byte offset."""


class SuiteError(SepbenchError):
    """A suite, task or pair list is malformed or does not match its frozen digest."""


class UnknownNameError(SepbenchError):
    """A name is not registered; the message offers the nearest names."""


class NameClaimedError(SepbenchError):
    """Two installed distributions register one name in one group; the message names both."""


class SupervisionError(SepbenchError):
    """A method asked for more than its declared supervision level hands out."""


class UnsupportedTaskError(SepbenchError):
    """A method cannot separate this task; the message says why."""


class MethodError(SepbenchError):
    """A method broke its contract: wrong shape, wrong dtype, non-finite values, mutated inputs."""


class MetricError(SepbenchError):
    """A metric cannot be loaded or broke its contract: no kind of metric, wrong shape, wrong dtype."""


class SettingError(SepbenchError):
    """A setting that its method does not take; the message is about this one setting and says what it may be."""


class ArgumentError(SepbenchError):
    """An argument of a function of the Python API that it cannot take; the message names it."""


CLOSE = 0.65
"""Share of letters that two names have in common, in order, for one to be taken for the other. Of unrelated names it is seldom above 0.6."""


def nearest(name: str, known: list[str], what: str, otherwise: str = "") -> UnknownNameError:
    """The error for a name that is not known, with those that are close.

    Args:
        name: what was asked for.
        known: what there is.
        what: what the names are.
        otherwise: what to say if none is close. Default: some of the names.
    """
    begun = [one for one in known if name.startswith(f"{one}.") or (len(name) > 2 and one.startswith(name))]
    close = get_close_matches(name, known, n=3, cutoff=CLOSE) or begun[:3]
    hint = f"did you mean {' or '.join(close)}?" if close else otherwise or f"known: {some(known)}"
    return UnknownNameError(f"unknown {what} {name!r}; {hint}")


def some(names: Iterable[object], most: int = 3) -> str:
    """The first names and how many more there are: ``a, b, c and 20 more``. One more is named and not counted."""
    texts = list(map(str, names))
    return ", ".join(texts) if len(texts) <= most + 1 else f"{', '.join(texts[:most])} and {len(texts) - most:,} more"


def flat(text: object) -> str:
    """A text of somebody else's on one line, in characters that every file and terminal takes; also of an object that fails to say what it is."""
    try:
        words = str(text)
    except KeyboardInterrupt:
        raise
    except BaseException:
        words = f"a {type(text).__name__} that cannot be shown"
    line = " ".join(words.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


MOST = 1_000
"""Letters of somebody else's words that a message quotes. A damaged archive alone can name a file of 65,535 letters."""


def reason(error: BaseException) -> str:
    """An error of somebody else's on one line of at most ``MOST`` letters: its kind, and what it says if it says anything."""
    kind, text = flat(type(error).__name__), _validation(error) or flat(error)
    line = f"{kind}: {text}" if text else kind
    return line if len(line) <= MOST else f"{line[: MOST // 2]} [...] {line[7 - MOST // 2 :]}"


_KINDS = re.compile(r"(^|: )(?:Value error|Assertion failed), ")
_ASKED = {
    "Input should be a valid integer, unable to parse string as an integer": "must be a whole number",
    "Input should be a valid number, unable to parse string as a number": "must be a number",
}


def plain(message: object) -> str:
    """What a check of pydantic's says, on one line, without "Value error," and without its talk of an input. Commands read their options by it too."""
    text = _KINDS.sub(r"\1", flat(message))
    for theirs, ours in _ASKED.items():
        text = text.replace(theirs, ours)
    return re.sub(r"(^|: )Input should be ", r"\1must be ", text)


def _validation(error: BaseException) -> str:
    """The first fault that pydantic found and how many there are more; empty if the error is none of pydantic's."""
    if type(error).__name__ != "ValidationError" or not type(error).__module__.startswith("pydantic"):
        return ""
    first, *more = error.errors(include_url=False)  # type: ignore[attr-defined]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {plain(first['msg'])}".removeprefix(": ") + (f" and {len(more):,} more" if more else "")
