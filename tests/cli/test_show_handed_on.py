"""What ``show`` and ``cache`` hand on: rows, metrics, methods and statistics, each form of output, and what is refused before anything is opened."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from sepbench.cli import cache, show
from sepbench.errors import SepbenchError
from sepbench.report.rows import RowSelection

ROWS = [
    *(("t", "a", "psnr", "blind"), ("t", "b", "psnr", "bound"), ("t", "a", "ssim", "blind")),
    *(("u", "a", "psnr", "blind"), ("u", "c", "psnr", "blind"), ("u", "c", "fid", "blind")),
]
FRAME = pd.DataFrame(ROWS, columns=["task", "method", "metric", "supervision"]).assign(suite="s", unit="dB", higher_is_better=True)


def invoke(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(show.show)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["target", *arguments])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the writers of tables were handed; each says its own name and nothing else."""
    heard: list[Any] = []
    results = SimpleNamespace(
        frame=FRAME, suite="the suite", cells="cells", bounds={"c": "upper", "a": ""}, evidence="evidence", ranking_metric="psnr", label="L"
    )

    def opened(target: str, suites: bool = False) -> Any:
        heard.append((target, suites))
        return results

    def rows(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
        return list(frame[["task", "method", "metric", "supervision"]].itertuples(index=False, name=None))

    def table(frame: pd.DataFrame, suite: str, console: Any, **laid: Any) -> None:
        heard.append((rows(frame), suite, laid))
        console.print("a table")

    def markdown(frame: pd.DataFrame, suite: str, **laid: Any) -> str:
        heard.append((rows(frame), suite, laid))
        return "markdown\n"

    def document(given: Any, frame: pd.DataFrame, target: str, **laid: Any) -> Any:
        heard.append((given is results, rows(frame), target, laid))
        return "a document"

    def csv(frame: pd.DataFrame) -> str:
        heard.append(rows(frame))
        return "csv\n"

    def tables(frame: pd.DataFrame, suite: str, **laid: Any) -> list[Any]:
        """All but method a on u, and a line of a paper on t."""
        heard.append(("tables", laid["selection"]))
        lines = {"t": [("a", False), ("b", True)], "u": [("c", False), ("a", True)]}
        return [SimpleNamespace(task=task, lines=[SimpleNamespace(method=name, from_paper=paper) for name, paper in of]) for task, of in lines.items()]

    monkeypatch.setattr("sepbench.results.target.open_results", opened)
    monkeypatch.setattr("sepbench.report.table.render_leaderboard", table)
    monkeypatch.setattr("sepbench.report.table.markdown_leaderboard", markdown)
    monkeypatch.setattr("sepbench.report.documents.board_document", document)
    monkeypatch.setattr("sepbench.report.documents.json_text", lambda given: f"JSON of {given}")
    monkeypatch.setattr("sepbench.results.leaderboard_file.format_leaderboard", csv)
    monkeypatch.setattr("sepbench.report.rows.task_tables", tables)
    monkeypatch.setattr("sepbench.cli.pages.print_in_pages", lambda write, pager: (heard.append(f"pager {pager}"), write(Console())))
    return heard


class Console:
    def print(self, *text: object, **options: object) -> None:
        typer.echo(" ".join(map(str, text)))


LAID = {"cells": "cells", "bounds": {"c": "upper", "a": ""}, "evidence": "evidence"}
CHOSEN: dict[tuple[str, ...], tuple[list[int], tuple[str, ...], RowSelection]] = {
    (): ([0, 1, 2, 3, 4, 5], (), RowSelection((), None)),
    ("--task", "u"): ([3, 4, 5], (), RowSelection((), None)),
    ("--tasks", "u,t", "--metrics", "ssim, fid"): ([2, 5], ("ssim", "fid"), RowSelection((), None)),
    ("--metric", "fid"): ([5], ("fid",), RowSelection((), None)),
    ("--methods", "a, c"): ([0, 1, 2, 3, 4, 5], (), RowSelection(("a", "c"), None)),  # ranks stay those among all
    ("--top", "2"): ([0, 1, 2, 3, 4, 5], (), RowSelection((), 2)),
}


@pytest.mark.parametrize("words", CHOSEN, ids=" ".join)
def test_rows_metrics_and_methods_reach_every_form(asked: list[Any], words: tuple[str, ...]) -> None:
    numbers, metrics, selection = CHOSEN[words]
    rows, laid = [ROWS[number] for number in numbers], {"metrics": metrics, "selection": selection}
    for form, printed, handed in (
        ((), "a table\n", ["pager True", (rows, "the suite", laid | LAID)]),
        (("--no-pager",), "a table\n", ["pager False", (rows, "the suite", laid | LAID)]),
        (("--format", "markdown"), "markdown\n", [(rows, "the suite", laid | LAID)]),
        (("--json",), "JSON of a document\n", [(True, rows, "target", laid)]),
    ):
        done = invoke(*words, *form)
        assert (done.exit_code, done.stdout) == (0, printed), done.exception
        assert asked == [("target", True), *handed]
        asked.clear()
    assert invoke(*words, "--format", "csv").stdout == "csv\n"
    whole = selection == RowSelection((), None)
    assert asked == [("target", True), rows] if whole else [("target", True), ("tables", selection), [ROWS[0], ROWS[2], ROWS[4], ROWS[5]]]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--json", "--format", "csv"), "--json and --format exclude each other; give one of them"),
        (("--json", "--format", "markdown"), "--json and --format exclude each other; give one of them"),
        (("--stats", "--top", "1"), "--stats goes with --json, and with neither --top nor --format"),
        (("--stats", "--format", "csv"), "--stats goes with --json, and with neither --top nor --format"),
    ],
)
def test_options_that_exclude_each_other_are_told_before_anything_is_opened(asked: list[Any], words: tuple[str, ...], line: str) -> None:
    error = invoke(*words).exception
    assert isinstance(error, SepbenchError)
    assert (str(error), asked) == (line, [])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--task", "t", "--metric", "fid"), "unknown metric of target 'fid'; "),  # which t has not
        (("--task", "t", "--method", "c"), "unknown method of target 'c'; "),
        (("--task", "v"), "unknown task of target 'v'; "),
        (("--task", "t,v"), "unknown task of target 'v'; "),
    ],
)
def test_what_no_row_has_is_told(asked: list[Any], words: tuple[str, ...], line: str) -> None:
    assert str(invoke(*words).exception).startswith(line)


