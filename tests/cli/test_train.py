"""``sepbench train``: from a data set's name to weights that a method can use; wrong requests are one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from baselines.priors.weights_io import load_prior, read_card
from sepbench.cli.main import main


def _train(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sepbench", "train", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_two_steps_on_one_class_of_the_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert _train(monkeypatch, "score", "--dataset", "digits", "--labels", "0,1", "--steps", "2", "--device", "cpu", "--out", "d.safetensors") == 0
    card = read_card(tmp_path / "d.safetensors")
    assert card["training"]["steps"] == 2
    assert card["data"]["name"] == "digits train 0..799, classes 0, 1"
    assert card["training"]["command"].startswith("sepbench train score")
    assert load_prior(tmp_path / "d.safetensors").shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scor", "--dataset", "digits"), "did you mean score"),
        (("score", "--dataset", "digit"), "did you mean digits"),
        (("score", "--dataset", "digits", "--labels", "a"), "--labels"),
        (("score", "--dataset", "digits", "--labels", "77"), "no training images of classes 77"),
    ],
)
def test_wrong_requests_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _train(monkeypatch, *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
