"""``new-suite``, ``freeze``, ``verify`` and ``list suites`` as a user calls them: own folders to a leaderboard in two commands."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from own_files import image_folder, sound_folder

from sepbench.cli.main import main

pytest.importorskip("PIL.Image", reason="pillow is not installed")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SEPBENCH_SUITES", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "discs", 6)
    image_folder(tmp_path / "bars", 6, key=400)
    return tmp_path


@pytest.fixture
def sepbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(line: str, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["sepbench", *line.split()])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert int(stopped.value.code or 0) == code, out + err
        return out, err

    return call


def test_images_to_a_leaderboard_in_two_commands(sepbench, home: Path) -> None:
    out, _ = sepbench("new-suite shapes --sources discs bars --size 8")
    assert "discs: train 4 files, validation 1 file, test 1 file" in out
    assert "class-split: 1 mixture\n" in out
    *_, frozen, useful, run, remedy = out.splitlines()
    path = home / "suites" / "shapes"
    lacking = "it has too few test files, 1 of discs and 1 of bars; 10 are needed of each class."
    assert frozen == f"{path}/ written and frozen, but methods cannot be ranked on it: {lacking}"
    assert useful == "A run gives scores and means, without ranks and verdicts; that is enough to try a method out:"
    assert run == "  sepbench run --suite shapes --methods average,nmf"
    again = "and run this command again with 48 different files per class, or with fewer and a larger --test."
    assert remedy == f"To rank methods, remove {path} {again}"
    sepbench("run --suite shapes --methods average,nmf --device cpu --out r")
    board = pd.read_csv(home / "r" / "leaderboard.csv")
    assert set(board["method"]) == {"average", "nmf"}
    assert (board["n_scored"] == 1).all()
    record = json.loads((home / "r" / "run.json").read_text())
    assert record["suite"]["path"] == str(home / "suites" / "shapes" / "suite.toml")
    out, _ = sepbench("list suites")
    assert f"shapes is a suite of your own, in {home}/suites/shapes\n" in out
    out, _ = sepbench("verify shapes")
    assert out.count(": ok, ") == 9  # six files of signals and their table, two tasks


def test_sounds_to_a_leaderboard_in_two_commands(sepbench, home: Path) -> None:
    pytest.importorskip("soundfile", reason="soundfile is not installed")
    sound_folder(home / "hum", 5)
    sound_folder(home / "hiss", 5, key=7)
    out, _ = sepbench("new-suite noisy --sources hum hiss --rate 1000 --seconds 1 --snr 3 --out elsewhere")
    assert f"sepbench run --suite {home}/elsewhere/noisy --methods average,nmf" in out
    sepbench(f"run --suite {home}/elsewhere/noisy --methods average,mixture --device cpu --out r")
    board = pd.read_csv(home / "r" / "leaderboard.csv").set_index(["method", "metric"])
    assert board.loc[("average", "sdr"), "n_scored"] == 4  # two pieces of one file each


@pytest.mark.parametrize("line", ["new-suite x --size 8 --sources bars discs", "new-suite x --sources bars --sources discs --size 8"])
def test_sources_may_be_spelt_in_any_way(sepbench, home: Path, line: str) -> None:
    out, _ = sepbench(line)
    assert out.startswith("bars: ")
    assert "\ndiscs: " in out


REFUSED = {
    "no sources": ("new-suite x", "error: --sources is missing"),
    "no name": ("new-suite --sources discs bars --size 8", "error: the suite's name comes first"),
    "no name at all": ("new-suite --size 8", "missing argument 'name'"),
    "not a folder": ("new-suite x --sources discs nowhere --size 8", "error: nowhere is not a folder"),
    "a file for a folder": ("new-suite x --sources discs bars --size 8 --out discs/im0.png", "discs/im0.png is a file; choose another folder with --out"),
    "odd sizes": ("new-suite x --sources discs bars", "--size 64 brings all to 64 x 64"),
    "a built-in name": ("new-suite mnist-pairs --sources discs bars --size 8", "there is a suite 'mnist-pairs' already"),
    "an operator": ("new-suite x --sources discs bars --operator product", "'product' is not one of"),
    "freeze a built-in": ("freeze digits-pairs", "comes with a package"),
    "verify nothing": ("verify shapes", "unknown suite 'shapes'; it does not come with an installed package, and is not in "),
    "run nothing": ("run --suite ./shapes", "has no suite.toml"),
}


@pytest.mark.parametrize(("line", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_one_line(sepbench, home: Path, line: str, says: str) -> None:
    _, err = sepbench(line, code=2)
    assert says in err
    assert "Traceback" not in err
    assert not (home / "suites").exists()


def test_verify_tells_what_changed(sepbench, home: Path) -> None:
    sepbench("new-suite shapes --sources discs bars --size 8")
    path = home / "suites" / "shapes" / "data" / "bars" / "test.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    out, err = sepbench("verify shapes", code=2)
    assert "data/bars/test.npy: wrong\n" in out
    assert "data/bars/train.npy: ok" in out
    assert f"error: shapes is not as it was frozen: {path} has sha256" in err
    assert "(2 in all are wrong)" in err


def test_freeze_writes_what_verify_compares(sepbench, home: Path) -> None:
    sepbench("new-suite shapes --sources discs bars --size 8")
    digests = home / "suites" / "shapes" / "tasks.toml"
    before = digests.read_text()
    digests.unlink()
    _, err = sepbench("run --suite shapes --methods average", code=2)
    assert "is not frozen" in err
    out, _ = sepbench("freeze suites/shapes/suite.toml")
    assert out.startswith("class-split: 1 mixture, ")
    assert digests.read_text() == before


def test_list_suites_says_what_is_needed_and_where(sepbench, home: Path, data_home: Path) -> None:
    out, _ = sepbench("list suites")
    table = [[cell.strip() for cell in line.split("│")[1:4]] for line in out.splitlines() if line.startswith("│")]
    states = {cells[0].split()[0]: (cells[1], below[1]) for cells, below in zip(table, [*table[1:], ["", "", ""]], strict=True) if cells[0]}
    assert states["digits-pairs"] == ("ready", "")
    assert states["mnist-pairs"] == ("download", "11.6 MB")
    assert states["musdb-drums"] == ("own copy", "")
    assert "own copy: musdb-drums, musdb-vocals need musdb18-hq; 'sepbench data verify musdb18-hq' says where that comes from" in out
    assert f"Suites of your own are looked up in {home}/suites (" in out


def test_the_share_that_new_suite_names_is_enough_to_rank(sepbench, home: Path) -> None:
    image_folder(home / "many", 30)
    image_folder(home / "more", 25, key=400)
    for sources, name, least in (("many more", "few", 10), ("many --agnostic", "one", 11)):
        out, _ = sepbench(f"new-suite {name} --sources {sources} --size 8")
        remedy = out.splitlines()[-1]
        share = remedy.partition("run this command again with --test ")[2].partition(",")[0]
        out, _ = sepbench(f"new-suite {name}-enough --sources {sources} --size 8 --test {share}")
        assert "rank" not in out
        *_, frozen, run = out.splitlines()
        assert frozen == f"{home}/suites/{name}-enough/ written and frozen. Next:"
        assert run == f"  sepbench run --suite {name}-enough --methods average,nmf"
        assert f"test {least} files" in out
        sepbench(f"run --suite {name}-enough --methods average,mixture --device cpu --out r-{name}")
        board = pd.read_csv(home / f"r-{name}" / "leaderboard.csv")
        assert board["n_clusters"].min() >= 10


def test_few_mixtures_of_many_files_cannot_be_ranked_either(sepbench, home: Path) -> None:
    image_folder(home / "many", 30)
    image_folder(home / "more", 30, key=400)
    out, _ = sepbench("new-suite short --sources many more --size 8 --test 0.5 --mixtures 9")
    held = re.search(r"cannot be ranked on it: its 9 mixtures hold only (\d) different test files of a source, 10 are needed", out)
    assert held is not None
    assert out.endswith("run this command again with a larger --mixtures, or without it.\n")
    sepbench("run --suite short --methods average --device cpu --out r")
    assert set(pd.read_csv(home / "r" / "leaderboard.csv")["n_clusters"]) == {int(held[1])}
    out, _ = sepbench("new-suite long --sources many more --size 8 --test 0.5")
    assert "written and frozen. Next:" in out


def test_folders_of_the_environment_are_those_of_the_start(sepbench, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_SUITES", os.pathsep.join(["kept", "", "~/more"]))
    sepbench("list metrics")
    assert os.environ["SEPBENCH_SUITES"] == os.pathsep.join([str(home / "kept"), "~/more"])
    sepbench("new-suite shapes --sources discs bars --size 8")
    assert (home / "kept" / "shapes" / "suite.toml").is_file()  # the first of them
