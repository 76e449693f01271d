"""Training of the VQ-VAE: it learns, all codes come to be used, it resumes bit for bit, and its figures are right."""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import Digits

from baselines.networks.vqvae import VQVAE
from baselines.training import codec, loop
from baselines.training.codec import VQVAERecipe, VQVAETraining, falling, figures, network_digest, new_vqvae, tokens_of
from sepbench.errors import SepbenchError


def training(images: torch.Tensor, codes: int = 12, width: int = 8, **recipe: Any) -> VQVAETraining:
    settings = VQVAERecipe(**{"epochs": 2, "batch": 16, "precision": "float32", "lr": 3e-3, "restart_every": 5, **recipe})
    return VQVAETraining(new_vqvae((1, 8, 8), codes, width, settings.seed, "cpu"), settings, images[40:], images[:40])


def test_reconstructions_get_better_and_codes_are_used(digits: Digits) -> None:
    one = training(digits.pooled[:400], epochs=8)
    before = figures(one.network, one.held_out)
    loop.run(one, None)
    after = figures(one.network, one.held_out)
    grey = (digits.pooled[:40] - digits.pooled[40:400].mean(0)).square().flatten(1).mean(1)
    assert after["psnr"] > float(-10 * grey.log10().mean()) + 1.0
    assert after["psnr"] > before["psnr"]
    assert after["codes"] > 6
    assert 1 < after["perplexity"] <= after["codes"]


def test_codes_that_nothing_is_put_at_are_restarted(digits: Digits) -> None:
    """All codes but one lie far away: without restarts they stay there."""
    books = {}
    for every in (0, 2):
        one = training(digits.pooled, restart_every=every)
        with torch.no_grad():
            one.network.codebook[1:] += 100.0
        for _ in range(4):
            one.advance()
        books[every] = one.network.codebook.detach().clone()
        assert (one.restarted > 0) == bool(every)
    assert float(books[0][1:].min()) > 50
    assert float(books[2].abs().max()) < 50
    assert len(books[2].unique(dim=0)) == 12


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_training_ends_with_the_same_bits(digits: Digits, tmp_path: Path, precision: str) -> None:
    images = digits.pooled[:140]
    whole, first, second = (training(images, precision=precision) for _ in range(3))
    loop.run(whole, tmp_path / "whole", log_every=3)
    for _ in range(7):
        first.advance()
    loop.save(first, tmp_path / loop.CHECKPOINT)
    assert loop.resume(second, tmp_path)
    loop.run(second, None)
    assert network_digest(second.network) == network_digest(whole.network)
    assert second.restarted == whole.restarted


def test_first_weights_follow_from_the_seed() -> None:
    state = torch.get_rng_state()
    digests = [network_digest(new_vqvae((1, 8, 8), 5, 6, seed, "cpu")) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert digests[0] == digests[1] != digests[2]


def test_figures_of_a_codec_that_knows_one_image() -> None:
    network = new_vqvae((1, 8, 8), 5, 6, 0, "cpu").eval()
    image = network.decode(network.embed(torch.full((1, 4), 3))).detach()
    with torch.no_grad():
        network.codebook[:] = 1e3
        network.codebook[3] = network.encode(image).mean((0, 2, 3))
        image = network.decode(network.embed(torch.full((1, 4), 3)))
    told = figures(network, image)
    assert told["codes"] == 1
    assert told["perplexity"] == 1.0
    assert figures(network, image[:0]) == {}


def test_tokens_are_those_of_evaluation_mode(digits: Digits) -> None:
    network = new_vqvae((1, 8, 8), 12, 6, 0, "cpu").train()
    tokens = tokens_of(network, digits.pooled[:20])
    assert not network.training
    assert torch.equal(tokens[3:4], tokens_of(network, digits.pooled[3:4]))


def test_the_rate_falls_at_the_end() -> None:
    assert [falling(step, 10, 0.2) for step in (0, 8, 9)] == [1.0, 1.0, 0.5]
    assert falling(9, 10, 0.0) == 1.0


def test_a_row_has_the_figures_of_held_out_images(digits: Digits) -> None:
    one = training(digits.pooled)
    one.advance()
    assert set(one.row()) == {"loss", "restarted", "psnr", "codes", "perplexity"}
    bad = training(torch.full((60, 1, 8, 8), torch.nan))
    bad.advance()
    with pytest.raises(SepbenchError, match="lower lr"):
        bad.row()


def test_means_of_two_are_coded_better_by_a_codec_that_learnt_from_them() -> None:
    """Black and white images, whose means are grey."""
    images = (torch.arange(240) % 2).float()[:, None, None, None].expand(-1, 1, 8, 8)[torch.randperm(240, generator=torch.Generator().manual_seed(0))]
    grey = torch.full((4, 1, 8, 8), 0.5)
    found = {}
    for share in (0.0, 0.5):
        one = training(images, epochs=10, means=share)
        loop.run(one, None)
        found[share] = figures(one.network, grey)["psnr"]
    assert found[0.5] > found[0.0] + 3.0


def test_a_share_of_a_batch_is_means_and_the_rest_as_it_was(digits: Digits) -> None:
    one = training(digits.pooled[:200], means=0.25)
    batch = digits.pooled[:8]
    made = one._with_means(batch)
    assert torch.equal(made[2:], batch[2:])
    assert torch.equal(made[:2], 0.5 * (batch[:2] + batch[1:3]))


def test_the_digest_is_the_whole_sha256_of_names_shapes_and_numbers() -> None:
    network = torch.nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, -2.0]]))
        network.bias.fill_(0.5)
    told = b"weight <f4 (1, 2)\n" + struct.pack("<2f", 1.0, -2.0) + b"bias <f4 (1,)\n" + struct.pack("<f", 0.5)
    assert network_digest(network) == hashlib.sha256(told).hexdigest()


