"""Images and spectrograms for masks that are learnt: from signals to parts that a network learns from, and from its masks to estimates.

A part is a source times its weight in the mixture, so that parts add up to mixtures.

* Images: parts are images ``(N, C, H, W)``.
* Audio, as Halperin et al. (2018) have it: parts are complex spectra ``(N, 1, F, 64)``; the network looks at the magnitude of a mixture, its mask times the
  mixture's spectrum is the estimate, phase included, and the loss compares magnitudes, linear and not compressed. Windows are the power of two nearest to
  the paper's 25 ms (512 at 16,000 to 22,050 Hz, as its FFT: 257 bins) and hops half of it, since the inverse is to be exact; the paper's are 10 ms.
  Recordings are cut into segments of 64 frames for learning and separated whole: the network is convolutional.

Where the operator is ``gain`` the weights differ from mixture to mixture. Recordings then enter with one and the same level, mixtures with the level of a
sum of independent sources of that level, which is what 0 dB means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch.nn import functional

from baselines.decomposition.mask_tasks import part_weights
from baselines.decomposition.masks import magnitudes_of, separate_by_masks
from baselines.decomposition.parts import estimates_from_parts
from sepbench.protocols import Mixtures, RunContext, TaskSpec
from sepbench.stft import Stft

FRAMES = 64
"""Of a segment; the paper's."""
_WINDOW_SECONDS = 0.025
_AT_ONCE = 64
_SILENCE = 1e-12


Masks = Callable[[torch.Tensor], torch.Tensor]
"""Mixtures ``(B, C, H, W)``, of audio magnitudes, to masks ``(B, K, C, H, W)`` that add up to 1; ``(B, 1, C, H, W)``: the other part is what it leaves."""


class SignalParts(Protocol):
    """What a mask method needs to know of a kind of signal.

    Attributes:
        shape: of a part, ``(C, H, W)``.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def source(self, signals: torch.Tensor, slot: int) -> torch.Tensor:
        """Clean signals of source ``slot`` to parts."""
        ...

    def mixture(self, signals: torch.Tensor) -> torch.Tensor:
        """Mixtures to what parts add up to."""
        ...

    def as_sources(self, parts: torch.Tensor, slot: int) -> torch.Tensor:
        """Parts to sources, which ``source`` takes to these parts."""
        ...

    def estimates(self, masks: Masks, mixtures: Mixtures, order: list[int], ctx: RunContext, batch: int | None = None) -> torch.Tensor:
        """Estimates ``(B, K, ...)`` that explain the mixtures.

        Args:
            masks: what a trained network makes of mixtures.
            mixtures: of the task.
            order: the slots in the order of the masks.
            ctx: of the run.
            batch: show the network so many mixtures at a time, for networks that look at the whole batch; of images only.
        """
        ...


def parts_of(task: TaskSpec) -> SignalParts:
    """The kind of signal that a task has."""
    return SpectrogramParts(task) if task.domain == "audio" else ImageParts(task)


@dataclass(frozen=True)
class ImageParts:
    """Images; see the module."""

    task: TaskSpec

    @property
    def shape(self) -> tuple[int, ...]:
        return self.task.source_shape

    def source(self, signals: torch.Tensor, slot: int) -> torch.Tensor:
        return part_weights(self.task)[slot] * signals

    def mixture(self, signals: torch.Tensor) -> torch.Tensor:
        return signals

    def as_sources(self, parts: torch.Tensor, slot: int) -> torch.Tensor:
        return parts / part_weights(self.task)[slot]

    def estimates(self, masks: Masks, mixtures: Mixtures, order: list[int], ctx: RunContext, batch: int | None = None) -> torch.Tensor:
        values = mixtures.values.to(ctx.device)
        parts = values.unsqueeze(1) * torch.cat([masks(some) for some in values.split(batch or max(1, len(values)))])
        if parts.shape[1] == 1:
            parts = torch.cat([parts, values.unsqueeze(1) - parts], 1)
        return estimates_from_parts(parts[:, [order.index(slot) for slot in range(len(order))]], values, mixtures.operator)


@dataclass(frozen=True)
class SpectrogramParts:
    """Spectra of audio; see the module."""

    task: TaskSpec
    stft: Stft = field(init=False)

    def __post_init__(self) -> None:
        if self.task.sample_rate is None:
            raise ValueError(f"task {self.task.name!r} has no sample rate, hence no spectrogram")
        window = 1 << round(torch.tensor(_WINDOW_SECONDS * self.task.sample_rate).log2().item())
        object.__setattr__(self, "stft", Stft(window, window // 2))

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.stft.bins, FRAMES)

    def source(self, signals: torch.Tensor, slot: int) -> torch.Tensor:
        return self._segments(signals, self._weight(slot))

    def mixture(self, signals: torch.Tensor) -> torch.Tensor:
        return self._segments(signals, 1.0)

    def as_sources(self, parts: torch.Tensor, slot: int) -> torch.Tensor:
        return parts / self._weight(slot)

    def estimates(self, masks: Masks, mixtures: Mixtures, order: list[int], ctx: RunContext, batch: int | None = None) -> torch.Tensor:
        def of_magnitudes(magnitudes: torch.Tensor, rate: int) -> torch.Tensor:
            """``(B, C, F, T)`` to masks ``(B, K, C, F, T)`` in the order of the slots, every channel on its own; of one mask, that of slot 0 alone."""
            levelled = (magnitudes * self._scale(magnitudes)).flatten(0, 1).unsqueeze(1)
            found: torch.Tensor = masks(levelled)[:, :, 0].unflatten(0, magnitudes.shape[:2]).transpose(1, 2)
            if found.shape[1] == 1:
                return found if order[0] == 0 else 1.0 - found
            in_slots: torch.Tensor = found[:, [order.index(slot) for slot in range(len(order))]]
            return in_slots

        return separate_by_masks(mixtures, ctx, of_magnitudes, stft=self.stft)

    def _weight(self, slot: int) -> float:
        """Of a source in a mixture; under ``gain`` the level at which independent sources add up to a mixture of level 1."""
        return self.task.n_sources**-0.5 if self.task.operator == "gain" else part_weights(self.task)[slot]

    def _scale(self, magnitudes: torch.Tensor) -> torch.Tensor:
        """What to multiply magnitudes ``(N, C, F, T)`` of whole recordings by, ``(N, 1, 1, 1)``: a full-scale sine becomes about 1, or the level."""
        if self.task.operator != "gain":
            return magnitudes.new_full((len(magnitudes), 1, 1, 1), 2.0 / self.stft.window_length)
        level: torch.Tensor = magnitudes.square().mean((1, 2, 3), keepdim=True).sqrt()
        return level.clamp(min=_SILENCE).reciprocal()

    def _segments(self, signals: torch.Tensor, weight: float) -> torch.Tensor:
        """Signals ``(N, C, T)`` to complex spectra ``(M, 1, F, 64)`` of one channel each; what is left at the end of a recording is dropped.

        A recording of fewer than 64 frames is a segment, with silence behind it.
        """
        found = []
        for some in signals.split(_AT_ONCE):
            spectra = self.stft.forward(some)
            spectra = spectra * (weight * self._scale(magnitudes_of(spectra)))
            spectra = functional.pad(spectra, (0, max(0, FRAMES - spectra.shape[-1])))
            count = spectra.shape[-1] // FRAMES
            cut = spectra[..., : count * FRAMES].flatten(0, 1).unflatten(-1, (count, FRAMES))
            found.append(cut.movedim(-2, 1).flatten(0, 1).unsqueeze(1))
        return torch.cat(found)
