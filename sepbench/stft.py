"""The short-time Fourier transform of every audio method, with perfect reconstruction.

Frames are centred: the signal is padded with zeros by half a window on both sides and at its end up to a whole hop. The window is the square root of
a periodic Hann window, used for analysis and synthesis, as nussl 1.1.9 does (``sqrt_hann``, window of 32 ms rounded up to a power of two,
hop of a quarter of it); unlike there, spectra are not divided by the window's sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_SECONDS = 0.032  # nussl 1.1.9's window


@dataclass(frozen=True, slots=True)
class Stft:
    """A transform by its sizes in samples.

    Attributes:
        window_length: even.
        hop: divides the window length at least twice, so that windows overlap and squares add up to a constant.

    Raises:
        ValueError: sizes without perfect reconstruction.
    """

    window_length: int
    hop: int

    def __post_init__(self) -> None:
        if self.window_length < 2 or self.window_length % 2 or self.hop < 1 or self.window_length % self.hop or self.window_length < 2 * self.hop:
            raise ValueError(f"a window must be even and a whole number, at least 2, of hops: got window {self.window_length}, hop {self.hop}")

    @staticmethod
    def at(sample_rate: int) -> Stft:
        """nussl's default: window 1,024 and hop 256 samples at 22,050 Hz, 256 and 64 at 8,000 Hz."""
        window = 1 << max(2, (round(_SECONDS * sample_rate) - 1).bit_length())
        return Stft(window, window // 4)

    @property
    def bins(self) -> int:
        """F, frequencies from 0 to half the sample rate."""
        return self.window_length // 2 + 1

    def frames(self, length: int) -> int:
        """N, frames of a signal of so many samples."""
        return -(-length // self.hop) + 1

    def _window(self, like: torch.Tensor) -> torch.Tensor:
        real = like.real.dtype if like.is_complex() else like.dtype
        return torch.hann_window(self.window_length, dtype=torch.float64).sqrt().to(dtype=real, device=like.device)

    def forward(self, signals: torch.Tensor) -> torch.Tensor:
        """Signals ``(..., T)``, float32 or float64, to complex spectra ``(..., F, N)``."""
        flat = signals.reshape(-1, signals.shape[-1])
        padded = torch.nn.functional.pad(flat, (0, -signals.shape[-1] % self.hop))
        spectra = torch.stft(
            padded, self.window_length, self.hop, window=self._window(signals), center=True, pad_mode="constant", onesided=True, return_complex=True
        )
        return spectra.reshape(*signals.shape[:-1], *spectra.shape[-2:])

    def inverse(self, spectra: torch.Tensor, length: int) -> torch.Tensor:
        """Spectra ``(..., F, N)`` to the signals ``(..., length)`` whose transform is nearest to them (Griffin and Lim 1984, equation 6).

        Raises:
            ValueError: the number of bins or frames does not belong to this transform of such a length.
        """
        if spectra.shape[-2:] != (self.bins, self.frames(length)):
            raise ValueError(f"spectra of {length} samples have {self.bins} bins and {self.frames(length)} frames, got {tuple(spectra.shape[-2:])}")
        window = self._window(spectra)
        frames = torch.fft.irfft(spectra.reshape(-1, *spectra.shape[-2:]).mT, self.window_length).mul_(window)
        # Half the time of torch.istft, which adds sample by sample; here a hop of every frame at once.
        signals, weights = self._overlap_add(frames), self._overlap_add(window.square().expand(1, *frames.shape[1:]))
        inside = slice(self.window_length // 2, self.window_length // 2 + length)
        return (signals[:, inside] / weights[:, inside]).reshape(*spectra.shape[:-2], length)

    def _overlap_add(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames ``(M, N, window)`` to their sum ``(M, (N - 1) hop + window)``, each a hop after the one before."""
        hops = self.window_length // self.hop
        blocks = frames.reshape(*frames.shape[:2], hops, self.hop)
        total = frames.new_zeros(len(frames), frames.shape[1] + hops - 1, self.hop)
        for k in range(hops):
            total[:, k : k + frames.shape[1]] += blocks[:, :, k]
        return total.flatten(1)
