"""Generated sources: the stated distributions, on the stated grids, the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sepbench.data.datasets import analytic_prior, manifest_of, open_dataset
from sepbench.data.synthesis.generated import PREFIX, SIZES, generated_names, generated_prior
from sepbench.errors import DataError

NAMES = generated_names()


@pytest.mark.parametrize("name", NAMES)
def test_splits_have_their_sizes_and_their_grid(name: str) -> None:
    prior = generated_prior(name)
    for split, count in SIZES.items():
        signals = open_dataset(name, split)
        assert (signals.name, signals.split, signals.domain, signals.shape, len(signals)) == (name, split, "vector", (prior.dimension,), count)
        values = signals.load(range(count))
        assert values.dtype == torch.float32
        assert torch.equal((values * 2**16).round() / 2**16, values)
    assert manifest_of(name) == ""


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_proper_and_on_their_grids(name: str) -> None:
    prior = generated_prior(name)
    assert float(prior.weights.sum()) == 1.0
    assert torch.equal((prior.means * 2**16).round() / 2**16, prior.means)
    assert torch.equal((prior.covariances * 2**20).round() / 2**20, prior.covariances)
    assert torch.equal(prior.covariances, prior.covariances.transpose(1, 2))
    spread = (0.5, 0.1) if "gaussian" in name else (0.12, 0.04)
    deviations = torch.linalg.eigvalsh(prior.covariances).sqrt()
    expected = torch.from_numpy(np.geomspace(*spread, prior.dimension)[::-1].copy()).expand_as(deviations)
    torch.testing.assert_close(deviations, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_training_signals_have_the_priors_moments(name: str) -> None:
    prior, values = generated_prior(name), open_dataset(name, "train").load(range(SIZES["train"])).double()
    exact = prior.covariance()
    torch.testing.assert_close(values.mean(0), prior.mean(), atol=4.5 * float(exact.diagonal().max().sqrt()) / SIZES["train"] ** 0.5, rtol=0)
    assert float((torch.cov(values.T) - exact).norm() / exact.norm()) < 0.2


@pytest.mark.parametrize("dimension", [2, 8, 64])
def test_the_slots_of_a_mixture_family_share_offsets_and_covariances(dimension: int) -> None:
    first, second = (generated_prior(f"{PREFIX}gmm-d{dimension}-{slot}") for slot in range(2))
    assert torch.equal(first.covariances, second.covariances)
    assert not torch.equal(first.weights, second.weights)
    torch.testing.assert_close(first.means - first.means.mean(0), second.means - second.means.mean(0), atol=2e-4, rtol=0)
    apart = torch.cdist(first.means, first.means)
    apart = apart[~torch.eye(len(apart), dtype=torch.bool)]
    torch.testing.assert_close(apart, apart.mean().expand_as(apart), atol=2e-4, rtol=0)  # a regular simplex
    assert float(apart.min()) > 0.7


def test_data_sets_are_independent_of_each_other_and_of_their_splits() -> None:
    seen = [open_dataset(f"{PREFIX}{family}-d8-{slot}", split).load([0]) for family in ("gaussian", "gmm") for slot in range(2) for split in SIZES]
    assert len({row.numpy().tobytes() for row in seen}) == len(seen)


def test_unknown_names_are_one_line() -> None:
    with pytest.raises(DataError, match="unknown generated data set 'generated:gaussian-d3-0'; choose from generated:gaussian-d2-0") as caught:
        open_dataset("generated:gaussian-d3-0", "test")
    assert "\n" not in str(caught.value)
    assert analytic_prior("mnist") is None
