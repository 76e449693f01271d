"""What commands say where they cannot go on, and while they work, each line in whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from sepbench.api.comparing import Comparison
from sepbench.api.opened import open_run
from sepbench.api.separating import _no_material, separate
from sepbench.cli import completion, config_files, evaluate, main, method_page, new_method, panel
from sepbench.cli.compare import compare
from sepbench.cli.list import _wanted
from sepbench.cli.main import usage_error
from sepbench.cli.new_suite import SourcesCommand, new_suite
from sepbench.cli.report import report
from sepbench.cli.run_config import config_text
from sepbench.errors import ArgumentError, MethodError, SepbenchError, UnknownNameError
from sepbench.suites.loader import load_suite


def told(kind: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


# ---- options and names -----------------------------------------------------------------------------------------------------------------


def test_options_that_exclude_each_other(tmp_path: Path) -> None:
    line = "--metric and --all-metrics exclude each other; give one of them"
    assert told(SepbenchError, lambda: compare("a", "b", metric="psnr", all_metrics=True)) == line
    line = "--examples and --count exclude each other; give one of them"
    assert told(SepbenchError, lambda: panel.panel(tmp_path, examples="0", count=3)) == line
    assert told(SepbenchError, lambda: panel.numbers("0;5")) == "--examples '0;5' is no list of numbers; write it as 0,5,7"
    assert (panel.numbers(" 5,0, ,7,"), panel.numbers("")) == ((5, 0, 7), ())
    for wanted, options, line in (
        (["runs/a", "runs/b"], {"leaderboards": True}, "--leaderboards takes all that are committed; leave it out to show runs/a, runs/b alone"),
        ([], {}, "name runs, leaderboards or suites, or give --leaderboards for all that are committed"),
    ):
        assert told(SepbenchError, lambda wanted=wanted, options=options: report(wanted, **options)) == line


def test_names_of_methods() -> None:
    for name in ("My-Method", "a--b", "-a", "a-", "1a", "a_b", "", "ä"):
        line = f"{name!r} is no name for a method: use lower-case letters, digits and single hyphens, as in 'my-method'"
        assert told(SepbenchError, lambda name=name: new_method.new_method(name)) == line
    line = "a method 'nmf' is registered already; choose another name (see 'sepbench list methods')"
    assert told(SepbenchError, lambda: new_method.new_method("nmf")) == line


def test_folders_of_methods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(new_method, "_taken", set)
    (tmp_path / "my-net").touch()
    line = f"{tmp_path}/my-net exists; nothing was written. Choose another name or --into another folder"
    assert told(SepbenchError, lambda: new_method.new_method("my-net", tmp_path)) == line
    new_method.new_method("y-net", tmp_path / "new" / "deep")
    assert {path.name for path in (tmp_path / "new" / "deep" / "y-net").iterdir()} == {"y_net.py", "README.md", "test_y_net.py", "pyproject.toml"}
    line = f"cannot write {tmp_path}/my-net/x-net: Not a directory; choose a writable folder with --into"
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert told(SepbenchError, lambda: new_method.new_method("x-net", tmp_path / "my-net")) == line


def test_the_page_of_a_suite_is_not_that_of_a_method() -> None:
    line = "digits-pairs is a suite: 'sepbench list suites digits-pairs' shows its tasks, 'sepbench show digits-pairs' its results"
    assert told(UnknownNameError, lambda: method_page.check_name("digits-pairs", ())) == line
    for what in ("all", "nmf"):
        line = f"'x' is one word too many after {what!r}; a name may follow suites, methods or metrics, as in 'sepbench list methods nmf'"
        assert told(SepbenchError, lambda what=what: _wanted(what, "x")) == f"sepbench list: {line}"


@pytest.mark.parametrize("text", [b"tasks = 3", b"tasks = [", b"\xff", b"name = 'x'", None])
def test_a_shell_completes_nothing_of_a_suite_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "s.toml").write_bytes(text)
    monkeypatch.setattr("sepbench.registry.suite_path", lambda name: tmp_path / "s.toml")
    assert completion._tasks("s") == []
    (tmp_path / "s.toml").write_text("[tasks.b]\n[tasks.a]\n")
    assert completion._tasks("s") == ["b", "a"]


def test_sources_of_a_suite() -> None:
    command: Any = SourcesCommand("new-suite")
    assert command.collect_usage_pieces(None) == ["NAME", "--sources DIR DIR ...", "[OPTIONS]"]
    line = "the suite's name comes first, since all words after --sources are folders: sepbench new-suite NAME --sources DIR DIR"
    for words in (["--sources", "a"], ["--sources", "a", "b", "name"]):
        assert told(SepbenchError, lambda words=words: command.parse_args(None, words)) == line
    line = "--sources is missing: give the folders of images or sounds, one per class"
    for none in (None, []):
        assert told(SepbenchError, lambda none=none: new_suite("mine", none)) == line


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("No such command 'shwo'.", "unknown command 'shwo'; did you mean show?"),
        ("No such command 'zzzz'. (Possible commands: a)", "unknown command 'zzzz'; 'sepbench --help' lists them"),
        ("No such option: --metrik (Possible options: --metric)", "sepbench: unknown option '--metrik'; did you mean --metric or --no-metric?"),
        ("No such option '--zzzzzz'.", "sepbench: unknown option '--zzzzzz'; 'sepbench --help' lists them"),
        ("Missing argument 'A'.", "sepbench run: missing argument 'A'; 'sepbench run --help' shows what it takes"),
    ],
)
def test_words_of_typer_become_ours(said: str, words: str) -> None:
    parameter = SimpleNamespace(opts=["--metric", "-m"], secondary_opts=["--no-metric"])
    command = SimpleNamespace(list_commands=lambda context: ["show", "run"], params=[parameter])
    context = SimpleNamespace(command=command, command_path="sepbench", invoked_subcommand="run")
    assert usage_error(said, context) == words


# ---- files of options ------------------------------------------------------------------------------------------------------------------


def test_files_of_options(tmp_path: Path) -> None:
    def read(name: str, text: str | None = None) -> str:
        if text is not None:
            (tmp_path / name).write_text(text)
        return told(SepbenchError, lambda: config_files.read_file(tmp_path / name)).removeprefix(str(tmp_path / name))

    assert read("a.txt") == ": a configuration file ends in .yaml, .json or .toml"
    assert read("a.yaml") == " cannot be read: no such file or directory; 'sepbench run --save-config FILE' writes one"
    assert read("a.json", "[1]") == " must hold keys with values, such as 'suite: digits-pairs'"
    assert read("b.yml", "words") == " must hold keys with values, such as 'suite: digits-pairs'"
    assert read("c.YAML", "[a, b]: 1") == " cannot be read: a key must be a word, got ['a', 'b']"
    assert read("d.json", '{"a": 1, "a": 2}') == " cannot be read: key 'a' is given twice"
    (tmp_path / "e.yaml").write_text("")
    assert config_files.read_file(tmp_path / "e.yaml") == {}
    line = f"{tmp_path}/a.json is there and says something else; remove it, or name another file"
    assert told(SepbenchError, lambda: config_files.write_file(tmp_path / "a.json", "{}")) == line
    config_files.write_file(tmp_path / "a.json", "[1]")  # the same
    line = f"{tmp_path}/a.json/b/c.json cannot be written: not a directory"
    assert told(SepbenchError, lambda: config_files.write_file(tmp_path / "a.json" / "b" / "c.json", "")) == line
    config_files.write_file(tmp_path / "new" / "deep" / "c.json", "text")
    assert (tmp_path / "new" / "deep" / "c.json").read_text() == "text"
    assert told(SepbenchError, lambda: config_files.file_text({}, ".toml")) == "--save-config writes files that end in .yaml or .json"


def test_a_file_of_options_says_how_it_is_used() -> None:
    from sepbench import __version__
    from sepbench.cli.run import run

    text = config_text({"suite": "digits-pairs", "limit": 3}, run, ".yaml")
    assert text == f"# sepbench {__version__}: sepbench run --config THIS-FILE\nsuite: digits-pairs\nlimit: 3\n"


# ---- while it works, and where it breaks off --------------------------------------------------------------------------------------------


class Notes:
    """Stands for the console of notes; what it was told."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    def status(self, text: str) -> Any:
        self.heard.append(text)
        return self

    def __enter__(self) -> Notes:
        return self

    def __exit__(self, *failure: object) -> None:
        pass

    update = print = lambda self, text, **options: self.heard.append(str(text))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    words: Any = []
    monkeypatch.setattr("rich.console.Console", lambda **options: Notes(words))
    return words  # type: ignore[no-any-return]


