"""What grids and sheets of samples say: labels, heads, captions and subtitles of runs with made-up scores, and why a run cannot be shown."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.protocols import TaskSpec
from sepbench.report.panels import grids
from sepbench.report.panels.choice import Choice, named, spread
from sepbench.report.panels.grids import (
    _per_image,
    assignment_of,
    comparison_grid,
    estimate_blocks,
    in_order,
    method_grid,
    mixture_head,
    shared_values,
    truth_blocks,
)
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.report.panels.samples import layout_samples
from sepbench.results.store import RunStore
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Task

SPEC = load_suite("digits-pairs").tasks["class-split"].spec


def opened(made: SyntheticRun, folder: Path, **changes: Any) -> OpenedRun:
    made.save(folder / "run")
    return OpenedRun.open(folder / "run", **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    """Mixture 1 of nmf failed; its estimates are the true sources, every second mixture's the other way round."""
    made = SyntheticRun({"nmf": 16.0, "ica": 13.0}, n=6).fail("nmf", 1)
    for example, value in ((0, 21.0), (2, 19.0)):
        made.scores.loc[made.where("nmf", "psnr", example), "value"] = value, value + 0.5
    found = opened(made, tmp_path_factory.mktemp("grids"))
    truth = found.tasks()[0].mixture_set().sources(range(6))
    truth[1::2] = truth[1::2].flip(1)
    truth[1] = math.nan
    found.estimates = lambda task, method, examples: truth[list(examples)]  # type: ignore[method-assign]
    return found


def test_labels_and_captions_of_a_grid(run: OpenedRun) -> None:
    (task,) = run.tasks()
    sheet = method_grid(run, task, "nmf", Choice((2, 1, 0), ("best", "", "worst"), "Told"))
    assert sheet.title == "nmf on digits-pairs, class-split"
    assert sheet.subtitle == "Told. Estimates stand in the order of the best assignment; under each is its psnr in dB."
    assert [(head.text, head.rows, head.columns) for head in sheet.heads] == [("mixture\n(0 to 2)", 1, 1), ("estimates", 1, 2), ("true sources", 1, 2)]
    assert [row.label for row in sheet.rows] == [("best", "mixture 2", "19.25 dB"), ("mixture 1", "failed"), ("worst", "mixture 0", "21.25 dB")]
    captions = [[block.captions for block in row.blocks if block is not None] for row in sheet.rows]
    assert captions == [[("",), words, ("0-4", "5-9")] for words in (("19.00", "19.50"), ("failed", "failed"), ("21.00", "21.50"))]
    for row in (sheet.rows[0], sheet.rows[2]):
        _, estimates, truth = row.blocks
        assert estimates is not None
        assert truth is not None
        assert (estimates.images == truth.images).all()  # in the order of the references


