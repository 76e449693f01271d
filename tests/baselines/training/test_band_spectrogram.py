"""Spectrograms in bands: where tones fall and how loud they are, sums of parts, masks, and the shapes in between."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.training.band_spectrogram import BandSpectrogram

FRONT = BandSpectrogram(8_000, 16)


def tone(hertz: float, level: float = 1.0, length: int = 8_000, rate: int = 8_000) -> torch.Tensor:
    return level * torch.sin(2 * math.pi * hertz * torch.arange(length) / rate)[None, None]


@pytest.mark.parametrize(
    ("rate", "window", "shape"), [(8_000, 1_024, (1, 20, 16)), (16_000, 2_048, (1, 12, 16)), (22_050, 2_048, (1, 12, 16)), (44_100, 4_096, (1, 8, 16))]
)
def test_windows_of_90_ms_overlap_by_half_and_rows_are_a_multiple_of_four(rate: int, window: int, shape: tuple[int, int, int]) -> None:
    front = BandSpectrogram(rate, 16)
    assert (front.stft.window_length, front.stft.hop) == (window, window // 2)
    assert front.shape(8_000) == shape
    assert front.pictures(torch.zeros(2, 1, 8_000)).shape == (2, *shape)


def test_bands_are_equally_wide_in_the_logarithm_of_one_plus_a_hundredth_of_the_frequency() -> None:
    top = math.log1p(4_000 / 100)
    for index in (0, 1, 7, 60, 200, 511):
        hertz = index * 8_000 / 1_024
        assert int(FRONT.band_of[index]) == int(16 * math.log1p(hertz / 100) / top)
    assert int(FRONT.band_of[512]) == 15, "the last bin belongs to the last band"
    assert bool((FRONT.band_of.diff() >= 0).all())


@pytest.mark.parametrize(("level", "value"), [(1.0, 1.0), (0.1, 0.75), (0.01, 0.5), (1e-3, 0.25), (1e-5, 0.0)])
def test_a_sine_at_full_scale_has_the_value_one_and_20_db_are_a_quarter(level: float, value: float) -> None:
    """Of a window the bins beside a tone hold a little of its power, so a band has 1 dB more than its highest bin."""
    hertz = 200 * 8_000 / 1_024
    picture = FRONT.pictures(tone(hertz, level))[0, 0, 4:12]
    band = int(FRONT.band_of[200])
    assert value == 0.0 or picture.argmax(1).tolist() == [band] * 8
    torch.testing.assert_close(picture[:, band], torch.full((8,), min(1.0, value + (0.0 if value in (0.0, 1.0) else 0.0126))), atol=3e-3, rtol=0)


def test_a_row_is_a_frame_and_what_is_added_at_the_end_is_silent() -> None:
    signal = torch.zeros(1, 1, 8_000)
    signal[..., 5 * 512] = 1.0
    rows = FRONT.pictures(signal)[0, 0].amax(1)
    assert rows.nonzero().squeeze(1).tolist() == [5]
    loud = FRONT.pictures(torch.ones(1, 1, 8_000))[0, 0]
    assert bool((loud[:17].amax(1) > 0).all())
    assert not loud[17:].any()


def test_the_powers_of_channels_are_averaged() -> None:
    one, other = tone(500.0, 0.5), tone(2_000.0, 0.05)
    both = FRONT.powers(FRONT.pictures(torch.cat([one, other], 1)))[0, 8]
    alone = [FRONT.powers(FRONT.pictures(signal))[0, 8] for signal in (one, other)]
    for signal, band in ((0, int(FRONT.band_of[64])), (1, int(FRONT.band_of[256]))):
        assert float(both[band]) == pytest.approx(float(alone[signal][band]) / 2, rel=0.02)


def test_powers_are_those_of_pictures_down_to_80_db() -> None:
    values = torch.tensor([0.0, 0.25, 0.5, 1.0]).reshape(1, 1, 1, 4)
    torch.testing.assert_close(FRONT.powers(values), torch.tensor([[[1e-8, 1e-6, 1e-4, 1.0]]]), rtol=1e-5, atol=0)


def test_the_picture_of_a_sum_has_the_sum_of_the_powers() -> None:
    values = torch.rand(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.9
    expected = FRONT.powers(values).sum(1)
    found = FRONT.picture_of_sum(values)
    assert found.shape == (3, 1, 4, 4)
    torch.testing.assert_close(FRONT.powers(found), expected, rtol=1e-4, atol=0)
    assert float(FRONT.picture_of_sum(torch.ones(1, 2, 1, 4, 4)).max()) == 1.0


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_shares_are_in_the_ratio_of_the_powers_of_a_band(exponent: float) -> None:
    values = torch.rand(2, 5, 3, 1, 20, 16, generator=torch.Generator().manual_seed(1))
    shares = FRONT.shares(values, exponent)
    powers = FRONT.powers(values).double() ** exponent
    torch.testing.assert_close(shares.double(), powers / powers.sum(2, keepdim=True), rtol=1e-3, atol=1e-7)
    if exponent == 1.0:
        assert torch.equal(shares, FRONT.shares(values))


def test_all_bins_of_a_band_have_its_share() -> None:
    shares = torch.rand(2, 3, 20, 16, generator=torch.Generator().manual_seed(1))
    masks = FRONT.masks(shares, 17)
    assert masks.shape == (2, 3, 1, 513, 17)
    for row, part, bin_, frame in ((0, 0, 0, 0), (1, 2, 77, 9), (0, 1, 512, 16)):
        assert masks[row, part, 0, bin_, frame] == shares[row, part, frame, int(FRONT.band_of[bin_])]


def test_masks_of_true_parts_separate() -> None:
    parts = torch.stack([tone(300.0, 0.3)[0], tone(1_500.0, 0.2)[0]])[None]
    spectra = FRONT.stft.forward(parts.sum(1))
    pictures = FRONT.pictures(parts.flatten(0, 1)).unflatten(0, (1, 2))
    found = FRONT.stft.inverse(spectra.unsqueeze(1) * FRONT.masks(FRONT.shares(pictures), spectra.shape[-1]), 8_000)
    inside = slice(1_024, 7_000)  # a tone begins and ends with a click, which has no band of its own
    assert float((found - parts)[..., inside].square().sum()) < 1e-3 * float(parts[..., inside].square().sum())


@pytest.mark.parametrize("bands", [0, 2, 18])
def test_bands_are_a_multiple_of_four(bands: int) -> None:
    with pytest.raises(ValueError, match=f"bands must be a multiple of 4, got {bands}"):
        BandSpectrogram(8_000, bands)