class Levels(VQVAE):
    """Token k is a quarter of the brightness of a 4 x 4 patch, k / 4, and code k decodes to it."""

    def __init__(self) -> None:
        super().__init__(1, (8, 4), codes=5, width=2)
        self.sizes: list[int] = []

    def tokens_of(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        return (4 * images.unflatten(2, (2, 4)).mean((1, 3, 4))).floor().long()

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, None, :, None] / 4

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_figures_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of 0.1, of 0.01 and of none, which counts as 100 dB; tokens 0, 1, 1, 1, 2, 2 of five."""
    monkeypatch.setattr(codec, "_AT_ONCE", 2)
    patches = torch.tensor([[0.1, 0.35], [0.26, 0.26], [0.5, 0.5]])
    images = patches[:, None, :, None].repeat_interleave(4, 2).expand(-1, 1, 8, 4)
    network = Levels()
    entropy = -sum(share * math.log(share) for share in (1 / 6, 3 / 6, 2 / 6))
    assert figures(network, images) == {"psnr": pytest.approx((20 + 40 + 100) / 3, abs=6e-4), "codes": 3, "perplexity": round(math.exp(entropy), 2)}
    assert network.sizes == [2, 1]


def test_as_many_codes_restart_as_there_are_latents(digits: Digits) -> None:
    """Four latents for the first four of six dead codes: the others stay, and momenta of those that moved begin anew."""
    one = training(digits.pooled, codes=9)
    one.advance()
    moments = one.optimiser.state[one.network.codebook]
    for name in ("exp_avg", "exp_avg_sq"):
        moments[name].fill_(1.0)
    one.used.copy_(torch.tensor([0, 3, 0, 1, 0, 0, 7, 0, 0]))
    before = one.network.codebook.detach().clone()
    latents = torch.arange(32.0).reshape(1, 8, 2, 2)
    one._restart(latents)
    after = one.network.codebook.detach()
    assert torch.equal(after[[1, 3, 6, 7, 8]], before[[1, 3, 6, 7, 8]])
    assert {tuple(code.tolist()) for code in after[[0, 2, 4, 5]]} == {tuple(latent.tolist()) for latent in latents[0].flatten(1).T}
    for name in ("exp_avg", "exp_avg_sq"):
        assert moments[name][:, 0].tolist() == [0, 1, 0, 1, 0, 0, 1, 1, 1]
    assert (one.restarted, one.used.tolist()) == (4, [0] * 9)
    one._restart(latents)
    assert one.restarted == 8


def test_restarts_come_when_it_is_time_and_look_at_all_steps_since(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[int, int]] = []
    monkeypatch.setattr(VQVAETraining, "_restart", lambda self, latents: used.append((self.step, int(self.used.sum()))))
    one = training(digits.pooled[:140], restart_every=2)
    for _ in range(5):
        one.advance()
    assert used == [(2, 2 * 16 * 4), (4, 4 * 16 * 4)], "counts of every step, four tokens an image"


def test_the_log_looks_at_the_first_held_out_images(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_LOOKED_AT", 3)
    one = training(digits.pooled)
    assert torch.equal(one.held_out, digits.pooled[:3])
    row = one.row()
    assert {name: row[name] for name in ("psnr", "codes", "perplexity")} == figures(one.network, digits.pooled[:3])


def test_the_share_of_means_is_rounded_and_none_leaves_the_batch_alone(digits: Digits) -> None:
    batch = digits.pooled[:8]
    for share, count in ((0.0, 0), (0.05, 0), (0.3, 2), (0.32, 3)):
        made = training(digits.pooled[:200], means=share)._with_means(batch)
        assert int((made != batch).flatten(1).any(1).sum()) == count


def test_rates_fall_over_the_last_steps(digits: Digits) -> None:
    """Two epochs of four batches, over whose second half the rate falls by a quarter at each step."""
    one, rates = training(digits.pooled[:104], decay=0.5, lr=0.5), list[float]()
    while not one.finished:
        one.advance()
        rates.append(one.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5] * 5 + [0.375, 0.25, 0.125])


@pytest.mark.parametrize(("share", "count"), [(0.99, 8), (0.93, 7), (0.94, 8)])
def test_a_batch_may_be_means_alone(digits: Digits, share: float, count: int) -> None:
    """The last image has the first after it."""
    batch = digits.pooled[:8]
    made = training(digits.pooled[:200], means=share)._with_means(batch)
    assert torch.equal(made, torch.cat([0.5 * (batch + batch[[1, 2, 3, 4, 5, 6, 7, 0]])[:count], batch[count:]]))


@pytest.mark.parametrize(("shape", "rounds"), [((1, 16, 4), False), ((1, 4, 16), True), ((1, 4, 4), True), ((1, 16, 8), True)])
@pytest.mark.usefixtures("bfloat16")
def test_images_of_width_4_are_coded_in_float32(shape: tuple[int, int, int], rounds: bool) -> None:
    one = VQVAETraining(new_vqvae(shape, 4, 4, 0, "cpu"), VQVAERecipe(1, batch=2), torch.rand(2, *shape), torch.rand(1, *shape))
    seen: list[bool] = []
    one.network.register_forward_pre_hook(lambda *given: seen.append(torch.is_autocast_enabled("cpu")))
    one.advance()
    assert seen == [rounds]
