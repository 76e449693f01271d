"""Layout and order of small things: the list of fits on terminals of any width, what ``evaluate`` and ``train`` do first, and what surrounds a command."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from sepbench.cli import cache, evaluate
from sepbench.cli import main as module
from sepbench.cli.main import app
from sepbench.errors import SepbenchError

CLI = Path(cache.__file__).parent


# ---- the list of fits ------------------------------------------------------------------------------------------------------------------


def listed(monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    task = {"source_classes": ("a", "a long name", "a", "another long name")}
    fits = [
        SimpleNamespace(method="nmf", key={"task": task, "budget": "quick", "seed": seed}, facts=None, megabytes=megabytes, folder=Path(f"fits/nmf/{'d' * 16}"))
        for seed, megabytes in ((0, 0.001), (1_234, 2.5))
    ]
    monkeypatch.setattr("sepbench.run.fit_cache.entries", lambda method: fits)
    monkeypatch.setattr("sepbench.run.fit_cache.fits_root", lambda: Path("/c"))
    out = CliRunner(env={"COLUMNS": str(columns)}).invoke(cache.app, ["list"]).stdout
    assert out.splitlines()[-1] == "2 fits, 2.5 MB; 'sepbench cache clear METHOD' removes those of a method"
    return out.splitlines()


def heads(lines: list[str]) -> list[str]:
    (line,) = [line for line in lines if line.startswith("┃")]
    return [cell.strip() for cell in line.strip("┃").split("┃")]


EVERY = ["method", "sources", "budget", "seed", "trained in", "size", "folder"]


@pytest.mark.parametrize(("columns", "left_out"), [(84, 0), (83, 1), (65, 1), (64, 2), (58, 2), (57, 3), (49, 3)])
def test_columns_of_the_list_of_fits_go_the_least_important_first(monkeypatch: pytest.MonkeyPatch, columns: int, left_out: int) -> None:
    """Names of classes wrap, to no less than twelve letters; numbers stand to the right."""
    lines, shown = listed(monkeypatch, columns), [name for name in EVERY if name not in ("folder", "seed", "budget")[:left_out]]
    assert heads(lines) == shown
    rows = [line.strip("│").split("│") for line in lines if line.startswith("│ nmf")]
    cells = [dict(zip(shown, row, strict=True)) for row in rows]
    assert all(len(row["sources"]) >= 12 + 2 for row in cells)
    assert cells[0]["sources"].strip().startswith("a, a long")
    assert (cells[0]["size"].strip(), cells[1]["size"].strip()) == ("1.0 kB", "2.5 MB")
    if "seed" in shown:
        assert [row["seed"] for row in cells] == ["    0 ", " 1234 "]
    assert all(row["method"].startswith(" nmf ") for row in cells)


def test_sizes_of_fits_stand_to_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = [SimpleNamespace(method="m", key={}, facts=SimpleNamespace(seconds=1.0), megabytes=size, folder=Path("f")) for size in (0.000002, 0.25)]
    monkeypatch.setattr("sepbench.run.fit_cache.entries", lambda method: fits)
    out = CliRunner(env={"COLUMNS": "120"}).invoke(cache.app, ["list"]).stdout
    assert [line.split("│")[6] for line in out.splitlines() if line.startswith("│ m")] == ["  2 bytes ", " 250.0 kB "]


# ---- evaluate --------------------------------------------------------------------------------------------------------------------------


def test_an_evaluation_fetches_scores_and_finishes_in_a_session_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[Any] = []

    @contextlib.contextmanager
    def session() -> Any:
        did.append("session")
        yield
        did.append("end")

    cell = SimpleNamespace(estimates_sha256="feed" * 16)
    store: Any = SimpleNamespace(session=session, read_cells=lambda: {("other", "mine"): None, ("class-split", "mine"): cell})

    def scored(*given: Any, command: str, **options: Any) -> Any:
        did.append(command)
        return store

    monkeypatch.setattr(sys, "argv", ["/usr/bin/sepbench", "evaluate", "--name", "a b"])
    monkeypatch.setattr("sepbench.results.evaluation.evaluate_estimates", scored)
    monkeypatch.setattr(evaluate, "fetch_data_of", lambda task: did.append(f"fetch {task.spec.name}"))
    monkeypatch.setattr("sepbench.cli.run.finish", lambda given, suite, console, task: did.append((given is store, suite.name, task)))
    monkeypatch.setattr(evaluate, "_print_next_step", lambda given, task, name, suite, console: did.append((task, name, suite.name)))
    done = CliRunner(env={"COLUMNS": "20"}).invoke(app, ["evaluate", "--suite", "digits-pairs", "--task", "class-split", "--estimates", "x", "--name", "mine"])
    assert done.exit_code == 0, done.exception
    assert did == [
        *("fetch class-split", "sepbench evaluate --name 'a b'", "session", (True, "digits-pairs", "class-split"), "end"),
        ("class-split", "mine", "digits-pairs"),
    ]
    assert done.stdout == f"estimates: sha256 {'feed' * 16}\n"


def test_a_task_that_is_none_is_told_by_the_evaluation_and_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "fetch_data_of", lambda task: pytest.fail("nothing is to be fetched"))
    done = CliRunner().invoke(app, ["evaluate", "--suite", "digits-pairs", "--task", "class-splt", "--estimates", "x", "--name", "mine"])
    assert isinstance(done.exception, SepbenchError)
    assert "did you mean class-split" in str(done.exception)


# ---- train -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("4", "4")])
def test_a_training_uses_one_thread_of_torch_and_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch, before: str | None, after: str) -> None:
    """Both before the data are opened; what the user has set himself is left alone."""
    did: list[Any] = []

    def opened(name: str, split: str) -> Any:
        did.append((os.environ["OMP_NUM_THREADS"], name, split))
        raise SepbenchError("enough")

    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | ({} if before is None else {"OMP_NUM_THREADS": before})
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr("sepbench.run.timing.keep_freed_memory", lambda: did.append("memory"))
    monkeypatch.setattr("sepbench.data.datasets.open_dataset", opened)
    monkeypatch.setattr("sepbench.registry.trainer", lambda kind: did.append(kind))
    monkeypatch.setattr("sepbench.report.fetching.fetch_with_progress", lambda manifest: did.append(manifest.name))
    from sepbench.cli.train import train

    with pytest.raises(SepbenchError, match="enough"):
        train("score", "digits")
    assert did == ["memory", "score", "digits", (after, "digits", "train")]


# ---- what surrounds a command ----------------------------------------------------------------------------------------------------------


def test_a_command_runs_where_threads_streams_and_failing_threads_are_seen_to(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    hook, pipes = threading.excepthook, Console.on_broken_pipe

    def stand_in(**options: Any) -> None:
        seen.update(
            threads=os.environ["OMP_NUM_THREADS"],
            spin=os.environ["GOMP_SPINCOUNT"],
            hook=threading.excepthook is not hook,
            pipes=Console.on_broken_pipe is not pipes,
            errors=(sys.stdout.errors, sys.stderr.errors),
        )

    monkeypatch.setattr(os, "environ", {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")})
    monkeypatch.setattr(Console, "on_broken_pipe", Console.on_broken_pipe)  # put back at the end
    monkeypatch.setattr(module, "app", stand_in)
    monkeypatch.setattr(sys, "argv", ["sepbench"])
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict"))
    module.main()
    assert seen == {"threads": "1", "spin": "0", "hook": True, "pipes": True, "errors": ("backslashreplace",) * 2}
    assert threading.excepthook is hook


@pytest.mark.parametrize("error", [ValueError("x"), SepbenchError("x"), typer.Exit(3)])
def test_what_is_no_error_of_the_command_line_keeps_its_own_words(error: Exception) -> None:
    outer = SimpleNamespace(command_path="sepbench", invoked_subcommand="run")
    with pytest.raises(type(error)) as raised, module._told_in_one_line(outer):
        raise error
    assert raised.value is error
    assert not hasattr(error, "show")


def test_an_error_of_the_command_line_is_told_of_the_command_that_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own context comes before the one around it; an error without any is left alone."""

    class Wrong(Exception):
        ctx: Any = None

        def format_message(self) -> str:
            return "Missing argument 'B'."

    inner = SimpleNamespace(command_path="sepbench data path", invoked_subcommand=None)
    outer = SimpleNamespace(command_path="sepbench", invoked_subcommand="data")
    for own, around, command in ((inner, outer, "sepbench data path"), (None, outer, "sepbench data"), (inner, None, "sepbench data path")):
        error = Wrong()
        error.ctx = own
        with pytest.raises(Wrong), module._told_in_one_line(around):
            raise error
        error.show("anything", file=None)  # type: ignore[attr-defined]
        assert capsys.readouterr() == ("", f"error: {command}: missing argument 'B'; '{command} --help' shows what it takes\n")
    with pytest.raises(Wrong) as raised, module._told_in_one_line():
        raise Wrong
    assert not hasattr(raised.value, "show")


def test_lines_with_names_and_paths_are_not_broken_by_the_width_of_a_terminal() -> None:
    """Who copies a path or a command from the screen gets all of it: whatever is put together is printed with ``soft_wrap``, tables excepted."""
    broken = []
    for path in sorted(CLI.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "print" and node.args):
                continue
            said, soft = node.args[0], [word for word in node.keywords if word.arg == "soft_wrap"]
            put_together = isinstance(said, (ast.Call, ast.BinOp)) or (isinstance(said, ast.JoinedStr) and path.stem != "run")
            if put_together and not (soft and ast.literal_eval(soft[0].value) is True):
                broken.append(path.stem)
    assert broken == ["validate"]  # its count of rules, which holds no path
