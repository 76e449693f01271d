"""The U-Net with masks: where it starts, sizes, masks, and that a mask depends on its own mixture alone."""

from __future__ import annotations

import pytest
import torch

from baselines.networks.mask_unet import MaskUNet, MaskUNetConfig
from baselines.networks.unet import UNetConfig
from baselines.training.mask import mask_layout, new_network


def disturbed(config: MaskUNetConfig) -> MaskUNet:
    """A network whose last layer is no longer zero."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = MaskUNet(config)
        torch.nn.init.normal_(network.body.head.weight, std=0.1)
    return network.eval()


def test_the_layout_keeps_colours_and_masks() -> None:
    layout = mask_layout("unet", (3, 64, 64), masks=2)
    assert (layout.channels, layout.masks) == (3, 2)
    assert isinstance(new_network(layout, seed=0), MaskUNet)


@pytest.mark.parametrize("masks", [1, 3])
def test_at_the_start_every_mask_shares_evenly(masks: int) -> None:
    out = MaskUNet(MaskUNetConfig(masks=masks))(torch.rand(2, 1, 8, 8))
    torch.testing.assert_close(out, torch.full_like(out, 1 / max(masks, 2)))


@pytest.mark.parametrize(("channels", "size"), [(1, (32, 32)), (3, (8, 12))])
def test_a_mask_has_the_mixtures_shape_and_lies_between_0_and_1(channels: int, size: tuple[int, int]) -> None:
    mixtures = torch.rand(2, channels, *size)
    masks = disturbed(MaskUNetConfig(channels))(mixtures).detach()
    assert masks.shape == mixtures.shape
    assert 0.0 < float(masks.min()) < float(masks.max()) < 1.0


def test_several_masks_add_up_to_one() -> None:
    masks = disturbed(MaskUNetConfig(channels=3, masks=3))(torch.rand(2, 3, 8, 8))
    assert masks.shape == (2, 3, 3, 8, 8)
    torch.testing.assert_close(masks.sum(1), torch.ones(2, 3, 8, 8))


def test_a_mask_does_not_depend_on_its_neighbours() -> None:
    network, mixtures = disturbed(MaskUNetConfig()), torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(network(mixtures[:1]), network(mixtures)[:1])


def test_the_body_has_the_layout_that_is_asked_for() -> None:
    network = MaskUNet(MaskUNetConfig(3, 2, (8, 16, 24), (1, 2, 3), 2))
    assert network.body.config == UNetConfig(3, (8, 16, 24), (1, 2, 3), 2)
    assert (network.body.head.in_channels, network.body.head.out_channels) == (8, 6)
    assert not bool(network.body.head.weight.any())
    assert network.body.head.bias is not None
    assert not bool(network.body.head.bias.any())
    assert (network.config.layers, network.config.extra_rows) == (2, 0)
