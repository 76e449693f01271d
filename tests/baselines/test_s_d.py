"""S-D: known codes are found again, restarts, the stages, budgets, shared fits, resuming, sizes, rows that depend on themselves, the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import Digits, ToyView, context, mean_psnr, mix, rows_of, toy_task

from baselines import s_d
from baselines.s_d import PRESETS, GenerativeSeparation, Scene, best_of_starts
from baselines.training.generative import LearntGenerator, new_networks
from baselines.training.search import CHECK_EVERY
from sepbench.noise import NoiseSource
from sepbench.protocols import Fitted, Mixtures, Separator, TaskSpec
from sepbench.settings import setting_names

FAST: Mapping[str, Any] = {"latent": 6, "steps": 3, "batch": 16, "first_steps": 30, "last_steps": 100}


def known(shape: tuple[int, ...] = (1, 8, 8), name: str = "s-d", **settings: Any) -> GenerativeSeparation:
    """A method whose generator, of weights that make contrasts, is given; its images are the clean ones."""
    method = PRESETS[name](**{**FAST, **settings})
    network, _ = new_networks(method.latent, shape, 0, "cpu")
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    method._generator = network.eval().requires_grad_(False)
    return method


def sources(method: GenerativeSeparation, count: int, n_sources: int = 2) -> torch.Tensor:
    codes = torch.randn(count, n_sources, method.latent, generator=torch.Generator().manual_seed(7))
    return Scene(method.fitted(), mix(torch.rand(1, n_sources, 1, 2, 2)), 0.0).images(codes)


def separated(method: GenerativeSeparation, mixtures: Mixtures, task: TaskSpec, **more: object) -> torch.Tensor:
    return method.separate(mixtures, context(task, **more))


def test_what_a_generator_made_is_found_again() -> None:
    method = known(last_steps=800, pull=0.0, restarts=16)
    truth = sources(method, 6)
    estimates = separated(method, mix(truth), toy_task())
    assert mean_psnr(estimates, truth) > 5.0 + mean_psnr(0.5 * truth.sum(1, keepdim=True).expand_as(truth), truth)
    assert float((estimates.sum(1) - truth.sum(1)).square().mean()) < 0.01 * float(truth.sum(1).var())


def test_the_loss_is_that_of_the_paper() -> None:
    method = known(pull=0.5)
    truth = sources(method, 3, 3)
    codes = torch.randn(3, 3, method.latent, generator=torch.Generator().manual_seed(1))
    images = method.fitted()(codes.flatten(0, 1)).reshape(3, 3, 64)
    wanted = (truth.sum(1).reshape(3, 64) - images.sum(1)).square().mean(1) + 0.5 * codes.square().mean(2).sum(1)
    loss = Scene(method.fitted(), mix(truth), 0.5).losses(torch.arange(3))
    torch.testing.assert_close(loss(codes, torch.arange(3)), wanted)
    torch.testing.assert_close(loss(codes[1:2], torch.tensor([1])), wanted[1:2])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_more_restarts_never_explain_a_mixture_worse(seed: int) -> None:
    method = known()
    scene = Scene(method.fitted(), mix(sources(method, 7)), method.pull)
    rows = torch.arange(7)
    errors = [best_of_starts(scene, rows, restarts, NoiseSource(seed), 20, 0.05)[1] for restarts in (1, 3, 8)]
    assert bool((errors[1] <= errors[0] * (1 + 1e-4)).all())
    assert bool((errors[2] <= errors[1] * (1 + 1e-4)).all())
    assert bool((errors[2] < 0.9 * errors[0]).any())


def test_the_best_start_is_told_by_the_error_alone() -> None:
    """A pull that decides every loss does not decide which restart goes on."""
    method = known()
    mixtures = mix(sources(method, 5))
    rows, noise = torch.arange(5), NoiseSource(0)
    codes, errors = best_of_starts(Scene(method.fitted(), mixtures, 0.0), rows, 6, noise, 1, 0.05)
    same, _ = best_of_starts(Scene(method.fitted(), mixtures, 1e6), rows, 6, noise, 1, 0.05)
    assert torch.equal(codes, same)  # of one step the codes are the starts
    every = noise.normals(rows.repeat_interleave(6), 0, 2, (method.latent,), streams=torch.arange(6).repeat(5))
    all_errors = Scene(method.fitted(), mixtures, 0.0).errors(every, rows.repeat_interleave(6)).reshape(5, 6)
    torch.testing.assert_close(errors, all_errors.amin(1))


def test_stage_two_goes_on_from_the_best_start_and_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    method = known(restarts=3)
    truth = sources(method, 4)
    steps: list[tuple[int, int]] = []
    descend = s_d.descend

    def watched(start: torch.Tensor, errors: Any, count: int, lr: float, **options: Any) -> torch.Tensor:
        made = 0

        def counted(codes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            nonlocal made
            made += 1
            value: torch.Tensor = errors(codes, rows)
            return value

        found = descend(start, counted, count, lr, **options)
        steps.append((len(start), made))
        return found

    monkeypatch.setattr(s_d, "descend", watched)
    told: list[float] = []
    separated(method, mix(truth), toy_task(), progress=lambda done, text: told.append(done))
    assert steps == [(12, 30), (4, 100)]
    assert told == sorted(told)
    assert told[-1] == 1.0
    steps.clear()
    separated(known(restarts=3, tolerance=0.99, last_steps=5001), mix(truth), toy_task())
    assert steps == [(12, 30), (4, 2 * CHECK_EVERY)]


def test_large_batches_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three restarts of two sources: two mixtures at a time in stage 1, six in stage 2; the estimates are the same."""
    method = known(restarts=3)
    mixtures = mix(sources(method, 7))
    whole = separated(method, mixtures, toy_task())
    at_once: list[int] = []
    descend = s_d.descend
    monkeypatch.setattr(s_d, "descend", lambda start, *rest, **options: (at_once.append(len(start)), descend(start, *rest, **options))[1])
    monkeypatch.setattr(s_d, "_CPU_IMAGES", 12)
    parts = separated(method, mixtures, toy_task())
    assert at_once == [6, 6, 6, 3, 6, 1]
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=0)


