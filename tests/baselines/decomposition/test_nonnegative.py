"""The shared solvers: equal to scikit-learn and scipy where those solve the same problem, descent, recovery, independence of the batch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import Digits
from scipy.optimize import nnls
from sklearn.decomposition import NMF, non_negative_factorization

from baselines.decomposition import nonnegative
from baselines.decomposition.nonnegative import FLOOR, Factors, _descend_atoms, encode, factorise, random_atoms, sample_atoms, sparse_encode, sparse_factorise
from sepbench.noise import NoiseSource


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def sparse_signals(count: int, size: int, rank: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``(count, size)`` signals of exact rank, with zeros, and their atoms."""
    atoms = (2.0 * uniform(rank, size, seed=seed) - 1.0).clamp(min=0.0) + 1e-3
    codes = (2.0 * uniform(count, rank, seed=seed + 1) - 1.0).clamp(min=0.0)
    return codes @ atoms, atoms


# --- against scikit-learn and scipy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 20, 200])
def test_fit_reaches_the_objective_of_scikit_learn_from_the_same_start(digits: Digits, iterations: int) -> None:
    """Target of the project: 1 % at equal iterations. Same updates, float32 against float64: 0.1 %."""
    signals = digits.pooled.flatten(1)
    start = random_atoms(signals, 30, NoiseSource(0))
    codes = uniform(len(signals), 30, seed=1)
    ours = factorise(signals, start, iterations, codes=codes).objective(signals)
    model = NMF(30, solver="mu", beta_loss="frobenius", init="custom", tol=0, max_iter=iterations)
    reference = signals.double().numpy()
    theirs = model.fit_transform(reference, W=codes.double().numpy(), H=start.double().numpy())
    objective = 0.5 * np.square(reference - theirs @ model.components_).sum()
    assert ours == pytest.approx(objective, rel=1e-3)


@pytest.mark.parametrize("init", ["random", "nndsvda"])
def test_fit_reaches_the_objective_of_scikit_learn_from_its_own_start(digits: Digits, init: str) -> None:
    signals = digits.pooled.flatten(1)
    ours = factorise(signals, random_atoms(signals, 20, NoiseSource(0)), 200).objective(signals)
    model = NMF(20, solver="mu", beta_loss="frobenius", init=init, random_state=0, tol=0, max_iter=200)
    reference = signals.double().numpy()
    theirs = model.fit_transform(reference)
    assert ours <= 1.01 * 0.5 * np.square(reference - theirs @ model.components_).sum()


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_coding_reaches_the_objective_of_scikit_learn(digits: Digits, sparsity: float) -> None:
    atoms = digits.high[:25].flatten(1) + 0.01
    signals = digits.pairs.sum(1).flatten(1)
    ours = Factors(atoms, encode(signals, atoms, 100, sparsity=sparsity)).objective(signals, sparsity)
    reference = signals.double().numpy()
    # scikit-learn multiplies the penalty by the number of features.
    penalty = {"alpha_W": sparsity / reference.shape[1], "alpha_H": 0.0, "l1_ratio": 1.0}
    known = {"H": atoms.double().numpy(), "update_H": False, "solver": "mu", "beta_loss": "frobenius", "tol": 0, "max_iter": 100}
    codes, _, _ = non_negative_factorization(reference, n_components=25, init="custom", **known, **penalty)
    theirs = 0.5 * np.square(reference - codes @ atoms.double().numpy()).sum() + sparsity * codes.sum()
    assert ours == pytest.approx(theirs, rel=1e-2)


def test_sparse_coding_without_penalty_is_scipys_nnls(digits: Digits) -> None:
    atoms = digits.high[:25].flatten(1)
    signals = digits.pairs.sum(1).flatten(1)[:40]
    codes = sparse_encode(signals, atoms, 500)
    expected = np.stack([nnls(atoms.double().numpy().T, row)[0] for row in signals.double().numpy()])
    np.testing.assert_allclose(codes.numpy(), expected, atol=2e-3)


