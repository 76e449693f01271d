"""Suites that score posterior draws, end to end: who takes part, what is stored, and that scores can be made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import run_fakes
import torch
from run_harness import Runner, bits
from safetensors.torch import load_file

from sepbench import registry
from sepbench.protocols import MethodInfo, Mixtures, RunContext
from sepbench.run.execute import rescore
from sepbench.run.plan import Plan, checked_metrics, make_plan
from sepbench.run.request import RequestError, RunRequest
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite


@dataclass
class BadDraws(run_fakes.Fake):
    """Draws in the way of ``how``."""

    info: ClassVar[MethodInfo] = run_fakes.info("bad-draws", domains=frozenset({"vector"}))
    how: str = "shape"

    def sample(self, mixtures: Mixtures, n: int, ctx: RunContext) -> torch.Tensor:
        draws = self.separate(mixtures, ctx)[:, None].repeat(1, n, *[1] * (mixtures.values.ndim))
        if self.how == "nan":
            draws[0] = torch.nan
        return draws[:, :1] if self.how == "shape" else draws


class VectorHalves(run_fakes.Fake):
    """Separates vectors and draws no samples."""

    info: ClassVar[MethodInfo] = run_fakes.info("vector-halves", domains=frozenset({"vector"}))


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("gaussian-exact")


@pytest.fixture
def exact_plan(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """A plan of six mixtures of d2 in shards of four."""
    found = registry._separators
    mine = {name: EntryPoint(name, f"test_posterior_draws:{cls}", registry.SEPARATOR_GROUP) for name, cls in FAKES.items()}
    monkeypatch.setattr(registry, "_separators", lambda: found() | mine)

    def make(*methods: str, **options: object) -> Plan:
        defaults: dict[str, object] = {"tasks": ("d2",), "limit": 6, "shard_size": 4, "device": "cpu", "budget": "quick"}
        return make_plan(RunRequest("gaussian-exact", methods, **(defaults | options)), suite)  # type: ignore[arg-type]

    return make


FAKES = {"bad-draws": "BadDraws", "vector-halves": "VectorHalves"}


def test_basis_and_the_exact_sampler_run_and_the_exact_one_is_better(exact_plan: Callable[..., Plan], runner: Runner) -> None:
    outcome, store = runner(exact_plan("exact-posterior", "basis-ncsn"))
    assert outcome.exit_code == 0
    stored = load_file(min((runner.folder / "estimates" / "d2--basis-ncsn").rglob("*.safetensors")))["estimates"]
    assert tuple(stored.shape) == (4, 256, 2, 2)
    scores = store.read_scores()
    assert len(scores) == 2 * 5 * 6
    assert set(scores["source"]) == {-1}
    assert np.isfinite(scores["value"]).all()
    means = scores.groupby(["method", "metric"], observed=True)["value"].mean()
    for metric in ("energy_distance", "posterior_mean_error", "posterior_cov_error"):  # ten steps per level are far too few for BASIS
        assert means["exact-posterior", metric] < means["basis-ncsn", metric]
    assert {store.read_cells()["d2", method].samples for method in ("exact-posterior", "basis-ncsn")} == {256}
    assert abs(means["exact-posterior", "c2st"] - 0.5) < 0.05


def test_methods_without_draws_or_vectors_are_told_why(exact_plan: Callable[..., Plan]) -> None:
    notes = {cell.method: cell.support for cell in exact_plan("vector-halves", "average", "halves").cells}
    assert not any(support.ok for support in notes.values())
    assert notes["vector-halves"].note == "draws no posterior samples, which is what this suite scores"


@pytest.mark.parametrize(("how", "message"), [("shape", "sample returned shape (4, 1, 2, 2) instead of (4, 256, 2, 2)"), ("nan", "not finite")])
def test_bad_draws_are_rows_with_their_error(exact_plan: Callable[..., Plan], runner: Runner, how: str, message: str) -> None:
    _, store = runner(exact_plan("bad-draws", settings={"bad-draws": {"how": how}}))
    assert message in store.read_cells()["d2", "bad-draws"].error


def test_shards_and_scoring_again_change_no_bit(exact_plan: Callable[..., Plan], tmp_path: Path, suite: Suite) -> None:
    _, store = Runner(tmp_path / "a")(exact_plan("exact-posterior"))
    _, other = Runner(tmp_path / "b")(exact_plan("exact-posterior", shard_size=6))
    before = bits(store.read_scores())
    assert bits(other.read_scores()) == before
    rescore(store.read_run(), suite, (), store)
    assert bits(store.read_scores()) == before


def test_metrics_of_the_other_kind_are_refused(suite: Suite) -> None:
    with pytest.raises(RequestError, match="'mixture_error' cannot score task 'd2', whose results are posterior draws"):
        checked_metrics(["mixture_error"], [suite.tasks["d2"].spec])
    digits = load_suite("digits-pairs").tasks["class-split"].spec
    with pytest.raises(RequestError, match="'c2st'"):
        checked_metrics(["c2st"], [digits])
