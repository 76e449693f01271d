"""Rows of a leaderboard at the edges: order of tasks and metrics, values of sets, clusters that are not known, scores that do not fit."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthetic_run import SyntheticRun

from sepbench.data.lists.clusters import independent
from sepbench.errors import DataError, SepbenchError, SuiteError
from sepbench.results.leaderboard import _metric_order, build_leaderboard, clusters_of, outline
from sepbench.results.pooled import Parts
from sepbench.results.values import MetricValues, Values


def test_metrics_of_the_suite_come_first_in_its_order_and_others_by_name() -> None:
    assert _metric_order(("psnr", "ssim", "sdr"), {"ssim", "zeta", "alpha", "psnr"}) == ["psnr", "ssim", "alpha", "zeta"]
    assert _metric_order((), set()) == []


def test_tasks_that_the_suite_does_not_have_come_last() -> None:
    run = SyntheticRun({"nmf": 1.0}, tasks=("class-agnostic", "class-split"), n=3, metrics=("psnr",))
    run.record["tasks"] = {"gone": run.record["tasks"]["class-split"], **run.record["tasks"]}
    frame = run.frame()
    suite_order = [task for task in run.suite.tasks if task in ("class-split", "class-agnostic")]
    assert frame["task"].tolist() == [*suite_order, "gone"]
    assert frame["n_scored"].tolist() == [3, 3, 0]


def test_clusters_that_are_not_known_are_none_and_malformed_ones_an_error() -> None:
    def suite(error: Exception | None) -> Any:
        def clusters() -> Any:
            if error is not None:
                raise error
            return independent(3)

        return SimpleNamespace(tasks={"t": SimpleNamespace(clusters=clusters)})

    assert clusters_of(None, "t") is None
    assert clusters_of(suite(None), "other") is None
    assert clusters_of(suite(DataError("not here")), "t") is None
    known = clusters_of(suite(None), "t")
    assert known is not None
    assert len(known) == 3
    with pytest.raises(SuiteError, match="malformed"):
        clusters_of(suite(SuiteError("malformed")), "t")


@pytest.mark.parametrize("examples", [[0, 1, 3], [-1, 0, 1]])
def test_scores_beyond_the_plan_do_not_fit(examples: list[int]) -> None:
    run = SyntheticRun({"nmf": 1.0}, n=3, metrics=("psnr",))
    values = Values(lambda task, method: {"psnr": MetricValues(np.array(examples), np.ones(3))})
    with pytest.raises(SepbenchError) as caught:
        build_leaderboard(values, run.run_record(), run.cell_records(), run.suite)
    assert str(caught.value) == "the scores of task class-split do not fit the plan in run.json; run again into a new folder"


def row(cell: MetricValues, metric: str = "psnr", n: int = 4) -> dict[str, Any]:
    run = SyntheticRun({"nmf": 1.0}, n=n, metrics=(metric,))
    values = Values(lambda task, method: {metric: cell})
    (found,) = build_leaderboard(values, run.run_record(), run.cell_records(), run.suite).to_dict("records")
    return found  # type: ignore[return-value]


class Pool:
    """What the value of a set is made of."""

    spread = "by hand"
    scored = np.array([True, True, True, False])

    def std(self, among: Any) -> float:
        assert among.tolist() == [True, True, True, False]
        return 12.5


def test_of_a_set_s_values_their_own_spread_means_nothing() -> None:
    parts: Any = Pool()
    found = row(MetricValues(np.arange(4), np.array([1.0, 2.0, 6.0, math.nan]), parts=parts))
    assert (found["mean"], found["std"], found["interval"]) == (3.0, 12.5, "cluster t, by hand")
    assert math.isnan(found["median"])
    assert (found["n_scored"], found["n_failed"], found["n_expected"]) == (3, 1, 4)
    plain = row(MetricValues(np.arange(4), np.array([1.0, 2.0, 6.0, math.nan])))
    assert (plain["median"], plain["interval"], plain["std"]) == (2.0, "cluster t", pytest.approx(math.sqrt(7)))


def test_a_set_of_too_few_images_is_scored_and_has_no_value() -> None:
    parts = Parts("psnr_pooled32", np.arange(4), {"mse": np.array([[0.1, 0.1, 0.1, math.nan]])})
    found = row(MetricValues(np.arange(4), np.full(4, math.nan), parts=parts))
    assert (found["n_scored"], found["n_failed"], found["interval"], found["cluster"]) == (3, 1, "", "mixture")
    assert math.isnan(found["mean"])
    nothing = row(MetricValues(np.arange(4), np.full(4, math.nan)))
    assert (nothing["n_scored"], nothing["n_failed"], nothing["interval"], nothing["cluster"]) == (0, 4, "", "")


@pytest.mark.parametrize("grid", [{}, {"class-split": ["nmf", "average"]}], ids=["as planned", "with a grid"])
def test_scores_of_a_method_count_before_its_cell_is_recorded(grid: dict[str, list[str]]) -> None:
    run = SyntheticRun({"nmf": 16.0, "average": 1.0}, n=5, metrics=("psnr",))
    run.record["grid"] = grid
    before = run.frame().set_index("method")
    del run.cells["class-split", "nmf"]
    after = run.frame().set_index("method")
    assert after.loc["nmf", "mean"] == before.loc["nmf", "mean"]
    assert (after.loc["nmf", "n_scored"], after.loc["nmf", "n_expected"]) == (5, 5)
    assert list(after.index) == list(before.index) == ["nmf", "average"]
    assert after.loc["average"].equals(before.loc["average"])


def test_a_method_has_rows_on_the_tasks_alone_that_it_was_asked_for() -> None:
    run = SyntheticRun({"nmf": 16.0, "average": 1.0}, tasks=("class-split", "class-agnostic"), n=3, metrics=("psnr",))
    run.record["grid"] = {"class-split": ["average", "nmf"], "class-agnostic": ["nmf"]}
    rows = [(row["task"], row["method"], row["n_scored"]) for row in run.frame().to_dict("records")]
    assert rows == [("class-split", "average", 3), ("class-split", "nmf", 3), ("class-agnostic", "nmf", 3)]


def test_a_method_that_failed_as_a_whole_failed_on_every_mixture_that_was_planned() -> None:
    run = SyntheticRun({"nmf": 1.0}, n=5, metrics=("psnr",))
    run.cells["class-split", "nmf"] |= {"state": "failed", "n_planned": 3}
    (found,) = outline(run.run_record(), run.cell_records(), run.suite).to_dict("records")
    assert (found["n_expected"], found["n_scored"], found["n_failed"]) == (3, 0, 3)
    values = Values(lambda task, method: {"psnr": MetricValues(np.arange(3), np.array([1.0, 2.0, math.nan]))})
    (partly,) = build_leaderboard(values, run.run_record(), run.cell_records(), run.suite).to_dict("records")
    assert (partly["n_scored"], partly["n_failed"]) == (2, 1)
