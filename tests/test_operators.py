"""Mixing operators: linearity laws, ranges, shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.errors import SuiteError
from sepbench.operators import ChannelMean, make_operator
from sepbench.protocols import MixingOperator


@st.composite
def operators(draw: st.DrawFn) -> tuple[MixingOperator, torch.Tensor]:
    """An operator with a float64 batch of sources that it takes."""
    batch = draw(st.integers(1, 4))
    name = draw(st.sampled_from(["sum", "mean", "gain", "channel-mean"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if name == "channel-mean":
        channels = draw(st.integers(1, 4))
        return ChannelMean(channels), torch.rand(batch, 1, channels, 3, 5, generator=generator, dtype=torch.float64)
    k = draw(st.integers(1, 5))
    gains = torch.rand(batch, k, generator=generator) * 3 - 1 if name == "gain" else None
    return make_operator(name, k, gains=gains), torch.rand(batch, k, 2, 3, generator=generator, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(operators())
def test_adjoint_and_pseudo_inverse(case: tuple[MixingOperator, torch.Tensor]) -> None:
    operator, x = case
    m = torch.rand(operator.forward(x).shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, right = (operator.forward(x) * m).sum(), (x * operator.adjoint(m)).sum()
    torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(operator.forward(operator.pseudo_inverse(m)), m, rtol=1e-4, atol=1e-4)
    gram = operator.gram().reshape(-1, *([1] * (m.ndim - 1)))
    torch.testing.assert_close(operator.forward(operator.adjoint(m)), gram * m, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(operators())
def test_range_and_matrix(case: tuple[MixingOperator, torch.Tensor]) -> None:
    operator, x = case
    low, high = operator.output_range(0.0, 1.0)
    mixture = operator.forward(x)
    assert float(mixture.min()) >= low - 1e-6
    assert float(mixture.max()) <= high + 1e-6
    matrix = operator.matrix().expand(len(x), -1, -1)
    mixed_axis = x[:, 0] if x.ndim == 5 else x
    product = torch.einsum("bij,bj...->bi...", matrix, mixed_axis)
    torch.testing.assert_close(product[:, 0], mixture if x.ndim != 5 else mixture[:, 0], rtol=1e-6, atol=1e-6)


def test_mixture_has_the_same_bits_in_any_batch() -> None:
    x = torch.rand(64, 4, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    operator = make_operator("sum", 4)
    assert torch.equal(operator.forward(x)[17:19], operator.forward(x[17:19]))


def test_selecting_rows_of_per_example_gains() -> None:
    gains = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    x = torch.rand(3, 2, 7, generator=torch.Generator().manual_seed(3))
    operator = make_operator("gain", 2, gains=gains)
    rows = torch.tensor([2, 0])
    assert torch.equal(operator.select(rows).forward(x[rows]), operator.forward(x)[rows])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "sums", "n_sources": 2}, "unknown mixing operator"),
        ({"name": "channel-mean", "n_sources": 2}, "one source"),
        ({"name": "gain", "n_sources": 2}, "one finite gain"),
        ({"name": "gain", "n_sources": 2, "gains": [[1.0, float("nan")]]}, "one finite gain"),
    ],
)
def test_bad_operators_are_refused(kwargs: dict, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        make_operator(**kwargs)


def test_wrong_number_of_sources_is_refused() -> None:
    with pytest.raises(ValueError, match="mixes 2 sources"):
        make_operator("sum", 2).forward(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="channel-mean"):
        ChannelMean(3).forward(torch.zeros(1, 1, 4, 2, 2))


@pytest.mark.parametrize(
    ("name", "k", "gains", "low", "high", "matrix", "gram", "found"),
    [
        ("sum", 3, None, 0.0, 1.0, [[1.0, 1.0, 1.0]], 3.0, (0.0, 3.0)),
        ("mean", 4, None, -1.0, 1.0, [[0.25] * 4], 0.25, (-1.0, 1.0)),
        ("channel-mean", 1, None, -2.0, 5.0, [[1 / 3] * 3], 1 / 3, (-2.0, 5.0)),
        ("gain", 2, [[1.0, -2.0], [3.0, 0.5]], -1.0, 2.0, [[[1.0, -2.0]], [[3.0, 0.5]]], [5.0, 9.25], (-5.0, 7.0)),
    ],
)
def test_operators_by_hand(name: str, k: int, gains: object, low: float, high: float, matrix: object, gram: object, found: tuple[float, float]) -> None:
    """The range of gains is that of the example where it is widest: -1 * 1 + 2 * -2 below, 2 * 3 + 2 * 0.5 above."""
    operator = make_operator(name, k, gains=gains)  # type: ignore[arg-type]
    assert (operator.name, operator.n_sources, operator.output_range(low, high)) == (name, k, pytest.approx(found))
    torch.testing.assert_close(operator.matrix(), torch.tensor(matrix, dtype=torch.float64))
    torch.testing.assert_close(operator.gram(), torch.tensor(gram, dtype=torch.float64))
    moved = operator.to("cpu")
    assert (moved.name, moved.n_sources) == (name, k)
    assert (operator.select(torch.tensor([0])) is operator) == (name != "gain")


@pytest.mark.parametrize(
    ("name", "k", "gains", "told"),
    [
        ("sums", 2, None, "unknown mixing operator 'sums'; choose from sum, mean, channel-mean, gain"),
        ("channel-mean", 2, None, "operator 'channel-mean' takes one source, the task has 2"),
        ("gain", 2, None, "operator 'gain' needs one finite gain per example and source, (B, 2); got shape (0,)"),
        ("gain", 2, [[1.0, 2.0, 3.0]], "operator 'gain' needs one finite gain per example and source, (B, 2); got shape (1, 3)"),
        ("gain", 2, [1.0, 2.0], "operator 'gain' needs one finite gain per example and source, (B, 2); got shape (2,)"),
        ("gain", 2, [[1.0, float("inf")]], "operator 'gain' needs one finite gain per example and source, (B, 2); got shape (1, 2)"),
    ],
)
def test_arguments_that_do_not_fit_are_told_in_one_line(name: str, k: int, gains: object, told: str) -> None:
    with pytest.raises(SuiteError) as caught:
        make_operator(name, k, gains=gains)  # type: ignore[arg-type]
    assert str(caught.value) == told


def test_colour_channels_are_three_unless_another_number_is_given() -> None:
    assert make_operator("channel-mean", 1).forward(torch.arange(3.0).reshape(1, 1, 3, 1, 1)).tolist() == [[[[1.0]]]]
    assert make_operator("channel-mean", 1, channels=2).forward(torch.arange(2.0).reshape(1, 1, 2, 1, 1)).tolist() == [[[[0.5]]]]
    for wrong in (torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 1, 3, 4)):
        with pytest.raises(ValueError, match=r"wants \(B, 1, 3, H, W\), got shape"):
            ChannelMean(3).forward(wrong)


@pytest.mark.parametrize(("name", "k", "gains"), [("sum", 3, None), ("mean", 3, None), ("gain", 3, [[0.1, 0.2, 0.3]] * 2), ("channel-mean", 1, None)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_mixed_keeps_its_type_and_stays_as_it_is(name: str, k: int, gains: list[list[float]] | None, dtype: torch.dtype) -> None:
    operator = make_operator(name, k, gains=gains)
    sources = torch.rand(2, k, 3, 4, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    kept = sources.clone()
    mixtures = operator.forward(sources)
    assert torch.equal(sources, kept)
    before = mixtures.clone()
    for found in (mixtures, operator.adjoint(mixtures), operator.pseudo_inverse(mixtures)):
        assert found.dtype == dtype
    assert torch.equal(mixtures, before)
    assert operator.matrix().dtype == operator.gram().dtype == torch.float64
    assert operator.adjoint(mixtures).shape == operator.pseudo_inverse(mixtures).shape == sources.shape


def test_an_operator_is_moved_with_its_weights_and_its_name() -> None:
    for name, gains in (("mean", None), ("gain", [[1.0, 2.0]])):
        operator = make_operator(name, 2, gains=gains)
        moved: Any = operator.to("meta")
        assert (moved.name, moved.weights.device, moved.weights.shape) == (name, torch.device("meta"), operator.weights.shape)  # type: ignore[attr-defined]
        assert operator.select(torch.tensor([0])).name == name
    assert make_operator("mean", 2).matrix().tolist() == [[0.5, 0.5]]


def test_squares_of_gains_are_summed_in_double_precision() -> None:
    """4097^2 needs 25 bits."""
    assert float(make_operator("gain", 1, gains=[[4097.0]]).gram()) == 4097**2