def test_a_board_without_rows_is_told() -> None:
    with pytest.raises(SepbenchError, match=r"^target has no rows to show$"):
        show._chosen(FRAME.iloc[:0], "target", {})


# ---- statistics ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def robust(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What statistics were asked of, and what was shown of them."""
    heard: list[Any] = []

    def rows(*given: Any) -> list[Any]:
        heard.append(given[1:])
        return [SimpleNamespace(method=name) for name in given[3]]

    def shown(title: str, metric: str, unit: str, found: list[Any], console: Any) -> None:
        heard.append((title, metric, unit, [one.method for one in found]))

    def document(label: str, rows: list[Any]) -> str:
        return f"{label} {[(head['task'], head['metric'], head['suite'], head['unit'], head['higher_is_better'], row.method) for head, row in rows]}"

    monkeypatch.setattr("sepbench.results.robust.robust_rows", rows)
    monkeypatch.setattr("sepbench.report.robust_table.render_robust", shown)
    monkeypatch.setattr("sepbench.report.documents.robust_document", document)
    return heard


def test_statistics_are_of_each_task_and_metric_with_all_bounds(asked: list[Any], robust: list[Any]) -> None:
    """Bounds are those of supervision ``bound``, and those that the run calls so."""
    t, u = ("t", "psnr", ["a", "b"], True, ["b", "c"]), ("u", "psnr", ["a", "c"], True, ["c"])
    done = invoke("--stats")
    assert robust == [t, ("s: t", "psnr", "dB", ["a", "b"]), u, ("s: u", "psnr", "dB", ["a", "c"])]
    assert done.stdout == "\n\n"
    robust.clear()
    assert invoke("--stats", "--method", "c").stdout == "\n"
    assert robust == [t, u, ("s: u", "psnr", "dB", ["c"])]  # the best is the best of all
    robust.clear()
    assert invoke("--stats", "--metric", "ssim,psnr", "--task", "t").exit_code == 0
    assert [one[:2] for one in robust] == [("t", "ssim"), ("s: t", "ssim"), ("t", "psnr"), ("s: t", "psnr")]
    robust.clear()
    asked.clear()
    invoke("--stats", "--metric", "ssim", "--json")
    assert robust == [("t", "ssim", ["a"], True, ["c"])]  # u has no such rows, and nothing is shown


def test_statistics_as_json_name_every_row(asked: list[Any], robust: list[Any]) -> None:
    head = "'psnr', 's', 'dB', True"
    out = invoke("--stats", "--json", "--method", "a").stdout.replace("np.True_", "True")
    assert out == f"JSON of L [('t', {head}, 'a'), ('u', {head}, 'a')]\n"


