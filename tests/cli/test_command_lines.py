"""A command line that cannot be read: one line in the style of every other error, with a next step, and exit code 2."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from sepbench.cli.main import main

CASES = {
    "a mistyped command": ("runn", "unknown command 'runn'; did you mean run?"),
    "a command like none": ("xyzzy", "unknown command 'xyzzy'; 'sepbench --help' lists them"),
    "a mistyped command of a group": ("data fetsch mnist", "unknown command 'fetsch'; did you mean fetch?"),
    "a mistyped option": ("run --sute digits-pairs", "sepbench run: unknown option '--sute'; did you mean --suite"),
    "an option like none": ("panel runs/x --metric psnr", "sepbench panel: unknown option '--metric'; 'sepbench panel --help' lists them"),
    "a missing option": ("run", "sepbench run: missing option '--suite'; 'sepbench run --help' shows what it takes"),
    "a missing argument": ("compare one", "sepbench compare: missing argument 'B'; 'sepbench compare --help' shows what it takes"),
    "an option without value": ("run --suite", "sepbench run: option '--suite' requires an argument; 'sepbench run --help'"),
    "a value of another kind": ("run --suite digits-pairs --limit ten", "sepbench run: invalid value for '--limit': "),
    "an operator that is none": ("new-suite x --operator blend", "invalid value for '--operator': 'blend' is not one of 'sum', 'mean', 'gain'"),
    "a budget that is none": ("run --suite digits-pairs --budget big", "sepbench run: invalid value for '--budget': 'big' is not one of 'quick', 'paper'; "),
    "a form that is none": ("export --suite x --format tiff", "invalid value for '--format': 'tiff' is not one of 'npy', 'npz', 'safetensors', 'png', 'wav'"),
    "one word too many": ("show a more", "'sepbench show --help' shows what it takes"),
    "no method": ("run --suite digits-pairs --methods ''", "--methods names nothing; leave it out to run all methods of the suite"),
    "no task": ("run --suite digits-pairs --tasks ,", "--tasks names nothing; leave it out to run all tasks of the suite"),
    "both runs and leaderboards": ("report --leaderboards a b", "--leaderboards takes all that are committed; leave it out to show a, b alone"),
    "a score of no run": ("score .", "is not the folder of a run: it has no run.json; name one that 'sepbench run' wrote"),
    "no suite file": ("run --suite ./nothere.toml", "nothere.toml cannot be read: No such file or directory; 'sepbench list suites' shows the suites"),
    "a name after the folders": ("new-suite --sources a b mine", "the suite's name comes first, since all words after --sources are folders"),
    "a package's name": (
        "new-method numpy",
        "'numpy' is a Python package that is there already, and yours would hide it; choose another name, as in 'numpy-net'",
    ),
    "a module's name": ("new-method json", "'json' is a Python package that is there already"),
    "our name": ("new-method baselines", "'baselines' is a Python package that is there already"),
    "a word of Python's": ("new-method class", "'class' is a word of Python's; choose another name, as in 'class-net'"),
    "a second name": ("list nmf ica", "sepbench list: 'ica' is one word too many after 'nmf'; a name may follow suites, methods or metrics"),
    "a name after all": ("list all nmf", "sepbench list: 'nmf' is one word too many after 'all'"),
    "a method that is none": ("list methods nmff", "did you mean nmf?"),
    "a suite that is none": ("list suites digit-pairs", "unknown suite 'digit-pairs'; did you mean digits-pairs"),
    "a metric that is none": ("list metrics psnrr --json", "unknown metric 'psnrr'; did you mean psnr?"),
    "no such config": ("run --config nothere.yaml", "nothere.yaml cannot be read: no such file or directory; 'sepbench run --save-config FILE' writes one"),
    "a report of no run": ("report .", ". is not the folder of a run (it has no run.json); name one that 'sepbench run' wrote"),
}


@pytest.mark.parametrize(("words", "expected"), CASES.values(), ids=CASES.keys())
def test_one_line_a_next_step_and_code_2(
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sepbench", *shlex.split(words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert expected in line
    assert "Value error" not in line
    assert "Input should" not in line


def test_no_command_at_all_shows_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["sepbench"])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    assert "Usage: sepbench" in out + err
    assert "error:" not in out + err
