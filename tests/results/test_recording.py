"""From a plan to a run's folder: in which order things happen, and what each step is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synthetic_run import SyntheticRun

from sepbench.results import recording
from sepbench.results.leaderboard_file import format_leaderboard, read_leaderboard
from sepbench.results.recording import finish, leaderboard_path, prepare, record_run
from sepbench.results.store import RunStore
from sepbench.results.target import open_run


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What happened, one after another."""
    return []


def test_what_is_checked_before_anything_is_written(steps: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set of every task is there once, between the two checks."""

    def told(name: str) -> Callable[..., None]:
        return lambda *given: steps.append((name, *given))

    asked: list[list[str]] = []

    def manifests_of(datasets: Iterator[str]) -> list[str]:
        asked.append(list(datasets))
        return ["first", "second"]

    monkeypatch.setattr(recording, "check_runnable", told("runnable"))
    monkeypatch.setattr(recording, "check_data", told("data"))
    monkeypatch.setattr(recording, "manifests_of", manifests_of)
    monkeypatch.setattr(recording, "load_manifest", lambda name: f"manifest of {name}")
    plan: Any = SimpleNamespace(tasks={name: SimpleNamespace(spec=SimpleNamespace(datasets=sets)) for name, sets in (("a", ("x", "y")), ("b", ("x",)))})
    prepare(plan, told("fetch"))
    assert asked == [["x", "y", "x"]]
    assert steps == [("runnable", plan), ("fetch", "manifest of first"), ("fetch", "manifest of second"), ("data", plan)]


class Progress:
    """Notes when it is entered and left, if it is asked to be a context manager."""

    def __init__(self, steps: list[Any]) -> None:
        self.steps = steps

    def warn(self, text: str) -> None:
        self.steps.append(text)


class EnteredProgress(Progress):
    def __enter__(self) -> None:
        self.steps.append("progress begins")

    def __exit__(self, *error: object) -> None:
        self.steps.append("progress ends")


@pytest.mark.parametrize("kind", [Progress, EnteredProgress])
@pytest.mark.parametrize("then", [True, False])
def test_a_run_is_held_until_all_is_written(steps: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Progress], then: bool) -> None:
    progress, plan, backend = kind(steps), SimpleNamespace(metrics=("psnr", "ssim"), request=SimpleNamespace(retry_failed=then)), object()
    record: Any = SimpleNamespace(command="sepbench run", environment="here")

    class Store:
        @contextmanager
        def session(self, held: Any) -> Iterator[None]:
            assert held is record
            steps.append("held")
            yield
            steps.append("given back")

        def end_session(self, metrics: Any) -> None:
            steps.append(("session ends", metrics))

    store = Store()

    def create(folder: Path, given: Any, warn: Callable[[str], None]) -> Store:
        assert (folder, given) == (tmp_path, record)
        warn("a warning of the store")
        return store

    def begin_anew(folder: Path, given: Any, retry_failed: bool, warn: Callable[[str], None]) -> None:
        assert (folder, given, retry_failed) == (tmp_path, record, then)
        warn("begun anew")

    def execute(*given: Any) -> str:
        assert given == (plan, store, progress, backend, "sepbench run", "commit of here")
        steps.append("methods work")
        return "outcome"

    monkeypatch.setattr(recording, "keep_freed_memory", lambda: steps.append("memory is kept"))
    monkeypatch.setattr(recording, "begin_anew", begin_anew)
    monkeypatch.setattr(recording.RunStore, "create", create)
    monkeypatch.setattr(recording, "execute", execute)
    monkeypatch.setattr(recording, "commit", lambda environment: f"commit of {environment}")
    after: dict[str, Any] = {"then": lambda found: steps.append(("then", found))} if then else {}
    assert record_run(plan, record, tmp_path, progress, backend, **after) == "outcome"  # type: ignore[arg-type, comparison-overlap]
    shown = kind is EnteredProgress
    assert steps == [
        *("memory is kept", "begun anew", "a warning of the store", "held"),
        *(["progress begins"] * shown),
        "methods work",
        *(["progress ends"] * shown),
        ("session ends", ("psnr", "ssim")),
        *([("then", store)] * then),
        "given back",
    ]


def test_a_leaderboard_is_written_from_the_scores_with_its_repetitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SyntheticRun({"average": 14.0, "nmf": 16.0}, n=12)
    made.save(tmp_path / "run")
    store, real = RunStore(tmp_path / "run"), recording.with_repetitions
    designs: list[Any] = []

    def repeated(frame: Any, cells: Any, own: RunStore, known: Any) -> Any:
        assert own is store
        designs.append(known.task("class-split"))
        frame, cells = real(frame, cells, own, known)
        return frame.assign(seeds=3), {key: cell.model_copy(update={"note": "seed 1 left out"}) for key, cell in cells.items()}

    monkeypatch.setattr(recording, "with_repetitions", repeated)
    results = finish(store, made.suite)
    assert designs[0].interval == "cluster t"  # of the suite: mixtures share images
    assert leaderboard_path(store) == tmp_path / "run" / "leaderboard.csv"
    assert format_leaderboard(read_leaderboard(tmp_path / "run" / "leaderboard.csv")) == format_leaderboard(made.frame().assign(seeds=3))
    assert format_leaderboard(results.frame) == format_leaderboard(made.frame().assign(seeds=3))
    opened = open_run(tmp_path / "run", "x")
    assert (results.label, results.suite, results.bounds) == (str(tmp_path / "run"), made.suite, {"average": "lower", "nmf": ""})
    assert opened.cells == made.cell_records()
    assert {key: cell.note for key, cell in results.cells.items()} == dict.fromkeys(opened.cells, "seed 1 left out")
    assert results.values is not None
    assert opened.values is not None
    assert results.values.of("class-split", "nmf", "psnr").values.tolist() == opened.values.of("class-split", "nmf", "psnr").values.tolist()
