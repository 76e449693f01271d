"""Training of mask networks: the step by hand, losses, padding, order of batches, resuming, divergence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from baselines.networks.mask_autoencoder import MaskConfig
from baselines.networks.mask_unet import MaskUNetConfig
from baselines.training.epochs import epoch_rows
from baselines.training.loop import run
from baselines.training.mask import (
    MaskRecipe,
    MaskTraining,
    Network,
    load_network,
    mask_layout,
    masked_parts,
    masks_for,
    masks_of,
    mean_error,
    new_network,
    observed_error,
    permutation_invariant_error,
    save_network,
    separated_parts,
)
from sepbench.errors import SepbenchError


class OneNumber(nn.Module):
    """The same mask sigmoid(a) for every pixel."""

    def value(self) -> float:
        return float(self.a.detach())

    def __init__(self, masks: int = 1) -> None:
        super().__init__()
        self.config = MaskConfig(layers=2, masks=masks)
        self.a = nn.Parameter(torch.zeros(()))

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.a) * torch.ones_like(mixtures)


def one_number(**recipe: Any) -> MaskTraining:
    return MaskTraining(OneNumber(), MaskRecipe(**{"lr": 0.1, "precision": "float32", **recipe}), observed_error)  # type: ignore[arg-type]


def constants(*pairs: tuple[float, float]) -> torch.Tensor:
    """Parts ``(B, 2, 1, 4, 4)`` of constant images."""
    return torch.tensor(pairs)[:, :, None, None, None].expand(-1, -1, 1, 4, 4).contiguous()


def test_two_steps_by_hand() -> None:
    """d/da |m y - b| = sign(m y - b) y m (1 - m) with m = sigmoid(a); Adam (Kingma and Ba 2015, algorithm 1) with betas (0.5, 0.999)."""
    training = one_number()
    a, first, second, losses = 0.0, 0.0, 0.0, []
    for step, (b, x) in enumerate([(0.25, 0.75), (1.5, 0.5)], start=1):
        training.update(constants((b, x)))
        y, m = b + x, 1 / (1 + math.exp(-a))
        losses.append(abs(m * y - b))
        slope = math.copysign(1.0, m * y - b) * y * m * (1 - m)
        first, second = 0.5 * first + 0.5 * slope, 0.999 * second + 0.001 * slope**2
        a -= 0.1 * (first / (1 - 0.5**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
        assert training.network.value() == pytest.approx(a, rel=1e-5)  # type: ignore[operator]
    assert losses[0] == 0.25
    assert training.row()["loss"] == pytest.approx(sum(losses) / 2, abs=1e-6)
    assert training.row() == {}


def test_a_share_of_the_rate_and_a_fresh_adam() -> None:
    """Adam's first step is as long as the rate; another fresh Adam makes it again."""
    training = one_number()
    training.update(constants((0.25, 0.75)), share=0.5)
    assert training.network.value() == pytest.approx(-0.05, rel=1e-4)  # type: ignore[operator]
    training.restart_optimiser()
    training.update(constants((0.25, 0.75)))
    assert training.network.value() == pytest.approx(-0.15, rel=1e-4)  # type: ignore[operator]


