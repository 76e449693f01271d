"""LASS: its stages each help, rows that depend on themselves, samplers and selection, tokens never seen, budgets, shared fits, the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import Digits, ToyView, context, mean_psnr, mix, rows_of, toy_task

from baselines import lass
from baselines.lass import PRESETS, LatentSeparation
from baselines.networks.vqvae import VQVAE
from baselines.priors.token_sums import SumCounts
from baselines.training import token_candidates
from baselines.training.token_candidates import TokenCandidates, errors_of
from baselines.training.token_models import LearntTokens, TokenModels
from sepbench.errors import MethodError
from sepbench.protocols import Fitted, Mixtures, Separator, TaskSpec
from sepbench.registry import create_separator
from sepbench.settings import setting_names

_CODEC: Mapping[str, Any] = {"codes": 24, "width": 16, "codec_epochs": 12, "codec_batch": 32, "codec_lr": 3e-3, "restart_every": 20}
_PRIOR: Mapping[str, Any] = {"prior_width": 16, "prior_layers": 1, "prior_epochs": 8, "prior_batch": 32, "prior_lr": 5e-3, "passes": 20}
TINY: Mapping[str, Any] = {**_CODEC, **_PRIOR}
ONE = {"lass-raw", "lass-greedy"}
"""Of one candidate."""
FAST: Mapping[bool, Mapping[str, Any]] = {False: {"candidates": 24, "refine_steps": 60}, True: {"refine_steps": 60}}
TASK = toy_task(operator="mean")


@pytest.fixture(scope="module")
def models() -> TokenModels:
    method = LearntTokens(**TINY)
    method.fit(ToyView(TASK, "prior", pooled=Digits.read().pooled[:700]), context(TASK))
    return method.fitted()


@pytest.fixture
def known(models: TokenModels) -> Callable[..., LatentSeparation]:
    def make(name: str = "lass", **settings: Any) -> LatentSeparation:
        method = PRESETS[name](**{**TINY, **FAST[name in ONE], **settings})
        method._models = models
        return method

    return make


Known = Callable[..., LatentSeparation]


def separated(method: LatentSeparation, mixtures: Mixtures, task: TaskSpec = TASK, **more: Any) -> torch.Tensor:
    return method.separate(mixtures, context(task, **more))


def test_each_stage_explains_the_mixture_better(known: Known, digits: Digits) -> None:
    truth = digits.pairs[:40]
    mixtures = mix(truth, "mean")
    errors, levels = [], []
    for name in ("lass-raw", "lass-selected", "lass"):
        estimates = separated(known(name), mixtures)
        assert estimates.shape == truth.shape
        assert 0 <= float(estimates.min()) <= float(estimates.max()) <= 1
        errors.append(float((estimates.mean(1) - mixtures.values).square().mean()))
        levels.append(mean_psnr(estimates, truth))
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]
    assert levels[0] < levels[1] < levels[2], levels
    average = mixtures.values[:, None].expand_as(truth)
    assert levels[2] > mean_psnr(average, truth)


@pytest.mark.parametrize("name", [*PRESETS])
def test_a_row_depends_on_its_mixture_alone(known: Known, digits: Digits, name: str) -> None:
    method, mixtures = known(name, refine_steps=10), mix(digits.pairs[:9], "mean")
    singly = torch.cat([separated(method, rows_of(mixtures, torch.tensor([row]))) for row in range(9)])
    torch.testing.assert_close(singly, separated(method, mixtures), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["lass", "lass-beam", "lass-greedy"])
def test_a_mixture_that_is_not_finite_has_estimates_of_nan_and_leaves_the_others_alone(known: Known, digits: Digits, name: str) -> None:
    method, mixtures = known(name, refine_steps=10), mix(digits.pairs[:3], "mean")
    whole = separated(method, mixtures)
    mixtures.values[1, 0, 2, 3] = torch.nan
    found = separated(method, mixtures)
    assert bool(found[1].isnan().all())
    torch.testing.assert_close(found[[0, 2]], whole[[0, 2]], atol=1e-3, rtol=0)


def test_heads_that_do_not_divide_the_width_are_told_before_anything_is_trained() -> None:
    with pytest.raises(MethodError, match="prior_heads=3 must divide prior_width=128"):
        create_separator("lass", {"prior_heads": 3})


@pytest.mark.parametrize("name", ["lass", "lass-beam"])
def test_large_batches_are_separated_in_parts(known: Known, digits: Digits, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    method, mixtures = known(name, refine_steps=10), mix(digits.pairs[:7], "mean")
    whole = separated(method, mixtures)
    monkeypatch.setattr(token_candidates, "_CPU_ROWS", 100)
    monkeypatch.setattr(token_candidates, "_CPU_IMAGES", 10)
    torch.testing.assert_close(separated(method, mixtures), whole, atol=1e-3, rtol=0)


def test_candidates_are_the_same_however_many_there_are(known: Known, digits: Digits) -> None:
    """The best of more candidates explains a mixture at least as well."""
    mixtures = mix(digits.pairs[:20], "mean")
    errors = []
    for count in (1, 4, 16):
        estimates = separated(known("lass-selected", sampler="draw", candidates=count), mixtures)
        errors.append((estimates.mean(1) - mixtures.values).square().flatten(1).sum(1))
    assert (errors[0] >= errors[1] - 1e-5).all()
    assert (errors[1] >= errors[2] - 1e-5).all()
    assert (errors[0] > errors[2]).any()


def test_the_sum_of_sources_is_separated_as_their_mean(known: Known, digits: Digits) -> None:
    of_sum, of_mean = (separated(known(), mix(digits.pairs[:4], operator), toy_task(operator=operator)) for operator in ("sum", "mean"))
    torch.testing.assert_close(of_sum, of_mean, atol=1e-3, rtol=0)


def test_draws_follow_the_seed_and_searches_do_not(known: Known, digits: Digits) -> None:
    mixtures = mix(digits.pairs[:6], "mean")
    for name, same in (("lass-raw", False), ("lass-greedy", True), ("lass-beam", True)):
        first, again, other = (known(name).separate(mixtures, context(TASK, seed)) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert torch.equal(first, other) == same


def test_selection_by_error_and_by_posterior(known: Known, models: TokenModels, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    mixtures = mix(digits.pairs[:5], "mean")
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    candidates = TokenCandidates.found

    def watched(self: TokenCandidates, *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(candidates(self, *given))
        return seen[-1]

    monkeypatch.setattr(TokenCandidates, "found", watched)
    by_error, by_posterior = (separated(known("lass-selected", selection=rule), mixtures) for rule in ("error", "posterior"))
    found, logs = seen[0]
    images = models.codec.decode(models.codec.embed(found.flatten(0, 2))).unflatten(0, found.shape[:3])
    errors = (images.mean(2) - mixtures.values[:, None]).flatten(2).square().sum(2)
    rows = torch.arange(5)
    torch.testing.assert_close(by_error, images[rows, errors.argmin(1)])
    torch.testing.assert_close(by_posterior, images[rows, logs.argmax(1)])
    torch.testing.assert_close(errors_of(models, found, logs, mixtures.values, 7), errors, atol=1e-4, rtol=0)
    nothing = logs.clone()
    nothing[:, 3:] = -torch.inf
    assert errors_of(models, found, nothing, mixtures.values, 7)[:, 3:].isinf().all()


def test_tokens_that_were_never_counted_are_told_and_no_error(known: Known, models: TokenModels, digits: Digits) -> None:
    method = known("lass-raw")
    few = models.sums
    method._models = TokenModels(models.codec, models.prior, SumCounts(few.codes, few.keys[:1], few.counts[:1], few.codec))
    told: list[str] = []
    assert separated(method, mix(digits.pairs[:4], "mean"), progress=lambda done, text: told.append(text)).isfinite().all()
    unseen = next(text for text in told if "never counted" in text)
    assert int(unseen.split()[0]) > 0
    assert "of 16 tokens" in unseen


def test_progress_goes_up_to_all_of_it(known: Known, digits: Digits) -> None:
    for name in ("lass", "lass-greedy", "lass-beam"):
        told: list[float] = []
        separated(known(name), mix(digits.pairs[:3], "mean"), progress=lambda done, text, told=told: told.append(done))
        assert told == sorted(told)
        assert told[-1] == 1.0


def test_quick_cuts_candidates_and_steps(known: Known, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    draw, refined = token_candidates.draw, lass.refined
    drawn: list[int] = []
    monkeypatch.setattr(token_candidates, "draw", lambda *given: (drawn.append(len(given[1])), draw(*given))[1])
    monkeypatch.setattr(lass, "refined", lambda *given, **told: (seen.append((drawn.pop(), given[3])), refined(*given, **told))[1])
    for budget in ("paper", "quick"):
        separated(known("lass-topk"), mix(digits.pairs[:1], "mean"), budget=budget)
    assert seen == [(24, 60), (6, 15)]


def test_a_fit_serves_every_name(models: TokenModels, tmp_path: Path) -> None:
    one, other = PRESETS["lass"](**TINY), PRESETS["lass-greedy"](**TINY)
    one._models = models
    one.save(tmp_path)
    other.load(tmp_path, context(toy_task(classes=("c", "d"), operator="sum")))
    assert other.weights_sha256 == one.weights_sha256
    assert {id(made.fit_scope) for made in PRESETS.values()} == {id(LatentSeparation.fit_scope)}
    scope = LatentSeparation.fit_scope
    assert all(getattr(LatentSeparation, name) is getattr(scope.code, name) for name in ("fit", "save", "load", "fitted"))
    of_separation = {"evidence", "sampler", "candidates", "top_k", "nucleus", "temperature", "likelihood_weight", "smoothing", "partial_mixtures"}
    of_separation |= {"selection", "refinement", "refine_steps", "refine_rate", "misaligned"}
    assert set(setting_names(LatentSeparation)) - set(setting_names(scope.code)) == of_separation


def test_what_it_takes() -> None:
    method = LatentSeparation()
    assert isinstance(method, Separator)
    assert isinstance(method, Fitted)
    assert method.info.supervision == "prior"
    assert method.supports(toy_task()).ok
    assert method.supports(toy_task((3, 32, 28), operator="mean")).ok
    assert method.supports(toy_task((1, 28, 28), ("a",) * 4, "mean")).ok
    assert "two sources" in LatentSeparation(sampler="beam").supports(toy_task((1, 28, 28), ("a",) * 4, "mean")).note
    assert "at most 512 codes" in LatentSeparation(codes=1024).supports(toy_task((1, 28, 28), ("a",) * 3, "mean")).note
    assert "gain" in method.supports(toy_task(operator="gain")).note
    assert "multiples of 4" in method.supports(toy_task((1, 10, 8))).note
    assert "channel-mean" in method.supports(toy_task((3, 8, 8), ("a",), "channel-mean")).note
    assert "audio" in method.supports(toy_task((1, 100), domain="audio")).note
    with pytest.raises(ValueError, match="fit"):
        method.separate(mix(torch.rand(2, 2, 1, 8, 8)), context(toy_task()))


def test_the_names_are_the_papers_stages_and_samplers() -> None:
    rows = {name: made() for name, made in PRESETS.items()}
    assert {name: (one.sampler, one.top_k, one.candidates, one.refinement) for name, one in rows.items()} == {
        "lass": ("particles", 0, 256, "adam"),
        "lass-raw": ("draw", 32, 1, "none"),
        "lass-selected": ("particles", 0, 256, "none"),
        "lass-printed": ("draw", 32, 512, "descent"),
        "lass-topk": ("draw", 32, 512, "adam"),
        "lass-ancestral": ("draw", 0, 512, "adam"),
        "lass-greedy": ("greedy", 0, 1, "adam"),
        "lass-beam": ("beam", 0, 128, "adam"),
    }
    assert len({made.info.title for made in PRESETS.values()}) == len(PRESETS)
    draws = {name: one.posterior_samples for name, one in rows.items()}
    of_512 = dict.fromkeys(["lass-printed", "lass-topk", "lass-ancestral"], 512)
    assert draws == {"lass": 256, "lass-selected": 256, "lass-raw": 1, "lass-greedy": 1, "lass-beam": 1, **of_512}
    assert {name for name, one in rows.items() if one.selection == "posterior"} == {"lass-beam"}
    assert {one.evidence for one in rows.values()} == {5.0}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "lass")) for name in PRESETS])
def test_keeps_the_contract(broken_rules: Callable[..., list[str]], name: str) -> None:
    few = {} if name in ONE else {"candidates": 8}
    assert broken_rules(name, "class-agnostic", **{**TINY, **few, "refine_steps": 8}) == []


def of_more(digits: Digits, sources: int, count: int) -> torch.Tensor:
    """So many sets of digits."""
    return digits.pairs[: -(-sources // 2) * count].flatten(0, 1)[: sources * count].unflatten(0, (count, sources))


@pytest.mark.parametrize("sources", [3, 4])
def test_more_than_two_sources_are_separated_through_partial_sums(known: Known, digits: Digits, sources: int) -> None:
    truth, task = of_more(digits, sources, 10), toy_task(classes=("a",) * sources, operator="mean")
    mixtures, errors = mix(truth, "mean"), []
    for name in ("lass-raw", "lass-selected", "lass"):
        method = known(name, partial_mixtures=3000)
        estimates = separated(method, mixtures, task)
        assert estimates.shape == truth.shape
        assert 0 <= float(estimates.min()) <= float(estimates.max()) <= 1
        errors.append(float((estimates.mean(1) - mixtures.values).square().mean()))
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]
    singly = torch.cat([separated(method, rows_of(mixtures, torch.tensor([row])), task) for row in range(3)])
    torch.testing.assert_close(singly, estimates[:3], atol=1e-3, rtol=0)
    greedy = known("lass-greedy", partial_mixtures=3000)
    assert torch.equal(*(greedy.separate(mixtures, context(task, seed)) for seed in (0, 1)))


def test_partial_sums_are_counted_from_as_many_mixtures_as_asked_for(known: Known, digits: Digits) -> None:
    truth, task = of_more(digits, 3, 3), toy_task(classes=("a",) * 3, operator="mean")
    mixtures, logs = mix(truth, "mean"), []
    for count in (20, 3000):
        method = known("lass-raw", partial_mixtures=count, candidates=8)
        logs.append(method.found(mixtures.values, 3, mixtures.example_ids, context(task))[1])
    assert not torch.equal(*logs)


def test_the_evidence_of_a_row_is_the_error_of_the_pixels_under_it(models: TokenModels, digits: Digits) -> None:
    """What lies behind in the tokens does not count."""
    tokens = models.codec.tokens_of(digits.pooled[:3])
    found = torch.randint(0, 10, (3, 5, 2, 4), generator=torch.Generator().manual_seed(1))
    evidence = token_candidates.rows_evidence(models, tokens, digits.pooled[:3], 2.0, 4)
    whole = models.codec.decode(models.codec.embed(found.flatten(0, 2))).unflatten(0, (3, 5, 2)).mean(2)
    error = (whole - digits.pooled[:3, None]).square()
    assert torch.allclose(evidence(found, 4), -2.0 * error.flatten(2).sum(2).double(), atol=1e-4)
    other = found.clone()
    other[..., 2:] = 0
    assert torch.equal(evidence(found, 2), evidence(other, 2))
    other[..., 0] = (other[..., 0] + 1) % 10
    assert not torch.equal(evidence(found, 2), evidence(other, 2))


def test_particles_explain_mixtures_better_than_draws(known: Known, digits: Digits) -> None:
    mixtures = mix(digits.pairs[:40], "mean")

    def error(**settings: Any) -> float:
        made = separated(known("lass", candidates=16, refinement="none", **settings), mixtures)
        return float((made.mean(1) - mixtures.values).square().mean())

    assert error() < error(evidence=0.0)
    assert error() < error(sampler="draw")


def test_equal_sequences_are_decoded_once(models: TokenModels, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.tensor([[3, 1, 4, 1], [0, 9, 2, 6], [3, 1, 4, 1], [5, 3, 5, 8]])
    each = torch.cat([models.codec.decode(models.codec.embed(one[None])) for one in tokens])
    sizes: list[int] = []
    decode = VQVAE.decode
    monkeypatch.setattr(VQVAE, "decode", lambda self, latents: (sizes.append(len(latents)), decode(self, latents))[1])
    torch.testing.assert_close(token_candidates.decoded(models.codec, tokens, 2), each)
    assert sizes == [2, 1]
