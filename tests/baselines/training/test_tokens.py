"""Training of the token prior, and counting of token sums: learning, resuming, figures, pairs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import Digits

from baselines.networks.vqvae import VQVAE
from baselines.training import loop
from baselines.training.codec import network_digest, new_vqvae, tokens_of
from baselines.training.tokens import SumTraining, TokenRecipe, TokenTraining, bits_per_token, new_transformer
from sepbench.errors import SepbenchError


def sequences(count: int = 120) -> torch.Tensor:
    """Counting up from a random token, modulo 6."""
    first = torch.randint(6, (count, 1), generator=torch.Generator().manual_seed(0))
    return (first + torch.arange(5)) % 6


def training(**recipe: Any) -> TokenTraining:
    settings = TokenRecipe(**{"epochs": 2, "batch": 16, "precision": "float32", "lr": 3e-3, **recipe})
    tokens = sequences()
    return TokenTraining(new_transformer(6, 5, 16, 1, 2, settings.seed, "cpu"), settings, tokens[20:], tokens[:20])


def test_it_learns_what_follows_what() -> None:
    """Only the first of five tokens is left to chance: log2(6) / 5 bits per token."""
    one = training(epochs=60, lr=1e-2)
    assert bits_per_token(one.network, one.held_out) == pytest.approx(math.log2(6), abs=0.15)
    loop.run(one, None)
    assert bits_per_token(one.network, one.held_out) == pytest.approx(math.log2(6) / 5, abs=0.1)
    assert set(one.row()) == {"bits"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path, precision: str) -> None:
    whole, first, second = (training(precision=precision) for _ in range(3))
    loop.run(whole, None)
    for _ in range(5):
        first.advance()
    loop.save(first, tmp_path / loop.CHECKPOINT)
    assert loop.resume(second, tmp_path)
    loop.run(second, None)
    assert network_digest(second.network) == network_digest(whole.network)


def test_seed_and_dropout_decide_the_weights() -> None:
    state = torch.get_rng_state()
    digests = []
    for recipe in ({}, {"seed": 1}, {"dropout": 0.0}, {}):
        one = training(**recipe)
        loop.run(one, None)
        digests.append(network_digest(one.network))
    assert torch.equal(torch.get_rng_state(), state)
    assert digests[0] == digests[3]
    assert len(set(digests)) == 3


@pytest.fixture
def codec() -> VQVAE:
    """Of first weights whose codes are the latents of some images."""
    network = new_vqvae((1, 8, 8), 6, 8, 0, "cpu").eval()
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.codebook[:] = network.encode(images)[:, :, 0, 0]
    return network


def counting(codec: VQVAE, images: torch.Tensor, **more: Any) -> SumTraining:
    return SumTraining(codec, images, tokens_of(codec, images), **{"passes": 2, "seed": 3, "batch": 8, **more})


def test_pairs_are_disjoint_and_new_in_every_pass(codec: VQVAE, digits: Digits) -> None:
    images = digits.pooled[:16]
    one = counting(codec, images)
    loop.run(one, None)
    counts = one.counts()
    assert int(counts.counts.sum()) == 2 * 8 * 4 * 2, "two passes of eight pairs, four positions, both orders"
    assert counts.codec == network_digest(codec)
    again = counting(codec, images, passes=1)
    loop.run(again, None)
    assert again.counts().digest != counts.digest
    sources = torch.bincount(counts.keys // 6 % 6, weights=counts.counts.double(), minlength=6)
    assert torch.equal(sources, 2.0 * torch.bincount(tokens_of(codec, images).flatten(), minlength=6))


def test_counts_are_of_the_mean(codec: VQVAE, digits: Digits) -> None:
    """One pair: which one, all of its triples say."""
    images = digits.pooled[:2]
    one = counting(codec, images, passes=1)
    loop.run(one, None)
    first, second = tokens_of(codec, images)
    mixed = tokens_of(codec, images.mean(0, keepdim=True))[0]
    wanted = {(m * 6 + a) * 6 + b for a, b, m in [*zip(first, second, mixed, strict=True), *zip(second, first, mixed, strict=True)]}
    assert set(one.counts().keys.tolist()) == {int(key) for key in wanted}


def test_an_interrupted_count_is_the_whole_one(codec: VQVAE, digits: Digits, tmp_path: Path) -> None:
    images = digits.pooled[:60]
    whole, first, second = (counting(codec, images) for _ in range(3))
    loop.run(whole, None)
    for _ in range(4):
        first.advance()
    loop.save(first, tmp_path / loop.CHECKPOINT)
    assert loop.resume(second, tmp_path)
    loop.run(second, None)
    assert second.counts().digest == whole.counts().digest
    other = new_vqvae((1, 8, 8), 6, 8, 1, "cpu")
    with pytest.raises(SepbenchError, match="does not fit"):
        loop.resume(counting(other, images), tmp_path)


def test_rows_tell_what_is_new(codec: VQVAE, digits: Digits) -> None:
    one = counting(codec, digits.pooled[:60])
    one.advance()
    first = one.row()
    assert first["triples"] == first["new"] > 0
    assert one.row()["new"] == 0
    assert 0 < first["density"] <= 100
