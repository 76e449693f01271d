from __future__ import annotations

import pytest
import torch

from baselines.networks.unet import ScoreUNet, UNetConfig
from baselines.training.score import RECIPES


def test_parameter_counts() -> None:
    counts = {name: sum(p.numel() for p in ScoreUNet(recipe.layout).parameters()) for name, recipe in RECIPES.items()}
    assert counts["mnist"] == 2_098_529
    assert counts["digits"] < 200_000
    assert 1_000_000 < counts["cifar10"] < 4_000_000


def test_starts_as_zero_and_keeps_the_shape() -> None:
    network = ScoreUNet(UNetConfig(channels=3, widths=(8, 8, 16), blocks=(1, 1, 1), heads=2, embedding=16))
    out = network(torch.randn(2, 3, 12, 8), torch.zeros(2))
    assert out.shape == (2, 3, 12, 8)
    assert float(out.detach().abs().max()) <= 0.2  # the head's bias alone


@pytest.mark.parametrize("heads", [0, 2])
def test_attention_lets_every_pixel_see_every_other(heads: int) -> None:
    """Without attention the far corner of a large image is out of reach; with it, it is not."""
    network = ScoreUNet(UNetConfig(widths=(8, 8, 8), blocks=(0, 0, 1), heads=heads, embedding=8))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.normal_(0.0, 0.3, generator=random)
        # Group norms see the whole image too: silence them by making them pass constants.
        for module in network.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = lambda x: x  # type: ignore[method-assign]
    x = torch.randn(1, 1, 96, 96, generator=random, requires_grad=True)
    out = network(x, torch.zeros(1))
    (gradient,) = torch.autograd.grad(out[0, 0, 0, 0], x)
    assert bool(gradient[0, 0, 90:, 90:].abs().max() > 0) == (heads > 0)


def test_bad_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        UNetConfig(widths=(30, 64, 128))
    with pytest.raises(ValueError, match="do not divide"):
        UNetConfig(widths=(32, 64, 128), heads=3)
