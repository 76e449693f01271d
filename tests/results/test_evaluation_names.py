"""Where results go by default: the name of the folder of supplied estimates, of repetitions and of scores beside a leaderboard."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.results.evaluation import DEFAULT_FOLDER, _short_hash, _task
from sepbench.results.repeats import KINDS, folder_of, repetitions, with_repetitions
from sepbench.results.statistics import TaskDesigns
from sepbench.results.store import RunStore


def named(**changes: Any) -> str:
    """The hash of supplied estimates of these facts."""
    facts = {"suite": "s", "version": 3, "task": "t", "digest": "d" * 64, "name": "mine", "sha256": "e" * 64} | changes
    task = SimpleNamespace(spec=SimpleNamespace(name=facts["task"]), digest=facts["digest"])
    cell: Any = SimpleNamespace(task=task, name=facts["name"], inspection=SimpleNamespace(sha256=facts["sha256"]))
    suite: Any = SimpleNamespace(name=facts["suite"], version=facts["version"])
    return _short_hash(cell, suite)


def test_other_estimates_another_name_or_another_task_go_into_another_folder() -> None:
    """And the same ones into the same, today and in ten years."""
    assert named() == hashlib.sha256(f"s\n3\nt\n{'d' * 64}\nmine\n{'e' * 64}".encode()).hexdigest()[:8]
    changes = [{"suite": "x"}, {"version": 4}, {"task": "x"}, {"digest": "x"}, {"name": "x"}, {"sha256": "x"}]
    assert len({named(), *(named(**change) for change in changes)}) == 7
    assert Path("runs") == DEFAULT_FOLDER


def test_a_task_of_another_name_is_answered_with_the_nearest() -> None:
    suite: Any = SimpleNamespace(name="s", tasks={"split": 1})
    assert _task(suite, "split") == 1
    with pytest.raises(SepbenchError, match=r"^unknown task of suite s 'splt'; did you mean split\?$"):
        _task(suite, "splt")


# --- repetitions


def repeated(path: Path, kind: str, seeds: dict[int, float], n: int = 12) -> RunStore:
    """A run and repetitions of it, whose values are shifted as a whole."""
    SyntheticRun({"nmf": 16.0}, n=n, metrics=("psnr",)).save(path)
    for seed, shift in seeds.items():
        other = SyntheticRun({"nmf": 16.0}, n=n, metrics=("psnr",)).shift("nmf", "psnr", shift)
        other.record["seed" if kind == "seeds" else "fit_seed"] = seed
        other.save(folder_of(path, kind, seed))
    return RunStore.open(path)


def test_repetitions_come_in_the_order_of_their_seeds_and_other_folders_are_none(tmp_path: Path) -> None:
    store = repeated(tmp_path / "run", "seeds", {10: 10.0, 9: 9.0})
    assert (folder_of(Path("R"), "fits", 3), KINDS) == (Path("R/fits/3"), ("seeds", "fits"))
    for name in ("notes", "-1", "11"):  # a folder without a run
        (tmp_path / "run" / "seeds" / name).mkdir()
    (tmp_path / "run" / "seeds" / "8").touch()
    first = [values.of("class-split", "nmf", "psnr").values[0] for values in repetitions(store, "seeds")]
    own = SyntheticRun({"nmf": 16.0}, n=12, metrics=("psnr",)).values().of("class-split", "nmf", "psnr").values[0]
    assert first == pytest.approx([own + 9.0, own + 10.0])
    assert repetitions(store, "fits") == []


def test_a_repetition_of_another_run_is_told_with_what_differs(tmp_path: Path) -> None:
    store = repeated(tmp_path / "run", "seeds", {})
    other = SyntheticRun({"nmf": 16.0}, n=12, metrics=("psnr",))
    other.record["budget"] = "quick"
    other.save(folder_of(tmp_path / "run", "seeds", 4))
    with pytest.raises(SepbenchError) as caught:
        repetitions(store, "seeds")
    where = tmp_path / "run" / "seeds" / "4"
    assert str(caught.value) == f"{where} repeats another run (budget differs); remove it, or run again with another --out"


def test_where_both_were_repeated_mean_and_interval_are_those_of_the_fits(tmp_path: Path) -> None:
    run = SyntheticRun({"nmf": 16.0}, n=12, metrics=("psnr",))
    store = repeated(tmp_path / "run", "seeds", {1: 3.0})
    designs = TaskDesigns(lambda task: None)
    (seeds,) = with_repetitions(run.frame(), store, designs).to_dict("records")
    repeated(tmp_path / "run", "fits", {1: 1.0, 2: 2.0})
    (both,) = with_repetitions(run.frame(), store, designs).to_dict("records")
    mean = run.frame()["mean"].iloc[0]
    assert (seeds["seeds"], seeds["fits"], seeds["interval"]) == (2, 1, "cluster t and seeds")
    assert seeds["mean"] == pytest.approx(mean + 1.5)
    assert (both["seeds"], both["fits"], both["interval"]) == (2, 3, "cluster t and fits")
    assert both["mean"] == pytest.approx(mean + 1.0)
    assert (both["std_seeds"], both["std_fits"]) == (pytest.approx(3.0 / 2**0.5), pytest.approx(1.0))
    assert both["ci_low"] < both["mean"] < both["ci_high"]
    assert both["std"] == run.frame()["std"].iloc[0]
