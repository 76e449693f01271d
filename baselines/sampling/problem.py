"""What every score-based sampler shares: the separation problem, with a prior per source, as functions of the sources.

Samplers are pure functions ``sampler(problem, schedule, ...) -> (B, K, ...)``. They see the mixing operator through its adjoint, gram
and pseudo-inverse, the prior through ``score`` and ``denoise``, and draw noise by (example, step, source) alone.
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
"""Sources that go through a network at once. Larger batches are slower per image on the CPU; a large GPU is full from about 1,000 on."""
CPU_ELEMENTS, GPU_ELEMENTS = 1 << 17, 1 << 22
"""More rows go at once as long as they hold fewer numbers than this: vectors of a few dimensions cost nothing but the call."""


@dataclass(slots=True)
class RowLimit:
    """How many rows go through a prior in one call: by device and memory, and halved for good where that was too many.

    Attributes:
        rows: rows of any size.
        elements: more rows as long as they hold no more numbers.
    """

    rows: int = CPU_ROWS
    elements: int = CPU_ELEMENTS

    @classmethod
    def of(cls, device: str | torch.device) -> RowLimit:
        """Where a device begins."""
        if torch.device(device).type != "cuda":
            return cls()
        return cls(scaled(GPU_ROWS, device), scaled(GPU_ELEMENTS, device))

    def at_once(self, numbers: int) -> int:
        """Rows of so many numbers each."""
        return max(self.rows, self.elements // max(1, numbers))

    def halve(self, rows: int, numbers: int) -> None:
        """So many rows of so many numbers were too many."""
        half = max(1, rows // 2)
        self.rows, self.elements = min(self.rows, half), min(self.elements, half * numbers)
        warnings.warn(f"out of memory with {rows:,} rows in one call of the prior; {half:,} from here on", RuntimeWarning, stacklevel=3)


@dataclass(slots=True)
class Meter:
    """Counts what goes through the priors, and tells how much of a batch that is.

    Attributes:
        tell: ``ctx.progress``.
        expected: sources that will have gone through a prior when the batch is over; 0 where that is not known.
        seen: sources that have gone through so far.
        rows: by the identity of a batch's example ids: the ids, and how many sources of every row have gone through.
    """

    tell: Callable[[float, str], None] = lambda fraction, text: None
    expected: float = 0.0
    seen: int = 0
    rows: dict[int, tuple[torch.Tensor, int]] = field(default_factory=dict)

    def count(self, sources: int) -> None:
        """So many sources more have been evaluated."""
        self.seen += sources
        if self.expected:
            self.tell(min(1.0, self.seen / self.expected), f"{self.seen:,} of {self.expected:,.0f} evaluations")

    def note(self, example_ids: torch.Tensor, sources: int) -> None:
        """So many sources of every row of a batch have gone through. Costs nothing: rows are added up when somebody asks, in ``by_mixture``."""
        before = self.rows.get(id(example_ids), (example_ids, 0))[1]
        self.rows[id(example_ids)] = example_ids, before + sources  # the ids are held, so no other tensor gets their identity

    def by_mixture(self, example_ids: torch.Tensor) -> torch.Tensor:
        """Sources that have gone through for each of these mixtures, ``(B,)`` float64; mixtures with one id share what was spent on it."""
        known, place, times = example_ids.unique(return_inverse=True, return_counts=True)
        spent = torch.zeros(len(known), dtype=torch.float64)
        for ids, sources in self.rows.values():
            spent.index_add_(0, torch.searchsorted(known, ids), torch.full((len(ids),), float(sources), dtype=torch.float64))
        shared: torch.Tensor = (spent / times)[place]
        return shared


@dataclass(slots=True)
class Problem:
    """One batch of mixtures to be separated under a prior.

    Attributes:
        mixtures: the batch, with its operator.
        priors: one prior for all sources, or one per source.
        noise: the noise source; ``fork`` it for another draw.
        source_shape: shape of one source, without batch axes.
        limit: sources per call of the prior; shared by all problems that are made of this one. None: what the device begins with.
        draws: ``(B,)`` number of the draw that each row makes; rows of one mixture with different numbers draw independently. None is draw 0.
        meter: told of every call of a prior; shared by all problems that are made of this one.
        evaluations: calls of the prior per source and row so far, the cost that papers count.
        operator: the mixtures' operator on their device. What a step needs lies there: a copy from the host would wait for the queue.
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
        """The problem with ``draws`` rows for each of its own, one after another: draws d * draws, d * draws + 1, ... of a row that makes draw d."""
        repeated = self.rows(torch.arange(len(self.mixtures)).repeat_interleave(draws))
        first = 0 if repeated.draws is None else repeated.draws * draws
        return replace(repeated, draws=first + torch.arange(draws, device=self.device).repeat(len(self.mixtures)))

    def rows(self, rows: torch.Tensor) -> Problem:
        """The problem of some rows (``rows`` int64 on the CPU), with their draws' noise; evaluations count from zero."""
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
        """Sources ``(B, K, ...)`` with source ``slot`` set to what the mixture leaves over; the weight of every slot must be non-zero."""
        weight = self.operator.matrix().to(sources)[..., 0, slot].reshape(-1, *([1] * (sources.ndim - 2)))
        filled = sources.clone()
        filled[:, slot] += self.residual(sources) / weight
        return filled

    def denoise(self, sources: torch.Tensor, sigma: float) -> torch.Tensor:
        """Posterior means of all sources at noise level sigma, ``(B, K, ...)``; one evaluation per source."""
        self.evaluations += 1
        self.meter.note(self.mixtures.example_ids, self.n_sources)
        if len(self.priors) == 1:
            rows: torch.Tensor = self._rows(self.priors[0], sources.flatten(0, 1), sigma).unflatten(0, sources.shape[:2])
            return rows
        return torch.stack([self._rows(prior, sources[:, k], sigma) for k, prior in enumerate(self.priors)], dim=1)

    def denoise_one(self, source: torch.Tensor, slot: int, sigma: float) -> torch.Tensor:
        """Posterior mean of one source, ``(B, ...)``; counts as 1/K of an evaluation per source, which the caller adds up."""
        self.meter.note(self.mixtures.example_ids, 1)
        return self._rows(self.priors[slot if len(self.priors) > 1 else 0], source, sigma)

    def told_apart(self, evaluations: int) -> None:
        """So many evaluations per source and row were made without ``denoise``, by what tells draws apart; the caller adds them to ``evaluations``."""
        self.meter.note(self.mixtures.example_ids, evaluations * self.n_sources)
        self.meter.count(evaluations * self.n_sources * len(self.mixtures))

    def score(self, sources: torch.Tensor, sigma: float) -> torch.Tensor:
        """Scores of all sources by Tweedie's formula, ``(B, K, ...)``; one evaluation per source."""
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
    """What the prior makes of some rows; None where memory was too short for them and they can be fewer. Its error, which holds tensors, is gone then."""
    try:
        return prior.denoise(part, sigma)
    except Exception as error:
        if len(part) < 2 or not out_of_memory(error):
            raise
        return None
