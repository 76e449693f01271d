"""Counts of partial sums: they are those of the images' means, of distinct images, repeatable; images that the prior draws are as probable as it says."""

from __future__ import annotations

import pytest
import torch

from baselines.networks.token_transformer import TokenTransformer
from baselines.networks.vqvae import VQVAE
from baselines.training import partial_sums
from baselines.training.codec import network_digest, new_vqvae
from baselines.training.partial_sums import count_partial_sums, own_images
from baselines.training.token_models import frozen
from baselines.training.tokens import new_transformer

CODES = 4


class Brightness(VQVAE):
    """One token for an image: its mean brightness in fifths, 0, 1, 2, ... of a scale where single images have 0 or 12."""

    def __init__(self) -> None:
        super().__init__(1, (4, 4), codes=13, width=2)

    def tokens_of(self, images: torch.Tensor) -> torch.Tensor:
        return (12 * images.flatten(1).mean(1)).round().long()[:, None]


@pytest.mark.parametrize("sizes", [(1, 1), (2, 1), (2, 2), (3, 2)])
def test_counts_are_those_of_means(sizes: tuple[int, int]) -> None:
    images = torch.tensor([0.0, 1.0] * 30).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    codec = Brightness()
    made = count_partial_sums(codec, images, sizes, 500, seed=1)
    of_mean, first, second = made.keys // 169, made.keys // 13 % 13, made.keys % 13
    weighted = (sizes[0] * first + sizes[1] * second) / sum(sizes)
    assert float((of_mean - weighted).abs().max()) <= 0.5 + 1e-6
    assert len(first.unique()) == sizes[0] + 1 if sizes[0] != sizes[1] else len(first.unique()) == max(sizes) + 1
    assert int(made.counts.sum()) == (1000 if sizes[0] == sizes[1] else 500)
    assert made.codec == network_digest(codec)
    assert made.digest == count_partial_sums(codec, images, sizes, 500, seed=1).digest
    assert made.digest != count_partial_sums(codec, images, sizes, 500, seed=2).digest


def test_an_image_is_in_a_mixture_once() -> None:
    """One of them is bright: no mean of two has two of it."""
    images = torch.zeros(6, 1, 4, 4)
    images[0] = 1.0
    made = count_partial_sums(Brightness(), images, (1, 1), 300, seed=0)
    assert set((made.keys // 169).tolist()) == {0, 6}


def test_own_images_are_draws_of_the_prior() -> None:
    codec = frozen(new_vqvae((1, 4, 8), CODES, 4, 0, "cpu"))
    prior: TokenTransformer = frozen(new_transformer(CODES, 2, 8, 1, 2, 0, "cpu"))
    with torch.no_grad():
        for weight in prior.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)), alpha=0.5)
    every = torch.cartesian_prod(torch.arange(CODES), torch.arange(CODES))
    pictures = codec.decode(codec.embed(every))
    images = own_images(codec, prior, 4000, 3)
    which = torch.cdist(images.flatten(1), pictures.flatten(1)).argmin(1)
    torch.testing.assert_close(images, pictures[which], atol=1e-5, rtol=0)
    shares = torch.bincount(which, minlength=CODES**2) / 4000
    with torch.no_grad():
        torch.testing.assert_close(shares.double(), prior.log_prob(every).exp(), atol=0.03, rtol=0)
    assert torch.equal(images, own_images(codec, prior, 4000, 3))


def test_counts_that_were_made_once() -> None:
    """Which images are mixed, how often the images are grouped anew and how their means are weighed: sums of keys and counts that were written down."""
    images = (torch.arange(40) % 3 == 0).float().reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    found = []
    for sizes, count in (((1, 1), 100), ((2, 1), 130), ((1, 3), 7)):
        made = count_partial_sums(Brightness(), images, sizes, count, seed=1)
        found.append((len(made.keys), int(made.counts.sum()), int((made.keys * made.counts).sum())))
    assert found == [(4, 200, 153720), (6, 130, 95380), (3, 7, 6229)]


def test_a_part_is_used_for_several_mixtures_before_the_images_are_grouped_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine images make four pairs: two turns of four, then another grouping, of which two mixtures are still wanted."""
    asked: list[int] = []

    class Watched(Brightness):
        def tokens_of(self, images: torch.Tensor) -> torch.Tensor:
            asked.append(len(images))
            return super().tokens_of(images)

    monkeypatch.setattr(partial_sums, "_TURNS", 2)
    made = count_partial_sums(Watched(), torch.zeros(9, 1, 4, 4), (1, 1), 10, seed=0)
    assert int(made.counts.sum()) == 2 * 10
    assert asked == [4, 4, 4, 4, 4, 4, 2]


def test_own_images_are_made_in_parts_and_follow_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = frozen(new_vqvae((1, 4, 8), CODES, 4, 0, "cpu"))
    prior: TokenTransformer = frozen(new_transformer(CODES, 2, 8, 1, 2, 0, "cpu"))
    whole = own_images(codec, prior, 5, 3)
    assert not torch.equal(whole, own_images(codec, prior, 5, 4))
    sizes: list[int] = []
    start = prior.start

    def begin(count: int) -> object:
        sizes.append(count)
        return start(count)

    monkeypatch.setattr(prior, "start", begin)
    monkeypatch.setattr(partial_sums, "_AT_ONCE", 2)
    parts = own_images(codec, prior, 5, 3)
    assert (sizes, parts.shape) == ([2, 2, 1], (5, 1, 4, 8))
    assert not parts.requires_grad
