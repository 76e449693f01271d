"""``sepbench data``: what it prints, what it refuses, and that its help stays light."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from sepbench.cli.data import app
from sepbench.data.files import fetch, manifests
from sepbench.data.files.integrity import MANY_FILES, FileCheck
from sepbench.data.files.manifests import DataFile, Manifest
from sepbench.errors import DataError, SepbenchError, UnknownNameError

CONTENT = b"content" * 5000


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("NO_COLOR", "1")
    return CliRunner()


@pytest.fixture
def toy(data_home: Path, file_server, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A data set of one file that the local server has; the only one besides the built-in digits."""
    file_server.files = {"a.bin": CONTENT}
    digest = hashlib.sha256(CONTENT).hexdigest()
    manifest = Manifest("toy", "Toy data", "CC0", "c", "h", (DataFile("a.bin", len(CONTENT), sha256=digest, urls=(file_server.url("good", "a.bin"),)),))
    own = Manifest("own", "Own data", "CC0", "c", "h", (DataFile("b.bin", 3, sha256="0" * 64),))
    part = dataclasses.replace(own, name="part", cut_from="toy")
    known = {"toy": manifest, "own": own, "part": part, "digits": manifests.load_manifest("digits")}
    monkeypatch.setattr(manifests, "load_manifest", known.__getitem__)
    monkeypatch.setattr(fetch, "load_manifest", known.__getitem__)
    monkeypatch.setattr(manifests, "manifest_names", lambda: sorted(known))
    return manifest


def test_list_shows_state_size_and_place(toy: Manifest, runner: CliRunner, data_home: Path) -> None:
    result = runner.invoke(app, ["list"])
    assert result.exit_code == 0, result.output
    rows = {line.split("│")[1].strip(): line for line in result.stdout.splitlines() if line.startswith("│")}
    assert "download" in rows["toy"]
    assert "35.0 kB" in rows["toy"]
    assert "3 bytes" in rows["own"]
    assert "own copy" in rows["own"]
    assert "ready" in rows["digits"]  # the words of sepbench list suites
    runner.invoke(app, ["fetch", "toy"])
    rows = {line.split("│")[1].strip(): line for line in runner.invoke(app, ["list"]).stdout.splitlines() if line.startswith("│")}
    assert "ready" in rows["toy"]
    assert f"Looked up in: {data_home / 'cache'}" in result.stdout


def test_list_says_what_a_data_set_without_files_is_cut_from(toy: Manifest, runner: CliRunner) -> None:
    assert "cut from" not in runner.invoke(app, ["list"]).stdout  # no data yet
    runner.invoke(app, ["fetch", "toy"])
    shown = " ".join(runner.invoke(app, ["list"]).stdout.split())
    assert "(cut from toy)" in shown
    verified = runner.invoke(app, ["verify", "part"])
    assert verified.exit_code == 0, verified.output
    assert "a.bin" in verified.stdout  # toy's file is what part is read from


