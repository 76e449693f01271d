"""NMF of spectrograms: solvers that descend and find planted atoms, frames spread over all recordings, honest refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sound_toys import RATE, sounds

from baselines.decomposition.nonnegative import random_atoms
from baselines.decomposition.spectrogram_nmf import Divergence, code_spectra, explained, learn_atoms, masks_of_parts, recording_spectra, training_frames
from sepbench.errors import MethodError
from sepbench.noise import NoiseSource
from sepbench.stft import Stft

TRAIN = sounds(12, seed=100)


def silent(fraction: float) -> None:
    return None


def kl(spectra: torch.Tensor, model: torch.Tensor) -> float:
    return float((torch.xlogy(spectra, spectra / (model + 1e-12)) - spectra + model).double().sum())


def misfit(divergence: Divergence, spectra: torch.Tensor, model: torch.Tensor) -> float:
    return kl(spectra, model) if divergence == "kl" else float((spectra - model).double().square().sum())


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


def test_frames_have_the_bins_of_the_suite_s_transform() -> None:
    assert training_frames(TRAIN[:1, 0], RATE, 10**6, "cpu").shape[1] == Stft.at(RATE).bins
