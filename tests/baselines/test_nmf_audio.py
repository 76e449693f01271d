"""NMF of spectrograms, supervised and semi-supervised: solvers that descend, dictionaries that separate, honest refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import ToyView, context
from sound_toys import RATE, best_sdr, mixed, sound_task, sounds

from baselines.average import Average
from baselines.decomposition.nonnegative import random_atoms
from baselines.decomposition.spectrogram_nmf import Divergence, code_spectra, explained, learn_atoms, masks_of_parts, recording_spectra, training_frames
from baselines.nmf import SupervisedNMF
from baselines.nmf_semi import SemiSupervisedNMF
from sepbench.errors import MethodError
from sepbench.noise import NoiseSource
from sepbench.protocols import TaskSpec
from sepbench.stft import Stft

TRAIN = sounds(12, seed=100)


def silent(fraction: float) -> None:
    return None


def kl(spectra: torch.Tensor, model: torch.Tensor) -> float:
    return float((torch.xlogy(spectra, spectra / (model + 1e-12)) - spectra + model).double().sum())


def misfit(divergence: Divergence, spectra: torch.Tensor, model: torch.Tensor) -> float:
    return kl(spectra, model) if divergence == "kl" else float((spectra - model).double().square().sum())


# --- the solvers ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", ["kl", "euclidean"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), batch=st.integers(1, 3), atoms=st.integers(1, 6), bins=st.integers(2, 9), frames=st.integers(1, 9))
def test_coding_never_gets_worse(divergence: Divergence, seed: int, batch: int, atoms: int, bins: int, frames: int) -> None:
    """Lee and Seung, theorems 1 and 2; also at sizes that are padded."""
    g = torch.Generator().manual_seed(seed)
    spectra, words = torch.rand(batch, bins, frames, generator=g), torch.rand(atoms, bins, generator=g) + 0.01
    last = float("inf")
    for iterations in (0, 1, 2, 5, 20):
        codes = code_spectra(spectra, words, iterations, divergence)
        assert codes.shape == (batch, atoms, frames)
        assert bool((codes >= 0).all())
        now = misfit(divergence, spectra, explained(codes, words))
        assert now <= last * (1 + 1e-4) + 1e-6
        last = now


@pytest.mark.parametrize("divergence", ["kl", "euclidean"])
def test_learning_never_gets_worse_and_finds_planted_atoms(divergence: Divergence) -> None:
    g = torch.Generator().manual_seed(1)
    planted = torch.zeros(3, 12)
    for r in range(3):
        planted[r, 4 * r : 4 * r + 4] = torch.tensor([1.0, 3.0, 2.0, 0.5])
    frames = torch.rand(200, 3, generator=g).square() @ planted
    start = random_atoms(frames, 3, NoiseSource(0))
    errors = []
    for iterations in (1, 5, 25, 200):
        atoms = learn_atoms(frames, start, iterations, divergence, silent)
        torch.testing.assert_close(torch.linalg.vector_norm(atoms, dim=1), torch.ones(3))
        errors.append(misfit(divergence, frames.T.unsqueeze(0), explained(code_spectra(frames.T.unsqueeze(0), atoms, 100, divergence), atoms)))
    assert errors[0] > errors[-1]
    wanted = planted / torch.linalg.vector_norm(planted, dim=1, keepdim=True)
    assert bool(((atoms @ wanted.T).amax(0) > 0.99).all())


def test_progress_is_told() -> None:
    told: list[float] = []
    frames = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))
    learn_atoms(frames, random_atoms(frames, 2, NoiseSource(0)), 4, "kl", told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_training_frames_are_spread_over_all_signals() -> None:
    """Signal k is a tone of level k + 1: every level is among the frames; in order."""
    tone = torch.sin(torch.arange(6_400) * 0.3)
    signals = torch.stack([(k + 1) * tone for k in range(10)]).unsqueeze(1)
    frames = training_frames(signals, RATE, 40, "cpu")
    assert frames.shape == (40, 129)
    levels = frames.sum(1)
    assert len((levels / levels.min() / 0.8).round().unique()) >= 9
    assert torch.equal(training_frames(signals, RATE, 10**6, "cpu"), torch.cat(recording_spectra(signals, RATE, "cpu")).mT.flatten(0, 1))


def test_chunks_of_training_signals_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training_frames(TRAIN[:, 0], RATE, 100, "cpu")
    monkeypatch.setattr("baselines.decomposition.spectrogram_nmf.CHUNK_BINS", 1)
    assert torch.equal(training_frames(TRAIN[:, 0], RATE, 100, "cpu"), whole)


def test_training_signals_without_sense_are_refused() -> None:
    with pytest.raises(MethodError, match="silent"):
        training_frames(torch.zeros(3, 1, 2_000), RATE, 10, "cpu")
    broken = torch.zeros(3, 1, 2_000)
    broken[1, 0, 7] = torch.inf
    with pytest.raises(MethodError, match="finite"):
        training_frames(broken, RATE, 10, "cpu")


def test_masks_of_nothing_are_even() -> None:
    masks = masks_of_parts(torch.zeros(1, 4, 2, 3), 2)
    assert masks.shape == (1, 4, 2, 2, 3)
    assert bool((masks == 0.25).all())


# --- supervised -------------------------------------------------------------------------------------------------------------------


def fitted(task: TaskSpec, seed: int = 0, **more: object) -> SupervisedNMF:
    level = "prior" if task.class_agnostic else "sources"
    settings_ = {"audio_atoms": 12, "audio_shared_atoms": 16, "audio_iterations": 40} | more
    method = SupervisedNMF(**settings_)  # type: ignore[arg-type]
    method.fit(ToyView(task, level, (TRAIN[:, 0], TRAIN[:, 1]), TRAIN.flatten(0, 1)), context(task, seed))  # type: ignore[arg-type]
    return method


@pytest.mark.parametrize("divergence", ["kl", "euclidean"])
def test_dictionaries_of_classes_separate_in_their_order(divergence: Divergence) -> None:
    task, sources = sound_task(assignment="ordered"), sounds(4, seed=1)
    estimates = fitted(task, divergence=divergence).separate(mixed(sources), context(task))
    error = 10 * (sources.square().sum() / (estimates - sources).square().sum()).log10()
    assert float(error) > best_sdr(Average().separate(mixed(sources), context(task)), sources) + 4


def test_the_fit_depends_on_the_seed_alone() -> None:
    task = sound_task()
    found = [fitted(task, seed).separate(mixed(sounds(2)), context(task)) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_without_classes_atoms_are_grouped_for_each_mixture() -> None:
    task, sources = sound_task(classes=("any", "any")), sounds(4, seed=1)
    method = fitted(task)
    assert method.supports(task).ok
    assert best_sdr(method.separate(mixed(sources), context(task)), sources) > best_sdr(Average().separate(mixed(sources), context(task)), sources)


def test_what_supervised_nmf_takes() -> None:
    method = SupervisedNMF()
    assert method.supports(sound_task(assignment="ordered")).ok
    refused = method.supports(sound_task(classes=("any", "any"), assignment="ordered"))
    assert not refused.ok
    assert "best assignment" in refused.note
    assert "audio_shared_atoms" in SupervisedNMF(audio_shared_atoms=1).supports(sound_task(classes=("any", "any"))).note
    assert not method.supports(sound_task(classes=("a", "a", "b"))).ok


def test_quick_learns_from_a_quarter() -> None:
    task = sound_task()
    view = ToyView(task, "sources", (TRAIN[:, 0], TRAIN[:, 1]))
    SupervisedNMF(audio_atoms=2, audio_iterations=4, audio_samples=8).fit(view, context(task, budget="quick"))
    assert [limit for _, limit in view.asked] == [2, 2]


def test_separate_wants_a_fit() -> None:
    for method in (SupervisedNMF(), SemiSupervisedNMF()):
        with pytest.raises(ValueError, match="before fit"):
            method.separate(mixed(sounds(1)), context(sound_task(observed=0)))


@pytest.mark.parametrize(
    "wrong", [{"audio_atoms": 0}, {"audio_shared_atoms": 0}, {"audio_iterations": 0}, {"audio_samples": 0}, {"frames": 0}, {"divergence": "itakura-saito"}]
)
def test_bad_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        SupervisedNMF(**wrong)  # type: ignore[arg-type]
    if "frames" in wrong or "audio_samples" in wrong:
        with pytest.raises(ValueError):
            SemiSupervisedNMF(**wrong)  # type: ignore[arg-type]


# --- semi-supervised --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observed", [0, 1])
def test_the_observed_source_comes_out_in_its_slot(observed: int) -> None:
    task, sources = sound_task(assignment="ordered", observed=observed), sounds(4, seed=1)
    method = SemiSupervisedNMF(atoms=12, iterations=40)
    assert method.supports(task).ok
    method.fit(ToyView(task, "mixtures+one", mixed=mixed(TRAIN[:6]).values, one=TRAIN[6:, observed]), context(task))
    estimates = method.separate(mixed(sources), context(task))
    error = 10 * (sources.square().sum() / (estimates - sources).square().sum()).log10()
    assert float(error) > best_sdr(Average().separate(mixed(sources), context(task)), sources) + 0.5


def test_training_data_of_another_loudness_give_the_same_estimates() -> None:
    """Frames are scaled before the sparsity weighs them."""
    task, sources = sound_task(observed=0), sounds(2, seed=1)
    found = []
    for gain in (1.0, 0.01):
        method = SemiSupervisedNMF(atoms=6, iterations=10)
        method.fit(ToyView(task, "mixtures+one", mixed=gain * mixed(TRAIN[:6]).values, one=gain * TRAIN[6:, 0]), context(task))
        found.append(method.separate(mixed(gain * sources), context(task)) / gain)
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-3


def test_what_semi_supervised_nmf_refuses() -> None:
    assert "observed" in SemiSupervisedNMF().supports(sound_task()).note
    assert not SemiSupervisedNMF().supports(sound_task(classes=("a", "b", "c"), observed=0)).ok


def test_frames_have_the_bins_of_the_suite_s_transform() -> None:
    assert training_frames(TRAIN[:1, 0], RATE, 10**6, "cpu").shape[1] == Stft.at(RATE).bins
