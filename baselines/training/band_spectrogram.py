"""Spectrograms in bands as pictures, which a convolutional codec can read: the front end of LASS on sound.

The codec of Postolache et al. 2023 for music is Jukebox's, on waveforms. A picture of a chunk of 65,536 samples has a
fifteenth of their numbers, and its magnitudes are enough for a mask of the mixture. It is made like this:

1. Short-time spectrum with a window of 90 ms, rounded up to a power of two, and a hop of half of it (2,048 and
   1,024 samples at 22,050 Hz).
2. The power of the bins of each band is added. Bands are equally wide in log(1 + f / 100 Hz). 64 of them up to 11 kHz
   are a bin or two (11 Hz each) wide at the bottom, where bass and kick drum lie, and 790 Hz at the top.
3. Decibels relative to a sine at full scale, from -80 (value 0, and everything below) to 0 (value 1).

Rows of the picture are frames and columns are bands. So the raster order of tokens runs through time, and from low to
high in each moment. Frames of silence at the end make the number of rows a multiple of 4, the codec's stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional

from baselines.networks.vqvae import STRIDE
from sepbench.stft import Stft

_SECONDS = 0.09
_BEND = 100.0
"""Hz up to which bands are about equally wide."""
_RANGE = 80.0
"""Decibels from value 0 to value 1."""


@dataclass(frozen=True)
class BandSpectrogram:
    """The front end for signals of one sample rate.

    Attributes:
        sample_rate: samples per second.
        bands: columns of a picture, a multiple of 4. At low rates some of them may hold no bin, and stay empty.

    Raises:
        ValueError: ``bands`` is no multiple of 4.

    Example:
        >>> front = BandSpectrogram(22_050)
        >>> front.shape(65_536)
        (1, 68, 64)
    """

    sample_rate: int
    bands: int = 64

    def __post_init__(self) -> None:
        if self.bands < STRIDE or self.bands % STRIDE:
            raise ValueError(f"bands must be a multiple of {STRIDE}, got {self.bands}")

    @cached_property
    def stft(self) -> Stft:
        """The transform whose spectra ``pictures`` takes and ``masks`` belong to."""
        window = 1 << max(2, (round(_SECONDS * self.sample_rate) - 1).bit_length())
        return Stft(window, window // 2)

    @cached_property
    def band_of(self) -> torch.Tensor:
        """The band of every bin, ``(F,)`` int64, ascending."""
        hertz = torch.arange(self.stft.bins, dtype=torch.float64) * (self.sample_rate / self.stft.window_length)
        place = torch.log1p(hertz / _BEND)
        return (place * (self.bands / float(place[-1]))).floor().long().clamp(max=self.bands - 1)

    def shape(self, length: int) -> tuple[int, int, int]:
        """``(1, rows, bands)`` of the picture of a signal of so many samples."""
        return 1, -(-self.stft.frames(length) // STRIDE) * STRIDE, self.bands

    def pictures(self, signals: torch.Tensor) -> torch.Tensor:
        """Signals ``(B, C, T)`` to pictures ``(B, 1, rows, bands)`` in [0, 1]. Powers of the channels are averaged."""
        spectra = self.stft.forward(signals.float())
        return self.pictures_of(spectra.real.square() + spectra.imag.square())

    def pictures_of(self, powers: torch.Tensor) -> torch.Tensor:
        """Squared magnitudes ``(B, C, F, N)`` of spectra to pictures ``(B, 1, rows, bands)`` in [0, 1]."""
        powers = powers.mean(1).mT
        summed = torch.zeros(*powers.shape[:2], self.bands, dtype=powers.dtype, device=powers.device)
        summed.index_add_(2, self.band_of.to(powers.device), powers)
        levels = 10.0 * (summed / self._full_scale).clamp(min=1e-30).log10()
        rows = -(-levels.shape[1] // STRIDE) * STRIDE
        values = (1.0 + levels / _RANGE).clamp(0.0, 1.0)
        return functional.pad(values, (0, 0, 0, rows - levels.shape[1])).unsqueeze(1)

    def powers(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures ``(..., 1, rows, bands)`` to the powers ``(..., rows, bands)`` of bands; a sine at full scale has 1.

        Value 0 stands for -80 dB, not for silence.
        """
        return torch.pow(10.0, (pictures.squeeze(-3) - 1.0) * (_RANGE / 10.0))

    def shares(self, pictures: torch.Tensor, exponent: float = 1.0) -> torch.Tensor:
        """The share of each part in the power of every band.

        Args:
            pictures: of the parts, ``(..., K, 1, rows, bands)``.
            exponent: of the powers; 1 gives Wiener's filter, and 0.5 the ratio of magnitudes.

        Returns:
            ``(..., K, rows, bands)`` in [0, 1], which add up to 1 over K.
        """
        return self.powers(pictures).log().mul(exponent).softmax(-3)

    def masks(self, shares: torch.Tensor, frames: int) -> torch.Tensor:
        """Shares ``(B, K, rows, bands)`` to masks ``(B, K, 1, F, N)`` of a spectrum of N frames: all bins of a band have its share."""
        return shares[..., :frames, :].index_select(-1, self.band_of.to(shares.device)).mT.unsqueeze(2)

    def picture_of_sum(self, pictures: torch.Tensor) -> torch.Tensor:
        """The picture ``(B, 1, rows, bands)`` of a sum of parts with pictures ``(B, K, 1, rows, bands)``, if phases are random."""
        summed = self.powers(pictures).sum(1).unsqueeze(1)
        return (1.0 + 10.0 * summed.log10() / _RANGE).clamp(0.0, 1.0)

    @property
    def _full_scale(self) -> float:
        """The power of the highest bin of a sine at full scale: (sum of the window / 2)^2."""
        window = torch.hann_window(self.stft.window_length, dtype=torch.float64).sqrt()
        return (float(window.sum()) / 2.0) ** 2
