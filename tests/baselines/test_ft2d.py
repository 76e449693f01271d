"""FT2D: sliding maxima and sums are scipy's, peaks are those of a plain search over the whole transform, what repeats is the background."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import context, mix
from sound_toys import RATE, correlation, sound_task, sounds

from baselines.ft2d import FT2D, local_peaks, peak_share, sliding


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(half=st.integers(0, 20), length=st.integers(1, 70), seed=st.integers(0, 99))
def test_sliding_combinations_are_scipy_s(half: int, length: int, seed: int) -> None:
    width, values = 2 * half + 1, torch.rand(3, length, generator=generator(seed), dtype=torch.float64)
    mirrored = np.pad(values.numpy(), ((0, 0), (half, half)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, width, axis=1)
    np.testing.assert_array_equal(sliding(values, width, torch.maximum).numpy(), windows.max(-1))
    np.testing.assert_array_equal(sliding(values, width, torch.minimum).numpy(), windows.min(-1))
    np.testing.assert_allclose(sliding(values, width, torch.add).numpy(), windows.sum(-1), rtol=1e-12)


def plain_weights(values: np.ndarray, rates: int, peaks: str) -> np.ndarray:
    """Of one image, by scipy's filters in float64."""
    size = (1, rates)
    values = values / values.max()
    largest = scipy.ndimage.maximum_filter(values, size)
    if peaks == "threshold":
        return (values == largest) & (largest - scipy.ndimage.minimum_filter(values, size) > values.std())
    mean = scipy.ndimage.uniform_filter(values, size)
    deviation = np.sqrt(scipy.ndimage.uniform_filter(values**2, size) - mean**2) + 1e-7
    weights = (largest - mean) / deviation * (values == largest)
    return weights / max(weights.max(), 1e-12)


@pytest.mark.parametrize("peaks", ["local-std", "threshold"])
@pytest.mark.parametrize("frames", [40, 41])
def test_peaks_are_those_of_a_plain_search(frames: int, peaks: str) -> None:
    values = torch.rand(2, 12, frames, generator=generator(0), dtype=torch.float64)
    found = local_peaks(values, 7, peaks, scales=23)
    for row in range(2):
        whole = np.concatenate([values[row], values[row, 1:].flip(0)])
        np.testing.assert_allclose(found[row].numpy(), plain_weights(whole, 7, peaks)[:12], atol=1e-9)


@pytest.mark.parametrize("peaks", ["local-std", "threshold"])
@pytest.mark.parametrize(("bins", "frames"), [(33, 41), (33, 40), (17, 7), (16, 20), (9, 2)])
def test_half_of_the_transform_gives_what_all_of_it_gives(bins: int, frames: int, peaks: str) -> None:
    """Each peak counts at its rate forwards and backwards, at each scale and its negative."""
    image = torch.rand(1, bins, frames, generator=generator(1), dtype=torch.float64) + 0.01
    spectra = np.fft.fft2(image[0].numpy())
    weights = np.fft.ifftshift(plain_weights(np.fft.fftshift(np.abs(spectra), axes=1), 5, peaks), axes=1).astype(float)
    # Mirror images tie but for rounding: only the scales from 0 up are looked at.
    back = (-np.arange(frames)) % frames
    top = bins // 2 + 1
    upper = np.maximum(weights[:top], weights[:top][:, back])
    weights = np.concatenate([upper, upper[1 : (bins - 1) // 2 + 1][::-1]])
    background = np.abs(np.fft.ifft2(spectra * weights))
    expected = np.minimum(background, image[0].numpy()) / image[0].numpy()
    np.testing.assert_allclose(peak_share(image, 5, peaks)[0].numpy(), expected / (expected.max() + 1e-7), atol=1e-6)


def test_what_repeats_is_the_background() -> None:
    """A burst of noise that comes again every quarter of a second, and a voice with vibrato."""
    length = 4 * RATE
    time = torch.arange(length) / RATE
    burst = torch.randn(RATE // 4, generator=generator(0)) * torch.linspace(1, 0.1, RATE // 4) ** 3
    pitch = 300 + 80 * torch.sin(2 * torch.pi * 0.37 * time**1.3) + 30 * torch.sin(2 * torch.pi * 5.3 * time)
    voice = sum(0.5 * torch.sin(k * (2 * torch.pi * pitch / RATE).cumsum(0)) / k for k in range(1, 6))
    sources = torch.stack([burst.repeat(16), voice]).reshape(1, 2, 1, length)
    background, foreground = FT2D().separate(mix(sources, "sum"), context(sound_task(length, operator="sum")))[0]
    assert correlation(background, sources[0, 0]) > correlation(background, sources[0, 1]) + 0.3
    assert correlation(foreground, sources[0, 1]) > correlation(foreground, sources[0, 0]) + 0.5


def test_silence_has_no_peaks() -> None:
    assert bool((local_peaks(torch.zeros(1, 5, 9), 5, "local-std", 9) == 0).all())
    assert bool((local_peaks(torch.zeros(1, 5, 9), 5, "threshold", 9) == 0).all())


def test_a_voice_comes_in_its_slot() -> None:
    sources = sounds(1)
    unknown = FT2D().separate(mix(sources, "sum"), context(sound_task(operator="sum")))
    known = FT2D().separate(mix(sources, "sum"), context(sound_task(classes=("speech", "white"), operator="sum", assignment="ordered")))
    assert torch.equal(known, unknown.flip(1))
    assert not FT2D().supports(sound_task(classes=("drums", "bass"), assignment="ordered")).ok


@pytest.mark.parametrize("wrong", [{"rates": 24}, {"rates": 0}, {"high_pass": -1.0}, {"mask": "hard"}, {"peaks": "all"}])
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FT2D(**wrong)  # type: ignore[arg-type]
