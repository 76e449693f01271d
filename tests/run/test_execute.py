"""Executing plans: what is written, what fails, what is not done twice."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
import run_fakes
import torch
from run_harness import KEYS, Runner, bits, sorted_scores
from told_places import without_place

from sepbench.metrics.scoring import score_batch
from sepbench.results.columns import SCORE_COLUMNS
from sepbench.run.execute import Outcome, check_data, rescore
from sepbench.run.plan import Cell, Plan, Shard
from sepbench.run.records import CellRecord
from sepbench.suites.model import Suite

Planned = Callable[..., Plan]


def test_scores_are_those_of_the_estimates(planned: Planned, runner: Runner, digits: Suite) -> None:
    outcome, store = runner(planned("halves"))
    assert outcome.exit_code == 0
    frame = store.read_scores()
    assert list(frame.columns) == list(SCORE_COLUMNS)
    task, ids = digits.tasks["class-split"], torch.arange(10)
    mixtures = task.mixture_set().mixtures(ids)
    table = score_batch(digits.metrics, mixtures.operator.pseudo_inverse(mixtures.values), task.mixture_set().sources(ids), mixtures, task.spec)
    expected = pd.DataFrame({"metric": table.metric, "example": table.example, "source": table.source, "value": table.value}).astype({"metric": str})
    expected = expected.sort_values(KEYS[2:], ignore_index=True)
    found = sorted_scores(frame)
    pd.testing.assert_frame_equal(found[["metric", "example", "source", "value"]], expected, check_dtype=False)
    assert set(found["error"]) == {""}
    assert (found["seconds"] > 0).all()


def test_cells_say_how_it_went(planned: Planned, runner: Runner) -> None:
    _, store = runner(planned("halves", "picky", "audio-only", tasks=("class-split", "class-agnostic")))
    cells = store.read_cells()
    done = cells["class-split", "halves"]
    assert (done.state, done.n_separated, done.n_failed, done.samples, done.error) == ("done", 10, 0, 1, "")
    assert done.fit_seconds >= 0
    assert done.separate_seconds > 0
    assert done.peak_mb > 10
    per_example = store.read_scores().query("task == 'class-split' and method == 'halves'").drop_duplicates("example")["seconds"]
    assert done.separate_seconds == pytest.approx(per_example.sum())
    assert cells["class-agnostic", "picky"].state == "unsupported"
    assert cells["class-agnostic", "picky"].note == "wants two classes"
    assert cells["class-split", "picky"].note == "with care"
    assert cells["class-split", "audio-only"].state == "unsupported"


def test_batches_are_shards_cut_at_max_batch_after_one_single_warm_up(planned: Planned, runner: Runner) -> None:
    runner(planned("halves", shard_size=6))
    assert run_fakes.Fake.batches == [1, 4, 2, 4]
    assert run_fakes.Fake.fits == ["halves"]


def test_what_exists_is_done(planned: Planned, runner: Runner) -> None:
    plan = planned("halves", "noisy")
    _, store = runner(plan)
    before = {path: path.stat().st_mtime_ns for path in runner.folder.rglob("*.*") if path.name != "run.json"}
    run_fakes.Fake.batches.clear()
    run_fakes.Fake.fits.clear()
    outcome, _ = runner(plan)
    assert run_fakes.Fake.batches == run_fakes.Fake.fits == []
    assert outcome.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in runner.folder.rglob("*.*") if path.name != "run.json"} == before
    assert len(store.read_run().sessions) == 2
    assert len(store.read_scores()) > 0


def test_shards_do_not_change_scores(planned: Planned, tmp_path: Path) -> None:
    found = {bits(Runner(tmp_path / str(size))(planned("noisy", shard_size=size))[1].read_scores()) for size in (2, 10, 500)}
    assert len(found) == 1


def test_the_seed_does(planned: Planned, tmp_path: Path) -> None:
    found = {bits(Runner(tmp_path / str(seed))(planned("noisy", seed=seed))[1].read_scores()) for seed in (0, 1)}
    assert len(found) == 2


@pytest.mark.parametrize("how", ["raise", "memory", "nan", "exit"])
def test_only_the_bad_example_fails(planned: Planned, runner: Runner, how: str) -> None:
    outcome, store = runner(planned("broken", "halves", settings={"broken": {"how": how, "at": 5}}))
    assert outcome.exit_code == 0
    frame = sorted_scores(store.read_scores())
    bad = frame[frame["error"] != ""]
    assert set(zip(bad["method"], bad["example"], bad["source"], strict=True)) == {("broken", 5, -1)}
    assert set(bad["metric"]) == {"psnr", "psnr_unclamped", "psnr_sum_mse", "ssim", "mixture_error"}
    assert len(bad) == 5
    assert bad["value"].isna().all()
    assert "\n" not in bad["error"].iloc[0]
    good = frame[(frame["method"] == "broken") & (frame["error"] == "")]
    assert np.array_equal(good["value"], frame[(frame["method"] == "halves") & (frame["example"] != 5)]["value"])
    cell = store.read_cells()["class-split", "broken"]
    assert (cell.state, cell.n_separated, cell.n_failed) == ("partial", 9, 1)
    assert cell.error == bad["error"].iloc[0]
    assert bool(cell.traceback) == (how != "nan")
    kept = store.read_estimates(Shard("class-split", "broken", 4, 8)).estimates
    assert bool(kept[1].isnan().all())  # not a part of an estimate that failed
    assert bool(kept[[0, 2, 3]].isfinite().all())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("shape", r"shape \(4, 1, 1, 8, 8\) instead of \(4, 2, 1, 8, 8\)"),
        ("dtype", "torch.float64"),
        ("type", "ndarray instead of a tensor"),
        ("mutate", "in place"),
        ("mutate-numpy", "in place"),
        ("flip", "in place"),
        ("ids", "in place"),
        ("ids-reversed", "in place"),
        ("ids-numpy", "in place"),
    ],
)
def test_a_broken_contract_fails_its_batch(planned: Planned, runner: Runner, how: str, message: str) -> None:
    _, store = runner(planned("broken", settings={"broken": {"how": how, "at": 5}}))
    frame = sorted_scores(store.read_scores())
    bad = frame[frame["error"] != ""]
    assert set(bad["example"]) == {4, 5, 6, 7}
    assert bad["error"].str.contains(message).all()


def test_a_method_that_always_fails_is_failed(planned: Planned, runner: Runner) -> None:
    outcome, store = runner(planned("broken", "halves"))
    assert outcome.exit_code == 1
    assert [cell.method for cell in outcome.in_state("failed")] == ["broken"]
    assert without_place(store.read_cells()["class-split", "broken"].error) == "RuntimeError: no convergence at all"
    assert store.read_cells()["class-split", "halves"].state == "done"


def test_references_are_for_bounds_only(planned: Planned, runner: Runner) -> None:
    _, store = runner(planned("oracle", "broken", settings={"broken": {"how": "peek"}}))
    frame = store.read_scores()
    oracle = frame[frame["method"] == "oracle"]
    assert (oracle[oracle["metric"] == "mixture_error"]["value"] < 1e-6).all()
    assert store.read_cells()["class-split", "broken"].error.startswith("SupervisionError")


@pytest.mark.parametrize("kind", [ValueError, MemoryError, SystemExit])
def test_a_fit_that_fails_stops_nobody_else_and_is_tried_again(
    planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    plan = planned("fails-fit", "halves")
    monkeypatch.setattr(run_fakes.FailsFit, "broken", kind)
    outcome, store = runner(plan)
    assert outcome.exit_code == 1
    failed = store.read_scores().query("method == 'fails-fit'")
    assert len(failed) == 10 * 5
    assert failed["value"].isna().all()
    assert {without_place(error) for error in failed["error"]} == {f"{kind.__name__}: singular matrix"}
    assert "singular" in store.read_cells()["class-split", "fails-fit"].traceback
    assert store.read_cells()["class-split", "halves"].state == "done"
    assert runner(plan)[0].exit_code == 1

    monkeypatch.setattr(run_fakes.FailsFit, "broken", None)
    run_fakes.Fake.batches.clear()
    outcome, store = runner(plan)
    assert outcome.exit_code == 0
    assert sum(run_fakes.Fake.batches) == 1 + 10
    assert store.read_scores()["value"].notna().all()


def test_a_metric_that_raises_is_a_row(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(*arguments: object) -> None:
        raise ValueError("negative variance")

    monkeypatch.setattr("sepbench.run.scoring.score_batch", burst)
    outcome, store = runner(planned("halves"))
    assert outcome.exit_code == 1
    assert set(store.read_scores()["error"]) == {"scoring failed: ValueError: negative variance"}
    monkeypatch.undo()


def test_an_interrupt_passes_and_the_run_resumes(planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("noisy")
    _, undisturbed = Runner(tmp_path / "a")(plan)
    calls = {"n": 0}
    separate = run_fakes.Noisy.separate

    def interrupted(self: run_fakes.Noisy, *arguments: object) -> torch.Tensor:
        calls["n"] += 1
        if calls["n"] == 4:
            signal.raise_signal(signal.SIGINT)
        return separate(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run_fakes.Noisy, "separate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Runner(tmp_path / "b")(plan)
    assert len(list((tmp_path / "b" / "estimates").rglob("*.safetensors"))) == 1
    _, resumed = Runner(tmp_path / "b")(plan)
    assert bits(resumed.read_scores()) == bits(undisturbed.read_scores())


@pytest.mark.parametrize("part", ["estimates", "scores"])
@pytest.mark.parametrize("left", [0, 7, 0.5, -1])
def test_damaged_files_are_made_again_with_a_warning(planned: Planned, runner: Runner, part: str, left: float) -> None:
    plan = planned("noisy")
    _, store = runner(plan)
    before = bits(store.read_scores())
    victim = sorted((runner.folder / part).rglob("*.*"))[1]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: int(left * len(whole)) if 0 < left < 1 else int(left)])
    if part == "estimates":  # with scores there nobody would look at the estimates
        next((runner.folder / "scores").rglob(f"{victim.stem}.parquet")).unlink()
    assert runner(plan)[0].exit_code == 0
    assert any(victim.name in text for text in runner.warnings)
    assert bits(store.read_scores()) == before


def test_estimates_can_be_left_out(planned: Planned, runner: Runner) -> None:
    plan = planned("noisy", keep_estimates=False)
    _, store = runner(plan)
    assert not list((runner.folder / "estimates").rglob("*.*"))
    before = bits(store.read_scores())
    run_fakes.Fake.batches.clear()
    runner(plan)
    assert run_fakes.Fake.batches == []
    assert bits(store.read_scores()) == before


def test_latency_is_measured_when_asked_for(planned: Planned, runner: Runner) -> None:
    _, store = runner(planned("halves"))
    assert store.read_cells()["class-split", "halves"].latency_seconds is None
    run_fakes.Fake.batches.clear()
    runner(planned("halves", latency=True))
    assert store.read_cells()["class-split", "halves"].latency_seconds > 0
    assert run_fakes.Fake.batches == [1] * 11
    assert store.read_cells()["class-split", "halves"].n_separated == 10


def test_samples_and_weights_stand_in_the_cell(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("halves")
    monkeypatch.setattr(run_fakes.Halves, "posterior_samples", 8, raising=False)
    monkeypatch.setattr(run_fakes.Halves, "weights_sha256", "ab", raising=False)
    monkeypatch.setattr(run_fakes.Halves, "prior_label", "oracle, 3 k, ab", raising=False)
    _, store = runner(plan)
    cell = store.read_cells()["class-split", "halves"]
    assert (cell.samples, cell.weights_sha256, cell.prior) == (8, "ab", "oracle, 3 k, ab")


def test_a_run_is_not_finished_with_other_weights(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: run_fakes.Halves, *arguments: object) -> None:
        self.weights_sha256 = weights  # type: ignore[attr-defined]

    monkeypatch.setattr(run_fakes.Halves, "fit", fit)
    weights, plan = "ab", planned("halves")
    runner(plan)
    for path in list(runner.folder.rglob("00000004-00000008.*")):
        path.unlink()
    weights = "cd"
    with pytest.raises(Exception, match="weights of halves have changed"):
        runner(plan)
    weights = "ab"
    assert runner(plan)[0].exit_code == 0


def test_scoring_again_separates_nothing(planned: Planned, runner: Runner, digits: Suite) -> None:
    _, store = runner(planned("noisy", "halves", "fails-fit", "picky", tasks=("class-split", "class-agnostic")))
    before, cells = bits(store.read_scores()), store.read_cells()
    run_fakes.Fake.batches.clear()
    run_fakes.Fake.fits.clear()
    assert rescore(store.read_run(), digits, (), store) == digits.metrics
    assert bits(store.read_scores()) == before
    assert store.read_cells() == cells
    rescore(store.read_run(), digits, ("ssim",), store)
    only = sorted_scores(store.read_scores())
    assert set(only["metric"]) == {"ssim"}
    assert store.read_cells() == cells
    assert run_fakes.Fake.batches == run_fakes.Fake.fits == []


def test_a_run_goes_back_to_the_suites_metrics(planned: Planned, runner: Runner, digits: Suite) -> None:
    plan = planned("noisy")
    _, store = runner(plan)
    before = bits(store.read_scores())
    rescore(store.read_run(), digits, ("psnr",), store)
    run_fakes.Fake.batches.clear()
    runner(plan)
    assert run_fakes.Fake.batches == []
    assert bits(store.read_scores()) == before


def test_scoring_again_without_estimates_changes_nothing(planned: Planned, runner: Runner, digits: Suite) -> None:
    _, store = runner(planned("noisy", keep_estimates=False))
    before = bits(store.read_scores())
    with pytest.raises(Exception, match="10 of 10 mixtures of noisy on class-split have no estimates"):
        rescore(store.read_run(), digits, ("psnr",), store)
    assert bits(store.read_scores()) == before


@pytest.mark.parametrize("key", ["pairs_sha256", "mixtures_sha256"])
def test_scoring_again_wants_the_same_mixtures(planned: Planned, runner: Runner, digits: Suite, key: str) -> None:
    _, store = runner(planned("halves"))
    run = store.read_run()
    setattr(run.tasks["class-split"], key, "0" * 64)
    with pytest.raises(Exception, match=f"{key} differs"):
        rescore(run, digits, (), store)
    run = store.read_run()
    run.suite.version = 99
    with pytest.raises(Exception, match="version 99"):
        rescore(run, digits, (), store)


def test_data_are_opened_before_anything_is_written(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("halves")
    check_data(plan)
    monkeypatch.setattr(type(plan.tasks["class-split"]), "mixture_set", lambda self: [])
    with pytest.raises(Exception, match="holds 0"):
        check_data(plan)


def test_damaged_estimates_are_made_again_though_their_scores_are_there(planned: Planned, runner: Runner, digits: Suite) -> None:
    plan = planned("noisy")
    _, store = runner(plan)
    before = bits(store.read_scores())
    (path, *_) = sorted((store.path / "estimates").rglob("*.*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(Exception, match="finish the run with its own command first"):
        rescore(store.read_run(), digits, ("psnr",), store)
    runner(plan)
    assert path.read_bytes()[:100] == whole[:100]
    assert bits(store.read_scores()) == before
    rescore(store.read_run(), digits, (), store)


@pytest.mark.parametrize("keep", [True, False])
def test_failed_mixtures_are_tried_again_when_asked(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    options = {"settings": {"broken": {"how": "nan", "at": 5}}, "keep_estimates": keep}
    _, store = runner(planned("broken", **options))
    first = store.read_scores()
    assert store.read_cells()["class-split", "broken"].n_failed == 1
    monkeypatch.setattr(run_fakes.Broken, "separate", run_fakes.Fake.separate)
    runner(planned("broken", **options))
    assert bits(store.read_scores()) == bits(first)
    run_fakes.Fake.batches.clear()
    monkeypatch.setattr(run_fakes.Broken, "fit", lambda self, view, ctx: 1 / 0)
    outcome, _ = runner(planned("broken", **options, retry_failed=True))
    assert outcome.exit_code == 1
    assert bits(store.read_scores()) == bits(first)  # a fit that fails takes nothing away
    monkeypatch.setattr(run_fakes.Broken, "fit", run_fakes.Fake.fit)
    runner(planned("broken", **options, retry_failed=True))
    cell = store.read_cells()["class-split", "broken"]
    assert (cell.state, cell.n_failed, cell.error) == ("done", 0, "")
    assert sum(run_fakes.Fake.batches) == 1 + 4  # the warm-up and the one shard of three
    assert store.read_scores()["value"].notna().all()


def _cell(state: str, error: str = "") -> tuple[Cell, CellRecord]:
    return cast(Cell, None), CellRecord.model_validate({"state": state, "error": error})


NO_DATA = "DataError: the data set 'x' is missing"


@pytest.mark.parametrize(
    ("cells", "code"),
    [
        ([("done", ""), ("unsupported", "")], 0),
        ([("failed", NO_DATA)], 2),
        ([("failed", NO_DATA), ("unsupported", "")], 2),  # nobody tried the other
        ([("failed", NO_DATA), ("done", "")], 1),
        ([("failed", NO_DATA), ("partial", "")], 1),
        ([("partial", "ValueError: of some")], 0),
        ([("failed", NO_DATA), ("failed", "ValueError: x")], 1),
        ([("failed", "ValueError: x"), ("unsupported", "")], 1),
        ([("unsupported", "")], 0),
    ],
)
def test_what_was_not_tried_does_not_change_the_exit_code(cells: list[tuple[str, str]], code: int) -> None:
    assert Outcome(tuple(_cell(*cell) for cell in cells)).exit_code == code
