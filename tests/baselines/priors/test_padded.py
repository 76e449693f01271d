"""Priors of images for tasks that pad them: the border is zero and known, the middle is the prior's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from method_toys import ToyView, context, mix, toy_task
from setting_worlds import tiny_prior
from torch.nn.functional import pad

from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.priors.for_task import prior_label, priors_for, run_by
from baselines.priors.padded import PaddedDensity, PaddedFlow, PaddedPrior, padded
from baselines.priors.score_prior import EDMPrior, NCSNPrior
from baselines.priors.user_prior import UserPrior, check, load, load_reference
from baselines.priors.weights_io import load_prior
from baselines.projected import Projected
from sepbench.errors import DataError
from sepbench.noise import NoiseSource
from sepbench.protocols import HasDensity, TaskSpec
from sepbench.selection import EstimatesDensity

INNER, OUTER = (1, 8, 8), (1, 12, 12)
TASK = replace(toy_task(shape=OUTER), padding=2)


class Flat:
    """Independent pixels N(0.3, 0.4^2)."""

    shape = INNER

    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        level = torch.as_tensor(sigma).reshape(-1, *[1] * (x.ndim - 1))
        return (0.3 - x) / (0.16 + level**2)


class Dense(Flat):
    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return -((x - 0.3) ** 2).flatten(1).sum(1)


@dataclass(frozen=True)
class Known:
    """A prior whose every pixel is N(0.3, 0.4^2) in the middle and N(0, 1e-12) in the border: what padding is the limit of."""

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        return pad(torch.full(INNER, 0.3), [2] * 4), pad(torch.full(INNER, 0.16), [2] * 4, value=1e-12)

    def score(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        mean, variance = self.moments()
        return (mean - x) / (variance + level**2)


@pytest.mark.parametrize("sigma", [0.02, 0.7, torch.tensor([0.02, 0.4, 2.0])])
def test_it_is_the_limit_of_a_border_of_vanishing_variance(sigma: float | torch.Tensor) -> None:
    prior = padded(UserPrior("mine:Flat", Flat()), INNER, OUTER)
    x = torch.randn(3, *OUTER, generator=torch.Generator().manual_seed(1))
    level = torch.as_tensor(sigma).reshape(-1, 1, 1, 1)
    wanted = Known().score(x, level)
    torch.testing.assert_close(prior.score(x, sigma), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(prior.denoise(x, sigma), x + level**2 * wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(pad(prior.denoise(x, sigma)[..., 2:-2, 2:-2], [2] * 4), prior.denoise(x, sigma))


def test_leading_axes_and_colours_stay() -> None:
    prior = PaddedPrior(UserPrior("mine:Flat", Flat()), 1)
    x = torch.rand(2, 3, 6, 4)
    assert prior.denoise(x, 0.5).shape == prior.score(x, 0.5).shape == x.shape
    assert prior.middle(x).shape == (2, 3, 4, 2)


def test_a_prior_keeps_the_densities_that_it_has(tmp_path: Path) -> None:
    edm, ten = load_prior(Path(tiny_prior(tmp_path, 1))), NCSNPrior(CondRefineNetDilated(1, 4), INNER)
    assert padded(edm, INNER, INNER) is edm
    dense = padded(Dense(), INNER, OUTER)  # type: ignore[arg-type]
    assert type(padded(ten, INNER, OUTER)) is PaddedPrior
    assert type(dense) is PaddedDensity
    flow = padded(edm, INNER, OUTER)
    assert isinstance(flow, PaddedFlow)
    assert (isinstance(flow, EstimatesDensity), isinstance(dense, EstimatesDensity), isinstance(dense, HasDensity)) == (True, False, True)
    x = torch.rand(2, *OUTER)
    middle = x[..., 2:-2, 2:-2]
    assert isinstance(dense, HasDensity)
    assert torch.equal(dense.log_prob(x), Dense().log_prob(middle))
    how = {"steps": 2, "spacing": 8}
    ids, noise = torch.tensor([3, 4]), NoiseSource(7)
    assert isinstance(edm, EDMPrior)
    assert torch.equal(flow.estimated_log_prob(x, ids, noise, **how), edm.estimated_log_prob(middle, ids, noise, **how))


def test_weights_of_either_shape_serve_a_task_that_pads(tmp_path: Path) -> None:
    path = tiny_prior(tmp_path, 1)
    check(path, TASK, "projected", 1, ten_levels_do=False)
    (small,), (whole,) = load(path, TASK, "float32", "cpu"), load(path, toy_task(), "float32", "cpu")
    assert isinstance(small, PaddedFlow)
    assert small.padding == 2
    assert isinstance(whole, EDMPrior)
    for other in (replace(TASK, padding=0), replace(TASK, padding=1)):
        with pytest.raises(DataError, match="was trained on signals of shape 1x8x8, task task has 1x12x12"):
            check(path, other, "projected", 1, ten_levels_do=False)
    reference = f"{Path(__file__).stem}:Flat"
    assert isinstance(load_reference(reference, OUTER, INNER), PaddedPrior)
    assert isinstance(load_reference(reference, INNER), UserPrior)
    with pytest.raises(DataError, match="is for signals of shape"):
        load_reference(reference, OUTER)


def test_engine_and_label_are_those_of_the_prior_inside(tmp_path: Path) -> None:
    path = tiny_prior(tmp_path, 1)
    found, digest = priors_for(TASK, ToyView(TASK, "prior"), path, per_class=False, precision="float32", device="cpu")
    (made,) = run_by(found, "graph")
    assert isinstance(made, PaddedFlow)
    assert isinstance(made.inner, EDMPrior)
    assert made.inner.engine.kind == "graph"
    assert prior_label(found, digest) == prior_label([made.inner], digest)


@pytest.mark.parametrize(("task", "padding"), [(TASK, 2), (toy_task(), 0)])
def test_estimates_explain_the_mixture_and_end_in_zeros(task: TaskSpec, padding: int, tmp_path: Path) -> None:
    method = Projected(weights=tiny_prior(tmp_path, 1), steps=4, best_of=2)
    assert method.supports(task).ok
    method.fit(ToyView(task, "prior"), context(task))
    sources = pad(torch.rand(3, 2, *INNER, generator=torch.Generator().manual_seed(2)), [padding] * 4)
    mixtures = mix(sources)
    estimates = method.separate(mixtures, context(task))
    torch.testing.assert_close(estimates.sum(1), mixtures.values, rtol=0, atol=1e-5)
    inside = estimates[..., padding : 8 + padding, padding : 8 + padding]
    assert torch.equal(estimates, pad(inside, [padding] * 4))


def test_one_prior_for_all_sources_takes_no_ordered_task(tmp_path: Path) -> None:
    ordered, path = replace(toy_task(), assignment="ordered"), tiny_prior(tmp_path, 1)
    refused = Projected(weights=path).supports(ordered)
    assert refused.note == (
        "one prior for all sources cannot tell which source is which; choose a task under the best assignment, "
        "or a method with a prior per class, such as projected-4x-per-class"
    )
    assert not refused.ok
    assert Projected(weights=path).supports(toy_task()).ok


def test_one_prior_takes_a_single_source_in_order(tmp_path: Path) -> None:
    """Colorization: there is no other source to be told from."""
    alone = replace(toy_task(INNER, classes=("a",)), assignment="ordered")
    assert Projected(weights=tiny_prior(tmp_path, 1)).supports(alone).ok
