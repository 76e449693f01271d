"""What is made or read on a device is there, with torch's meta device, which computes nothing, in the place of a GPU; and no first weights come from torch's
global state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import context, toy_task
from setting_worlds import tiny_prior
from sound_toys import sound_task
from torch import nn

from baselines.am import AdversarialMasking
from baselines.demucs import DemucsSeparator
from baselines.nes import EggTraining, NeuralEggSeparation
from baselines.networks.mask_autoencoder import MaskConfig
from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.priors.score_prior import EDMPrior, NCSNPrior
from baselines.priors.token_sums import SumCounts, SumLikelihood
from baselines.priors.user_prior import load as load_user_prior
from baselines.priors.weights_io import load_prior
from baselines.sampling.problem import Problem
from baselines.supervised import SupervisedMask, SupervisedTraining
from baselines.training.adversarial_mask import AdversarialTraining, new_discriminator
from baselines.training.band_spectrogram import BandSpectrogram
from baselines.training.codec import VQVAERecipe, VQVAETraining, network_digest, new_vqvae
from baselines.training.config import batch_indices
from baselines.training.edm_loss import BandMeans
from baselines.training.epochs import epoch_rows
from baselines.training.generative import GANRecipe, GANTraining, LearntGenerator
from baselines.training.generative import new_networks as new_gan
from baselines.training.latent import LatentRecipe, LatentTraining, LearntGenerators, new_generators
from baselines.training.mask import MaskRecipe, mask_layout, mean_error
from baselines.training.mask import new_network as new_mask
from baselines.training.sound_tokens import LearntSoundTokens, SoundModels
from baselines.training.token_models import LearntTokens, TokenModels
from baselines.training.tokens import TokenRecipe, TokenTraining, new_transformer
from baselines.training.waveform import new_network as new_waveform
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures

SHAPE = (1, 8, 8)
LAYOUT = MaskConfig(1, 2, 4)
COUNTS = SumCounts(4, torch.tensor([6, 27]), torch.tensor([1, 2]), "")


def places(things: Iterable[nn.Module | torch.Tensor]) -> set[str]:
    """Kinds of devices of tensors, and of all weights and buffers of networks."""
    tensors = [one for thing in things for one in ([thing] if isinstance(thing, torch.Tensor) else [*thing.parameters(), *thing.buffers()])]
    assert tensors
    return {tensor.device.type for tensor in tensors}


# ---- first weights ---------------------------------------------------------------------------------------------------------------------

NEW: Mapping[str, Callable[[str], list[nn.Module]]] = {
    "codec": lambda device: [new_vqvae(SHAPE, 4, 4, 0, device)],
    "transformer": lambda device: [new_transformer(4, 4, 8, 1, 2, 0, device)],
    "generator and critic": lambda device: list(new_gan(4, SHAPE, 0, device)),
    "generators": lambda device: [new_generators(4, SHAPE, (1.0, 1.0), 0, device)],
    "masks": lambda device: [new_mask(LAYOUT, 0, device)],
    "waveforms": lambda device: [new_waveform(lambda: nn.Linear(2, 2), 0, device)],
    "critic of masks": lambda device: [new_discriminator(new_mask(LAYOUT, 0), (8, 8), 0, device, 4)],
}


@pytest.mark.parametrize("name", NEW)
def test_new_networks_are_on_their_device_and_leave_the_global_state_alone(name: str) -> None:
    before = torch.get_rng_state()
    assert places(NEW[name]("meta")) == {"meta"}
    assert places(NEW[name]("cpu")) == {"cpu"}
    assert torch.equal(torch.get_rng_state(), before)


# ---- kept fits -------------------------------------------------------------------------------------------------------------------------


def of_am() -> Any:
    method: Any = AdversarialMasking()
    method._network = new_mask(mask_layout("autoencoder", SHAPE), 0)
    return method


def of_supervised() -> Any:
    method: Any = SupervisedMask()
    method._network = new_mask(method._layout(toy_task(observed=0)), 0)
    return method


def of_nes() -> Any:
    method: Any = NeuralEggSeparation()
    method._networks, method.eggs = [new_mask(method._layout(toy_task(observed=0)), seed) for seed in (0, 1)], torch.zeros(2, 1, *SHAPE)
    return method


def of_demucs() -> Any:
    method: Any = DemucsSeparator(width=2, depth=1, lstm_layers=0)
    method._network = new_waveform(lambda: method.network(sound_task(400)), 0)
    return method


def of_sd() -> Any:
    method: Any = LearntGenerator(latent=4)
    method._generator = new_gan(4, SHAPE, 0, "cpu")[0]
    return method


def of_glom() -> Any:
    method: Any = LearntGenerators(latent=4)
    method._generators = new_generators(4, SHAPE, (1.0, 1.0), 0, "cpu")
    return method


def of_tokens() -> Any:
    method: Any = LearntTokens(codes=4, width=4, prior_width=8, prior_layers=1)
    codec = new_vqvae(SHAPE, 4, 4, 0, "cpu")
    method._models = TokenModels(codec, method.new_prior(4, 0, "cpu"), named(codec))
    return method


def of_sounds() -> Any:
    method: Any = LearntSoundTokens(codes=4, width=4, bands=8, prior_width=8, prior_layers=1)
    front = BandSpectrogram(8_000, 8)
    codec = new_vqvae(front.shape(400), 4, 4, 0, "cpu")
    first, second = (method.new_prior(codec.grid[0] * codec.grid[1], seed, "cpu") for seed in (0, 1))
    method._sounds = SoundModels(front, codec, (first, second), named(codec))
    return method


def named(codec: nn.Module) -> SumCounts:
    return SumCounts(COUNTS.codes, COUNTS.keys, COUNTS.counts, network_digest(codec))


KEPT: Mapping[str, tuple[Callable[[], Any], Callable[[Any], list[nn.Module]]]] = {
    "am": (of_am, lambda method: [method._network]),
    "supervised": (of_supervised, lambda method: [method._network]),
    "nes": (of_nes, lambda method: method._networks),
    "demucs": (of_demucs, lambda method: [method._network]),
    "s-d": (of_sd, lambda method: [method._generator]),
    "glom": (of_glom, lambda method: [method._generators]),
    "lass": (of_tokens, lambda method: [method._models.codec, method._models.prior]),
    "lass of sound": (of_sounds, lambda method: [method._sounds.codec, *method._sounds.priors]),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_was_kept_is_read_to_the_device_of_the_run(name: str, tmp_path: Path) -> None:
    make, networks_of = KEPT[name]
    make().save(tmp_path)
    task = sound_task(400) if name in ("demucs", "lass of sound") else toy_task(observed=0)
    for device in ("cpu", "meta"):
        method = make()
        method.load(tmp_path, replace(context(task), device=device))
        networks = networks_of(method)
        assert len(networks) == len(networks_of(make()))
        assert places(networks) == {device}
        if name != "demucs":  # which is set to its mode when it separates
            assert not any(network.training for network in networks)


def test_priors_are_read_and_moved_to_a_device(tmp_path: Path) -> None:
    path = tiny_prior(tmp_path, 1)
    for prior in (load_prior(Path(path), device="meta"), load_user_prior(path, toy_task(), "float32", "meta")[0], load_prior(Path(path)).to("meta")):
        assert isinstance(prior, EDMPrior)
        assert places([prior.denoiser]) == {"meta"}
    assert places([NCSNPrior(CondRefineNetDilated(1, 4), SHAPE).to("meta").network]) == {"meta"}


# ---- trainings -------------------------------------------------------------------------------------------------------------------------

PICTURES = torch.zeros(8, *SHAPE)
BETAS = (0.5, 0.9)


def adversarial() -> list[Any]:
    made = AdversarialTraining(new_mask(LAYOUT, 0, "meta"), MaskRecipe(0.1, batch=2), PICTURES, PICTURES, 1)
    return [made.clean, made.mixed, made.discriminator, made.losses._sum, made.rows("B", 0, 0, 8)]


def eggs() -> list[Any]:
    made = EggTraining(new_mask(LAYOUT, 0, "meta"), MaskRecipe(0.1, batch=2), PICTURES, PICTURES, PICTURES, 1, 1, 3)
    assert places(made.kept_eggs) == {"cpu"}, "so that they do not fill the memory of a GPU"
    return [made.clean, made.mixed, made.eggs]


def supervised() -> list[Any]:
    return SupervisedTraining(new_mask(LAYOUT, 0, "meta"), MaskRecipe(0.1, batch=2), mean_error, [PICTURES, PICTURES], 1, 0.5).parts


def gan() -> list[Any]:
    made = GANTraining(*new_gan(4, SHAPE, 0, "meta"), GANRecipe(2, 0.1, BETAS, 4), PICTURES)
    return [made.images, *(losses._sum for losses in made.losses.values())]


def latent() -> list[Any]:
    made = LatentTraining(new_generators(4, SHAPE, (1.0, 1.0), 0, "meta"), LatentRecipe(4, batch=4), PICTURES, PICTURES)
    return [made.clean, made.mixed, *made.codes.values(), made.losses._sum]


def codec() -> list[Any]:
    made = VQVAETraining(new_vqvae(SHAPE, 4, 4, 0, "meta"), VQVAERecipe(2, 4), PICTURES, PICTURES[:2])
    return [made.images, made.held_out, made.used, made.losses._sum]


def tokens() -> list[Any]:
    words = torch.zeros(8, 4, dtype=torch.int64)
    made = TokenTraining(new_transformer(4, 4, 8, 1, 2, 0, "meta"), TokenRecipe(2, 4), words, words[:2])
    return [made.tokens, made.held_out, made.losses._sum]


@pytest.mark.parametrize("made", [adversarial, eggs, supervised, gan, latent, codec, tokens])
def test_a_training_takes_what_it_learns_from_to_its_network(made: Callable[[], list[Any]]) -> None:
    assert places(made()) == {"meta"}


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")
def test_a_training_goes_on_where_its_network_is() -> None:
    """A checkpoint is read to the CPU."""
    here, there = (EggTraining(new_mask(LAYOUT, 0, device), MaskRecipe(0.1, batch=2), PICTURES, PICTURES, PICTURES, 1, 1, 3) for device in ("cpu", "meta"))
    here.losses.add(torch.ones(()))
    there.restore(here.state())
    assert places([there.eggs, there.losses._sum, *there.clean, *there.mixed]) == {"meta"}
    assert there.losses._count == 1


def test_rows_counts_and_pairs_are_where_they_are_wanted() -> None:
    bands, pairs = BandMeans.empty("meta"), SumLikelihood(COUNTS, torch.eye(4), device="meta").pairs(0)
    rows = [epoch_rows(0, "B", 0, 0, 2, 8, "meta"), batch_indices(0, 0, 2, 8, "meta")]
    assert places([*rows, bands.total, bands.count, pairs.first, pairs.second, pairs.logs]) == {"meta"}


def test_a_problem_has_all_of_its_mixtures_on_their_device() -> None:
    """All but the ids that the mixtures are known by: a copy from the host at every step would wait for the queue."""
    operator = make_operator("gain", 2, gains=torch.ones(3, 2))
    mixtures = Mixtures(torch.zeros(3, 4, device="meta"), torch.arange(3), operator)
    prior: Any = object()
    found = Problem(mixtures, [prior], NoiseSource(0), (4,), draws=torch.arange(3))
    assert found.draws is not None
    assert places([found._ids, found.draws, found.operator.matrix()]) == {"meta"}
    assert places([found.mixtures.example_ids]) == {"cpu"}
    rows = found.rows(torch.tensor([2, 0]))
    assert rows.draws is not None
    assert places([rows._ids, rows.draws, rows.operator.matrix(), rows.mixtures.values]) == {"meta"}
