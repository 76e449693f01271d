"""NMF of spectrograms: solvers that descend and find planted atoms, frames spread over all recordings, honest refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sound_toys import RATE, sounds

from baselines.decomposition import spectrogram_nmf
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


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize(("bins", "frames", "count"), [(5, 6, 3), (8, 4, 4), (1, 1, 1)])
def test_updates_by_hand(iterations: int, bins: int, frames: int, count: int) -> None:
    """Lee and Seung's theorems 1 and 2 on one matrix each, from the flat code of each frame's level; of atoms that are learnt the codes go first."""
    random = np.random.default_rng(5)
    spectra, atoms = random.random((2, bins, frames)), random.random((count, bins)) + 0.01

    def updated(codes: np.ndarray, now: np.ndarray, of: np.ndarray, divergence: str) -> np.ndarray:
        if divergence == "euclidean":
            return np.asarray(codes * (now @ of) / (now @ now.T @ codes))
        return np.asarray(codes * (now @ (of / (now.T @ codes))) / now.sum(1, keepdims=True))

    flat = [np.repeat(one.sum(0, keepdims=True) / atoms.sum(), count, 0) for one in spectra]
    for divergence in ("kl", "euclidean"):
        expected = []
        for one, codes in zip(spectra, flat, strict=True):
            for _ in range(iterations):
                codes = updated(codes, atoms, one, divergence)
            expected.append(codes)
        found = code_spectra(torch.from_numpy(spectra), torch.from_numpy(atoms), iterations, divergence)  # type: ignore[arg-type]
        assert found.shape == (2, count, frames)
        np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=1e-8)
        np.testing.assert_allclose(explained(found, torch.from_numpy(atoms)).numpy(), np.stack([atoms.T @ codes for codes in expected]), rtol=1e-8)
    codes, learnt = flat[0], atoms
    for _ in range(iterations):
        codes = updated(codes, learnt, spectra[0], "kl")
        learnt = learnt * (codes @ (spectra[0] / (learnt.T @ codes)).T) / codes.sum(1, keepdims=True)
    start = torch.from_numpy(atoms)
    made = learn_atoms(torch.from_numpy(spectra[0].T.copy()), start, iterations, "kl", silent)
    np.testing.assert_allclose(made.numpy(), learnt / np.linalg.norm(learnt, axis=1, keepdims=True), rtol=1e-8)
    assert torch.equal(start, torch.from_numpy(atoms))


def test_masks_are_in_the_ratio_of_the_parts_for_every_channel() -> None:
    parts = torch.tensor([[[[1.0, 0.0, 3.0]], [[3.0, 2.0, 0.0]]]])
    masks = masks_of_parts(parts, 2)
    assert masks.shape == (1, 2, 2, 1, 3)
    torch.testing.assert_close(masks[0, 0, :, 0], torch.tensor([[0.25, 0.0, 1.0]] * 2))
    torch.testing.assert_close(masks.sum(1), torch.ones(1, 2, 1, 3))


def test_which_frames_are_taken_and_silent_ones_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten frames in chunks of three, four are taken: 0, 2, 5 and 7; the frame 5 is silent."""
    frames = torch.arange(20.0).reshape(10, 2) + 1.0
    frames[5] = 0.0
    chunks = [chunk.T.unsqueeze(0) for chunk in frames.split(3)]
    monkeypatch.setattr(spectrogram_nmf, "recording_spectra", lambda signals, rate, device: chunks)
    monkeypatch.setattr(Stft, "frames", lambda self, length: 5)
    taken = training_frames(torch.zeros(2, 1, 9), RATE, 4, "cpu")
    assert torch.equal(taken, frames[[0, 2, 7]])
    assert torch.equal(training_frames(torch.zeros(2, 1, 9), RATE, 99, "cpu"), frames[[0, 1, 2, 3, 4, 6, 7, 8, 9]])


def test_channels_of_training_signals_are_averaged_as_magnitudes() -> None:
    signals = torch.stack([TRAIN[:2, 0, 0], -3.0 * TRAIN[:2, 0, 0]], 1)
    (found,) = recording_spectra(signals, RATE, "cpu")
    torch.testing.assert_close(found, 2.0 * Stft.at(RATE).forward(TRAIN[:2, 0, 0]).abs(), rtol=1e-4, atol=1e-5)
