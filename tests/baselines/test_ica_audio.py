"""Single-channel ICA of audio: a delay embedding; what nussl does with one channel, and why that is no reference here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from method_toys import context
from sound_toys import RATE, best_sdr, correlation, mixed, nussl, nussl_signal, sound_task, sounds

from baselines.average import Average
from baselines.decomposition import delay_embedding
from baselines.decomposition.delay_embedding import Windows
from baselines.decomposition.patches import fold_patches, positions, unfold_patches
from baselines.ica import Embedding, SingleChannelICA, envelope_similarity


def test_nussl_returns_the_mixture_up_to_sign_and_mean() -> None:
    """The documented reason for no parity: one channel, one component, which is the whole signal."""
    reference = nussl().separation.factorization.ICA
    values = mixed(sounds(1)).values[0]
    with np.errstate(all="ignore"):
        found = torch.from_numpy(np.array(reference(nussl_signal(values)).run()))
    assert found.shape[0] == 1
    centred = values.double() - values.double().mean()
    assert abs(correlation(found, centred)) > 1 - 1e-9
    assert float(found.abs().max()) == pytest.approx(float(values.abs().max()), rel=1e-6)


def test_a_rectangle_is_a_delay_embedding() -> None:
    signal = torch.arange(1.0, 7.0).reshape(1, 1, 1, 6)
    windows = unfold_patches(signal, (1, 3))
    assert positions(1, 6, (1, 3)) == (1, 8)
    assert windows.shape == (1, 3, 8)
    assert windows[0, :, 2].tolist() == [1.0, 2.0, 3.0]
    assert windows[0, :, 0].tolist() == [3.0, 2.0, 1.0]  # mirrored at the start
    torch.testing.assert_close(fold_patches(windows, (1, 6), (1, 3)), signal)
    with pytest.raises(ValueError, match="do not fit"):
        unfold_patches(signal, (2, 3))


@pytest.mark.parametrize("span", [1, 5, 1 << 14])
def test_spans_of_windows_are_the_whole_embedding(span: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_embedding, "_SPAN", span)
    g = torch.Generator().manual_seed(0)
    signals, maps = torch.randn(2, 40, generator=g, dtype=torch.float64), torch.randn(2, 3, 6, 6, generator=g, dtype=torch.float64)
    windows, whole = Windows.of(signals, 6), unfold_patches(signals[:, None, None], (1, 6))
    mean, covariance = windows.moments()
    assert windows.count == whole.shape[-1]
    torch.testing.assert_close(mean, whole.mean(-1))
    centred = whole - mean.unsqueeze(-1)
    torch.testing.assert_close(covariance, centred @ centred.mT / windows.count)
    torch.testing.assert_close(windows.filtered(maps[:, 0], stride=4), (maps[:, 0] @ whole)[..., ::4])
    folded = [fold_patches(maps[:, k] @ whole, (1, 40), (1, 6))[:, 0, 0] for k in range(3)]
    torch.testing.assert_close(windows.mapped(maps), torch.stack(folded, 1))
    offset = torch.randn(2, 6, generator=g, dtype=torch.float64)
    squares = (maps[:, 1] @ whole - offset.unsqueeze(-1)).square()
    pooled = torch.nn.functional.avg_pool1d(squares, 7, stride=4, padding=3, count_include_pad=False)
    torch.testing.assert_close(windows.envelopes(maps[:, 1], offset, reach=3, step=4)[..., : pooled.shape[-1]], pooled)


def test_a_signal_is_an_image_one_row_high() -> None:
    """Span by span or with all windows at once: the same parts."""
    method, signals = SingleChannelICA(lags=16, audio_components=6), mixed(sounds(2)).values.unsqueeze(2).double()
    embedding = Embedding((1, 16), 6, (1, 201), (1, 101), 4)
    torch.testing.assert_close(method._parts_of_signals(signals, 2, embedding), method._parts(signals, 2, embedding), atol=1e-7, rtol=0)


def test_envelopes_may_be_read_in_steps() -> None:
    """Components that are loud together are alike, also when their envelopes are read every 50 samples."""
    g = torch.Generator().manual_seed(0)
    gate = (torch.arange(4_000) // 500 % 2).double()
    activations = torch.randn(1, 3, 1, 4_000, generator=g, dtype=torch.float64) * torch.stack([gate, gate, 1 - gate]).reshape(1, 3, 1, -1)
    similarity = envelope_similarity(activations, (1, 101), (1, 50))[0]
    assert similarity[0, 1] > 0.8
    assert similarity[0, 2] < -0.8


def test_disjoint_spectra_come_apart() -> None:
    """What Davies and James show it can do: a low and a high tone, each with a rhythm of its own."""
    time = torch.arange(8_000) / RATE
    low = torch.sin(2 * math.pi * 300 * time) * (1.1 + torch.sin(2 * math.pi * 3 * time))
    high = torch.sin(2 * math.pi * 2_500 * time) * (1.1 + torch.sin(2 * math.pi * 5 * time + 1))
    sources = 0.2 * torch.stack([low, high]).reshape(1, 2, 1, -1)
    mixtures, task = mixed(sources), sound_task()
    # Longer windows reach farther beyond the mirrored ends.
    for lags, least in ((32, 25), (64, 20)):
        assert best_sdr(SingleChannelICA(lags=lags).separate(mixtures, context(task)), sources) > least
    assert best_sdr(Average().separate(mixtures, context(task)), sources) < 5


@pytest.mark.parametrize(
    ("method", "task", "reason"),
    [
        (SingleChannelICA(), sound_task(channels=2), "2 channels"),
        (SingleChannelICA(lags=64), sound_task(50), "64 samples"),
        (SingleChannelICA(audio_components=2), sound_task(classes=("a", "b", "c")), "2 components"),
        (SingleChannelICA(), sound_task(assignment="ordered"), "best assignment"),
        (SingleChannelICA(), sound_task(operator="channel-mean"), "channel-mean"),
    ],
)
def test_what_it_refuses(method: SingleChannelICA, task: object, reason: str) -> None:
    support = method.supports(task)  # type: ignore[arg-type]
    assert not support.ok
    assert reason in support.note


def test_what_it_says() -> None:
    assert "one channel" in SingleChannelICA().supports(sound_task()).note


@pytest.mark.parametrize("wrong", [{"lags": 1}, {"audio_components": 1}, {"smoothing": 0.0}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SingleChannelICA(**wrong)  # type: ignore[arg-type]
