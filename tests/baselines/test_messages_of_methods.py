"""Whole messages of methods and of the rooms that they share, each with the call that gets it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from method_toys import context, mix, toy_task
from safetensors.torch import save_file
from sound_toys import mixed, sound_task, sounds

from baselines.alpha_rgs import alpha_rgs
from baselines.basis import Basis
from baselines.decomposition.mask_signals import SpectrogramParts
from baselines.decomposition.masks import mixture_spectra
from baselines.decomposition.median import sliding_median
from baselines.decomposition.spectrogram_nmf import training_frames
from baselines.diffusion_gibbs import diffusion_gibbs
from baselines.exact_posterior import ExactPosteriorSampler
from baselines.networks.classifier import ClassifierConfig
from baselines.networks.ncsn_refinenet import from_checkpoint
from baselines.priors.score_prior import _finite
from baselines.priors.token_sums import SumCounts, SumLikelihood, merged
from baselines.priors.user_prior import UserPrior, load_reference
from baselines.priors.weights_io import _read_tensors, read_card
from baselines.sampling.problem import Problem
from baselines.sampling.separator import _log_probs
from baselines.training.config import TrainConfig
from baselines.training.loop import CHECKPOINT, resume
from sepbench.errors import SepbenchError
from sepbench.noise import NoiseSource

NOTHING = torch.zeros(0, dtype=torch.int64)


class Scores:
    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, self.value)

    def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return x


def problem(sources: int, operator: str = "sum") -> Problem:
    return Problem(mix(torch.zeros(2, sources, 1, 4, 4), operator), [Scores()], NoiseSource(0), (1, 4, 4))


def exact_without_mixtures_of_gaussians() -> None:
    view: Any = SimpleNamespace(prior=lambda slot: Scores())
    ExactPosteriorSampler().fit(view, context(toy_task()))


MESSAGES: list[tuple[Callable[[], Any], str]] = [
    (lambda: alpha_rgs(problem(3)), "alpha-rgs separates two sources, the task has 3"),
    (
        lambda: diffusion_gibbs(problem(2, "gain"), [1.0]),
        "diffusion-gibbs needs one weight per source for the whole batch: its noise levels are per call of the prior",
    ),
    (exact_without_mixtures_of_gaussians, "exact-posterior knows Gaussian mixtures only; the task's analytic prior is something else"),
    (lambda: SpectrogramParts(sound_task(rate=None)), "task 'sounds' has no sample rate, hence no spectrogram"),
    (
        lambda: mixture_spectra(mixed(sounds(1, 400)), context(sound_task(rate=None))),
        "task 'sounds' of domain 'audio' has no sample rate, hence no spectrogram",
    ),
    (lambda: sliding_median(torch.zeros(4), 2, 0), "a median filter must have an odd width, got 2"),
    (lambda: training_frames(torch.full((1, 1, 400), torch.nan), 8_000, 9, "cpu"), "NMF needs training signals whose samples are all finite"),
    (lambda: training_frames(torch.zeros(1, 1, 400), 8_000, 9, "cpu"), "NMF needs training signals with some sound in them: all of these are silent"),
    (
        lambda: ClassifierConfig(classes=1),
        "channels and widths must be positive and classes at least 2, got ClassifierConfig(channels=3, widths=(64, 256, 256), classes=1)",
    ),
    (
        lambda: ClassifierConfig(widths=(0, 4, 4)),
        "channels and widths must be positive and classes at least 2, got ClassifierConfig(channels=3, widths=(0, 4, 4), classes=10)",
    ),
    (
        lambda: from_checkpoint({"module.begin_conv.weight": torch.zeros(3)}),
        "this is no NCSN checkpoint: it holds no begin_conv.weight; pass the state dict of a CondRefineNetDilated",
    ),
    (
        lambda: _finite(torch.tensor([0.0, torch.inf]), "the output of mine"),
        "the output of mine is not finite: the weights are damaged or the sampler diverged; check the weights file and the step size",
    ),
    (lambda: merged([]), "counts can be merged where one codec made the tokens of all; count again with one codec"),
    (
        lambda: merged([SumCounts(4, NOTHING, NOTHING, "a"), SumCounts(4, NOTHING, NOTHING, "b")]),
        "counts can be merged where one codec made the tokens of all; count again with one codec",
    ),
    (lambda: SumLikelihood(SumCounts(4, NOTHING, NOTHING), torch.eye(4)), "no sums of tokens were counted; count pairs of training images first"),
    (
        lambda: _log_probs(torch.zeros(2, 2, 1, 4, 4), problem(2), 3, 3),
        "criterion log-prior needs a prior with log_prob(x), Scores has none; use denoising-loss",
    ),
    (lambda: Basis().score_prior(0), "basis-ncsn: score_prior() was called before fit()"),
    (lambda: TrainConfig(steps=1, sigma_range=(0.2, 0.2)), "a range of noise levels must be positive and increasing, got (0.2, 0.2)"),
    (lambda: TrainConfig(steps=1, focus_range=(0.0, 1.0)), "a range of noise levels must be positive and increasing, got (0.0, 1.0)"),
    (
        lambda: UserPrior("m:A", Scores(torch.nan)).score(torch.zeros(2, 1, 4, 4), 0.1),
        "prior m:A: score(x, sigma) is not finite; look at it at the noise levels that the sampler asks for",
    ),
    (
        lambda: load_reference("no_such_package.inside:A", (1, 4, 4)),
        "prior no_such_package.inside:A: no module 'no_such_package'; install its package or name its folder in PYTHONPATH",
    ),
]


@pytest.mark.parametrize(("call", "message"), MESSAGES, ids=[f"{number} {message[:40]}" for number, (_, message) in enumerate(MESSAGES)])
def test_the_whole_message(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, SepbenchError)) as refused:
        call()
    assert str(refused.value) == message


def test_a_reference_to_what_has_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_priors")
    module.Thing = type("Thing", (), {})  # type: ignore[attr-defined]
    module.broken = lambda: 1 / 0  # type: ignore[attr-defined]
    module.small = SimpleNamespace(score=len, shape=(1, 2, 2))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_priors", module)
    for name, told in (
        ("Thing", ": Thing has no score(x, sigma); see ScorePrior in sepbench/protocols.py"),
        ("broken", " cannot be made: ZeroDivisionError: division by zero"),
        ("none", " cannot be made: AttributeError: module 'my_priors' has no attribute 'none'"),
        ("small", " is for signals of shape (1, 2, 2), the task has (1, 4, 4); choose other tasks with --tasks"),
    ):
        with pytest.raises(SepbenchError) as refused:
            load_reference(f"my_priors:{name}", (1, 4, 4))
        assert str(refused.value) == f"prior my_priors:{name}{told}"


def test_files_of_weights_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"

    def says(call: Callable[[Path], Any]) -> str:
        with pytest.raises(SepbenchError) as refused:
            call(path)
        return str(refused.value)

    assert says(read_card) == f"{path.with_suffix('.json')} is missing: the card must lie beside the weights; copy both files"
    path.with_suffix(".json").write_text("{", encoding="utf-8")
    with pytest.raises(json.JSONDecodeError) as theirs:
        json.loads("{")
    assert says(read_card) == f"{path.with_suffix('.json')} is not readable as JSON ({theirs.value}); fetch the weights again"
    save_file({"a": torch.zeros(2), "b": torch.tensor([torch.inf])}, path)
    assert says(_read_tensors) == f"{path}: b holds values that are not finite; train or fetch the weights again"
    path.write_bytes(b"nothing")
    told = says(_read_tensors)
    assert told.startswith(f"{path} is no safetensors file (")
    assert told.endswith("); fetch it again")


@pytest.mark.parametrize("state", [[1], {"step": 1}, {"seconds": 1.0}])
def test_a_checkpoint_of_something_else(state: Any, tmp_path: Path) -> None:
    torch.save(state, tmp_path / CHECKPOINT)
    training: Any = SimpleNamespace(restore=lambda state: pytest.fail("restored"))
    with pytest.raises(SepbenchError) as refused:
        resume(training, tmp_path)
    assert str(refused.value) == f"{tmp_path / CHECKPOINT} is no checkpoint of this trainer; delete it, or train in another folder"
