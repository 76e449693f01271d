"""Robust PCA of images: estimates that explain the mixture, the low-rank part first, honest refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import digit_mixtures, generator

from baselines.decomposition.robust_pca import robust_pca
from baselines.rpca import RobustPCA
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import MixingOperator, Mixtures, RunContext, Separator, TaskSpec


def task(shape: tuple[int, ...] = (1, 8, 8), operator: str = "sum", n_sources: int = 2, domain: str = "image") -> TaskSpec:
    return TaskSpec("suite", "task", domain, n_sources, shape, operator, ("any",) * n_sources, "permutation", tuple(range(n_sources)))


def separate(method: RobustPCA, values: torch.Tensor, operator: MixingOperator) -> torch.Tensor:
    ctx = RunContext(task(tuple(values.shape[1:]), operator.name), "cpu", NoiseSource(0), 0)
    return method.separate(Mixtures(values, torch.arange(len(values)), operator), ctx)


def operator_named(name: str, batch: int, n_sources: int = 2) -> MixingOperator:
    gains = torch.rand(batch, n_sources, generator=generator(5)) + 0.25
    return make_operator(name, n_sources, gains=gains if name == "gain" else None)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["sum", "mean", "gain"]), st.integers(1, 3), st.sampled_from([1, 3]), st.integers(2, 11), st.integers(2, 11), st.integers(0, 100))
def test_estimates_mix_to_the_mixture(name: str, batch: int, channels: int, height: int, width: int, seed: int) -> None:
    values = 2 * torch.rand(batch, channels, height, width, generator=generator(seed))
    operator = operator_named(name, batch)
    estimates = separate(RobustPCA(max_iterations=20), values, operator)
    assert tuple(estimates.shape) == (batch, 2, channels, height, width)
    assert estimates.dtype == torch.float32
    torch.testing.assert_close(operator.forward(estimates), values, atol=2e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (1, 32, 32), (3, 32, 32), (3, 64, 64)])
def test_the_benchmarks_image_sizes(shape: tuple[int, ...]) -> None:
    values = 2 * torch.rand(2, *shape, generator=generator(6))
    estimates = separate(RobustPCA(), values, make_operator("sum", 2))
    assert bool(torch.isfinite(estimates).all())
    torch.testing.assert_close(estimates.sum(1), values, atol=2e-6, rtol=0)


def test_source_0_is_the_low_rank_part_of_rows_by_channels_and_columns() -> None:
    values = torch.rand(2, 3, 10, 6, generator=generator(7))
    estimates = separate(RobustPCA(), values, make_operator("mean", 2))
    matrices = torch.stack([torch.cat([values[b, c] for c in range(3)], dim=1) for b in range(2)])
    found = robust_pca(matrices)
    for c in range(3):
        wanted = torch.stack([found.low_rank, found.sparse], 1)[..., 6 * c : 6 * c + 6] * 2  # weight 1/2
        torch.testing.assert_close(estimates[:, :, c].double(), wanted, atol=1e-5, rtol=0)


def test_batch_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = digit_mixtures(6)
    operator = operator_named("gain", 6)
    together = separate(RobustPCA(), values, operator)
    singly = torch.cat([separate(RobustPCA(), values[b : b + 1], operator.select(torch.tensor([b]))) for b in range(6)])
    torch.testing.assert_close(singly, together, atol=1e-6, rtol=0)
    monkeypatch.setattr("baselines.rpca._CHUNK_ELEMENTS", 4 * 64)
    torch.testing.assert_close(separate(RobustPCA(), values, operator), together, atol=1e-6, rtol=0)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_mixture_that_is_not_finite_has_estimates_of_nan_and_leaves_the_others_alone(broken: float) -> None:
    values = torch.cat([digit_mixtures(3), torch.rand(1, 1, 8, 8, generator=generator(12))]).repeat(1, 3, 1, 1)
    operator = operator_named("gain", 4, 2)
    wanted = separate(RobustPCA(), values, operator)
    values[1, 2, 7, 0] = broken
    found = separate(RobustPCA(), values, operator)
    assert bool(found[1].isnan().all())
    assert float(values[1, 2, 7, 0]) == pytest.approx(broken, nan_ok=True)
    others = torch.tensor([0, 2, 3])
    torch.testing.assert_close(found[others], wanted[others], atol=1e-5, rtol=0)
    assert bool(separate(RobustPCA(), values[1:2], operator.select(torch.tensor([1]))).isnan().all())
    assert separate(RobustPCA(), values[:0], operator.select(torch.arange(0))).shape == (0, 2, 3, 8, 8)


def test_mixtures_are_left_alone() -> None:
    values = digit_mixtures(3)
    before = values.clone()
    separate(RobustPCA(), values, make_operator("sum", 2))
    assert torch.equal(values, before)


def test_what_it_says_of_itself() -> None:
    method = RobustPCA()
    assert isinstance(method, Separator)
    assert (method.info.name, method.info.supervision, method.info.deterministic) == ("rpca", "blind", True)
    assert method.supports(task()).ok
    assert "degenerate" in method.supports(task()).note


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (task(n_sources=4), "4 sources"),
        (task(operator="channel-mean", n_sources=1), "channel-mean"),
        (task(shape=(1, 8000), domain="audio"), "audio"),
        (task(shape=(16,), domain="vector"), "vector"),
    ],
)
def test_what_it_refuses(spec: TaskSpec, reason: str) -> None:
    support = RobustPCA().supports(spec)
    assert not support.ok
    assert reason in support.note


@pytest.mark.parametrize("wrong", [{"sparsity": 0.0}, {"growth": 1.0}, {"tolerance": 0.0}, {"penalty_tolerance": -1.0}, {"max_iterations": 0}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RobustPCA(**wrong)