def test_losses() -> None:
    parts, truth = constants((1.0, 3.0), (2.0, 0.0)), constants((1.5, 2.0), (0.0, 3.0))
    assert float(observed_error(parts, truth)) == pytest.approx((0.5 + 2.0) / 2)
    assert float(mean_error(parts, truth)) == pytest.approx((0.5 + 1.0 + 2.0 + 3.0) / 4)
    # the first mixture is best as it stands, (0.5 + 1) / 2, the second exchanged, (1 + 0) / 2
    assert float(permutation_invariant_error(parts, truth)) == pytest.approx((0.75 + 0.5) / 2)
    assert float(observed_error(parts, truth, 2)) == pytest.approx((0.25 + 4.0) / 2)
    assert float(mean_error(parts, truth, 2)) == pytest.approx((0.25 + 1.0 + 4.0 + 9.0) / 4)
    assert float(permutation_invariant_error(parts, truth, 2)) == pytest.approx((0.625 + 0.5) / 2)
    three = torch.rand(5, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert float(permutation_invariant_error(three[:, [2, 0, 1]], three)) == 0.0


@pytest.mark.parametrize("kind", ["autoencoder", "unet"])
@pytest.mark.parametrize(("masks", "size"), [(1, (28, 28)), (3, (28, 28)), (1, (8, 9)), (1, (5, 7)), (1, (33, 32))])
def test_parts_of_any_size_add_up_to_the_mixture(kind: Network, masks: int, size: tuple[int, int]) -> None:
    network = new_network(mask_layout(kind, (1, *size), masks), seed=0)
    mixtures = torch.rand(3, 1, *size, generator=torch.Generator().manual_seed(1))
    parts = separated_parts(network, mixtures)
    assert parts.shape == (3, max(masks, 2), 1, *size)
    torch.testing.assert_close(parts.sum(1), mixtures)
    assert float(parts.min()) >= 0.0


def test_28_by_28_is_32_by_32_with_a_black_border() -> None:
    network = new_network(mask_layout("autoencoder", (1, 28, 28)), seed=0)
    assert network.config.layers == 3
    mixtures = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    bordered = nn.functional.pad(mixtures, (2, 2, 2, 2))
    torch.testing.assert_close(separated_parts(network, mixtures), separated_parts(network, bordered)[..., 2:30, 2:30])


@pytest.mark.parametrize(("side", "layers"), [(8, 2), (16, 2), (28, 3), (32, 3), (64, 4), (256, 4)])
def test_layers_follow_the_size(side: int, layers: int) -> None:
    assert mask_layout("autoencoder", (1, side, side)).layers == layers


def test_parts_are_float32_and_rounding_is_small_under_autocast() -> None:
    network = new_network(mask_layout("autoencoder", (1, 8, 8)), seed=0).eval()
    mixtures = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = masked_parts(network, mixtures)
    exact = separated_parts(network, mixtures)
    assert rounded.dtype == torch.float32
    assert 0.0 < float((rounded - exact).abs().max()) < 0.02


def test_weights_depend_on_the_seed_and_on_no_global_state() -> None:
    before = torch.get_rng_state()
    one, two, other = (new_network(mask_layout("autoencoder", (1, 8, 8)), seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["last.weight"], other["last.weight"])


@pytest.mark.parametrize("running", [True, False])
def test_a_network_is_read_as_it_was_written(tmp_path: Path, running: bool) -> None:
    config = mask_layout("autoencoder", (1, 8, 8), running_statistics=running)
    network = new_network(config, seed=0)
    network.train()(torch.rand(4, 1, 8, 8))  # batch norm has seen something
    save_network(network, tmp_path / "x.safetensors")
    read = load_network(config, tmp_path / "x.safetensors", "cpu")
    mixtures = torch.rand(2, 1, 8, 8)
    assert torch.equal(separated_parts(read, mixtures), separated_parts(network, mixtures))


class Constants(MaskTraining):
    """Ten steps on one mixture."""

    finished = property(lambda self: self.step >= 10)
    fraction = property(lambda self: self.step / 10)

    def __init__(self, *args: Any, interfere: Callable[[int], None] = lambda step: None) -> None:
        super().__init__(*args)
        self.interfere = interfere

    def advance(self) -> None:
        self.update(constants((0.25, 0.75)))
        self.step += 1
        self.interfere(self.step)


def test_divergence_is_told_in_one_line() -> None:
    network = OneNumber()

    def break_it(step: int) -> None:
        with torch.no_grad():
            network.a.fill_(math.nan)

    training = Constants(network, MaskRecipe(0.1, precision="float32"), observed_error, interfere=break_it)
    with pytest.raises(SepbenchError, match="lower lr"):
        run(training, None)


class Places(nn.Module):
    """A network whose mask is where a pixel lies: rows in the first channel, columns in the second."""

    def __init__(self, layers: int, extra_rows: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(layers=layers, extra_rows=extra_rows, masks=1)
        self.seen = torch.zeros(0)

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        self.seen = mixtures
        rows, columns = (torch.arange(float(side)) for side in mixtures.shape[-2:])
        return torch.stack([rows[:, None].expand(mixtures.shape[-2:]), columns.expand(mixtures.shape[-2:])])[None]


@pytest.mark.parametrize(
    ("layers", "extra", "size", "padded", "corner"),
    [
        (2, 0, (4, 8), (4, 8), (0, 0)),
        (2, 0, (5, 7), (8, 8), (1, 0)),
        (2, 0, (6, 5), (8, 8), (1, 1)),
        (2, 1, (5, 4), (5, 4), (0, 0)),
        (2, 1, (6, 4), (8, 4), (1, 0)),
        (2, 1, (1, 4), (4, 4), (1, 0)),
        (3, 0, (28, 28), (32, 32), (2, 2)),
        (3, 1, (9, 9), (9, 16), (0, 3)),
    ],
)
def test_images_are_padded_evenly_and_masks_cut_back(layers: int, extra: int, size: tuple[int, int], padded: tuple[int, int], corner: tuple[int, int]) -> None:
    """One row above a multiple stays as it is in a network that can take it: the spectra have an odd number of rows."""
    network = Places(layers, extra)
    masks = masks_of(network, torch.ones(1, 1, *size))  # type: ignore[arg-type]
    assert masks.shape[-2:] == size
    assert tuple(masks[0, :, 0, 0].tolist()) == corner
    assert tuple(network.seen.shape[-2:]) == padded
    assert float(network.seen.sum()) == size[0] * size[1]
    top, left = corner
    assert bool(network.seen[..., top : top + size[0], left : left + size[1]].eq(1).all())


@pytest.mark.parametrize(("masks", "shape"), [(1, (2, 1, 1, 4, 4)), (3, (2, 3, 1, 4, 4))])
def test_masks_of_a_trained_network_have_an_axis_of_masks_and_no_graph(masks: int, shape: tuple[int, ...]) -> None:
    network = new_network(mask_layout("autoencoder", (1, 4, 4), masks), 0).train()
    found = masks_for(network)(torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert found.shape == shape
    assert not found.requires_grad
    assert not network.training


@pytest.mark.parametrize(("shape", "layers"), [((1, 8, 64), 4), ((1, 64, 8), 4), ((1, 1, 1), 2), ((1, 17, 17), 3), ((3, 32, 33), 4), ((1, 1000, 4), 4)])
def test_the_longer_side_decides_how_deep_a_network_is(shape: tuple[int, ...], layers: int) -> None:
    assert mask_layout("autoencoder", shape, 2, False) == MaskConfig(shape[0], layers, masks=2, running_statistics=False)
    assert mask_layout("autoencoder", shape) == MaskConfig(shape[0], layers, masks=1, running_statistics=True)
    assert mask_layout("unet", shape, 3, False) == MaskUNetConfig(shape[0], 3)


def test_spectra_are_compared_by_their_magnitudes() -> None:
    """Parts 3 and 4i mix to magnitude 5; half of it is 2.5, half a unit from 3, and the other half 1.5 from 4."""
    truth = torch.tensor([3.0 + 0.0j, 4.0j])[None, :, None, None, None].expand(2, 2, 1, 4, 4)
    for loss, wanted in ((observed_error, 0.5), (mean_error, 1.0)):
        training = MaskTraining(OneNumber(), MaskRecipe(0.1, precision="float32"), loss)  # type: ignore[arg-type]
        training.update(truth)
        assert training.row() == {"loss": wanted}
    parts = masked_parts(OneNumber(), truth.sum(1))  # type: ignore[arg-type]
    torch.testing.assert_close(parts[:, 1], 0.5 * truth.sum(1))


def test_a_network_that_is_read_is_ready_for_use(tmp_path: Path) -> None:
    network = new_network(mask_layout("unet", (1, 8, 8)), seed=3)
    save_network(network, tmp_path / "x.safetensors")
    read = load_network(mask_layout("unet", (1, 8, 8)), tmp_path / "x.safetensors", "cpu")
    assert not read.training
    assert all(torch.equal(a, b) for a, b in zip(read.state_dict().values(), network.state_dict().values(), strict=True))


def test_estimates_of_a_training_are_in_use_mode_without_a_graph_and_a_step_is_in_training_mode() -> None:
    training = one_number(betas=(0.25, 0.75), seed=8, batch=3)
    assert training.optimiser.param_groups[0]["betas"] == (0.25, 0.75)
    estimate = training.estimate(torch.ones(2, 1, 4, 4))
    assert (estimate.shape, estimate.requires_grad, training.network.training) == ((2, 2, 1, 4, 4), False, False)
    training.update(constants((0.25, 0.75)))
    assert training.network.training
    assert torch.equal(training.rows("B", 2, 1, 9), epoch_rows(8, "B", 2, 1, 3, 9))
    training.restart_optimiser()
    assert training.optimiser.param_groups[0]["betas"] == (0.25, 0.75)


@pytest.mark.parametrize(
    ("shape", "kind", "rounds"),
    [
        ((1, 64, 8), "autoencoder", False),
        ((3, 40, 16), "autoencoder", False),
        ((1, 8, 64), "autoencoder", True),
        ((1, 28, 28), "autoencoder", True),
        ((1, 257, 64), "autoencoder", True),
        ((1, 64, 3), "unet", False),
        ((1, 64, 8), "unet", True),
    ],
)
@pytest.mark.usefixtures("bfloat16")
def test_tall_images_are_learnt_in_float32(shape: tuple[int, int, int], kind: Network, rounds: bool) -> None:
    one = MaskTraining(new_network(mask_layout(kind, shape), seed=0), MaskRecipe(1e-3, batch=2))
    seen: list[bool] = []
    one.network.register_forward_pre_hook(lambda *given: seen.append(torch.is_autocast_enabled("cpu")))
    one.update(torch.rand(2, 2, *shape, generator=torch.Generator().manual_seed(0)))
    assert seen == [rounds]


@pytest.mark.usefixtures("bfloat16")
def test_no_memory_that_nobody_wrote_is_learnt_from() -> None:
    """torch left a map of 4 x 1 as it found it, in bfloat16 on some CPUs: with numbers that are none in freed memory, the loss was none."""
    shape, found = (1, 64, 8), []
    truth = torch.rand(4, 2, *shape, generator=torch.Generator().manual_seed(1))
    for value in (math.nan, 1e3, 0.0):
        one = MaskTraining(new_network(mask_layout("autoencoder", shape), seed=0), MaskRecipe(1e-3, batch=4))
        freed = [torch.full((1 << size,), value) for size in range(8, 20)]
        del freed
        one.update(truth)
        found.append(one.row()["loss"])
    assert found == [found[0]] * 3
