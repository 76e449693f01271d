"""LASS of sound: it separates, rows depend on themselves, samplers and selection, budgets, shared fits, the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import ToyView, context, rows_of, toy_task
from sound_toys import best_sdr, mixed, sound_task, sounds

from baselines import lass_audio
from baselines.average import Average
from baselines.lass import PRESETS as OF_IMAGES
from baselines.lass_audio import PRESETS, LatentSoundSeparation
from baselines.priors.token_sums import SumCounts
from baselines.sampling.token_samplers import TokenPosterior, search
from baselines.training.sound_tokens import LearntSoundTokens, SoundModels
from sepbench.conformance import validate_method
from sepbench.protocols import Fitted, Mixtures, Separator, TaskSpec
from sepbench.registry import separator_class
from sepbench.settings import setting_names
from sepbench.suites.loader import load_suite

_CODEC: Mapping[str, Any] = {"bands": 16, "codes": 32, "width": 16, "codec_epochs": 12, "codec_batch": 16, "codec_lr": 3e-3, "restart_every": 20}
_PRIOR: Mapping[str, Any] = {"prior_width": 16, "prior_layers": 1, "prior_epochs": 8, "prior_batch": 8, "prior_lr": 5e-3, "passes": 20}
TINY: Mapping[str, Any] = {**_CODEC, **_PRIOR}
TASK = sound_task(assignment="ordered")
SOURCES = sounds(4, seed=1)


@pytest.fixture(scope="module")
def models() -> SoundModels:
    train = sounds(60, seed=100)
    method = LearntSoundTokens(**TINY)
    method.fit(ToyView(TASK, "sources", (train[:, 0], train[:, 1])), context(TASK))
    return method.fitted()


@pytest.fixture
def known(models: SoundModels) -> Callable[..., LatentSoundSeparation]:
    def make(name: str = "lass", **settings: Any) -> LatentSoundSeparation:
        few = {} if name == "lass-greedy" else {"candidates": 12}
        method = PRESETS[name](**{**TINY, **few, **settings})
        method._sounds = models
        return method

    return make


Known = Callable[..., LatentSoundSeparation]


def separated(method: LatentSoundSeparation, mixtures: Mixtures, task: TaskSpec = TASK, **more: Any) -> torch.Tensor:
    return method.separate(mixtures, context(task, **more))


@pytest.mark.parametrize("name", [*PRESETS])
def test_it_separates_in_the_order_of_the_classes(known: Known, name: str) -> None:
    mixtures = mixed(SOURCES)
    estimates = separated(known(name), mixtures)
    assert estimates.shape == SOURCES.shape
    error = 10 * (SOURCES.square().sum() / (estimates - SOURCES).square().sum()).log10()
    assert float(error) > best_sdr(Average().separate(mixtures, context(TASK)), SOURCES) + 1
    torch.testing.assert_close(estimates.mean(1), mixtures.values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [*PRESETS])
def test_a_row_depends_on_its_mixture_alone(known: Known, name: str) -> None:
    method, mixtures = known(name), mixed(SOURCES)
    singly = torch.cat([separated(method, rows_of(mixtures, torch.tensor([row]))) for row in range(4)])
    torch.testing.assert_close(singly, separated(method, mixtures), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["lass", "lass-topk", "lass-beam"])
def test_large_batches_are_separated_in_parts(known: Known, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    method, mixtures = known(name), mixed(SOURCES)
    whole = separated(method, mixtures)
    monkeypatch.setattr(lass_audio, "_CPU_ROWS", 1)
    torch.testing.assert_close(separated(method, mixtures), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [*PRESETS])
def test_a_mixture_that_is_not_finite_has_estimates_of_nan_and_leaves_the_others_alone(known: Known, name: str) -> None:
    method, mixtures = known(name), mixed(SOURCES[:3])
    whole = separated(method, mixtures)
    mixtures.values[1, 0, 77] = torch.nan
    found = separated(method, mixtures)
    assert bool(found[1].isnan().all())
    torch.testing.assert_close(found[[0, 2]], whole[[0, 2]], atol=1e-4, rtol=0)


def test_a_batch_without_mixtures_has_no_estimates(known: Known) -> None:
    assert separated(known(), rows_of(mixed(SOURCES), torch.arange(0))).shape == (0, 2, 1, 8_000)


def test_draws_follow_the_seed_and_searches_do_not(known: Known) -> None:
    mixtures = mixed(SOURCES)
    for name, same in (("lass", False), ("lass-topk", False), ("lass-greedy", True), ("lass-beam", True)):
        method = known(name, candidates=1) if name == "lass-topk" else known(name)
        first, again, other = (method.separate(mixtures, context(TASK, seed)) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert torch.equal(first, other) == same


def test_channels_share_their_masks(known: Known) -> None:
    task = sound_task(assignment="ordered", channels=2)
    one = mixed(SOURCES)
    both = mixed(SOURCES.expand(-1, -1, 2, -1))
    found = separated(known(), both, task)
    assert found.shape == (4, 2, 2, 8_000)
    for channel in (0, 1):
        torch.testing.assert_close(found[:, :, [channel]], separated(known(), one), atol=1e-5, rtol=0)


@pytest.mark.parametrize("selection", ["mean", "posterior", "error"])
def test_what_is_kept_of_the_candidates(models: SoundModels, selection: Any) -> None:
    mixtures = mixed(SOURCES)
    seen: list[Any] = []

    class Watched(LatentSoundSeparation):
        def _candidates(self, *given: Any) -> Any:
            seen.append(super()._candidates(*given))
            return seen[-1]

    method = Watched(**TINY, candidates=12, selection=selection, exponent=0.5)
    method._sounds = models
    estimates = separated(method, mixtures)
    tokens, logs = seen[-1].tokens.unflatten(0, (4, 12)), seen[-1].log_posterior.unflatten(0, (4, 12))
    images = models.codec.decode(models.codec.embed(tokens.flatten(0, 2))).unflatten(0, (4, 12, 2))
    powers = models.front.powers(images)
    shares = powers.sqrt() / powers.sqrt().sum(2, keepdim=True)
    errors = ((1 + 10 * powers.sum(2).log10() / 80).clamp(0, 1) - models.front.pictures(mixtures.values)).square().flatten(2).sum(2)
    best = {"posterior": logs.argmax(1), "error": errors.argmin(1)}
    kept = shares.mean(1) if selection == "mean" else shares[torch.arange(4), best[selection]]
    spectra = models.front.stft.forward(mixtures.values)
    parts = models.front.stft.inverse(spectra.unsqueeze(1) * models.front.masks(kept, spectra.shape[-1]), 8_000)
    torch.testing.assert_close(estimates, 2 * parts, atol=1e-4, rtol=0)


def test_empty_beams_are_no_candidates(known: Known, models: SoundModels) -> None:
    """One pair alone makes every token, so that a beam of three has one sequence."""
    few = models.sums
    one = SumCounts(few.codes, few.keys[:1], few.counts[:1], few.codec)
    found = []
    for count, selection in ((1, "posterior"), (3, "mean"), (3, "error")):
        method = known("lass-beam", candidates=count, selection=selection)
        method._sounds = SoundModels(models.front, models.codec, models.priors, one)
        found.append(separated(method, mixed(SOURCES)))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def test_the_beam_is_that_of_the_posterior_with_both_priors_and_the_weight(known: Known, models: SoundModels, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[TokenPosterior, int, bool]] = []

    def watched(posterior: TokenPosterior, tokens: torch.Tensor, width: int, device: str, *, misaligned: bool) -> Any:
        seen.append((posterior, width, misaligned))
        return search(posterior, tokens, width, device, misaligned=misaligned)

    monkeypatch.setattr(lass_audio, "search", watched)
    separated(known("lass-beam", likelihood_weight=2.5, smoothing=0.25, misaligned=True), mixed(SOURCES[:1]))
    ((posterior, width, misaligned),) = seen
    assert posterior.priors == models.priors
    assert posterior.weight == 2.5
    assert posterior.likelihood.smoothing == 0.25  # type: ignore[attr-defined]
    assert posterior.likelihood.counts is models.sums  # type: ignore[attr-defined]
    assert (width, misaligned) == (12, True)


@pytest.mark.parametrize(("settings", "rule"), [({"top_k": 5, "temperature": 0.5}, (0.5, 5, 1.0)), ({"top_k": 0}, (1.0, None, 1.0)), ({}, (1.0, 32, 1.0))])
def test_draws_are_made_by_the_rule(known: Known, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], rule: tuple[float, int | None, float]) -> None:
    seen: list[Any] = []
    draw = lass_audio.draw
    monkeypatch.setattr(lass_audio, "draw", lambda *given: (seen.append(given), draw(*given))[1])
    separated(known("lass-topk", candidates=3, **settings), mixed(SOURCES[:2]))
    _, tokens, how, _, ids, numbers, _ = seen[0]
    assert (how.temperature, how.top_k, how.nucleus) == rule
    assert ids.tolist() == [0, 0, 0, 1, 1, 1]
    assert numbers.tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(tokens[0], tokens[2])


def test_tokens_that_were_never_counted_are_told_and_no_error(known: Known, models: SoundModels) -> None:
    few, method = models.sums, known("lass-greedy")
    method._sounds = SoundModels(models.front, models.codec, models.priors, SumCounts(few.codes, few.keys[:1], few.counts[:1], few.codec))
    told: list[tuple[float, str]] = []
    assert separated(method, mixed(SOURCES), progress=lambda done, text: told.append((done, text))).isfinite().all()
    assert told[-1][0] == 1.0
    assert int(told[-1][1].split()[0]) > 0
    assert told[-1][1].endswith("of 80 tokens of mixtures were never counted")


def test_quick_cuts_candidates(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(lass_audio, "search", lambda posterior, tokens, width, device, misaligned: (seen.append(width), search(posterior, tokens, width))[1])
    for budget in ("paper", "quick"):
        separated(known("lass-beam"), mixed(SOURCES[:1]), budget=budget)
    assert seen == [12, 3]


def test_a_fit_serves_every_name(models: SoundModels, tmp_path: Path) -> None:
    one, other = PRESETS["lass"](**TINY), PRESETS["lass-greedy"](**TINY)
    one._sounds = models
    one.save(tmp_path)
    other.load(tmp_path, context(sound_task()))
    assert other.weights_sha256 == one.weights_sha256
    assert {id(made.fit_scope) for made in PRESETS.values()} == {id(LatentSoundSeparation.fit_scope)}
    scope = LatentSoundSeparation.fit_scope
    assert all(getattr(LatentSoundSeparation, name) is getattr(scope.code, name) for name in ("fit", "save", "load", "fitted"))
    assert scope.task == {"source_shape", "sample_rate", "operator", "n_sources", "source_classes"}
    of_separation = {"sampler", "candidates", "top_k", "temperature", "likelihood_weight", "smoothing", "selection", "exponent", "misaligned"}
    assert set(setting_names(LatentSoundSeparation)) - set(setting_names(LearntSoundTokens)) == of_separation


def test_what_it_takes() -> None:
    method = LatentSoundSeparation()
    assert isinstance(method, Separator)
    assert isinstance(method, Fitted)
    assert method.info.supervision == "sources"
    for task in (sound_task(), sound_task(operator="sum"), sound_task(classes=("any", "any"))):
        assert method.supports(task).ok
    assert "gain" in method.supports(sound_task(operator="gain")).note
    assert "best assignment" in method.supports(sound_task(classes=("any", "any"), assignment="ordered")).note
    assert "2 parts" in method.supports(sound_task(classes=("a", "b", "c"))).note
    assert "image" in method.supports(toy_task()).note
    with pytest.raises(ValueError, match="fit"):
        method.separate(mixed(SOURCES), context(TASK))


@pytest.mark.slow
def test_keeps_the_contract() -> None:
    """On the songs that the package makes: every rule, with a fit of seconds."""
    task = load_suite("drums-bass-synth").tasks["by-role-val"]
    settings = {**TINY, "codec_epochs": 1, "prior_epochs": 1, "prior_batch": 32, "passes": 1, "candidates": 4}
    checks = validate_method("lass", task, settings=settings)
    assert [f"{check.rule}: {check.detail}" for check in checks if check.passed is False] == []
    assert sum(bool(check.passed) for check in checks) > 15


def test_names_are_those_of_images_where_both_have_them() -> None:
    assert set(PRESETS) < set(OF_IMAGES)
    for name, made in PRESETS.items():
        assert separator_class(name, "audio") is made
        assert separator_class(name, "image") is OF_IMAGES[name]
        assert made.info.name == name
        assert made.info.domains == {"audio"}
    rows = {name: made() for name, made in PRESETS.items()}
    assert {name: (one.sampler, one.candidates, one.top_k, one.likelihood_weight, one.selection, one.posterior_samples) for name, one in rows.items()} == {
        "lass": ("draw", 16, 0, 1.0, "mean", 16),
        "lass-greedy": ("greedy", 1, 0, 3.0, "posterior", 1),
        "lass-beam": ("beam", 100, 0, 3.0, "posterior", 1),
        "lass-topk": ("draw", 100, 32, 1.0, "error", 100),
    }
