"""A file that a setting names is part of a run's identity by its content, whoever wrote the method: no scores of yesterday's file today."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from sepbench.cli.main import main

WAYS = {
    "scaled-by-file": "scaled-by-file.scale=scale.txt",
    "scaled-by-list": "scaled-by-list.scales=['scale.txt', 'scale.txt']",
}


@pytest.fixture(autouse=True)
def _here(fake_methods: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scale.txt").write_text("1.0")


def _run(monkeypatch: pytest.MonkeyPatch, method: str, *more: str) -> int:
    asked = ["run", "--suite", "digits-pairs", "--tasks", "class-split", "--limit", "4", "--methods", method, "--set", WAYS[method]]
    monkeypatch.setattr(sys, "argv", ["sepbench", *asked, *more])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("method", WAYS)
def test_another_content_is_another_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str) -> None:
    assert _run(monkeypatch, method, "--out", "here") == 0
    stated = json.loads(Path("here/run.json").read_text())["methods"][method]
    assert list(stated["files"].values()) == [{"scale.txt": "d0ff5974b6aa52cf562bea5921840c032a860a91a3512f7fe8f768f6bbe005f6"}]  # sha256sum of "1.0"
    assert list(stated["settings"]) == list(stated["files"])
    assert _run(monkeypatch, method, "--out", "here") == 0
    capsys.readouterr()
    Path("scale.txt").write_text("0.5")
    assert _run(monkeypatch, method, "--out", "here") == 2
    line = capsys.readouterr().err
    assert f"files of method {method}" in line
    assert line.count("error: ") == 1


@pytest.mark.parametrize("method", WAYS)
def test_the_default_folder_is_another_one_and_so_are_the_scores(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    for content in ("1.0", "0.5"):
        Path("scale.txt").write_text(content)
        assert _run(monkeypatch, method) == 0
    boards = [pd.read_csv(path) for path in sorted(Path("runs").glob("*/leaderboard.csv"))]
    assert len(boards) == 2
    assert len({float(board[board.metric == "psnr"]["mean"].iloc[0]) for board in boards}) == 2


def test_a_run_without_files_says_that_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WAYS, "halves", "halves.gain=0.5")
    assert _run(monkeypatch, "halves", "--out", "here") == 0
    assert json.loads(Path("here/run.json").read_text())["methods"]["halves"]["files"] == {}
