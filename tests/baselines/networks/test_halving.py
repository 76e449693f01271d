"""Convolutions that halve and double: torch's own values and gradients by another route."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from baselines.networks import halving
from baselines.networks.halving import DoublingConv2d, HalvingConv2d, columns, double, halve, summed
from baselines.training.config import generator

Convolution = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SHAPES = st.tuples(*(st.integers(1, most) for most in (3, 5, 4)), st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
FEW, MANY = (8, 16), (128, 128)
"""Channels before and after: torch's own convolution, and the product."""


def normals(*key: object, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=generator("halving", *key), dtype=torch.float64)


def of_torch(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.conv2d(x, weight, stride=2, padding=1)


def transposed_of_torch(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.conv_transpose2d(x, weight, stride=2, padding=1)


def with_gradients(function: Convolution, x: torch.Tensor, weight: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """The values, and the gradients of a random linear function of them in both arguments."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    values = function(x, weight)
    gradients = torch.autograd.grad(values, (x, weight), normals("gradient", seed, shape=tuple(values.shape)).to(values.dtype))
    return [values.detach(), *gradients]


@given(SHAPES)
def test_products_have_the_values_and_gradients_of_torch(drawn: tuple[int, ...]) -> None:
    batch, before, after, height, width, seed = drawn
    weight = normals("weight", seed, shape=(after, before, 4, 4))
    images, maps = normals("x", seed, shape=(batch, before, height, width)), normals("x", seed, shape=(batch, after, height, width))
    for found, told in (
        (with_gradients(halve, images, weight, seed), with_gradients(of_torch, images, weight, seed)),
        (with_gradients(double, maps, weight, seed), with_gradients(transposed_of_torch, maps, weight, seed)),
    ):
        for ours, theirs in zip(found, told, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@given(SHAPES)
def test_patches_and_their_sums_are_adjoint(drawn: tuple[int, ...]) -> None:
    batch, channels, _, height, width, seed = drawn
    images = normals("x", seed, shape=(batch, height, width, channels))
    patches = normals("p", seed, shape=(batch, height // 2, width // 2, 16 * channels))
    torch.testing.assert_close((columns(images) * patches).sum(), (images * summed(patches, (height, width))).sum(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [FEW, MANY])
def test_in_float32_the_layers_are_those_of_torch(channels: tuple[int, int]) -> None:
    before, after = channels
    x, y = torch.rand(2, before, 8, 8, generator=generator(1)), torch.rand(2, before, 4, 4, generator=generator(2))
    down, up = HalvingConv2d(before, after), DoublingConv2d(before, after)
    assert torch.equal(down(x), of_torch(x, down.weight))
    assert torch.equal(up(y), transposed_of_torch(y, up.weight))


def rounded_error(layer: nn.Module, own: Convolution, x: torch.Tensor) -> list[tuple[float, float]]:
    """The relative errors of a layer's values and gradients in bfloat16, and beside them those of torch's own route."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    exact = with_gradients(own, x.double(), weight.detach().double(), 0)

    def ours(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    with torch.autocast("cpu", torch.bfloat16):
        found, theirs = with_gradients(ours, x, weight.detach(), 0), with_gradients(own, x, weight.detach(), 0)
    assert [value.dtype for value in found] == [torch.bfloat16, torch.float32, torch.float32]
    return [
        (float((value.double() - truth).norm() / truth.norm()), float((other.double() - truth).norm() / truth.norm()))
        for value, other, truth in zip(found, theirs, exact, strict=True)
    ]


@pytest.mark.parametrize(("channels", "product"), [(FEW, False), (MANY, True)])
def test_in_bfloat16_rounding_is_no_coarser_than_that_of_torch(channels: tuple[int, int], product: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both routes round products to 8 bits, 0.4 %. Sums of overlapping patches are rounded once or twice more."""
    before, after = channels
    taken: list[str] = []
    for name, function in (("halve", halve), ("double", double)):
        monkeypatch.setattr(halving, name, lambda x, weight, name=name, function=function: taken.append(name) or function(x, weight))
    x, y = normals("x", shape=(4, before, 8, 8)).float(), normals("y", shape=(4, before, 4, 4)).float()
    errors = rounded_error(HalvingConv2d(before, after), of_torch, x) + rounded_error(DoublingConv2d(before, after), transposed_of_torch, y)
    assert taken == (["halve", "double"] if product else [])
    for ours, theirs in errors:
        assert ours < 0.01
        assert ours < 2.0 * theirs + 1e-3


def test_large_maps_are_no_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "halve", None)
    monkeypatch.setattr(halving, "double", None)
    x = torch.rand(1, 128, 18, 18, generator=generator(3))
    with torch.autocast("cpu", torch.bfloat16):
        assert DoublingConv2d(128, 128)(x[..., :9, :9]).shape == HalvingConv2d(128, 128)(x.repeat(1, 1, 2, 2)).shape == (1, 128, 18, 18)


def test_odd_sides_are_halved_as_torch_halves_them() -> None:
    layer, x = HalvingConv2d(128, 128), torch.rand(2, 128, 7, 5, generator=generator(4))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).shape == (2, 128, 3, 2)
