"""Weights that cannot be used stop a run before its folder is made: one line, exit code 2. Other weights under one path are another run."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from baselines.priors.shipped import shipped_weights
from sepbench.cli.main import main
from sepbench.files import file_sha256

RUN = ("run", "--suite", "digits-pairs", "--tasks", "class-split", "--limit", "2", "--methods", "projected", "--set", "projected.steps=2", "--out", "here")


def _sepbench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sepbench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return _copy("digits-all", tmp_path / "own.safetensors")


def _copy(name: str, path: Path) -> Path:
    shipped = next(entry.path for entry in shipped_weights() if entry.name == name)
    for suffix in (".safetensors", ".json"):
        shutil.copy(shipped.with_suffix(suffix), path.with_suffix(suffix))
    return path


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def _edit_card(**changes: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        card = path.with_suffix(".json")
        card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))

    return edit


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "another file": (_flip_a_byte, "its card says"),
    "another shape": (lambda path: _copy("mnist-all", path), "trained on signals of shape 1x28x28, task class-split has 1x8x8"),
    "no card": (lambda path: path.with_suffix(".json").unlink(), "the card must lie beside the weights"),
    "no file": (lambda path: path.unlink(), "no weights at"),
    "shape is a number": (_edit_card(shape=8), "shape cannot be 8"),
    "no scale": (_edit_card(sigma_data=None), "sigma_data cannot be None"),
    "two files": (lambda path: None, "takes 1 prior on task class-split, its setting weights names 2"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_one_line_and_nothing_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weights: Path, case: str) -> None:
    spoil, message = SPOILT[case]
    spoil(weights)
    given = f"{weights},{weights}" if case == "two files" else str(weights)
    assert _sepbench(monkeypatch, *RUN, "--set", f"projected.weights={given}") == 2
    err = capsys.readouterr().err
    assert message in err
    assert [line.startswith("error: ") for line in err.splitlines()].count(True) == 1
    assert "Traceback" not in err
    assert not Path("here").exists()


def test_a_damaged_prior_that_ships_stops_the_run_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weights: Path) -> None:
    folder = weights.parent / "shipped"
    folder.mkdir()
    _flip_a_byte(_copy("digits-all", folder / "digits-all.safetensors"))
    monkeypatch.setattr("baselines.priors.shipped.FOLDER", folder)
    assert _sepbench(monkeypatch, *RUN) == 2
    assert "the manifest of weights says" in capsys.readouterr().err
    assert not Path("here").exists()


def test_other_weights_under_the_same_path_are_another_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weights: Path) -> None:
    asked = (*RUN, "--set", f"projected.weights={weights}")
    assert _sepbench(monkeypatch, *asked) == 0
    assert json.loads(Path("here/run.json").read_text())["methods"]["projected"]["weights_sha256"] == file_sha256(weights)
    assert _sepbench(monkeypatch, *asked) == 0
    capsys.readouterr()
    # safetensors: eight bytes of header length first; a last number changed is another prior, with a card that fits it
    _flip_a_byte(weights)
    _edit_card(weights_sha256=file_sha256(weights))(weights)
    assert _sepbench(monkeypatch, *asked) == 2
    err = capsys.readouterr().err
    # The method states the digest of its weights, and the setting that names them is part of the run's identity: either may be the first to differ.
    assert re.search(r"here holds another run: (files|weights_sha256) of method projected is ", err)
