"""Settings of a training run and everything random in it: image order, noise levels and noise of a step depend on (seed, step) alone."""

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
        steps: length of the run, decay included; an upper bound where a deadline is set.
        batch: images per step.
        workers: threads that share a batch on the CPU; sums of gradients depend on it in the last bits.
        seed: seed of weights, order and noise.
        lr: peak rate of AdamW, which trains biases, norms, embedding, first and last layer.
        matrix_lr: peak rate of Muon (Jordan et al. 2024), which trains all other weights as matrices; 0 leaves them to AdamW.
        betas: of AdamW.
        momentum: of Muon.
        weight_decay: of both.
        warmup: steps of linear warm-up.
        decay_fraction: share of the run spent in linear decay to zero.
        clip: largest gradient norm.
        ema: largest decay of the running average of weights; the decay at step t is min(ema, (1 + t) / (10 + t)).
        sigma_range: noise levels are log-uniform in this range ...
        focus_range: ... or in this narrower one,
        focus: for this share of the batch.
        bf16: compute the network under bfloat16 autocast.
        mirror: show half of the images, drawn anew at every step, with left and right exchanged.
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
    """A 32-bit seed from any printable parts. torch's CPU generator keeps only 32 bits of a seed, so they are hashed, not packed."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "little")


def generator(*parts: object) -> torch.Generator:
    """A CPU generator of its own for any printable parts."""
    return torch.Generator().manual_seed(derived_seed(*parts))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, n_images: int, device: str | torch.device) -> torch.Tensor:
    """The permutation of an epoch, drawn on the CPU whatever the device; never to be changed in place."""
    return torch.randperm(n_images, generator=generator(seed, "epoch", epoch)).to(device)


def batch_indices(seed: int, step: int, batch: int, n_images: int, device: str | torch.device = "cpu") -> torch.Tensor:
    """Image numbers ``(batch,)`` of a step: the stream of images is one random permutation after another, one per epoch."""
    position = step * batch
    parts: list[torch.Tensor] = []
    while batch > 0:
        epoch, offset = divmod(position, n_images)
        part = _order(seed, epoch, n_images, device)[offset : offset + batch]
        parts.append(part)
        position, batch = position + len(part), batch - len(part)
    return torch.cat(parts)


def draw_sigmas(config: TrainConfig, random: torch.Generator, batch: int) -> torch.Tensor:
    """Stratified noise levels ``(batch,)`` on the generator's device: one per equal slice of the two log-uniform laws, so that every batch covers the range."""
    n_focus = round(config.focus * batch)
    levels = []
    for count, (low, high) in ((n_focus, config.focus_range), (batch - n_focus, config.sigma_range)):
        u = (torch.arange(count, device=random.device) + torch.rand(count, generator=random, device=random.device)) / max(count, 1)
        levels.append(torch.exp(math.log(low) + u * math.log(high / low)))
    return torch.cat(levels)


def mirrored(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Images ``(B, C, H, W)``, each with left and right exchanged with probability 1/2."""
    exchanged = torch.rand(len(images), generator=random, device=random.device) < 0.5
    return torch.where(exchanged[:, None, None, None], images.flip(-1), images)


def rate_share(config: TrainConfig, step: int, decay_start: int | None, decay_steps: int) -> float:
    """Share of the peak learning rates at a step: linear warm-up, constant, and linear to zero from ``decay_start`` on."""
    share = min(1.0, (step + 1) / max(1, config.warmup))
    if decay_start is not None and step >= decay_start:
        share *= max(0.0, 1.0 - (step - decay_start) / max(1, decay_steps))
    return share
