"""The mel-frequency cepstrum: a few numbers that describe the timbre of spectral templates.

See Davis and Mermelstein, IEEE Trans. ASSP 28(4), 1980. Mel scale and filters are Slaney's (Auditory Toolbox, Interval
technical report 1998-010). The scale is linear up to 1,000 Hz, with 3 mel per 200 Hz, and logarithmic above, with 27
mel per factor of 6.4. The filters are triangles of equal area. librosa has the same defaults, and a test compares with
it.
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
    """Triangular filters ``(filters, bins)`` float64, evenly spaced in mel, of area 2 / (width in Hz).

    The bins reach from 0 to half the sample rate.
    """
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
    """The linear map ``(count, bins)`` float64 from power spectra to the cosine transform of their mel spectra.

    It lacks the usual logarithm, as in nussl 1.1.9, which clusters this. It is linear in the power, so a loud template
    weighs more than a soft one of the same shape.

    Args:
        sample_rate: samples per second.
        bins: of a power spectrum.
        count: how many coefficients.
    """
    return cosine_basis(128, count) @ mel_filters(sample_rate, bins)
