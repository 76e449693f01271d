"""Robust PCA of audio: nussl's estimates, the voice in its slot, the bass in the background."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from method_toys import context, toy_task
from sound_toys import RATE, best_sdr, correlation, mixed, nussl, nussl_estimates, nussl_signal, sound_task, sounds
from threadpoolctl import threadpool_limits

from baselines import rpca_audio
from baselines.average import Average
from baselines.decomposition.shrinkage import WarmShrinkage
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


@pytest.mark.parametrize(("tolerance", "precision"), [(1e-4, torch.float32), (1e-2, torch.float32), (9.9e-5, torch.float64)])
@pytest.mark.parametrize("shape", [(2, 7, 10), (2, 10, 7)])
def test_what_robust_pca_is_asked_for(tolerance: float, precision: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows and ten columns are padded to eight and twelve; lambda is that of ten columns all the same."""
    asked: list[dict[str, Any]] = []

    def split(matrices: torch.Tensor, **options: Any) -> SimpleNamespace:
        asked.append({"shape": tuple(matrices.shape), **options})
        return SimpleNamespace(low_rank=matrices, sparse=torch.full_like(matrices, 0.5))

    monkeypatch.setattr(rpca_audio, "robust_pca", split)
    method = AudioRobustPCA(sparsity=0.7, growth=1.3, tolerance=tolerance, max_iterations=9)
    values = torch.linspace(-1.0, 1.0, 140).reshape(shape)
    values[0, 0, 0] = 0.5
    assert torch.equal(method._background(values), (values.abs() >= 0.5).float())
    (one,) = asked
    assert isinstance(one.pop("shrinkage"), WarmShrinkage)
    assert one.pop("sparsity") == pytest.approx(0.7 * 1.2**0.5)
    limits = {"growth": 1.3, "tolerance": tolerance, "penalty_tolerance": math.inf, "max_iterations": 9, "precision": precision}
    assert one == {"shape": (2, 8, 12), **limits}
