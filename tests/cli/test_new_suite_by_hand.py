"""What ``new-suite`` hands on, and what it says of the suite that was made: amounts, and what is lacking to rank methods on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sepbench.cli import new_suite
from sepbench.cli.main import app
from sepbench.suites.own import MadeSuite, OwnSuite

ASKED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "nothing": ((), {}),
    "agnostic": (("--agnostic",), {"agnostic": True}),
    "n_sources": (("--n-sources", "3"), {"n_sources": 3}),
    "size": (("--size", "16"), {"size": 16}),
    "rate": (("--rate", "8000"), {"rate": 8_000}),
    "seconds": (("--seconds", "0.5"), {"seconds": 0.5}),
    "operator": (("--operator", "mean"), {"operator": "mean"}),
    "snr": (("--snr", "-3"), {"snr_db": -3.0}),
    "no snr": (("--snr", "0"), {"snr_db": 0.0}),
    "mixtures": (("--mixtures", "12"), {"mixtures": 12}),
    "val": (("--val", "0.3"), {"validation": 0.3}),
    "test": (("--test", "0.4"), {"test": 0.4}),
    "convert": (("--convert",), {"convert": True}),
    "out": (("--out", "there"), {}),
}


@pytest.mark.parametrize("name", ASKED)
def test_an_option_changes_what_it_is_called_after_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    found: list[Any] = []

    def make(asked: OwnSuite, into: Path, tell: Any) -> Any:
        tell("reading 12 images")
        found.append((asked, into))
        return "made"

    monkeypatch.setattr("sepbench.suites.own.make_suite", make)
    monkeypatch.setattr("sepbench.registry.suite_folders", lambda: [tmp_path / "first", tmp_path / "second"])
    monkeypatch.setattr(new_suite, "_tell", lambda asked, made: found.append((asked, made)))
    words, differs = ASKED[name]
    done = CliRunner().invoke(app, ["new-suite", "mine", *words, "--sources", "a", "b/c"])
    assert done.exit_code == 0, done.exception
    usual = {"agnostic": False, "n_sources": 2, "size": None, "rate": None, "seconds": None, "operator": "", "snr_db": None, "mixtures": None}
    wanted = OwnSuite("mine", (Path("a"), Path("b/c")), **(usual | {"validation": 0.1, "test": 0.2, "convert": False} | differs))  # type: ignore[arg-type]
    assert found == [(wanted, Path("there") if name == "out" else tmp_path / "first"), (wanted, "made")]
    assert (done.stdout, done.stderr) == ("", "reading 12 images\n")


def test_every_option_is_here() -> None:
    command: Any = typer.main.get_command(app)
    options = {option.name for option in command.commands["new-suite"].params} - {"help", "name", "sources"}
    assert options == set(ASKED) - {"nothing", "no snr"}


@pytest.mark.parametrize(
    ("words", "spelt"),
    [
        (["x", "--sources", "a", "b", "--size", "8"], ["x", "--sources", "a", "--sources", "b", "--size", "8"]),
        (["x", "--size", "8", "--sources", "a"], ["x", "--size", "8", "--sources", "a"]),
        (["x", "--sources", "a", "--convert", "b"], ["x", "--sources", "a", "--convert", "b"]),  # an option ends the list
        (["x", "--sources", "a", "--size", "8", "--sources", "b"], ["x", "--sources", "a", "--size", "8", "--sources", "b"]),
        (["x", "--sources"], ["x"]),
        (["--sources", "a", "--help"], ["--sources", "a", "--help"]),  # who asks for help gets it
        (["--sources", "--help"], ["--help"]),
    ],
)
def test_folders_follow_one_word(monkeypatch: pytest.MonkeyPatch, words: list[str], spelt: list[str]) -> None:
    read: list[list[str]] = []
    monkeypatch.setattr("typer.core.TyperCommand.parse_args", lambda self, ctx, args: read.append(args) or args)
    new_suite.SourcesCommand("new-suite").parse_args(None, words)
    assert read == [spelt]


# ---- what is said ----------------------------------------------------------------------------------------------------------------------


def made(files: dict[str, dict[str, int]], clusters: int = 3, pieces: int = 1, mixtures: int = 9, notes: tuple[str, ...] = ()) -> MadeSuite:
    classes = {name: {split: (n, n * pieces) for split, n in splits.items()} for name, splits in files.items()}
    return MadeSuite(Path("/suites/mine"), classes, files, {"class-split": mixtures, "class-split-val": 1}, clusters, list(notes))


def asked(**facts: Any) -> OwnSuite:
    return OwnSuite("mine", (Path("a"), Path("b")), **facts)


def said(capsys: pytest.CaptureFixture[str], request: OwnSuite, suite: MadeSuite) -> tuple[list[str], list[str]]:
    new_suite._tell(request, suite)
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


MANY = {"a": {"train": 1_200, "validation": 1, "test": 12}, "b": {"train": 3, "validation": 2, "test": 30}}


@pytest.mark.parametrize(("known", "suite"), [(("mine",), "mine"), (("other",), "/suites/mine")])
def test_a_suite_that_ranks_says_what_is_in_it_and_how_it_is_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: tuple[str, ...], suite: str
) -> None:
    """By its name where it is found by it, else by its folder; notes are no output."""
    monkeypatch.setattr("sepbench.registry.suite_names", lambda: list(known))
    out, err = said(capsys, asked(), made(MANY, clusters=10, pieces=2, mixtures=1_000, notes=("one", "two")))
    assert err == ["note: one", "note: two"]
    assert out == [
        "a: train 1,200 files (2,400 pieces), validation 1 file (2 pieces), test 12 files (24 pieces)",
        "b: train 3 files (6 pieces), validation 2 files (4 pieces), test 30 files (60 pieces)",
        "class-split: 1,000 mixtures",
        "class-split-val: 1 mixture",
        "/suites/mine/ written and frozen. Next:",
        f"  sepbench run --suite {suite} --methods average,nmf",
    ]
    assert said(capsys, asked(), made(MANY, clusters=10))[0][0] == "a: train 1,200 files, validation 1 file, test 12 files"


LACKS: dict[str, tuple[dict[str, Any], dict[str, dict[str, int]], str, str]] = {
    "files of one class": (
        {},
        {"a": {"train": 80, "validation": 11, "test": 9}, "b": {"train": 80, "validation": 10, "test": 10}},
        "it has too few test files, 9 of a; 10 are needed of each class",
        "--test 0.1, or with 48 different files per class",
    ),
    "files of both": (
        {"validation": 0.3, "test": 0.1},
        {"a": {"train": 1_300, "validation": 1, "test": 1}, "b": {"train": 27, "validation": 2, "test": 2}},
        "it has too few test files, 1 of a and 2 of b; 10 are needed of each class",
        "--test 0.31, or with 95 different files per class",
    ),
    "files beside a large share for validation": (
        {"validation": 0.8, "test": 0.1},
        {"a": {"train": 4, "validation": 32, "test": 4}, "b": {"train": 4, "validation": 32, "test": 4}},
        "it has too few test files, 4 of a and 4 of b; 10 are needed of each class",
        "95 different files per class, or with fewer and a larger --test",
    ),
    "files for mixtures of six": (
        {"agnostic": True, "n_sources": 6, "test": 0.9},
        {"a": {"train": 6, "validation": 4, "test": 6}},
        "it has too few test files, 6 of a; 11 are needed",
        "17 different files in all, or with fewer and a larger --test",
    ),
    "files in all": (
        {},
        {"a": {"train": 5, "validation": 1, "test": 1}, "b": {"train": 5, "validation": 1, "test": 1}},
        "it has too few test files, 1 of a and 1 of b; 10 are needed of each class",
        "48 different files per class, or with fewer and a larger --test",
    ),
    "files of the only folder": (
        {"agnostic": True, "n_sources": 3},
        {"a": {"train": 40, "validation": 6, "test": 10}},
        "it has too few test files, 10 of a; 11 are needed",
        "--test 0.19, or with 53 different files in all",
    ),
    "few files of the only folder": (
        {"agnostic": True, "n_sources": 3},
        {"a": {"train": 6, "validation": 3, "test": 3}},
        "it has too few test files, 3 of a; 11 are needed",
        "53 different files in all, or with fewer and a larger --test",
    ),
    "mixtures that were asked for": (
        {"mixtures": 9},
        {"a": {"train": 80, "validation": 10, "test": 10}, "b": {"train": 80, "validation": 10, "test": 10}},
        "its 9 mixtures hold only 3 different test files of a source, 10 are needed",
        "a larger --mixtures, or without it",
    ),
    "mixtures that the files make": (
        {"agnostic": True},
        {"a": {"train": 80, "validation": 10, "test": 11}},
        "its 9 mixtures hold only 3 different test files of a source, 10 are needed",
        "more files",
    ),
}


@pytest.mark.parametrize("case", LACKS)
def test_a_suite_that_cannot_rank_says_what_it_lacks_and_what_would_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str) -> None:
    facts, files, lacking, remedy = LACKS[case]
    monkeypatch.setattr("sepbench.registry.suite_names", lambda: ["mine"])
    request = asked(**facts)
    assert said(capsys, request, made(files))[0][-4:] == [
        f"/suites/mine/ written and frozen, but methods cannot be ranked on it: {lacking}.",
        "A run gives scores and means, without ranks and verdicts; that is enough to try a method out:",
        "  sepbench run --suite mine --methods average,nmf",
        f"To rank methods, remove /suites/mine and run this command again with {remedy}.",
    ]


def test_nine_different_files_are_one_too_few(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sepbench.registry.suite_names", lambda: ["mine"])
    for clusters, ranks in ((9, False), (10, True)):
        out, _ = said(capsys, asked(mixtures=1), made(MANY, clusters=clusters, mixtures=1))
        assert (out[4] == "/suites/mine/ written and frozen. Next:") is ranks
    assert "its 1 mixture hold only" in said(capsys, asked(mixtures=1), made(MANY, clusters=1, mixtures=1))[0][-4]
