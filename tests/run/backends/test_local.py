"""Several processes of this machine: the same bits, whoever dies on the way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from backend_runs import Watched, separate, sepbench
from run_harness import bits

from sepbench.resources import suites_root
from sepbench.run.backends.local import LocalBackend, visible_gpus
from sepbench.run.request import RequestError
from sepbench.suites.freeze import write_digests

pytestmark = pytest.mark.usefixtures("site")

LONGEST = 60.0
"""Seconds to wait for what must happen soon."""


def _until(happened: object, what: str) -> None:
    assert callable(happened)
    deadline = time.monotonic() + LONGEST
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen within {LONGEST} s"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _children(parent: int) -> list[int]:
    """Processes whose parent it is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_two_workers_count_as_one_does(tmp_path: Path) -> None:
    quick = {"projected-auto": {"search_steps": 6, "finish_steps": 2, "most_draws": 4, "calibration": 32, "accept": 5.0}}
    counted = []
    for name, backend, size in (("alone", LocalBackend(), None), ("shared", LocalBackend(2), 5)):
        _, store, _ = separate(tmp_path / name, backend, "projected-auto", limit=20, shard_size=size, settings=quick)
        counted.append(store.read_cells()["class-split", "projected-auto"].evaluations)
    assert counted[0] == counted[1]
    assert counted[0] is not None
    assert counted[0] / 20 > 8  # some mixtures were drawn again


@pytest.mark.parametrize("shard_size", [None, pytest.param(7, marks=pytest.mark.slow)])
def test_two_workers_give_the_bits_of_one(tmp_path: Path, shard_size: int | None) -> None:
    _, alone, _ = separate(tmp_path / "alone", LocalBackend(), "average", "nmf", limit=100, shard_size=shard_size)
    outcome, shared, watched = separate(tmp_path / "shared", LocalBackend(2), "average", "nmf", limit=100, shard_size=shard_size)
    assert bits(shared.read_scores()) == bits(alone.read_scores())
    assert {(cell.state, cell.workers) for cell in shared.read_cells().values()} == {("done", 2)}
    assert outcome.exit_code == 0
    assert watched.warnings == []
    assert watched.mixtures == pytest.approx(4 * 100)


@pytest.mark.slow
def test_a_worker_that_dies_in_a_batch_is_replaced_and_the_batch_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEADLY_MARKER", str(tmp_path / "died"))
    options = {"tasks": ("class-split",), "limit": 60, "shard_size": 20}
    outcome, killed, watched = separate(tmp_path / "killed", LocalBackend(2), "mortal", **options)
    assert (tmp_path / "died").exists()
    _, undisturbed, _ = separate(tmp_path / "undisturbed", LocalBackend(), "mortal", **options)
    assert bits(killed.read_scores()) == bits(undisturbed.read_scores())
    assert [record.state for _, record in outcome.cells] == ["done"]
    (warning,) = watched.warnings
    assert warning == "a worker died (signal SIGKILL) at class-split, mortal, mixtures 20 to 39; it is done again"
    assert watched.mixtures == pytest.approx(60), "what the dead worker had told of its batch is not counted twice"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_other_weights_are_refused_every_time_by_whichever_worker_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    options = {"tasks": ("class-split",), "shard_size": 5}
    monkeypatch.setenv("DEADLY_WEIGHTS", "ab")
    separate(tmp_path / "run", LocalBackend(workers), "changeling", limit=20, **options)
    before = _shards(tmp_path / "run")
    monkeypatch.setenv("DEADLY_WEIGHTS", "cd")
    for _ in range(2):
        with pytest.raises(RequestError, match="the weights of changeling have changed since this run began"):
            separate(tmp_path / "run", LocalBackend(workers), "changeling", limit=40, **options)
        assert _shards(tmp_path / "run") == before


def _shards(run: Path) -> dict[Path, bytes]:
    """Files of estimates and scores."""
    return {path: path.read_bytes() for path in run.rglob("0*-0*.*")}


@pytest.mark.slow
def test_all_workers_killed_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pids").mkdir()
    monkeypatch.setenv("DEADLY_PIDS", str(tmp_path / "pids"))
    monkeypatch.setenv("DEADLY_NAP", "0.02")
    kills: list[int] = []

    def kill_them() -> None:
        if not kills:
            kills.extend(child.pid for child in multiprocessing.active_children() if child.pid)
            for pid in kills:
                os.kill(pid, signal.SIGKILL)

    options = {"tasks": ("class-split",), "limit": 100}
    _, killed, watched = separate(tmp_path / "killed", LocalBackend(2), "sleepy", progress=Watched(kill_them), **options)
    assert len(kills) == 2
    assert all("SIGKILL" in warning for warning in watched.warnings)
    monkeypatch.setenv("DEADLY_NAP", "0")
    _, undisturbed, _ = separate(tmp_path / "undisturbed", LocalBackend(), "sleepy", **options)
    assert bits(killed.read_scores()) == bits(undisturbed.read_scores())
    assert watched.mixtures == pytest.approx(100)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_method_that_kills_every_worker_fails_alone(tmp_path: Path) -> None:
    outcome, store, watched = separate(tmp_path / "run", LocalBackend(2), "lethal", "plain", tasks=("class-split",), limit=20)
    assert outcome.exit_code == 1
    assert {cell.method: record.state for cell, record in outcome.cells} == {"lethal": "failed", "plain": "done"}
    assert outcome.cells[0][1].error == "the worker process died 2 times (signal SIGKILL)"
    scores = store.read_scores()
    assert set(scores.loc[scores["method"] == "lethal", "example"]) == set(range(20))
    assert scores.loc[scores["method"] == "lethal", "value"].isna().all()
    assert scores.loc[scores["method"] == "plain", "value"].notna().all()
    assert [warning.rpartition("; ")[2] for warning in watched.warnings] == ["it is done again", "its mixtures count as failed"]


