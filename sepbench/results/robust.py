"""Statistics that a few failures do not decide: the interquartile mean and the probability of improvement (Agarwal et al. 2021, "rliable").

Both have the intervals of ``intervals``, so mixtures that share a song, an image or a recording count for what they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sepbench.results.pairing import pair_up
from sepbench.results.ranking import Evidence
from sepbench.results.statistics import Designs, Summary, summarise

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
            None for the best itself and for bounds.
    """

    method: str
    median: float
    iqm: Summary
    improvement: Summary | None


def interquartile_mean(values: Floats, examples: Integers, designs: Designs) -> Summary:
    """Mean of the middle half of the values ``(n,)``: a quarter of them, rounded down, is left out at each end.

    Its variance is that of the winsorised values over (1 - 2 * 1/4)^2 (Tukey and McLaughlin 1963), which ``designs`` turns into one that knows clusters:
    the summary is that of the influence values ``iqm + (w_i - mean(w)) / (1 - 2 * 1/4)``, whose mean is the interquartile mean.

    Raises:
        ValueError: see ``summarise``.
    """
    if not len(values):
        return summarise(values, examples, designs)
    ordered = np.sort(values)
    cut = int(TRIM * len(values))
    middle = ordered[cut : len(values) - cut]
    winsorised = np.clip(values, middle[0], middle[-1])
    return summarise(float(middle.mean()) + (winsorised - winsorised.mean()) / (1 - 2 * TRIM), examples, designs)


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
    best = next((method for method in order if method not in bounds), "")
    rows = []
    for method in order:
        improvement = None
        if best and method != best and method not in bounds:
            pairs = pair_up(cells[best], cells[method])
            gain = (pairs.a - pairs.b) * (1 if higher_is_better else -1)
            improvement = summarise((gain > 0) + 0.5 * (gain == 0), pairs.examples, designs)
        rows.append(RobustRow(method, float(np.nanmedian(cells[method].values)), found[method], improvement))
    return rows
