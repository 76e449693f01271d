"""Single-channel ICA of audio: a delay embedding; what nussl does with one channel, and why that is no reference here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from method_toys import context, toy_task
from sound_toys import RATE, best_sdr, correlation, mixed, nussl, nussl_signal, sound_task, sounds

from baselines.average import Average
from baselines.decomposition.component_groups import envelope_similarity, group_components
from baselines.decomposition.fast_ica import fast_ica, whiten
from baselines.decomposition.patches import fold_patches, positions, unfold_patches
from baselines.ica_audio import SingleChannelAudioICA


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


def parts_from_all_windows(signals: torch.Tensor, sources: int, lags: int, components: int, reach: int) -> torch.Tensor:
    """``(B, K, T)``: the steps of the module's docstring with the whole embedding in memory, a signal as an image one row high."""
    images, patch = signals[:, None, None], (1, lags)
    whitening = whiten(unfold_patches(images, patch), components)
    unmixing = fast_ica(whitening.white[..., ::4], max_iterations=100, tolerance=1e-3).matrix
    activations, mixing = unmixing @ whitening.white, whitening.inverse @ unmixing.mT
    grid = positions(1, signals.shape[-1], patch)
    similarity = envelope_similarity(activations.reshape(*activations.shape[:2], *grid), (1, 2 * reach + 1), (1, reach + 1))
    labels = group_components(similarity, mixing.square().sum(1) * activations.square().mean(-1), sources)
    groups = [(mixing * (labels == k).to(mixing.dtype).unsqueeze(1)) @ activations for k in range(sources)]
    parts = torch.stack([fold_patches(group, (1, signals.shape[-1]), patch)[:, 0, 0] for group in groups], 1)
    return parts + (signals - parts.sum(1)).unsqueeze(1) / sources


def test_span_by_span_or_with_all_windows_at_once() -> None:
    method, signals = SingleChannelAudioICA(lags=16, components=6), mixed(sounds(2)).values[:, 0].double()
    torch.testing.assert_close(method._parts(signals, 2, 100), parts_from_all_windows(signals, 2, 16, 6, 100), atol=1e-7, rtol=0)


def test_disjoint_spectra_come_apart() -> None:
    """What Davies and James show it can do: a low and a high tone, each with a rhythm of its own."""
    time = torch.arange(8_000) / RATE
    low = torch.sin(2 * math.pi * 300 * time) * (1.1 + torch.sin(2 * math.pi * 3 * time))
    high = torch.sin(2 * math.pi * 2_500 * time) * (1.1 + torch.sin(2 * math.pi * 5 * time + 1))
    sources = 0.2 * torch.stack([low, high]).reshape(1, 2, 1, -1)
    mixtures, task = mixed(sources), sound_task()
    # Longer windows reach farther beyond the mirrored ends.
    for lags, least in ((32, 25), (64, 20)):
        assert best_sdr(SingleChannelAudioICA(lags=lags).separate(mixtures, context(task)), sources) > least
    assert best_sdr(Average().separate(mixtures, context(task)), sources) < 5


@pytest.mark.parametrize(
    ("method", "task", "reason"),
    [
        (SingleChannelAudioICA(), sound_task(channels=2), "2 channels"),
        (SingleChannelAudioICA(lags=64), sound_task(50), "64 samples"),
        (SingleChannelAudioICA(components=2), sound_task(classes=("a", "b", "c")), "2 components"),
        (SingleChannelAudioICA(), sound_task(assignment="ordered"), "best assignment"),
        (SingleChannelAudioICA(), sound_task(operator="channel-mean"), "channel-mean"),
        (SingleChannelAudioICA(), toy_task(), "image"),
    ],
)
def test_what_it_refuses(method: SingleChannelAudioICA, task: object, reason: str) -> None:
    support = method.supports(task)  # type: ignore[arg-type]
    assert not support.ok
    assert reason in support.note


def test_what_it_says() -> None:
    assert "one channel" in SingleChannelAudioICA().supports(sound_task()).note


@pytest.mark.parametrize("wrong", [{"lags": 1}, {"components": 1}, {"smoothing": 0.0}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SingleChannelAudioICA(**wrong)  # type: ignore[arg-type]
