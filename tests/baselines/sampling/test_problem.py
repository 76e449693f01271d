"""Rows per call of a prior: what a device allows, found by trying, with the same numbers however they are cut."""

from __future__ import annotations

import warnings

import pytest
import torch

from baselines.basis import basis
from baselines.sampling import problem as problems
from baselines.sampling.problem import CPU_ROWS, GPU_ELEMENTS, GPU_ROWS, Problem, RowLimit
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures

SHAPE = (1, 4, 4)


class Crowded:
    """A prior that runs out of memory with more than ``most`` rows, or always."""

    def __init__(self, most: int, error: type[Exception] = torch.cuda.OutOfMemoryError) -> None:
        self.most, self.error = most, error
        self.calls: list[int] = []

    def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        self.calls.append(len(x))
        if len(x) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate")
        return 0.5 * x

    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def _problem(prior: Crowded, rows: int, limit: RowLimit | None = None) -> Problem:
    ids = torch.arange(rows)
    values = NoiseSource(1).uniform(ids, 0, 0, SHAPE)
    return Problem(Mixtures(values, ids, make_operator("sum", 2)), [prior], NoiseSource(0), SHAPE, limit)


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, MemoryError, RuntimeError])
def test_rows_are_halved_until_they_fit_and_stay_so(error: type[Exception]) -> None:
    prior = Crowded(50, error)
    problem = _problem(prior, 100, RowLimit(200, 0))
    x = problem.normals(0)
    with pytest.warns(RuntimeWarning, match="out of memory with 200 rows in one call of the prior; 100 from here on"):
        assert torch.equal(problem.denoise(x, 0.1), 0.5 * x)
    assert prior.calls == [200, 100, 50, 50, 50, 50]
    assert problem.meter.seen == 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repeated = problem.rows(torch.arange(30)).repeat(4)  # the limit goes with everything that is made of the problem
        repeated.denoise(repeated.normals(1), 0.1)
    assert set(prior.calls[6:]) <= {50, 40}


def test_what_each_mixture_cost_is_counted_whatever_rows_it_had() -> None:
    problem = _problem(Crowded(1000), 4)
    problem.denoise(problem.normals(0), 0.1)  # once for all
    few = problem.rows(torch.tensor([1, 3])).repeat(3)
    few.denoise(few.normals(1), 0.1)  # three draws of two of them
    few.denoise_one(few.normal(2, 0), 0, 0.1)  # and one source of those again
    problem.told_apart(5)
    expected = torch.tensor([12.0, 12 + 9, 12, 12 + 9], dtype=torch.float64)
    assert torch.equal(problem.meter.by_mixture(torch.arange(4)), expected)
    assert problem.meter.seen == expected.sum()


def test_mixtures_of_one_number_share_what_it_cost() -> None:
    problem = _problem(Crowded(1000), 3)
    twice = problem.rows(torch.tensor([2, 0, 2]))
    twice.denoise(twice.normals(0), 0.1)
    assert problem.meter.by_mixture(torch.tensor([2, 0, 2])).tolist() == [2.0, 2.0, 2.0]


def test_more_rows_of_few_numbers_are_halved_too() -> None:
    problem = _problem(Crowded(50), 100, RowLimit(1, 200 * 16))
    with pytest.warns(RuntimeWarning, match="out of memory"):
        problem.denoise(problem.normals(0), 0.1)
    assert problem.limit is not None
    assert problem.limit.at_once(16) == 50


def test_memory_is_let_go_of_each_time_that_it_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[torch.device | str] = []
    monkeypatch.setattr(problems, "release", released.append)
    problem = _problem(Crowded(20), 25, RowLimit(200, 0))
    with pytest.warns(RuntimeWarning, match="out of memory"):
        problem.denoise(problem.normals(0), 0.1)
    assert released == [torch.device("cpu")] * 2, "50 rows, then 25"


def test_a_gpu_begins_with_what_its_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "scaled", lambda number, device: number // {"cuda:1": 4}[str(device)])
    assert RowLimit.of("cuda:1") == RowLimit(GPU_ROWS // 4, GPU_ELEMENTS // 4)


def test_other_errors_and_a_single_row_that_does_not_fit_come_through() -> None:
    problem = _problem(Crowded(0), 3)
    with pytest.warns(RuntimeWarning), pytest.raises(torch.cuda.OutOfMemoryError):
        problem.denoise(problem.normals(0), 0.1)
    problem = _problem(Crowded(0, ValueError), 3)
    with pytest.raises(ValueError, match="Tried"):
        problem.denoise(problem.normals(0), 0.1)


def test_the_cpu_begins_where_it_always_did() -> None:
    prior = Crowded(10**9)
    problem = _problem(prior, 5000)
    problem.denoise(problem.normals(0), 0.1)
    assert set(prior.calls) == {(1 << 17) // 16, 10_000 - (1 << 17) // 16}
    assert RowLimit.of("cpu").at_once(784) == max(CPU_ROWS, (1 << 17) // 784)


def test_nothing_is_separated_too() -> None:
    problem = _problem(Crowded(5), 0)
    assert problem.denoise(problem.normals(0), 0.1).shape == (0, 2, *SHAPE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine; scripts/gpu_session.sh runs this where there is one")
def test_no_step_of_a_sampler_on_a_gpu_waits_for_it() -> None:
    ids = torch.arange(6)
    values = NoiseSource(1).uniform(ids, 0, 0, SHAPE).to("cuda")
    problem = Problem(Mixtures(values, ids, make_operator("sum", 2)), [Crowded(10**9)], NoiseSource(0), SHAPE)
    basis(problem, [1.0, 0.1], steps_per_level=2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = basis(problem, [1.0, 0.1], steps_per_level=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool(found.isfinite().all())
