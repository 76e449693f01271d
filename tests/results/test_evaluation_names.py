"""Where results go by default: the name of the folder of supplied estimates, of repetitions and of scores beside a leaderboard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.results import evaluation
from sepbench.results.evaluation import DEFAULT_FOLDER, _short_hash, _task, _write_leaderboard, evaluate_estimates
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.results.repeats import KINDS, folder_of, repetitions, with_repetitions
from sepbench.results.statistics import TaskDesigns
from sepbench.results.store import RunStore
from sepbench.run.supplied import Said


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
    first = [repetition.values.of("class-split", "nmf", "psnr").values[0] for repetition in repetitions(store, "seeds")]
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
    (seeds,) = with_repetitions(run.frame(), {}, store, designs)[0].to_dict("records")
    repeated(tmp_path / "run", "fits", {1: 1.0, 2: 2.0})
    (both,) = with_repetitions(run.frame(), {}, store, designs)[0].to_dict("records")
    mean = run.frame()["mean"].iloc[0]
    assert (seeds["seeds"], seeds["fits"], seeds["interval"]) == (2, 1, "cluster t and seeds")
    assert seeds["mean"] == pytest.approx(mean + 1.5)
    assert (both["seeds"], both["fits"], both["interval"]) == (2, 3, "cluster t and fits")
    assert both["mean"] == pytest.approx(mean + 1.0)
    assert (both["std_seeds"], both["std_fits"]) == (pytest.approx(3.0 / 2**0.5), pytest.approx(1.0))
    assert both["ci_low"] < both["mean"] < both["ci_high"]
    assert both["std"] == pytest.approx(run.frame()["std"].iloc[0])


def test_a_row_beside_a_run_that_was_repeated_keeps_its_repetitions(tmp_path: Path) -> None:
    """Estimates that join a run's folder write its leaderboard anew."""
    store = repeated(tmp_path / "run", "seeds", {1: 3.0})
    _write_leaderboard(store, SyntheticRun(n=1).suite)
    (row,) = read_leaderboard(tmp_path / "run" / "leaderboard.csv").to_dict("records")
    assert (row["seeds"], row["fits"], row["interval"], row["cluster"]) == (2, 1, "cluster t and seeds", "image")


# --- what an evaluation hands on


