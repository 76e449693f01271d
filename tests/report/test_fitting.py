"""Tables on narrow terminals: rows become paragraphs, and neither words nor paths are broken."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from synthetic_run import SyntheticRun
from typer.testing import CliRunner

from sepbench.cli.main import app
from sepbench.report.fitting import print_table, print_words

PATH = "/a/folder/with/a-name-that/is-longer/than-the-terminal/is_wide.csv"


def drawn(table: Table, width: int) -> str:
    out = io.StringIO()
    print_table(table, Console(file=out, width=width))
    return out.getvalue()


def _table(*heads: str) -> Table:
    table = Table(title="Where things are")
    for head in heads:
        table.add_column(head)
    return table


def test_a_table_that_fits_is_a_table() -> None:
    table = _table("name", "where")
    table.add_row("board", PATH)
    assert "│ board │" in drawn(table, 120)
    assert drawn(table, 40) == f"Where things are\nboard\n  where:\n    {PATH}\n"


def test_columns_that_can_be_spared_go_before_the_table_does() -> None:
    table = _table("name", "state", "where")
    table.add_row("board", "written", PATH)
    out = io.StringIO()
    print_table(table, Console(file=out, width=40), spare=("where", "state"))
    assert PATH not in out.getvalue()
    assert "│ board │ written │" in out.getvalue()
    assert "where:" in drawn(table, 40)
    print_table(table, Console(file=(tiny := io.StringIO()), width=6), spare=("where", "state"))
    assert PATH in tiny.getvalue()  # where even that does not help, nothing is left out


def test_a_column_that_may_not_wrap_is_not_cut() -> None:
    table = _table("name")
    table.add_column("state", no_wrap=True)
    table.add_row("board", "not finished yet")
    assert "│ not finished yet │" in drawn(table, 40)
    assert drawn(table, 20) == "Where things are\nboard\n  state: not\n    finished yet\n"


def test_rows_that_share_a_name_share_a_head_and_styles_are_no_words() -> None:
    table = _table("task", "method", "state")
    for method in ("nmf", "ica"):
        table.add_row("class-split", f"[bold]{method}[/bold]", PATH)
    text = drawn(table, 30)
    assert text.count("class-split") == 1
    assert "  method: nmf, state:\n" in text


def test_words_are_whole() -> None:
    out = io.StringIO()
    print_words(f"kept in {PATH} and semi-supervised", Console(file=out, width=20))
    assert out.getvalue().splitlines() == ["kept in", PATH, "and semi-supervised"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("a-folder-whose-name-does-not-fit-on-a-line-of-forty")
    levels = {"nmf": 16.0, "nmf-semi-printed": 13.0}
    old = SyntheticRun(levels, n=20).save(folder / "old")
    return old, SyntheticRun(levels, n=20).shift("nmf", "psnr", -1.0).save(folder / "new")


def sepbench(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "40"})
    assert result.exit_code == code, result.output
    return result.stdout


def test_findings_and_paths_at_forty_columns(runs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = runs
    monkeypatch.chdir(tmp_path)
    compared, checked, stats = sepbench("compare", old, new), sepbench("check", new, "--against", old, code=1), sepbench("show", old, "--stats")
    for path in runs:
        assert path in compared
        assert path in checked
    for text in (compared, checked, stats):
        assert all(len(line) <= 40 for line in text.splitlines() if not any(path in line for path in runs))
    assert "nmf-semi-printed" in compared
    assert "nmf-semi-printed" in stats
    assert "A better" in compared
    assert "regression" in checked
    planned = sepbench("run", "--suite", "digits-pairs", "--methods", "average", "--dry-run", "--out", PATH)
    assert f"would write to {PATH}" in planned
    assert f"{Path(old).parent}/board/digits-pairs.csv: 0 rows replaced" in sepbench("publish", old, "--to", f"{Path(old).parent}/board")


@pytest.mark.parametrize(
    ("width", "heads"),
    [(60, ["name", "first", "second", "third"]), (38, ["name", "first", "third"]), (28, ["name", "third"]), (20, ["name"])],
)
def test_columns_are_spared_one_after_another_in_their_order(width: int, heads: list[str]) -> None:
    table = Table()
    for head in ("name", "first", "second", "third"):
        table.add_column(head, no_wrap=True)
    table.add_row("n", "1" * 10, "2" * 10, "3" * 10)
    out = io.StringIO()
    print_table(table, Console(file=out, width=width), spare=("second", "first", "third"))
    assert out.getvalue().splitlines()[1].replace("┃", " ").split() == heads
    kept = {head: text for head, text in (("first", "1" * 10), ("second", "2" * 10), ("third", "3" * 10)) if head in heads}
    assert out.getvalue().splitlines()[3].replace("│", " ").split() == ["n", *kept.values()]
    assert [column.header for column in table.columns] == ["name", "first", "second", "third"]  # the table itself stays as it was
    assert [column.min_width for column in table.columns] == [None] * 4


@pytest.mark.parametrize(("least", "width"), [(None, 12), (4, 12), (20, 20)])
def test_a_column_is_as_wide_as_its_longest_line_and_no_narrower_than_asked(least: int | None, width: int) -> None:
    table = Table(box=None, show_header=False, padding=0)
    table.add_column("a head", no_wrap=True, min_width=least)
    table.add_column("b")
    table.add_row("short\ntwelve chars", "x")
    assert drawn(table, width + 1).splitlines()[0].rstrip() == "short".ljust(width) + "x"


def test_paragraphs_word_for_word() -> None:
    table = Table(title="[b]A title[/b] of\ntwo lines")
    for head in ("name", "first  head", "second"):
        table.add_column(head, no_wrap=True)
    for row in (("a", "1", ""), ("a", "", ""), ("", "2", "x\ny"), ("b", "", "3"), ("a", "4" * 40, "5")):
        table.add_row(*row)
    assert drawn(table, 24).splitlines() == [
        *("A title of, two lines", "a", "  first head: 1", "  first head: 2, second:", "    x, y", "b", "  second: 3", "a"),
        *("  first head:", f"    {'4' * 40},", "    second: 5"),
    ]


def test_a_table_without_heads_as_paragraphs() -> None:
    table = Table(show_header=False)
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_row("name", "one", "two " * 5)
    table.add_row("name", "three", "four")
    assert drawn(table, 20).splitlines() == ["name: one two two", "two two two", "name: three four"]


@pytest.mark.parametrize(
    ("text", "indent", "lines"),
    [
        ("", 0, [""]),
        ("one two three", 0, ["one two", "three"]),
        ("one two three", 2, ["  one two", "    three"]),
        ("semi-supervised methods", 0, ["semi-supervised", "methods"]),
        ("an [tag] stays", 0, ["an [tag]", "stays"]),
    ],
)
def test_words_on_lines(text: str, indent: int, lines: list[str]) -> None:
    out = io.StringIO()
    print_words(text, Console(file=out, width=10), indent=indent)
    assert out.getvalue().splitlines() == lines


def test_titles_and_names_are_bold_and_what_follows_is_not() -> None:
    table = Table(title="Title")
    for head in ("name", "state"):
        table.add_column(head, no_wrap=True)
    table.add_row("board", "not finished")
    out = io.StringIO()
    print_table(table, Console(file=out, width=15, force_terminal=True, color_system="standard", no_color=False))
    assert out.getvalue().splitlines() == ["\x1b[1mTitle\x1b[0m", "\x1b[1mboard\x1b[0m", "  state: not", "    finished"]