def test_the_mean_of_sources_is_separated_as_their_sum() -> None:
    method = known()
    truth = sources(method, 4)
    of_sum, of_mean = (separated(method, mix(truth, operator), toy_task(operator=operator)) for operator in ("sum", "mean"))
    torch.testing.assert_close(of_mean, of_sum, atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["sum", "gain"])
def test_a_row_depends_on_its_mixture_alone(operator: str) -> None:
    method = known()
    task = toy_task(operator=operator)
    mixtures = mix(sources(method, 9), operator)
    singly = torch.cat([separated(method, rows_of(mixtures, torch.tensor([row])), task) for row in range(9)])
    torch.testing.assert_close(singly, separated(method, mixtures, task), atol=1e-3, rtol=0)


def test_a_mixture_that_is_not_finite_has_estimates_of_nan_and_leaves_the_others_alone() -> None:
    method = known()
    mixtures = mix(sources(method, 3))
    whole = separated(method, mixtures, toy_task())
    mixtures.values[1, 0, 2, 3] = torch.nan
    found = separated(method, mixtures, toy_task())
    assert bool(found[1].isnan().all())
    torch.testing.assert_close(found[[0, 2]], whole[[0, 2]], atol=1e-3, rtol=0)


def test_starts_follow_the_seed() -> None:
    method = known(first_steps=1, last_steps=0, restarts=1)
    mixtures = mix(sources(method, 3))
    first = separated(method, mixtures, toy_task())
    assert torch.equal(separated(method, mixtures, toy_task()), first)
    assert not torch.equal(method.separate(mixtures, context(toy_task(), 1)), first)


@pytest.mark.slow
def test_four_sources_in_colour_on_a_size_that_is_no_power_of_two() -> None:
    task = toy_task((3, 6, 10), classes=("a",) * 4)
    images = torch.rand(40, 3, 6, 10, generator=torch.Generator().manual_seed(0))
    method = GenerativeSeparation(**FAST)
    method.fit(ToyView(task, "prior", pooled=images), context(task))
    assert separated(method, mix(images[:20].reshape(5, 4, 3, 6, 10)), task).shape == (5, 4, 3, 6, 10)


def test_a_fit_serves_every_number_of_restarts(digits: Digits, tmp_path: Path) -> None:
    """What one method learns on one task another reads on another; the fit cache is told so."""
    task = toy_task()
    eight, one = PRESETS["s-d"](**FAST), PRESETS["s-d-1"](**FAST)
    eight.fit(ToyView(task, "prior", pooled=digits.pooled), context(task))
    eight.save(tmp_path)
    other = toy_task(classes=("c", "c", "c"), operator="mean")
    one.load(tmp_path, context(other))
    codes = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.fitted()(codes), eight.fitted()(codes))
    assert {id(made.fit_scope) for made in PRESETS.values()} == {id(GenerativeSeparation.fit_scope)}
    scope = GenerativeSeparation.fit_scope
    assert all(getattr(GenerativeSeparation, name) is getattr(scope.code, name) for name in ("fit", "save", "load", "fitted"))
    of_searches = {"restarts", "first_steps", "last_steps", "search_lr", "pull", "tolerance"}
    assert set(setting_names(GenerativeSeparation)) - set(setting_names(scope.code)) == of_searches


def test_quick_cuts_the_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(s_d, "descend", lambda start, errors, count, lr, **options: (steps.append(count), start)[1])
    method = known(**{"first_steps": 201, "last_steps": 5001})
    for budget in ("paper", "quick"):
        separated(method, mix(sources(method, 2)), toy_task(), budget=budget)
    assert steps == [201, 5001, 51, 1251]


def test_what_it_takes() -> None:
    method = GenerativeSeparation()
    assert isinstance(method, Separator)
    assert isinstance(method, Fitted)
    assert isinstance(method, LearntGenerator)
    assert method.info.supervision == "prior"
    assert method.supports(toy_task()).ok
    assert method.supports(toy_task((1, 28, 28), ("a",) * 4, "mean")).ok
    assert "channel-mean" in method.supports(toy_task((3, 8, 8), ("a",), "channel-mean")).note
    assert "audio" in method.supports(toy_task((1, 100), domain="audio")).note
    assert "4 x 4" in method.supports(toy_task((1, 3, 8))).note
    with pytest.raises(ValueError, match="fit"):
        method.separate(mix(torch.rand(2, 2, 1, 8, 8)), context(toy_task()))


def test_the_names_are_the_rows_of_the_papers_table() -> None:
    assert {name: made().restarts for name, made in PRESETS.items()} == {"s-d": 8, "s-d-1": 1, "s-d-32": 32}
    assert {made.info.title for made in PRESETS.values()} == {"S-D, 1 restart", "S-D, 8 restarts", "S-D, 32 restarts"}


@pytest.mark.parametrize(
    ("name", "steps"), [pytest.param("s-d", 400, marks=pytest.mark.slow), ("s-d-1", 40), pytest.param("s-d-32", 20, marks=pytest.mark.slow)]
)
def test_keeps_the_contract(broken_rules: Callable[..., list[str]], name: str, steps: int) -> None:
    assert broken_rules(name, "class-agnostic", steps=50, first_steps=40, last_steps=steps) == []
