"""The VQ-VAE of LASS: its size, its quantiser and where gradients go."""

from __future__ import annotations

import pytest
import torch

from baselines.networks.vqvae import VQVAE


@pytest.fixture
def small() -> VQVAE:
    network = VQVAE(1, (8, 12), codes=7, width=5)
    network.draw_weights(torch.Generator().manual_seed(1))
    return network


def _images(count: int, seed: int = 2) -> torch.Tensor:
    return torch.rand(count, 1, 8, 12, generator=torch.Generator().manual_seed(seed))


def test_size_is_the_papers() -> None:
    """Section 7.1 of docs/protocols.md: 1.22 M parameters, 7 x 7 tokens on MNIST."""
    network = VQVAE()
    assert sum(p.numel() for p in network.parameters()) == 1_220_481
    assert network.grid == (7, 7)
    assert network.eval().tokens_of(torch.zeros(2, 1, 28, 28)).shape == (2, 49)


def test_first_weights_depend_on_the_generator_alone(small: VQVAE) -> None:
    other = VQVAE(1, (8, 12), codes=7, width=5)
    other.draw_weights(torch.Generator().manual_seed(1))
    for mine, yours in zip(small.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, yours)
    assert float(small.codebook.detach().abs().max()) <= 1 / 7
    other.draw_weights(torch.Generator().manual_seed(3))
    assert not torch.equal(small.codebook, other.codebook)


def test_a_latent_goes_to_its_nearest_code(small: VQVAE) -> None:
    latents = torch.randn(3, 5, 2, 3, generator=torch.Generator().manual_seed(4))
    distances = (latents[:, None] - small.codebook.detach()[None, :, :, None, None]).square().sum(2)
    assert torch.equal(small.quantise(latents), distances.argmin(1))


def test_codes_are_their_own_tokens(small: VQVAE) -> None:
    tokens = torch.randint(7, (4, 2, 3), generator=torch.Generator().manual_seed(5))
    assert torch.equal(small.quantise(small.embed(tokens)), tokens)
    assert torch.equal(small.embed(tokens), small.embed(tokens.flatten(1)))


def test_gradients_go_straight_through_the_quantiser(small: VQVAE) -> None:
    """The reconstruction's gradient reaches the encoder as if nothing were quantised, and leaves the codebook alone."""
    coded = small(_images(2))
    assert not torch.equal(coded.latents, coded.codes)
    of_latents, of_book = torch.autograd.grad(coded.images.sum(), [coded.latents, small.codebook], allow_unused=True)
    assert of_book is None
    point = coded.codes.detach().requires_grad_(True)
    (direct,) = torch.autograd.grad(small.decode(point).sum(), point)
    torch.testing.assert_close(of_latents, direct)


def test_tokens_do_not_depend_on_the_batch(small: VQVAE) -> None:
    small(_images(16))  # batch norm learns
    small.eval()
    images = _images(6)
    together = small.tokens_of(images)
    assert together.shape == (6, 6)
    assert torch.equal(together, torch.cat([small.tokens_of(image[None]) for image in images]))


def test_tokens_are_refused_in_training_mode(small: VQVAE) -> None:
    with pytest.raises(ValueError, match="eval"):
        small.train().tokens_of(_images(2))


@pytest.mark.parametrize("size", [(28, 30), (3, 4), (0, 8)])
def test_sizes_that_no_tokens_cover(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        VQVAE(1, size)


def test_first_weights_are_glorots_and_biases_zero() -> None:
    network = VQVAE(1, (8, 8), codes=40, width=24)
    network.draw_weights(torch.Generator().manual_seed(0))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            taps = module.kernel_size[0] * module.kernel_size[1]
            bound = (6 / (taps * (module.in_channels + module.out_channels))) ** 0.5
            assert float(module.weight.detach().abs().max()) == pytest.approx(bound, rel=0.03)
            assert module.bias is not None
            assert not bool(module.bias.any())
    assert float(network.codebook.detach().abs().max()) == pytest.approx(1 / 40, rel=0.02)
    assert float(network.codebook.detach().min()) < 0


def test_under_autocast_latents_tokens_and_images_stay_float32(small: VQVAE) -> None:
    small.eval()
    images = _images(3)
    with torch.autocast("cpu", torch.bfloat16):
        coded = small(images)
        nearest = small.quantise(coded.latents)
        assert coded.images.dtype == coded.latents.dtype == torch.float32
    distances = (coded.latents[:, None] - small.codebook.detach()[None, :, :, None, None]).square().sum(2)
    assert torch.equal(nearest, distances.argmin(1))
    assert torch.equal(coded.tokens, nearest)


def test_words_for_sizes_and_modes(small: VQVAE) -> None:
    with pytest.raises(ValueError, match=r"^height and width must be multiples of 4, got 8 x 6$"):
        VQVAE(1, (8, 6))
    assert VQVAE(1, (4, 4), 3, 2).grid == (1, 1)
    with pytest.raises(ValueError, match=r"^tokens are taken in evaluation mode; call eval\(\) first$"):
        small.train().tokens_of(_images(1))
    assert small.eval().tokens_of(_images(2)).dtype == torch.int64
