from __future__ import annotations

import math

import pytest
import torch

from baselines.networks.unet import NoiseEmbedding, ResidualBlock, ScoreUNet, UNetConfig, fuse, halve
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


def test_the_embedding_has_waves_of_sixteen_lengths() -> None:
    """Periods of the label from 4 to a sixteenth, evenly in their logarithm; they belong to the code and not to the weights."""
    embedding = NoiseEmbedding(8)
    assert (2 * math.pi / embedding.frequencies).tolist() == pytest.approx([4 * (1 / 64) ** (k / 15) for k in range(16)], rel=1e-5)
    assert "frequencies" not in embedding.state_dict()
    assert embedding.first.in_features == 32
    seen: list[torch.Tensor] = []
    embedding.first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert embedding(torch.tensor([0.5, 0.0])).shape == (2, 8)
    phase = 0.5 * embedding.frequencies
    torch.testing.assert_close(seen[0], torch.stack([torch.cat([phase.cos(), phase.sin()]), torch.cat([torch.ones(16), torch.zeros(16)])]))


def test_kernels_are_used_by_every_block_and_the_end() -> None:
    network = ScoreUNet(UNetConfig(widths=(8, 8, 16), blocks=(1, 1, 1), heads=2, embedding=16))
    calls: list[bool] = []

    def kernel(x: torch.Tensor, norm: torch.nn.GroupNorm, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None) -> torch.Tensor:
        calls.append(scale is not None)
        y = norm(x)
        return torch.nn.functional.silu(y if scale is None or shift is None else y * scale + shift)

    random = torch.Generator().manual_seed(0)
    for p in network.parameters():
        torch.nn.init.normal_(p, 0.0, 0.2, generator=random)
    x, label = torch.randn(2, 1, 8, 8, generator=random), torch.tensor([0.1, -0.4])
    with torch.no_grad():
        plain = network(x, label)
        fuse(torch.nn.ModuleList([network]), kernel)
        torch.testing.assert_close(network(x, label), plain, atol=1e-5, rtol=1e-4)
    assert sorted(calls) == [False] * 7 + [True] * 6
    assert ScoreUNet.fused is ResidualBlock.fused is None


@pytest.mark.parametrize("layout", [{"widths": (8, 8, 0)}, {"widths": (8, -8, 8)}, {"widths": (12, 8, 8)}])
def test_words_for_widths(layout: dict[str, tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match="multiples") as refused:
        UNetConfig(**layout)
    assert str(refused.value) == f"widths must be positive multiples of 8, got {layout['widths']}"


def test_widths_and_heads_at_their_bounds() -> None:
    assert UNetConfig(widths=(4, 4, 12), group_size=4, heads=3).group_size == 4
    assert UNetConfig(widths=(8, 8, 8), heads=0).heads == 0
    with pytest.raises(ValueError, match=r"^5 heads do not divide the width 128$"):
        UNetConfig(heads=5)


def test_halving_takes_each_square_of_four() -> None:
    layer = torch.nn.Conv2d(4, 1, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1, 1))
        torch.nn.init.constant_(layer.bias, 0.5)  # type: ignore[arg-type]
    found = halve(torch.arange(8.0).reshape(1, 1, 2, 4), layer)
    assert found.flatten().tolist() == [0 + 10 + 400 + 5000 + 0.5, 2 + 30 + 600 + 7000 + 0.5]
