"""LASS with a projected finish: better than either end of it, exact mixtures, rows by themselves, its fit, evaluations, settings, the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import context, mean_psnr, rows_of
from setting_worlds import mixture_priors, tiny_prior

from baselines.lass_projected import LassProjected
from baselines.priors.shipped import find_weights
from baselines.sampling.problem import Problem
from baselines.sampling.token_samplers import uniforms_of
from baselines.training.token_models import LearntTokens
from sepbench.errors import SepbenchError
from sepbench.files import file_sha256
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Fitted, Mixtures, RunContext, Separator
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite

TINY: Mapping[str, Any] = {
    **{"codes": 24, "width": 16, "codec_epochs": 12, "codec_batch": 32, "codec_lr": 3e-3, "restart_every": 20},
    **{"prior_width": 16, "prior_layers": 1, "prior_epochs": 8, "prior_batch": 32, "prior_lr": 5e-3, "passes": 20},
    **{"candidates": 16, "starts": 4, "search_steps": 4, "finish_steps": 8},
}
DIGITS = load_suite("digits-pairs").tasks["class-agnostic"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    method, folder = LassProjected(**TINY), tmp_path_factory.mktemp("fit")
    method.fit(DIGITS.view("prior"), context(DIGITS.spec))
    method.save(folder)
    return folder


@pytest.fixture
def known(fitted: Path) -> Callable[..., LassProjected]:
    def make(**settings: Any) -> LassProjected:
        method = LassProjected(**{**TINY, **settings})
        method.load(fitted, context(DIGITS.spec))
        return method

    return make


Known = Callable[..., LassProjected]


def digits(count: int) -> tuple[Mixtures, torch.Tensor]:
    ids = torch.arange(count)
    return DIGITS.mixture_set().mixtures(ids), DIGITS.mixture_set().sources(ids)


@pytest.mark.slow
def test_the_finish_is_better_than_the_starts_and_mixes_to_the_mixture(known: Known) -> None:
    method, (mixtures, truth) = known(), digits(40)
    ctx = context(DIGITS.spec)
    starts = method.begun(mixtures, ctx)
    estimates = method.separate(mixtures, ctx)
    assert starts.shape == (40, method.starts, *truth.shape[1:])
    assert mean_psnr(estimates, truth) > mean_psnr(starts[:, 0], truth) + 1.0
    torch.testing.assert_close(mixtures.operator.forward(estimates), mixtures.values, atol=1e-4, rtol=0)
    torch.testing.assert_close(estimates, method.finished(mixtures, starts, ctx))


def test_the_finish_keeps_the_mode_of_its_start(known: Known) -> None:
    """Started from the truth it stays there, from the truth in the other order it stays in that."""
    method, (mixtures, truth) = known(starts=1, highest=0.25), digits(24)
    for start in (truth, truth.flip(1)):
        ended = method.finished(mixtures, start[:, None], context(DIGITS.spec))
        assert float((ended - start).square().mean()) < 0.3 * float((ended - start.flip(1)).square().mean())


def test_of_several_starts_the_likely_one_is_taken(known: Known) -> None:
    """A wrong one has the halves of two digits put together, and explains the mixture as well."""
    method, (mixtures, truth) = known(highest=0.3), digits(24)
    wrong = torch.cat([truth[..., :4, :], truth.flip(1)[..., 4:, :]], -2)
    ctx = context(DIGITS.spec)
    levels = [mean_psnr(method.finished(mixtures, torch.stack(starts, 1), ctx), truth) for starts in ([wrong], [wrong, truth], [truth])]
    assert levels[0] < levels[1] <= levels[2]
    assert levels[1] > 0.3 * levels[0] + 0.7 * levels[2]


def test_a_row_depends_on_its_mixture_alone(known: Known) -> None:
    method, (mixtures, _) = known(), digits(7)
    ctx = context(DIGITS.spec)
    singly = torch.cat([method.separate(rows_of(mixtures, torch.tensor([row])), ctx) for row in range(7)])
    torch.testing.assert_close(singly, method.separate(mixtures, ctx), atol=1e-3, rtol=0)


def test_a_mixture_that_is_not_finite_has_estimates_of_nan_and_leaves_the_others_alone(known: Known) -> None:
    method, (mixtures, _) = known(), digits(3)
    whole = method.separate(mixtures, context(DIGITS.spec))
    mixtures.values[1, 0, 2, 3] = torch.nan
    found = method.separate(mixtures, context(DIGITS.spec))
    assert bool(found[1].isnan().all())
    torch.testing.assert_close(found[[0, 2]], whole[[0, 2]], atol=1e-3, rtol=0)


def test_it_spends_the_evaluations_that_it_says(known: Known) -> None:
    method, (mixtures, _) = known(starts=3), digits(5)
    assert method._score is not None
    prior, digest = method._score
    seen: list[int] = []

    class Counted:
        name = "counted"

        def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            seen.append(len(x))
            return prior.denoise(x, sigma)

    method._score = Counted(), digest  # type: ignore[assignment]
    told: list[float] = []
    method.separate(mixtures, context(DIGITS.spec, progress=lambda done, text: told.append(done)))
    assert method.evaluations == 3 * 4 + 8
    assert sum(seen) == 5 * 2 * method.evaluations
    assert method.network_evaluations().tolist() == [method.evaluations] * 5  # type: ignore[union-attr]
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_it_takes_the_fits_of_lass(known: Known, fitted: Path) -> None:
    other = create_separator("lass", {name: value for name, value in TINY.items() if name not in {"starts", "search_steps", "finish_steps"}})
    assert isinstance(other, Fitted)
    assert isinstance(other, LearntTokens)
    other.load(fitted, context(DIGITS.spec))
    assert type(other).fit_scope == LassProjected.fit_scope  # type: ignore[attr-defined]
    method = known()
    assert isinstance(method, Separator)
    assert isinstance(method, Fitted)
    assert method.weights_sha256 != other.weights_sha256, "the score prior counts too"
    assert LassProjected(**TINY).weights_sha256 == ""


def test_what_it_takes() -> None:
    method = LassProjected()
    assert method.supports(DIGITS.spec).ok
    for suite, task in (("gaussian-exact", None), ("mnist-nes", None)):
        tasks = load_suite(suite).tasks
        assert not method.supports(tasks[task or next(iter(tasks))].spec).ok
    in_order = method.supports(replace(DIGITS.spec, assignment="ordered"))
    assert in_order.note == "lass-projected has one model for all sources and cannot tell which source is which; choose a task under the best assignment"
    with pytest.raises(ValueError, match="noise levels fall"):
        LassProjected(highest=0.1)
    mixtures, truth = digits(1)
    with pytest.raises(SepbenchError, match="before fit"):
        method.finished(mixtures, truth[:, None], RunContext(DIGITS.spec, "cpu", context(DIGITS.spec).noise, 0))


@pytest.mark.slow
def test_keeps_the_contract(broken_rules: Callable[..., list[str]]) -> None:
    assert broken_rules("lass-projected", "class-agnostic", **{**TINY, "candidates": 4, "starts": 2}) == []


def test_it_asks_for_the_kept_fit_that_lass_asks_for() -> None:
    """By default both use what ships, whose digest stands in the key of a fit."""
    assert create_separator("lass-projected", {}).weights_sha256 == create_separator("lass", {}).weights_sha256 != ""  # type: ignore[attr-defined]


def test_its_digest_tells_the_tokens_and_the_score_prior(known: Known, fitted: Path, tmp_path: Path) -> None:
    tokens = LearntTokens(**{name: TINY[name] for name in TINY if name not in {"candidates", "starts", "search_steps", "finish_steps"}})
    tokens.load(fitted, context(DIGITS.spec))
    ships, own = find_weights(DIGITS.spec, 0), tiny_prior(tmp_path, 1)
    assert ships is not None
    for score_weights, of_score in (("", ships.sha256), (own, file_sha256(Path(own)))):
        wanted = sha256(f"{tokens.weights_sha256} {of_score}".encode()).hexdigest()
        assert known(score_weights=score_weights).weights_sha256 == wanted


def test_a_start_shares_one_random_word_with_the_tokens_of_the_candidate_of_its_number() -> None:
    """What the docstring says: at step s it chooses token s, and is the length of the noise of two corner pixels. All else is apart."""
    noise, ids, count = NoiseSource(3), torch.tensor([5, 9]), 4
    mixtures = Mixtures(torch.zeros(2, 1, 4, 4), ids, make_operator("sum", 2))
    problem = Problem(mixtures, [mixture_priors()[0]], noise, (1, 4, 4)).repeat(count)
    for step in (0, 3):
        words = uniforms_of(noise, ids.repeat_interleave(count), torch.arange(count).repeat(2), step, "cpu")(0)
        lengths = problem.normals(step).flatten(2)[..., :2].square().sum(-1)
        torch.testing.assert_close(lengths[:, 0], -2 * (words + 2.0**-24).log(), atol=1e-5, rtol=1e-4)
        assert not bool(torch.isclose(lengths[:, 1], -2 * (words + 2.0**-24).log(), rtol=1e-3).any())
