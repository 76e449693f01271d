"""Verdicts, notes and refusals of comparisons by hand: signs, bounds, and the numbers in the words."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from sepbench.data.lists.clusters import INDEPENDENT, Clusters, independent
from sepbench.errors import SepbenchError
from sepbench.metrics.sets.extraction import ShardFeatures
from sepbench.results import gate
from sepbench.results.compare import (
    A_BETTER,
    B_BETTER,
    COMPARE_COLUMNS,
    NO_DIFFERENCE,
    NOT_COMPARED,
    TOO_FEW,
    Side,
    check_comparable,
    compare_sides,
    method_pairs,
    verdict,
    write_comparison,
)
from sepbench.results.feature_files import CellFeatures, save_features
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.results.pairing import pair_up
from sepbench.results.pooled import Parts, joined, pooled_metric
from sepbench.results.publication import publish_run
from sepbench.results.ranking import Evidence
from sepbench.results.robust import interquartile_mean, robust_rows
from sepbench.results.score_files import StoreError
from sepbench.results.statistics import Designs, PairedDifference, TaskDesigns, holm, paired_difference, summarise
from sepbench.results.target import Results
from sepbench.results.values import MetricValues, Values

ROOT = Path(__file__).resolve().parents[2]
PAIRED = PairedDifference(50, 0.5, 0.1, 0.9, 0.99, 0.01, 0.7, 0.2, "t", "song", 20)


# ---- verdicts --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "higher", "judged"),
    [
        (0.1, 0.9, True, A_BETTER),
        (0.1, 0.9, False, B_BETTER),
        (-0.9, -0.1, True, B_BETTER),
        (-0.9, -0.1, False, A_BETTER),
        (-0.1, 0.9, True, NO_DIFFERENCE),
        (5e-7, 0.9, True, NO_DIFFERENCE),  # rounding
        (-0.9, -5e-7, True, NO_DIFFERENCE),
        (2e-6, 0.9, True, A_BETTER),
    ],
)
def test_who_is_better(low: float, high: float, higher: bool, judged: str) -> None:
    paired = replace(PAIRED, ci_low=low, ci_high=high)
    assert verdict(paired, higher, 0.5) == judged
    assert verdict(replace(paired, n_clusters=10), higher, 0.5) == judged
    assert verdict(replace(paired, n_clusters=9), higher, 0.5) == TOO_FEW
    assert verdict(replace(paired, n=0), higher, 0.5) == NOT_COMPARED


def test_rounding_grows_with_the_values() -> None:
    assert verdict(replace(PAIRED, ci_low=2e-5, ci_high=1.0), True, 10.0) == A_BETTER
    assert verdict(replace(PAIRED, ci_low=2e-5, ci_high=1.0), True, 30.0) == NO_DIFFERENCE


def test_holm_by_hand() -> None:
    assert holm(np.array([0.04, 0.01, 0.03])).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.6, 0.5])).tolist() == [1.0, 1.0]
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="in \\[0, 1\\]"):
            holm(np.array([0.5, bad]))


def test_a_paired_difference_is_students_test() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 15))
    b -= 0.3
    found = paired_difference(a, b, np.arange(15), Designs(independent(15)))
    expected = stats.ttest_rel(a, b)
    low, high = expected.confidence_interval(0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))
    assert found.p_higher == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue)
    assert found.p_lower == pytest.approx(stats.ttest_rel(a, b, alternative="less").pvalue)
    assert (found.share_a_higher, found.share_b_higher) == ((a > b).mean(), (a < b).mean())
    assert (found.n, found.unit, found.n_clusters, found.interval) == (15, INDEPENDENT, 15, "t")


@pytest.mark.parametrize(("shift", "lower", "higher"), [(0.0, 1.0, 1.0), (0.5, 1.0, 0.0), (-0.5, 0.0, 1.0)])
def test_a_constant_difference_is_certain(shift: float, lower: float, higher: float) -> None:
    a = np.arange(8.0)
    found = paired_difference(a + shift, a, np.arange(8), Designs(independent(8)))
    assert (found.p_lower, found.p_higher) == (lower, higher)
    one = paired_difference(np.array([1.0 + shift]), np.array([1.0]), np.arange(1), Designs(independent(8)))
    assert (one.p_lower, one.p_higher) == (1.0, 1.0)
    assert math.isnan(one.ci_low)


def test_what_cannot_be_summarised() -> None:
    designs = Designs(independent(4))
    for values, told in (([[1.0]], r"must be \(n,\), got shape \(1, 1\)"), ([math.inf], "must be finite"), ([1.0, 2.0], r"got \(2,\) and \(1,\)")):
        with pytest.raises(ValueError, match=told):
            summarise(np.array(values), np.arange(1), designs)
    nothing = summarise(np.zeros(0), np.arange(0), designs)
    assert nothing.n == 0
    assert math.isnan(nothing.mean)
    assert nothing.n_clusters == 0
    assert Designs(None).interval != designs.interval != Designs(Clusters("song", np.zeros((2, 1), np.int64))).interval


# ---- comparisons -----------------------------------------------------------------------------------------------------------------------


def _results(label: str, values: dict[str, tuple[list[int], list[float]]]) -> Results:
    frame = read_leaderboard(ROOT / "leaderboards" / "digits-pairs.csv")
    frame = frame[frame["task"] == "class-split"].drop_duplicates("metric").copy()
    frame = pd.concat([frame.assign(method=method) for method in values], ignore_index=True)
    cells = {method: MetricValues(np.array(examples), np.array(of)) for method, (examples, of) in values.items()}
    return Results(label, frame, None, Values(lambda task, method: dict.fromkeys(("psnr", "mixture_error"), cells[method]) if method in cells else {}))


def test_a_row_of_a_comparison_by_hand() -> None:
    examples = list(range(12))
    a = Side(_results("A", {"m": ([*examples, 12], [2.0] * 6 + [1.0] * 6 + [math.nan])}))
    b = Side(_results("B", {"m": ([*examples, 13], [1.0] * 6 + [1.0] * 3 + [3.0] * 3 + [9.0])}))
    for metric, shares in (("psnr", (0.5, 0.25)), ("mixture_error", (0.25, 0.5))):
        (row,) = compare_sides(a, b, [metric]).to_dict("records")
        assert tuple(row) == COMPARE_COLUMNS
        assert (row["n"], row["mean_a"], row["mean_b"], row["difference"]) == (12, 1.5, 1.5, 0.0)
        assert (row["share_a_better"], row["share_b_better"]) == shares
        assert (row["failed_a"], row["failed_b"], row["n_clusters"]) == (1, 0, 12)
        assert (row["task"], row["metric"], row["method_a"], row["method_b"]) == ("class-split", metric, "m", "m")
        assert row["higher_is_better"] == (metric == "psnr")


def test_which_methods_are_compared() -> None:
    a, b = _results("A", {"m": ([0], [1.0]), "n": ([0], [1.0])}), _results("B", {"n": ([0], [1.0]), "k": ([0], [1.0])})
    assert method_pairs(Side(a), Side(b)) == [("n", "n")]
    assert method_pairs(Side(a, "m"), Side(b, "k")) == [("m", "k")]
    assert method_pairs(Side(a), Side(b, "n")) == method_pairs(Side(a, "n"), Side(b)) == [("n", "n")]
    with pytest.raises(SepbenchError, match=r"^A:m \(m\) and B \(n, k\) have no method in common"):
        method_pairs(Side(a, "m"), Side(b))


def test_what_cannot_be_compared_is_told_with_both_sides() -> None:
    frame = _results("A", {"m": ([0], [1.0])}).frame
    assert check_comparable(frame, frame, "A", "B") == ["class-split"]
    for column, value, told in (
        ("suite", "other", r"A is of suite digits-pairs, B of other"),
        ("task", "else", r"A and B have no task in common \(class-split against else\)"),
        ("task_digest", "f" * 20, f"task class-split has other mixtures \\(digest {frame['task_digest'].iloc[0][:12]} in A, {'f' * 12} in B\\)"),
    ):
        with pytest.raises(SepbenchError, match=told):
            check_comparable(frame, frame.assign(**{column: value}), "A", "B")


def test_a_comparison_on_disk(tmp_path: Path) -> None:
    rows = pd.DataFrame([{"task": "t", "higher_is_better": True, "difference": 1 / 3}, {"task": "u", "higher_is_better": False, "difference": 1e-9}])
    write_comparison(rows, tmp_path / "new" / "x.csv")
    assert (tmp_path / "new" / "x.csv").read_bytes() == b"task,higher_is_better,difference\nt,true,0.333333\nu,false,1e-09\n"
    with pytest.raises(SepbenchError, match=f"^cannot write {tmp_path}: "):
        write_comparison(rows, tmp_path)


# ---- the gate --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "code", "word"),
    [
        (["holds", "new", "improvement"], 0, "holds"),
        (["holds", "regression"], 1, "regression"),
        (["regression", "not comparable"], 2, "not comparable"),
        ([], 0, "holds"),
    ],
)
def test_the_exit_code_of_a_check(statuses: list[Any], code: int, word: str) -> None:
    report = gate.GateReport([gate.GateRow("s", "t", "m", "psnr", status) for status in statuses], [])
    assert (report.exit_code, report.verdict) == (code, word)
    assert report.count("regression") == statuses.count("regression")


@pytest.mark.parametrize(("gain", "status"), [(-0.1, "holds"), (-0.11, "regression"), (0.1, "holds"), (0.11, "improvement"), (0.0, "holds")])
def test_the_tolerance_itself_holds(gain: float, status: str) -> None:
    assert gate._status(gain, 0.1) == status


@pytest.mark.parametrize(
    ("gain", "worse", "better", "clusters", "status"),
    [
        (-1.0, 0.049, 1.0, 10, "regression"),
        (-1.0, 0.05, 1.0, 10, "holds"),
        (1.0, 1.0, 0.049, 10, "improvement"),
        (1.0, 1.0, 0.05, 10, "holds"),
        (-1.0, 0.0, 1.0, 9, "not comparable"),
        (1.0, 1.0, 1.0, 9, "holds"),
        (-0.05, 0.0, 1.0, 9, "holds"),
    ],
)
def test_a_change_must_be_more_than_chance(gain: float, worse: float, better: float, clusters: int, status: str) -> None:
    paired = replace(PAIRED, mean=-gain, n_clusters=clusters)
    evidence = gate._Evidence(paired, worse, better, 0.1, False)
    row = gate._judged(("s", "t", "m", "psnr"), {"mean": 2.0, "unit": "dB"}, {"mean": 3.0, "unit": "dB"}, paired, evidence, gain)
    assert (row.status, row.old, row.new, row.difference, row.p_worse, row.tolerance) == (status, 3.0, 2.0, -gain, worse, 0.1)
    assert (row.ci_low, row.ci_high) == (0.1, 0.9)
    assert row.reason == ("9 songs are too few to tell a change from chance, 10 are needed" if status == "not comparable" else "")


def test_obstacles_name_old_before_new() -> None:
    record = read_leaderboard(ROOT / "leaderboards" / "digits-pairs.csv").to_dict("records")[0]
    assert gate._obstacle(record, record, False, False) == ""
    assert gate._obstacle(None, record, False, False) == "missing in NEW"
    seeded = {**record, "seed": record["seed"] + 3}
    assert f"seed {record['seed']} in OLD, {seeded['seed']} in NEW" in gate._obstacle(seeded, record, False, False)
    assert gate._obstacle(seeded, record, True, False) == ""
    fewer = {**record, "n_scored": record["n_scored"] - 2}
    assert gate._obstacle(fewer, record, False, False) == f"{record['n_scored']} examples scored in OLD, {fewer['n_scored']} in NEW"
    assert gate._obstacle(fewer, record, True, True) == "" == gate._obstacle(record, fewer, False, False)
    assert "NaN" in gate._obstacle({**record, "mean": math.nan}, record, False, False)
    planned = {**record, "n_expected": record["n_expected"] + 1}
    assert f"{record['n_expected']} in OLD, {planned['n_expected']} in NEW" in gate._obstacle(planned, record, False, False)
    assert gate._obstacle(planned, record, False, True) == ""
    assert gate._brief("x" * 16) == "x" * 16
    assert gate._brief("x" * 17) == "x" * 12 + "..."
    assert gate._brief("") == "none"


# ---- pairing, pooling, features --------------------------------------------------------------------------------------------------------


def test_pairs_are_matched_by_example() -> None:
    a = MetricValues(np.array([1, 3, 5, 7]), np.array([1.0, 3.0, math.nan, 7.0]))
    b = MetricValues(np.array([3, 5, 7, 9]), np.array([30.0, 50.0, 70.0, 90.0]))
    for first, second in ((a, b), (b, a)):
        pairs = pair_up(first, second)
        assert pairs.examples.tolist() == [3, 7]
        assert (pairs.a.tolist(), pairs.b.tolist()) == (([3.0, 7.0], [30.0, 70.0]) if first is a else ([30.0, 70.0], [3.0, 7.0]))
    same = pair_up(a, a)
    assert same.examples.tolist() == [1, 3, 7]
    assert not same.pooled
    whole = replace(b, whole_only=True)
    assert len(pair_up(a, whole).examples) == 0  # its values are of the whole set alone
    assert pair_up(whole, whole).a.tolist() == [30.0, 50.0, 70.0, 90.0]


def _parts(examples: list[int], mse: list[list[float]]) -> Parts:
    return Parts("psnr_pooled32", np.array(examples), {"mse": np.array(mse)})


def test_parts_of_files_are_put_in_the_order_of_examples() -> None:
    found = joined([_parts([4, 5], [[0.4, 0.5]]), _parts([0, 2], [[0.1, math.nan]])], "x")
    assert found.examples.tolist() == [0, 2, 4, 5]
    assert found.values["mse"][0].tolist()[2:] == [0.4, 0.5]
    assert found.scored.tolist() == [True, False, True, True]
    assert found.of(np.array([3, 0])).values["mse"].tolist() == [[0.5, 0.1]]
    with pytest.raises(SepbenchError, match="of an example twice"):
        joined([_parts([4], [[0.4]]), _parts([4], [[0.1]])], "x")
    with pytest.raises(SepbenchError, match="of other sources"):
        joined([_parts([4], [[0.4]]), _parts([5], [[0.1], [0.2]])], "x")
    with pytest.raises(SepbenchError, match="psnr, which is not a pooled metric"):
        pooled_metric("psnr")


def test_values_of_a_pooled_metric_are_means_over_its_sources() -> None:
    parts = _parts([0, 1, 2], [[0.1, 0.2, 0.3], [0.4, 0.1, 0.7]])
    among = np.array([True, False, True])
    values = parts.pooled(among)
    assert math.isnan(values[1])
    expected = np.mean([-10 * np.log10(np.mean(row)) for row in ([0.1, 0.3], [0.4, 0.7])])
    assert np.nanmean(values) == pytest.approx(expected)
    assert math.isnan(parts.std(among))
    assert parts.n_sources == 2
    assert parts.spread


def _saved(path: Path, examples: list[int], first: float, reference: str = "key") -> Path:
    features = first + torch.arange(len(examples) * 2 * 3, dtype=torch.float32).reshape(len(examples), 2, 3)
    save_features(path, np.array(examples), {"toy": ShardFeatures(features, torch.zeros(len(examples), 2, 0), reference)})
    return path


def test_features_are_those_of_the_examples_asked_for(tmp_path: Path) -> None:
    files = [_saved(tmp_path / "a.safetensors", [0, 1, 4], 0.0), _saved(tmp_path / "b.safetensors", [7, 8], 100.0)]
    cell = CellFeatures(files, lambda key: tmp_path / key)
    found = cell.of("toy", np.array([1, 7]))
    values = np.concatenate(list(found.features()))
    assert values[:, 0].tolist() == [6.0, 9.0, 100.0, 103.0]
    assert found.count == 4
    assert np.array_equal(values, np.concatenate(list(found.features())))
    with pytest.raises(StoreError, match="example 5 has scores and no features of extractor 'toy'"):
        cell.of("toy", np.array([1, 5]))
    mixed = CellFeatures([files[0], _saved(tmp_path / "c.safetensors", [9], 0.0, "other")], lambda key: tmp_path / key)
    with pytest.raises(StoreError, match="'toy' belong to 2 references"):
        mixed.reference("toy")
    (tmp_path / "d.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(StoreError, match=r"d\.safetensors cannot be read"):
        CellFeatures([tmp_path / "d.safetensors"], lambda key: tmp_path / key).reference("toy")


# ---- robust statistics and publication -------------------------------------------------------------------------------------------------


def test_an_interquartile_mean_by_hand() -> None:
    values = np.array([9.0, 1.0, 2.0, 100.0, 3.0, 4.0, -50.0, 5.0, 6.0])  # two of nine are left out at each end
    found = interquartile_mean(values, np.arange(9), Designs(independent(9)))
    assert found.mean == pytest.approx(np.mean([2.0, 3.0, 4.0, 5.0, 6.0]))
    winsorised = np.clip(values, 2.0, 6.0)
    assert found.std == pytest.approx(2 * winsorised.std(ddof=1))
    assert interquartile_mean(np.zeros(0), np.arange(0), Designs(independent(3))).n == 0


@pytest.mark.parametrize("higher", [True, False])
def test_robust_rows_begin_with_the_best(higher: bool) -> None:
    sign = 1.0 if higher else -1.0
    levels = {"low": 1.0, "bound": 9.0, "high": 5.0, "nothing": math.nan}
    cells = {name: MetricValues(np.arange(12), sign * (level + np.linspace(0, 0.5, 12))) for name, level in levels.items()}
    evidence = Evidence(Values(lambda task, method: {"psnr": cells[method]}), TaskDesigns(lambda task: independent(12)))
    rows = robust_rows(evidence, "t", "psnr", list(levels), higher, bounds=["bound"])
    assert [row.method for row in rows] == ["bound", "high", "low"]
    assert [row.improvement.mean if row.improvement else None for row in rows] == [None, None, 1.0]
    assert rows[2].median == pytest.approx(sign * 1.25)
    assert rows[2].iqm.n == 12


def test_a_csv_cannot_be_published(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "leaderboard.csv").write_bytes((ROOT / "leaderboards" / "digits-pairs.csv").read_bytes())
    with pytest.raises(SepbenchError, match="run cannot be published"):
        publish_run(str(tmp_path / "run"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
