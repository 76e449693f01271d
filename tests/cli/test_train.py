"""``sepbench train``: from a data set's name to weights that a method can use; wrong requests are one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.networks.unet import UNetConfig
from baselines.priors.score_prior import EDMPrior
from baselines.priors.weights_io import load_prior, read_card, save_prior
from baselines.training import score as train_score
from baselines.training.loop import CHECKPOINT
from baselines.training.score import build_model
from sepbench.cli.main import main


def _train(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sepbench", "train", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def _assert_one_line(capsys: pytest.CaptureFixture[str], message: str) -> None:
    """One line of error; the progress bar, which was empty, may stand above it."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert message in err[err.index("error: ") :].removesuffix("\n")
    assert err.count("error: ") == 1
    assert "\n" not in err[err.index("error: ") :].removesuffix("\n")


def test_two_steps_on_one_class_of_the_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert _train(monkeypatch, "score", "--dataset", "digits", "--labels", "0,1", "--steps", "2", "--device", "cpu", "--out", "d.safetensors") == 0
    card = read_card(tmp_path / "d.safetensors")
    assert card["training"]["steps"] == 2
    assert card["data"]["name"] == "digits train 0..799, classes 0, 1"
    assert card["training"]["command"].startswith("sepbench train score")
    assert load_prior(tmp_path / "d.safetensors").shape == (1, 8, 8)


def test_a_finished_run_is_not_handed_out_under_another_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_score, "_sample_check", lambda prior, trainer, path: {})  # most of the time of an export, and not asked about here
    command = ("score", "--dataset", "digits", "--steps", "2", "--device", "cpu", "--folder", "run", "--out")
    assert _train(monkeypatch, *command, "a.safetensors") == 0
    assert _train(monkeypatch, *command, "b.safetensors", "--minutes", "60") == 2
    _assert_one_line(capsys, "run holds a finished run of 2 steps (minutes not given then, 60.0 now); give another --folder, or delete it to train anew")
    assert _train(monkeypatch, *command, "b.safetensors", "--labels", "0,1") == 2
    _assert_one_line(capsys, "trained on other images")
    assert _train(monkeypatch, *command, "b.safetensors", "--init", "a.safetensors") == 2
    _assert_one_line(capsys, "started from other weights")
    assert not (tmp_path / "b.safetensors").exists()
    assert _train(monkeypatch, *command, "b.safetensors") == 0  # as after a kill between the last step and the export
    first, second = (read_card(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["training"]["asked"] == second["training"]["asked"] == {"steps": 2, "minutes": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scor", "--dataset", "digits"), "did you mean score"),
        (("score", "--dataset", "digit"), "did you mean digits"),
        (("score", "--dataset", "digits", "--labels", "a"), "--labels"),
        (("score", "--dataset", "digits", "--labels", "77"), "no training images of classes 77"),
        (("score", "--dataset", "digits", "--steps", "1", "--minutes", "0"), "--minutes 0 is no time to train"),
        (("score", "--dataset", "digits", "--steps", "1", "--minutes", "-3"), "--minutes -3 is no time to train"),
        (("score", "--dataset", "digits", "--steps", "1", "--minutes", "nan"), "--minutes nan is no time to train"),
        (("score", "--dataset", "digits", "--steps", "1", "--out", "file/a.safetensors"), "cannot write file/a.safetensors: file is no folder"),
        (("score", "--dataset", "digits", "--steps", "1", "--out", "file/b/a.safetensors"), "cannot write file/b/a.safetensors"),
        (("score", "--dataset", "digits", "--steps", "1", "--out", "."), "choose another place with --out"),
        (("score", "--dataset", "digits", "--steps", "1", "--out", "a.json"), "name the weights NAME.safetensors"),
        (("score", "--dataset", "digits", "--steps", "1", "--folder", "file"), "choose another place with --folder"),
        (("score", "--dataset", "npy:few", "--steps", "1"), "has 10 training images, of which 200 would be held out"),
    ],
)
def test_wrong_requests_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "few").mkdir()
    np.save(tmp_path / "few" / "train.npy", np.zeros((10, 8, 8), np.uint8))
    assert _train(monkeypatch, *arguments) == 2
    _assert_one_line(capsys, message)
    assert list(tmp_path.rglob(CHECKPOINT)) == []


def test_weights_of_other_images_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    layout = UNetConfig(channels=3, widths=(8, 16, 16), blocks=(1, 1, 1), heads=2, embedding=16)
    save_prior(tmp_path / "small.safetensors", EDMPrior(build_model(layout, torch.rand(4, 3, 8, 8), 0), (3, 8, 8), (0.005, 2.0)))
    assert _train(monkeypatch, "score", "--dataset", "digits", "--steps", "1", "--init", "small.safetensors") == 2
    _assert_one_line(capsys, "is a prior of images with 3 channels, these have 1; start from another")


def test_a_garbage_checkpoint_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"garbage")
    assert _train(monkeypatch, "score", "--dataset", "digits", "--steps", "1", "--folder", ".") == 2
    _assert_one_line(capsys, "checkpoint.pt cannot be read as a checkpoint (UnpicklingError); delete it, or train in another folder")
