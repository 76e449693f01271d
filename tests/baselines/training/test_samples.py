from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prior_toys import MixtureNetwork, ZeroNetwork

from baselines.priors.edm import EDMDenoiser
from baselines.priors.score_prior import EDMPrior
from baselines.training.samples import draw_samples, nearest_distances, sample_report, write_sheet
from sepbench.noise import NoiseSource

SHAPE = (1, 4, 4)


def test_gaussian_prior_gives_gaussian_samples() -> None:
    prior = EDMPrior(EDMDenoiser(ZeroNetwork(), 0.3, 0.4), SHAPE, (0.01, 2.0))
    x = draw_samples(prior, 500, NoiseSource(1), start=(0.4, 0.3))
    # 8,000 pixels: the standard errors are 0.0034 and 0.0024.
    assert float(x.mean()) == pytest.approx(0.4, abs=0.012)
    assert float(x.std()) == pytest.approx(0.3, abs=0.009)


def test_mixture_prior_visits_its_centres_in_proportion() -> None:
    random = torch.Generator().manual_seed(0)
    centres = torch.rand(3, *SHAPE, generator=random)[[0, 1, 1, 1]]  # the second has three quarters of the mass
    prior = EDMPrior(EDMDenoiser(MixtureNetwork(centres, 0.02, 0.3, 0.5), 0.3, 0.5), SHAPE, (0.01, 4.0))
    x = draw_samples(prior, 400, NoiseSource(2), sigma_range=(0.01, 4.0), start=(0.5, 0.3))
    distance = (x[:, None] - centres[None, :2]).flatten(2).square().mean(2).sqrt()
    assert float(distance.amin(1).max()) < 0.05
    assert float(distance.argmin(1).double().mean()) == pytest.approx(0.75, abs=0.08)  # three and a half standard errors


def test_a_sample_does_not_depend_on_how_many_are_drawn() -> None:
    prior = EDMPrior(EDMDenoiser(ZeroNetwork(), 0.3, 0.4), SHAPE, (0.01, 2.0))
    torch.testing.assert_close(draw_samples(prior, 7, NoiseSource(3), steps=5)[:3], draw_samples(prior, 3, NoiseSource(3), steps=5))


def test_nearest_distances_are_those_of_a_plain_search() -> None:
    random = torch.Generator().manual_seed(0)
    images, reference = torch.rand(5, *SHAPE, generator=random), torch.randint(0, 256, (90, *SHAPE), generator=random, dtype=torch.uint8)
    plain = (images[:, None] - reference[None] / 255).square().flatten(2).mean(2).sqrt().amin(1)
    torch.testing.assert_close(nearest_distances(images, reference), plain, rtol=1e-4, atol=1e-5)
    # Against itself float32 distances by matrix products leave up to about 1e-3.
    assert float(nearest_distances(reference[:3], reference).max()) < 2e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_sheet_shows_the_pixels(tmp_path: Path, channels: int) -> None:
    image_module = pytest.importorskip("PIL.Image")
    images = torch.zeros(5, channels, 4, 6)
    images[4, 0, 1, 2] = 2.0  # clamped to white (or red)
    write_sheet(images, tmp_path / "deep" / "sheet.png", columns=3, scale=2)
    picture = image_module.open(tmp_path / "deep" / "sheet.png")
    assert picture.size == (3 * 7 * 2, 2 * 5 * 2)
    lit = [(x, y) for x in range(picture.width) for y in range(picture.height) if picture.getpixel((x, y)) not in (0, (0, 0, 0))]
    assert lit == [(x, y) for x in (18, 19) for y in (12, 13)]


def test_the_report_shows_copies_of_training_images() -> None:
    random = torch.Generator().manual_seed(0)
    training, held_out = torch.rand(40, 1, 4, 4, generator=random), torch.rand(40, 1, 4, 4, generator=random)
    copies = sample_report(training[:20] + 0.01, training, held_out)
    fresh = sample_report(torch.rand(20, 1, 4, 4, generator=random), training, held_out)
    assert copies["ratio"] < 0.1
    assert 0.8 < fresh["ratio"] < 1.25
    assert copies["median_distance_to_training"] == pytest.approx(0.01, rel=1e-3)
    assert fresh["median_distance_of_held_out_to_training"] > 0.1
