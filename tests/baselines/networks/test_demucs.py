"""Demucs' network: the paper's parameter count, lengths, skips, rescaled weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.networks.demucs import Demucs, DemucsConfig, rescale_convolutions

TINY = {"width": 4, "depth": 2}


def network(**layout: int) -> Demucs:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Demucs(DemucsConfig(**layout)).eval()


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_parameters_of_the_paper_counted_by_hand() -> None:
    """Four stereo sources, 64 to 2,048 channels."""
    widths = [64 << layer for layer in range(6)]
    count = 0
    for before, width in zip([2, *widths], widths, strict=False):
        count += (8 * before * width + width) + (2 * width * width + 2 * width)
    for after, width in zip([8, *widths], widths, strict=False):
        count += (3 * 2 * width * width + 2 * width) + (8 * width * after + after)
    wide = widths[-1]
    for inputs in (wide, 2 * wide):
        count += 2 * (4 * wide * (inputs + wide) + 2 * 4 * wide)
    count += 2 * wide * wide + wide
    with torch.device("meta"):
        assert sum(p.numel() for p in Demucs(DemucsConfig(sources=4, channels=2)).parameters()) == count
    assert count == 265_679_496


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1, 300), sources=st.integers(1, 3), channels=st.integers(1, 2), layers=st.integers(0, 2))
def test_parts_have_the_mixtures_length(samples: int, sources: int, channels: int, layers: int) -> None:
    parts = network(sources=sources, channels=channels, lstm_layers=layers, **TINY)(numbers(0, 2, channels, samples))
    assert parts.shape == (2, sources, channels, samples)
    assert bool(parts.isfinite().all())


@given(samples=st.integers(1, 100_000), depth=st.integers(1, 6))
def test_the_whole_length_is_the_least_that_no_layer_cuts(samples: int, depth: int) -> None:
    config = DemucsConfig(depth=depth)

    def leaves_none(length: int) -> bool:
        for _ in range(depth):
            if length < 8 or (length - 8) % 4:
                return False
            length = (length - 8) // 4 + 1
        return True

    whole = config.whole_length(samples)
    assert whole >= samples
    assert leaves_none(whole)
    unit = 4**depth
    assert whole - unit < samples or not leaves_none(whole - unit)


def test_the_outermost_skip_reaches_the_output() -> None:
    """Without what comes up from below, the first layer's output still decides."""
    one = network(**TINY)
    with torch.no_grad():
        for values in one.decoder[0].parameters():
            values.zero_()
    assert float(one(numbers(0, 1, 1, 100)).detach().std()) > 1e-4


def test_estimates_are_no_masks() -> None:
    """Silence comes out as what the biases say."""
    assert float(network(**TINY)(torch.zeros(1, 1, 100)).detach().abs().max()) > 0


def test_weights_are_rescaled_towards_the_reference() -> None:
    one = nn.Conv1d(8, 16, 5)
    nn.init.normal_(one.weight, std=0.4)
    before, bias = one.weight.detach().clone(), one.bias.detach().clone()  # type: ignore[union-attr]
    rescale_convolutions(one, 0.1)
    scale = (before.std() / 0.1).sqrt()
    torch.testing.assert_close(one.weight, before / scale)
    torch.testing.assert_close(one.bias, bias / scale)
    assert float(scale) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("layout", [{"width": 0}, {"kernel": 2}, {"context": 2}])
def test_sizes_that_do_not_fit_are_refused(layout: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DemucsConfig(**layout)


@pytest.mark.parametrize("name", ["sources", "channels", "width", "depth", "stride", "context"])
def test_every_size_is_one_at_least(name: str) -> None:
    assert getattr(DemucsConfig(**{name: 1}), name) == 1
    with pytest.raises(ValueError, match="must be") as refused:
        DemucsConfig(**{name: 0})
    assert str(refused.value).startswith("all sizes must be positive, got DemucsConfig(sources=")


def test_layers_of_the_lstm_and_the_growth_at_their_bounds() -> None:
    assert DemucsConfig(lstm_layers=0).lstm_layers == 0
    assert DemucsConfig(growth=0.5, width=64, depth=3).widths == (64, 32, 16)
    assert DemucsConfig(growth=1.5, width=5, depth=3).widths == (5, 8, 11)
    for wrong in ({"lstm_layers": -1}, {"growth": 0.0}):
        with pytest.raises(ValueError, match="all sizes must be positive"):
            DemucsConfig(**wrong)  # type: ignore[arg-type]
    for wrong in ({"kernel": 3}, {"context": 4}):
        with pytest.raises(ValueError, match="the kernel must be at least the stride and the context odd, got DemucsConfig"):
            DemucsConfig(**wrong)  # type: ignore[arg-type]


def test_a_network_is_rescaled_when_it_is_made() -> None:
    """Of every convolution the deviation is the root of 0.1 times what torch drew; the LSTM stays as it was drawn."""
    config = DemucsConfig(width=8, depth=2)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        made = Demucs(config)
    for module in made.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            inputs = module.in_channels if isinstance(module, nn.Conv1d) else module.out_channels
            drawn = (1 / (3 * inputs * module.kernel_size[0])) ** 0.5
            assert float(module.weight.detach().std()) == pytest.approx((0.1 * drawn) ** 0.5, rel=0.15)
    assert made.lstm is not None
    assert (made.lstm.num_layers, made.lstm.bidirectional, made.lstm.hidden_size) == (2, True, 16)
    assert float(made.lstm.weight_hh_l0.detach().abs().max()) == pytest.approx(0.25, rel=0.02)


def test_padding_is_even_on_both_sides() -> None:
    """The first layer's input: a sample more of silence at the end if it does not come out even."""
    one, seen = network(**TINY), list[torch.Tensor]()
    one.encoder[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    one(torch.ones(1, 1, 33))
    heard = seen[0][0, 0].nonzero().flatten()
    missing = one.config.whole_length(33) - 33
    assert missing % 2 == 1
    assert (int(heard[0]), len(heard)) == (missing // 2, 33)