# --- laws -------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(2, 20), st.integers(1, 8), st.integers(0, 99))
def test_multiplicative_updates_never_raise_the_objective(count: int, size: int, rank: int, seed: int) -> None:
    signals, _ = sparse_signals(count, size, 3, seed)
    start = random_atoms(signals, rank, NoiseSource(seed))
    levels = [factorise(signals, start, n).objective(signals) for n in (0, 1, 2, 5, 20)]
    assert all(later <= earlier * (1 + 1e-5) + 1e-6 for earlier, later in pairwise(levels))
    codings = [Factors(start, encode(signals, start, n, sparsity=0.1)).objective(signals, 0.1) for n in (0, 1, 2, 5, 20)]
    assert all(later <= earlier * (1 + 1e-5) + 1e-6 for earlier, later in pairwise(codings))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 20), st.integers(2, 20), st.integers(1, 12), st.floats(0.0, 2.0), st.integers(0, 99))
def test_sparse_codes_satisfy_the_optimality_conditions(count: int, size: int, rank: int, sparsity: float, seed: int) -> None:
    """Karush, Kuhn and Tucker: h >= 0, gradient >= 0, and one of the two is zero."""
    signals, _ = sparse_signals(count, size, 3, seed)
    atoms = uniform(rank, size, seed=seed).double() + 0.1 * torch.eye(rank, size)
    codes = sparse_encode(signals.double(), atoms, 1000, sparsity=sparsity)
    gradient = (codes @ atoms - signals) @ atoms.T + sparsity
    assert (codes >= 0).all()
    assert (gradient > -1e-3).all()
    assert ((codes * gradient).abs() < 1e-3 * (1.0 + codes)).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.floats(0.01, 1.0), st.integers(0, 3))
def test_sparse_factorisation_descends_inside_the_ball_and_keeps_fixed_atoms(seed: int, sparsity: float, fixed: int) -> None:
    signals, _ = sparse_signals(40, 12, 4, seed)
    start = sample_atoms(signals, 6, NoiseSource(seed))
    runs = [sparse_factorise(signals, start, n, sparsity=sparsity, fixed=fixed) for n in (1, 2, 5, 20)]
    levels = [run.objective(signals, sparsity) for run in runs]
    # Accelerated descent of the codes is not monotone step by step; over a round it is, to a hair.
    assert all(later <= earlier * 1.002 + 1e-5 for earlier, later in pairwise(levels))
    assert (runs[-1].atoms.norm(dim=1) <= 1 + 1e-5).all()
    assert (runs[-1].atoms >= 0).all()
    assert (runs[-1].codes >= 0).all()
    inside = start / start.norm(dim=1, keepdim=True).clamp(min=1.0)
    assert torch.equal(runs[-1].atoms[:fixed], inside[:fixed])
    if fixed < 3 and torch.equal(runs[-1].atoms[fixed:], inside[fixed:]):  # legal at a fixed point alone, where nothing is left to descend
        assert levels[-1] == pytest.approx(levels[0], rel=1e-6)


def test_penalty_makes_codes_sparser() -> None:
    signals, atoms = sparse_signals(50, 20, 8, seed=4)
    used = [int((sparse_encode(signals, atoms, 300, sparsity=s) > 0).sum()) for s in (0.0, 0.5, 2.0)]
    assert used[0] > used[1] > used[2]


def test_planted_atoms_explain_their_signals() -> None:
    signals, atoms = sparse_signals(60, 40, 5, seed=7)
    for codes in (encode(signals, atoms, 3000), sparse_encode(signals, atoms, 500)):
        assert Factors(atoms, codes).objective(signals) < 1e-4 * float(signals.square().sum())
    fitted = factorise(signals, random_atoms(signals, 5, NoiseSource(1)), 3000)
    assert fitted.objective(signals) < 1e-2 * float(signals.square().sum())


