"""Sections of the report by hand: what the gate found, samplers against exact draws, shares of failures, fronts, and a page that is made anew."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.report.documents import robust_document
from sepbench.report.html import page, serve
from sepbench.report.html.board import MetricWords, open_board
from sepbench.report.html.distributions import _failures
from sepbench.report.html.history import State, _said, _step, history
from sepbench.report.html.leaderboard import in_best_group
from sepbench.report.html.page import Options, Written, _summary, breakable
from sepbench.report.html.pareto import _rows
from sepbench.report.html.posterior import _findings
from sepbench.report.numbers import Record
from sepbench.report.rows import Line
from sepbench.report.table import _difference, _why
from sepbench.results.gate import GateRow
from sepbench.results.robust import RobustRow
from sepbench.results.statistics import MIN_CLUSTERS, Summary, TaskDesigns
from sepbench.results.values import MetricValues

pytest.importorskip("altair")
NAN = math.nan


def line(rank: str, method: str = "m", from_paper: bool = False) -> Line:
    return Line(rank, method, "blind", "1.00 [0.50, 1.50]", (), "", (), "3", from_paper)


# -- what the gate found


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"reason": "missing in NEW"}, "missing in NEW"),
        ({"unit": "dB", "old": 16.0, "new": 15.0, "difference": -1.0, "tolerance": 0.01}, "16.00 -> 15.00: -1.00, tolerance 0.01"),
        (
            {"old": 0.5, "new": 0.4, "difference": -0.0123, "ci_low": -0.02, "ci_high": -0.001, "tolerance": 0.0, "p_worse": 0.0123},
            "0.500 -> 0.400: -0.012 [-0.020, -0.001], tolerance 0, adjusted p 0.012",
        ),
        # the interval's largest end decides how many digits there are, and its sign does not
        (
            {"old": 0.5, "new": 0.5, "difference": -0.002, "ci_low": -0.003, "ci_high": 0.0, "tolerance": 1.0},
            "0.500 -> 0.500: -0.00200 [-0.00300, 0], tolerance 1",
        ),
    ],
)
def test_why_a_row_matters(facts: dict[str, Any], told: str) -> None:
    assert _why(GateRow("s", "t", "m", "psnr", "regression", **facts)) == told
    if "p_worse" in facts:
        assert _why(GateRow("s", "t", "m", "psnr", "improvement", **facts)) == told.partition(", adjusted")[0]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"n": 0}, ("no common example", "0", "")),
        ({"n": 1200, "difference": -0.5, "ci_low": -0.75, "ci_high": 0.25, "unit": "dB", "share_a_better": 0.256}, ("-0.50 [-0.75, 0.25] dB", "1,200", "26%")),
        ({"n": 3, "difference": -0.002, "ci_low": NAN, "ci_high": NAN, "unit": "1", "share_a_better": NAN}, ("-0.00200", "3", "")),
    ],
)
def test_a_difference_in_words(row: dict[str, Any], told: tuple[str, str, str]) -> None:
    assert _difference(row) == told


def test_a_step_of_a_history_tells_tested_from_untested() -> None:
    def row(method: str, status: str, basis: str, p: float = NAN) -> GateRow:
        facts: dict[str, Any] = {"status": status, "basis": basis, "p_worse": p, "old": 16.12345678, "new": 15.0, "tolerance": 0.01}
        return GateRow("s", "t", method, "psnr", **facts)

    untested, tested = row("a", "regression", "means"), row("b", "regression", "paired test", 0.00123)
    others = [row("c", "holds", "paired test"), row("d", "holds", "means"), row("e", "new", "")]
    assert _said(untested) == "t, a, psnr: 16.1235 to 15, tolerance 0.01"
    assert _said(tested) == "t, b, psnr: 16.1235 to 15, adjusted p 0.0012"
    state = State("now", "what", SimpleNamespace())  # type: ignore[arg-type]
    for rows, verdict, counts in (
        ([untested, tested, *others], "regression", "2 holds, 1 regression, 1 worse, not tested, 1 new"),
        ([untested, *others], "worse, not tested", "2 holds, 1 worse, not tested, 1 new"),
        (others[:2], "holds", "2 holds"),
    ):
        report: Any = SimpleNamespace(rows=rows, notes=["seed"], verdict="regression" if untested in rows else "holds")
        step = _step(state, report)
        assert (step.when, step.what, step.verdict, step.counts, step.notes) == ("now", "what", verdict, counts, ("seed",))
        assert step.regressions == ((_said(tested),) if tested in rows else ())
        assert step.untested == ((_said(untested),) if untested in rows else ())


def test_states_that_cannot_be_compared_are_told_and_the_others_go_on(tmp_path: Path) -> None:
    from sepbench.results.target import open_results

    names = [SyntheticRun({"nmf": 16.0}, n=12).save(tmp_path / "a"), SyntheticRun({"nmf": 9.0}, n=12, suite="mnist-pairs").save(tmp_path / "b")]
    states = [State(name, f"made {k}", open_results(name)) for k, name in enumerate([*names, names[1]])]
    assert history(states[:1]) is None
    found = history(states)
    assert found is not None
    first, second, third = found.steps
    assert (first.verdict, first.counts, first.what) == ("", "3 rows", "made 0")
    assert second.verdict == "not comparable"
    assert second.counts
    assert (second.regressions, second.notes) == ((), ())
    assert third.counts == "3 holds"


# -- samplers against exact draws


def sampled(values: dict[str, Sequence[float]], means: dict[str, float], higher: bool = False) -> Any:
    records: dict[tuple[str, str], Record] = {(name, "error"): {"mean": mean} for name, mean in means.items()}
    held = {name: MetricValues(np.arange(len(numbers)), np.array(numbers)) for name, numbers in values.items()}
    metrics = (MetricWords("error", "1", higher, ""), MetricWords("other", "1", higher, ""))
    return SimpleNamespace(
        methods=list(means), metrics=metrics, records=records, values=held, metric=metrics[0], task="t", designs=TaskDesigns(lambda task: None)
    )


def test_who_samples_the_posterior() -> None:
    noise = np.random.Generator(np.random.Philox(1)).normal(size=(3, 40))
    exact = 1.0 + 0.1 * noise[0]
    values = {"far": exact + 0.5 + 0.1 * noise[1], "exact-posterior": exact, "near": exact + 0.1 * noise[2], "same": exact + 1e-16, "better": exact - 0.5}
    means = {"far": 3.0, "exact-posterior": 2.0, "near": 2.0, "same": 2.0, "better": 1.0, "failed": NAN, "unsaid": 2.5}
    found = list(_findings(sampled({name: list(numbers) for name, numbers in values.items()}, means)))
    told = {one.method: (one.ratios, one.verdict) for one in found}
    assert found[0].method == "exact-posterior"
    assert told == {
        "exact-posterior": (("1.000", ""), "exact draws"),
        "far": (("1.500", ""), "does not sample it"),
        "near": (("1.000", ""), "not told from exact draws"),
        "same": (("1.000", ""), "not told from exact draws"),
        "better": (("0.500", ""), "not told from exact draws"),
        "failed": (("", ""), ""),
        "unsaid": (("1.250", ""), ""),
    }
    turned = {one.method: one.verdict for one in _findings(sampled({name: list(numbers) for name, numbers in values.items()}, means, higher=True))}
    assert (turned["far"], turned["better"]) == ("not told from exact draws", "does not sample it")
    few = sampled({name: list(numbers[: MIN_CLUSTERS - 1]) for name, numbers in values.items()}, means)
    assert {one.method: one.verdict for one in _findings(few)}["far"] == "no verdict below 10 clusters"
    zero = sampled({}, {"exact-posterior": 0.0, "far": 1.0})
    assert [(one.ratios, one.verdict) for one in _findings(zero)] == [(("", ""), "exact draws"), (("", ""), "")]


# -- distributions, fronts, tables


@pytest.mark.parametrize(("higher", "sign"), [(True, "below"), (False, "above")])
def test_shares_of_mixtures_that_are_worse(higher: bool, sign: str) -> None:
    """Values 2, 5 and 8 of four mixtures on a range of 0 to 10; the fourth failed, and is worse than any threshold."""
    values = MetricValues(np.arange(4), np.array([2.0, 8.0, NAN, 5.0]))
    metric = MetricWords("psnr", "dB", higher, "")
    view: Any = SimpleNamespace(metric=metric, values={"m": values}, task="t", first=lambda method: {"mean": 5.0})
    chart, heads, table = _failures(view, np.array([0.0, 10.0]))
    limits = [1.5, 3.0, 4.5, 6.0, 7.5]
    worse = {limit: (sum(value < limit for value in (2.0, 5.0, 8.0)) if higher else sum(value > limit for value in (2.0, 5.0, 8.0))) + 1 for limit in limits}
    assert heads == tuple(f"{sign} {limit:.2f} dB" for limit in limits)
    assert table == (("m", tuple(f"{worse[limit] / 4:.1%}" for limit in limits)),)
    (rows,) = chart.spec["datasets"].values()
    drawn = {row["x"]: row["y"] for row in rows}
    assert len(drawn) == 41
    assert (drawn[0.0], drawn[10.0]) == ((0.25, 1.0) if higher else (1.0, 0.25))
    assert (drawn[2.0], drawn[5.0], drawn[8.0]) == ((0.25, 0.5, 0.75) if higher else (0.75, 0.5, 0.25))  # a value at the threshold is not worse
    assert next(row["text"] for row in rows if row["x"] == 5.0) == "50.0% worse than 5.00"


def test_points_of_quality_against_cost() -> None:
    def record(mean: float, seconds: float, group: str = "g") -> dict[str, Any]:
        return {"mean": mean, "ci_low": mean - 1, "ci_high": mean + 1, "unit": "dB", "seconds": seconds, "timing_group": group}

    records = {
        **{"a": record(3.0, 999.9), "b": record(2.0, 1000.0, ""), "c": record(1.0, 0.01234), "bound": record(9.0, 1.0), "few": record(8.0, 1.0)},
        **{"zero": record(1.0, 0.0), "unknown": record(1.0, NAN), "failed": record(NAN, 1.0)},
    }
    marks = {"a": "1", "b": "2=", "c": "3", "bound": "bound", "few": "few", "zero": "4", "unknown": "5", "failed": "failed"}
    lines = [*(line(rank, name) for name, rank in marks.items()), line("", "a", from_paper=True), line("6", "nobody")]
    view: Any = SimpleNamespace(metric=MetricWords("psnr", "dB", True, ""), lines=lines, records={(name, "psnr"): one for name, one in records.items()})
    rows = list(_rows(view, "seconds"))
    assert [(row["method"], row["told"], row["group"], row["style"], row["ranks"], row["loss"]) for row in rows] == [
        ("a", "1e+03", "g", "equal to the best", True, -3.0),
        ("b", "1,000", "unknown machine", "equal to the best", True, -2.0),
        ("c", "0.0123", "g", "ranked", True, -1.0),
        ("bound", "1", "g", "bounds", False, -9.0),
        ("few", "1", "g", "not ranked", False, -8.0),
    ]
    assert (rows[0]["low"], rows[0]["high"], rows[0]["text"]) == (2.0, 4.0, "3.00 [2.00, 4.00]")


@pytest.mark.parametrize(("rank", "best"), [("1", True), ("1+", True), ("2=", True), ("3=+", True), ("2", False), ("11", False), ("bound", False), ("", False)])
def test_who_is_among_the_best(rank: str, best: bool) -> None:
    assert in_best_group(line(rank)) is best
    assert not in_best_group(line(rank, from_paper=True))


@pytest.mark.parametrize(
    ("subtitle", "size"),
    [
        ("1,000 mixtures, ranked by psnr", "1,000 mixtures"),
        ("up to 8 of 1,000 mixtures, ranked by psnr", "up to 8 of 1,000 mixtures"),
        ("all of them, ranked by psnr", "all of them"),
    ],
)
@pytest.mark.parametrize(("ranks", "best"), [(("bound", "1=", "2"), "m1"), (("1+",), "m0"), (("few", "11"), "")])
def test_a_task_on_the_first_page(subtitle: str, size: str, ranks: tuple[str, ...], best: str) -> None:
    lines = [line(rank, f"m{k}") for k, rank in enumerate(ranks)]
    view: Any = SimpleNamespace(task="t", lines=lines, table=SimpleNamespace(subtitle=subtitle), metric=MetricWords("psnr", "dB", True, ""))
    assert _summary(view) == ("t", size, "psnr", best, "1.00 [0.50, 1.50]" if best else "")


def test_words_of_a_metric_and_names_that_may_break() -> None:
    assert MetricWords("psnr", "dB", True, "sec. 5").convention == "dB, higher is better: sec. 5"
    assert MetricWords("rms", "1", False, "").convention == "lower is better"
    assert MetricWords("rms", "", True, "x").convention == "higher is better: x"
    assert str(breakable("a_b/<c>-d")) == "a_<wbr>b/<wbr>&lt;c&gt;-d"


def test_boards_of_one_name_have_addresses_of_their_own(tmp_path: Path) -> None:
    names = [SyntheticRun({"nmf": 16.0}, n=2).save(tmp_path / folder / "run") for folder in "abc"]
    taken = {"index"}
    slugs = [open_board(name, taken, lambda text: None).slug for name in names]
    assert slugs[0] == "run"
    assert len(set(slugs)) == 3
    assert taken == {"index", *slugs}


def test_fields_of_robust_statistics() -> None:
    head = {"task": "t", "metric": "psnr", "unit": "dB", "higher_is_better": True}
    iqm, better = Summary(9, 2.0, 0.5, 2.5, 1.0, 3.0, "cluster t", "song", 7), Summary(8, 0.75, 0.5, 0.7, 0.5, 0.875, "other", "image", 6)
    first, second = robust_document("x", [(head, RobustRow("a", 1.5, iqm, None)), (head, RobustRow("b", 1.25, iqm, better))])["rows"]
    shared = {"iqm": 2.0, "iqm_ci_low": 1.0, "iqm_ci_high": 3.0, "n": 9, "interval": "cluster t", "cluster": "song", "n_clusters": 7}
    empty: dict[str, Any] = {"best_is_better": None, "best_is_better_ci_low": None, "best_is_better_ci_high": None}
    assert first == head | shared | empty | {"method": "a", "median": 1.5}
    told = {"best_is_better": 0.75, "best_is_better_ci_low": 0.5, "best_is_better_ci_high": 0.875}
    assert second == head | shared | told | {"method": "b", "median": 1.25}


# -- a page that is made anew


def test_a_served_report_is_made_anew_when_a_target_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the targets each time the clock lets it: nothing new, new but half written, still new, whole; then Ctrl-C."""
    target = tmp_path / "board.csv"
    target.write_text("1")
    made: list[tuple[Any, ...]] = []
    told: list[str] = []
    looks = iter([None, "half written", None, None, KeyboardInterrupt])

    def write(targets: Sequence[str], folder: Path, options: Options, warn: Any) -> Written:
        made.append((tuple(targets), folder, options, warn))
        if target.read_text() == "half written":
            target.write_text("now it is whole")
            raise SepbenchError("half a file")
        return Written(folder / "index.html", 0, 0, 0, 0.0)

    class Clock:
        def wait(self, seconds: float) -> bool:
            assert seconds == 10.0
            change = next(looks)
            if change is KeyboardInterrupt:
                raise KeyboardInterrupt
            if change is not None:
                target.write_text(str(change))
            return False

    monkeypatch.setattr(serve, "write_report", write)
    monkeypatch.setattr(serve, "threading", SimpleNamespace(Event=Clock, Thread=threading.Thread))
    options = Options(live=True)
    serve.serve_report([str(target)], tmp_path, options, 0, told.append, told.append)
    assert len(made) == 3  # at first, half written, whole; nothing where nothing has changed
    assert set(made) == {((str(target),), tmp_path, options, made[0][3])}
    assert told[0].startswith("http://127.0.0.1:")
    assert told[0].endswith("/ (Ctrl-C ends it)")
    assert told[1:] == ["not made anew: half a file"]
    with pytest.raises(SepbenchError, match=r"port \d+ cannot be had \(.+\); choose another with --port"), serve.make_server(tmp_path, 0) as server:
        serve.make_server(tmp_path, server.server_address[1])


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SepbenchError, match=r"file is a file; choose another folder with --out"):
        page._check_folder(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    page._check_folder(tmp_path / "empty")
    page._check_folder(tmp_path / "nothing")
