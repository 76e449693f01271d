"""How long a run still takes: from what its cells have cost so far, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class _CellTime:
    """One cell's clock.

    Attributes:
        left: mixtures that are still to be separated.
        done: mixtures that were separated while this clock ran.
        working: seconds spent in separating and scoring, the present stage left out.
        preparing: seconds spent before that (fit, load, warm up), the present stage left out.
        stage: first word of the present stage; empty before the first.
        since: when it began.
        fraction: of it that is done; None where that is not known.
        over: the cell has ended.
    """

    left: float
    done: float = 0.0
    working: float = 0.0
    preparing: float = 0.0
    stage: str = ""
    since: float = 0.0
    fraction: float | None = None
    over: bool = False

    @property
    def works(self) -> bool:
        """Mixtures are being done: also where another worker fits the method meanwhile."""
        return self.stage in ("separate", "score") or (self.stage != "" and self.done > 0)

    def enter(self, stage: str, now: float) -> None:
        """A stage begins, and the one before ends."""
        if self.works:
            self.working += now - self.since
        elif self.stage:
            self.preparing += now - self.since
        self.stage, self.since = stage, now

    def worked(self, now: float) -> float:
        return self.working + (now - self.since if self.works else 0.0)


@dataclass
class TimeLeft:
    """Told what a run's progress is told; says how many seconds are left.

    A cell that separates goes on at the rate it had so far, scoring included. A cell that fits takes what its fraction says, or else what the fit
    of the same method took on another task, and then what that took to separate. So does a cell that has not begun; where nothing is known of its
    method its mixtures are taken to cost what the others cost on average.
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
        cell, name = self._cells[key], text.split(" ", 1)[0]
        if name != cell.stage:
            cell.enter(name, self.clock())
        cell.fraction = fraction

    def advance(self, key: Hashable, mixtures: float) -> None:
        """So many mixtures more are done; fewer where a worker died at them."""
        cell = self._cells[key]
        cell.left -= mixtures
        if cell.stage:
            cell.done = max(0.0, cell.done + mixtures)

    def end(self, key: Hashable) -> None:
        cell = self._cells[key]
        cell.enter("", self.clock())
        cell.left, cell.over = 0.0, True

    def seconds(self) -> float | None:
        """Seconds left, None while nothing has been measured."""
        now = self.clock()
        rates = {key: cell.worked(now) / cell.done for key, cell in self._cells.items() if cell.done > 0}
        total, known = 0.0, False
        for key, cell in self._cells.items():
            if cell.over or cell.left <= 0:
                continue
            fit, rate = self._fit_left(key, now), rates.get(key, self._expected(key, rates))
            known = known or bool(fit) or rate is not None
            total += (fit or 0.0) + (rate or 0.0) * cell.left
        return total if known else None

    def _expected(self, key: Hashable, rates: Mapping[Hashable, float]) -> float | None:
        """Seconds per mixture: of the same method on other tasks, else of all."""
        same = [rate for other, rate in rates.items() if self._methods[other] == self._methods[key]]
        return _mean(same or list(rates.values()))

    def _fit_left(self, key: Hashable, now: float) -> float | None:
        cell = self._cells[key]
        if cell.works:
            return 0.0
        elapsed = now - cell.since if cell.stage else 0.0
        if cell.fraction:
            return elapsed * (1.0 - cell.fraction) / cell.fraction
        usual = _mean([other.preparing for name, other in self._cells.items() if other.done > 0 and self._methods[name] == self._methods[key]])
        return None if usual is None else max(0.0, usual - cell.preparing - elapsed)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
