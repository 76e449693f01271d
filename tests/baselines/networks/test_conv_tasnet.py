"""Conv-TasNet's network: the paper's parameter counts, lengths, what a mask sees, and parts of it computed another way."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from baselines.networks.conv_tasnet import ConvTasNet, ConvTasNetConfig, DepthwiseConvolution, GlobalNorm, OneSlope

TINY = {"filters": 12, "length": 8, "bottleneck": 6, "hidden": 10, "skip": 5, "blocks": 3, "repeats": 2}


def network(**layout: int) -> ConvTasNet:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return ConvTasNet(ConvTasNetConfig(**layout)).eval()


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("filters", "length", "bottleneck", "hidden", "skip", "blocks", "repeats", "millions"),
    [
        (128, 40, 128, 256, 128, 7, 2, 1.5),
        (256, 40, 128, 256, 128, 7, 2, 1.5),
        (512, 40, 128, 256, 128, 7, 2, 1.7),
        (512, 40, 128, 512, 128, 7, 2, 3.1),
        (512, 40, 128, 512, 128, 6, 4, 5.1),
        (512, 40, 128, 512, 128, 4, 6, 5.1),
        (512, 32, 128, 512, 128, 8, 3, 5.1),
        (512, 16, 128, 512, 128, 8, 3, 5.1),
    ],
)
def test_parameters_are_those_of_the_papers_table_2(
    filters: int, length: int, bottleneck: int, hidden: int, skip: int, blocks: int, repeats: int, millions: float
) -> None:
    """The paper counts the last block's way back, which leads nowhere and is left out here."""
    config = ConvTasNetConfig(2, 1, filters, length, bottleneck, hidden, skip, 3, blocks, repeats)
    with torch.device("meta"):
        count = sum(p.numel() for p in ConvTasNet(config).parameters())
    assert round((count + hidden * bottleneck + bottleneck) / 1e6, 1) == millions


def test_parameters_of_the_best_network_counted_by_hand() -> None:
    """N = 512, L = 16, B = Sc = 128, H = 512, P = 3, 24 blocks, the last without its way back."""
    block = (128 * 512 + 512) + 1 + 2 * 512 + (3 * 512 + 512) + 1 + 2 * 512 + (512 * 256 + 256)
    around = 512 * 16 + 2 * 512 + (512 * 128 + 128) + 1 + (128 * 1024 + 1024) + 512 * 16
    with torch.device("meta"):
        assert sum(p.numel() for p in ConvTasNet(ConvTasNetConfig()).parameters()) == 24 * block - (512 * 128 + 128) + around == 4_984_881


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1, 200), sources=st.integers(1, 3), channels=st.integers(1, 2))
def test_parts_have_the_mixtures_length(samples: int, sources: int, channels: int) -> None:
    mixtures = numbers(0, 2, channels, samples)
    parts = network(sources=sources, channels=channels, **TINY)(mixtures)
    assert parts.shape == (2, sources, channels, samples)
    assert bool(parts.isfinite().all())


def test_every_sample_lies_in_two_frames() -> None:
    """Masks of 1 and filters of 1 / L: each sample becomes the mean of the frames around it, the same for all samples of a constant signal."""
    one = network(**TINY)
    with torch.no_grad():
        one.encoder.weight.fill_(1.0 / 8)
        one.decoder.weight.fill_(1.0 / 12)
        one.masks[1].weight.zero_()
        one.masks[1].bias.fill_(100.0)
    parts = one(torch.ones(1, 1, 37))
    torch.testing.assert_close(parts[..., 4:32], torch.full((1, 2, 1, 28), 2.0))
    torch.testing.assert_close(parts[..., 0], torch.full((1, 2, 1), 1.5))  # of the first frame one half is silence


@pytest.mark.parametrize(("length", "dilation", "kernel"), [(37, 1, 3), (37, 4, 3), (64, 16, 5), (5, 16, 3)])
def test_the_depthwise_convolution_is_torchs(length: int, dilation: int, kernel: int) -> None:
    one, x = DepthwiseConvolution(6, kernel, dilation), numbers(0, 2, 6, length)
    direct = functional.conv1d(x, one.weight, one.bias, padding=dilation * (kernel // 2), dilation=dilation, groups=6)
    torch.testing.assert_close(one(x), direct)


def test_the_slope_is_torchs() -> None:
    one, x = OneSlope(init=0.3), numbers(0, 2, 6, 9)
    torch.testing.assert_close(one(x), functional.prelu(x, one.weight))


def test_the_norm_is_over_channels_and_time_of_an_example() -> None:
    """Equations 9 and 10 of the paper."""
    x = numbers(0, 3, 4, 50) * torch.tensor([1.0, 10.0, 100.0])[:, None, None] + 5
    centred = x - x.mean((1, 2), keepdim=True)
    torch.testing.assert_close(GlobalNorm(4)(x), centred / centred.square().mean((1, 2), keepdim=True).sqrt())


def test_the_receptive_field() -> None:
    """Norms see everything; without them a sample moves what lies within half the field, and no more."""
    config = ConvTasNetConfig(**TINY)
    assert ConvTasNetConfig().receptive_field == 8 * 3 * 2 * 255 + 16  # 1.53 s at 8 kHz, as in table II
    one = network(**TINY).double()
    for module in one.modules():
        if isinstance(module, GlobalNorm):
            module.forward = torch.nn.Identity().forward  # type: ignore[method-assign]
    x = numbers(0, 1, 1, 1_000).double()
    touched = x.clone()
    touched[..., 500] += 1.0
    moved = (one(touched) - one(x)).abs().amax((0, 1, 2)).nonzero().flatten()
    assert config.receptive_field // 2 - 8 <= 500 - int(moved.min()) <= config.receptive_field // 2 + 8


@pytest.mark.parametrize("layout", [{"length": 7}, {"kernel": 2}, {"filters": 0}])
def test_sizes_that_do_not_fit_are_refused(layout: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="even and the kernel odd"):
        ConvTasNetConfig(**layout)


@pytest.mark.parametrize("name", ["sources", "channels", "filters", "bottleneck", "hidden", "skip", "kernel", "blocks", "repeats"])
def test_every_size_is_one_at_least(name: str) -> None:
    assert getattr(ConvTasNetConfig(**{name: 1}), name) == 1
    with pytest.raises(ValueError, match="sizes must be positive") as refused:
        ConvTasNetConfig(**{name: 0 if name != "kernel" else -1})
    assert str(refused.value).startswith("all sizes must be positive, the filters' length even and the kernel odd, got ConvTasNetConfig(sources=")


def test_lengths_at_the_bound() -> None:
    assert (ConvTasNetConfig(length=2).stride, ConvTasNetConfig(length=8).stride) == (1, 4)
    for length in (0, 1, 3):
        with pytest.raises(ValueError, match="length even"):
            ConvTasNetConfig(length=length)


def test_dilations_double_within_a_repeat_and_the_last_block_goes_nowhere() -> None:
    one = network(**TINY)
    assert [block.body[3].dilation[0] for block in one.blocks] == [1, 2, 4, 1, 2, 4]  # type: ignore[union-attr,index]
    assert [block.onward for block in one.blocks] == [6] * 5 + [0]
    assert [block.ends.out_channels for block in one.blocks] == [11] * 5 + [5]  # type: ignore[union-attr]
    x = numbers(0, 2, 6, 9)
    onward, share = one.blocks[-1](x)
    assert torch.equal(onward, x)
    assert share.shape == (2, 5, 9)
