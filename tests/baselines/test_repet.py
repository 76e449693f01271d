"""REPET: finds the period that is there, takes the median over it, and says what it does where no period fits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import context, mix
from sound_toys import RATE, correlation, sound_task

from baselines.repet import REPET, beat_spectrum, repeating_share
from sepbench.stft import Stft

SECONDS = 4
LENGTH = SECONDS * RATE


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loop_and_voice(period: float) -> torch.Tensor:
    """``(1, 2, 1, T)``: noise that repeats exactly, and a glide that does not."""
    time = torch.arange(LENGTH) / RATE
    segment = torch.randn(round(period * RATE), generator=generator(0)) * torch.linspace(1, 0.1, round(period * RATE)) ** 3
    loop = segment.repeat(LENGTH // len(segment) + 1)[:LENGTH]
    voice = torch.sin(2 * torch.pi * (300 * time + 200 * time.square()))
    return torch.stack([loop, 0.5 * voice]).reshape(1, 2, 1, LENGTH)


@settings(max_examples=25, deadline=None)
@given(frames=st.integers(2, 60), lags=st.integers(1, 60), channels=st.integers(1, 2), seed=st.integers(0, 99))
def test_beat_spectrum_is_the_mean_autocorrelation_of_the_power(frames: int, lags: int, channels: int, seed: int) -> None:
    lags = min(lags, frames)
    magnitudes = torch.rand(2, channels, 5, frames, generator=generator(seed))
    power = magnitudes.double().square().mean(1)
    expected = torch.stack([(power[..., lag:] * power[..., : frames - lag]).mean(-1).mean(-1) for lag in range(lags)], 1)
    torch.testing.assert_close(beat_spectrum(magnitudes, lags), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(frames=st.integers(1, 40), period=st.integers(1, 45), seed=st.integers(0, 99))
def test_shares_are_the_median_over_the_periods(frames: int, period: int, seed: int) -> None:
    magnitudes = torch.rand(2, 1, 3, frames, generator=generator(seed)) + 0.01
    values = magnitudes.numpy()
    expected = np.empty_like(values)
    for frame in range(frames):
        median = np.median(values[..., frame % period :: period], axis=-1)
        expected[..., frame] = np.minimum(median, values[..., frame]) / values[..., frame]
    np.testing.assert_allclose(repeating_share(magnitudes, period).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("period", [0.9, 1.2])
def test_the_period_is_found_and_what_repeats_is_the_background(period: float) -> None:
    sources = loop_and_voice(period)
    method, mixtures = REPET(), mix(sources, "sum")
    frames = method._periods(Stft.at(RATE).forward(mixtures.values).abs(), RATE, LENGTH)
    assert abs(int(frames[0]) * Stft.at(RATE).hop / RATE - period) < 0.01
    estimates = method.separate(mixtures, context(sound_task(LENGTH, operator="sum")))[0]
    assert correlation(estimates[0], sources[0, 0]) > 0.9
    assert correlation(estimates[1], sources[0, 1]) > 0.9


def test_a_known_period_is_taken() -> None:
    magnitudes = torch.rand(3, 1, 129, 400, generator=generator(1))
    assert REPET(period=0.5)._periods(magnitudes, RATE, LENGTH).tolist() == [63] * 3  # 0.5 s are 62.5 hops


def test_rows_of_different_periods_keep_their_own() -> None:
    both = torch.cat([loop_and_voice(0.9), loop_and_voice(1.2), loop_and_voice(0.9)])
    ctx = context(sound_task(LENGTH, operator="sum"))
    together = REPET().separate(mix(both, "sum"), ctx)
    for row in range(3):
        assert torch.equal(together[row], REPET().separate(mix(both[row : row + 1], "sum"), ctx)[0])


def test_too_short_for_three_shortest_periods_the_period_is_a_third_and_the_note_says_so() -> None:
    method = REPET()
    for length in (16_384, 19_199, 4_000, 100):
        magnitudes = torch.rand(1, 1, 129, Stft.at(RATE).frames(length), generator=generator(2))
        third = -(-length // (3 * Stft.at(RATE).hop))
        assert method._periods(magnitudes, RATE, length).tolist() == [max(1, min(third, magnitudes.shape[-1] - 1))]
        assert "a third" in method.supports(sound_task(length)).note
    assert "a third" not in method.supports(sound_task(19_200)).note
    assert "a third" not in REPET(period=0.1).supports(sound_task(4_000)).note


def test_a_voice_comes_in_its_slot() -> None:
    sources = loop_and_voice(0.9)
    unknown = REPET().separate(mix(sources, "sum"), context(sound_task(LENGTH, operator="sum")))
    voice_first = sound_task(LENGTH, ("speech", "babble"), "sum", assignment="ordered")
    assert REPET().supports(voice_first).ok
    assert torch.equal(REPET().separate(mix(sources, "sum"), context(voice_first)), unknown.flip(1))
    refused = REPET().supports(sound_task(LENGTH, ("drums", "bass"), assignment="ordered"))
    assert not refused.ok
    assert "foreground" in refused.note


@pytest.mark.parametrize("wrong", [{"shortest": 0.0}, {"shortest": 9.0}, {"period": -1.0}, {"high_pass": -1.0}, {"mask": "hard"}])
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        REPET(**wrong)  # type: ignore[arg-type]


def test_the_note_says_how_short_the_signal_is() -> None:
    role = "no roles: the foreground may be either source, the best assignment counts"
    assert REPET().supports(sound_task(4_000)).note == f"{role}; 0.50 s are less than three periods of 0.8 s: the period is a third of the signal"
    assert REPET(shortest=0.1).supports(sound_task(4_000)).note == role