def test_an_estimate_is_an_empty_field_if_any_of_it_is_not_finite(run: OpenedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = run.tasks()
    signals = task.mixture_set().sources((0, 2, 3))
    signals[0, 1, 0, 3, 3] = math.nan  # one pixel of one source
    signals[1, 0, 0, 0, 0] = math.inf
    monkeypatch.setattr(run, "estimates", lambda task, method, examples: signals)
    monkeypatch.setattr(run, "source_values", lambda task, method, examples: {(0, 0): 1.0, (0, 1): 2.0, (3, 1): 0.0125})
    captions = [block.captions for block in estimate_blocks(run, task, "nmf", (0, 2, 3))]
    assert captions == [("failed", "failed"), ("failed", "failed"), ("", "0.01")]  # digits are those of the largest; a source without a score has none
    monkeypatch.setattr(run, "source_values", lambda task, method, examples: {(3, 0): -20.0, (3, 1): 0.0125})
    assert estimate_blocks(run, task, "nmf", (0, 2, 3))[2].captions == ("-20.00", "0.01")


def test_methods_side_by_side(run: OpenedRun) -> None:
    (task,) = run.tasks()
    sheet = comparison_grid(run, task, ["nmf", "ica"], Choice((0, 3), ("best", ""), "Told"))
    assert sheet.title == "Methods side by side on digits-pairs, class-split"
    assert [(head.text, head.rows, head.columns) for head in sheet.heads][1:] == [("nmf", 1, 2), ("ica", 1, 2), ("truth", 1, 2)]
    many = comparison_grid(run, task, ["nmf", "ica"] * 3, Choice((0,), ("",), "Told"))
    assert [(head.rows, head.columns) for head in many.heads] == [(1, 1), *[(2, 1)] * 7]
    assert [row.label for row in sheet.rows] == [("best", "mixture 0"), ("mixture 3",)]
    shared = shared_values(run, "class-split", ["nmf", "ica"])
    assert math.isnan(shared[1])
    assert shared[0] == pytest.approx((21.25 + run.values("class-split", "ica")[0]) / 2)


@pytest.mark.parametrize(
    ("metric", "changes", "words"),
    [
        ("psnr", {}, "Estimates stand in the order of the best assignment; under each is its psnr in dB."),
        ("ssim", {}, "Estimates stand in the order of the best assignment; under each is its ssim."),
        ("mixture_error", {}, "Estimates stand in the order of the best assignment."),
        ("psnr", {"assignment": "ordered"}, "Under each is its psnr in dB."),
        ("ssim", {"n_sources": 1}, "Under each is its ssim."),
        ("mixture_error", {"assignment": "ordered"}, "Estimates."),
    ],
)
def test_what_is_said_under_each_image(metric: str, changes: dict[str, Any], words: str) -> None:
    assert _per_image(get_metric(metric), replace(SPEC, **changes)) == words


def test_heads_of_mixtures_and_classes_of_sources() -> None:
    task = load_suite("digits-pairs").tasks["class-split"]

    class Of:
        """A task whose mixture has a range of its own."""

        def __init__(self, spec: TaskSpec, *ends: float) -> None:
            self.spec, self.ends = spec, ends

        def mixture_set(self) -> Of:
            return self

        def operator_for(self, examples: list[int]) -> Of:
            return self

        def output_range(self, low: float, high: float) -> tuple[float, ...]:
            assert (low, high) == (0.0, 1.0)
            return self.ends

        def sources(self, examples: list[int]) -> torch.Tensor:
            return task.mixture_set().sources(examples)

    heads = [mixture_head(Of(task.spec, *ends)) for ends in ((0.0, 1.0), (0.0, 2.0), (-0.5, 1.0), (0.0, 1.25))]  # type: ignore[arg-type]
    assert heads == ["mixture", "mixture\n(0 to 2)", "mixture\n(-0.5 to 1)", "mixture\n(0 to 1.25)"]
    assert mixture_head(Of(replace(task.spec, domain="audio"))) == "mixture"  # type: ignore[arg-type]
    agnostic = load_suite("digits-pairs").tasks["class-agnostic"]
    assert agnostic.spec.class_agnostic
    assert [block.captions for block in truth_blocks(agnostic, [0, 1])] == [("", "")] * 2


# -- samples


@pytest.mark.parametrize(
    ("n", "labels", "heads"),
    [
        (1, [("mixture 3",)], ["sample 1"]),
        (8, [("mixture 3",)], [f"sample {k}" for k in range(1, 9)]),
        (9, [("mixture 3", "samples 1 to 5"), ("samples 6 to 9",)], ["sample"] * 5),
        (17, [("mixture 3", "samples 1 to 6"), ("samples 7 to 12",), ("samples 13 to 17",)], ["sample"] * 6),
    ],
)
def test_samples_stand_in_rows_of_one_length(run: OpenedRun, n: int, labels: list[tuple[str, ...]], heads: list[str]) -> None:
    (task,) = run.tasks()
    truth = task.mixture_set().sources([3])
    shade = torch.linspace(0.0, 0.1, n).reshape(n, 1, 1, 1, 1)
    drawn = truth.expand(n, *truth.shape[1:]) * (0.9 + shade)
    drawn = torch.where((torch.arange(n) % 2 == 1).reshape(n, 1, 1, 1, 1), drawn.flip(1), drawn)
    sheet = layout_samples(run, task, "toy", 3, drawn)
    assert sheet.title == "Posterior samples of toy on digits-pairs, class-split"
    assert sheet.subtitle == f"{n} independent draws for one mixture, each in the order of its best assignment; under each image is its psnr in dB."
    assert [(head.text, head.rows, head.columns) for head in sheet.heads[:3]] == [("mixture\n(0 to 2)", 1, 1), ("truth", 2, 1), ("mean of samples", 2, 1)]
    assert [head.text for head in sheet.heads[3:]] == heads
    assert [row.label for row in sheet.rows] == labels
    assert {len(row.blocks) for row in sheet.rows} == {3 + len(heads)}
    assert [row.blocks[:3] == (None,) * 3 for row in sheet.rows] == [False] + [True] * (len(labels) - 1)
    shown = [block for row in sheet.rows for block in row.blocks[3:]]
    assert [block is None for block in shown] == [False] * n + [True] * (len(labels) * len(heads) - n)
    mean = sheet.rows[0].blocks[2]
    assert mean is not None
    expected = drawn[::2].mean(0) if n == 1 else torch.stack([one if k % 2 == 0 else one.flip(0) for k, one in enumerate(drawn)]).mean(0)
    assert torch.allclose(torch.from_numpy(mean.images[..., 0]).float(), expected[:, 0], atol=1e-6)


def test_samples_of_an_ordered_task_stay_in_their_order(run: OpenedRun) -> None:
    (task,) = run.tasks()
    ordered: Task = replace(task, spec=replace(task.spec, assignment="ordered"))
    swapped = task.mixture_set().sources([3]).flip(1)
    sheet = layout_samples(run, ordered, "toy", 3, swapped)
    assert sheet.subtitle == "1 independent draws for one mixture; under each image is its psnr in dB."
    block = sheet.rows[0].blocks[3]
    assert block is not None
    assert all(float(caption) < 40.0 for caption in block.captions)


# -- choices


def test_how_mixtures_were_chosen() -> None:
    values = {0: 1.0, 1: 2.0, 2: math.nan, 3: 3.0, 4: math.inf}
    assert spread(values, 1, True, "psnr").told == "The mixture of median psnr; 2 that failed are left out"
    assert spread(values, 3, True, "psnr").told == "All 3 mixtures, from best to worst psnr; 2 that failed are left out"
    assert spread({0: 1.0, 1: 2.0, 3: 3.0}, 2, True, "psnr").told == "2 of 3 mixtures at evenly spaced ranks of psnr (best, worst included)"
    assert spread({5: 1.0}, 1, True, "psnr").words == ("best",)
    assert spread(dict(enumerate(range(5))), 5, False, "x").words == ("best", "rank 2 of 5", "median", "rank 4 of 5", "worst")
    assert named((2,), 3).told == "Mixtures chosen by hand"


# -- runs that cannot be shown


def test_the_metric_of_a_run_is_the_one_that_ranks_if_it_was_scored(tmp_path: Path) -> None:
    assert opened(SyntheticRun(n=2, metrics=("ssim", "psnr")), tmp_path / "a").metric.info.name == "psnr"
    assert opened(SyntheticRun(n=2, metrics=("mixture_error", "ssim")), tmp_path / "b").metric.info.name == "mixture_error"


def test_methods_of_a_run_from_best_to_worst(tmp_path: Path) -> None:
    made = SyntheticRun({"ica": 13.0, "nmf": 16.0, "rpca": 14.0, "average": 15.0}, n=12)
    made.fail("nmf", 0)
    made.cells["class-split", "average"] |= {"state": "unsupported", "note": "no [mean]"}
    for example in range(12):
        made.fail("rpca", example, "ValueError: no")
    told: list[str] = []
    run = opened(made, tmp_path, warn=told.append)
    assert run.methods("class-split") == ["nmf", "ica"]
    assert told == [
        "left out: rpca failed on class-split (ValueError: no); mend it and run again",
        "left out: average does not take task class-split (no [mean]); choose other methods with --method",
    ]
    assert run.methods("class-split", ("ica",)) == ["ica"]
    assert run.methods("class-split", ("ica", "nmf")) == ["nmf", "ica"]
    with pytest.raises(SepbenchError, match="rpca failed on class-split"):
        run.methods("class-split", ("nmf", "rpca"))
    with pytest.raises(SepbenchError, match=r"method of .*nmf"):
        run.methods("class-split", ("nfm",))
    with pytest.raises(SepbenchError, match=r"task of .*class-split"):
        run.tasks(("clas-split",))
    lower = opened(SyntheticRun({"ica": 13.0, "nmf": 16.0}, n=12, metrics=("mixture_error",)), tmp_path / "lower")
    means = {name: sum(lower.values("class-split", name).values()) for name in ("ica", "nmf")}
    assert lower.methods("class-split") == sorted(means, key=means.__getitem__)


def test_estimates_that_somebody_supplied_are_not_computed_again(tmp_path: Path) -> None:
    made = SyntheticRun({"nmf": 16.0, "mine": 15.0}, n=2)
    made.record["methods"]["mine"]["source"] = "estimates supplied"
    run = opened(made, tmp_path)
    assert [run.separates(name) for name in ("nmf", "mine")] == [True, False]


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(SepbenchError, match=r"there is no .*nothing; name the folder of a run, as `sepbench run --out` made it"):
        OpenedRun.open(tmp_path / "nothing")
    made = SyntheticRun(n=2)
    made.record["suite"]["version"] = 7
    made.save(tmp_path / "old")
    with pytest.raises(SepbenchError, match=r"old is a run of digits-pairs version 7, version 1 is installed; run the suite again"):
        OpenedRun.open(tmp_path / "old")
    other = SyntheticRun(n=2)
    other.record["tasks"]["class-split"]["mixtures_sha256"] = "feed"
    with pytest.raises(SepbenchError, match=r"the mixtures of task 'class-split' are not those that .* was made on; run the suite again"):
        opened(other, tmp_path / "other").tasks()


def test_estimates_that_are_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(SyntheticRun(n=2), tmp_path)
    (task,) = run.tasks()
    with pytest.raises(SepbenchError, match="the estimates of nmf on class-split were not kept"):
        run.estimates(task, "nmf", [0])
    from sepbench.run.plan import Shard

    monkeypatch.setattr(RunStore, "estimates_of", lambda self, task, method: [Shard(task, method, 0, 2)])
    monkeypatch.setattr(RunStore, "is_damaged", lambda self, shard: True)
    with pytest.raises(SepbenchError, match="the estimates of nmf on class-split are damaged; run the run's own command again, which makes them anew"):
        run.estimates(task, "nmf", [0])
    with pytest.raises(SepbenchError, match="were not kept"):
        run.estimates(task, "nmf", [2])  # beyond the last


# -- by hand


def test_an_assignment_names_the_estimate_of_each_reference() -> None:
    """Of three sources the two directions differ. The metric that assigns has a direction of its own."""
    spec: Any = SimpleNamespace(assignment="permutation", n_sources=3, domain="image", name="t", suite="s")
    truth = torch.rand(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    estimates = truth[:, [2, 0, 1]]  # the second estimate is that of the first reference
    for higher in (True, False):
        metric: Any = SimpleNamespace(info=SimpleNamespace(assigned_by="psnr", higher_is_better=higher))
        found = assignment_of(metric, estimates, truth, spec)
        assert found.tolist() == [[1, 2, 0]] * 2
        assert torch.equal(in_order(estimates, found), truth)
    without: Any = SimpleNamespace(info=SimpleNamespace(assigned_by="", higher_is_better=True))
    assert assignment_of(without, estimates, truth, spec).tolist() == [[0, 1, 2]] * 2
    spec.assignment = "ordered"
    assert assignment_of(metric, estimates, truth, spec).tolist() == [[0, 1, 2]] * 2


def test_mixtures_are_shared_by_all_methods_and_a_missing_value_is_none() -> None:
    values = {"a": {0: 1.0, 1: 2.0, 5: 4.0}, "b": {0: 3.0, 1: math.nan, 2: 9.0}}
    run: Any = SimpleNamespace(values=lambda task, method: {"t": values[method]}[task])
    shared = shared_values(run, "t", ["a", "b"])
    assert list(shared) == [0, 1, 5]
    assert shared[0] == 2.0
    assert math.isnan(shared[1])
    assert math.isnan(shared[5])


def test_a_grid_of_one_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits are those of the largest value, whatever its sign; failed ones have none."""
    asked: list[tuple[str, Any]] = []
    for name in ("mixture_blocks", "truth_blocks"):
        monkeypatch.setattr(grids, name, lambda task, examples, name=name: asked.append((name, examples)) or [f"{name} {one}" for one in examples])
    monkeypatch.setattr(grids, "estimate_blocks", lambda run, task, method, examples: [f"{method} {one}" for one in examples])
    monkeypatch.setattr(grids, "mixture_head", lambda task: "mixture")
    task: Any = SimpleNamespace(spec=replace(SPEC, n_sources=1))
    run: Any = SimpleNamespace(metric=get_metric("psnr"), values=lambda task, method: {4: -20.0, 7: 0.012, 9: math.nan})
    sheet = method_grid(run, task, "nmf", Choice((7, 9), ("best", ""), "Told"))
    assert [(head.text, head.rows, head.columns) for head in sheet.heads] == [("mixture", 1, 1), ("estimate", 1, 1), ("truth", 1, 1)]
    assert [row.label for row in sheet.rows] == [("best", "mixture 7", "0.01 dB"), ("mixture 9", "failed")]
    assert [row.blocks for row in sheet.rows] == [(f"mixture_blocks {one}", f"nmf {one}", f"truth_blocks {one}") for one in (7, 9)]  # type: ignore[comparison-overlap]
    assert asked == [("mixture_blocks", (7, 9)), ("truth_blocks", (7, 9))]
    assert sheet.subtitle == "Told. Under each is its psnr in dB."
