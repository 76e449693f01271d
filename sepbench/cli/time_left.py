"""How long a run still takes: from what its cells have cost so far, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field


@dataclass
class _CellTime:
    """One cell's clock.

    Attributes:
        left: mixtures that are still to be separated.
        done: mixtures that were separated while this clock ran.
        working: seconds spent in separating and scoring.
        since: when the present stage began, None while nothing is known of the cell.
        fitting: the present stage is the fit.
        fraction: of the fit.
    """

    left: float
    done: float = 0.0
    working: float = 0.0
    since: float | None = None
    fitting: bool = False
    fraction: float | None = None
    over: bool = False

    def worked(self, now: float) -> float:
        return self.working + (now - self.since if self.since is not None and not self.fitting else 0.0)


@dataclass
class TimeLeft:
    """Told what a run's progress is told; says how many seconds are left.

    A cell that separates goes on at the rate it had so far, scoring included. A cell that fits takes what its fraction says, and then what the
    same method took on another task. A cell that has not begun is taken to cost what its method cost, or what the others cost on average.
    """

    clock: Callable[[], float] = time.monotonic
    _cells: dict[Hashable, _CellTime] = field(default_factory=dict)
    _methods: dict[Hashable, str] = field(default_factory=dict)

    def start(self, cells: Mapping[Hashable, tuple[str, int]]) -> None:
        """All cells: key -> (method, mixtures)."""
        self._cells = {key: _CellTime(float(mixtures)) for key, (_, mixtures) in cells.items()}
        self._methods = {key: method for key, (method, _) in cells.items()}

    def begin(self, key: Hashable, done: int) -> None:
        self._cells[key].left -= done

    def stage(self, key: Hashable, text: str, fraction: float | None) -> None:
        cell, now = self._cells[key], self.clock()
        fitting = not text.startswith(("separate", "score"))
        if cell.since is None or fitting != cell.fitting:
            cell.working = cell.worked(now)
            cell.since, cell.fitting = now, fitting
        cell.fraction = fraction if fitting else None

    def advance(self, key: Hashable, mixtures: float) -> None:
        cell = self._cells[key]
        cell.left -= mixtures
        if cell.since is not None:
            cell.done += mixtures

    def end(self, key: Hashable) -> None:
        cell = self._cells[key]
        cell.working = cell.worked(self.clock())
        cell.since, cell.left, cell.over = None, 0.0, True

    def seconds(self) -> float | None:
        """Seconds left, None while nothing has been measured."""
        now = self.clock()
        rates = {key: cell.worked(now) / cell.done for key, cell in self._cells.items() if cell.done > 0}
        total, known = 0.0, False
        for key, cell in self._cells.items():
            fit = self._fit_left(cell, now)
            known = known or fit > 0.0
            total += fit
            if cell.left > 0 and not cell.over:
                rate = rates.get(key, self._expected(key, rates))
                known = known or rate is not None
                total += (rate or 0.0) * cell.left
        return total if known else None

    def _expected(self, key: Hashable, rates: Mapping[Hashable, float]) -> float | None:
        same = [rate for other, rate in rates.items() if self._methods[other] == self._methods[key]]
        chosen = same or list(rates.values())
        return sum(chosen) / len(chosen) if chosen else None

    @staticmethod
    def _fit_left(cell: _CellTime, now: float) -> float:
        if not cell.fitting or cell.since is None or not cell.fraction:
            return 0.0
        return (now - cell.since) * (1.0 - cell.fraction) / cell.fraction
