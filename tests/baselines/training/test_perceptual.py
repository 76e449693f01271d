"""The error of images: pixels, what a classifier sees, the scale of what it sees, and which images it takes."""

from __future__ import annotations

import pytest
import torch

from baselines.networks.classifier import ClassifierConfig, SmallClassifier
from baselines.training.perceptual import ImageError, sees


@pytest.fixture(scope="module")
def network() -> SmallClassifier:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return SmallClassifier(ClassifierConfig(widths=(4, 6, 8))).eval().requires_grad_(False)


def images(seed: int) -> torch.Tensor:
    return torch.rand(5, 3, 20, 20, generator=torch.Generator().manual_seed(seed))


def test_without_weight_it_is_the_mean_difference_of_each_image() -> None:
    a, b = images(0), images(1)
    torch.testing.assert_close(ImageError()(a, b), (a - b).abs().mean((1, 2, 3)))


def test_the_classifier_s_part_by_hand(network: SmallClassifier) -> None:
    """The mean over three blocks of the mean difference of their maps, halved images seen as whole ones."""
    a, b = images(0), images(1)
    maps, x, y = [], network.whiten(a), network.whiten(b)
    for block in network.blocks:
        x, y = block(x), block(y)
        maps.append((x - y).abs().mean((1, 2, 3)))
    expected = 0.5 * (a - b).abs().mean((1, 2, 3)) + 0.25 * (maps[0] + maps[1] + maps[2]) / 3
    torch.testing.assert_close(ImageError(0.25, network=network)(0.5 * a, 0.5 * b, 0.5), expected)


def test_it_moves_what_is_made_and_never_the_classifier(network: SmallClassifier) -> None:
    made, true = images(0).requires_grad_(True), images(1).requires_grad_(True)
    ImageError(1.0, network=network)(made, true).sum().backward()
    pixels = torch.autograd.grad(ImageError()(made, true).sum(), made)[0]
    assert made.grad is not None
    assert not torch.allclose(made.grad, pixels)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_classifier_that_ships_is_the_default() -> None:
    a = images(0)
    error = ImageError(1.0)
    assert error.network is not None
    assert bool((error(a, images(1)) > ImageError()(a, images(1))).all())
    assert float(error(a, a).abs().max()) == 0.0


@pytest.mark.parametrize(("shape", "taken"), [((3, 64, 64), True), ((3, 18, 18), True), ((3, 17, 64), False), ((1, 32, 32), False)])
def test_which_images_it_takes(shape: tuple[int, int, int], taken: bool) -> None:
    assert sees(shape) == taken
