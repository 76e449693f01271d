"""What results say of a prior: kind, size and digest of what was really loaded."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from method_toys import ToyView, context, toy_task

from baselines.basis import PRESETS, Basis
from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.priors import for_task, user_prior
from baselines.priors.edm import EDMDenoiser
from baselines.priors.for_task import digests, prior_label, prior_support, priors_for, run_by
from baselines.priors.score_prior import EDMPrior, NCSNPrior
from baselines.priors.shipped import ShippedWeights, shipped_weights
from baselines.priors.user_prior import UserPrior
from baselines.priors.weights_io import load_prior, read_card, save_prior
from sepbench.errors import SepbenchError, UnsupportedTaskError
from sepbench.protocols import Support, TaskSpec
from sepbench.registry import create_separator
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


class Asked:
    """Stands for what ships and for the files of users, and writes down what is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ships: str) -> None:
        self.log: list[tuple[object, ...]] = []
        self.ships = ships
        monkeypatch.setattr(for_task, "find_weights", self.find)
        monkeypatch.setattr(for_task, "check_weights", lambda path, sha256: self.log.append(("checked", path.name, sha256)))
        monkeypatch.setattr(for_task, "load_prior", lambda path, *how: self.log.append(("loaded", path.name, *how)) or f"prior {path.stem}")
        monkeypatch.setattr(user_prior, "check", lambda *how: self.log.append(("user's", *how)))
        monkeypatch.setattr(user_prior, "load", lambda *how: self.log.append(("user's", *how)) or ["own"])

    def find(self, task: TaskSpec, slot: int, per_class: bool) -> ShippedWeights | None:
        name = task.source_classes[slot] if per_class else "all"
        return ShippedWeights(name, "d", "", (1, 8, 8), f"sha of {name}") if name in self.ships else None


def support(task: TaskSpec, per_class: bool, weights: str = "", ten: bool = False) -> Support:
    return prior_support(task, weights, method="m", per_class=per_class, ten_levels_do=ten)


def test_what_ships_for_every_source_is_enough_and_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task, asked = toy_task(classes=("a", "b", "a")), Asked(monkeypatch, "a", "b", "all")
    assert support(task, True) == Support(True)
    assert asked.log == [("checked", "a.safetensors", "sha of a"), ("checked", "b.safetensors", "sha of b")]
    asked.log.clear()
    assert support(task, False) == Support(True)
    assert asked.log == [("checked", "all.safetensors", "sha of all")]


@pytest.mark.parametrize(
    ("per_class", "datasets", "what"),
    [(True, ("first", "second"), "second of class b"), (True, (), "toys of class b"), (False, ("first", "second"), "first"), (False, (), "toys")],
)
def test_what_does_not_ship_is_named(per_class: bool, datasets: tuple[str, ...], what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, "a")
    found = support(replace(toy_task(), datasets=datasets), per_class)
    assert found == Support(False, f"no prior ships for {what} at 1x8x8; train one and give it with --set m.weights=FILE")
    assert asked.log == ([("checked", "a.safetensors", "sha of a")] if per_class else [])


def test_where_the_prior_is_known_there_are_no_classes_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    Asked(monkeypatch)
    task = replace(toy_task(), analytic_prior=True)
    assert support(task, False) == Support(True)
    assert support(task, True) == Support(False, "the true prior of every source is known here and every sampler gets it; there are no classes to learn")


