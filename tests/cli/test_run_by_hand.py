"""``sepbench run`` without a run: in which order what is done where, what is said at the end, and the tables of plans and results."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from sepbench.cli import run as command
from sepbench.cli import run_config
from sepbench.errors import SepbenchError
from sepbench.protocols import Support

WIDE = {"COLUMNS": "200"}
TASK = SimpleNamespace(spec=SimpleNamespace(name="t"))


class World:
    """What a run does, in its order, with stand-ins for all that works."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.did: list[Any] = []
        self.repeats: list[tuple[str, Any]] = []
        self.code, self.failed = 0, 0
        self.record: dict[str, Any] = {"error": "", "traceback": "", "n_separated": 0}
        self.suite = SimpleNamespace(name="digits-pairs")
        for place, stand_in in {
            "sepbench.suites.loader.load_suite": lambda name: self.suite,
            "sepbench.run.plan.make_plan": self._plan,
            "sepbench.run.plan.repeated_plans": self._repeated,
            "sepbench.results.recording.prepare": lambda plan, fetching: self.did.append(f"prepare with {fetching.__name__}"),
            "sepbench.run.backends.chosen.make_backend": self._backend,
            "sepbench.run.provenance.run_record": lambda *given: ("record", *given[1:]),
            "sepbench.run.provenance.default_folder": lambda record: Path("runs") / str(len(record)),
            "sepbench.results.repeats.folder_of": lambda folder, kind, seed: folder / f"{kind}-{seed}",
            "sepbench.results.store.RunStore.open": lambda folder: SimpleNamespace(path=folder, session=self._session),
            "sepbench.report.costs.cost_line": lambda plan: "it takes [an] hour",
            "sepbench.report.audio_examples.check_audio": lambda suite: self.did.append(f"sounds of {suite.name}"),
        }.items():
            patch.setattr(place, stand_in)
        patch.setattr(command, "_execute", self._execute)
        patch.setattr(command, "finish", lambda store, suite, console: self.did.append(f"finish {store.path} {suite}"))
        patch.setattr(command, "_save_audio", lambda folder, count, console: self.did.append(f"{count} sounds in {folder}"))
        patch.setattr(command, "_plan_table", lambda plan: "a table")
        patch.setattr("sepbench.report.fitting.print_table", lambda table, console: console.print(table))
        patch.setattr(run_config, "command_line", lambda ctx, words: "the command")
        patch.setattr(run_config, "save_config", lambda ctx, path: self.did.append(f"options in {path}"))

    def _plan(self, request: Any, suite: Any) -> Any:
        self.request = request
        self.did.append("plan")
        return SimpleNamespace(device="cpu:resolved", request=request, suite="the plan's suite")

    def _repeated(self, plan: Any, suite: Any, seeds: int, fits: int) -> list[Any]:
        self.did.append(("repeats", seeds, fits, suite is self.suite))
        return self.repeats

    def _backend(self, *given: str) -> Any:
        self.did.append(("backend", *given))
        return SimpleNamespace(workers=4)

    @contextlib.contextmanager
    def _session(self) -> Any:
        self.did.append("session")
        yield
        self.did.append("end")

    def _execute(self, plan: Any, record: Any, folder: Path, team: Any, last: bool) -> Any:
        self.did.append((getattr(plan, "name", "run"), record, str(folder), team.workers, last))
        counts = (0, self.failed)
        cells = [(SimpleNamespace(task=TASK, method=f"m{n}"), SimpleNamespace(**self.record, n_failed=n)) for n in counts]
        return SimpleNamespace(exit_code=self.code if plan.device == "cpu:resolved" else 9, cells=cells)

    def __call__(self, *words: str, suite: str = "digits-pairs", methods: str = "nmf") -> Any:
        app = typer.Typer()
        app.command()(command.run)
        self.did.clear()
        return CliRunner(env=WIDE).invoke(app, ["--suite", suite, *(["--methods", methods] if methods else []), *words])


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    monkeypatch.chdir(tmp_path)
    return World(monkeypatch)


RECORD = ("record", "the command", "local", 4)
BEFORE = ["plan", "prepare with fetch_with_progress", ("backend", "local", "", "cpu:resolved")]


@pytest.mark.parametrize("code", [0, 1, 2])
@pytest.mark.parametrize(("words", "folder"), [((), "runs/2"), (("--out", "here"), "here")])
def test_a_run_alone_prints_its_own_board(world: World, code: int, words: tuple[str, ...], folder: str) -> None:
    world.code = code
    done = world(*words)
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", "")
    assert world.did == [*BEFORE, ("repeats", 1, 1, True), ("run", RECORD, folder, 4, True)]


