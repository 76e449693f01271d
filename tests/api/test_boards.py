"""``sepbench.leaderboard`` and ``sepbench.methods``."""

from __future__ import annotations

import pytest

import sepbench
from sepbench import SepbenchError
from sepbench.api import boards
from sepbench.errors import ArgumentError, UnknownNameError
from sepbench.registry import separator_names
from sepbench.results.columns import column_names
from sepbench.results.target import committed_leaderboard
from sepbench.settings import Setting


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
