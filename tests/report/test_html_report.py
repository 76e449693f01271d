"""The HTML report as files: what stands on its pages is what the table and the tests say, and nothing of a stranger's gets out of its place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from html_pages import Page, large_leaderboard
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.report.footnotes import machine_words
from sepbench.report.html import extra, page
from sepbench.report.html.board import open_board, slug, task_views
from sepbench.report.html.curves import curves
from sepbench.report.html.distributions import distributions
from sepbench.report.html.history import State, git_states, history
from sepbench.report.html.leaderboard import leaderboard
from sepbench.report.html.page import MANIFEST, Options, Written, write_report
from sepbench.report.html.pareto import pareto
from sepbench.report.numbers import mean_text
from sepbench.results.gate import check_results
from sepbench.results.leaderboard import write_leaderboard
from sepbench.results.target import open_results

pytest.importorskip("altair")
METHODS = {"nmf": 16.0, "ica": 15.9, "rpca": 12.0, "average": 14.0, "ideal-mask": 25.0}


def rows_of(spec: Any) -> list[dict[str, Any]]:
    """The rows of a chart with one data set."""
    (rows,) = spec["datasets"].values()
    return list(rows)


EVIL = '<script>alert("1")'


@pytest.fixture(autouse=True)
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawing library takes seconds to bundle, and no test of this file draws."""
    monkeypatch.setattr(page, "vega_script", lambda: "/* not here */")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return SyntheticRun(METHODS, n=30).fail("rpca", 3, "ValueError: <b>singular</b>").save(tmp_path_factory.mktemp("html") / "run")


