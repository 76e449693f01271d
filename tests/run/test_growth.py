"""The same folder with more mixtures, methods or tasks: what exists is kept to the bit, the rest is added, and nothing that nobody asked for appears."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_fakes
from run_harness import Runner, bits
from told_places import without_place

from sepbench.results.leaderboard import build_leaderboard
from sepbench.results.store import RunStore, StoreError
from sepbench.results.values import Values
from sepbench.run.execute import RescoreError, rescore
from sepbench.run.plan import Plan
from sepbench.suites.model import Suite

Planned = Callable[..., Plan]


def _files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file of results with its time and its bytes."""
    found = [path for part in ("estimates", "scores") for path in (folder / part).rglob("*.*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def _kept(before: dict[Path, tuple[int, bytes]], folder: Path) -> bool:
    after = _files(folder)
    return {path: after.get(path) for path in before} == before


def _separated() -> int:
    """Mixtures that went through ``separate`` since the last question, warm-ups included."""
    count = sum(run_fakes.Fake.batches)
    run_fakes.Fake.batches.clear()
    return count


def _board(store: RunStore, suite: Suite) -> dict[tuple[str, str], tuple[int, int]]:
    """(task, method) -> mixtures scored and expected by the metric that ranks."""
    frame = build_leaderboard(Values.of_run(store), store.read_run(), store.read_cells(), suite)
    rows = frame[frame["metric"] == "psnr"]
    return {(row.task, row.method): (row.n_scored, row.n_expected) for row in rows.itertuples()}


@pytest.mark.parametrize("shard_size", [4, None])
def test_more_mixtures(planned: Planned, tmp_path: Path, digits: Suite, shard_size: int | None) -> None:
    options: dict[str, Any] = {"shard_size": shard_size}
    _, whole = Runner(tmp_path / "whole")(planned("noisy", limit=21, **options))
    runner = Runner(tmp_path / "grown")
    runner(planned("noisy", limit=10, **options))
    before = _files(runner.folder)
    _separated()
    outcome, store = runner(planned("noisy", limit=21, **options))
    assert outcome.exit_code == 0
    assert _separated() == 1 + 11
    assert _kept(before, runner.folder)
    assert bits(store.read_scores()) == bits(whole.read_scores())
    cell = store.read_cells()["class-split", "noisy"]
    assert (cell.state, cell.n_planned, cell.n_separated) == ("done", 21, 21)
    assert (store.read_run().limit, store.read_run().tasks["class-split"].n_planned) == (21, 21)
    assert _board(store, digits) == {("class-split", "noisy"): (21, 21)}


def test_all_mixtures_after_some(planned: Planned, runner: Runner) -> None:
    runner(planned("halves", limit=10, shard_size=None))
    _, store = runner(planned("halves", limit=None, shard_size=None))
    assert store.read_run().limit is None
    assert store.read_cells()["class-split", "halves"].n_separated == 1000
    assert sorted(store.read_scores()["example"].unique()) == list(range(1000))


@pytest.mark.parametrize("limit", [1, 4, 7])
def test_fewer_mixtures_change_nothing(planned: Planned, runner: Runner, digits: Suite, limit: int) -> None:
    _, store = runner(planned("noisy", limit=10))
    before, cells = _files(runner.folder), store.read_cells()
    _separated()
    outcome, _ = runner(planned("noisy", limit=limit))
    assert outcome.exit_code == 0
    assert _separated() == 0
    assert _files(runner.folder) == before
    assert store.read_cells() == cells
    assert (store.read_run().limit, store.read_run().tasks["class-split"].n_planned) == (10, 10)
    assert _board(store, digits) == {("class-split", "noisy"): (10, 10)}


def test_failed_mixtures_beyond_those_that_are_asked_for_are_not_tried_again(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"settings": {"broken": {"how": "nan", "at": 9}}, "retry_failed": True}
    runner(planned("broken", limit=12, **options))
    before = _files(runner.folder)
    monkeypatch.setattr(run_fakes.Broken, "separate", run_fakes.Fake.separate)
    _separated()
    runner(planned("broken", limit=8, **options))
    assert (_separated(), _files(runner.folder)) == (0, before)
    _, store = runner(planned("broken", limit=9, **options))  # the shard of mixtures 8 to 11 is done again as it is
    assert _separated() == 1 + 4
    assert store.read_cells()["class-split", "broken"].n_separated == 12


def test_more_methods_and_more_tasks(planned: Planned, runner: Runner, digits: Suite) -> None:
    runner(planned("noisy", limit=10))
    first = _files(runner.folder)
    runner(planned("halves", limit=6))  # the same task under another method, of fewer mixtures
    second = _files(runner.folder)
    _separated()
    _, store = runner(planned("halves", limit=5, tasks=("class-agnostic",)))
    assert _separated() == 1 + 5
    assert _kept(first, runner.folder)
    assert _kept(second, runner.folder)
    cells = store.read_cells()
    assert {key: (cell.state, cell.n_planned) for key, cell in cells.items()} == {
        ("class-split", "noisy"): ("done", 10),
        ("class-split", "halves"): ("done", 6),
        ("class-agnostic", "halves"): ("done", 5),
    }
    # Nobody asked for noisy on class-agnostic.
    assert _board(store, digits) == {("class-split", "noisy"): (10, 10), ("class-split", "halves"): (6, 6), ("class-agnostic", "halves"): (5, 5)}
    run = store.read_run()
    assert run.grid == {"class-split": ["noisy", "halves"], "class-agnostic": ["halves"]}
    assert [len(run.sessions), list(run.methods), list(run.tasks)] == [3, ["noisy", "halves"], ["class-split", "class-agnostic"]]
    assert set(zip(*(store.read_scores()[column].astype(str) for column in ("task", "method")), strict=True)) == set(cells)


def test_a_run_that_grew_and_was_cut_off_is_finished_by_the_same_command(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Suite
) -> None:
    _, whole = Runner(tmp_path / "whole")(planned("noisy", "halves", limit=21))
    runner = Runner(tmp_path / "grown")
    _, store = runner(planned("noisy", "halves", limit=10))
    calls, separate = {"n": 0}, run_fakes.Noisy.separate

    def interrupted(self: run_fakes.Noisy, *arguments: Any) -> Any:
        calls["n"] += 1
        if calls["n"] == 4:
            signal.raise_signal(signal.SIGINT)
        return separate(self, *arguments)

    monkeypatch.setattr(run_fakes.Noisy, "separate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner(planned("noisy", "halves", limit=21))
    # Meanwhile it says what is there of what was asked for, also of the method that had no turn yet.
    assert _board(store, digits) == {("class-split", "noisy"): (12, 21), ("class-split", "halves"): (10, 21)}
    assert {cell.state for cell in store.read_cells().values()} == {"partial"}
    monkeypatch.setattr(run_fakes.Noisy, "separate", separate)
    _, store = runner(planned("noisy", "halves", limit=21))
    assert bits(store.read_scores()) == bits(whole.read_scores())


def test_a_fit_that_failed_makes_room_for_a_larger_one(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch, digits: Suite) -> None:
    runner(planned("fails-fit", limit=6))
    outcome, store = runner(planned("fails-fit", limit=10))
    assert outcome.exit_code == 1
    frame = store.read_scores()
    assert sorted(frame["example"]) == sorted(list(range(10)) * len(digits.metrics))  # every example once, with its error
    assert {without_place(error) for error in frame["error"]} == {"ValueError: singular matrix"}
    monkeypatch.setattr(run_fakes.FailsFit, "broken", None)
    outcome, store = runner(planned("fails-fit", limit=12))
    assert outcome.exit_code == 0
    assert set(store.read_scores()["error"]) == {""}
    assert _board(store, digits) == {("class-split", "fails-fit"): (12, 12)}


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 1}, r"seed is 0 in .* and 1 here; give --seed 0 to go on with that run, or"),
    "budget": ({"budget": "quick"}, "budget is paper in .* and quick here; give --budget paper to go on"),
    "settings": (
        {"settings": {"halves": {"gain": 0.5}}},
        r"another run of method halves: gain is 1\.0 in .* and 0\.5 here; give --set halves\.gain=1\.0 to go on",
    ),
    "shard size": ({"shard_size": 5}, "shard_size is 4 in .* and 5 here; give --shard-size 4 to"),
}


