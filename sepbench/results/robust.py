"""Statistics that a few failures do not decide: the interquartile mean and the probability of improvement (Agarwal et al. 2021, "rliable").

Both have the intervals of ``intervals``, so mixtures that share a song, an image or a recording count for what they are.
``benchmarks/coverage_robust.py`` shows how often they hold the true value.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sepbench.results.intervals import LEVEL, t_quantile
from sepbench.results.pairing import pair_up
from sepbench.results.ranking import Evidence
from sepbench.results.statistics import Designs, Summary, summarise
from sepbench.suites.loader import NEVER_RANKING

TRIM = 0.25

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RobustRow:
    """One method on one task, in one metric.

    Attributes:
        method: its name.
        median: over mixtures, in the metric's unit.
        iqm: interquartile mean with its interval.
        improvement: probability in [0, 1] that the best method is better than this one on the same mixture, ties counting one half, with its interval;
            None for the best itself, for bounds, and in a metric that never ranks.
    """

    method: str
    median: float
    iqm: Summary
    improvement: Summary | None


def interquartile_mean(values: Floats, examples: Integers, designs: Designs) -> Summary:
    """Mean of the middle half of the values ``(n,)``: a quarter of them, rounded down, is left out at each end.

    Its variance is that of the winsorised values over (1 - 2 * 1/4)^2 (Tukey and McLaughlin 1963), which ``designs`` turns into one that knows clusters:
    the summary is that of the influence values ``iqm + (w_i - mean(w)) / (1 - 2 * 1/4)``, whose mean is the interquartile mean. Only the middle half
    says how far the values spread, so the degrees of freedom are those of its mixtures: the effective number of their clusters less one. For
    independent mixtures, g of which are left out at each end, that is Tukey and McLaughlin's n - 2 g - 1.

    Raises:
        ValueError: see ``summarise``.
    """
    if not len(values):
        return summarise(values, examples, designs)
    order, cut = np.argsort(values, kind="stable"), int(TRIM * len(values))
    kept = order[cut : len(values) - cut]
    middle = values[kept]
    winsorised = np.clip(values, middle[0], middle[-1])
    influence = float(middle.mean()) + (winsorised - winsorised.mean()) / (1 - 2 * TRIM)
    found, design = summarise(influence, examples, designs), designs.of(examples)
    inner = designs.of(np.sort(examples[kept]))
    degrees = min(design.degrees, inner.degrees) if inner.knows_spread else 0.0
    half = t_quantile(degrees, (1 + LEVEL) / 2) * float(design.standard_errors(influence[:, None])[0])
    return replace(found, ci_low=found.mean - half, ci_high=found.mean + half)


def probability(values: Floats, examples: Integers, designs: Designs) -> Summary:
    """The mean of values ``(n,)`` that are 0, 1 or, for ties, 1/2, with an interval inside [0, 1] (``Design.share_interval``).

    Raises:
        ValueError: see ``summarise``.
    """
    found = summarise(values, examples, designs)
    if not found.n:
        return found
    low, high = designs.of(examples).share_interval(values)
    return replace(found, ci_low=low, ci_high=high)


def robust_rows(evidence: Evidence, task: str, metric: str, methods: Sequence[str], higher_is_better: bool, bounds: Collection[str] = ()) -> list[RobustRow]:
    """The rows of some methods, best interquartile mean first; methods without values are left out.

    Args:
        bounds: methods that are no competitors: the best is sought among the others.
    """
    designs = evidence.designs.task(task)
    cells = {method: evidence.values.of(task, method, metric) for method in methods}
    found = {}
    for method, cell in cells.items():
        if cell.scored.any():
            found[method] = interquartile_mean(cell.values[cell.scored], cell.examples[cell.scored], designs)
    order = sorted(found, key=lambda method: -found[method].mean if higher_is_better else found[method].mean)
    best = next((method for method in order if method not in bounds), "") if metric not in NEVER_RANKING else ""
    rows = []
    for method in order:
        improvement = None
        if best and method != best and method not in bounds:
            pairs = pair_up(cells[best], cells[method])
            gain = (pairs.a - pairs.b) * (1 if higher_is_better else -1)
            improvement = probability((gain > 0) + 0.5 * (gain == 0), pairs.examples, designs)
        rows.append(RobustRow(method, float(np.nanmedian(cells[method].values)), found[method], improvement))
    return rows
