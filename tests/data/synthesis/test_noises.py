"""Noises made by the package: spectra, independence, one level, and babble of nothing but its own split and take."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sepbench.data.datasets import manifest_of, open_dataset
from sepbench.data.readers.fsdd import LENGTH, RMS, TAKES, take_of
from sepbench.data.synthesis.noises import HELD_OUT_NUMBERS, HELD_OUT_TAKES, KINDS, NUMBERS, make_noises, rows_of_numbers, takes_of_numbers

GOLDEN = {"white": "9fe57ff81473ae5a", "pink": "e1a6bf2872804524", "brown": "724d6212d62df9d5"}


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    """As many utterances as FSDD's test split has, of random numbers."""
    rng = np.random.Generator(np.random.Philox(3))
    return torch.from_numpy(rng.normal(0, RMS, (300, 1, LENGTH)).astype(np.int16))


@pytest.fixture(scope="module")
def noises(speech: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return make_noises(speech, "test")


def of_kind(noises: tuple[torch.Tensor, torch.Tensor], kind: str) -> np.ndarray:
    """``(125, 16384)`` float64."""
    signals, labels = noises
    return signals[labels == KINDS.index(kind), 0].double().numpy()


def test_rows_are_at_one_level_and_know_their_kind(noises: tuple[torch.Tensor, torch.Tensor]) -> None:
    signals, labels = noises
    assert (signals.shape, signals.dtype) == ((500, 1, LENGTH), torch.int16)
    assert labels[:6].tolist() == [0, 1, 2, 3, 0, 1]
    for kind in range(4):
        assert (labels[rows_of_numbers(kind, np.arange(125))] == kind).all()
    levels = signals.double().square().mean(2).sqrt()
    torch.testing.assert_close(levels, torch.full_like(levels, RMS), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("kind", "slope"), [("white", 0.0), ("pink", -1.0), ("brown", -2.0)])
def test_spectra_have_their_slopes(noises: tuple[torch.Tensor, torch.Tensor], kind: str, slope: float) -> None:
    power = (np.abs(np.fft.rfft(of_kind(noises, kind))) ** 2).mean(axis=0)
    frequencies = np.fft.rfftfreq(LENGTH, 1 / 8000)
    band = (frequencies > 25) & (frequencies < 3900)
    assert np.polyfit(np.log10(frequencies[band]), np.log10(power[band]), 1)[0] == pytest.approx(slope, abs=0.02)
    for low, high in ((30, 60), (60, 500), (500, 3900)):  # in every part of the spectrum, not on average alone
        part = (frequencies > low) & (frequencies < high)
        assert np.polyfit(np.log10(frequencies[part]), np.log10(power[part]), 1)[0] == pytest.approx(slope, abs=0.15)
    below = power[frequencies < 19].max() / power[(frequencies > 20) & (frequencies < 25)].mean()
    assert below == pytest.approx(1, abs=0.5) if kind == "white" else below < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_is_another_one_or_a_shift_of_it(noises: tuple[torch.Tensor, torch.Tensor], kind: str) -> None:
    rows = of_kind(noises, kind)
    assert len({row.tobytes() for row in rows}) == len(rows)
    if kind == "white":  # the others are coloured, or made of the same utterances
        spectra = np.fft.rfft(rows[:40] / RMS)
        for shift in range(1, 40):
            lags = np.fft.irfft(spectra * np.roll(spectra, shift, axis=0).conj()) / LENGTH
            assert np.abs(lags).max() < 0.06  # 7.7 standard deviations


def test_white_is_gaussian(noises: tuple[torch.Tensor, torch.Tensor]) -> None:
    values = of_kind(noises, "white") / RMS
    assert float((values**4).mean()) == pytest.approx(3.0, abs=0.02)
    assert float(values.mean()) == pytest.approx(0.0, abs=0.003)


def test_babble_is_one_utterance_of_each_speaker_of_one_take(noises: tuple[torch.Tensor, torch.Tensor], speech: torch.Tensor) -> None:
    babble, voices = of_kind(noises, "babble"), speech[:, 0].double().numpy()
    weights = np.linalg.solve(voices @ voices.T, voices @ babble.T).T  # least squares, (125, 300)
    for number, row_weights in enumerate(weights):
        rows = np.flatnonzero(row_weights > 0.1)
        assert (take_of("test", rows) == takes_of_numbers("test")[number]).all()
        assert (rows % 60 // 10).tolist() == [0, 1, 2, 3, 4, 5]
        assert np.abs(row_weights[rows] - row_weights[rows].mean()).max() < 0.001
        assert np.abs(np.delete(row_weights, rows)).max() < 0.001
    assert np.abs(weights @ voices - babble).max() < 1  # nothing else is in it but rounding


def test_held_out_babble_is_of_held_out_takes() -> None:
    takes = takes_of_numbers("train")
    assert len(takes) == NUMBERS["train"]
    held_out = set(TAKES["train"][-HELD_OUT_TAKES:])
    assert set(takes[-HELD_OUT_NUMBERS:]) == held_out
    assert set(takes[:-HELD_OUT_NUMBERS]) == set(TAKES["train"]) - held_out
    assert set(takes_of_numbers("test")) == set(TAKES["test"])


def test_the_bits_are_those_that_were_frozen(noises: tuple[torch.Tensor, torch.Tensor], speech: torch.Tensor) -> None:
    """Made from Philox words alone: any machine makes these."""
    digests = {kind: hashlib.sha256(of_kind(noises, kind).astype("<i2").tobytes()).hexdigest()[:16] for kind in ("white", "pink", "brown")}
    assert digests == GOLDEN
    assert torch.equal(make_noises(speech, "test")[0], noises[0])


@pytest.mark.slow
def test_the_real_noises_are_a_data_set(real_data: Callable[[str], Path]) -> None:
    real_data("fsdd")
    train, test = open_dataset("noises:fsdd", "train"), open_dataset("noises:fsdd", "test")
    assert (len(train), len(test), train.shape, train.domain) == (1200, 500, (1, LENGTH), "audio")
    assert manifest_of("noises:fsdd") == "fsdd"
    for noises in (train, test):
        values = noises.load(range(len(noises))).double()
        assert float(values.abs().max()) < 1.0
        torch.testing.assert_close(values.square().mean(2).sqrt(), torch.full((len(noises), 1), RMS / 32768, dtype=torch.float64), rtol=1e-4, atol=0)
    assert not {row.numpy().tobytes() for row in train.load(range(1200))} & {row.numpy().tobytes() for row in test.load(range(500))}
