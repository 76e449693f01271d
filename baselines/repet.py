"""REPET: what repeats is the background. Rafii and Pardo, "REpeating Pattern Extraction Technique (REPET)", IEEE TASLP 21(1), 2013.

Supervision: ``blind``.

1. The beat spectrum (section II-A, equations 1 and 2) is the autocorrelation of each row of the power spectrogram, divided by the frames that a lag
   leaves, averaged over the rows. The period p is its highest lag in a range of periods.
2. The repeating segment (II-B, equation 3) is the median over all periods: of magnitudes at t, t + p, t + 2p, ... in each bin.
3. The background (II-C, equations 4 and 5) can be no louder than the mixture: W = min(segment, V), and its mask is W / V.

Everything below 100 Hz is background. Defaults are those of nussl 1.1.9. It searches from 0.8 s to 8 s or a third of
the signal, whichever is shorter. It takes the highest lag itself, while the paper weighs a lag by its multiples.

A signal of less than 2.4 s has no room for three periods of 0.8 s, and nussl ends with an error there. Here the lower
end gives way: the period is a third of the signal, as it would be for 2.4 s, and ``supports`` says so.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.fft import next_fast_len

from baselines.decomposition.masks import background_mask, channel_mean, mask_support, separate_by_masks, share_of_mixture
from baselines.decomposition.median import sort_values
from baselines.decomposition.roles import VOICES, role_support, slot_of_role
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT
from sepbench.stft import Stft

_FOREGROUND = 1
"""Our order of parts, as nussl's: background, foreground."""

_ROUNDING = 1e-9
"""Seconds; 3 x 0.8 is not 2.4."""


def beat_spectrum(magnitudes: torch.Tensor, lags: int) -> torch.Tensor:
    """How alike the power spectrogram is to itself so many frames later, ``(B, lags)`` float64 for lags 0, 1, ...

    Args:
        magnitudes: ``(B, C, F, N)``.
        lags: at most N.
    """
    frames = magnitudes.shape[-1]
    # Wiener and Khinchin; the zeros keep the lags that are asked for apart from those that wrap around.
    size = next_fast_len(frames + lags - 1, real=True)
    spectrum = torch.view_as_real(torch.fft.rfft(channel_mean(magnitudes.square(), 1), size)).square().mean(1).sum(-1)
    left = torch.arange(frames, frames - lags, -1, device=magnitudes.device)
    likeness: torch.Tensor = torch.fft.irfft(spectrum.double(), size)[:, :lags] / left
    return likeness


def repeating_share(magnitudes: torch.Tensor, period: int) -> torch.Tensor:
    """Masks W / V in [0, 1] of magnitudes ``(B, C, F, N)`` that repeat every ``period`` frames; 1 where the mixture is silent."""
    batch, channels, bins, frames = magnitudes.shape
    period = min(period, frames)
    repetitions = -(-frames // period)
    missing = repetitions * period - frames
    padded = torch.nn.functional.pad(magnitudes, (0, missing), value=math.inf)
    ordered = sort_values(padded.view(batch, channels, bins, repetitions, period).movedim(3, 0))
    # The last ``missing`` frames of a period occur once less; their infinity stands last.
    whole, short = ordered[..., : period - missing], ordered[..., period - missing :]
    segment = torch.cat([_middle(whole, repetitions), _middle(short, repetitions - 1)], -1)
    return share_of_mixture(segment.repeat(1, 1, 1, repetitions)[..., :frames], magnitudes)


def _middle(ordered: torch.Tensor, count: int) -> torch.Tensor:
    """The median of the first ``count`` of ordered values ``(n, ...)``."""
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


@dataclass(config=STRICT)
class REPET:
    """Parts are (background, foreground); a voice is the foreground, whatever it is mixed with."""

    shortest: float = Field(0.8, gt=0, description="shortest period that is searched for, in seconds")
    longest: float = Field(8.0, gt=0, description="longest period that is searched for, in seconds; a third of the signal if that is less")
    period: float = Field(0.0, ge=0, description="the period in seconds if it is known; 0 searches for it")
    high_pass: float = Field(100.0, ge=0, description="Hz below which everything is background")
    mask: Literal["soft", "binary"] = Field("soft", description="soft shares each bin, binary gives it to the larger share (background if equal)")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="repet",
        title="REPET",
        version="1",
        domains=frozenset({"audio"}),
        supervision="blind",
        paper="Rafii and Pardo 2013, equations 1 to 5",
        deterministic=True,
        max_batch=64,
    )

    def __post_init__(self) -> None:
        if self.shortest > self.longest:
            raise ValueError(f"the shortest period must not be above the longest, got {self.shortest} and {self.longest} s")

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "REPET", parts=2)
        if support.ok:
            support = role_support(task, VOICES, "REPET", "foreground")
        seconds = task.source_shape[-1] / task.sample_rate if task.sample_rate else 0.0
        if support.ok and not self.period and seconds < 3 * self.shortest - _ROUNDING:
            return Support(True, f"{support.note}; {seconds:.2f} s are less than three periods of {self.shortest} s: the period is a third of the signal")
        return support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, channels, T)`` to estimates ``(B, 2, channels, T)``; one period for all channels of a mixture."""
        length = mixtures.values.shape[-1]
        slot = slot_of_role(ctx.task, VOICES)
        return separate_by_masks(mixtures, ctx, lambda magnitudes, rate: self._background(magnitudes, rate, length), _FOREGROUND, slot)

    def _background(self, magnitudes: torch.Tensor, sample_rate: int, length: int) -> torch.Tensor:
        periods = self._periods(magnitudes, sample_rate, length)
        share = torch.empty_like(magnitudes)
        for period in sorted(set(periods.tolist())):
            rows = (periods == period).nonzero().squeeze(1)
            share[rows] = repeating_share(magnitudes[rows], period)
        return background_mask(share, self.high_pass, sample_rate, self.mask)

    def _periods(self, magnitudes: torch.Tensor, sample_rate: int, length: int) -> torch.Tensor:
        """Periods ``(B,)`` int64 in frames."""
        frames_per_second = sample_rate / Stft.at(sample_rate).hop
        if self.period:
            return torch.full((len(magnitudes),), math.ceil(self.period * frames_per_second), device=magnitudes.device)
        longest = math.ceil(min(self.longest, length / sample_rate / 3) * frames_per_second)
        longest = max(1, min(longest, magnitudes.shape[-1] - 1))
        shortest = min(math.ceil(self.shortest * frames_per_second), longest)
        if shortest == longest:
            return torch.full((len(magnitudes),), longest, device=magnitudes.device)
        return shortest + beat_spectrum(magnitudes, longest + 1)[:, shortest:].argmax(1)
