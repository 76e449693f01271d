"""Values of sets and of pools from what was scored: which examples they are made of, how often, and whole lines where they cannot be made."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sepbench.errors import SepbenchError
from sepbench.metrics.kinds import PooledMetric, SetMetric
from sepbench.metrics.sets.features import SetValue
from sepbench.results import pooled, sets, values
from sepbench.results.pooled import Parts, joined, parts_of, split_rows
from sepbench.results.score_files import Rows
from sepbench.results.sets import SetParts, set_metric
from sepbench.results.values import MetricValues, reduce_cell


class Distance:
    """The value of an image is the number that it has; remembers what it was asked for."""

    info = SimpleNamespace(name="distance")
    extractor = "toy"
    spread = "by hand"

    def __init__(self) -> None:
        self.pools: list[tuple[list[float], str]] = []

    def pool(self, features: Any, reference: Any) -> SetValue:
        self.pools.append((features.tolist(), reference))
        return SetValue(np.repeat(features, 2) + np.tile([0.0, 1.0], len(features)), 7.0 * len(features))


class Features:
    """Of two sources per example."""

    def of(self, extractor: str, examples: Any) -> Any:
        assert extractor == "toy"
        return examples.astype(float)

    def reference(self, extractor: str) -> str:
        return f"reference of {extractor}"


@pytest.fixture
def distance(monkeypatch: pytest.MonkeyPatch) -> Distance:
    metric = Distance()
    monkeypatch.setattr(sets, "get_metric", lambda name: metric)
    assert isinstance(metric, SetMetric)
    return metric


def seen(examples: list[int], lost: int = -1) -> Parts:
    there = np.array([[math.nan if example == lost else 1.0 for example in examples], [1.0] * len(examples)])
    return Parts("distance", np.array(examples), {"seen": there})


def test_a_set_s_value_is_made_once_of_the_examples_asked_for(distance: Distance) -> None:
    parts = SetParts("distance", seen([2, 5, 9], lost=5), Features())  # type: ignore[arg-type]
    assert (parts.examples.tolist(), parts.n_sources, parts.scored.tolist(), parts.spread) == ([2, 5, 9], 2, [True, False, True], "by hand")
    values_there = parts.pooled(parts.scored)
    assert values_there[[0, 2]].tolist() == [2.5, 9.5]  # the mean over the sources
    assert math.isnan(values_there[1])
    assert parts.std(parts.scored) == 14.0
    assert distance.pools == [([2.0, 9.0], "reference of toy")]
    some = parts.of(np.array([2, 0]))
    assert (some.examples.tolist(), some.seen.values["seen"].tolist()) == ([9, 2], [[1.0, 1.0], [1.0, 1.0]])
    assert some.pooled(np.array([True, False]))[0] == 9.5
    assert len(distance.pools) == 2


def test_of_no_example_nothing_is_made(distance: Distance) -> None:
    parts = SetParts("distance", seen([2, 5]), Features())  # type: ignore[arg-type]
    none = np.zeros(2, np.bool_)
    assert np.isnan(parts.pooled(none)).all()
    assert math.isnan(parts.std(none))
    assert distance.pools == []


def test_whole_lines_about_metrics_that_are_of_another_kind_here() -> None:
    for call, line in (
        (lambda: set_metric("psnr"), "the scores have features for psnr, which is not a metric of sets here; run `sepbench score` again"),
        (lambda: pooled.pooled_metric("psnr"), "the scores have parts of psnr, which is not a pooled metric here; run `sepbench score` again"),
        (lambda: values._set_parts(seen([1]), None, "t, m"), "the scores of t, m contain distance without features; run `sepbench score` again"),
    ):
        with pytest.raises(SepbenchError) as caught:
            call()
        assert str(caught.value) == line


@pytest.mark.parametrize("error", [ValueError("examples must agree"), KeyError("rate")])
def test_parts_that_a_metric_cannot_pool_are_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def pool(parts: object, examples: object) -> Any:
        raise error

    monkeypatch.setattr(pooled, "pooled_metric", lambda name: SimpleNamespace(pool=pool, spread="x"))
    with pytest.raises(SepbenchError) as caught:
        Parts("toy", np.arange(2), {"a": np.zeros((1, 2))}).pooled(np.ones(2, np.bool_))
    assert str(caught.value) == f"toy cannot be pooled from its scores: {error}; run `sepbench score` again"
    monkeypatch.setattr(pooled, "pooled_metric", lambda name: (_ for _ in ()).throw(RuntimeError("mine")))
    with pytest.raises(RuntimeError):
        Parts("toy", np.arange(2), {"a": np.zeros((1, 2))}).pooled(np.ones(2, np.bool_))


def test_of_a_pool_whose_examples_all_failed_nothing_is_known() -> None:
    """Not even whether the metric is installed."""
    parts = Parts("nobody-s", np.arange(3), {})
    assert (parts.n_sources, parts.spread, parts.scored.tolist()) == (1, "", [False] * 3)
    assert np.isnan(parts.pooled(np.ones(3, np.bool_))).all()


def test_a_pool_s_value_counts_the_others_as_failed() -> None:
    parts = Parts("psnr_pooled32", np.arange(4), {"mse": np.array([[0.1, 0.2, 0.3, 0.4], [0.2, 0.2, 0.2, 0.2]])})
    among = np.array([True, False, False, True])
    found = parts.pooled(among)
    assert np.isnan(found).tolist() == [False, True, True, False]
    assert np.nanmean(found) == pytest.approx(np.mean([-10 * np.log10(0.25), -10 * np.log10(0.2)]))


# --- rows of a file


def rows(metrics: tuple[str, ...], *columns: tuple[int, int, int, float, bool]) -> Rows:
    """Rows (example, source, metric, value, failed)."""
    example, source, metric, value, failed = zip(*columns, strict=True) if columns else ((),) * 5
    return Rows(np.array(example, np.int64), np.array(source, np.int64), np.array(metric, np.int32), np.array(value), np.array(failed, np.bool_), metrics)


def test_which_texts_of_a_file_belong_to_pooled_metrics() -> None:
    plain, of_pooled = split_rows(rows(("pool", "psnr", "pool/a", "set/seen", "pool/b", "other")))
    assert (plain, of_pooled) == ([1, 5], {"pool": {"a": 2, "b": 4, "": 0}, "set": {"seen": 3}})
    assert split_rows(rows(("psnr",))) == ([0], {})


def test_parts_of_a_file_by_source_and_example() -> None:
    texts = ("pool", "pool/a", "pool/b")
    scored = [(7, 2, 1, 1.0, False), (7, 0, 1, 2.0, False), (4, 0, 1, 3.0, False), (4, 2, 1, 9.0, True), (4, 0, 2, 5.0, False)]
    found = parts_of(rows(texts, *scored, (9, -1, 0, math.nan, True)), "pool", {"a": 1, "b": 2, "": 0}, "t, m")
    assert found is not None
    assert (found.metric, found.examples.tolist(), list(found.values)) == ("pool", [4, 7, 9], ["a", "b"])
    assert np.nan_to_num(found.values["a"], nan=-1).tolist() == [[3.0, 2.0, -1.0], [-1.0, 1.0, -1.0]]  # sources 0 and 2
    assert np.nan_to_num(found.values["b"], nan=-1).tolist() == [[5.0, -1.0, -1.0], [-1.0, -1.0, -1.0]]
    assert parts_of(rows(texts), "pool", {"a": 1}, "t, m") is None
    lost = parts_of(rows(texts, (9, -1, 0, math.nan, True)), "pool", {"a": 1, "": 0}, "t, m")
    assert lost is not None
    assert (lost.examples.tolist(), dict(lost.values)) == ([9], {})


def test_parts_that_one_file_lacks_are_missing_there() -> None:
    first = Parts("pool", np.array([5, 6]), {"a": np.ones((2, 2)), "b": np.ones((2, 2))})
    second = Parts("pool", np.array([1]), {"a": np.full((2, 1), 3.0)})
    whole = joined([first, second], "t, m")
    assert whole.examples.tolist() == [1, 5, 6]
    assert whole.values["a"].tolist() == [[3.0, 1.0, 1.0]] * 2
    assert whole.scored.tolist() == [False, True, True]
    for parts, told in (
        ([first, first], "the scores of t, m contain pool of an example twice; run `sepbench score` again"),
        (
            [first, Parts("pool", np.array([1]), {"a": np.ones((1, 1))})],
            "the scores of t, m contain pool of other sources in other files; run `sepbench score` again",
        ),
    ):
        with pytest.raises(SepbenchError) as caught:
            joined(parts, "t, m")
        assert str(caught.value) == told


def test_a_file_in_which_every_example_failed_joins_the_pool() -> None:
    """Its rows carry the metric's own name; in another file the same metric has parts."""
    texts = ("psnr_pooled32", "psnr_pooled32/mse")
    found = reduce_cell(lambda: [rows(texts[:1], (0, -1, 0, math.nan, True)), rows(texts, (1, 0, 1, 0.1, False), (2, 0, 1, 0.1, False))], "t, m")
    assert list(found) == ["psnr_pooled32"]
    assert found["psnr_pooled32"].examples.tolist() == [0, 1, 2]
    assert np.nan_to_num(found["psnr_pooled32"].values, nan=-1).tolist() == [-1.0, pytest.approx(10.0), pytest.approx(10.0)]


