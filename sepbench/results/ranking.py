"""Which methods the best one beats. A rank is worth no more than the test behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sepbench.results.pairing import difference, pair_up
from sepbench.results.statistics import TaskDesigns, holm
from sepbench.results.values import NO_VALUES, Values

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class AgainstBest:
    """What the tests against the best method say.

    Attributes:
        equal: the methods that it is not shown to beat.
        untested: those that cannot be paired with it, of which nothing is said but their means: they have no values per mixture, none of the same
            mixtures, or those of a pooled metric that cannot be made anew of the common ones.
    """

    equal: frozenset[str] = frozenset()
    untested: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Per-example values and which examples share clusters: what a table of means cannot say."""

    values: Values
    designs: TaskDesigns

    def against_best(self, task: str, metric: str, ranked: Sequence[str], higher_is_better: bool) -> AgainstBest:
        """Which methods the best one beats.

        A one-sided paired test of ``intervals`` compares each with the best on the examples that both have. Holm
        (1979) adjusts the p-values over all methods that could be tested, and a method is beaten below ``LEVEL``. Too
        few clusters beat nobody. If the best has no values per mixture, nobody is tested and the result is empty.

        Args:
            ranked: methods from best to worst.
        """
        best, designs = self.values.of(task, ranked[0], metric) if ranked else NO_VALUES, self.designs.task(task)
        if not len(best):
            return AgainstBest()
        p_values = {}
        for method in ranked[1:]:
            paired = difference(pair_up(best, self.values.of(task, method, metric)), designs)
            if paired.n:
                p_values[method] = (paired.p_higher if higher_is_better else paired.p_lower) if paired.decidable else 1.0
        adjusted = holm(np.array(list(p_values.values())))
        equal = frozenset(method for method, p in zip(p_values, adjusted, strict=True) if p >= LEVEL)
        return AgainstBest(equal, frozenset(ranked[1:]) - p_values.keys())
