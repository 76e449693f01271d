"""The table of published numbers, row by row: cells that are empty or missing, numbers that are none, files that are no tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from suite_toys import ToyFolder

from sepbench.errors import SuiteError
from sepbench.suites.loader import load_suite
from sepbench.suites.published import COLUMNS, KEY_COLUMNS, find_published, published_row

HEAD = "source,table,suite,dataset,split,direction,method,metric,value,std,n,notes"


def table(folder: Path, *rows: str) -> Path:
    path = folder / "published.csv"
    path.write_text("\n".join([HEAD, *rows]) + "\n", encoding="utf-8")
    return path


def test_columns_and_those_that_find_a_row() -> None:
    assert ",".join(COLUMNS) == HEAD
    assert KEY_COLUMNS == ("source", "table", "suite", "dataset", "split", "direction", "method", "metric")


@pytest.mark.parametrize(
    ("cells", "own", "wanted"),
    [
        ("12.5,0.25,40,theirs", "ours", (12.5, 0.25, 40, "theirs; ours")),
        ("12.5,,,", "", (12.5, None, None, "")),
        ("12.5,,,", "ours", (12.5, None, None, "ours")),
        ("12.5,,,theirs", "", (12.5, None, None, "theirs")),
        ("12.5,0.25,,", "", (12.5, 0.25, None, "")),
        ("12.5,,40,", "", (12.5, None, 40, "")),
        ("-3,0,0,", "", (-3.0, 0.0, 0, "")),  # a zero that is printed is a number
        ("12.5", "ours", (12.5, None, None, "ours")),  # the row ends early
        ("12.5,0.25", "", (12.5, 0.25, None, "")),
        ('12.5,,,"of 3, by hand"', "", (12.5, None, None, "of 3, by hand")),
    ],
)
def test_cells_that_are_empty_or_missing(tmp_path: Path, cells: str, own: str, wanted: tuple[object, ...]) -> None:
    path = table(tmp_path, f"P,Table 1,s,Toy,test,,Mean,psnr,{cells}")
    row = published_row("t", "mine", "psnr_x", {"method": "Mean"}, own, path, "here")
    assert (row.value, row.std, row.n, row.notes) == wanted
    assert (row.task, row.method, row.metric, row.source, row.title) == ("t", "mine", "psnr_x", "P Table 1", "Mean")


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (",,,,", "could not convert string to float: ''"),
        ("", "could not convert string to float: ''"),
        (",12.5,about 1,,", "could not convert string to float: 'about 1'"),
        (",12.5,1,4.5,", "invalid literal for int() with base 10: '4.5'"),
    ],
)
def test_numbers_that_cannot_be_read(tmp_path: Path, cells: str, told: str) -> None:
    path = table(tmp_path, f"P,Table 1,s,Toy,test,,Mean,psnr{cells}")
    with pytest.raises(SuiteError) as caught:
        published_row("t", "", "psnr", {"method": "Mean"}, "", path, "here")
    assert str(caught.value) == f"here: {{'method': 'Mean'}} leads to a row of {path} whose numbers cannot be read: {told}"


def test_a_row_is_found_by_all_that_is_asked_and_by_whole_cells(tmp_path: Path) -> None:
    path = table(tmp_path, "P,Table 1,s,Toy,test,,Mean,psnr,1,,,", "P,Table 10,s,Toy,test,,Mean,psnr,2,,,", "P,Table 1,s,Toy,test,up,Mean,psnr,3,,,")
    assert find_published({"table": "Table 1", "direction": ""}, path, "here")["value"] == "1"
    assert find_published({"table": "Table 10"}, path, "here")["value"] == "2"
    assert find_published({"direction": "up", "source": "P"}, path, "here")["value"] == "3"
    with pytest.raises(SuiteError) as caught:
        find_published({"table": "Table 1", "split": "test"}, path, "here")
    assert str(caught.value) == f"here: {{'table': 'Table 1', 'split': 'test'}} matches 2 rows of {path}, it must match exactly one"
    with pytest.raises(SuiteError) as caught:
        find_published({"table": "Table 1", "n": "3"}, path, "here")
    keys = "source, table, suite, dataset, split, direction, method, metric"
    assert str(caught.value) == f"here: 'n' is no key column of published.csv; choose from {keys}"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", f" must have the columns {HEAD}"),
        (HEAD.replace("n,notes", "notes,n").encode(), f" must have the columns {HEAD}"),
        (f"{HEAD},more\n".encode(), f" must have the columns {HEAD}"),
        (HEAD.encode() + b"\nP,T,s,Toy,test,,M\xfcller,psnr,1,,,\n", " is not a CSV file in UTF-8: "),
        (HEAD.encode() + b'\nP,T,s,Toy,test,,"' + b"a" * 140_000 + b'",psnr,1,,,\n', " is not a CSV file in UTF-8: "),
    ],
    ids=["empty", "another order", "one more column", "another encoding", "an endless cell"],
)
def test_files_that_are_no_such_table(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "published.csv"
    path.write_bytes(content)
    with pytest.raises(SuiteError) as caught:
        find_published({"method": "x"}, path, "here")
    assert str(caught.value).startswith(f"{path}{told}")
    assert str(caught.value).endswith("; save it as one") == ("CSV file" in told)
    assert "\n" not in str(caught.value)


def test_a_row_of_too_many_cells_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, "P,Table 1,s,Toy,test,,Mean,psnr,1,,,", "P,Table 1,s,Toy,test,,Mode,psnr,12.5,,,of 3, by hand")
    with pytest.raises(SuiteError) as caught:
        find_published({"method": "Mean"}, path, "here")
    assert str(caught.value) == f"{path} has a row of more than 12 cells: P,Table 1,s,Toy,test,,Mode,psnr; put cells with commas in quotes"


def test_a_table_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as caught:
        find_published({"method": "x"}, tmp_path, "here")
    assert str(caught.value) == f"{tmp_path} cannot be read: Is a directory"


LINK = '\n[[published]]\ntask = "split"\n{}metric = "psnr"\nfind = {{ source = "P", table = "Table 1", method = "{}"{} }}\n'


def test_links_without_a_method_may_be_many_and_say_what_they_were_measured_on(toy: ToyFolder) -> None:
    with toy.toml.open("a") as file:
        file.write(LINK.format("", "Mean", "") + LINK.format("", "Other", ', metric = "psnr_db"'))
        file.write(LINK.format('method = "nmf"\nmeasured_on = "other data"\n', "Mean", "").replace('metric = "psnr"', 'metric = "ssim"'))
    toy.freeze()
    rows = load_suite(str(toy.toml), toy.opener).published
    assert [(row.method, row.metric, row.value, row.source, row.notes) for row in rows] == [
        ("average", "psnr", 12.5, "P Table 1", "theirs; ours"),
        ("", "psnr", 12.5, "P Table 1", "theirs"),
        ("", "psnr", 13.0, "P Table 1", ""),
        ("nmf", "ssim", 12.5, "P Table 1 on other data", "theirs"),
    ]
    with toy.toml.open("a") as file:
        file.write(LINK.format('method = "nmf"\n', "Mean", "").replace('metric = "psnr"', 'metric = "ssim"'))
    with pytest.raises(SuiteError) as caught:
        load_suite(str(toy.toml), toy.opener)
    where = f"{toy.toml} [[published]] 5"
    assert str(caught.value) == f"{where}: split, nmf, ssim is linked twice; a method has one published number per task and metric"


def test_without_a_table_of_its_own_a_suite_links_to_sepbenchs(toy: ToyFolder) -> None:
    (toy.folder / "published.csv").unlink()
    toy.edit('find = { source = "P", table = "Table 1", method = "Mean" }', 'find = { source = "BASIS", table = "Table 2", method = "NMF", split = "test" }')
    with pytest.raises(SuiteError, match=r"matches \d+ rows of .*leaderboards/published\.csv"):
        load_suite(str(toy.toml), toy.opener)
