"""Mixing operators: linearity laws, ranges, shapes."""

from __future__ import annotations

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