# --- rows, chunks, zeros ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [encode, sparse_encode])
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_rows_do_not_depend_on_the_batch_or_the_chunk(solver: object, sparsity: float, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = digits.high[:20].flatten(1) + 0.01
    signals = digits.pairs.sum(1).flatten(1)
    whole = solver(signals, atoms, 50, sparsity=sparsity)  # type: ignore[operator]
    single = torch.cat([solver(row.unsqueeze(0), atoms, 50, sparsity=sparsity) for row in signals[:20]])  # type: ignore[operator]
    torch.testing.assert_close(single, whole[:20], atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(nonnegative, "_CHUNK_ELEMENTS", 20 * 7)
    torch.testing.assert_close(solver(signals, atoms, 50, sparsity=sparsity), whole, atol=1e-5, rtol=1e-5)  # type: ignore[operator]


def test_the_fit_does_not_depend_on_the_chunk(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    signals = digits.pooled.flatten(1)
    start = random_atoms(signals, 10, NoiseSource(0))
    whole = factorise(signals, start, 30)
    monkeypatch.setattr(nonnegative, "_CHUNK_ELEMENTS", 10 * 97)
    chunked = factorise(signals, start, 30)
    torch.testing.assert_close(chunked.atoms, whole.atoms, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(chunked.codes, whole.codes, atol=1e-4, rtol=1e-3)


def test_zeros_stay_finite() -> None:
    black, atoms = torch.zeros(3, 10), uniform(4, 10)
    for codes in (encode(black, atoms, 10), sparse_encode(black, atoms, 10), encode(uniform(3, 10), torch.zeros(4, 10), 10)):
        assert torch.equal(codes, torch.zeros(3, 4))
    for factors in (factorise(black, atoms, 10), sparse_factorise(black, atoms, 10, sparsity=1.0)):
        assert torch.isfinite(factors.atoms).all()
        assert torch.isfinite(factors.codes).all()


def test_inputs_are_not_changed(digits: Digits) -> None:
    signals, start = digits.high.flatten(1), digits.low[:5].flatten(1) * 3
    codes = uniform(len(signals), 5)
    kept = [t.clone() for t in (signals, start, codes)]
    factorise(signals, start, 3, codes=codes)
    sparse_factorise(signals, start, 3, sparsity=0.1)
    sparse_encode(signals, start, 3, codes=codes)
    encode(signals, start, 3)
    assert all(torch.equal(a, b) for a, b in zip((signals, start, codes), kept, strict=True))


def test_unit_atoms_keep_the_product() -> None:
    factors = Factors(uniform(4, 10) * 7, uniform(6, 4, seed=1))
    unit = factors.unit_atoms()
    torch.testing.assert_close(unit.atoms.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(unit.codes @ unit.atoms, factors.codes @ factors.atoms)


@pytest.mark.parametrize("start", [random_atoms, sample_atoms])
def test_starts_depend_on_seed_and_slot_alone(start: object, digits: Digits) -> None:
    signals = digits.high.flatten(1)
    first = start(signals, 8, NoiseSource(0), 0)  # type: ignore[operator]
    assert first.shape == (8, 64)
    assert torch.equal(first, start(signals, 8, NoiseSource(0), 0))  # type: ignore[operator]
    assert not torch.equal(first, start(signals, 8, NoiseSource(1), 0))  # type: ignore[operator]
    assert not torch.equal(first, start(signals, 8, NoiseSource(0), 1))  # type: ignore[operator]


def test_sampled_atoms_are_different_signals() -> None:
    signals = torch.arange(30.0).unsqueeze(1).expand(-1, 4)
    picked = sample_atoms(signals, 30, NoiseSource(3))
    assert sorted(picked[:, 0].tolist()) == list(range(30))
    assert picked[:, 0].tolist() != list(range(30))


def test_random_atoms_are_positive() -> None:
    assert (random_atoms(torch.zeros(5, 9), 4, NoiseSource(0)) > 0).all()
    assert (random_atoms(torch.rand(5, 9), 4, NoiseSource(0)) > 0).all()


class Draws:
    """A noise source of known uniforms; ``asked`` has what it was asked for."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.asked: list[tuple[list[int], int, int, tuple[int, ...]]] = []

    def uniform(self, ids: torch.Tensor, step: int, source: int, shape: tuple[int, ...], device: object = "cpu") -> torch.Tensor:
        self.asked.append((ids.tolist(), step, source, tuple(shape)))
        return torch.tensor(self.values)[: len(ids), None].expand(len(ids), *shape)


def test_random_atoms_are_on_the_scale_of_the_signals_and_never_zero() -> None:
    noise: Any = Draws([0.0, 0.5, 1.0 - 2.0**-24])
    found = random_atoms(torch.full((5, 2), 3.0), 3, noise, 4)
    assert noise.asked == [([0, 1, 2], 0, 4, (2,))]
    assert found.tolist() == [[pytest.approx((draw + 2.0**-24) * 2.0 * 1.0)] * 2 for draw in (0.0, 0.5, 1.0 - 2.0**-24)]
    assert found.min() > 0
    silent = random_atoms(torch.zeros(5, 2), 1, noise, 0)
    assert silent.tolist() == [[pytest.approx(2.0**-24 * 2.0 * FLOOR**0.5)] * 2]


def test_signals_are_sampled_by_the_ranks_of_their_draws() -> None:
    noise: Any = Draws([0.5, 0.2, 0.9, 0.2])
    signals = torch.arange(8.0).reshape(4, 2)
    found = sample_atoms(signals, 3, noise, 2)
    assert noise.asked == [([0, 1, 2, 3], 0, 2, (1,))]
    assert found.tolist() == [[2.0, 3.0], [6.0, 7.0], [0.0, 1.0]]
    found.zero_()
    assert signals[1].tolist() == [2.0, 3.0]


def test_an_atom_that_nothing_uses_stays_and_a_long_one_is_shortened() -> None:
    """One round by hand of the atoms' step: the second atom has no codes, the third would leave the ball."""
    atoms = torch.tensor([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    codes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    signals = torch.tensor([[0.3, 0.0], [6.0, 8.0]], dtype=torch.float64)
    _descend_atoms(atoms, codes.T @ signals, codes.T @ codes, 0)
    torch.testing.assert_close(atoms, torch.tensor([[0.3, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64))
    _descend_atoms(atoms, 0 * codes.T @ signals, codes.T @ codes, 1)
    torch.testing.assert_close(atoms, torch.tensor([[0.3, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64))


def test_starts_are_shortened_to_the_ball_and_short_ones_stay() -> None:
    start = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)
    found = sparse_factorise(torch.zeros(1, 2, dtype=torch.float64), start, 1, sparsity=0.0)
    torch.testing.assert_close(found.atoms, torch.tensor([[0.6, 0.8], [0.3, 0.4]], dtype=torch.float64))
    assert start.tolist() == [[3.0, 4.0], [0.3, 0.4]]


def test_codes_of_the_result_belong_to_the_last_atoms() -> None:
    """After the last round the codes take ``inner`` more steps on the atoms that are returned."""
    g = torch.Generator().manual_seed(0)
    signals, start = torch.rand(6, 4, generator=g, dtype=torch.float64), torch.rand(3, 4, generator=g, dtype=torch.float64)
    told: list[float] = []
    found = sparse_factorise(signals, start, 2, sparsity=0.1, fixed=1, inner=4, progress=told.append)
    atoms = start / torch.linalg.vector_norm(start, dim=1, keepdim=True).clamp(min=1.0)
    codes = torch.zeros(6, 3, dtype=torch.float64)
    for _ in range(2):
        codes = sparse_encode(signals, atoms, 4, sparsity=0.1, codes=codes)
        _descend_atoms(atoms, codes.T @ signals, codes.T @ codes, 1)
    torch.testing.assert_close(found.atoms, atoms)
    torch.testing.assert_close(found.codes, sparse_encode(signals, atoms, 4, sparsity=0.1, codes=codes))
    assert told == [0.5, 1.0]


@pytest.mark.parametrize("steps", [0, 1, 2, 25])
@pytest.mark.parametrize(("sparsity", "begun"), [(0.0, False), (0.3, False), (0.0, True), (0.3, True)])
def test_every_step_of_sparse_coding_is_accelerated_descent_by_hand(steps: int, sparsity: float, begun: bool) -> None:
    """Each row drops its own momentum."""
    random = np.random.default_rng(3)
    atoms, signals, start = random.random((4, 6)) ** 3, random.random((8, 6)), 2 * random.random((8, 4))
    gram = atoms @ atoms.T
    step, dropped, expected = 1.0 / (1.001 * np.linalg.eigvalsh(gram)[-1]), set(), []
    for row, signal in enumerate(signals):
        goal = atoms @ signal - sparsity
        code = ahead = start[row] if begun else np.zeros(4)
        t = 1.0
        for number in range(steps):
            new = np.maximum(ahead + step * (goal - gram @ ahead), 0.0)
            if (ahead - new) @ (new - code) > 0:
                dropped.add((row, number))
                t = 1.0
            grown = (1.0 + np.sqrt(1.0 + 4.0 * t * t)) / 2.0
            ahead, code, t = new + (t - 1.0) / grown * (new - code), new, grown
        expected.append(code)
    first = torch.from_numpy(start) if begun else None
    found = sparse_encode(torch.from_numpy(signals), torch.from_numpy(atoms), steps, sparsity=sparsity, codes=first)
    np.testing.assert_allclose(found.numpy(), np.array(expected), atol=1e-12)
    if steps == 25:
        assert any(0 < len({row for row, at in dropped if at == number}) < 8 for number in range(steps)), "some rows drop their momentum where others do not"


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("sparsity", [0.0, 0.4])
def test_multiplicative_updates_by_hand(iterations: int, sparsity: float) -> None:
    """Codes begin flat at the least error and are updated together; of a factorisation the codes go first, then the atoms, with the new codes."""
    random = np.random.default_rng(4)
    atoms, signals = random.random((3, 5)) + 0.01, random.random((4, 5))

    def updated(codes: np.ndarray, now: np.ndarray, penalty: float) -> np.ndarray:
        return np.asarray(codes * (signals @ now.T) / (codes @ now @ now.T + penalty))

    total = atoms.sum(0)
    flat = np.repeat((signals @ total / (total @ total))[:, None], 3, 1)
    codes = flat
    for _ in range(iterations):
        codes = updated(codes, atoms, sparsity)
    found = encode(torch.from_numpy(signals), torch.from_numpy(atoms), iterations, sparsity=sparsity)
    np.testing.assert_allclose(found.numpy(), codes, rtol=1e-9)
    for start in (None, random.random((4, 3)) + 0.01):
        codes, learnt = flat if start is None else start, atoms
        for _ in range(iterations):
            codes = updated(codes, learnt, 0.0)
            learnt = learnt * (codes.T @ signals) / (codes.T @ codes @ learnt)
        made = factorise(torch.from_numpy(signals), torch.from_numpy(atoms), iterations, codes=None if start is None else torch.from_numpy(start))
        np.testing.assert_allclose(made.codes.numpy(), codes, rtol=1e-9)
        np.testing.assert_allclose(made.atoms.numpy(), learnt, rtol=1e-9)


def test_the_objective_by_hand() -> None:
    factors = Factors(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [3.0, 0.5]]))
    signals = torch.tensor([[2.0, 2.0], [3.0, 4.0]])
    assert factors.objective(signals) == 0.5 * (1 + 9)
    assert factors.objective(signals, 0.1) == pytest.approx(5.0 + 0.1 * 5.5)
    unit = factors.unit_atoms()
    assert (unit.atoms.tolist(), unit.codes.tolist()) == ([[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [3.0, 1.0]])
