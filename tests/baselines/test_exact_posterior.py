"""The exact sampler: the contract, its moments, and where it does not apply."""

from __future__ import annotations

import pytest
import torch
from method_toys import context, toy_task

from baselines.exact_posterior import ExactPosteriorSampler
from sepbench.conformance import validate_method
from sepbench.errors import MethodError
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures
from sepbench.suites.loader import load_suite

SUITES = ["gaussian-exact", "gmm-exact"]


@pytest.mark.parametrize("suite", SUITES)
def test_it_keeps_the_contract(suite: str) -> None:
    checks = validate_method("exact-posterior", load_suite(suite).tasks["d2"])
    assert [f"{c.rule}: {c.detail}" for c in checks if c.passed is False] == []


@pytest.mark.parametrize(("suite", "task"), [("gaussian-exact", "d8-three"), ("gmm-exact", "d2")])
def test_draws_have_the_exact_moments_and_explain_the_mixture(suite: str, task: str) -> None:
    found = load_suite(suite).tasks[task]
    method, ctx = ExactPosteriorSampler(), context(found.spec, seed=7)
    method.fit(found.view("bound"), ctx)
    mixtures = found.mixture_set().mixtures(range(3))
    draws = method.sample(mixtures, 5000, ctx)
    assert draws.dtype == torch.float32
    torch.testing.assert_close(draws[:, 0], method.separate(mixtures, ctx))
    torch.testing.assert_close(draws.sum(2), mixtures.values[:, None].expand(-1, 5000, -1), atol=1e-5, rtol=0)
    mean, covariance = found.exact_posterior().moments(mixtures.values)
    sampled = torch.stack([torch.cov(d.double().flatten(1).T) for d in draws])
    assert float((sampled - covariance).norm()) < 0.1 * float(covariance.norm())  # at 5,000 draws: 0.02 to 0.03
    spread = covariance.diagonal(dim1=1, dim2=2).unflatten(1, mean.shape[1:]).sqrt()
    assert bool(((draws.double().mean(1) - mean).abs() < 5 * spread / 5000**0.5 + 1e-6).all())


def test_it_refuses_what_it_cannot_do() -> None:
    support = ExactPosteriorSampler().supports(toy_task())
    assert not support.ok
    assert "closed form" in support.note
    with pytest.raises(MethodError, match="before fit"):
        ExactPosteriorSampler().separate(Mixtures(torch.zeros(1, 2), torch.arange(1), make_operator("sum", 2)), context(toy_task()))
