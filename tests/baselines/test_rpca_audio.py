"""Robust PCA of audio: nussl's estimates, the voice in its slot, the bass in the background."""

from __future__ import annotations

import math

import pytest
import torch
from method_toys import context, toy_task
from sound_toys import RATE, best_sdr, correlation, mixed, nussl, nussl_estimates, nussl_signal, sound_task, sounds
from threadpoolctl import threadpool_limits

from baselines.average import Average
from baselines.rpca_audio import AudioRobustPCA
from sepbench.stft import Stft


@pytest.mark.parametrize("length", [8_000, 20_000])
def test_estimates_are_nussl_s(length: int) -> None:
    """Spectrograms of 129 x 126 and of 129 x 314: longer than high, so they are transposed."""
    reference = nussl().separation.factorization.RPCA
    mixtures = mixed(sounds(2, length))
    estimates = AudioRobustPCA().separate(mixtures, context(sound_task(length)))
    for row in range(2):
        wanted = 2 * nussl_estimates(reference(nussl_signal(mixtures.values[row])))  # the weights are 1/2
        for part in range(2):
            assert correlation(estimates[row, part], wanted[part]) >= 0.999
            assert float(estimates[row, part].norm()) == pytest.approx(float(wanted[part].norm()), rel=0.02)


@pytest.mark.parametrize(("tolerance", "agreement"), [(1e-4, 0.9999), (1e-3, 0.995)])
def test_ending_before_nussl_does_moves_little(tolerance: float, agreement: float) -> None:
    """The documented deviation, eps_1 = 1e-4 in float32 instead of 1e-7 in float64; and a coarser one, which moves more."""
    mixtures, task = mixed(sounds(3)), sound_task()
    early = AudioRobustPCA(tolerance=tolerance).separate(mixtures, context(task))
    late = AudioRobustPCA(tolerance=1e-7).separate(mixtures, context(task))
    assert correlation(early, late) > agreement


def test_the_voice_goes_to_the_slot_of_speech() -> None:
    mixtures = mixed(sounds(3))
    unnamed = AudioRobustPCA().separate(mixtures, context(sound_task()))
    named = {names: AudioRobustPCA().separate(mixtures, context(sound_task(classes=names))) for names in (("speech", "noise"), ("noise", "speech"))}
    torch.testing.assert_close(named["speech", "noise"], unnamed.flip(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(named["noise", "speech"], unnamed, atol=1e-5, rtol=0)


def test_the_masks_do_not_depend_on_the_number_of_threads() -> None:
    """Five spectrograms in one piece, in pieces of three and two, and one by one."""
    magnitudes = Stft.at(RATE).forward(mixed(sounds(5)).values).abs().contiguous()
    found = []
    for threads in (1, 2, 5):
        with threadpool_limits(threads, user_api="openmp"):
            assert torch.get_num_threads() == threads
            found.append(AudioRobustPCA()._first_mask(magnitudes, RATE, voice_first=False))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_below_the_cutoff_all_is_background() -> None:
    task = sound_task()
    stft, mixtures = Stft.at(RATE), mixed(sounds(2))
    estimates = AudioRobustPCA(high_pass=2_000.0).separate(mixtures, context(task))
    energy = stft.forward(estimates[:, :, 0]).abs().square()
    first = round(2_000 / (RATE / 2) * (stft.bins - 1))
    assert float(energy[:, 1, : first - 2].sum()) < 1e-3 * float(energy[:, 0, : first - 2].sum())
    assert float(energy[:, 1, first + 2 :].sum()) > 1e-3 * float(energy[:, 0, first + 2 :].sum())


def test_repetition_and_voice_come_apart() -> None:
    """A loop and a glide: what robust PCA is for."""
    time = torch.arange(16_000) / RATE
    loop = sum(torch.sin(2 * math.pi * f * time) * torch.exp(-5 * (time % 0.25)) for f in (500.0, 750.0, 1_000.0))
    glide = torch.sin(2 * math.pi * (1_500 * time + 400 * torch.sin(2 * math.pi * 0.7 * time)))
    sources = 0.3 * torch.stack([loop, glide]).reshape(1, 2, 1, -1)
    mixtures, task = mixed(sources), sound_task(16_000)
    estimates = AudioRobustPCA().separate(mixtures, context(task))
    assert best_sdr(estimates, sources) > best_sdr(Average().separate(mixtures, context(task)), sources) + 5


def test_what_it_says_of_tasks() -> None:
    method = AudioRobustPCA()
    assert method.supports(sound_task()).ok
    assert method.supports(sound_task(classes=("vocals", "accompaniment"), assignment="ordered")).ok
    refused = method.supports(sound_task(classes=("drums", "bass"), assignment="ordered"))
    assert not refused.ok
    assert "best assignment" in refused.note
    assert not method.supports(sound_task(classes=("a", "b", "c"))).ok
    assert not method.supports(toy_task()).ok


@pytest.mark.parametrize("wrong", [{"tolerance": 0.0}, {"growth": 1.0}, {"max_iterations": 0}, {"high_pass": -1.0}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AudioRobustPCA(**wrong)  # type: ignore[arg-type]
