"""The networks of this package as priors (``sepbench.protocols.ScorePrior``): ``EDMPrior`` and ``NCSNPrior``."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch

from baselines.networks.ncsn_refinenet import CondRefineNetDilated, ncsn_sigmas
from baselines.priors.edm import EDMDenoiser
from baselines.priors.engine import Engine, EngineKind
from baselines.priors.probability_flow import flow_log_prob, lattice_signs
from sepbench.errors import MethodError, UnsupportedTaskError
from sepbench.noise import NoiseSource, noise_levels
from sepbench.precision import Precision, float32_products

CPU_CHUNK = 64  # images per forward pass on the CPU: beyond, the allocator hands memory back between layers and each image gets slower
FLOW_STEPS, FLOW_SPACING = 24, 3
"""Nodes of the flow's quadrature and distance of the pixels that share a probe; chosen by ``benchmarks/log_prior_error.py``."""
_LOWEST_DENSITY = 0.01
"""Clean images are taken as samples at this noise level, where the density is as sharp as the samplers' last level."""


def tweedie(x: torch.Tensor, score: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """``E[y | x] = x + sigma^2 score`` (Robbins 1956, Miyasawa 1961): the denoiser of anything that has a score. Levels as in ``ScorePrior``."""
    return x + trailing_axes(sigma, x).square() * score


def trailing_axes(sigma: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Levels of the leading axes of ``x`` with axes of length one added, so that they multiply ``x``."""
    level = noise_levels(sigma, x.dtype, x.device)
    return level.reshape((*level.shape, *([1] * (x.ndim - level.ndim))))


def _flatten(x: torch.Tensor, sigma: float | torch.Tensor, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """``(..., C, H, W)`` and levels to ``(N, C, H, W)`` and ``(N,)``, with every check."""
    event = len(shape)
    if x.ndim <= event or tuple(x.shape[-event:]) != shape:
        raise UnsupportedTaskError(
            f"this prior was trained on images of shape {shape}, the task has {tuple(x.shape[-event:])}; train one with `sepbench train`"
        )
    flat = x.reshape(-1, *shape)
    level = noise_levels(sigma, torch.float32, x.device)
    if level.ndim and level.shape != x.shape[: x.ndim - event]:
        raise ValueError(f"sigma must be one number or have the leading shape {tuple(x.shape[: x.ndim - event])}, got {tuple(level.shape)}")
    return flat, level.reshape(-1).expand(flat.shape[0])


def _finite(values: torch.Tensor, what: str) -> torch.Tensor:
    # On an accelerator the check would stall the queue at every step; there the run's own check of the estimates catches it.
    if values.device.type == "cpu" and not bool(torch.isfinite(values).all()):
        raise MethodError(f"{what} is not finite: the weights are damaged or the sampler diverged; check the weights file and the step size")
    return values


@dataclass(frozen=True, slots=True)
class EDMPrior:
    """A trained denoiser over a continuous range of noise.

    Attributes:
        denoiser: the network in EDM preconditioning, in eval mode.
        shape: ``(C, H, W)`` of one image, values in [0, 1].
        sigma_range: levels that it was trained on; beyond them it extrapolates.
        precision: ``bfloat16`` computes the network under autocast (faster, relative error of the network's part about 1e-2); ``tf32`` rounds the
            factors of products and convolutions on a GPU (about 1e-3); ``float32`` is float32 on every device.
        name: for messages and provenance.
        engine: how a GPU runs the network; made anew with the precision.
    """

    denoiser: EDMDenoiser
    shape: tuple[int, ...]
    sigma_range: tuple[float, float]
    precision: Precision = "float32"
    name: str = "score prior"
    engine: Engine = field(default_factory=Engine, repr=False, compare=False)

    def to(self, device: str | torch.device) -> EDMPrior:
        """The same prior with its weights on ``device``."""
        return replace(self, denoiser=self.denoiser.to(device), engine=Engine(self.engine.kind))

    def with_precision(self, precision: Precision) -> EDMPrior:
        return replace(self, precision=precision, engine=Engine(self.engine.kind))

    def with_engine(self, kind: EngineKind) -> EDMPrior:
        return replace(self, engine=Engine(kind))

    def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """``E[y | x]`` for noisy images ``(..., C, H, W)`` at level ``sigma`` (one number, or one per image with the leading shape); float32, same shape."""
        return self._evaluate("forward", x, sigma)

    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """``grad_x log p_sigma(x) = (D(x; sigma) - x) / sigma^2`` for images ``(..., C, H, W)``; float32, same shape."""
        return self._evaluate("score", x, sigma)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """``log p(x)`` in nats of clean images ``(M, C, H, W)``, ``(M,)`` float64: ``estimated_log_prob`` at its defaults, with one set of signs for all."""
        return self.estimated_log_prob(x, torch.zeros(len(x), dtype=torch.int64), NoiseSource(0))

    def estimated_log_prob(
        self, x: torch.Tensor, example_ids: torch.Tensor, noise: NoiseSource, *, steps: int = FLOW_STEPS, spacing: int = FLOW_SPACING
    ) -> torch.Tensor:
        """``log p(x)`` in nats by the probability-flow ODE (``flow_log_prob``), computed in float32 whatever the precision.

        Defaults are chosen by ``benchmarks/log_prior_error.py``. An image costs ``4 * steps + 4`` passes forward and ``steps * channels * spacing^2``
        backward. A spacing of the image's size computes the trace exactly.

        Args:
            x: clean images ``(M, C, H, W)``.
            example_ids: ``(M,)``; rows with one id share their random signs.
            noise: the run's noise source.
            steps: nodes of the quadrature.
            spacing: distance of the pixels that share a pass backward.

        Returns:
            ``(M,)`` float64.
        """
        exact = self.with_precision("float32")
        mean = torch.tensor(self.denoiser.mean, device=x.device)
        levels = {"lowest": max(_LOWEST_DENSITY, self.sigma_range[0]), "highest": self.sigma_range[1]}
        parts = []
        for part, ids in zip(x.split(CPU_CHUNK), example_ids.split(CPU_CHUNK), strict=True):
            signs = lattice_signs(ids, noise, self.shape, spacing, x.device)
            parts.append(flow_log_prob(exact, part, **levels, base_mean=mean, base_variance=self.denoiser.sigma_data**2, steps=steps, probes=signs))
        return torch.cat(parts)

    def _evaluate(self, which: Literal["forward", "score"], x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Differentiable with respect to ``x`` where it asks for a gradient, as log densities do; samplers pay for no graph."""
        flat, level = _flatten(x, sigma, self.shape)
        chunk = CPU_CHUNK if x.device.type == "cpu" else max(1, len(flat))
        with_graph = x.requires_grad and torch.is_grad_enabled()
        arithmetic = torch.autocast(x.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
        with torch.set_grad_enabled(with_graph), float32_products(x.device, self.precision == "tf32"), arithmetic:
            network = self.denoiser if with_graph else self.engine.network(self.denoiser, self.precision == "bfloat16", x.device)
            function = getattr(network, which)
            run = function if with_graph else partial(self.engine, function, network)
            parts = [run(a, s) for a, s in zip(torch.split(flat, chunk), torch.split(level, chunk), strict=True)]
        return _finite(torch.cat(parts).reshape(x.shape), f"the output of {self.name}")


@dataclass(frozen=True, slots=True)
class NCSNPrior:
    """The ten-level network of Song and Ermon (2019) as a prior. Levels other than its own are refused, not interpolated."""

    network: CondRefineNetDilated
    shape: tuple[int, ...]
    name: str = "NCSN"

    def to(self, device: str | torch.device) -> NCSNPrior:
        return replace(self, network=self.network.to(device))

    def _levels(self, sigma: torch.Tensor) -> torch.Tensor:
        own = ncsn_sigmas().to(device=sigma.device, dtype=torch.float32)
        distance = (sigma[:, None] / own[None, :]).log().abs()
        gap, level = distance.min(dim=1)
        if bool((gap > 0.01).any()):
            raise UnsupportedTaskError(f"{self.name} knows ten noise levels only, {[round(float(s), 5) for s in own]}; use them or another prior")
        return level

    @torch.no_grad()
    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Score of images ``(..., C, H, W)`` at one of the ten levels; float32, same shape."""
        flat, level = _flatten(x, sigma, self.shape)
        numbers = self._levels(level)
        chunk = CPU_CHUNK if x.device.type == "cpu" else len(flat)
        with float32_products(x.device):
            parts = [self.network(a, n) for a, n in zip(torch.split(flat, chunk), torch.split(numbers, chunk), strict=True)]
        return _finite(torch.cat(parts).reshape(x.shape), f"the output of {self.name}")

    def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """``x + sigma^2 score(x, sigma)``."""
        return tweedie(x, self.score(x, sigma), sigma)