class Handed:
    """Stands in for every step of an evaluation, and notes what each was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[Any, ...]] = []
        task = SimpleNamespace(spec=SimpleNamespace(name="t"), digest="d")
        self.suite: Any = SimpleNamespace(name="s", version=1, metrics=("psnr",), tasks={"t": task})
        self.cell = SimpleNamespace(task=task, name="mine!", inspection=SimpleNamespace(sha256="e"), warnings=("odd", "odder"))
        self.store = SimpleNamespace(
            session=self.session,
            end_session=lambda metrics: self.steps.append(("end", metrics)),
            read_run=lambda: SimpleNamespace(methods="methods there"),
            read_cell=lambda task, name: SimpleNamespace(n_planned=7),
            path="P",
        )
        fakes = {
            "checked_name": lambda name: f"{name}!",
            "checked_supervision": lambda level: f"level {level}",
            "resolve_device": lambda device: f"device {device}",
            "load_suite": lambda name: (self.steps.append(("load", name)), self.suite)[1],
            "checked_metrics": lambda metrics, specs: ("metrics", metrics, [spec.name for spec in specs]),
            "inspect_estimates": self.inspect,
            "check_same": lambda cell, methods, old: self.steps.append(("same", cell, methods, old.n_planned)),
            "supplied_record": lambda *given: (self.steps.append(("record", *given[1:])), SimpleNamespace(environment="here"))[1],
            "commit": lambda environment: f"commit of {environment}",
            "score_supplied": lambda cell, store, metrics, said, **more: self.steps.append(("score", metrics, said, more)),
            "_write_leaderboard": lambda store, suite: self.steps.append(("board", store, suite)),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(evaluation, name, fake)
        monkeypatch.setattr(evaluation.RunStore, "create", lambda folder, record, warn: (self.steps.append(("create", folder)), warn("late"), self.store)[2])
        monkeypatch.setattr(evaluation.RunStore, "open", lambda folder, warn: (self.steps.append(("open", folder)), self.store)[1])

    @contextmanager
    def session(self, record: object) -> Iterator[None]:
        self.steps.append(("held",))
        yield
        self.steps.append(("given back",))

    def inspect(self, task: Any, name: str, estimates: object, **more: Any) -> Any:
        self.steps.append(("inspect", task.spec.name, name, estimates, more))
        return self.cell

    def of(self, step: str) -> list[tuple[Any, ...]]:
        return [one[1:] for one in self.steps if one[0] == step]


@pytest.mark.parametrize("flag", [True, False])
def test_every_option_of_an_evaluation_reaches_its_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flag: bool) -> None:
    monkeypatch.chdir(tmp_path)
    handed, warned = Handed(monkeypatch), list[str]()

    def inspected(done: int, total: int) -> None: ...
    def scored(done: int, total: int) -> None: ...

    found: Any = evaluate_estimates(
        *("suites/x.toml", "t", "estimates", "mine"),
        **{"supervision": "sources", "limit": 5, "partial": flag, "allow_clipped": not flag, "keep_estimates": flag, "device": "cpu", "command": "the line"},
        **{"warn": warned.append, "inspected": inspected, "scored": scored},
    )  # type: ignore[call-overload]
    assert found is handed.store
    assert handed.of("load") == [("suites/x.toml",)]
    assert handed.of("inspect") == [("t", "mine!", "estimates", {"limit": 5, "partial": flag, "allow_clipped": not flag, "advance": inspected})]
    assert handed.of("record") == [(handed.suite, str(tmp_path / "suites/x.toml"), 5, "the line", None)]
    assert handed.of("create") == [(Path("runs") / f"s-{_short_hash(handed.cell, handed.suite)}",)]  # type: ignore[arg-type]
    said = Said("level sources", "the line", "commit of here")
    metrics = ("metrics", ("psnr",), ["t"])
    assert handed.of("score") == [(metrics, said, {"keep_estimates": flag, "device": "device cpu", "advance": scored})]
    assert warned == ["odd", "odder", "late"]
    assert [one[0] for one in handed.steps][-6:] == ["held", "same", "score", "end", "board", "given back"]
    assert handed.of("end") == [(metrics,)]
    assert handed.of("board") == [(handed.store, handed.suite)]


@pytest.mark.parametrize(("limit", "asked"), [(None, None), (3, 7), (9, 9), (0, 0), (-1, -1)])
def test_what_is_there_already_is_never_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: int | None, asked: int | None) -> None:
    """A folder with seven mixtures of these estimates; limits that make no sense are left to whoever refuses them."""
    (tmp_path / "run.json").touch()
    handed = Handed(monkeypatch)
    evaluate_estimates(handed.suite, "t", "estimates", "mine", tmp_path, limit=limit)  # type: ignore[arg-type]
    assert handed.of("load") == []  # it was handed over itself
    assert handed.of("open") == [(tmp_path,)]
    assert handed.of("create") == [(tmp_path,)]
    assert handed.of("inspect")[0][3] == {"limit": asked, "partial": False, "allow_clipped": False, "advance": handed.of("inspect")[0][3]["advance"]}
    ((_, path, told, command, before),) = handed.of("record")
    assert (path, told, command, before.methods) == ("", asked, "", "methods there")
    assert handed.of("same") == [(handed.cell, "methods there", 7)] * 2  # once more while the folder is held
    assert handed.of("score")[0][2]["keep_estimates"] is True
    assert handed.of("score")[0][2]["device"] == "device cpu"


def test_only_a_suite_that_was_asked_for_by_its_file_is_recorded_by_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    handed = Handed(monkeypatch)
    evaluate_estimates("s", "t", "estimates", "mine", tmp_path)
    assert handed.of("load") == [("s",)]
    assert handed.of("open") == []  # there is no run yet
    assert handed.of("record") == [(handed.suite, "", None, "", None)]