@pytest.mark.parametrize("ten", [False, True])
@pytest.mark.parametrize(("per_class", "count"), [(False, 1), (True, 2)])
def test_a_users_weights_are_checked_and_nothing_else(per_class: bool, count: int, ten: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    task, asked = replace(toy_task(), analytic_prior=True), Asked(monkeypatch)
    assert support(task, per_class, "x.safetensors", ten) == Support(True)
    assert asked.log == [("user's", "x.safetensors", task, "m", count, ten)]


def test_priors_and_their_digests_come_from_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's, else the true ones, else those that ship: one per class, or one of all classes for all sources."""
    task, asked = toy_task(), Asked(monkeypatch, "a", "b", "all")
    view = ToyView(task, "prior")
    how = {"precision": "bfloat16", "device": "cpu"}
    assert priors_for(task, view, "", per_class=True, **how) == (["prior a", "prior b"], "sha of a,sha of b")  # type: ignore[arg-type]
    assert asked.log[0] == ("loaded", "a.safetensors", "sha of a", "bfloat16", "cpu")
    assert priors_for(task, view, "", per_class=False, **how) == (["prior all"], "sha of all")  # type: ignore[arg-type]
    asked.log.clear()
    monkeypatch.setattr(user_prior, "digests", lambda weights: f"digests of {weights}")
    assert priors_for(task, view, "x:Y", per_class=True, **how) == (["own"], "digests of x:Y")  # type: ignore[arg-type]
    assert asked.log == [("user's", "x:Y", task, "bfloat16", "cpu")]
    view.prior = lambda slot: f"true {slot}"  # type: ignore[method-assign, assignment, return-value]
    assert priors_for(replace(task, analytic_prior=True), view, "", per_class=False, **how) == (["true 0", "true 1"], "")  # type: ignore[arg-type]
    asked.ships = ("a",)
    with pytest.raises(UnsupportedTaskError) as refused:
        priors_for(task, view, "", per_class=True, **how)  # type: ignore[arg-type]
    assert str(refused.value) == "no prior ships for task toys/task; train one with `sepbench train`"
    assert (digests(""), digests("x:Y")) == ("", "digests of x:Y")


def test_engines_run_the_networks_of_ours_alone() -> None:
    edm = EDMPrior(EDMDenoiser(torch.nn.Identity(), 0.3, 0.2), (1, 8, 8), (0.01, 1.0))
    ncsn, own = NCSNPrior(CondRefineNetDilated(1, 4), (1, 8, 8)), UserPrior("mine:Flat", Flat())
    made = run_by([ncsn, edm, own], "graph")
    assert (made[0], made[2]) == (ncsn, own)
    assert isinstance(made[1], EDMPrior)
    assert (made[1].engine.kind, edm.engine.kind) == ("graph", "eager")
    assert made[1].denoiser is edm.denoiser


@pytest.mark.parametrize(("count", "size"), [(999_499, "999 k"), (1_000_000, "1.0 M"), (999_999, "1000 k"), (400, "0 k"), (2_149_000, "2.1 M")])
def test_sizes_as_labels_tell_them(count: int, size: str) -> None:
    network = torch.nn.ParameterList([torch.nn.Parameter(torch.empty(count - 1, device="meta")), torch.nn.Parameter(torch.empty(1, device="meta"))])
    prior = EDMPrior(EDMDenoiser(network, 0.3, 0.2), (1, 8, 8), (0.01, 1.0))
    assert prior_label([prior], ",0123456789,") == f"EDM U-Net, {size}, 01234567"


def test_a_prior_of_ten_levels_is_refused_where_others_are_asked_for(tmp_path: Path) -> None:
    network = CondRefineNetDilated(1, 4)
    weights = str(save_prior(tmp_path / "ncsn.safetensors", NCSNPrior(network, (1, 8, 8))))
    task = load_suite("digits-pairs").tasks["class-split"].spec
    for name, settings in (("basis-ncsn", {}), ("basis-ncsn-code", {}), ("basis-ncsn", {"best_of": 2, "criterion": "mixture-error"})):
        assert create_separator(name, {"weights": weights, **settings}).supports(task).ok
    for name, settings in (("projected", {}), ("basis-ncsn-10x", {}), ("basis-ncsn-tuned", {}), ("basis-ncsn", {"precision": "bfloat16"})):
        with pytest.raises(SepbenchError, match="knows ten noise levels only"):
            create_separator(name, {"weights": weights, **settings}).supports(task)