def test_repeats_go_below_the_run_and_its_board_is_made_when_all_are_there(world: World) -> None:
    world.repeats = [
        (kind, SimpleNamespace(name=kind, device="cpu", request=SimpleNamespace(seed=seed, fit_seed=fit)))
        for kind, seed, fit in (("seeds", 7, None), ("fits", 6, 8), ("fits", 6, None))
    ]
    done = world("--out", "here", "--seeds", "2", "--fits", "3")
    assert done.exit_code == 0  # that of the run itself
    assert world.did == [
        *BEFORE,
        ("repeats", 2, 3, True),
        ("run", RECORD, "here", 4, False),
        ("seeds", RECORD, "here/seeds-7", 4, False),
        ("fits", RECORD, "here/fits-8", 4, False),
        ("fits", RECORD, "here/fits-0", 4, False),
        *("session", "finish here the plan's suite", "end"),
    ]


def test_sounds_and_options_are_written_and_both_are_checked_first(world: World) -> None:
    done = world("--out", "here", "--save-audio", "3", "--save-config", "a.yaml", "--backend", "ray", "--workers", "auto")
    assert done.exit_code == 0, done.output
    record = ("record", "the command", "ray", 4)
    backend = ("backend", "ray", "auto", "cpu:resolved")
    assert world.did == [
        *("sounds of digits-pairs", "plan", "options in a.yaml", "prepare with fetch_with_progress", backend),
        *(("repeats", 1, 1, True), ("run", record, "here", 4, True), "3 sounds in here"),
    ]
    refused = world("--save-audio", "3", "--no-keep-estimates")
    assert str(refused.exception) == "--save-audio reads the estimates that --no-keep-estimates removes; leave one of them out"
    assert world.did == ["sounds of digits-pairs"]


FAILED = "mixtures that failed keep their rows; once the cause is mended, the same command with --retry-failed tries them again\n"
REMOVED = "estimates were removed: 'sepbench score' cannot score this run again\n"


@pytest.mark.parametrize(
    ("words", "failed", "said"), [((), 1, FAILED), (("--no-keep-estimates",), 0, REMOVED), (("--no-keep-estimates",), 2, FAILED + REMOVED)]
)
def test_what_is_said_at_the_end(world: World, words: tuple[str, ...], failed: int, said: str) -> None:
    world.failed = failed
    assert world(*words).stderr == said


@pytest.mark.parametrize("wanted", ["", "1"])
def test_where_the_traceback_of_a_failure_lies(world: World, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("SEPBENCH_TRACEBACK", wanted)
    trace = 'File "[x].py"\nValueError: [x]\n'
    world.failed, world.record = 2, {"error": "ValueError: [x]", "traceback": trace, "n_separated": 0}
    lies = "the whole traceback lies in here/cells/t--m2.json; SEPBENCH_TRACEBACK=1 shows it here\n"
    assert world("--out", "here").stderr == FAILED + (f"t / m2\n{trace}" if wanted else lies)
    world.record |= {"error": "ContractError: separate returned int instead of a tensor", "n_separated": 3}  # its traceback is of sepbench alone
    assert world("--out", "here").stderr == FAILED + "if the code of m2 changes, which has scored mixtures here, it needs another --out\n"


def test_a_whole_suite_says_what_it_costs_and_a_plan_is_shown_without_being_run(world: World) -> None:
    assert world(methods="").stderr == "note: it takes [an] hour\n"
    done = world("--dry-run", "--out", "a[b]", "--save-config", "a.yaml", methods="")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "a table\nwould write to a[b]\n", "note: it takes [an] hour\n")
    assert world.did == ["plan", "options in a.yaml"]


@pytest.mark.parametrize("words", [("--seeds", "0"), ("--fits", "0"), ("--threads", "0"), ("--save-audio", "-1"), ("--limit", "x")])
def test_numbers_out_of_bounds_are_refused(world: World, words: tuple[str, ...]) -> None:
    assert world(*words).exit_code == 2
    assert world.did == []


@pytest.mark.parametrize(("text", "found"), [("", ()), (" , ", ()), (" a ,b,, c ", ("a", "b", "c")), (",", ()), ("a b", ("a b",))])
def test_names_with_commas(text: str, found: tuple[str, ...]) -> None:
    assert command.names(text) == found


@pytest.mark.parametrize(("source", "refused"), [("COMMANDLINE", True), ("DEFAULT_MAP", True), ("DEFAULT", False), ("ENVIRONMENT", False)])
def test_an_empty_list_that_somebody_gave_is_no_wish_for_everything(source: str, refused: bool) -> None:
    ctx: Any = SimpleNamespace(get_parameter_source=lambda option: SimpleNamespace(name=source))
    command._check_given(ctx, methods="a", tasks="b")
    if not refused:
        command._check_given(ctx, methods="", tasks=" , ")
        return
    with pytest.raises(SepbenchError) as told:
        command._check_given(ctx, methods="a", tasks=" , ")
    assert str(told.value) == "--tasks names nothing; leave it out to run all tasks of the suite"


