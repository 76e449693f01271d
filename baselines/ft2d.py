"""FT2D: what repeats are peaks of the spectrogram's own spectrum. Seetharaman, Pishdadian and Pardo, "Music/voice separation using the 2D Fourier
transform", WASPAA 2017.

Supervision: ``blind``.

1. The magnitude spectrogram is taken as an image and transformed once more, in time and in frequency (section 2).
   Patterns that repeat in time gather in peaks there, and everything else spreads out.
2. Peaks are the values that are the largest of the 25 modulation rates around them, at the same scale (2.1).
   ``threshold``, the paper's rule, keeps those whose neighbourhood spans more than the standard deviation of all
   values. ``local-std``, nussl's default (Seetharaman, dissertation, Northwestern University 2019, chapter 2), weighs
   each peak by ``(largest - mean) / deviation`` of its neighbourhood. A peak counts at its rate forwards and backwards,
   with the larger of the two weights.
3. The inverse transform W of the peaks alone is the background. Its mask is ``min(W, V) / V``, divided by its largest
   value (2.2).

Everything below 100 Hz is background. Defaults are those of nussl 1.1.9. With an odd number of frames the masks are the
same. With an even number nussl mirrors rates about half a rate beside zero, so every peak has a ghost next to its
mirror image, and W is not real. Here rates are always mirrored about zero. The transform is symmetric, so half of it is
enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.masks import background_mask, chunk_rows, magnitudes_of, mask_support, separate_by_masks, share_of_mixture
from baselines.decomposition.median import mirrored_positions
from baselines.decomposition.roles import VOICES, role_support, slot_of_role
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT

_FOREGROUND = 1
"""Our order of parts, as nussl's: background, foreground."""

_TINY = 1e-7
"""Added to deviations, in units of the largest value, and to the largest weight and share; nussl's."""