@pytest.fixture(scope="module")
def written(run: str, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The report of the run, made in 2.5 seconds of a clock that nobody sets."""
    ticks, real = iter([50.0, 52.5]), page.time
    clock = SimpleNamespace(perf_counter=lambda: next(ticks), time=real.time, time_ns=real.time_ns, strftime=real.strftime, gmtime=real.gmtime)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "vega_script", lambda: "/* not here */")
        patch.setattr(page, "time", clock)
        return write_report([run], tmp_path_factory.mktemp("report") / "report")


@pytest.fixture(scope="module")
def folder(written: Written) -> Path:
    """The report of the run."""
    return written.index.parent


def test_what_was_written_is_told(written: Written, folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    assert written.index == folder / "index.html"
    assert (written.files, written.size, written.seconds) == (len(files), sum(path.stat().st_size for path in files), 2.5)


def test_the_table_says_what_the_terminal_says(run: str, folder: Path) -> None:
    shown = Page(folder / "index.html")
    (view,) = task_views(open_board(run, set(), lambda text: None))
    rows = shown.all("tr")
    listed = [row["data-method"] for row in rows if "data-supervision" in row]
    assert sorted(map(str, listed)) == sorted(view.methods)
    for line in view.lines:
        for text in (line.method, line.value.partition(" [")[0], *line.others):
            assert text in shown.words
    for note in (view.table.subtitle, *view.table.footnotes):
        assert note in shown.words
    parts = [body["data-part"] for body in shown.all("tbody") if "data-part" in body]
    assert parts == ["ranked", "bound", "unranked"]
    equal = [row["data-method"] for row in rows if "equal" in (row.get("class") or "")]
    assert equal == [line.method for line in view.lines if line.rank in ("1", "2=")]
    assert "dB, higher is better: BASIS sec. 5 and code: clamp, per image, best permutation, mean of dB" in shown.words


def test_a_cell_has_the_number_alone_and_its_interval_beside_it(run: str) -> None:
    """Of every metric, the one that ranks included."""
    (view,) = task_views(open_board(run, set(), lambda text: None))
    rows = [row for part in leaderboard(view).parts for row in part.rows if not row.line.from_paper]
    assert {row.line.method for row in rows} == set(METHODS)
    for row in rows:
        for metric, cell in zip(view.metrics, row.cells, strict=True):
            assert cell.text == mean_text(view.records[row.line.method, metric.name])
            assert "[" not in cell.text
            assert cell.text not in cell.interval


def test_every_method_has_a_page_with_command_and_seconds(folder: Path) -> None:
    links = [link["href"] or "" for link in Page(folder / "index.html").all("a")]
    for method in METHODS:
        name = f"method-run--{method}.html"
        assert name in links
        shown = Page(folder / name)
        assert "sepbench run --suite digits-pairs --limit 30" in shown.words
        assert "0.25 s per mixture" in shown.words
        assert any("data-copy" in button for button in shown.all("button"))
    assert "atoms" in Page(folder / "method-run--nmf.html").words  # a setting of it


def test_words_of_strangers_stay_words(tmp_path: Path) -> None:
    made = SyntheticRun({EVIL: 16.0, "nmf": 15.0}, n=12).fail(EVIL, 1, "</script><img src=x onerror=alert(1)>")
    made.record["methods"][EVIL]["title"] = made.record["methods"][EVIL]["settings"]["</script>"] = "<iframe src='http://example.org'>"
    made.record["command"] = "sepbench run '\"><script src=//example.org></script>"
    folder = write_report([made.save(tmp_path / "<i>run")], tmp_path / "report").index.parent
    pages = list(folder.glob("*.html"))
    assert len(pages) == 3
    for path in pages:
        shown = Page(path)
        assert not shown.all("iframe")
        assert not [image for image in shown.all("img") if image.get("src") == "x"]
        assert {script.get("src", "") for script in shown.all("script") if script.get("type") is None} <= {
            f"assets/{name}.js" for name in ("theme", "vega", "charts", "tables", "pairs", "players")
        }
        assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on")]
    assert EVIL in Page(folder / "index.html").words
    assert all(path.name.isascii() and "<" not in path.name for path in pages)


def test_every_page_forbids_what_it_does_not_need(folder: Path) -> None:
    for path in folder.glob("*.html"):
        (policy,) = (meta["content"] or "" for meta in Page(path).all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
        assert "default-src 'none'" in policy
        assert "unsafe-eval" not in policy
        assert "http" not in policy


def test_values_that_do_not_exist_are_null_and_failed_mixtures_count_as_failures(run: str, folder: Path) -> None:
    assert Page(folder / "index.html").json  # the parser refuses NaN
    (view,) = task_views(open_board(run, set(), lambda text: None))
    found = distributions(view)
    assert found is not None
    shares = dict(found.failures)
    assert all(float(share.rstrip("%")) >= 3.3 for share in shares["rpca"])  # one of 30 failed: it is worse than any threshold


def test_a_page_does_not_grow_with_the_mixtures(tmp_path: Path) -> None:
    sizes = []
    for mixtures in (400, 4000):
        folder = tmp_path / str(mixtures)
        folder.mkdir()
        path = write_report([str(large_leaderboard(folder, mixtures, 2))], folder / "report").index
        sizes.append(path.stat().st_size)
    assert sizes[1] < 1.4 * sizes[0]  # more bins, no value of a mixture


def test_paired_differences_are_those_of_compare(run: str) -> None:
    from sepbench.results.compare import compare_sides, open_side

    (view,) = task_views(open_board(run, set(), lambda text: None))
    found = distributions(view)
    assert found is not None
    row = compare_sides(open_side(f"{run}:nmf"), open_side(f"{run}:rpca")).iloc[0]
    (pair,) = (one for one in found.pairs["pairs"] if {one["a"], one["b"]} == {"nmf", "rpca"})
    assert pair["a"] == "nmf"
    np.testing.assert_allclose([pair["mean"], pair["low"], pair["high"]], [row["difference"], row["ci_low"], row["ci_high"]], rtol=1e-5)
    assert pair["text"].endswith("nmf is better")
    assert sum(pair["counts"]) == row["n"] == 29


def test_quality_against_evaluations_of_those_that_counted(tmp_path: Path) -> None:
    made = SyntheticRun(METHODS, n=30)
    for method, evaluations in (("nmf", 3000.0), ("ica", 30.0 * 10_050)):
        made.cells["class-split", method]["evaluations"] = evaluations
    name = made.save(tmp_path / "run")
    (view,) = task_views(open_board(name, set(), lambda text: None))
    seconds, evaluations = pareto(view)
    drawn = {row["method"]: (row["cost"], row["told"], row["front"]) for row in rows_of(evaluations.chart.spec)}
    assert drawn == {"nmf": (100.0, "100", True), "ica": (10_050.0, "10,050", False)}
    assert [group for group, _ in evaluations.groups] == ["evaluations"]
    assert len(rows_of(seconds.chart.spec)) == len(METHODS)
    assert seconds.groups == ((machine_words(made.record["timing_group"]), len(METHODS)),)
    assert not [group for group, _ in seconds.groups if ":" in group]
    write_leaderboard(made.frame(), tmp_path / "board.csv")  # and from a leaderboard
    (view,) = task_views(open_board(str(tmp_path / "board.csv"), set(), lambda text: None))
    assert [one.title for one in pareto(view)] == ["Quality against seconds", "Quality against network evaluations"]


def test_history_flags_what_the_gate_flags(tmp_path: Path) -> None:
    old, new = SyntheticRun(METHODS, n=30).save(tmp_path / "old"), SyntheticRun(METHODS, n=30).shift("nmf", "psnr", -3.0).save(tmp_path / "new")
    states = [State(name, "", open_results(name)) for name in (old, new)]
    found = history(states)
    assert found is not None
    gate = check_results(states[1].results, states[0].results)
    worse = [row for row in gate.rows if row.status == "regression"]
    assert len(found.steps[1].regressions) == len(worse) == 1
    assert "nmf, psnr" in found.steps[1].regressions[0]


def test_means_alone_are_no_regression_and_what_else_differs_is_said(tmp_path: Path) -> None:
    """As in commit f68edfc: rows made again on another device, whose values per mixture the older state did not keep."""
    states = []
    for name, shift, device in (("old", 0.0, "cpu"), ("new", -0.035, "cuda")):
        made = SyntheticRun(METHODS, n=30).shift("nmf", "psnr", shift)
        made.record["device"] = device
        write_leaderboard(made.frame(), tmp_path / f"{name}.csv")
        states.append(State(name, "", open_results(str(tmp_path / f"{name}.csv"))))
    assert check_results(states[1].results, states[0].results).count("regression") == 1  # the gate itself goes on saying so
    found = history(states)
    assert found is not None
    step = found.steps[1]
    assert (step.verdict, step.regressions, len(step.untested)) == ("worse, not tested", (), 1)
    assert step.untested[0].startswith("class-split, nmf, psnr: ")
    assert step.untested[0].endswith(", tolerance 0.01")
    assert "1 worse, not tested" in step.counts
    assert "nmf: device cpu in OLD, cuda in NEW" in step.notes
    ((_, chart),) = found.charts
    assert [row["flag"] for row in rows_of(chart.spec) if row["method"] == "nmf"] == ["new", "worse, not tested"]
    write_report([str(tmp_path / "old.csv"), str(tmp_path / "new.csv")], tmp_path / "report")
    words = Page(tmp_path / "report" / "index.html").words
    assert "1 by means alone, not tested" in words
    assert "chance is not ruled out" in words


def test_rows_that_differ_in_one_number_make_a_curve(tmp_path: Path) -> None:
    runs = []
    for iterations, other in ((1, "a"), (3, "a"), (10, "a"), (10, "b")):
        made = SyntheticRun({"nmf": 14.0 + iterations, "ica": 12.0}, n=12)
        made.record["methods"]["nmf"]["settings"] = {"iterations": iterations, "kind": other}
        runs.append(made.save(tmp_path / f"{iterations}{other}"))
    (found,) = curves([open_board(name, set(), lambda text: None) for name in runs])
    assert (found.task, found.setting) == ("class-split", "iterations")
    (rows,) = found.chart.spec["datasets"].values()
    assert [row["x"] for row in rows] == [1.0, 3.0, 10.0]  # not the one of another kind
    frame = open_results(runs[1]).frame
    (mean,) = frame.loc[(frame["method"] == "nmf") & (frame["metric"] == "psnr"), "mean"]
    assert rows[1]["y"] == mean
    assert curves([open_board(runs[0], set(), lambda text: None)]) == []
    overview = write_report(runs[:2], tmp_path / "report").index
    words = Page(overview).words
    assert "quality against a setting" in words
    assert "several runs" in words
    assert {f"{slug('1a')}.html", f"{slug('3a')}.html"} <= {path.name for path in overview.parent.glob("*.html")}


def test_the_overview_says_where_nothing_is_ranked(tmp_path: Path) -> None:
    bound = SyntheticRun({"average": 14.0}, n=12).save(tmp_path / "bounds")
    ranked = SyntheticRun({"nmf": 15.0}, n=12).save(tmp_path / "ranked")
    text = write_report([bound, ranked], tmp_path / "report").index.read_text(encoding="utf-8")
    assert text.count("<td>none ranked</td>") == 1
    assert text.count("<td>nmf</td>") == 1


def test_history_of_a_committed_leaderboard(tmp_path: Path) -> None:
    path = tmp_path / "digits-pairs.csv"

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    for subject, shift in (("first", 0.0), ("<b>worse</b>", -3.0)):
        write_leaderboard(SyntheticRun(METHODS, n=30).shift("nmf", "psnr", shift).frame(), path)
        git("add", ".")
        git("commit", "-q", "-m", subject)
    states = git_states(path, 10, lambda text: None)
    assert [state.what for state in states] == ["first", "<b>worse</b>"]
    write_report([str(path)], tmp_path / "report", Options(history=10))
    shown = Page(tmp_path / "report" / "index.html").words
    assert "<b>worse</b>" in shown
    assert "class-split, nmf, psnr: 16" in shown
    assert git_states(tmp_path / "nothing.csv", 10, lambda text: None) == []


def test_only_a_report_is_replaced(tmp_path: Path) -> None:
    run = SyntheticRun({"nmf": 16.0}, n=3).save(tmp_path / "run")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(SepbenchError, match="holds no report"):
        write_report([run], folder)
    (folder / "thesis.tex").unlink()
    (tmp_path / "outside").write_text("precious")
    write_report([run], folder)
    listed = json.loads((folder / MANIFEST).read_text())
    listed["files"] += ["old.html", "../outside"]
    (folder / MANIFEST).write_text(json.dumps(listed))
    (folder / "old.html").write_text("gone with the next")
    write_report([run], folder)
    assert not (folder / "old.html").exists()
    assert (tmp_path / "outside").read_text() == "precious"


def test_a_missing_package_is_one_line(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(SepbenchError, match=r"need vl-convert-python, .*pip install 'sepbench\[html\]'"):
        write_report([run], tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("name", ["nmf", "<script>", "A", "a", "é", "x" * 200, "", "..", "a/b"])
def test_slugs_are_safe_and_tell_names_apart(name: str) -> None:
    made = slug(name)
    assert made
    assert made.isascii()
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(made) < 80
    assert made == name or made != slug(name + "!")


def test_the_bundle_is_one_script_that_leaves_no_names_behind() -> None:
    assert set(extra.asset_files()) >= {"report.css", "theme.js", "charts.js", "tables.js", "pairs.js", "players.js", "live.js"}
    assert not any(b"import " in content or b"eval(" in content for name, content in extra.asset_files().items() if name.endswith(".js"))
