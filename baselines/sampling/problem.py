"""The separation problem of all score-based samplers, with a prior per source, as functions of the sources.

Samplers are pure functions ``sampler(problem, schedule, ...) -> (B, K, ...)``. They use the mixing operator through
its adjoint, gram and pseudo-inverse, and the prior through ``score`` and ``denoise``. Their noise depends only on
(example, step, source).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from sepbench.memory import out_of_memory, release, scaled
from sepbench.noise import Counters, NoiseSource
from sepbench.protocols import MixingOperator, Mixtures, ScorePrior

CPU_ROWS, GPU_ROWS = 128, 4096
"""How many sources go through a network at once.

Larger batches are slower per image on the CPU. About 1,000 fill a large GPU.
"""
CPU_ELEMENTS, GPU_ELEMENTS = 1 << 17, 1 << 22
"""More rows go through at once if they have fewer numbers than this.

For vectors of a few dimensions only the call costs time.
"""


@dataclass(slots=True)
class RowLimit:
    """How many rows go through a prior in one call.

    Device and memory decide, and a number that was too many is halved for good.

    Attributes:
        rows: how many rows of any size.
        elements: more rows than that are allowed if they have at most this many numbers.
    """

    rows: int = CPU_ROWS
    elements: int = CPU_ELEMENTS

    @classmethod
    def of(cls, device: str | torch.device) -> RowLimit:
        """The limit that a device begins with."""
        if torch.device(device).type != "cuda":
            return cls()
        return cls(scaled(GPU_ROWS, device), scaled(GPU_ELEMENTS, device))

    def at_once(self, numbers: int) -> int:
        """How many rows of ``numbers`` numbers each go through at once."""
        return max(self.rows, self.elements // max(1, numbers))

    def halve(self, rows: int, numbers: int) -> None:
        """Lower the limit: ``rows`` rows of ``numbers`` numbers each were too many. This warns."""
        half = max(1, rows // 2)
        self.rows, self.elements = min(self.rows, half), min(self.elements, half * numbers)
        warnings.warn(f"out of memory with {rows:,} rows in one call of the prior; {half:,} from here on", RuntimeWarning, stacklevel=3)


@dataclass(slots=True)
class Meter:
    """Counts the evaluations of the priors, and reports how much of a batch is done.

    Attributes:
        tell: ``ctx.progress``.
        expected: how many sources go through a prior until the batch is over; 0 if that is not known.
        seen: how many sources have gone through so far.
        rows: by the identity of a batch's example ids: the ids, and how many sources of every row have gone
            through.
    """

    tell: Callable[[float, str], None] = lambda fraction, text: None
    expected: float = 0.0
    seen: int = 0
    rows: dict[int, tuple[torch.Tensor, int]] = field(default_factory=dict)

    def count(self, sources: int) -> None:
        """Count ``sources`` more evaluated sources, and report."""
        self.seen += sources
        if self.expected:
            self.tell(min(1.0, self.seen / self.expected), f"{self.seen:,} of {self.expected:,.0f} evaluations")

    def note(self, example_ids: torch.Tensor, sources: int) -> None:
        """Note that ``sources`` sources of every row of a batch have gone through a prior.

        This costs nothing: ``by_mixture`` adds rows up on request.
        """
        before = self.rows.get(id(example_ids), (example_ids, 0))[1]
        self.rows[id(example_ids)] = example_ids, before + sources  # this keeps the ids alive, so no other tensor gets their identity

    def by_mixture(self, example_ids: torch.Tensor) -> torch.Tensor:
        """How many sources have gone through for each of these mixtures, ``(B,)`` float64.

        Mixtures with the same id share its cost.
        """
        known, place, times = example_ids.unique(return_inverse=True, return_counts=True)
        spent = torch.zeros(len(known), dtype=torch.float64)
        for ids, sources in self.rows.values():
            spent.index_add_(0, torch.searchsorted(known, ids), torch.full((len(ids),), float(sources), dtype=torch.float64))
        shared: torch.Tensor = (spent / times)[place]
        return shared


@dataclass(slots=True)
class Problem:
    """One batch of mixtures to separate under a prior.

    Attributes:
        mixtures: the batch, with its operator.
        priors: one prior for all sources, or one per source.
        noise: the noise source; ``fork`` it for another draw.
        source_shape: shape of one source, without batch axes.
        limit: sources per call of the prior, shared by all problems made from this one; None: what the device begins
            with.
        draws: ``(B,)``, the number of each row's draw. Rows of one mixture with different numbers draw independently.
            None is draw 0.
        meter: counts every call of a prior, shared by all problems made from this one.
        evaluations: calls of the prior per source and row so far, the cost that papers count.
        operator: the mixtures' operator on their device. A step needs it there, because a copy from the host would
            wait for the queue.

    Raises:
        ValueError: the number of priors is neither 1 nor that of the sources.
    """

    mixtures: Mixtures
    priors: Sequence[ScorePrior]
    noise: NoiseSource
    source_shape: tuple[int, ...]
    limit: RowLimit | None = None
    draws: torch.Tensor | None = None
    meter: Meter = field(default_factory=Meter)
    evaluations: int = field(default=0, init=False)
    operator: MixingOperator = field(init=False)
    _ids: torch.Tensor = field(init=False, repr=False)
    _limit: RowLimit = field(init=False, repr=False)
    _counters: Counters | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.priors) not in (1, self.n_sources):
            raise ValueError(f"got {len(self.priors)} priors for {self.n_sources} sources; give one, or one per source")
        self.operator = self.mixtures.operator.to(self.device)
        self._ids = self.mixtures.example_ids.to(self.device)
        self._limit = self.limit or RowLimit.of(self.device)
        self.draws = None if self.draws is None else self.draws.to(self.device)

    @property
    def n_sources(self) -> int:
        return self.mixtures.n_sources

    @property
    def device(self) -> torch.device:
        return self.mixtures.values.device

    def repeat(self, draws: int) -> Problem:
        """The problem with ``draws`` rows for each of its rows, one after another.

        A row of draw d becomes draws d * draws, d * draws + 1, ...
        """
        repeated = self.rows(torch.arange(len(self.mixtures)).repeat_interleave(draws))
        first = 0 if repeated.draws is None else repeated.draws * draws
        return replace(repeated, draws=first + torch.arange(draws, device=self.device).repeat(len(self.mixtures)))

    def rows(self, rows: torch.Tensor) -> Problem:
        """The problem of some rows (``rows`` int64 on the CPU), with their draws' noise.

        Evaluations count from zero.
        """
        mixtures = self.mixtures
        chosen = Mixtures(mixtures.values[rows.to(self.device)], mixtures.example_ids[rows], mixtures.operator.select(rows))
        return replace(self, mixtures=chosen, draws=None if self.draws is None else self.draws[rows.to(self.device)])

    def normal(self, step: int, source: int) -> torch.Tensor:
        """Standard normals for one source, ``(B, ...)``."""
        return self.noise.normal(self._ids, step, source, self.source_shape, self.device, self.draws)

    def normals(self, step: int) -> torch.Tensor:
        """Standard normals for all sources, ``(B, K, ...)``."""
        return self._drawn(step, normal=True)

    def uniforms(self, step: int) -> torch.Tensor:
        """Uniforms in [0, 1) for all sources, ``(B, K, ...)``."""
        return self._drawn(step, normal=False)

    def _drawn(self, step: int, normal: bool) -> torch.Tensor:
        if self._counters is None:
            self._counters = self.noise.counters(self._ids, range(self.n_sources), self.device, self.draws)
        drawn: torch.Tensor = self.noise.draw(self._counters, step, self.source_shape, normal).unflatten(0, (-1, self.n_sources))
        return drawn

    def residual(self, sources: torch.Tensor) -> torch.Tensor:
        """``m - g(x)``, ``(B, ...)``."""
        return self.mixtures.values - self.operator.forward(sources)

    def constrained(self, sources: torch.Tensor, slot: int) -> torch.Tensor:
        """Sources ``(B, K, ...)`` with source ``slot`` set to the rest of the mixture.

        The weight of the slot must not be zero.
        """
        weight = self.operator.matrix().to(sources)[..., 0, slot].reshape(-1, *([1] * (sources.ndim - 2)))
        filled = sources.clone()
        filled[:, slot] += self.residual(sources) / weight
        return filled

    def denoise(self, sources: torch.Tensor, sigma: float) -> torch.Tensor:
        """Posterior means ``(B, K, ...)`` of all sources at noise level sigma.

        This costs one evaluation per source.
        """
        self.evaluations += 1
        self.meter.note(self.mixtures.example_ids, self.n_sources)
        if len(self.priors) == 1:
            rows: torch.Tensor = self._rows(self.priors[0], sources.flatten(0, 1), sigma).unflatten(0, sources.shape[:2])
            return rows
        return torch.stack([self._rows(prior, sources[:, k], sigma) for k, prior in enumerate(self.priors)], dim=1)

    def denoise_one(self, source: torch.Tensor, slot: int, sigma: float) -> torch.Tensor:
        """Posterior mean ``(B, ...)`` of one source.

        It counts as 1/K of an evaluation per source, which the caller adds up.
        """
        self.meter.note(self.mixtures.example_ids, 1)
        return self._rows(self.priors[slot if len(self.priors) > 1 else 0], source, sigma)

    def told_apart(self, evaluations: int) -> None:
        """Count evaluations, per source and row, that were made without ``denoise`` to rank draws.

        The caller adds them to ``evaluations``.
        """
        self.meter.note(self.mixtures.example_ids, evaluations * self.n_sources)
        self.meter.count(evaluations * self.n_sources * len(self.mixtures))

    def score(self, sources: torch.Tensor, sigma: float) -> torch.Tensor:
        """Scores ``(B, K, ...)`` of all sources by Tweedie's formula. This costs one evaluation per source."""
        return (self.denoise(sources, sigma) - sources) / sigma**2

    def _rows(self, prior: ScorePrior, x: torch.Tensor, sigma: float) -> torch.Tensor:
        numbers = math.prod(x.shape[1:])
        parts: list[torch.Tensor] = []
        start = 0
        while start < len(x) or not parts:
            part = x[start : start + self._limit.at_once(numbers)]
            denoised = _unless_out_of_memory(prior, part, sigma)
            if denoised is None:
                self._limit.halve(len(part), numbers)
                release(x.device)
                continue
            parts.append(denoised)
            start += len(part)
            self.meter.count(len(part))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _unless_out_of_memory(prior: ScorePrior, part: torch.Tensor, sigma: float) -> torch.Tensor | None:
    """The prior's predictions for some rows; None if memory ran out and fewer rows are possible.

    The error holds tensors. They are freed when this function returns.
    """
    try:
        return prior.denoise(part, sigma)
    except Exception as error:
        if len(part) < 2 or not out_of_memory(error):
            raise
        return None
