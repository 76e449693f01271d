"""What is wrong with supplied files: one line that counts every kind of problem and names the first three cases of each."""

from __future__ import annotations

from pathlib import Path

from sepbench.errors import SepbenchError, flat

NAMED = 3
"""Cases of a kind that are named; the others are counted."""
_LONGEST = 80

MISSING, EXTRA, MISNAMED, TWICE = "missing", "extra", "misnamed", "there twice"
SHAPE, RATE, CHANNELS, CLIPPED, NOT_FINITE = (
    "of another shape",
    "of another sample rate",
    "grey or colour where the task has the other",
    "clipped",
    "not finite",
)
KIND, UNREADABLE = "of another kind of number", "unreadable"

_ADVICE = {
    MISSING: "add them, or score what is there with --partial",
    CLIPPED: "write them at a lower level or as 32-bit float, or score them as they are with --allow-clipped",
}
"""What to do next, for kinds that an option exists for."""


class EstimatesError(SepbenchError):
    """Supplied estimates cannot be scored: the message counts and names what is wrong."""


class FileProblem(Exception):
    """One file cannot be used: its kind of problem, and a few words on it."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, flat(detail)


class Problems:
    """Counts problems by kind. Holds three names of each kind, however many there are."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}
        self._advice = dict(_ADVICE)

    def advise(self, kind: str, text: str) -> None:
        """What to do next about a kind, where more is known than in general."""
        self._advice[kind] = text

    def add(self, kind: str, name: str, detail: str = "") -> None:
        """One case: the name of the file or the mixture, and what is wrong in particular."""
        names = self._names.setdefault(kind, [])
        if len(names) < NAMED:
            names.append(f"{_short(name)}: {_short(detail)}" if detail else _short(name))
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def forgive(self, kind: str) -> None:
        """A kind that is no problem here."""
        self._counts.pop(kind, None)
        self._names.pop(kind, None)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def text(self) -> str:
        """``4 missing (000004_1.png, 000004_2.png, 000007_1.png and 1 more), 1 extra (000099_1.png)``."""
        parts = []
        for kind, count in self._counts.items():
            more = f" and {count - NAMED:,} more" if count > NAMED else ""
            parts.append(f"{count:,} {kind} ({', '.join(self._names[kind])}{more})")
        return ", ".join(parts)

    def check(self, where: Path | str) -> None:
        """Refuse estimates with any problem.

        Raises:
            EstimatesError: there is one; the message has all kinds.
        """
        if self:
            advice = "; ".join(dict.fromkeys(self._advice[kind] for kind in self._counts if kind in self._advice))
            raise EstimatesError(f"{where} cannot be scored: {self.text()}; {advice or 'mend these and evaluate again'}")


def _short(text: str) -> str:
    line = flat(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]}...{line[-_LONGEST // 2 :]}"