def test_a_source_that_is_scored_twice_is_told_with_its_example() -> None:
    again = rows(("psnr",), (3, 0, 0, 1.0, False), (3, 1, 0, 1.0, False), (3, 1, 0, 2.0, False))
    with pytest.raises(SepbenchError) as caught:
        reduce_cell(lambda: [again], "t, m")
    assert str(caught.value) == "the scores of t, m contain psnr of example 3 twice; run `sepbench score` again"


# --- values of some of a set's examples


def test_values_of_a_whole_serve_the_whole_alone() -> None:
    whole = MetricValues(np.arange(4), np.array([1.0, math.nan, 2.0, 3.0]), whole_only=True)
    every, some = np.array([True, False, True, True]), np.array([True, False, False, True])
    assert (whole.serves(np.arange(4), every), whole.serves(np.arange(4), some)) == (True, False)
    assert MetricValues(np.arange(4), whole.values).serves(np.arange(4), some)
    assert (whole.spread, whole.undefined, math.isnan(whole.std)) == ("", 0, True)


def test_a_pool_is_made_anew_of_some_of_its_examples_and_kept_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts("psnr_pooled32", np.arange(4), {"mse": np.array([[0.1, 0.2, 0.3, 0.4]])})
    cell = MetricValues(np.arange(4), parts.pooled(parts.scored), parts=parts)
    every = np.ones(4, np.bool_)
    assert cell.among(np.arange(4), every).tolist() == cell.values.tolist()
    some = cell.among(np.array([1, 2, 3]), np.array([True, False, True]))
    assert some.mean() == pytest.approx(-10 * np.log10(0.3))
    assert (cell.spread, cell.undefined) == ("jackknife", 0)
    nothing = MetricValues(np.arange(4), np.full(4, math.nan), parts=parts)
    assert nothing.undefined == 4
    metric = pooled.pooled_metric("psnr_pooled32")
    assert isinstance(metric, PooledMetric)
