"""Sources whose posterior is known: Gaussian mixtures in D dimensions, their smoothed scores, and the exact posterior given a mixture.

For ``x_k ~ sum_c pi_c N(mu_c, C_c)`` and ``m = sum_k w_k x_k + s v`` with standard normal v, everything is in closed form:

- ``p_sigma`` is the same mixture with covariances ``C_c + sigma^2 I``, so score and posterior mean follow;
- given one component per source, (x, m) is jointly Gaussian; the posterior is a Gaussian mixture over all component combinations with
  weights ``prod pi N(m; sum w mu, sum w^2 C + s^2 I)``.

All in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from sepbench.noise import NoiseSource, noise_levels
from sepbench.torch_later import torch


@dataclass(frozen=True, slots=True)
class GaussianMixture:
    """``sum_c pi_c N(mu_c, C_c)``: weights ``(C,)``, means ``(C, D)``, covariances ``(C, D, D)``, float64. Offers ``ScorePrior``."""

    weights: torch.Tensor
    means: torch.Tensor
    covariances: torch.Tensor
    _eigen: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list, init=False, repr=False, compare=False)
    _moved: dict[torch.device, GaussianMixture] = field(default_factory=dict, init=False, repr=False, compare=False)

    def to(self, device: torch.device) -> GaussianMixture:
        """The same mixture with its parameters on a device, kept for the next call; itself if they are there."""
        if self.means.device == device:
            return self
        if device not in self._moved:
            self._moved[device] = GaussianMixture(self.weights.to(device), self.means.to(device), self.covariances.to(device))
        return self._moved[device]

    def _eigenbasis(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues ``(C, D)`` and eigenvectors ``(C, D, D)`` of the covariances, worked out once: samplers call thousands of times."""
        if not self._eigen:
            self._eigen.append(torch.linalg.eigh(self.covariances))
        return self._eigen[0]

    @property
    def dimension(self) -> int:
        return int(self.means.shape[1])

    @property
    def components(self) -> int:
        return int(self.means.shape[0])

    def mean(self) -> torch.Tensor:
        """``(D,)``."""
        return self.weights @ self.means

    def covariance(self) -> torch.Tensor:
        """``(D, D)``."""
        centred = self.means - self.mean()
        within = torch.einsum("c,cde->de", self.weights, self.covariances)
        return within + torch.einsum("c,cd,ce->de", self.weights, centred, centred)

    def log_prob(self, x: torch.Tensor, sigma: float | torch.Tensor = 0.0) -> torch.Tensor:
        """``log p_sigma(x)`` in nats: ``(M, D)`` to ``(M,)``."""
        return torch.logsumexp(self.to(x.device)._log_joint(x.double(), self._levels(x, sigma))[0], dim=1)

    def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Posterior mean ``(M, D)`` of the clean source given ``x = clean + sigma n``, in x's dtype."""
        levels = self._levels(x, sigma)
        here = self.to(x.device)
        log_joint, variances, rotated = here._log_joint(x.double(), levels)
        shares = torch.softmax(log_joint, dim=1)
        shrunk = here._rotate_back(shares[..., None] * (here._eigenbasis()[0] / variances) * rotated)
        return (shares @ here.means + shrunk).to(x.dtype)

    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Gradient of ``log p_sigma``, ``(M, D)``, in x's dtype (computed directly, so it stays exact as sigma goes to 0)."""
        levels = self._levels(x, sigma)
        here = self.to(x.device)
        log_joint, variances, rotated = here._log_joint(x.double(), levels)
        return here._rotate_back(-torch.softmax(log_joint, dim=1)[..., None] * rotated / variances).to(x.dtype)

    def sample(self, noise: NoiseSource, ids: torch.Tensor, step: int, source: int) -> torch.Tensor:
        """One clean draw per id, ``(len(ids), D)`` float64."""
        pick = noise.fork(noise.stream + 1).uniform(ids, step, source, (1,)).double()[:, 0]
        component = torch.searchsorted(self.weights.cumsum(0)[:-1].contiguous(), pick)
        normal = noise.normal(ids, step, source, (self.dimension,)).double()
        factors = torch.linalg.cholesky(self.covariances)
        return self.means[component] + torch.einsum("mde,me->md", factors[component], normal)

    def _levels(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """``(M,)``, or ``(1,)`` where all rows share a level: then nothing that follows from the level is computed per row."""
        return noise_levels(sigma, torch.float64, x.device).reshape(-1)

    def _log_joint(self, x: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``log pi_c N(x; mu_c, C_c + sigma^2 I)`` ``(M, C)``; variances and x - mu in the components' eigenbases, ``(M, C, D)`` both."""
        eigenvalues, eigenvectors = self._eigenbasis()
        # One product with all bases side by side is several times faster than one per component.
        side_by_side = eigenvectors.transpose(0, 1).flatten(1)
        rotated = (x @ side_by_side).unflatten(1, (self.components, -1)) - torch.einsum("cde,cd->ce", eigenvectors, self.means)
        variances = eigenvalues + levels[:, None, None] ** 2
        quadratic = (rotated**2 / variances).sum(-1) + variances.log().sum(-1) + self.dimension * math.log(2 * math.pi)
        return self.weights.log() - 0.5 * quadratic, variances, rotated

    def _rotate_back(self, rotated: torch.Tensor) -> torch.Tensor:
        """``(M, C, D)`` in the components' eigenbases to their sum in the coordinates of x, ``(M, D)``."""
        return rotated.flatten(1) @ self._eigenbasis()[1].transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class ExactPosterior:
    """``p(x_1 .. x_K | m)`` for independent Gaussian-mixture sources under ``m = sum_k w_k x_k + s v``.

    Attributes:
        priors: one per source.
        operator_weights: ``(K,)`` float64.
        noise_std: s, 0 for a mixture without noise.
    """

    priors: Sequence[GaussianMixture]
    operator_weights: torch.Tensor
    noise_std: float = 0.0

    def combinations(self) -> list[tuple[int, ...]]:
        """All choices of one component per source."""
        return list(product(*[range(prior.components) for prior in self.priors]))

    def responsibilities(self, mixtures: torch.Tensor) -> torch.Tensor:
        """Posterior probability of every combination, ``(B, combinations)``."""
        logits = []
        for combination in self.combinations():
            mean, factor = self._marginal(combination)
            whitened = torch.linalg.solve_triangular(factor, (mixtures.double() - mean).T, upper=False)
            log_weight = sum(float(prior.weights[c].log()) for prior, c in zip(self.priors, combination, strict=True))
            logits.append(log_weight - 0.5 * (whitened**2).sum(0) - factor.diagonal().log().sum())
        return torch.softmax(torch.stack(logits, dim=1), dim=1)

    def moments(self, mixtures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean ``(B, K, D)`` and covariance ``(B, K * D, K * D)`` of the posterior."""
        responsibilities = self.responsibilities(mixtures)
        means = torch.stack([self._conditional_mean(c, mixtures) for c in self.combinations()], dim=1).flatten(2)
        within = torch.stack([self._conditional_covariance(c) for c in self.combinations()])
        mean = torch.einsum("bc,bcd->bd", responsibilities, means)
        centred = means - mean[:, None]
        covariance = torch.einsum("bc,cde->bde", responsibilities, within) + torch.einsum("bc,bcd,bce->bde", responsibilities, centred, centred)
        return mean.unflatten(1, (len(self.priors), -1)), covariance

    def sample(self, mixtures: torch.Tensor, noise: NoiseSource, ids: torch.Tensor, draws: int) -> torch.Tensor:
        """Exact draws ``(B, draws, K, D)``: a combination, then Matheron's rule within it."""
        sources, dimension = len(self.priors), self.priors[0].dimension
        cumulative = self.responsibilities(mixtures).cumsum(1)[:, :-1].contiguous()
        picks = noise.fork(noise.stream + 2).uniform(ids, 0, 0, (draws,)).double()
        chosen = torch.searchsorted(cumulative, picks).flatten()
        normals = torch.stack([noise.normal(ids, 0, k, (draws, dimension)) for k in range(sources + 1)], dim=2).double().flatten(0, 1)
        observed = mixtures.double().repeat_interleave(draws, dim=0)
        out = torch.empty(len(ids) * draws, sources, dimension, dtype=torch.float64)
        for number, combination in enumerate(self.combinations()):
            rows = (chosen == number).nonzero()[:, 0]
            out[rows] = self._conditional_sample(combination, observed[rows], normals[rows])
        shaped: torch.Tensor = out.unflatten(0, (len(ids), draws))
        return shaped

    def _marginal(self, combination: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean ``(D,)`` and Cholesky factor of the mixture's covariance, given a combination."""
        pairs = list(zip(self.priors, combination, self.operator_weights.tolist(), strict=True))
        dimension = self.priors[0].dimension
        mean = torch.zeros(dimension, dtype=torch.float64)
        covariance = self.noise_std**2 * torch.eye(dimension, dtype=torch.float64)
        for prior, c, weight in pairs:
            mean = mean + weight * prior.means[c]
            covariance = covariance + weight**2 * prior.covariances[c]
        return mean, torch.linalg.cholesky(covariance)

    def _gains(self, combination: tuple[int, ...]) -> torch.Tensor:
        """``w_k C_k S^-1``, ``(K, D, D)``."""
        _, factor = self._marginal(combination)
        weights = self.operator_weights.tolist()
        chosen = [w * prior.covariances[c] for prior, c, w in zip(self.priors, combination, weights, strict=True)]
        return torch.stack([torch.cholesky_solve(scaled, factor).T for scaled in chosen])

    def _conditional_mean(self, combination: tuple[int, ...], mixtures: torch.Tensor) -> torch.Tensor:
        mean, _ = self._marginal(combination)
        own = torch.stack([prior.means[c] for prior, c in zip(self.priors, combination, strict=True)])
        conditional: torch.Tensor = own + torch.einsum("kde,be->bkd", self._gains(combination), mixtures.double() - mean)
        return conditional

    def _conditional_covariance(self, combination: tuple[int, ...]) -> torch.Tensor:
        dimension = self.priors[0].dimension
        own = torch.block_diag(*[prior.covariances[c] for prior, c in zip(self.priors, combination, strict=True)])
        mixing = torch.cat([w * torch.eye(dimension, dtype=torch.float64) for w in self.operator_weights.tolist()], dim=1)
        covariance: torch.Tensor = own - self._gains(combination).flatten(0, 1) @ mixing @ own
        return covariance

    def _conditional_sample(self, combination: tuple[int, ...], mixtures: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
        """Draw from the joint prior, then move it onto the observed mixture: exact for Gaussians (Matheron's rule)."""
        drawn = [
            prior.means[c] + normals[:, k] @ torch.linalg.cholesky(prior.covariances[c]).T
            for k, (prior, c) in enumerate(zip(self.priors, combination, strict=True))
        ]
        x = torch.stack(drawn, dim=1)
        predicted = torch.einsum("k,bkd->bd", self.operator_weights, x) + self.noise_std * normals[:, -1]
        return x + torch.einsum("kde,be->bkd", self._gains(combination), mixtures - predicted)
