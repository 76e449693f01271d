"""Training of the token prior, and counting of token sums: learning, resuming, figures, pairs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import Digits

from baselines.networks.token_transformer import TokenTransformer
from baselines.networks.vqvae import VQVAE
from baselines.priors.token_sums import SumCounter
from baselines.training import loop, tokens
from baselines.training.codec import network_digest, new_vqvae, tokens_of
from baselines.training.epochs import epoch_rows
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


class Uneven(TokenTransformer):
    """Gives a sequence the log likelihood that its first token says, in nats."""

    def __init__(self) -> None:
        super().__init__(6, 5, 8, 1, 2)
        self.sizes: list[int] = []

    def log_prob(self, tokens: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(tokens))
        return -tokens[:, 0].double()


def test_bits_are_the_mean_over_all_sequences_per_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_LOOKED_AT", 2)
    network = Uneven()
    assert bits_per_token(network, torch.arange(5)[:, None].expand(-1, 5)) == pytest.approx(2.0 / (5 * math.log(2)))
    assert network.sizes == [2, 2, 1]


def test_a_row_has_bits_where_there_is_something_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_LOOKED_AT", 3)
    one = training()
    assert torch.equal(one.held_out, sequences()[:3])
    one.advance()
    row = one.row()
    assert row["bits"] == round(bits_per_token(one.network, sequences()[:3]), 4)
    assert list(row) == ["loss", "bits"]
    none = TokenTraining(one.network, one.recipe, sequences(), torch.zeros(0, 5, dtype=torch.int64))
    none.advance()
    assert list(none.row()) == ["loss"]


def test_the_rate_falls_over_the_last_steps_and_the_loss_is_in_nats() -> None:
    one = training(epochs=1, decay=0.5, lr=0.25, dropout=0.0)
    rates = []
    while not one.finished:
        one.advance()
        rates.append(one.optimiser.param_groups[0]["lr"])
        if len(rates) == 1:
            assert one.row()["loss"] == pytest.approx(math.log(6), abs=0.2)
    assert rates == pytest.approx([0.25, 0.25, 0.25, 0.25, 0.25 * 2 / 3, 0.25 / 3])


@pytest.mark.parametrize(("count", "batch", "pairs", "batches"), [(60, 8, 8, 3), (16, 8, 8, 1), (15, 8, 7, 1), (2, 512, 1, 1), (33, 8, 8, 2)])
def test_batches_are_of_pairs_and_at_most_half_of_the_images(count: int, batch: int, pairs: int, batches: int, codec: VQVAE, digits: Digits) -> None:
    one = counting(codec, digits.pooled[:count], batch=batch, passes=3)
    assert (one.batch, one.batches, one.steps) == (pairs, batches, 3 * batches)


def test_one_image_makes_no_pair(codec: VQVAE, digits: Digits) -> None:
    with pytest.raises(SepbenchError, match="a batch of 2 cannot be filled from 1"):
        counting(codec, digits.pooled[:1])


@pytest.mark.parametrize(("symmetric", "every_triple"), [(True, True), (False, True), (True, False), (False, False)])
def test_counts_are_of_the_kind_that_is_asked_for(symmetric: bool, every_triple: bool, codec: VQVAE, digits: Digits) -> None:
    """And the density of the log is theirs, while triples are told in one order."""
    images = digits.pooled[:60]
    one = counting(codec, images, symmetric=symmetric, every_triple=every_triple)
    counter = SumCounter(6, every_triple=every_triple)
    found = tokens_of(codec, images)
    for step in range(one.steps):
        first, second = epoch_rows(3, "token-pairs", step // 3, step % 3, 16, 60).chunk(2)
        counter.add(found[first], found[second], tokens_of(codec, 0.5 * (images[first] + images[second])))
        one.advance()
    wanted = counter.counts(symmetric=symmetric)
    assert torch.equal(one.counts().keys, wanted.keys)
    assert torch.equal(one.counts().counts, wanted.counts)
    triples = len(counter.counts(symmetric=False).keys)
    assert one.row() == {"triples": triples, "new": triples, "density": round(100 * wanted.density, 4)}