@pytest.mark.slow
def test_warnings_of_a_worker_reach_the_user(tmp_path: Path) -> None:
    options = {"tasks": ("class-split",)}
    separate(tmp_path / "first", LocalBackend(), "forgetful", limit=10, **options)
    _, _, watched = separate(tmp_path / "second", LocalBackend(2), "forgetful", limit=5, **options)
    (warning,) = watched.warnings
    assert "cannot be loaded (ValueError: forgotten) and is made again" in warning


@pytest.mark.slow
def test_data_that_a_worker_cannot_read_end_the_run_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fading-pairs.toml"
    text = (suites_root() / "digits-pairs.toml").read_text(encoding="utf-8").replace('dataset = "digits"', 'dataset = "digits/fading"')
    path.write_text(text.replace('name = "digits-pairs"', 'name = "fading-pairs"'), encoding="utf-8")
    for listed in suites_root().glob("digits-pairs.*.csv"):
        (tmp_path / listed.name).write_bytes(listed.read_bytes())
    write_digests([path], tmp_path / "tasks.toml")
    monkeypatch.setenv("DEADLY_FADE", "1")
    run = sepbench("run", "--suite", str(path), "--methods", "plain", "--limit", "20", "--workers", "2", "--device", "cpu", "--out", "run", cwd=tmp_path)
    _, errors = run.communicate(timeout=LONGEST)
    assert run.returncode == 2
    assert errors == "error: the disk is gone; put it back\n"


SLEEPY = ("run", "--suite", "digits-pairs", "--methods", "sleepy", "--tasks", "class-split", "--limit", "100", "--device", "cpu", "--out", "run")


@pytest.fixture
def napping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which workers of ``sleepy`` leave their process ids."""
    (tmp_path / "pids").mkdir()
    monkeypatch.setenv("DEADLY_PIDS", str(tmp_path / "pids"))
    monkeypatch.setenv("DEADLY_NAP", "0.5")
    return tmp_path / "pids"


def _working(pids: Path) -> list[int]:
    return [int(path.name) for path in pids.iterdir()]


def _interrupt(run: subprocess.Popen[str]) -> str:
    """Ctrl-C: the terminal sends it to the whole group. Returns what stood on the screen then."""
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=LONGEST)
    assert run.returncode == 130
    assert "Traceback" not in errors
    assert "run the same command again to resume" in errors
    return errors


@pytest.mark.slow
def test_ctrl_c_ends_every_worker_and_the_run_resumes(tmp_path: Path, napping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = sepbench(*SLEEPY, "--workers", "2", cwd=tmp_path)
    _until(lambda: len(_working(napping)) == 2, "work of both workers")
    assert set(_working(napping)) <= set(_children(run.pid))
    _interrupt(run)
    _until(lambda: not any(map(_alive, _working(napping))), "the end of the workers")
    monkeypatch.setenv("DEADLY_NAP", "0")
    resumed = sepbench(*SLEEPY, cwd=tmp_path)
    _, errors = resumed.communicate(timeout=LONGEST)
    assert resumed.returncode == 0, errors
    board = pd.read_csv(tmp_path / "run" / "leaderboard.csv")
    assert set(board["n_scored"]) == {100}


@pytest.mark.slow
def test_ctrl_c_while_workers_are_starting(tmp_path: Path, napping: Path) -> None:
    run = sepbench(*SLEEPY, "--workers", "2", cwd=tmp_path)
    _until(lambda: len(_children(run.pid)) == 3, "the start of two workers and of what counts their resources")
    started = _children(run.pid)
    assert "interrupted after 0 of 100 mixtures" in _interrupt(run)
    _until(lambda: not any(map(_alive, started)), "the end of the workers")


@pytest.mark.slow
def test_kill_9_of_the_command_leaves_no_worker(tmp_path: Path, napping: Path) -> None:
    run = sepbench(*SLEEPY, "--workers", "2", cwd=tmp_path)
    _until(lambda: len(_working(napping)) == 2, "work of both workers")
    started = _children(run.pid)
    run.kill()
    run.communicate(timeout=LONGEST)
    _until(lambda: not any(map(_alive, started)), "the end of the workers")


def test_gpus_are_those_that_this_process_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f, 5")
    assert visible_gpus() == ("GPU-8f", "5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ("0", "1")


def test_no_workers_are_refused() -> None:
    with pytest.raises(RequestError, match="at least 1, got 0"):
        LocalBackend(0)
