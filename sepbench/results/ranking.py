"""Which methods the best one beats. A rank is worth no more than the test behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sepbench.results.pairing import difference, pair_up
from sepbench.results.statistics import TaskDesigns, holm
from sepbench.results.values import Values

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Evidence:
    """Per-example values and which examples share clusters: what a table of means cannot say."""

    values: Values
    designs: TaskDesigns

    def equals(self, task: str, metric: str, ranked: Sequence[str], higher_is_better: bool) -> frozenset[str]:
        """The methods that the best one does not beat.

        A one-sided paired test of ``intervals`` compares each with the best on the examples that both have. Holm
        adjusts the p-values over all methods of the ranking, and a method is beaten below ``LEVEL``. Too few clusters
        beat nobody. Methods without values per mixture are left out. If the best has none, the result is empty.

        Args:
            ranked: methods from best to worst.
        """
        known = [method for method in ranked if len(self.values.of(task, method, metric))]
        if len(known) < 2 or known[0] != ranked[0]:
            return frozenset()
        best, designs = self.values.of(task, known[0], metric), self.designs.task(task)
        p_values = []
        for method in known[1:]:
            paired = difference(pair_up(best, self.values.of(task, method, metric)), designs)
            p_values.append((paired.p_higher if higher_is_better else paired.p_lower) if paired.decidable else 1.0)
        adjusted = holm(np.array(p_values))
        return frozenset(method for method, p in zip(known[1:], adjusted, strict=True) if p >= LEVEL)
