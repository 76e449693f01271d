"""All windows of long signals, a span at a time: a delay embedding that is never stored.

It works for three seconds and for ten minutes of audio. The signal is mirrored by ``size - 1`` samples at both ends,
as ``baselines/decomposition/patches.py`` does with images. So every sample is in exactly ``size`` windows. A linear
map of windows, folded back by averaging, is then one convolution of the signal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

_SPAN = 1 << 14
"""How many windows are handled at a time.

It is the same for every batch, so sums have the same order for a signal alone and among others.
"""


@dataclass(frozen=True, slots=True)
class Windows:
    """The ``T + size - 1`` windows of each signal of a batch.

    Attributes:
        padded: ``(B, T + 2 (size - 1))`` float64, mirrored signals.
        size: p, samples of a window.
    """

    padded: torch.Tensor
    size: int

    @classmethod
    def of(cls, signals: torch.Tensor, size: int) -> Windows:
        """Windows of signals ``(B, T)`` with T >= size."""
        return cls(functional.pad(signals.unsqueeze(1), (size - 1, size - 1), mode="reflect").squeeze(1), size)

    @property
    def count(self) -> int:
        return self.padded.shape[-1] - self.size + 1

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean ``(B, p)`` and covariance ``(B, p, p)`` over all windows."""
        mean = sum((span.sum(1) for span in self._spans()), start=torch.zeros(len(self.padded), self.size).to(self.padded)) / self.count
        covariance = torch.zeros(len(self.padded), self.size, self.size).to(self.padded)
        for span in self._spans():
            centred = span - mean.unsqueeze(1)
            covariance += centred.mT @ centred
        return mean, covariance / self.count

    def filtered(self, filters: torch.Tensor, stride: int = 1) -> torch.Tensor:
        """``filters`` ``(B, d, p)`` on every ``stride``-th window: ``(B, d, n)``."""
        # Allocate this first. Results between the spans' buffers would keep the gaps between them, and the heap would
        # grow.
        values = self.padded.new_empty(*filters.shape[:2], -(-self.count // stride))
        first = 0
        for span in self._spans(stride):
            values[..., first : first + span.shape[1]] = filters @ span.mT
            first += span.shape[1]
        return values

    def envelopes(self, filters: torch.Tensor, offset: torch.Tensor, reach: int, step: int) -> torch.Tensor:
        """Squares of ``filters @ window - offset``, averaged over nearby windows.

        There is a value at every ``step``-th window. It is the average over the windows at most ``reach`` away.

        Args:
            filters, offset: ``(B, d, p)`` and ``(B, d)``.
            reach: in windows. At the ends the average is over the windows that exist.
            step: windows between two values.

        Returns:
            ``(B, d, ceil(count / step))``.
        """
        places = torch.arange(0, self.count, step, device=self.padded.device)
        means = self.padded.new_empty(*filters.shape[:2], len(places))
        for numbers in torch.arange(len(places), device=places.device).split(max(1, _SPAN // step)):
            centres = places[numbers]
            low, high = (centres - reach).clamp(min=0), (centres + reach + 1).clamp(max=self.count)
            first, last = int(low[0]), int(high[-1])
            span = self.padded[:, first : last + self.size - 1].unfold(-1, self.size, 1)
            total = functional.pad((filters @ span.mT - offset.unsqueeze(-1)).square(), (1, 0)).cumsum(-1)
            means[..., numbers] = (total[..., high - first] - total[..., low - first]) / (high - low)
        return means

    def mapped(self, maps: torch.Tensor) -> torch.Tensor:
        """Linear maps of all windows, folded back: maps ``(B, K, p, p)`` to signals ``(B, K, T)``.

        Sample t is the mean, over the windows i samples before it, of row i of the map. This is a convolution with the
        sums of the map's diagonals.
        """
        size = self.size
        # Rows have a width of 2 p - 1 and are each shifted by one, so the diagonals become columns.
        shifted = functional.pad(maps.flip(-2), (0, size)).flatten(-2)[..., : size * (2 * size - 1)].unflatten(-1, (size, 2 * size - 1))
        kernels = shifted.sum(-2) / size
        return Windows(self.padded, 2 * size - 1).filtered(kernels)

    def _spans(self, stride: int = 1) -> Iterator[torch.Tensor]:
        """Every ``stride``-th window in order, as views ``(B, n, p)``."""
        yield from self.padded.unfold(-1, self.size, stride).split(max(1, _SPAN // stride), 1)
