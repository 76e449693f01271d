"""What every score-based sampler shares: the separation problem, with a prior per source, as functions of the sources.

Samplers are pure functions ``sampler(problem, schedule, ...) -> (B, K, ...)``. They see the mixing operator through its adjoint, gram
and pseudo-inverse, the prior through ``score`` and ``denoise``, and draw noise by (example, step, source) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from sepbench.noise import NoiseSource
from sepbench.protocols import MixingOperator, Mixtures, ScorePrior

DEFAULT_MAX_ROWS = 128
"""Sources that go through a network at once; larger batches are slower per image on the CPU."""
SMALL_ELEMENTS = 1 << 17
"""More rows go at once as long as they hold fewer numbers than this: vectors of a few dimensions cost nothing but the call."""


@dataclass(slots=True)
class Meter:
    """Counts what goes through the priors, and tells how much of a batch that is.

    Attributes:
        tell: ``ctx.progress``.
        expected: sources that will have gone through a prior when the batch is over; 0 where that is not known.
        seen: sources that have gone through so far.
    """

    tell: Callable[[float, str], None] = lambda fraction, text: None
    expected: float = 0.0
    seen: int = 0

    def count(self, sources: int) -> None:
        """So many sources more have been evaluated."""
        self.seen += sources
        if self.expected:
            self.tell(min(1.0, self.seen / self.expected), f"{self.seen:,} of {self.expected:,.0f} evaluations")


@dataclass(slots=True)
class Problem:
    """One batch of mixtures to be separated under a prior.

    Attributes:
        mixtures: the batch, with its operator.
        priors: one prior for all sources, or one per source.
        noise: the noise source; ``fork`` it for another draw.
        source_shape: shape of one source, without batch axes.
        max_rows: sources per call of the prior.
        draws: ``(B,)`` number of the draw that each row makes; rows of one mixture with different numbers draw independently. None is draw 0.
        meter: told of every call of a prior; shared by all problems that are made of this one.
        evaluations: calls of the prior per source and row so far, the cost that papers count.
        operator: the mixtures' operator on their device. What a step needs lies there: a copy from the host would wait for the queue.
    """

    mixtures: Mixtures
    priors: Sequence[ScorePrior]
    noise: NoiseSource
    source_shape: tuple[int, ...]
    max_rows: int = DEFAULT_MAX_ROWS
    draws: torch.Tensor | None = None
    meter: Meter = field(default_factory=Meter)
    evaluations: int = field(default=0, init=False)
    operator: MixingOperator = field(init=False)
    _ids: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.priors) not in (1, self.n_sources):
            raise ValueError(f"got {len(self.priors)} priors for {self.n_sources} sources; give one, or one per source")
        self.operator = self.mixtures.operator.to(self.device)
        self._ids = self.mixtures.example_ids.to(self.device)
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
        return self.noise.normals(self._ids, step, self.n_sources, self.source_shape, self.device, self.draws)

    def uniforms(self, step: int) -> torch.Tensor:
        """Uniforms in [0, 1) for all sources, ``(B, K, ...)``."""
        return self.noise.uniforms(self._ids, step, self.n_sources, self.source_shape, self.device, self.draws)

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
        if len(self.priors) == 1:
            rows: torch.Tensor = self._rows(self.priors[0], sources.flatten(0, 1), sigma).unflatten(0, sources.shape[:2])
            return rows
        return torch.stack([self._rows(prior, sources[:, k], sigma) for k, prior in enumerate(self.priors)], dim=1)

    def denoise_one(self, source: torch.Tensor, slot: int, sigma: float) -> torch.Tensor:
        """Posterior mean of one source, ``(B, ...)``; counts as 1/K of an evaluation per source, which the caller adds up."""
        return self._rows(self.priors[slot if len(self.priors) > 1 else 0], source, sigma)

    def score(self, sources: torch.Tensor, sigma: float) -> torch.Tensor:
        """Scores of all sources by Tweedie's formula, ``(B, K, ...)``; one evaluation per source."""
        return (self.denoise(sources, sigma) - sources) / sigma**2

    def _rows(self, prior: ScorePrior, x: torch.Tensor, sigma: float) -> torch.Tensor:
        rows = max(self.max_rows, SMALL_ELEMENTS // max(1, x[0].numel())) if len(x) else self.max_rows
        parts = []
        for part in x.split(rows) if len(x) else (x,):
            parts.append(prior.denoise(part, sigma))
            self.meter.count(len(part))
        return parts[0] if len(parts) == 1 else torch.cat(parts)