@pytest.mark.parametrize(("options", "message"), OTHERS.values(), ids=OTHERS.keys())
def test_another_run_is_refused_in_one_line(planned: Planned, runner: Runner, options: dict[str, Any], message: str) -> None:
    _, store = runner(planned("halves"))
    before, record = _files(runner.folder), store.read_run()
    with pytest.raises(StoreError, match=message) as caught:
        runner(planned("halves", "noisy", limit=20, **options))
    assert str(caught.value).endswith(" choose another --out")
    assert "\n" not in str(caught.value)
    assert _files(runner.folder) == before
    assert store.read_run() == record


def test_a_method_whose_code_has_changed_is_refused(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner(planned("halves"))
    monkeypatch.setattr("sepbench.run.provenance.source_sha256", lambda cls: "0" * 64)
    with pytest.raises(StoreError, match="source_sha256 of method halves is "):
        runner(planned("halves", limit=20))
    runner(planned("noisy"))  # of another method the run knows nothing yet


def test_settings_of_a_method_that_joins_are_free(planned: Planned, runner: Runner) -> None:
    runner(planned("noisy"))
    _, store = runner(planned("halves", settings={"halves": {"gain": 0.5}}))
    assert store.read_run().methods["halves"].settings["gain"] == 0.5


# -- what comes after


def test_a_grown_run_is_scored_again(planned: Planned, runner: Runner, digits: Suite) -> None:
    runner(planned("noisy", limit=10))
    runner(planned("halves", "picky", limit=6, tasks=("class-split", "class-agnostic")))
    _, store = runner(planned("noisy", limit=14))
    before, cells = bits(store.read_scores()), store.read_cells()
    _separated()
    assert rescore(store.read_run(), digits, (), store) == digits.metrics
    assert bits(store.read_scores()) == before
    assert store.read_cells() == cells
    assert _separated() == 0


def test_a_part_that_was_asked_for_and_not_reached_is_not_scored_again(
    planned: Planned, runner: Runner, digits: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner(planned("noisy"))

    def interrupted(self: run_fakes.Halves, *arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(run_fakes.Halves, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner(planned("halves"))
    store = RunStore.open(runner.folder)
    before = bits(store.read_scores())
    with pytest.raises(RescoreError, match="10 of 10 mixtures of halves on class-split have no estimates: finish the run with its own command first"):
        rescore(store.read_run(), digits, ("psnr",), store)
    assert bits(store.read_scores()) == before


def test_a_run_with_fewer_metrics_grows_with_the_suite_s(planned: Planned, runner: Runner, digits: Suite) -> None:
    _, store = runner(planned("noisy", limit=10))
    before = bits(store.read_scores())
    rescore(store.read_run(), digits, ("psnr",), store)
    store.end_session(("psnr",))
    _separated()
    _, store = runner(planned("noisy", limit=10))
    assert _separated() == 0  # estimates are there
    assert bits(store.read_scores()) == before


def test_latency_is_measured_once_and_kept(planned: Planned, runner: Runner) -> None:
    _, store = runner(planned("halves", latency=True))
    before = store.read_cells()["class-split", "halves"].latency_seconds
    assert before is not None
    run_fakes.Fake.batches.clear()
    runner(planned("halves", latency=True))
    assert run_fakes.Fake.batches == []  # all is there, the measurement too
    assert store.read_cells()["class-split", "halves"].latency_seconds == before
    runner(planned("halves", limit=14))
    grown = store.read_cells()["class-split", "halves"]
    assert (grown.latency_seconds, grown.n_separated, grown.state) == (before, 14, "done")


def test_other_weights_may_fit_where_nothing_is_kept(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ended before its first shard was whole has a record and nothing else: no number of the old weights is there."""
    monkeypatch.setattr(run_fakes.Halves, "weights_sha256", "old", raising=False)
    plan = planned("halves")
    _, store = runner(plan)
    for shard in [item.shard for item in store.find("class-split", "halves", plan.metrics)]:
        store.remove_scores(shard)
        store.remove_estimates(shard)
    monkeypatch.setattr(run_fakes.Halves, "fit", lambda self, view, ctx: setattr(self, "weights_sha256", "new"))
    runner(plan)
    assert store.read_cells()["class-split", "halves"].weights_sha256 == "new"
