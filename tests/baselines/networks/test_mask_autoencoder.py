"""The mask network of NES: parameter counts of the released layouts, sizes, masks, and what batch norm looks at."""

from __future__ import annotations

import pytest
import torch

from baselines.networks.mask_autoencoder import MaskAutoencoder, MaskConfig


def network(**layout: int | bool) -> MaskAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return MaskAutoencoder(MaskConfig(**layout))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("channels", "layers", "parameters"),
    [
        (3, 4, 5_513_859),  # bags and shoes at 64x64, as the released code has it
        (1, 4, 5_509_761),  # spectrograms of 257x64, likewise
        (1, 3, 1_313_921),  # MNIST at 32x32: 2 (1 + 128 + 512) 64 16 weights, 1,152 of batch norm, one bias
    ],
)
def test_parameters_are_those_of_the_paper(channels: int, layers: int, parameters: int) -> None:
    assert sum(p.numel() for p in network(channels=channels, layers=layers).parameters()) == parameters


@pytest.mark.parametrize(("channels", "layers", "size"), [(1, 3, (32, 32)), (3, 4, (64, 64)), (1, 4, (257, 64)), (1, 2, (4, 8))])
def test_a_mask_has_the_mixtures_shape_and_lies_between_0_and_1(channels: int, layers: int, size: tuple[int, int]) -> None:
    mixtures = torch.rand(2, channels, *size)
    masks = network(channels=channels, layers=layers, filters=4)(mixtures).detach()
    assert masks.shape == mixtures.shape
    assert 0.0 < float(masks.min()) < float(masks.max()) < 1.0


def test_the_257th_row_is_the_reflection_of_the_255th() -> None:
    masks = network(layers=4, filters=4)(torch.rand(2, 1, 257, 64))
    assert torch.equal(masks[..., 256, :], masks[..., 254, :])
    assert not torch.equal(masks[..., 256, :], masks[..., 255, :])


def test_several_masks_add_up_to_one() -> None:
    masks = network(channels=3, layers=2, filters=4, masks=3)(torch.rand(2, 3, 8, 8))
    assert masks.shape == (2, 3, 3, 8, 8)
    torch.testing.assert_close(masks.sum(1), torch.ones(2, 3, 8, 8))


@pytest.mark.parametrize("size", [(28, 28), (32, 33), (34, 32), (4, 4)])
def test_sizes_that_do_not_come_back_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="3 layers take"):
        network(filters=4)(torch.rand(1, 1, *size))


@pytest.mark.parametrize("running", [True, False])
def test_only_without_running_statistics_a_mask_depends_on_its_neighbours(running: bool) -> None:
    one = network(filters=4, running_statistics=running).eval()
    mixtures = torch.rand(4, 1, 32, 32)
    alone, among = one(mixtures[:1]), one(mixtures)[:1]
    assert torch.allclose(alone, among, atol=1e-5) is running


@pytest.mark.parametrize("wrong", [{"layers": 1}, {"channels": 0}, {"masks": 0}])
def test_bad_layouts_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        MaskConfig(**wrong)


@pytest.mark.parametrize(("name", "least"), [("channels", 1), ("filters", 1), ("masks", 1), ("layers", 2)])
def test_numbers_of_a_layout_at_their_bounds(name: str, least: int) -> None:
    assert getattr(MaskConfig(**{name: least}), name) == least
    with pytest.raises(ValueError, match="must be") as refused:
        MaskConfig(**{name: least - 1})
    assert str(refused.value).startswith("channels, filters and masks must be positive and layers at least 2, got MaskConfig(channels=")


@pytest.mark.parametrize(
    ("size", "taken"), [((8, 8), True), ((9, 8), True), ((10, 8), False), ((8, 9), False), ((7, 8), False), ((17, 16), True), ((8, 4), False)]
)
def test_heights_and_widths_that_three_layers_take(size: tuple[int, int], taken: bool) -> None:
    mixtures = torch.rand(1, 1, *size)
    if taken:
        assert network(filters=2).eval()(mixtures).shape == mixtures.shape
        return
    with pytest.raises(ValueError, match="take") as refused:
        network(filters=2)(mixtures)
    assert str(refused.value) == f"3 layers take heights of 8 n or 8 n + 1 and widths of 8 n, got {size[0]} x {size[1]}"


def test_norms_and_slopes_stand_where_the_paper_has_them() -> None:
    one = network(layers=2, filters=4)
    assert [[type(part).__name__ for part in layer] for layer in one.encoder] == [["HalvingConv2d", "LeakyReLU"], ["HalvingConv2d", "BatchNorm2d", "LeakyReLU"]]
    assert [[type(part).__name__ for part in layer] for layer in one.decoder] == [["DoublingConv2d", "BatchNorm2d", "ReLU"]]
    assert [name for name, _ in one.named_parameters() if name.endswith("bias")] == ["encoder.1.1.bias", "decoder.0.1.bias", "last.bias"]
    for running in (True, False):
        norms = [m for m in network(layers=3, filters=4, running_statistics=running).modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert [norm.track_running_stats for norm in norms] == [running] * 4
