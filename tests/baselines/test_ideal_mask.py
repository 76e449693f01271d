"""The ideal mask: optimal on its blocks, hence a bound; the references only through the context."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import Digits, context, mean_psnr, mix, toy_task

from baselines.average import Average
from baselines.ideal_mask import IdealMask, block_shares
from sepbench.errors import SupervisionError
from sepbench.operators import WeightedSum
from sepbench.protocols import Separator


def images(batch: int, n_sources: int, height: int, width: int, seed: int) -> torch.Tensor:
    """Half black, as digits are."""
    draws = torch.rand(batch, n_sources, 2, height, width, generator=torch.Generator().manual_seed(seed))
    return (2.0 * draws - 1.0).clamp(min=0.0)


def separate(method: IdealMask, sources: torch.Tensor, operator: str = "sum") -> torch.Tensor:
    task = toy_task(tuple(sources.shape[2:]), ("any",) * sources.shape[1], operator)
    return method.separate(mix(sources, operator), context(task, references=lambda ids: sources[ids]))


shapes = st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 5), st.sampled_from(["sum", "mean", "gain"]), st.integers(0, 99))
def test_no_mask_on_the_blocks_is_better(shape: tuple[int, int, int, int], block: int, operator: str, seed: int) -> None:
    """Random masks that are constant on the blocks, the even one among them, leave at least as much error, source by source."""
    sources = images(*shape, seed)
    mixtures = mix(sources, operator)
    ones = torch.ones_like(mixtures.values)
    weighted = mixtures.operator.adjoint(ones) * sources
    shares = block_shares(weighted, mixtures.values, block)
    least = (weighted - shares * mixtures.values.unsqueeze(1)).square().flatten(2).sum(2)
    g = torch.Generator().manual_seed(seed)
    for _ in range(3):
        coarse = torch.rand(*shape[:2], 2, -(-shape[2] // block), -(-shape[3] // block), generator=g)
        other = coarse.repeat_interleave(block, -2).repeat_interleave(block, -1)[..., : shape[2], : shape[3]]
        for mask in (other, torch.full_like(other, 1.0 / shape[1])):
            assert (least <= (weighted - mask * mixtures.values.unsqueeze(1)).square().flatten(2).sum(2) + 1e-4).all()


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(1, 5), st.sampled_from(["sum", "mean", "gain"]), st.sampled_from(["ratio", "binary"]), st.integers(0, 99))
def test_estimates_mix_to_the_mixture(shape: tuple[int, int, int, int], block: int, operator: str, mask: str, seed: int) -> None:
    sources = images(*shape, seed)
    estimates = separate(IdealMask(block, mask), sources, operator)  # type: ignore[arg-type]
    mixtures = mix(sources, operator)
    assert estimates.shape == sources.shape
    assert estimates.dtype == torch.float32
    torch.testing.assert_close(mixtures.operator.forward(estimates), mixtures.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("operator", ["sum", "mean", "gain"])
def test_the_ratio_mask_of_single_pixels_is_no_bound(operator: str) -> None:
    """It returns the references, which is why blocks are the default."""
    sources = images(4, 2, 8, 8, seed=1)
    torch.testing.assert_close(separate(IdealMask(block=1), sources, operator), sources, atol=1e-5, rtol=1e-5)


def test_binary_mask_by_hand() -> None:
    sources = torch.tensor([[[0.9, 0.2], [0.5, 0.0]], [[0.3, 0.4], [0.5, 0.0]]]).reshape(1, 2, 1, 2, 2)
    expected = torch.tensor([[[1.2, 0.0], [0.5, 0.0]], [[0.0, 0.6], [0.5, 0.0]]]).reshape(1, 2, 1, 2, 2)
    torch.testing.assert_close(separate(IdealMask(block=1, mask="binary"), sources), expected)


def test_black_images_and_sources_of_weight_zero() -> None:
    black = torch.zeros(2, 2, 1, 4, 4)
    assert torch.equal(separate(IdealMask(), black), black)
    sources = images(2, 2, 4, 4, seed=3)
    mixtures = mix(sources, WeightedSum("gain", torch.tensor([[1.0, 0.0], [0.5, 1.0]])))
    estimates = IdealMask().separate(mixtures, context(toy_task((2, 4, 4)), references=lambda ids: sources[ids]))
    torch.testing.assert_close(estimates[0, 0], sources[0, 0])
    assert torch.equal(estimates[0, 1], torch.zeros(2, 4, 4))


def test_a_bound_on_digits(digits: Digits) -> None:
    """Above the average at every size, finer is better; the binary mask of pixels falls below the average."""
    mixtures = mix(digits.pairs)
    average = mean_psnr(Average().separate(mixtures, context(toy_task())), digits.pairs)
    levels = [mean_psnr(separate(IdealMask(block), digits.pairs), digits.pairs) for block in (2, 4, 8)]
    assert levels[0] > levels[1] > levels[2] > average
    assert mean_psnr(separate(IdealMask(1, "binary"), digits.pairs), digits.pairs) < average


def test_without_references_it_cannot_work() -> None:
    with pytest.raises(SupervisionError):
        IdealMask().separate(mix(images(2, 2, 4, 4, 0)), context(toy_task((2, 4, 4))))


def test_what_it_takes() -> None:
    method = IdealMask()
    assert isinstance(method, Separator)
    assert (method.info.supervision, method.info.bound) == ("bound", "upper")
    assert method.supports(toy_task(operator="gain")).ok
    assert "references" in IdealMask(block=1).supports(toy_task()).note
    assert not method.supports(toy_task((1, 99), domain="audio")).ok
    assert not method.supports(toy_task((3, 4, 4), ("any",), "channel-mean")).ok
    for wrong in ({"block": 0}, {"mask": "soft"}):
        with pytest.raises(ValueError):
            IdealMask(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["class-split", "class-agnostic"])
def test_keeps_the_contract(task: str, broken_rules: Callable[..., list[str]]) -> None:
    assert broken_rules("ideal-mask", task) == []
