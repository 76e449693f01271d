"""``sepbench.leaderboard`` and ``sepbench.methods``."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import sepbench
from sepbench import SepbenchError
from sepbench.api import boards
from sepbench.errors import ArgumentError, UnknownNameError
from sepbench.protocols import MethodInfo
from sepbench.registry import separator_names
from sepbench.results.columns import column_names
from sepbench.results.target import committed_leaderboard
from sepbench.settings import Setting
from sepbench.suites.published import PublishedRow


def test_a_board_is_the_committed_rows_and_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    board, suite = sepbench.leaderboard("mnist-pairs"), sepbench.load_suite("mnist-pairs")
    committed = committed_leaderboard("mnist-pairs")
    assert committed is not None
    assert list(board.columns) == [*column_names(), "source", "counterpart", "notes"]
    ours = board[board["source"] == "sepbench"]
    assert sorted(ours["mean"].dropna()) == sorted(committed["mean"].dropna())
    papers = board[board["source"] != "sepbench"]
    assert sorted(papers["mean"]) == sorted(row.value for row in suite.published)
    assert set(papers["method"]) == {row.title for row in suite.published}
    assert "BASIS Table 2" in set(papers["source"])
    assert papers["ci_low"].isna().all()
    assert papers["higher_is_better"].dropna().all()
    assert list(dict.fromkeys(board["task"])) == [task for task in suite.tasks if task in set(board["task"])]


def test_a_part_of_a_board() -> None:
    part = sepbench.leaderboard("mnist-pairs", task="class-agnostic", metric="psnr")
    assert set(part["task"]) == {"class-agnostic"}
    assert set(part["metric"]) == {"psnr"}
    assert list(part.index) == list(range(len(part)))


@pytest.mark.parametrize(
    ("name", "options", "kind", "text"),
    [
        ("mnist-pair", {}, UnknownNameError, "did you mean mnist-pairs"),
        ("mnist-pairs", {"task": "class-split-x"}, UnknownNameError, "did you mean class-split"),
        ("mnist-pairs", {"metric": "psnrr"}, UnknownNameError, "did you mean psnr"),
        ("mnist-pairs", {"metric": ["psnr"]}, ArgumentError, "metric must be"),
        (3, {}, ArgumentError, "suite must be a name"),
    ],
)
def test_wrong_arguments(name: str, options: dict[str, str], kind: type[SepbenchError], text: str) -> None:
    with pytest.raises(kind, match=text):
        sepbench.leaderboard(name, **options)


def test_methods_with_settings_and_what_they_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["average", "nmf", "nmf-semi"]
    assert set(few) < set(separator_names())
    monkeypatch.setattr(boards, "separator_names", lambda: few)  # loading all of them takes seconds
    methods = sepbench.methods()
    assert list(methods.columns) == list(boards.METHOD_COLUMNS)
    assert list(methods["name"]) == ["average", "nmf", "nmf", "nmf-semi", "nmf-semi"]
    assert list(methods["domains"])[1:3] == [("image",), ("audio",)]
    assert set(methods.query("name == 'nmf'")["supervision"]) == {"sources"}
    atoms = methods["settings"][1]["atoms"]
    assert isinstance(atoms, Setting)
    assert (atoms.kind, atoms.default) == ("int", 16)
    assert set(sepbench.methods("audio")["name"]) == set(few)
    assert len(sepbench.methods("audio")) == 3
    with pytest.raises(UnknownNameError, match="did you mean image"):
        sepbench.methods("images")  # type: ignore[arg-type]


def test_a_method_that_cannot_be_loaded_is_a_row_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "separator_names", lambda: ["average", "gone"])
    methods = sepbench.methods().set_index("name")
    assert "unknown method 'gone'" in methods.loc["gone", "error"]
    assert methods.loc["average", "error"] == ""


# ---- every column, with stand-ins ------------------------------------------------------------------------------------------------------


def test_a_method_that_fails_on_one_kind_of_signal_keeps_its_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """And settings that cannot be listed, or kinds of signals that cannot be told, are errors of their own rows."""
    info = MethodInfo("m", "M", "3", frozenset({"vector", "image"}), "prior", "a paper", bound="upper", deterministic=True)

    def create(name: str, *, domain: str | None) -> SimpleNamespace:
        if domain == "audio":
            raise SepbenchError("needs a licence")
        return SimpleNamespace(info=info)

    def domains(name: str) -> list[str]:
        if name == "odd":
            raise SepbenchError("no kinds")
        return ["image", "audio"]

    def settings(given: tuple[str, str | None]) -> list[SimpleNamespace]:
        if given[0] == "mute":
            raise TypeError("two\nlines")
        return [SimpleNamespace(name="rank"), SimpleNamespace(name="mode")]

    monkeypatch.setattr(boards, "separator_names", lambda: ["m", "odd", "mute"])
    for name, function in {"create_separator": create, "separator_domains": domains, "describe": settings}.items():
        monkeypatch.setattr(boards, name, function)
    monkeypatch.setattr(boards, "separator_class", lambda name, domain: (name, domain))
    rows = sepbench.methods().to_dict("records")
    listed = {"rank": SimpleNamespace(name="rank"), "mode": SimpleNamespace(name="mode")}
    said = {"title": "M", "supervision": "prior", "domains": ("image", "vector"), "bound": "upper", "deterministic": True, "paper": "a paper", "version": "3"}
    empty = {"title": "", "supervision": "", "domains": (), "bound": "", "deterministic": False, "paper": "", "version": "", "settings": {}}
    mute = "the settings of 'mute' cannot be listed: TypeError: two lines"
    assert rows == [
        {"name": "m", **said, "settings": listed, "error": ""},
        {"name": "m", **empty, "error": "needs a licence"},
        {"name": "odd", **said, "settings": listed, "error": ""},
        {"name": "mute", **empty, "error": mute},
        {"name": "mute", **empty, "error": "needs a licence"},
    ]
    images = sepbench.methods("image")
    assert (list(images["name"]), list(images.index)) == (["m", "odd"], [0, 1])
    assert len(sepbench.methods("audio")) == 0


def published(task: str, metric: str = "psnr", **facts: Any) -> PublishedRow:
    known = {"title": f"Theirs on {task}", "method": "nmf", "value": 11.5, "std": 0.5, "n": 100, "source": "P Table 1", "notes": "other data"}
    return PublishedRow(**{**{field.name: "" for field in fields(PublishedRow)}, "task": task, "metric": metric, **known, **facts})  # type: ignore[arg-type]


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A suite of tasks b and a with numbers of papers; its leaderboard has rows of a alone."""
    suite = SimpleNamespace(name="s", version=4, tasks={"b": None, "a": None}, published=(published("a"), published("b", "gone", std=None, n=None)))
    measured = pd.DataFrame({"task": ["a", "a"], "method": ["nmf", "ica"], "metric": ["psnr", "ssim"], "mean": [12.0, 0.5], "n_scored": [7, 8]})
    monkeypatch.setattr(boards.loader, "load_suite", lambda name: suite)
    monkeypatch.setattr(boards, "suite_names", lambda: ["s"])
    monkeypatch.setattr(boards, "committed_leaderboard", lambda name: measured if name == "s" else None)
    return suite


