"""The weighted loss by hand, its bands and their edges, levels and noise of the validation, and the figures of a card."""

from __future__ import annotations

import math

import pytest
import torch
from prior_toys import ZeroNetwork
from torch import nn

from baselines.priors.edm import EDMDenoiser
from baselines.training.edm_loss import BandMeans, as_float, edm_losses, fixed_noise, loss_per_level, spread_sigmas


class Off(nn.Module):
    """A denoiser that knows the clean image but for a constant."""

    def __init__(self, clean: float, by: float) -> None:
        super().__init__()
        self.clean, self.by = clean, by
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.seen.append((x, sigma))
        return torch.full_like(x, self.clean + self.by)


def test_bytes_are_255ths_and_all_else_is_as_it_is() -> None:
    assert torch.equal(as_float(torch.tensor([0, 51, 255], dtype=torch.uint8)), torch.tensor([0.0, 0.2, 1.0]))
    floats = as_float(torch.tensor([0.5, 300.0], dtype=torch.float64))
    assert (floats.dtype, floats.tolist()) == (torch.float32, [0.5, 300.0])


def test_the_loss_by_hand() -> None:
    """An error of 0.1 in every pixel, times (sigma^2 + d^2) / (sigma d)^2; the network sees the noise at its level."""
    model, clean = Off(0.5, 0.1), torch.full((2, 1, 2, 2), 0.5)
    noise, sigma = torch.arange(8.0).reshape(2, 1, 2, 2), torch.tensor([0.5, 2.0])
    found = edm_losses(model, clean, noise, sigma, 0.25)
    assert found.tolist() == pytest.approx([0.01 * (0.25 + 0.0625) / (0.5 * 0.25) ** 2, 0.01 * (4 + 0.0625) / (2 * 0.25) ** 2], rel=1e-5)
    torch.testing.assert_close(model.seen[0][0], 0.5 + torch.tensor([0.5, 2.0]).reshape(2, 1, 1, 1) * noise)
    assert torch.equal(model.seen[0][1], sigma)


def test_a_level_on_an_edge_is_in_the_band_above_it() -> None:
    bands = BandMeans.empty()
    sigma = torch.tensor([0.01, 0.02, 0.05, 0.049, 0.2, 0.2, 0.5, 7.0])
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1 / 3, 1 / 3])
    bands.add(sigma, losses, 2.0)
    bands.add(sigma[:1], torch.tensor([2.0]))
    assert bands.count.tolist() == [2, 2, 1, 0, 2, 2]
    assert [None if math.isnan(value) else value for value in bands.means()] == [1.5, 3.0, 3.0, None, 5.5, 0.33333]
    assert (bands.norm, bands.steps) == (2.0, 2)


def test_levels_of_the_validation_cover_the_range_evenly_at_every_length() -> None:
    assert spread_sigmas(3, 0.01, 1.0).tolist() == pytest.approx([0.01, 0.01 * 100**0.6180339887, 0.01 * 100**0.2360679775], rel=1e-5)
    for count in (8, 50):
        places = (spread_sigmas(count, 0.01, 1.0) / 0.01).log().div(math.log(100)).sort().values
        assert float(places.diff().max()) < 2.0 / count


def test_the_noise_of_the_validation_is_always_the_same() -> None:
    noise = fixed_noise(torch.Size((3,)))
    assert torch.equal(noise, fixed_noise(torch.Size((3,))))
    assert noise.tolist() == pytest.approx([-0.37126654, -2.1595056, 0.70731437], abs=1e-4)


def test_figures_at_each_level_are_of_all_images_whatever_the_chunk() -> None:
    """The error is a hundredth at every level: 20 dB. Images are bytes."""
    images = torch.full((5, 1, 2, 2), 51, dtype=torch.uint8)
    levels = torch.tensor([0.5, 2.0], dtype=torch.float64)
    model = Off(0.2, 0.1)
    losses, psnrs = loss_per_level(model, images, levels, 0.25, chunk=2)
    assert losses == pytest.approx([0.01 * (0.25 + 0.0625) / (0.5 * 0.25) ** 2, 0.01 * (4 + 0.0625) / (2 * 0.25) ** 2], rel=1e-5)
    assert psnrs == pytest.approx([20.0, 20.0], abs=1e-4)
    assert [len(x) for x, _ in model.seen] == [2, 2, 1] * 2
    noisy = torch.cat([x for x, _ in model.seen[3:]])
    torch.testing.assert_close(noisy, 0.2 + 2.0 * fixed_noise(noisy.shape))


def test_a_network_that_says_nothing_scores_about_one() -> None:
    """Of data with the mean and deviation of the preconditioning, by the definition of the weight."""
    images = 0.4 + 0.3 * torch.randn(400, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    losses, psnrs = loss_per_level(EDMDenoiser(ZeroNetwork(), 0.3, 0.4), images, torch.tensor([0.1, 1.0]), 0.3)
    assert losses == pytest.approx([1.0, 1.0], abs=0.06)
    assert psnrs == pytest.approx([-10 * math.log10(0.09 * s**2 / (0.09 + s**2)) for s in (0.1, 1.0)], abs=0.3)
