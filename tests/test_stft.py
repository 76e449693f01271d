"""The transform reconstructs, is linear, and is the one that nussl takes from scipy."""

from __future__ import annotations

import pytest
import scipy.signal as scipy_signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.stft import Stft


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 700), half=st.integers(1, 64), overlap=st.sampled_from([2, 4]), channels=st.integers(1, 2))
def test_inverse_of_forward_is_the_signal(length: int, half: int, overlap: int, channels: int) -> None:
    window = 2 * half * overlap
    transform = Stft(window, window // overlap)
    signal = torch.randn(3, channels, length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    spectra = transform.forward(signal)
    assert spectra.shape == (3, channels, transform.bins, transform.frames(length))
    torch.testing.assert_close(transform.inverse(spectra, length), signal, rtol=0, atol=1e-10)


def test_float32_is_kept_and_a_mask_of_ones_changes_nothing() -> None:
    transform = Stft.at(22_050)
    signal = torch.randn(2, 1, 65_536, generator=torch.Generator().manual_seed(0))
    spectra = transform.forward(signal)
    assert spectra.dtype == torch.complex64
    torch.testing.assert_close(transform.inverse(spectra * torch.ones_like(spectra.real), 65_536), signal, rtol=0, atol=1e-5)


def test_a_row_does_not_depend_on_its_batch() -> None:
    transform = Stft(256, 128)
    signal = torch.randn(5, 1, 4_000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(transform.forward(signal)[3:4], transform.forward(signal[3:4]))


@pytest.mark.parametrize(("rate", "window"), [(8_000, 256), (16_000, 512), (22_050, 1024), (44_100, 2048), (32_000, 1024)])
def test_default_window_is_32_ms_rounded_up_to_a_power_of_two(rate: int, window: int) -> None:
    assert Stft.at(rate) == Stft(window, window // 4)


@pytest.mark.parametrize(("window", "hop"), [(255, 85), (256, 100), (256, 256), (0, 1), (256, 0), (256, -128), (-2, 1), (1, 1)])
def test_sizes_without_reconstruction_are_refused(window: int, hop: int) -> None:
    with pytest.raises(ValueError) as refused:
        Stft(window, hop)
    assert str(refused.value) == f"a window must be even and a whole number, at least 2, of hops: got window {window}, hop {hop}"


def test_the_smallest_transform_and_the_numbers_of_bins_and_frames() -> None:
    smallest = Stft(2, 1)
    assert (smallest.bins, [smallest.frames(length) for length in (1, 2, 3)]) == (2, [2, 3, 4])
    assert [Stft(256, 64).frames(length) for length in (1, 64, 65, 128)] == [2, 2, 3, 3]
    assert [Stft.at(rate).window_length for rate in (1, 78, 79, 8_000, 8_001)] == [4, 4, 4, 256, 256]
    with pytest.raises(ValueError) as refused:
        Stft(256, 128).inverse(torch.zeros(1, 129, 7, dtype=torch.complex64), 4_000)
    assert str(refused.value) == "spectra of 4000 samples have 129 bins and 33 frames, got (129, 7)"


def test_spectra_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="frames"):
        Stft(256, 128).inverse(torch.zeros(1, 129, 7, dtype=torch.complex64), 4_000)


def test_it_is_scipy_s_transform_which_nussl_calls_up_to_the_window_s_sum() -> None:

    transform, rate = Stft.at(8_000), 8_000
    signal = torch.randn(3_333, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    window = scipy_signal.get_window("hann", transform.window_length) ** 0.5
    _, _, expected = scipy_signal.stft(signal.numpy(), rate, window=window, nperseg=transform.window_length, noverlap=transform.window_length - transform.hop)
    ours = transform.forward(signal) / window.sum()
    torch.testing.assert_close(ours, torch.from_numpy(expected)[:, : ours.shape[1]], rtol=0, atol=1e-12)
    assert expected.shape[1] == ours.shape[1]
