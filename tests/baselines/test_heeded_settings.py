"""What a setting says is what happens: values at a bound are taken or refused, units and weights are those that are stated."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import baselines.training.latent
from baselines.decomposition.delay_embedding import Windows
from baselines.decomposition.nonnegative import sparse_encode
from baselines.glom import LatentMasking
from baselines.ica_audio import SingleChannelAudioICA
from baselines.networks.demucs import DemucsConfig
from baselines.networks.ncsn_refinenet import MultiScaleFusion
from baselines.networks.unet import ResidualBlock, UNetConfig
from baselines.priors.for_task import prior_support
from baselines.priors.user_prior import split
from baselines.training import loop
from baselines.training.adversarial_mask import AdversarialTraining
from baselines.training.config import TrainConfig
from baselines.training.mask import MaskRecipe, mask_layout, new_network
from baselines.training.score import build_model
from baselines.training.trainer import ScoreTraining
from baselines.training.waveform import WaveformRecipe, WaveformTraining
from sepbench.errors import DataError, SepbenchError
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures, RunContext, TaskSpec
from sepbench.registry import create_separator

TINY = UNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), heads=0, embedding=8)


def image_task(operator: str, **other: Any) -> TaskSpec:
    return TaskSpec("own", "task", "image", 2, (1, 8, 8), operator, ("a", "b"), "permutation", (0, 1), **other)


def test_as_many_workers_as_there_are_images_in_a_batch() -> None:
    assert TrainConfig(steps=1, batch=2, workers=2).workers == 2
    with pytest.raises(ValueError, match="at most batch"):
        TrainConfig(steps=1, batch=2, workers=3)


def test_a_kernel_may_be_as_long_as_the_stride() -> None:
    assert DemucsConfig(kernel=4, stride=4).kernel == 4
    with pytest.raises(ValueError, match="at least the stride"):
        DemucsConfig(kernel=3, stride=4)


@pytest.mark.parametrize("name", ["basis-ncsn", "gaussian"])
def test_equal_noise_levels_are_refused(name: str) -> None:
    with pytest.raises(SepbenchError, match="noise levels fall"):
        create_separator(name, {"highest": 0.5, "lowest": 0.5}, "image")


def test_names_of_weights_may_have_blanks_between_them() -> None:
    assert split("a.safetensors, b.safetensors ,c:d") == ["a.safetensors", "b.safetensors", "c:d"]


def test_a_method_of_one_prior_per_class_wants_one_for_each_source() -> None:
    with pytest.raises(DataError, match="takes 2 priors on task task, its setting weights names 1"):
        prior_support(image_task("sum"), "one.safetensors", method="m", per_class=True, ten_levels_do=True)


def test_gradients_of_the_waveform_networks_are_clipped() -> None:
    truth = torch.randn(3, 2, 1, 8, generator=torch.Generator().manual_seed(0))

    def norm(clip: float) -> float:
        network = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 1), torch.nn.Unflatten(1, (2, 1)))
        recipe = WaveformRecipe(lambda parts, true: 1e3 * (parts - true).square(), False, 2, 3, 8, 1e-3, 0.5, clip, precision="float32")
        WaveformTraining(network, recipe, lambda step: truth).advance()
        return math.sqrt(sum(float(p.grad.square().sum()) for p in network.parameters() if p.grad is not None))

    assert norm(0.01) <= 0.01 * 1.001
    assert norm(1e6) > 1.0


@pytest.mark.parametrize(("behind", "decay_start"), [(30.0, None), (59.9, 20)])
def test_a_deadline_is_in_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: float, decay_start: int | None) -> None:
    def thirty_steps(training: ScoreTraining, folder: Path, **told: object) -> None:
        for _ in range(30):
            training.advance()

    def counted(training: ScoreTraining, mapper: object) -> None:
        training.step += 1

    monkeypatch.setattr(loop, "run", thirty_steps)
    monkeypatch.setattr(ScoreTraining, "train_step", counted)
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(steps=1_000, batch=2, workers=1, bf16=False, decay_fraction=0.1)
    training = ScoreTraining(build_model(TINY, images, 0), images, images, config, tmp_path)
    training.seconds = behind
    training.run(deadline_minutes=1.0)
    assert training.decay_start == decay_start


def test_floats_are_images_as_they_are() -> None:
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = build_model(TINY, images, 0)
    assert model.sigma_data == pytest.approx(float(images.double().std()), rel=1e-6)
    assert model.mean == pytest.approx(float(images.double().mean()), rel=1e-6)


def test_a_fresh_block_of_the_score_network_changes_nothing() -> None:
    h = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ResidualBlock(8, 4, 8)(h, torch.ones(2, 4)), h)


def test_scales_are_fused_with_their_corners_aligned() -> None:
    """On 2 x 2 pixels that grow to 4 x 4 the corners stay, and the pixels between stand at thirds."""
    fusion = MultiScaleFusion([1], 1)
    fusion.norms[0].forward = lambda x, level: x  # type: ignore[assignment]
    torch.nn.init.dirac_(fusion.convs[0].weight)  # type: ignore[arg-type]
    if fusion.convs[0].bias is not None:
        torch.nn.init.zeros_(fusion.convs[0].bias)  # type: ignore[arg-type]
    small = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    large = fusion([small], torch.zeros(1, dtype=torch.int64), torch.Size((4, 4)))
    thirds = torch.linspace(0.0, 1.0, 4)
    assert torch.allclose(large[0, 0], 4.0 * thirds[:, None] + 2.0 * thirds)


@pytest.mark.parametrize(("clean", "mixed"), [(9, 5), (5, 9), (4, 4)])
def test_an_epoch_is_as_long_as_the_smaller_set(clean: int, mixed: int) -> None:
    network = new_network(mask_layout("autoencoder", (1, 8, 8)), 0)
    training = AdversarialTraining(network, MaskRecipe(0.01, batch=2), torch.zeros(clean, 1, 8, 8), torch.zeros(mixed, 1, 8, 8), epochs=3)
    assert training.steps == 3 * (min(clean, mixed) // 2)


class _Stop(Exception):
    pass


def test_glom_learns_the_observed_source_as_loud_as_it_is_in_mixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def record(generators: object, recipe: object, clean: torch.Tensor, mixed: torch.Tensor) -> None:
        seen.append(clean)
        raise _Stop

    class View:
        def observed(self, limit: int | None = None) -> torch.Tensor:
            return torch.ones(4, 1, 8, 8)

        def mixtures(self, limit: int | None = None) -> torch.Tensor:
            return torch.ones(4, 1, 8, 8)

    monkeypatch.setattr(baselines.training.latent, "LatentTraining", record)
    for operator, level in (("mean", 0.5), ("sum", 1.0)):
        spec = image_task(operator, observed_source=0)
        with pytest.raises(_Stop):
            LatentMasking(latent=2).fit(View(), RunContext(spec, "cpu", NoiseSource(0), 0))  # type: ignore[arg-type]
        assert seen[-1].unique().tolist() == [level]


def test_envelopes_of_ica_are_smoothed_over_the_time_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    reaches: list[int] = []
    envelopes: Callable[..., torch.Tensor] = Windows.envelopes

    def record(self: Windows, filters: torch.Tensor, offset: torch.Tensor, reach: int, step: int) -> torch.Tensor:
        reaches.append(reach)
        return envelopes(self, filters, offset, reach, step)

    monkeypatch.setattr(Windows, "envelopes", record)
    spec = TaskSpec("own", "task", "audio", 2, (1, 400), "sum", ("a", "b"), "permutation", (0, 1), sample_rate=1_000)
    values = torch.randn(1, 1, 400, generator=torch.Generator().manual_seed(0))
    mixtures = Mixtures(values, torch.tensor([0]), make_operator("sum", 2))
    SingleChannelAudioICA(lags=4, components=4, smoothing=0.1).separate(mixtures, RunContext(spec, "cpu", NoiseSource(0), 0))
    assert reaches == [50]  # on both sides: a tenth of a second


def test_sparse_codes_are_those_of_accelerated_descent_by_hand() -> None:
    """Beck and Teboulle's FISTA with O'Donoghue and Candes' restart, one row at a time."""
    random = np.random.default_rng(0)
    atoms, signals = random.random((5, 7)), random.random((4, 7))
    gram = atoms @ atoms.T
    step = 1.0 / (1.001 * np.linalg.eigvalsh(gram)[-1])
    expected = []
    for signal in signals:
        code = ahead = np.zeros(5)
        t = 1.0
        for _ in range(6):
            new = np.maximum(ahead + step * (atoms @ signal - 0.1 - gram @ ahead), 0.0)
            t = 1.0 if (ahead - new) @ (new - code) > 0 else t
            grown = (1.0 + math.sqrt(1.0 + 4.0 * t * t)) / 2.0
            ahead, code, t = new + (t - 1.0) / grown * (new - code), new, grown
        expected.append(code)
    found = sparse_encode(torch.from_numpy(signals), torch.from_numpy(atoms), 6, sparsity=0.1)
    assert np.allclose(found.numpy(), np.array(expected), atol=1e-9)
