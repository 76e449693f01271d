"""What results say of a prior: kind, size and digest of what was really loaded."""

from __future__ import annotations

import runpy
from pathlib import Path

import pandas as pd
import pytest
import torch
from method_toys import ToyView, context, toy_task

from baselines.basis import PRESETS, Basis
from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.priors.for_task import prior_label
from baselines.priors.score_prior import NCSNPrior
from baselines.priors.shipped import shipped_weights
from baselines.priors.user_prior import UserPrior
from baselines.priors.weights_io import load_prior, read_card, save_prior
from sepbench.suites.loader import load_suite


class Flat:
    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return -x


@pytest.mark.parametrize("entry", shipped_weights(), ids=lambda entry: f"{entry.name}-{entry.dataset}")
def test_the_priors_that_ship(entry: object) -> None:
    path, sha256 = entry.path, entry.sha256  # type: ignore[attr-defined]
    parameters = read_card(path)["parameters"]
    size = f"{parameters / 1e6:.1f} M" if parameters > 1e6 else f"{parameters / 1e3:.0f} k"
    assert prior_label([load_prior(path)], sha256) == f"EDM U-Net, {size}, {sha256[:8]}"


def test_class_wise_priors_of_one_kind_are_named_once() -> None:
    prior = load_prior(next(entry.path for entry in shipped_weights() if entry.name == "digits-all"))
    assert prior_label([prior, prior], "a" * 64 + "," + "b" * 64) == "EDM U-Net, 118 k, aaaaaaaa + bbbbbbbb"
    assert prior_label([prior, prior], "a" * 64 + "," + "a" * 64) == "EDM U-Net, 118 k, aaaaaaaa"


def test_the_published_network_and_a_users_object() -> None:
    ncsn = NCSNPrior(CondRefineNetDilated(1, 64).eval(), (1, 28, 28))
    assert prior_label([ncsn], "c" * 64) == "NCSN RefineNet, 7.6 M, cccccccc"
    assert prior_label([UserPrior("mine:Flat", Flat())], "d" * 64) == "mine:Flat, dddddddd"
    assert prior_label([UserPrior("mine:Flat", Flat()), ncsn], "") == "mine:Flat + NCSN RefineNet, 7.6 M"


def test_a_separator_names_the_prior_that_it_was_given(tmp_path: Path) -> None:
    """The registered name ends in ncsn whatever the network is; the label tells."""
    with torch.random.fork_rng():
        weights = save_prior(tmp_path / "small.safetensors", NCSNPrior(CondRefineNetDilated(1, 4).eval(), (1, 8, 8)))
    task = toy_task()
    method = Basis(weights=str(weights))
    assert method.prior_label == ""
    method.fit(ToyView(task, "prior"), context(task))
    assert method.prior_label == f"NCSN RefineNet, {prior_label(method._priors, '').split(', ')[1]}, {method.weights_sha256[:8]}"


def test_where_the_density_is_known_the_prior_is_exact() -> None:
    suite = load_suite("gmm-exact")
    task = next(iter(suite.tasks.values()))
    method = Basis()
    method.fit(task.view("prior"), context(task.spec))
    assert method.prior_label == "exact"


def test_rows_made_before_the_column_are_named_by_their_weights() -> None:
    script = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "name_priors.py"))
    (entry,) = [one for one in shipped_weights() if one.name == "digits-all"]
    weights = {"old": entry.sha256, "none": "", "other": "f" * 64, "said": entry.sha256}
    frame = pd.DataFrame({"weights_sha256": list(weights.values()), "prior": ["", "", "", "mine"]}, index=list(weights))
    named, unknown = script["name_priors"](frame, {entry.sha256: entry.path})
    assert dict(named["prior"]) == {"old": f"EDM U-Net, 118 k, {entry.sha256[:8]}", "none": "", "other": "", "said": "mine"}
    assert unknown == {"f" * 64}


def test_no_title_claims_the_published_network() -> None:
    """Which network a row stands on depends on its weights, which a title cannot know."""
    assert not [name for name, cls in PRESETS.items() if "NCSN" in cls.info.title]
