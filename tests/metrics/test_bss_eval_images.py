"""ISR, SIR and SAR are museval's own; what is defined where museval raises."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from audio_cases import RATE, audio_task, random_audio

from sepbench.compat import import_museval
from sepbench.metrics import bss_eval_images
from sepbench.metrics.bss_eval_images import ISR, SAR, SIR
from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.kinds import MixtureMetric, PairMetric
from sepbench.protocols import Mixtures

NAMES = ["isr", "sir", "sar"]


def scores(estimates: torch.Tensor, references: torch.Tensor, mixtures: Mixtures) -> dict[str, torch.Tensor]:
    metric = get_metric("sir", audio_task())
    assert isinstance(metric, MixtureMetric)
    return dict(metric.mixture_scores(estimates, references, mixtures))


@cache
def _real() -> tuple[torch.Tensor, torch.Tensor, Mixtures, dict[str, torch.Tensor]]:
    """Two examples with 3 windows, a silent one among them; scored once, for museval is slow."""
    estimates, references, mixtures = random_audio(2, 2, (1, 350), seed=4)
    references[1, 0, :, 100:200] = 0.0
    return estimates, references, mixtures, scores(estimates, references, mixtures)


def test_are_medians_over_the_windows_of_museval() -> None:
    estimates, references, _, got = _real()
    assert sorted(got) == sorted(NAMES)
    for b in range(2):
        x, y = (side[b].double().numpy().swapaxes(1, 2) for side in (estimates, references))
        per_window = import_museval().evaluate(y, x, win=RATE, hop=RATE)[1:]
        assert np.isnan(per_window[0]).any() == (b == 1)
        for name, values in zip(NAMES, per_window, strict=True):
            np.testing.assert_allclose(got[name][b], np.nanmedian(values, axis=1), rtol=0, atol=1e-9, err_msg=name)


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stands in for museval where only the rules around it are tested: 1, 2 and 3 dB in every window."""
    calls: list[int] = []

    def stand_in(estimates: np.ndarray, references: np.ndarray, window: int) -> np.ndarray:
        calls.append(window)
        return np.stack([np.full((len(references), 2), value) for value in (1.0, 2.0, 3.0)])

    monkeypatch.setattr(bss_eval_images, "museval_ratios", stand_in)
    return calls


@pytest.mark.parametrize("side", ["reference", "estimate"])
def test_an_example_with_a_signal_without_sound_is_nan_and_others_are_not(monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    calls = _counted(monkeypatch)
    estimates, references, mixtures = random_audio(3)
    (references if side == "reference" else estimates)[1, 0] = 0.0
    got = scores(estimates, references, mixtures)
    assert calls == [RATE, RATE]
    for value, name in enumerate(NAMES, start=1):
        assert got[name].dtype == torch.float64
        np.testing.assert_array_equal(got[name], [[value] * 2, [math.nan] * 2, [value] * 2])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_samples(monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    _counted(monkeypatch)
    estimates, references, mixtures = random_audio(3)
    estimates[0, 1, 0, 240], references[2, 0, 0, 3] = bad, bad
    np.testing.assert_array_equal(scores(estimates, references, mixtures)["isr"], [[1.0, math.nan], [1.0, 1.0], [math.nan, math.nan]])


def test_museval_itself_keeps_the_other_sources_of_an_example_with_nan() -> None:
    estimates, references, mixtures, kept = _real()
    estimates = estimates[:1].clone()
    estimates[0, 1, 0, 10] = math.nan
    got = scores(estimates, references[:1], Mixtures(mixtures.values[:1], mixtures.example_ids[:1], mixtures.operator))
    for name in NAMES:
        assert got[name].isnan().tolist() == [[False, True]]
        assert float(got[name][0, 0]) == pytest.approx(float(kept[name][0, 0]), abs=1e-9)


def test_infinite_ratios_are_cut() -> None:
    # One source alone has no interference: museval's SIR is what rounding leaves, or infinite.
    _, references, mixtures = random_audio(1, 1)
    got = scores(references, references, mixtures)
    assert all(100 < float(got[name]) <= 200 for name in NAMES)


def test_misuse_is_refused() -> None:
    x, y, mixtures = random_audio(1)
    for metric in (ISR, SIR, SAR):
        assert not isinstance(metric, PairMetric)
        with pytest.raises(ValueError, match="needs the sample rate"):
            metric.mixture_scores(x, y, mixtures)
        with pytest.raises(ValueError, match="one shape"):
            metric.for_task(audio_task()).mixture_scores(x[..., :-1], y, mixtures)
        assert "declares no sample_rate" in metric.supports(audio_task(rate=None)).note
        assert metric.supports(audio_task()).ok