def test_statistics_that_there_are_not_are_told(asked: list[Any], robust: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    per = {"psnr": "source"}
    monkeypatch.setattr("sepbench.metrics.catalogue.get_metric", lambda name: SimpleNamespace(info=SimpleNamespace(per=per[name])))
    told = "is a value of the whole set: it has no median or interquartile mean over mixtures; leave it out of --metric"
    for per["fid"] in ("group", "set"):
        assert str(invoke("--stats", "--metric", "psnr,fid").exception) == f"fid {told}"
    board = SimpleNamespace(frame=FRAME, evidence=None, ranking_metric="psnr", label="L", bounds=None)
    monkeypatch.setattr("sepbench.results.target.open_results", lambda target, suites: board)
    line = "L has no per-example scores, which --stats needs; name the folder of a run, or a leaderboard with scores beside it"
    assert str(invoke("--stats").exception) == line
    board.evidence = "there"  # type: ignore[assignment]
    assert invoke("--stats").exit_code == 0
    assert robust[0] == ("t", "psnr", ["a", "b"], True, ["b"])


# ---- cache -----------------------------------------------------------------------------------------------------------------------------


def fit(method: str, megabytes: float, seconds: float | None, **key: Any) -> Any:
    facts = None if seconds is None else SimpleNamespace(seconds=seconds)
    return SimpleNamespace(method=method, key=key, facts=facts, megabytes=megabytes, folder=Path(f"fits/{method}/[d]1"))


def test_every_cell_of_the_list_of_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"source_shape": (1, 28, 28), "source_classes": ()}
    fits = [
        fit("a", 0.0015, 90.0, task={"source_classes": ("x", 3, "x"), "source_shape": (9,)}, budget="quick", seed=0),
        fit("b", 2.5, None, task=shape, budget="paper", seed=12),
        fit("c", 1_000.0, 3.0),
    ]
    asked: list[str] = []
    monkeypatch.setattr("sepbench.run.fit_cache.entries", lambda method: asked.append(method) or fits)
    monkeypatch.setattr("sepbench.run.fit_cache.fits_root", lambda: Path("/cache/[fits]"))
    out = CliRunner(env={"COLUMNS": "200"}).invoke(cache.app, ["list", "nothing-installed"]).stdout
    assert asked == ["nothing-installed"]
    assert out.splitlines()[0].strip() == "Fits in /cache/[fits]"
    head, *rows = [[cell.strip() for cell in line.strip("│┃").split("│" if "│" in line else "┃")] for line in out.splitlines() if line[0] in "│┃"]
    assert head == ["method", "sources", "budget", "seed", "trained in", "size", "folder"]
    assert [row[:4] + row[5:] for row in rows] == [
        ["a", "x, 3", "quick", "0", "1.5 kB", "[d]1"],
        ["b", "1 x 28 x 28", "paper", "12", "2.5 MB", "[d]1"],
        ["c", "", "", "", "1.0 GB", "[d]1"],
    ]
    assert rows[1][4] == "not finished"
    assert out.splitlines()[-1] == "3 fits, 1.0 GB; 'sepbench cache clear METHOD' removes those of a method"


@pytest.mark.parametrize(("count", "words"), [(0, "0 fits"), (1, "1 fit"), (2, "2 fits"), (1_234, "1,234 fits")])
def test_what_was_removed_is_counted(monkeypatch: pytest.MonkeyPatch, count: int, words: str) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sepbench.run.fit_cache.clear", lambda method: asked.append(method) or count)
    for arguments in ((), ("gone",)):
        assert CliRunner().invoke(cache.app, ["clear", *arguments]).stdout == f"{words} removed\n"
    assert asked == ["", "gone"]


@pytest.mark.parametrize(("scope", "kept"), [(None, "m"), (SimpleNamespace(name=""), "m"), (SimpleNamespace(name="shared"), "shared")])
def test_fits_are_looked_for_under_the_name_that_they_share(monkeypatch: pytest.MonkeyPatch, scope: Any, kept: str) -> None:
    monkeypatch.setattr("sepbench.registry.separator_class", lambda name: SimpleNamespace(fit_scope=scope))
    assert (cache._kept_under("m"), cache._kept_under("")) == (kept, "")
    monkeypatch.setattr("sepbench.registry.separator_class", lambda name: SimpleNamespace())
    assert cache._kept_under("m") == "m"
