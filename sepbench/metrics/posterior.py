"""How far a sampler's draws are from the exact posterior. Every metric is one number per mixture, and lower is better.

For a perfect sampler with finitely many draws none of them is zero. The row of ``exact-posterior`` says what N
independent exact draws get. Draws and reference are float64, ``(B, N, F)`` with F = K * D: all sources of a mixture are
one point, so wrong dependence between sources counts. A mixture whose draws are not all finite has no value: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

from sepbench.metrics.kinds import MetricInfo, PosteriorReference
from sepbench.torch_later import torch


@dataclass(frozen=True, slots=True)
class DrawsMetric:
    """What the metrics of this file share: ``_score`` is the formula of each."""

    info: MetricInfo

    def posterior_score(self, draws: torch.Tensor, reference: PosteriorReference) -> torch.Tensor:
        """``(B, N, F)`` draws to ``(B,)`` values as ``_score`` says, NaN where a draw holds NaN or infinity."""
        # Comparisons with NaN are false, so that a formula alone may find such draws perfect.
        return torch.where(draws.isfinite().flatten(1).all(dim=1), self._score(draws, reference), torch.nan)

    def _score(self, draws: torch.Tensor, reference: PosteriorReference) -> torch.Tensor:
        raise NotImplementedError


class PosteriorMeanError(DrawsMetric):
    """``|mean of the draws - posterior mean| / sqrt(tr C)``, C the exact covariance; about ``N ** -0.5`` for exact draws."""

    __slots__ = ()

    def _score(self, draws: torch.Tensor, reference: PosteriorReference) -> torch.Tensor:
        """``(B, N, F)`` draws to ``(B,)`` >= 0."""
        spread = reference.covariance.diagonal(dim1=1, dim2=2).sum(1).sqrt()
        error: torch.Tensor = (draws.mean(1) - reference.mean).norm(dim=1) / spread
        return error


class PosteriorCovError(DrawsMetric):
    """``|S - C| / |C|`` in Frobenius' norm; S is the draws' covariance (over N - 1), C the exact one, which may be singular.

    For exact Gaussian draws about ``sqrt((1 + (tr C)^2 / |C|^2) / (N - 1))``.
    """

    __slots__ = ()

    def _score(self, draws: torch.Tensor, reference: PosteriorReference) -> torch.Tensor:
        """``(B, N, F)`` draws, N > 1, to ``(B,)`` >= 0."""
        centred = draws - draws.mean(1, keepdim=True)
        covariance = centred.transpose(1, 2) @ centred / (draws.shape[1] - 1)
        error: torch.Tensor = (covariance - reference.covariance).flatten(1).norm(dim=1) / reference.covariance.flatten(1).norm(dim=1)
        return error


class EnergyDistance(DrawsMetric):
    """``(2 E|x - y| - E|x - x'| - E|y - y'|) / (2 E|x - y|)`` of draws x and exact draws y, in [0, 1].

    Energy statistics of Szekely and Rizzo (2013), their coefficient of inhomogeneity: free of scale, hence comparable between dimensions. All
    means run over all pairs, a draw with itself included (V-statistic): never negative, and about ``1 / N`` for exact draws.
    """

    __slots__ = ()

    def _score(self, draws: torch.Tensor, reference: PosteriorReference) -> torch.Tensor:
        """``(B, N, F)`` draws to ``(B,)`` in [0, 1]."""
        across = 2 * distances(draws, reference.draws).mean((1, 2))
        within = distances(draws, draws).mean((1, 2)) + distances(reference.draws, reference.draws).mean((1, 2))
        # Rounding alone could make the difference of equal sets negative; sets of one and the same point have nothing between them.
        return torch.where(across > 0, (across - within).clamp_min(0) / across, 0.0)


class NearestNeighbourTest(DrawsMetric):
    """Classifier two-sample test: how often the nearest neighbour of a point is of the point's own kind, draw or exact draw.

    Leave-one-out accuracy of the 1-nearest-neighbour classifier, as in Lopez-Paz and Oquab (2017) and Xu et al. (2018): 1 if they are told
    apart always; ``(N - 1) / (2 N - 1)``, just below 0.5, for exact draws. Blind, in many dimensions, to draws that are merely too narrow: they are
    then the nearest neighbours of both kinds, one kind is always right, the other always wrong, and 0.5 comes out. Read it with the others.
    """

    __slots__ = ()

    def _score(self, draws: torch.Tensor, reference: PosteriorReference) -> torch.Tensor:
        """``(B, N, F)`` draws, as many as exact ones, to ``(B,)`` in [0, 1]."""
        points = torch.cat([draws, reference.draws], dim=1)
        apart = distances(points, points)
        apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        is_draw = torch.arange(points.shape[1]) < draws.shape[1]
        same = is_draw[apart.argmin(dim=2)] == is_draw
        return same.double().mean(1)


class PitError(DrawsMetric):
    """Calibration of credible intervals: per coordinate, where exact draws fall among the sampler's draws, held against the uniform.

    The probability integral transform of an exact draw y is ``(#{x < y} + 1/2 #{x = y} + 1/2) / (N + 1)``. If x and y have one distribution it
    is uniform, up to the grid of N + 1 values. The error is the Kolmogorov distance ``sup |F(u) - u|`` of these from the uniform distribution,
    averaged over the coordinates; a credible interval of the sampler's misses its level by at most twice that.
    """

    __slots__ = ()

    def _score(self, draws: torch.Tensor, reference: PosteriorReference) -> torch.Tensor:
        """``(B, N, F)`` draws to ``(B,)`` in [0, 1]."""
        transformed = pit_values(draws, reference.draws).sort(dim=2).values
        count = transformed.shape[2]
        steps = torch.arange(count + 1, dtype=torch.float64) / count
        distance = torch.maximum((steps[1:] - transformed).amax(2), (transformed - steps[:-1]).amax(2))
        return distance.mean(1)


def pit_values(draws: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Where exact draws fall among a sampler's draws, see ``PitError``: ``(B, N, F)`` and ``(B, M, F)`` to ``(B, F, M)`` in (0, 1)."""
    ordered, among = draws.transpose(1, 2).contiguous().sort(dim=2).values, exact.transpose(1, 2).contiguous()
    below = torch.searchsorted(ordered, among, side="left") + torch.searchsorted(ordered, among, side="right")
    return (below.double() + 1) / 2 / (draws.shape[1] + 1)


def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Euclidean distances ``(B, N, M)`` between ``(B, N, F)`` and ``(B, M, F)``; by differences: products would lose what lies close together."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _info(name: str, source: str) -> MetricInfo:
    return MetricInfo(name, "1", False, frozenset({"vector"}), "posterior", source)


POSTERIOR_MEAN_ERROR = PosteriorMeanError(_info("posterior_mean_error", "|mean - exact mean| / sqrt(tr C)"))
POSTERIOR_COV_ERROR = PosteriorCovError(_info("posterior_cov_error", "|S - C| / |C|, Frobenius"))
ENERGY_DISTANCE = EnergyDistance(_info("energy_distance", "Szekely and Rizzo 2013, V-statistic over 2 E|x - y|"))
C2ST = NearestNeighbourTest(_info("c2st", "Lopez-Paz and Oquab 2017, leave-one-out 1-NN accuracy; 0.5 is best"))
PIT_ERROR = PitError(_info("pit_error", "Kolmogorov distance of PIT values from uniform, mean over coordinates"))