def sliding(values: torch.Tensor, width: int, combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Combines the ``width`` values around each value along the last axis; mirrored at both ends, the last value repeated.

    Args:
        values: any shape.
        width: odd.
        combine: associative and commutative, of two tensors; each value enters once.

    Combinations of 1, 2, 4, 8, ... neighbours are made of one another, so that a width takes 2 log2(width) steps, and without a running sum's errors.
    """
    length, half = values.shape[-1], width // 2
    ends = [values.index_select(-1, mirrored_positions(start, start + half, length, values.device)) for start in (-half, length)]
    runs = torch.cat([ends[0], values, ends[1]], -1)
    total = runs[..., :length]
    start, size = 1, 1
    while 2 * size < width:  # ``runs`` at n combines values n to n + size - 1; an odd width is 1 and some of 2, 4, 8, ...
        runs = combine(runs[..., :-size], runs[..., size:])
        size *= 2
        if width & size:
            total = combine(total, runs[..., start : start + length])
            start += size
    return total


def local_peaks(values: torch.Tensor, rates: int, peaks: str, scales: int) -> torch.Tensor:
    """Weights in [0, 1] of the peaks among the magnitudes ``(B, R, N)`` of a transform; 0 elsewhere.

    Args:
        values: not negative; scales from 0 up, all rates with rate zero in the middle.
        rates: odd width of a neighbourhood.
        peaks: ``local-std`` or ``threshold``.
        scales: of the whole transform, R = scales // 2 + 1; the others are mirror images.
    """
    highest = values.amax((1, 2), keepdim=True)
    values = values / torch.where(highest > 0, highest, 1.0)
    largest = sliding(values, rates, torch.maximum)
    if peaks == "threshold":
        smallest = sliding(values, rates, torch.minimum)
        whole = torch.cat([values, values[:, 1 : (scales - 1) // 2 + 1]], 1)
        spread = whole.flatten(1).std(1, correction=0).reshape(-1, 1, 1)
        return ((values == largest) & (largest - smallest > spread)).to(values.dtype)
    mean = sliding(values, rates, torch.add).div_(rates)
    deviation = sliding(values.square(), rates, torch.add).div_(rates).addcmul_(mean, mean, value=-1).clamp_(min=0.0).sqrt_().add_(_TINY)
    weights = (largest - mean).div_(deviation).mul_(values.eq_(largest))
    return weights.div_(weights.amax((1, 2), keepdim=True) + _TINY)


def peak_share(images: torch.Tensor, rates: int, peaks: str) -> torch.Tensor:
    """Masks in [0, 1] of the repeating background of magnitudes ``(B, F, N)``; see ``local_peaks``."""
    _, scales, frames = images.shape
    # One axis after the other, and back from values in order: two axes at once, or values in another order, are added up in an order that depends on
    # the batch where there are threads.
    # Rates of both signs at a scale are those of one sign at the scale and at its negative.
    spectra = torch.fft.fft(torch.fft.rfft(images), dim=1)
    whole = _both_signs(magnitudes_of(spectra), frames)
    weights = local_peaks(whole, rates, peaks, scales)
    forwards = torch.cat([weights[..., frames // 2 :], weights[..., : 1 - frames % 2]], 2)
    weights = torch.maximum(forwards, weights[..., : frames // 2 + 1].flip(2))
    weights = torch.cat([weights, weights[:, 1 : (scales - 1) // 2 + 1].flip(1)], 1)
    background = torch.fft.irfft(torch.fft.ifft(spectra * weights, dim=1).contiguous(), frames).abs_()
    share = share_of_mixture(background, images)
    return share / (share.amax((1, 2), keepdim=True) + _TINY)


def _both_signs(half: torch.Tensor, frames: int) -> torch.Tensor:
    """Magnitudes of the rates from 0 up, ``(B, F, N // 2 + 1)``, to those of all N rates in order, at the scales from 0 up, ``(B, F // 2 + 1, N)``."""
    rows, below = half.shape[1] // 2 + 1, (frames - 1) // 2
    upwards = half[:, :rows]
    downwards = torch.cat([half[:, :1], half[:, half.shape[1] - rows + 1 :].flip(1)], 1)[..., 1 : below + 1].flip(2)
    return torch.cat([upwards[..., below + 1 :], downwards, upwards[..., : below + 1]], 2)


@dataclass(config=STRICT)
class FT2D:
    """Parts are (background, foreground); a voice is the foreground, whatever it is mixed with."""

    rates: int = Field(25, ge=1, description="width of a peak's neighbourhood in modulation rates, odd")
    peaks: Literal["local-std", "threshold"] = Field("local-std", description="local-std weighs peaks, threshold keeps or drops them")
    high_pass: float = Field(100.0, ge=0, description="Hz below which everything is background")
    mask: Literal["soft", "binary"] = Field("soft", description="soft shares each bin, binary gives it to the larger share (background if equal)")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="ft2d",
        title="FT2D",
        version="1",
        domains=frozenset({"audio"}),
        supervision="blind",
        paper="Seetharaman, Pishdadian and Pardo 2017, section 2; peaks: Seetharaman 2019, chapter 2",
        deterministic=True,
        max_batch=64,
    )

    def __post_init__(self) -> None:
        if self.rates % 2 == 0:
            raise ValueError(f"rates must be odd, got {self.rates}")

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "FT2D", parts=2)
        return role_support(task, VOICES, "FT2D", "foreground") if support.ok else support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, channels, T)`` to estimates ``(B, 2, channels, T)``; channels by themselves."""
        return separate_by_masks(mixtures, ctx, self._background, _FOREGROUND, slot_of_role(ctx.task, VOICES))

    def _background(self, magnitudes: torch.Tensor, sample_rate: int) -> torch.Tensor:
        images = magnitudes.flatten(0, 1)
        chunks = images.split(chunk_rows(images[0].numel(), images.device))
        share = torch.cat([peak_share(chunk, self.rates, self.peaks) for chunk in chunks])
        return background_mask(share.view_as(magnitudes), self.high_pass, sample_rate, self.mask)
