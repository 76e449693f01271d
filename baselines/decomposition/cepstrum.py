"""Timbre of spectral templates in a few numbers: the mel-frequency cepstrum. Davis and Mermelstein, IEEE Trans. ASSP 28(4), 1980.

Mel scale and filters are Slaney's (Auditory Toolbox, Interval technical report 1998-010): linear to 1,000 Hz at 3 mel per 200 Hz, logarithmic above with 27
mel per factor of 6.4; triangles of equal area. librosa's defaults are the same, and a test holds these against it.
"""

from __future__ import annotations

import math

import torch

_BREAK_HZ, _MEL_PER_HZ = 1_000.0, 3.0 / 200.0
_MEL_PER_LOG = 27.0 / math.log(6.4)


def _mel(hertz: float) -> float:
    return hertz * _MEL_PER_HZ if hertz < _BREAK_HZ else _BREAK_HZ * _MEL_PER_HZ + _MEL_PER_LOG * math.log(hertz / _BREAK_HZ)


def _hertz(mel: torch.Tensor) -> torch.Tensor:
    start = _BREAK_HZ * _MEL_PER_HZ
    return torch.where(mel < start, mel / _MEL_PER_HZ, _BREAK_HZ * ((mel - start) / _MEL_PER_LOG).exp())


def mel_filters(sample_rate: int, bins: int, filters: int = 128) -> torch.Tensor:
    """Triangular filters ``(filters, bins)`` float64 over bins that reach from 0 to half the sample rate, evenly spaced in mel, of area 2 / (width in Hz)."""
    frequencies = torch.linspace(0.0, sample_rate / 2, bins, dtype=torch.float64)
    corners = _hertz(torch.linspace(0.0, _mel(sample_rate / 2), filters + 2, dtype=torch.float64)).unsqueeze(1)
    widths = corners.diff(dim=0)
    rising = (frequencies - corners[:-2]) / widths[:-1]
    falling = (corners[2:] - frequencies) / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0.0) * 2.0 / (corners[2:] - corners[:-2])


def cosine_basis(size: int, count: int) -> torch.Tensor:
    """The first ``count`` rows ``(count, size)`` of the orthonormal discrete cosine transform (DCT-II), float64."""
    places = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    rows = torch.cos(torch.arange(count, dtype=torch.float64).unsqueeze(1) * places) * math.sqrt(2.0 / size)
    rows[0] /= math.sqrt(2.0)
    return rows


def cepstrum(sample_rate: int, bins: int, count: int = 13) -> torch.Tensor:
    """From power spectra of so many bins to the cosine transform of their mel spectra, ``(count, bins)`` float64; without the usual logarithm.

    That is what nussl 1.1.9 clusters: linear in the power, so a loud template weighs more than a soft one of the same shape.
    """
    return cosine_basis(128, count) @ mel_filters(sample_rate, bins)