# ---- tables ----------------------------------------------------------------------------------------------------------------------------


def test_every_cell_of_a_plan_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    def cell(method: str, support: Support, planned: int) -> Any:
        return SimpleNamespace(task=SimpleNamespace(spec=SimpleNamespace(name="t")), method=method, supervision="prior", support=support, n_planned=planned)

    plan: Any = SimpleNamespace(
        suite=SimpleNamespace(name="s", version=4),
        device="cuda:1",
        request=SimpleNamespace(seed=7, budget="quick"),
        cells=(cell("a", Support(True), 12_000), cell("b", Support(True, "[x] slow"), 1), cell("c", Support(False, "two only"), 9)),
    )
    Console(width=120).print(command._plan_table(plan))
    out = capsys.readouterr().out
    assert out.splitlines()[0].strip() == "s version 4, cuda:1, seed 7, quick budget"
    rows = [[part.strip() for part in line.strip("│┃").split(line[0])] for line in out.splitlines() if line[0] in "│┃"]
    assert rows == [
        ["task", "method", "learns from", "mixtures", "note"],
        ["t", "a", "prior", "12,000", ""],
        ["t", "b", "prior", "1", "[x] slow"],
        ["t", "c", "prior", "-", "unsupported: two only"],
    ]
    assert "│   12,000 │" in out  # numbers stand to the right


@pytest.mark.parametrize(
    ("tasks", "task", "shown", "line"),
    [
        (["t", "u", "t"], "", ["t", "u", "t"], ""),
        (["t", "u", "t"], "t", ["t", "t"], "1 more task is in this run: 'sepbench show a[b]' shows all\n"),
        (["t", "u", "v"], "v", ["v"], "2 more tasks are in this run: 'sepbench show a[b]' shows all\n"),
        (["t"], "t", ["t"], ""),
    ],
)
def test_the_board_of_a_task_says_what_else_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tasks: list[str], task: str, shown: list[str], line: str
) -> None:
    results = SimpleNamespace(frame=pd.DataFrame({"task": tasks}), cells="cells", bounds="bounds", evidence="evidence")
    monkeypatch.setattr("sepbench.results.recording.finish", lambda store, suite: results if suite == "suite" else None)
    monkeypatch.setattr("sepbench.results.recording.leaderboard_path", lambda store: store.path / "board.csv")
    drawn: list[Any] = []
    monkeypatch.setattr("sepbench.report.table.render_leaderboard", lambda frame, suite, console, **laid: drawn.append((list(frame["task"]), suite, laid)))
    store: Any = SimpleNamespace(path=Path("a[b]"))
    command.finish(store, "suite", Console(width=20), task)  # type: ignore[arg-type]
    assert drawn == [(shown, "suite", {"cells": "cells", "bounds": "bounds", "evidence": "evidence"})]
    assert capsys.readouterr().out == f"{line}leaderboard: a[b]/board.csv\n"


@pytest.mark.parametrize("last", [True, False])
def test_a_plan_is_recorded_with_bars_and_only_the_last_one_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], last: bool) -> None:
    finished: list[Any] = []
    progress = SimpleNamespace(console=Console(width=200), finished=1_500.0)
    plan: Any = SimpleNamespace(suite="suite", cells=[SimpleNamespace(n_planned=2_000), SimpleNamespace(n_planned=500)])
    monkeypatch.setattr("sepbench.report.progress.RunProgress", lambda: progress)
    monkeypatch.setattr(command, "finish", lambda store, suite, console: finished.append((store, suite)))

    def record_run(*given: Any) -> str:
        assert given[:5] == (plan, "record", "folder", progress, "team")
        given[5]("store")
        return "outcome"

    monkeypatch.setattr("sepbench.results.recording.record_run", record_run)
    assert command._execute(plan, "record", "folder", "team", last) == "outcome"  # type: ignore[arg-type,comparison-overlap]
    assert finished == [("store", "suite")] * last

    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sepbench.results.recording.record_run", interrupted)
    progress.finished = 1_500
    with pytest.raises(typer.Exit) as ended:
        command._execute(plan, "record", "folder", "team", last)  # type: ignore[arg-type]
    assert ended.value.exit_code == 130
    assert capsys.readouterr().out == "interrupted after 1,500 of 2,500 mixtures; run the same command again to resume\n"
