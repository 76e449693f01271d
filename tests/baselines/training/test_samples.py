from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prior_toys import MixtureNetwork, ZeroNetwork

from baselines.priors.edm import EDMDenoiser
from baselines.priors.score_prior import EDMPrior
from baselines.training import samples
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


@pytest.mark.parametrize("steps", [2, 4])
def test_the_sampler_by_hand(steps: int) -> None:
    """Heun's method on ``(x - D(x)) / sigma`` for the denoiser of a Gaussian, at Karras' levels with rho 7, and an Euler step to zero at the end."""
    mean, deviation, asked = 0.4, 0.3, list[float]()
    prior = EDMPrior(EDMDenoiser(ZeroNetwork(), deviation, mean), SHAPE, (0.01, 2.0))

    class Watched:
        shape = SHAPE

        def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            asked.append(sigma)
            return prior.denoise(x, sigma)

    place = [k / (steps - 1) for k in range(steps)]
    levels = [(1.5 ** (1 / 7) + p * (0.05 ** (1 / 7) - 1.5 ** (1 / 7))) ** 7 for p in place]
    pull = [1 - deviation**2 / (level**2 + deviation**2) for level in levels]  # x - D(x) is so much of x - mean
    factor = 1.0
    for k in range(steps - 1):
        width = levels[k + 1] - levels[k]
        slope = pull[k] / levels[k]
        factor *= 1 + 0.5 * width * (slope + (1 + width * slope) * pull[k + 1] / levels[k + 1])
    factor *= 1 - pull[-1]
    start = (levels[0] ** 2 + 0.5**2) ** 0.5 * NoiseSource(3).normal(torch.arange(6), 0, 0, SHAPE, "cpu") + 0.7
    found = draw_samples(Watched(), 6, NoiseSource(3), steps, (0.05, 1.5), (0.7, 0.5))  # type: ignore[arg-type]
    torch.testing.assert_close(found, mean + factor * (start - mean), rtol=1e-4, atol=1e-5)
    assert len(asked) == 2 * steps - 1
    assert asked[0] == pytest.approx(1.5)
    assert asked[-1] == pytest.approx(0.05)


def grey(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 4, 4)


def test_the_report_by_hand() -> None:
    """Grey images, whose distances are differences of grey. Five held-out images: five training images are compared, and half of the held-out are two."""
    samples, training, held_out = grey(0.1, 0.2, 0.7), grey(0.0, 0.1, 0.3, 0.4, 0.5, 0.71), grey(0.16, 0.9, 0.21, 0.8, 0.6)
    assert sample_report(samples, training, held_out) == {
        "samples": 3,
        "images_of_each_kind": 5,
        "median_distance_to_training": pytest.approx(0.1, abs=2e-5),  # of 0, 0.1, 0.2
        "median_distance_to_held_out": pytest.approx(0.06, abs=2e-5),  # of 0.06, 0.01, 0.1
        "ratio": pytest.approx(1.6667, abs=5e-4),
        "median_distance_of_held_out_to_training": pytest.approx(0.06, abs=2e-5),  # of 0.06, 0.4; the lower one
        "median_distance_of_samples_to_all_training": pytest.approx(0.01, abs=2e-5),  # of 0, 0.1, 0.01
        "median_distance_of_held_out_to_all_training": pytest.approx(0.06, abs=2e-5),  # of 0.06, 0.19
    }
    one = sample_report(samples, training[:1], held_out[1:])
    assert (one["images_of_each_kind"], one["median_distance_of_held_out_to_training"]) == (1, pytest.approx(0.9, abs=2e-5))


def test_a_sheet_is_filled_row_by_row_and_dark_is_black(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    images = torch.full((3, 1, 1, 1), -0.5)
    images[1], images[2] = 0.5, 1.0
    write_sheet(images, tmp_path / "sheet.png", columns=2, scale=1)
    picture = image_module.open(tmp_path / "sheet.png")
    assert picture.size == (4, 4)
    assert [picture.getpixel((x, y)) for y in (0, 2) for x in (0, 2)] == [0, 128, 255, 0]
    write_sheet(images, tmp_path / "wide.png")
    assert image_module.open(tmp_path / "wide.png").size == (2 * 2 * 16, 2 * 2)


def test_distances_are_of_all_images_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_NEIGHBOUR_CHUNK", 2)
    found = nearest_distances(grey(0.0, 0.3, 0.55, 0.9, 1.0), grey(0.1, 0.6))
    assert found.tolist() == pytest.approx([0.1, 0.2, 0.05, 0.3, 0.4], abs=1e-4)