def test_an_evaluation_says_where_it_is_and_that_it_goes_on(monkeypatch: pytest.MonkeyPatch, heard: Sequence[str]) -> None:
    def broken(*given: Any, warn: Any, inspected: Any, scored: Any, **options: Any) -> Any:
        inspected(1_000, 2_000)
        scored(1_234, 5_678)
        warn("odd")
        raise KeyboardInterrupt

    monkeypatch.setattr("sepbench.results.evaluation.evaluate_estimates", broken)
    monkeypatch.setattr(evaluate, "fetch_data_of", lambda task: None)
    with pytest.raises(typer.Exit) as ended:
        evaluate.evaluate("digits-pairs", "class-split", Path("x.npy"), "mine")
    assert ended.value.exit_code == 130
    assert heard == [
        *("reading estimates", "reading estimates: 1,000 of 2,000 mixtures", "scoring: 1,234 of 5,678 mixtures", "warning: odd"),
        "interrupted; the same command goes on where it stopped",
    ]


def test_a_report_says_what_it_weighs(monkeypatch: pytest.MonkeyPatch, heard: Sequence[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = SimpleNamespace(index=Path("R/index.html"), size=2_500_000, media=0, files=1_234, seconds=61.6)
    monkeypatch.setattr("sepbench.report.html.page.write_report", lambda *given: given[3]("left out") or made)
    report([str(tmp_path)])
    made.media = 12_000
    report([str(tmp_path)])
    assert heard == ["writing the report", "note: left out"] * 2
    size = "R/index.html: 1,234 files, 2.5 MB"
    assert capsys.readouterr().out == f"{size}, 62 s\n{size}, 12 kB of them pictures and sounds, 62 s\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("odd\nthing"), "unexpected ValueError: odd thing; this is a fault of sepbench or of a plug-in: please report it with what {}=1 shows"),
        (OSError(28, "No space left on device", "a/b"), "a/b: no space left on device; check files, permissions and the room on the disk"),
        (OSError(28, "No space left on device"), "no space left on device; check files, permissions and the room on the disk"),
        (SepbenchError("in words"), "in words"),
    ],
)
def test_errors_that_nobody_caught_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, line: str) -> None:
    def fails(**options: object) -> None:
        raise error

    monkeypatch.setattr(main, "app", fails)
    monkeypatch.delenv(main.TRACEBACK, raising=False)
    monkeypatch.setattr(sys, "argv", ["sepbench"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {line.format(main.TRACEBACK)}\n"


def test_words_that_are_no_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sepbench", "show", "a\udcff"])
    line = told(SepbenchError, main._check_texts)
    assert line.startswith("argument 2, a")
    assert line.endswith(", is not UTF-8 text; rename the file or folder, or name another one")
    monkeypatch.setattr(sys, "argv", ["sepbench"])
    monkeypatch.setattr(os, "environ", {main.FOLDERS[0]: "\udcff"})
    assert told(SepbenchError, main._check_texts).startswith(f"{main.FOLDERS[0]}, ")


# ---- the same from Python --------------------------------------------------------------------------------------------------------------


def test_arguments_of_functions(tmp_path: Path) -> None:
    import numpy as np

    mixtures = np.zeros((2, 1, 8, 8), np.float32)
    for name, value in (("operator", "sum"), ("n_sources", 2), ("sample_rate", 8_000)):
        given: dict[str, Any] = {name: value}
        line = f"{name} is what the task says; leave out {name} or task"
        assert told(ArgumentError, lambda given=given: separate("average", mixtures, task="digits-pairs/class-split", **given)) == line
    line = "settings must be a dict, setting -> value, such as {'atoms': 8}; got 3"
    assert told(ArgumentError, lambda: separate("average", mixtures, settings=3)) == line  # type: ignore[arg-type]
    line = "task must be 'SUITE/TASK', such as 'digits-pairs/class-split', got 'class-split'"
    assert told(ArgumentError, lambda: separate("average", mixtures, task="class-split")) == line
    assert told(MethodError, _no_material) == "there are no training data without a task"
    several = Comparison("a", "b", (None, None))  # type: ignore[arg-type]
    line = "this comparison has 2 rows; name task= and metric=, and one method of each side, or read .rows and .frame"
    assert told(SepbenchError, lambda: several.only) == line
    line = f"there is no {tmp_path}/x; name the folder of a run, as `sepbench run` or `sepbench.run` made it"
    assert told(SepbenchError, lambda: open_run(tmp_path / "x")) == line
    assert load_suite("digits-pairs").name == "digits-pairs"
