"""``sepbench export`` and ``evaluate`` as a user calls them, and the examples of docs/evaluate.md as they are written."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from sepbench.cli.main import app, main

TASK = ("--suite", "digits-pairs", "--task", "class-split")
PAGE = Path(__file__).parents[2] / "docs" / "evaluate.md"


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def sepbench(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def well(*arguments: str) -> str:
    done = sepbench(*arguments)
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return done.stdout


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_row_whose_digest_is_lost_is_one_line_everywhere(damage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Other estimates under the same name would get its scores, and be published with its number."""
    values = np.full((4, 2, 1, 8, 8), 0.25, np.float32)
    np.save("mine.npy", values)
    np.save("others.npy", values[::-1] * 0.5)
    scored = ("evaluate", *TASK, "--name", "mine", "--limit", "4", "--out", "run", "--estimates")
    well(*scored, "mine.npy")
    record = Path("run/cells/class-split--mine.json")
    if damage == "missing":
        record.unlink()
    else:
        record.write_bytes(record.read_bytes()[:100])
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    line = f"error: {record.absolute()} is {damage}, and nothing else says how the results of mine on class-split were made: "
    commands = (("show", "run"), ("publish", "run", "--to", "boards"), ("score", "run"), (*scored, "mine.npy"), (*scored, "others.npy"))
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["sepbench", *command])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code, said.out, said.err.startswith(line), said.err.count("\n")) == (2, "", True, 1), command
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    assert not Path("boards").exists()
    for part in ("estimates", "scores"):
        shutil.rmtree(f"run/{part}/class-split--mine")
    assert "estimates: sha256" in well(*scored, "others.npy")


@pytest.fixture
def halves() -> Path:
    """Half the mixture for both sources of twelve mixtures."""
    well("export", *TASK, "--out", "digits", "--limit", "12")
    mixtures = np.load("digits/mixtures.npy")
    np.save("halves.npy", np.stack([mixtures / 2, mixtures / 2], axis=1))
    return Path("halves.npy")


def test_a_row_of_supplied_estimates_goes_everywhere(halves: Path) -> None:
    out = well("evaluate", *TASK, "--estimates", str(halves), "--name", "halves", "--limit", "12", "--out", "run")
    assert "halves: estimates supplied, sha256" in out
    assert re.search(r"estimates: sha256 [0-9a-f]{64}\n", out)
    assert "s/mixture" not in out  # nobody measured them
    assert (given := re.search(r"to compare halves with methods on the same mixtures: sepbench (run .*)", out))
    assert shlex.split(given[1]) == [*["run", "--suite", "digits-pairs", "--tasks", "class-split", "--methods", "average,nmf", "--limit", "12", "--out"], "run"]
    well("run", *TASK[:2], "--tasks", "class-split", "--methods", "average", "--limit", "12", "--out", "run")  # methods join the folder
    board = pd.read_csv("run/leaderboard.csv").set_index(["method", "metric"])
    assert board.loc[("halves", "psnr"), "mean"] == board.loc[("average", "psnr"), "mean"]  # average is half the mixture
    assert "no difference shown" in well("compare", "run:halves", "run:average")
    assert "halves" in well("show", "run")
    assert "figures hold (by" in well("check", "run", "--against", "run")
    assert "10 added" in well("publish", "run", "--to", "boards")
    assert "hold" in well("check", "run", "--against", "boards/digits-pairs.csv")
    assert "grid-class-split-halves.png" in well("panel", "run", "--method", "halves", "--figures", "grid", "--count", "2")
    well("score", "run")
    again = pd.read_csv("run/leaderboard.csv").set_index(["method", "metric"])
    assert again.loc[("halves", "psnr"), "mean"] == board.loc[("halves", "psnr"), "mean"]
    assert pd.isna(again.loc[("halves", "psnr"), "seconds_per_mixture"])


def test_the_folder_of_a_run_takes_estimates_whatever_it_was_made_with(halves: Path) -> None:
    made = ("--methods", "average", "--limit", "12", "--seed", "3", "--budget", "quick", "--shard-size", "5")
    well("run", *TASK[:2], "--tasks", "class-split", *made, "--out", "run")
    well("evaluate", *TASK, "--estimates", str(halves), "--name", "halves", "--limit", "12", "--out", "run")
    board = pd.read_csv("run/leaderboard.csv", keep_default_na=False).set_index(["method", "metric"])
    assert board.loc[("average", "psnr"), "budget"] == "quick"
    assert board.loc[("halves", "psnr"), "budget"] == ""
    assert board.loc[("halves", "psnr"), "mean"] == board.loc[("average", "psnr"), "mean"]


