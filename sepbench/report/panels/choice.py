"""Which mixtures are shown: a spread from best to worst, so that no figure shows the good ones alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sepbench.errors import SepbenchError

DEFAULT_COUNT = 7


@dataclass(frozen=True, slots=True)
class Choice:
    """Mixtures to be shown, in the order of the figure.

    Attributes:
        examples: numbers in the frozen list.
        words: one per example: ``best``, ``median``, ``worst``, ``rank 5 of 20``; empty where the user named the mixtures.
        told: how they were chosen, for the figure's subtitle.
    """

    examples: tuple[int, ...]
    words: tuple[str, ...]
    told: str


def spread_ranks(n: int, count: int) -> list[int]:
    """``count`` of the ranks 0 to n - 1: the first, the last, the median ``(n - 1) // 2``, the others evenly spaced on either side of it.

    All of them if there are no more than ``count``; the median alone if ``count`` is 1, first and last if it is 2.
    """
    if n <= count:
        return list(range(n))
    if count <= 2:
        return [(n - 1) // 2] if count == 1 else [0, n - 1]
    median, above, below = (n - 1) // 2, count - count // 2 - 1, count // 2
    better = [math.floor(median * i / above + 0.5) for i in range(above)]
    worse = [median + math.floor((n - 1 - median) * i / below + 0.5) for i in range(1, below + 1)]
    return [*better, median, *worse]


def spread(values: Mapping[int, float], count: int, higher_is_better: bool, by: str) -> Choice:
    """Mixtures from best to worst.

    Args:
        values: example -> value; those that are not finite are never chosen. Equal values keep the order of the list.
        count: how many.
        higher_is_better: direction of the metric.
        by: the metric's name, for the subtitle.

    Raises:
        SepbenchError: no value is finite.
    """
    sign = -1.0 if higher_is_better else 1.0
    ranked = sorted((sign * value, example) for example, value in values.items() if math.isfinite(value))
    if not ranked:
        raise SepbenchError(f"no mixture has a value of {by}; name mixtures with --examples to look at them")
    ranks = spread_ranks(len(ranked), count)
    seen = [word for word, rank in (("best", 0), ("median", (len(ranked) - 1) // 2), ("worst", len(ranked) - 1)) if rank in ranks]
    told = f"{len(ranks)} of {len(ranked):,} mixtures at evenly spaced ranks of {by} ({', '.join(seen)} included)"
    if len(ranks) == len(ranked) or count == 1:
        told = f"All {len(ranked):,} mixtures, from best to worst {by}" if count > 1 else f"The mixture of median {by}"
    lost = len(values) - len(ranked)
    if lost:
        told += f"; {lost:,} that failed {'is' if lost == 1 else 'are'} left out"
    return Choice(tuple(ranked[rank][1] for rank in ranks), tuple(_word(rank, len(ranked)) for rank in ranks), told)


def named(examples: Sequence[int], n_planned: int) -> Choice:
    """The mixtures that the user names, in that order.

    Raises:
        SepbenchError: one of them is not part of the run.
    """
    for example in examples:
        if not 0 <= example < n_planned:
            raise SepbenchError(f"--examples: mixture {example} is not part of this run, which took mixtures 0 to {n_planned - 1}")
    return Choice(tuple(dict.fromkeys(examples)), ("",) * len(set(examples)), "Mixtures chosen by hand")


def _word(rank: int, n: int) -> str:
    words = {(n - 1) // 2: "median", n - 1: "worst", 0: "best"}  # of a single mixture "best" is left
    return words.get(rank, f"rank {rank + 1:,} of {n:,}")