def test_a_board_goes_by_task_in_the_suite_s_order_ours_before_theirs(board: SimpleNamespace) -> None:
    frame = sepbench.leaderboard("s")
    assert list(zip(frame["task"], frame["method"], frame["source"], strict=True)) == [
        *(("b", "Theirs on b", "P Table 1"), ("a", "nmf", "sepbench")),
        *(("a", "ica", "sepbench"), ("a", "Theirs on a", "P Table 1")),
    ]
    assert list(frame.index) == [0, 1, 2, 3]
    theirs = frame.iloc[3]
    assert (theirs["suite"], theirs["suite_version"], theirs["metric"], theirs["unit"], theirs["higher_is_better"]) == ("s", 4, "psnr", "dB", True)
    assert (theirs["mean"], theirs["std"], theirs["n_scored"], theirs["counterpart"], theirs["notes"]) == (11.5, 0.5, 100, "nmf", "other data")
    assert (frame["counterpart"][1], frame["notes"][1], frame["supervision"][3]) == ("", "", "")
    unknown = frame.iloc[0]  # a metric that is not installed here
    assert unknown["unit"] == ""
    assert frame[["higher_is_better", "std", "n_scored"]].iloc[0].isna().all()
    assert (str(frame["n_scored"].dtype), str(frame["higher_is_better"].dtype), str(frame["mean"].dtype)) == ("Int64", "boolean", "float64")


def test_rows_of_a_task_stay_in_their_order_however_many_there_are(board: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    many = pd.DataFrame({"task": ["a", "b"] * 100, "method": [f"m{number}" for number in range(200)], "metric": "psnr"})
    monkeypatch.setattr(boards, "committed_leaderboard", lambda name: many)
    ours = sepbench.leaderboard("s").query("source == 'sepbench'")
    assert list(ours["method"]) == [f"m{number}" for number in (*range(1, 200, 2), *range(0, 200, 2))]


@pytest.mark.parametrize(
    ("task", "metric", "methods"),
    [("a", None, ["nmf", "ica", "Theirs on a"]), (None, "psnr", ["nmf", "Theirs on a"]), ("a", "ssim", ["ica"]), ("b", "gone", ["Theirs on b"])],
)
def test_a_part_of_a_board_is_numbered_anew(board: SimpleNamespace, task: str | None, metric: str | None, methods: list[str]) -> None:
    frame = sepbench.leaderboard("s", task=task, metric=metric)
    assert (list(frame["method"]), list(frame.index)) == (methods, list(range(len(methods))))


def test_a_metric_that_a_task_lacks_and_a_suite_without_numbers_are_told(board: SimpleNamespace) -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown metric of the leaderboard of s 'ssim'"):
        sepbench.leaderboard("s", task="b", metric="ssim")
    with pytest.raises(ArgumentError, match=r"^task must be a task's name, a text; got 3$"):
        sepbench.leaderboard("s", task=3)  # type: ignore[arg-type]
    assert set(sepbench.leaderboard("own/s.toml")["source"]) == {"P Table 1"}  # a file of the same name has no committed rows
    board.published = ()
    assert set(sepbench.leaderboard("s")["source"]) == {"sepbench"}
    with pytest.raises(SepbenchError) as refused:
        sepbench.leaderboard("own/s.toml")
    assert str(refused.value) == "suite s has neither a committed leaderboard nor published numbers; make a run with sepbench.run('own/s.toml')"
