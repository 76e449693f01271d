"""Images and spectrograms for learnt masks.

The classes turn signals into the parts that a network learns from, and its masks into estimates. A part is a source
times its weight in the mixture, so parts add up to mixtures.

* Images: parts are images ``(N, C, H, W)``.
* Audio, as in Halperin et al. (2018): parts are complex spectra ``(N, 1, F, 64)``. The network reads the magnitude of
  a mixture. Its mask times the mixture's spectrum, phase included, is the estimate. The loss compares magnitudes,
  which are linear and not compressed. The window is the power of two nearest to the paper's 25 ms (512 at 16,000 to
  22,050 Hz, as its FFT: 257 bins). The hop is half a window, because the inverse must be exact; the paper's is 10 ms.
  For learning, recordings are cut into segments of 64 frames. They are separated whole, because the network is
  convolutional.

Under the operator ``gain`` the weights differ from mixture to mixture. Then all recordings are scaled to one level,
and mixtures to the level of a sum of independent sources of that level. This is the meaning of 0 dB.
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
"""Frames of a segment, as in the paper."""
_WINDOW_SECONDS = 0.025
_AT_ONCE = 64
_SILENCE = 1e-12


Masks = Callable[[torch.Tensor], torch.Tensor]
"""A function from mixtures ``(B, C, H, W)`` to masks ``(B, K, C, H, W)`` that add up to 1.

For audio it takes the magnitudes of mixtures. It can also give one mask ``(B, 1, C, H, W)``. The other part is then
the rest.
"""


class SignalParts(Protocol):
    """What a mask method needs to know of a kind of signal.

    Attributes:
        shape: of a part, ``(C, H, W)``.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def source(self, signals: torch.Tensor, slot: int) -> torch.Tensor:
        """Clean signals of source ``slot``, ``(N, ...)``, to parts."""
        ...

    def mixture(self, signals: torch.Tensor) -> torch.Tensor:
        """Mixtures ``(N, ...)`` to the sums of their parts."""
        ...

    def as_sources(self, parts: torch.Tensor, slot: int) -> torch.Tensor:
        """Parts to sources, the inverse of ``source``."""
        ...

    def estimates(self, masks: Masks, mixtures: Mixtures, order: list[int], ctx: RunContext, batch: int | None = None) -> torch.Tensor:
        """Estimates ``(B, K, ...)`` that explain the mixtures.

        Args:
            masks: of a trained network.
            mixtures: of the task.
            order: the slots in the order of the masks.
            ctx: of the run.
            batch: how many mixtures the network gets at a time, for networks that depend on the whole batch; only for
                images.
        """
        ...


def parts_of(task: TaskSpec) -> SignalParts:
    """The kind of signal that a task has.

    Raises:
        ValueError: an audio task has no sample rate.
    """
    return SpectrogramParts(task) if task.domain == "audio" else ImageParts(task)


@dataclass(frozen=True)
class ImageParts:
    """Images: see the top of this file."""

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
    """Spectra of audio: see the top of this file.

    Raises:
        ValueError: the task has no sample rate.
    """

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
            """``(B, C, F, T)`` to masks ``(B, K, C, F, T)`` in the order of the slots, every channel by itself.

            If the network has one mask, only the mask of slot 0 is returned.
            """
            levelled = (magnitudes * self._scale(magnitudes)).flatten(0, 1).unsqueeze(1)
            found: torch.Tensor = masks(levelled)[:, :, 0].unflatten(0, magnitudes.shape[:2]).transpose(1, 2)
            if found.shape[1] == 1:
                return found if order[0] == 0 else 1.0 - found
            in_slots: torch.Tensor = found[:, [order.index(slot) for slot in range(len(order))]]
            return in_slots

        return separate_by_masks(mixtures, ctx, of_magnitudes, stft=self.stft)

    def _weight(self, slot: int) -> float:
        """Weight of a source in a mixture.

        Under ``gain``: the level at which independent sources make a mixture of level 1.
        """
        return self.task.n_sources**-0.5 if self.task.operator == "gain" else part_weights(self.task)[slot]

    def _scale(self, magnitudes: torch.Tensor) -> torch.Tensor:
        """Factors ``(N, 1, 1, 1)`` for magnitudes ``(N, C, F, T)`` of whole recordings.

        They scale a full-scale sine to about 1, or under ``gain`` the recording to level 1.
        """
        if self.task.operator != "gain":
            return magnitudes.new_full((len(magnitudes), 1, 1, 1), 2.0 / self.stft.window_length)
        level: torch.Tensor = magnitudes.square().mean((1, 2, 3), keepdim=True).sqrt()
        return level.clamp(min=_SILENCE).reciprocal()

    def _segments(self, signals: torch.Tensor, weight: float) -> torch.Tensor:
        """Signals ``(N, C, T)`` to complex spectra ``(M, 1, F, 64)`` of one channel each.

        The frames that do not fill a segment at the end are dropped. A recording of fewer than 64 frames is one
        segment, followed by silence.
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