def test_pictures_that_compute_are_not_for_supplied_estimates(halves: Path) -> None:
    well("evaluate", *TASK, "--estimates", str(halves), "--name", "halves", "--limit", "12", "--out", "run")
    for option in (("--samples", "2"), ("--gradients",)):
        done = sepbench("panel", "run", *option)
        assert f"{option[0]}: none of halves" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--estimates", "nowhere"), "error: there is no nowhere; name the file or the folder that holds the estimates\n"),
        (
            ("--estimates", "halves.npy"),
            "error: halves.npy cannot be scored: 988 missing (mixture 12, mixture 13, mixture 14 and 985 more); add them, or score the first 12 mixtures "
            "with --limit 12, or what is there with --partial\n",
        ),
        (("--estimates", "halves.npy", "--limit", "12", "--name", "average"), "error: --name average is a registered method"),
        (
            ("--estimates", "digits/mixtures.npy", "--limit", "12"),
            "error: digits/mixtures.npy has the shape (12, 1, 8, 8), the estimates of task class-split are (M, 2, 1, 8, 8)",
        ),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2(
    halves: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    name = () if "--name" in arguments else ("--name", "mine")
    monkeypatch.setattr(sys, "argv", ["sepbench", "evaluate", *TASK, *arguments, *name, "--out", "run"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(words)
    assert err.count("\n") == 1
    assert not Path("run").exists()


def test_interrupted(halves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    arguments = ("evaluate", *TASK, "--estimates", str(halves), "--name", "halves", "--limit", "12", "--out", "run")
    with monkeypatch.context() as patched:
        patched.setattr("sepbench.run.supplied.score_shard", interrupt)
        assert sepbench(*arguments).exit_code == 130
    assert sepbench(*arguments).exit_code == 0


def test_only_the_task_that_was_evaluated_is_shown(halves: Path) -> None:
    well("run", *TASK[:2], "--tasks", "class-split,class-agnostic", "--methods", "average", "--limit", "12", "--out", "run")
    out = well("evaluate", *TASK, "--estimates", str(halves), "--name", "halves", "--limit", "12", "--out", "run")
    assert "class-agnostic" not in out
    assert "halves" in out
    assert "average" in out
    assert "1 more task is in this run: 'sepbench show run' shows all\n" in out
    assert "class-agnostic" in well("show", "run")


def test_export_twice(halves: Path) -> None:
    said = well("export", *TASK, "--out", "digits", "--limit", "12").splitlines()
    assert said == [
        "12 mixtures of digits-pairs, class-split, as npy (there already): digits/mixtures.npy",
        "how they were mixed: digits/manifest.json",
        "Next: separate them into one array (12, 2, 1, 8, 8) (docs/evaluate.md has more layouts). Then:",
        "  sepbench evaluate --suite digits-pairs --task class-split --estimates PATH --name NAME --limit 12",
    ]
    said = well("export", *TASK, "--out", "pictures", "--limit", "2", "--format", "png", "--references").splitlines()
    assert said[:2] == ["2 mixtures of digits-pairs, class-split, as png: pictures/mixtures/", "true sources: pictures/references/"]
    assert said[3] == "the pixel 65535 means 2 in a mixture and 1 in an estimate"
    assert "2 files each, named as 000000_1.png" in said[4]
    done = sepbench("export", *TASK, "--out", "digits", "--limit", "11")
    assert str(done.exception) == "digits has something other than this export in it; choose a new or empty folder with --out"
    assert "did you mean class-split" in str(sepbench("export", *TASK[:2], "--task", "class-splt", "--out", "other").exception)


# -- the page


def _blocks(section: str) -> list[tuple[str, str]]:
    """Language and text of every block of a section of the page."""
    text = PAGE.read_text(encoding="utf-8").split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_example_in_numpy() -> None:
    names: dict[str, object] = {}
    blocks = _blocks("An example in numpy")
    assert [language for language, _ in blocks] == ["bash", "python", "bash", "python"]
    for language, text in blocks:
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "sepbench"
            well(*arguments)
    board = pd.read_csv("runs/mine/leaderboard.csv").set_index(["method", "metric"])
    assert board.loc[("halves", "psnr"), "mean"] == board.loc[("from-python", "psnr"), "mean"]
    assert set(names["scores"]["method"]) == {"halves", "from-python"}  # type: ignore[index]


@pytest.mark.slow
def test_the_example_with_wav_files() -> None:
    pytest.importorskip("soundfile")
    ((_, text),) = _blocks("An example with WAV files")
    ((_, digest),) = _blocks("The digest")
    binary = Path(sys.executable).parent
    done = subprocess.run(["bash", "-e", "-c", f"PATH={binary}:$PATH\n{text}\n{digest}"], capture_output=True, text=True, check=True)
    board = pd.read_csv("runs/songs/leaderboard.csv")
    assert (board["n_scored"] == 3).all()
    assert done.stdout.split()[-2] in Path("songs/manifest.json").read_text(encoding="utf-8")
