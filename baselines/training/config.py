"""Settings of a training run, and its random numbers.

Image order, noise levels and noise of a step depend only on (seed, step).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything the result depends on besides data and network layout.

    Attributes:
        steps: length of the run, decay included. With a deadline it is an upper bound.
        batch: images per step.
        workers: threads that share a batch on the CPU. The last bits of gradient sums depend on it.
        seed: of weights, order and noise.
        lr: peak rate of AdamW. AdamW trains biases, norms, embedding, first and last layer.
        matrix_lr: peak rate of Muon (Jordan et al. 2024). Muon trains all other weights, as matrices. 0: AdamW trains
            them too.
        betas: of AdamW.
        momentum: of Muon.
        weight_decay: of both.
        warmup: steps of linear warm-up.
        decay_fraction: share of the run spent in linear decay to zero.
        clip: the largest gradient norm.
        ema: the largest decay of the running average of weights. The decay at step t is min(ema, (1 + t) / (10 + t)).
        sigma_range: noise levels are log-uniform in this range.
        focus_range: a narrower range, in which ``focus`` of the levels are log-uniform.
        focus: share of the batch whose levels come from ``focus_range``.
        bf16: compute the network under bfloat16 autocast.
        mirror: exchange left and right in half of the images, drawn anew at every step.

    Raises:
        ValueError: a number is out of its range, or a range does not increase.
    """

    steps: int
    batch: int = 64
    workers: int = 2
    seed: int = 0
    lr: float = 2e-3
    matrix_lr: float = 5e-3
    betas: tuple[float, float] = (0.9, 0.99)
    momentum: float = 0.95
    weight_decay: float = 0.01
    warmup: int = 300
    decay_fraction: float = 0.22
    clip: float = 1.0
    ema: float = 0.999
    sigma_range: tuple[float, float] = (0.005, 2.0)
    focus_range: tuple[float, float] = (0.05, 0.8)
    focus: float = 0.6
    bf16: bool = True
    mirror: bool = False

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.workers) < 1 or self.workers > self.batch:
            raise ValueError("steps, batch and workers must be at least 1, and workers at most batch")
        if not (0.0 < self.decay_fraction < 1.0 and 0.0 <= self.focus <= 1.0 and 0.0 <= self.ema < 1.0):
            raise ValueError("decay_fraction must lie in (0, 1), focus in [0, 1] and ema in [0, 1)")
        for low, high in (self.sigma_range, self.focus_range):
            if not 0.0 < low < high:
                raise ValueError(f"a range of noise levels must be positive and increasing, got ({low}, {high})")


def derived_seed(*parts: object) -> int:
    """A 32-bit seed from any printable parts.

    The parts are hashed and not packed, because torch's CPU generator keeps only 32 bits of a seed.
    """
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "little")


def generator(*parts: object) -> torch.Generator:
    """A new CPU generator whose seed is ``derived_seed(*parts)``."""
    return torch.Generator().manual_seed(derived_seed(*parts))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, n_images: int, device: str | torch.device) -> torch.Tensor:
    """The permutation of an epoch. It is drawn on the CPU for every device. Never change it in place."""
    return torch.randperm(n_images, generator=generator(seed, "epoch", epoch)).to(device)


def batch_indices(seed: int, step: int, batch: int, n_images: int, device: str | torch.device = "cpu") -> torch.Tensor:
    """Image numbers ``(batch,)`` int64 of a step.

    The stream of images is one random permutation after another, one per epoch.
    """
    position = step * batch
    parts: list[torch.Tensor] = []
    while batch > 0:
        epoch, offset = divmod(position, n_images)
        part = _order(seed, epoch, n_images, device)[offset : offset + batch]
        parts.append(part)
        position, batch = position + len(part), batch - len(part)
    return torch.cat(parts)


def draw_sigmas(config: TrainConfig, random: torch.Generator, batch: int) -> torch.Tensor:
    """Stratified noise levels ``(batch,)`` float32 on the generator's device.

    Each of the two log-uniform laws is cut into equal slices with one level each, so every batch covers the range.
    """
    n_focus = round(config.focus * batch)
    levels = []
    for count, (low, high) in ((n_focus, config.focus_range), (batch - n_focus, config.sigma_range)):
        u = (torch.arange(count, device=random.device) + torch.rand(count, generator=random, device=random.device)) / max(count, 1)
        levels.append(torch.exp(math.log(low) + u * math.log(high / low)))
    return torch.cat(levels)


def mirrored(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Images ``(B, C, H, W)``. Each has left and right exchanged with probability 1/2."""
    exchanged = torch.rand(len(images), generator=random, device=random.device) < 0.5
    return torch.where(exchanged[:, None, None, None], images.flip(-1), images)


def rate_share(config: TrainConfig, step: int, decay_start: int | None, decay_steps: int) -> float:
    """Share of the peak rates at a step, in [0, 1].

    It warms up linearly, stays at 1, and falls linearly to zero from ``decay_start`` on.

    Args:
        config: for the warm-up.
        step: counted from 0.
        decay_start: first step of the decay; None before the decay is planned.
        decay_steps: length of the decay.
    """
    share = min(1.0, (step + 1) / max(1, config.warmup))
    if decay_start is not None and step >= decay_start:
        share *= max(0.0, 1.0 - (step - decay_start) / max(1, decay_steps))
    return share
