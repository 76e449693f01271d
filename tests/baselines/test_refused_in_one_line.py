"""What methods, priors and trainers refuse, and in which words: the one line that a user gets, with the number or name that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from method_toys import ToyView, context, mix, toy_task
from safetensors.torch import load_file, save_file
from setting_worlds import images, tiny_prior, vectors
from torch import nn
from train_until_done import LAYOUT, tiny_images, tiny_trainer

import baselines.priors.shipped
from baselines.alpha_rgs import alpha_rgs
from baselines.basis import Basis
from baselines.exact_posterior import ExactPosteriorSampler as Exact
from baselines.extractors.classifier_io import load_classifier, save_classifier
from baselines.extractors.shipped import CIFARNET, MNISTNET, ClassifierFeatures
from baselines.gaussian import Gaussian
from baselines.lass_projected import LassProjected
from baselines.networks.classifier import ClassifierConfig, SmallClassifier
from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.networks.unet import ScoreUNet
from baselines.priors.edm import EDMDenoiser
from baselines.priors.for_task import prior_label, priors_for
from baselines.priors.score_prior import EDMPrior, NCSNPrior
from baselines.priors.shipped import find_weights, shipped_weights
from baselines.priors.shipped_tokens import read_card
from baselines.priors.token_sums import load_counts
from baselines.priors.user_prior import load_reference
from baselines.priors.weights_io import load_ncsn_checkpoint, save_prior
from baselines.projected_auto import ProjectedAuto
from baselines.sampling.problem import Problem
from baselines.sampling.separator import ScoreSeparator
from baselines.training import ncsn as ncsn_trainer
from baselines.training.classifier import ClassifierRecipe, ClassifierTraining
from baselines.training.config import TrainConfig
from baselines.training.ncsn import NCSNConfig, NCSNTraining
from baselines.training.score import build_model, load_start, network_of, recipe_for
from baselines.training.token_models import LearntTokens
from baselines.training.token_trainers import _material, _same_request
from baselines.training.trainer import ScoreTraining
from sepbench.data.datasets import open_dataset
from sepbench.errors import DataError, MethodError, SepbenchError, UnsupportedTaskError
from sepbench.files import file_sha256
from sepbench.noise import NoiseSource
from sepbench.registry import create_separator


class NoScore:
    """A prior that lacks what a prior must have."""


NOTHING = NoScore()


def no_prior_view(task: Any) -> ToyView:
    view = ToyView(task, "bound")
    view.prior = lambda slot: SimpleNamespace()  # type: ignore[method-assign, assignment, return-value]
    return view


def ncsn_file(folder: Path) -> Path:
    return save_prior(folder / "ten.safetensors", NCSNPrior(CondRefineNetDilated(1, 4), (1, 8, 8)))


# ---- samplers --------------------------------------------------------------------------------------------------------------------------


def test_alpha_rgs_is_for_two_sources() -> None:
    mixtures = mix(torch.rand(2, 3, 3))
    with pytest.raises(ValueError, match="separates two sources, the task has 3"):
        alpha_rgs(Problem(mixtures, [vectors().view("prior").prior(0)], NoiseSource(0), (3,)))


@pytest.mark.parametrize("method", [Basis, Gaussian])
def test_step_sizes_are_not_judged_where_gains_decide_them(method: type[Basis | Gaussian]) -> None:
    support = method().supports_operator(toy_task(operator="gain"))
    assert support.ok
    assert "not checked for operators with gains" in support.note


def test_a_sampler_says_how_to_draw_and_is_fitted_first() -> None:
    task = toy_task()
    for call in (Gaussian().score_prior, lambda slot: Gaussian().separate(mix(torch.rand(1, 2, 1, 8, 8)), context(task))):
        with pytest.raises(MethodError, match=r"^gaussian: .* was called before fit\(\)$"):
            call(0)
    plain: Any = ScoreSeparator()
    assert plain.supports_operator(task).ok
    assert plain.needs_any_level()
    with pytest.raises(MethodError, match="ScoreSeparator does not say how to draw"):
        plain.draw(None, None)


def test_the_exact_posterior_knows_mixtures_of_gaussians_alone() -> None:
    method = Exact()
    with pytest.raises(UnsupportedTaskError, match="knows Gaussian mixtures only"):
        method.fit(no_prior_view(vectors().task), vectors().context())
    with pytest.raises(MethodError, match="before fit"):
        method.separate(vectors().mixtures(), vectors().context())


def test_projected_auto_calibrates_on_two_images_at_least(tmp_path: Path) -> None:
    world = images()
    method = ProjectedAuto(weights=tiny_prior(tmp_path, 1))
    with pytest.raises(MethodError, match="needs two at least, got 1"):
        method.fit(ToyView(world.task, "prior", pooled=torch.rand(1, 1, 8, 8)), world.context())


def test_lass_projected_takes_no_known_prior_and_names_its_own_setting(tmp_path: Path) -> None:
    method, task = LassProjected(), replace(toy_task(), analytic_prior=True)
    assert "the true prior is known" in method.supports(task).note
    note = method.supports(toy_task()).note
    assert "lass-projected.score_weights=FILE" in note
    with pytest.raises(MethodError, match=r"no score prior ships for task toys/task; give one with --set lass-projected\.score_weights=FILE"):
        method._load_score(context(toy_task()))
    path = tiny_prior(tmp_path, 3)
    own = LassProjected(score_weights=path)
    assert own.supports(toy_task()).ok
    prior, digest = own._load_score(context(toy_task()))
    assert isinstance(prior, EDMPrior)
    assert digest == file_sha256(Path(path))


@pytest.mark.parametrize("levels", [(0.1, 0.1, 1.0), (0.1, 1.0, 1.0), (0.2, 0.1, 1.0)])
def test_levels_of_lass_projected_fall(levels: tuple[float, float, float]) -> None:
    lowest, middle, highest = levels
    with pytest.raises(SepbenchError, match="give lowest below middle below highest"):
        create_separator("lass-projected", {"lowest": lowest, "middle": middle, "highest": highest}, "image")


# ---- priors ----------------------------------------------------------------------------------------------------------------------------


def test_no_prior_ships_for_a_task_of_nobody() -> None:
    assert find_weights(toy_task(), 0) is None
    with pytest.raises(UnsupportedTaskError, match="no prior ships for task toys/task"):
        priors_for(toy_task(), ToyView(toy_task(), "prior"), "", per_class=False, precision="float32", device="cpu")


def test_a_manifest_of_weights_that_is_not_there_or_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines.priors.shipped, "resource_root", lambda name: tmp_path)
    assert shipped_weights() == []
    for text in ("[[weights]]\nname = 'a'\n", "= 3"):
        (tmp_path / "weights.toml").write_text(text)
        with pytest.raises(DataError, match=r"weights\.toml is damaged"):
            shipped_weights()
    (tmp_path / "weights.toml").write_text("[[weights]]\nname = 'a'\ndataset = 'd'\nshape = [1, 8, 8]\nsha256 = 'x'\n")
    (entry,) = shipped_weights()
    assert (entry.name, entry.dataset, entry.classes, entry.shape, entry.sha256) == ("a", "d", "", (1, 8, 8), "x")
    task = replace(toy_task(), datasets=("d", "e"))
    assert find_weights(task, 0) == entry
    assert find_weights(task, 1) is None
    assert find_weights(task, 0, per_class=True) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"dataset": "d", "shape": [1, 8, 8], "files": {"codec.safetensors": "x"}}'])
def test_cards_of_token_models(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(DataError, match=r"cannot be read as a card of token models \((JSONDecodeError|TypeError|KeyError)\)"):
        read_card(tmp_path)


def test_counts_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "sums.safetensors"
    save_file({"keys": torch.zeros(1)}, path, metadata={"format": "0"})
    with pytest.raises(DataError, match="holds no counts of token sums as this version"):
        load_counts(path)


def test_a_prior_has_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with pytest.raises(DataError, match=r"NoScore has no score\(x, sigma\)"):
        load_reference(f"{Path(__file__).stem}:NoScore", (1, 8, 8))


def test_what_can_be_written_and_read_as_weights(tmp_path: Path) -> None:
    stranger = EDMPrior(EDMDenoiser(nn.Conv2d(1, 1, 1), 0.3, 0.2), (1, 8, 8), (0.01, 1.0))
    with pytest.raises(TypeError, match="only a ScoreUNet can be written, got Conv2d"):
        save_prior(tmp_path / "a.safetensors", stranger)
    with pytest.raises(TypeError, match="has a Conv2d and no ScoreUNet"):
        network_of(stranger)
    with pytest.raises(DataError, match="no checkpoint at"):
        load_ncsn_checkpoint(tmp_path / "none.pth", (8, 8))
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not readable as a torch checkpoint"):
        load_ncsn_checkpoint(tmp_path / "bad.pth", (8, 8))
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(DataError, match="holds no state dict"):
        load_ncsn_checkpoint(tmp_path / "tensor.pth", (8, 8))
    network = CondRefineNetDilated(1, 4)
    torch.save([network.state_dict(), 5], tmp_path / "list.pth")
    read = load_ncsn_checkpoint(tmp_path / "list.pth", (8, 12))
    assert (read.shape, read.name) == ((1, 8, 12), "list")


@pytest.mark.parametrize(("features", "size"), [(4, "k"), (64, "M")])
def test_labels_of_priors_tell_sizes(features: int, size: str) -> None:
    prior = NCSNPrior(CondRefineNetDilated(1, features), (1, 8, 8))
    count = sum(weight.numel() for weight in prior.network.parameters())
    shown = f"{count / 1e6:.1f} M" if size == "M" else f"{count / 1e3:.0f} k"
    assert prior_label([prior, prior], "0123456789,abcdefabcdef") == f"NCSN RefineNet, {shown}, 01234567 + abcdefab"
    assert prior_label([vectors().view("prior").prior(0)] * 2, "") == "exact"


# ---- extractors ------------------------------------------------------------------------------------------------------------------------


def classifier(folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = SmallClassifier(ClassifierConfig(1, (4, 5, 6), 3))
    return save_classifier(folder / "own.safetensors", network, (1, 20, 20), {"accuracy": {}})


@pytest.mark.parametrize("change", [{"format": 2}, {"kind": "edm-unet"}, {"accuracy": None}], ids=str)
def test_cards_of_classifiers(tmp_path: Path, change: dict[str, Any]) -> None:
    path = classifier(tmp_path)
    card = json.loads(path.with_suffix(".json").read_text()) | change
    path.with_suffix(".json").write_text(json.dumps({key: value for key, value in card.items() if value is not None}))
    with pytest.raises(DataError, match="no card of a classifier that this version reads"):
        load_classifier(path)


@pytest.mark.parametrize("fault", ["missing", "extra"])
def test_a_classifier_that_does_not_fit_its_card(tmp_path: Path, fault: str) -> None:
    path = classifier(tmp_path)
    tensors = load_file(path)
    tensors = {name: value for name, value in tensors.items() if name != "head.bias"} if fault == "missing" else {**tensors, "more": torch.zeros(1)}
    save_file(tensors, path)
    card = json.loads(path.with_suffix(".json").read_text()) | {"weights_sha256": file_sha256(path)}
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="does not fit the layout on its card"):
        load_classifier(path)


def test_an_extractor_is_its_file_and_its_code(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    own = ClassifierFeatures(CIFARNET.info, path)
    assert own.digest() == f"{file_sha256(path)} small-classifier, float32, 1"
    assert own.digest() == own.digest()
    values = torch.randint(0, 256, (3, 1, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = load_classifier(path)
    features, logits = own.extract(values, "cpu")
    torch.testing.assert_close(features, network.features(values.float() / 255.0))
    torch.testing.assert_close(logits, network(values.float() / 255.0))
    assert [(e.info.name, e.info.features, e.info.classes, e.info.shape, e.path.name) for e in (CIFARNET, MNISTNET)] == [
        ("cifarnet", 256, 10, (3, 32, 32), "cifarnet.safetensors"),
        ("mnistnet", 128, 10, (1, 28, 28), "mnistnet.safetensors"),
    ]


# ---- trainers --------------------------------------------------------------------------------------------------------------------------


def test_a_classifier_whose_loss_is_not_finite(tmp_path: Path) -> None:
    training = ClassifierTraining(torch.rand(8, 1, 18, 18), torch.arange(8) % 2, ClassifierRecipe((4, 4, 4), 1, 4), tmp_path)
    with torch.no_grad():
        training.network.head.weight.fill_(torch.nan)
    with pytest.raises(SepbenchError, match="diverged at step 0: the loss is not finite"):
        training.advance()


def test_a_score_network_whose_loss_is_not_finite(tmp_path: Path) -> None:
    training = NCSNTraining(tiny_images()[:20], tiny_images()[50:], NCSNConfig(steps=3, batch=4, features=4), tmp_path)
    with torch.no_grad():
        training.network.end_conv.bias.fill_(torch.nan)  # type: ignore[union-attr]
    with pytest.raises(SepbenchError, match="diverged at step 1: the loss is not finite"):
        training.advance()


def test_checkpoints_of_another_layout(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=1, workers=1).run()
    pictures = tiny_images()
    other = build_model(replace(LAYOUT, widths=(16, 16, 16)), pictures[:50], 0)
    with pytest.raises(SepbenchError, match="holds a network of another layout"):
        ScoreTraining(other, pictures[:50], pictures[50:], TrainConfig(steps=1, batch=8, warmup=4, workers=1), tmp_path)


@pytest.mark.parametrize("shape", [(1, 8, 6), (1, 6, 8), (1, 64)])
def test_images_that_the_score_network_cannot_take(shape: tuple[int, ...]) -> None:
    with pytest.raises(SepbenchError, match="height and width are multiples of 4"):
        recipe_for("own", shape)


@pytest.mark.parametrize(
    ("shape", "like"), [((1, 16, 16), "digits"), ((3, 16, 16), "digits"), ((1, 20, 16), "mnist"), ((3, 20, 20), "cifar10"), ((2, 8, 20), "cifar10")]
)
def test_recipes_of_unknown_data_are_those_of_the_most_alike(shape: tuple[int, int, int], like: str) -> None:
    known = recipe_for(like, (1, 8, 8))
    found = recipe_for("own", shape)
    assert (found.config, found.held_out) == (known.config, known.held_out)
    assert found.layout == replace(known.layout, channels=shape[0])


def test_weights_to_start_from_are_a_u_net_of_as_many_channels(tmp_path: Path) -> None:
    with pytest.raises(SepbenchError, match="holds no edm-unet"):
        load_start(ncsn_file(tmp_path), (1, 8, 8))
    path = Path(tiny_prior(tmp_path, 1))
    assert isinstance(load_start(path, (1, 12, 12)).denoiser.network, ScoreUNet)
    with pytest.raises(SepbenchError, match="of images with 1 channels, these have 3"):
        load_start(path, (3, 8, 8))


def test_requests_of_token_trainers_that_cannot_be_read(tmp_path: Path) -> None:
    digits = open_dataset("digits", "train")
    with pytest.raises(SepbenchError, match="leave out --minutes"):
        _material(digits, (), 1.0)
    odd: Any = SimpleNamespace(name="odd", shape=(1, 6, 8))
    with pytest.raises(SepbenchError, match="sides are multiples of 4"):
        _material(odd, (), None)
    _same_request(tmp_path, {"seed": 1})
    _same_request(tmp_path, {"seed": 1})
    (tmp_path / "request.json").write_text("{")
    with pytest.raises(SepbenchError, match=r"request\.json cannot be read \(JSONDecodeError\)"):
        _same_request(tmp_path, {"seed": 1})


def test_token_models_tell_their_label_when_there_is_one() -> None:
    assert LearntTokens(codes=9).prior_label == ""


def test_a_mirrored_training_shows_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """About half of a batch's images are exchanged: bars of a batch of 40 stand both left and right."""
    seen: list[torch.Tensor] = []
    losses: Callable[..., torch.Tensor] = ncsn_trainer.ncsn_losses

    def record(network: nn.Module, clean: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(clean)
        return losses(network, clean, *rest)

    monkeypatch.setattr(ncsn_trainer, "ncsn_losses", record)
    left = torch.zeros(40, 1, 8, 8)
    left[..., :2] = 1.0
    for mirror in (False, True):
        seen.clear()
        NCSNTraining(left, left[:2], NCSNConfig(steps=2, batch=40, features=4, mirror=mirror), tmp_path / str(mirror)).advance()
        exchanged = int((torch.cat(seen)[..., -1].mean((1, 2)) > 0.5).sum())
        assert 10 < exchanged < 30 if mirror else exchanged == 0
