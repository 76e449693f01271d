"""Projected diffusion with as many draws as needed: on digits with the prior that ships, and what its settings say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from method_toys import ToyView, context, toy_task

from baselines.projected_auto import ProjectedAuto
from baselines.sampling.draw_until import clean_level
from sepbench.conformance import validate_method
from sepbench.errors import SepbenchError
from sepbench.registry import create_separator
from sepbench.selection import by_truth
from sepbench.suites.loader import load_suite

DIGITS = load_suite("digits-pairs").tasks


def _fitted(task: str = "class-split", **settings: Any) -> ProjectedAuto:
    separator = create_separator("projected-auto", settings)
    assert isinstance(separator, ProjectedAuto)
    separator.fit(DIGITS[task].view("prior"), context(DIGITS[task].spec))
    return separator


@pytest.mark.slow
def test_digits_are_separated_with_the_prior_that_ships() -> None:
    """Average stands at 14.6 dB, projected at 19.6 on 100 mixtures."""
    task, separator, ids = DIGITS["class-split"], _fitted(), torch.arange(40)
    ctx = context(task.spec)
    problem = separator.problem(task.mixture_set().mixtures(ids), ctx)
    estimates = separator.estimate(problem, ctx)
    assert float(by_truth(estimates.unsqueeze(1), task.mixture_set().sources(ids), task.spec).mean()) > 18.0
    one = separator.search_steps + separator.finish_steps
    assert one < problem.evaluations < one + (separator.most_draws - 1) * separator.search_steps


@pytest.mark.slow
def test_it_holds_the_contract_on_digits() -> None:
    checks = validate_method("projected-auto", DIGITS["class-agnostic"], settings={"most_draws": 3, "calibration": 32}, examples=3)
    assert [f"{check.rule}: {check.detail}" for check in checks if check.passed is False] == []


def test_the_first_sample_is_the_estimate_and_the_others_are_not() -> None:
    task, separator = DIGITS["class-split"], _fitted(most_draws=2, search_steps=6, finish_steps=2)
    ctx, mixtures = context(task.spec), task.mixture_set().mixtures(torch.arange(3))
    samples = separator.sample(mixtures, 2, ctx)
    torch.testing.assert_close(samples[:, 0], separator.separate(mixtures, ctx), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(samples[:, 0], samples[:, 1], atol=1e-3)


def test_what_each_mixture_cost_does_not_depend_on_its_batch() -> None:
    task, separator, ids = DIGITS["class-split"], _fitted(most_draws=4, search_steps=6, finish_steps=2, accept=5.0), torch.arange(8)
    ctx, mixtures = context(task.spec), task.mixture_set().mixtures(ids)
    spent = separator.drawn(separator.problem(mixtures, ctx), ctx)[1]
    assert len(spent.unique()) > 1  # or the test says nothing
    separator.separate(mixtures, ctx)
    assert separator.network_evaluations().tolist() == spent.tolist()  # type: ignore[union-attr]
    alone = []
    for one in ids.split(3):
        separator.separate(task.mixture_set().mixtures(one), ctx)
        alone += separator.network_evaluations().tolist()  # type: ignore[union-attr]
    assert alone == spent.tolist()


def test_a_stricter_threshold_costs_more_evaluations() -> None:
    task, ids, costs = DIGITS["class-split"], torch.arange(12), []
    for accept in (100.0, 0.0, -100.0):
        separator = _fitted(accept=accept, most_draws=3, finalists=3)
        problem = separator.problem(task.mixture_set().mixtures(ids), context(task.spec))
        separator.estimate(problem, context(task.spec))
        costs.append(problem.evaluations)
    probes = 3 * len(separator.probe_sigmas)
    assert costs[0] == separator.search_steps + separator.finish_steps
    assert costs[2] == 3 * separator.search_steps + separator.finish_steps + probes
    assert costs[0] <= costs[1] <= costs[2]


def test_the_threshold_follows_from_clean_training_images_alone() -> None:
    """K images of one Gaussian lose K times what one does; the view is asked for nothing else."""
    centre, spread = torch.full((1, 1, 8, 8), 0.5), 0.1
    prior = SimpleNamespace(denoise=lambda x, sigma: centre + spread**2 / (spread**2 + sigma**2) * (x - centre))
    task = toy_task()
    clean = centre + spread * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    separator = create_separator("projected-auto", {"calibration": 50})
    assert isinstance(separator, ProjectedAuto)
    view = ToyView(task, "prior", pooled=clean)
    separator._priors = [prior]
    separator.calibrate(view, context(task))  # type: ignore[arg-type]
    assert view.asked == [("clean", 50)]
    chain = separator.chain(context(task))
    sigmas = [chain.search[i] for i in chain.counted]
    expected = 2 * sum(64 * spread**2 / (spread**2 + sigma**2) for sigma in sigmas) / len(sigmas)
    assert separator.enough(0.0)[0] == pytest.approx(expected, rel=0.05)
    assert separator.enough(0.0) == sorted(separator.enough(0.0))
    assert separator.enough(1.0)[0] > separator.enough(0.0)[0]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"middle": 2.0}, "lowest below middle below highest"),
        ({"middle": 0.01}, "lowest below middle below highest"),
        ({"judged": 0.1}, "judged must be at least middle"),
        ({"probe_sigmas": ()}, "at least 1"),
        ({"most_draws": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(SepbenchError, match=reason):
        create_separator("projected-auto", settings)


def test_it_takes_images_under_any_operator() -> None:
    separator = create_separator("projected-auto", {})
    assert separator.info.domains == {"image"}
    assert all(separator.supports(replace(DIGITS["class-split"].spec, operator=name)).ok for name in ("mean", "gain"))


def test_what_is_enough_counts_in_standard_deviations_of_two_clean_images() -> None:
    separator, task = _fitted(relax=0.25, most_draws=3), DIGITS["class-split"]
    chain = separator.chain(context(task.spec))
    sigmas, clean = [chain.search[i] for i in chain.counted], task.view("prior").clean(separator.calibration)
    mean, std = clean_level(separator.score_prior(0), clean, sigmas, context(task.spec).noise)
    assert separator.enough(1.0) == pytest.approx([2 * mean + (1.0 + 0.25 * draw) * 2**0.5 * std for draw in range(3)])
