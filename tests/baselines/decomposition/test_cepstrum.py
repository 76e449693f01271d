"""Mel scale, filters and cosines against numbers worked out by hand, loops and scipy; ``tests/baselines/test_nmf_blind.py`` compares with librosa."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch

from baselines.decomposition import cepstrum as module
from baselines.decomposition.cepstrum import cepstrum, cosine_basis, mel_filters

MEL_OF_HERTZ = {0.0: 0.0, 200.0: 3.0, 999.0: 14.985, 1_000.0: 15.0, 1_500.0: 20.89752182879, 6_400.0: 42.0, 6.4**0.5 * 1_000: 28.5, 40_960.0: 69.0}
"""Up to 1,000 Hz 3 mel are 200 Hz; above, 27 mel are a factor of 6.4."""


@pytest.mark.parametrize("hertz", MEL_OF_HERTZ)
def test_the_mel_scale_of_slaney(hertz: float) -> None:
    assert module._mel(hertz) == pytest.approx(MEL_OF_HERTZ[hertz])
    assert float(module._hertz(torch.tensor(MEL_OF_HERTZ[hertz], dtype=torch.float64))) == pytest.approx(hertz)


@pytest.mark.parametrize(("rate", "bins", "filters"), [(1_600, 33, 4), (8_000, 129, 20), (25_600, 65, 5)])
def test_filters_are_triangles_between_corners_that_are_even_in_mel(rate: int, bins: int, filters: int) -> None:
    highest = module._mel(rate / 2)
    corners = [float(module._hertz(torch.tensor(highest * k / (filters + 1), dtype=torch.float64))) for k in range(filters + 2)]
    wanted = np.zeros((filters, bins))
    for number in range(filters):
        low, middle, high = corners[number : number + 3]
        for index in range(bins):
            hertz = index * rate / 2 / (bins - 1)
            if low <= hertz <= high:
                wanted[number, index] = (hertz - low) / (middle - low) if hertz <= middle else (high - hertz) / (high - middle)
        wanted[number] *= 2 / (high - low)
    found = mel_filters(rate, bins, filters)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def test_below_1000_hz_four_filters_of_800_hz_are_320_hz_wide() -> None:
    """Corners at 0, 160, 320, 480, 640 and 800 Hz; bins every 80 Hz; every triangle has its tip 1 / 160 over its middle."""
    found = mel_filters(1_600, 11, 4)
    assert found[0].tolist() == pytest.approx([0, 1 / 320, 1 / 160, 1 / 320, 0, 0, 0, 0, 0, 0, 0], abs=1e-15)
    assert found[3].tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 0, 1 / 320, 1 / 160, 1 / 320, 0], abs=1e-15)


@pytest.mark.parametrize(("size", "count"), [(1, 1), (5, 5), (128, 13)])
def test_cosines_are_scipy_s(size: int, count: int) -> None:
    found = cosine_basis(size, count)
    assert (found.shape, found.dtype) == ((count, size), torch.float64)
    np.testing.assert_allclose(found.numpy(), scipy.fft.dct(np.eye(size), norm="ortho", axis=0)[:count], atol=1e-12)


@pytest.mark.parametrize("count", [None, 1, 20])
def test_a_cepstrum_is_the_cosine_transform_of_128_bands(count: int | None) -> None:
    found = cepstrum(8_000, 129) if count is None else cepstrum(8_000, 129, count)
    rows = 13 if count is None else count
    assert found.shape == (rows, 129)
    np.testing.assert_allclose(found.numpy(), scipy.fft.dct(mel_filters(8_000, 129, 128).numpy(), norm="ortho", axis=0)[:rows], atol=1e-12)
    power = torch.ones(129, dtype=torch.float64)
    assert float((found @ power)[0]) == pytest.approx(float((mel_filters(8_000, 129) @ power).sum()) / math.sqrt(128))