def test_list_names_all_committed_data_sets(data_home: Path, runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    result = runner.invoke(app, ["list"])
    assert result.exit_code == 0, result.output
    for name in ("mnist", "cifar10", "cifar10-mini", "digits", "bags-shoes-mini", "SEPBENCH_OFFLINE"):
        assert name in result.stdout


def test_fetch_says_where_the_data_lie(toy: Manifest, runner: CliRunner, data_home: Path, file_server) -> None:
    result = runner.invoke(app, ["fetch", "toy"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"toy: {data_home / 'cache' / 'toy'}\n"
    assert "a.bin" in result.stderr
    assert file_server.requests == ["/good/a.bin"]


def test_fetch_all_passes_over_what_is_not_offered(toy: Manifest, runner: CliRunner) -> None:
    result = runner.invoke(app, ["fetch", "--all"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("toy: ")


def test_fetch_wants_names_or_all(toy: Manifest, runner: CliRunner) -> None:
    for arguments in (["fetch"], ["fetch", "toy", "--all"]):
        assert isinstance(runner.invoke(app, arguments).exception, SepbenchError)


def test_fetch_offline_is_refused(toy: Manifest, runner: CliRunner, monkeypatch: pytest.MonkeyPatch, file_server) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    result = runner.invoke(app, ["fetch", "toy"])
    assert isinstance(result.exception, DataError)
    assert "SEPBENCH_OFFLINE" in str(result.exception)
    assert file_server.requests == []


def test_verify_passes_then_names_the_damaged_file(toy: Manifest, runner: CliRunner, data_home: Path) -> None:
    runner.invoke(app, ["fetch", "toy"])
    result = runner.invoke(app, ["verify"])
    assert result.exit_code == 0, result.output
    assert "load_digits()" in result.stdout
    path = data_home / "cache" / "toy" / "a.bin"
    path.write_bytes(CONTENT[::-1])
    result = runner.invoke(app, ["verify", "toy"])
    assert isinstance(result.exception, DataError)
    for digest in (hashlib.sha256(CONTENT).hexdigest(), hashlib.sha256(CONTENT[::-1]).hexdigest()):
        assert digest in str(result.exception)
        assert digest in result.stdout
    assert str(path) in str(result.exception)


def test_verify_counts_many_files_and_names_the_wrong_ones(data_home: Path, runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_home / "cache" / "toy"
    folder.mkdir(parents=True)
    files = tuple(DataFile(f"{n}.bin", 4, sha256=hashlib.sha256(n.to_bytes(4, "big")).hexdigest()) for n in range(MANY_FILES))
    for n, file in enumerate(files):
        (folder / file.name).write_bytes(n.to_bytes(4, "big"))
    monkeypatch.setattr(manifests, "load_manifest", lambda name: Manifest("toy", "t", "l", "c", "h", files))
    result = runner.invoke(app, ["verify", "toy"])
    assert result.exit_code == 0, result.output
    assert "100 files" in result.stdout
    assert "100 ok" in result.stdout
    assert "7.bin" not in result.stdout
    (folder / "7.bin").write_bytes(b"abcd")
    result = runner.invoke(app, ["verify", "toy"])
    assert "99 ok" in result.stdout
    assert "7.bin" in result.stdout
    assert "8.bin" not in result.stdout
    assert "7.bin has the wrong sha256" in str(result.exception)


def test_verify_of_a_missing_data_set_fails(toy: Manifest, runner: CliRunner) -> None:
    assert "b.bin is missing" in str(runner.invoke(app, ["verify", "own"]).exception)


def test_path_prints_the_folder_and_nothing_else(toy: Manifest, runner: CliRunner, data_home: Path) -> None:
    assert isinstance(runner.invoke(app, ["path", "toy"]).exception, DataError)
    runner.invoke(app, ["fetch", "toy"])
    assert runner.invoke(app, ["path", "toy"]).stdout == f"{data_home / 'cache' / 'toy'}\n"


def test_an_unknown_name_offers_the_nearest(data_home: Path, runner: CliRunner) -> None:
    result = runner.invoke(app, ["path", "minst"])
    assert isinstance(result.exception, UnknownNameError)
    assert "mnist" in str(result.exception)


def test_help_loads_neither_torch_nor_pooch() -> None:
    code = "import sys, sepbench.cli.data; print(sorted({'torch', 'pooch', 'numpy', 'sklearn', 'pandas'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ---- every word, with stand-ins for manifests ------------------------------------------------------------------------------------------


def described(name: str, **facts: Any) -> Any:
    """A manifest, or what the commands ask of one."""
    defaults = {"title": name.upper(), "licence": "CC0", "forms": ("",), "cut_from": "", "download_form": "zip", "made_by": "", "how": ""}
    sizes: dict[str, tuple[int, ...]] = facts.pop("sizes", {"": ()})
    return SimpleNamespace(name=name, required=lambda form: tuple(SimpleNamespace(size=size) for size in sizes[form]), **(defaults | facts))


def stand_in(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, tuple[Any, str, Path | None, str]], datasets: dict[str, str | SepbenchError] | None = None
) -> None:
    """``known``: name -> manifest, state, folder, form; ``datasets``: name -> its manifest, or why that cannot be told."""

    def manifest_of(name: str) -> str:
        found = (datasets or {})[name]
        if isinstance(found, SepbenchError):
            raise found
        return found

    monkeypatch.setattr(manifests, "manifest_names", lambda: list(known))
    monkeypatch.setattr(manifests, "load_manifest", lambda name: known[name][0])
    monkeypatch.setattr(fetch, "status", lambda manifest: fetch.DataStatus(*known[manifest.name][1:]))  # type: ignore[arg-type]
    monkeypatch.setattr(fetch, "data_folders", lambda: [Path("/one"), Path("/two[x]")])
    monkeypatch.setattr("sepbench.data.datasets.dataset_names", lambda: list(datasets or {}))
    monkeypatch.setattr("sepbench.data.datasets.manifest_of", manifest_of)


def rows_of(out: str) -> list[list[str]]:
    """The cells of a table's rows, lines of a cell joined by a slash."""
    rows: list[list[list[str]]] = [[]]
    for line in out.splitlines():
        if line.startswith("│"):
            rows[-1].append([cell.strip() for cell in line.strip("│").split("│")])
        elif rows[-1]:
            rows.append([])
    return [["/".join(cell for cell in cells if cell) for cells in zip(*row, strict=True)] for row in rows if row]


@pytest.mark.parametrize("offline", [False, True])
def test_the_list_of_data_sets_row_by_row(monkeypatch: pytest.MonkeyPatch, runner: CliRunner, offline: bool) -> None:
    two = described("two-forms", title="A [b] set", licence="CC [by]", forms=("x", "y"), sizes={"x": (1,), "y": (1_000, 2_000)})
    known = {
        "two-forms": (two, "present", Path("/one/[a]"), "y"),
        "nowhere": (described("nowhere", forms=("x", "y"), sizes={"x": (7,), "y": (1,)}, download_form=None), "missing", None, ""),
        "built": (described("built"), "built-in", None, ""),
        "cut": (described("cut", cut_from="whole", sizes={"": (9,)}), "present", Path("/one/whole"), ""),
        "own-copy-of-cut": (described("own-copy-of-cut", cut_from="whole", sizes={"": (9,)}), "damaged", Path("/one/part"), ""),
    }
    stand_in(monkeypatch, known, {"theirs": "", "two-forms": "two-forms", "odd": SepbenchError("cannot [be] read"), "last": ""})
    if offline:
        monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    else:
        monkeypatch.delenv("SEPBENCH_OFFLINE", raising=False)
    out = runner.invoke(app, ["list"]).stdout
    assert rows_of(out) == [
        ["two-forms", "ready", "3.0 kB", "A [b] set/licence: CC [by]", "2", "/one/[a]"],
        ["nowhere", "own copy", "7 bytes", "NOWHERE/licence: CC0", "1", ""],
        ["built", "ready/(built in)", "-", "BUILT/licence: CC0", "-", ""],
        ["cut", "ready/(cut from whole)", "-", "CUT/licence: CC0", "-", "/one/whole"],
        ["own-copy-of-cut", "damaged", "9 bytes", "OWN-COPY-OF-CUT/licence: CC0", "1", "/one/part"],
        ["theirs", "registered", "-", "of another package, with files of its own", "-", ""],
        ["odd", "unusable", "-", "cannot [be] read", "-", ""],
        ["last", "registered", "-", "of another package, with files of its own", "-", ""],
    ]
    heads = [cell.strip() for cell in next(line for line in out.splitlines() if line.startswith("┃")).strip("┃").split("┃")]
    assert heads == ["name", "state", "size", "data set", "files", "folder"]
    assert out.splitlines()[-4 - offline :] == [
        "download: 'sepbench data fetch NAME' gets it.",
        "own copy: 'sepbench data verify NAME' says where it comes from.",
        "'sepbench data path NAME' prints the folder of one.",
        "Looked up in: /one, then /two[x]",
        *(["SEPBENCH_OFFLINE is set: nothing is downloaded."] if offline else []),
    ]


@pytest.mark.parametrize(("words", "fetched"), [(["--all"], ["b", "d"]), (["a"], ["a"]), (["d", "b"], ["d", "b"])])
def test_fetch_takes_those_that_are_named_or_all_that_are_offered(
    monkeypatch: pytest.MonkeyPatch, runner: CliRunner, words: list[str], fetched: list[str]
) -> None:
    offered = {"a": None, "b": "zip", "c": None, "d": "zip"}
    stand_in(monkeypatch, {name: (described(name, download_form=form), "missing", None, "") for name, form in offered.items()})
    monkeypatch.setattr("sepbench.report.fetching.fetch_with_progress", lambda manifest: Path("/cache") / manifest.name)
    assert runner.invoke(app, ["fetch", *words]).stdout == "".join(f"{name}: /cache/{name}\n" for name in fetched)


def test_fetch_of_nothing_or_of_both_is_one_line(runner: CliRunner) -> None:
    for words in ([], ["--all", "a"]):
        error = runner.invoke(app, ["fetch", *words]).exception
        assert str(error) == "name the data sets to fetch, or give --all (not both); see 'sepbench data list'"


def test_verify_without_names_takes_what_is_there_and_an_owner_once(monkeypatch: pytest.MonkeyPatch, runner: CliRunner) -> None:
    """Data that the package makes when they are used are there once they were made."""
    known = {
        "missing": (described("missing"), "missing", None, ""),
        "unmade": (described("unmade", made_by="x.y"), "on demand", None, ""),
        "made": (described("made", made_by="x.y"), "on demand", Path("/one/made"), ""),
        "part": (described("part", cut_from="whole"), "present", Path("/one/whole"), ""),
        "whole": (described("whole"), "present", Path("/one/whole"), ""),
        "broken": (described("broken"), "incomplete", Path("/one/broken"), ""),
    }
    stand_in(monkeypatch, known)
    looked: list[str] = []
    monkeypatch.setattr(fetch, "verify", lambda manifest: looked.append(manifest.name) or [])
    assert runner.invoke(app, ["verify"]).exit_code == 0
    assert looked == ["made", "whole", "broken"]
    looked.clear()
    runner.invoke(app, ["verify", "unmade", "missing", "part"])
    assert looked == ["unmade", "missing", "whole"]


REMEDIES: dict[str, tuple[dict[str, Any], str]] = {
    "offered": ({}, "run 'sepbench data fetch a'"),
    "made": ({"download_form": None, "made_by": "x.y", "how": "ask them"}, "run 'sepbench data fetch a'"),
    "told": ({"download_form": None, "how": "ask them"}, "ask them"),
    "nothing": ({"download_form": None}, "replace it"),
}


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("wrong", [1, 2])
def test_verify_tells_the_first_wrong_file_how_many_there_are_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, runner: CliRunner, remedy: str, wrong: int
) -> None:
    facts, told = REMEDIES[remedy]
    stand_in(monkeypatch, {name: (described(name, **(facts if name == "a" else {})), "present", Path("/one"), "") for name in "ab"})
    digest, other = "0123456789abcdef" * 4, "f" * 64
    good, lost = FileCheck("x.bin", Path("/one/x.bin"), "ok", digest, digest), FileCheck("y.bin", Path("/one/y.bin"), "missing", other, "")
    found = {"a": [good, lost], "b": [FileCheck("z.bin", Path("/one/z.bin"), "wrong size", "3", "4") if wrong == 2 else good]}
    monkeypatch.setattr(fetch, "verify", lambda manifest: found[manifest.name])
    done = runner.invoke(app, ["verify", "a", "b"])
    more = " (2 files are missing or wrong)" if wrong == 2 else ""
    assert str(done.exception) == f"data set 'a': /one/y.bin is missing{more}; {told}"
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if line.startswith("│")]
    last = ["b", "z.bin", "wrong size", "4", "3"] if wrong == 2 else ["b", "x.bin", "ok", digest[:12], digest[:12]]
    assert lines == [["a", "x.bin", "ok", digest[:12], digest[:12]], ["a", "y.bin", "missing", "", other], last]


@pytest.mark.parametrize("columns", [60, 80])
def test_of_a_file_that_was_found_as_much_is_shown_as_tells_it_from_others(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Twelve characters of what was found, on a narrow terminal too, where names and what was expected are broken."""
    stand_in(monkeypatch, {"a-data-set": (described("a-data-set"), "present", Path("/one"), "")})
    digest = "0123456789abcdef" * 4
    name = "a-folder/with-a-file-of-a-long-name.bin"
    monkeypatch.setattr(fetch, "verify", lambda manifest: [FileCheck(name, Path("/one/x"), "ok", digest, digest)])
    out = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["verify", "a-data-set"]).stdout
    (row,) = [line.strip("│").split("│") for line in out.splitlines() if digest[:12] in line]
    assert row[3] == f" {digest[:12]} "
    assert "…" not in out  # what has no room goes on in the next line
    assert "".join("".join(line.strip("│").split("│")[1].split()) for line in out.splitlines() if line.startswith("│")) == name
