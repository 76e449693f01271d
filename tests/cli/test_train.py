"""``sepbench train``: from a data set's name to weights that a method can use; wrong requests are one line."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.networks.unet import UNetConfig
from baselines.priors.score_prior import EDMPrior
from baselines.priors.weights_io import load_prior, read_card, save_prior
from baselines.training import score as train_score
from baselines.training.loop import CHECKPOINT
from baselines.training.score import build_model
from sepbench.cli import train
from sepbench.cli.main import main
from sepbench.errors import SepbenchError


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


# ---- with a trainer that trains nothing ------------------------------------------------------------------------------------------------


class Bars:
    """Stands for the progress bars; what they were made with and told."""

    def __init__(self, told: list[Any], *columns: object, console: Any) -> None:
        self.told = told
        told.append(("on stderr", console.stderr, len(columns)))

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *failure: object) -> None:
        self.told.append("end")

    def add_task(self, text: str, total: float) -> str:
        self.told.append((text, total))
        return "the bar"

    def update(self, task: str, *, completed: float, description: str) -> None:
        self.told.append((task, completed, description))


@pytest.fixture
def given() -> dict[str, Any]:
    """What the trainer was given by name."""
    return {}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, Any]) -> list[Any]:
    """What bars, trainer, and fetching were told; the trainer writes a folder where ``--out`` has no ending."""
    heard: list[Any] = []

    def run(signals: Any, **options: Any) -> Path:
        options["progress"](0.25, "step 1")
        heard.append((signals, options["out"], options["folder"], options["command"]))
        given.update(options)
        if not options["out"].suffix:
            options["out"].mkdir()
        return Path(options["out"])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rich.progress.Progress", lambda *columns, console: Bars(heard, *columns, console=console))
    monkeypatch.setattr("sepbench.registry.trainer", lambda kind: run)
    monkeypatch.setattr("sepbench.data.datasets.open_dataset", lambda name, split: f"{split} of {name}")
    monkeypatch.setattr("sepbench.data.datasets.manifest_of", lambda name: "" if name.startswith("folder:") else f"manifest of {name}")
    monkeypatch.setattr("sepbench.data.files.manifests.load_manifest", lambda name: f"<{name}>")
    monkeypatch.setattr("sepbench.report.fetching.fetch_with_progress", lambda manifest: heard.append(manifest))
    return heard


@pytest.mark.parametrize(
    ("words", "fetched", "stem"),
    [
        (("--dataset", "a"), ["<manifest of a>"], "a-score"),
        (("--dataset", "folder:x/y"), [], "folder-x-y-score"),
        (("--dataset", "a", "--labels", "0,1"), ["<manifest of a>"], "a-score-01"),
        (("--dataset", "a", "--labels", " 1, 0,"), ["<manifest of a>"], "a-score-10"),
    ],
)
def test_data_are_fetched_bars_are_no_output_and_files_are_named_after_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: list[Any], words: tuple[str, ...], fetched: list[str], stem: str
) -> None:
    assert _train(monkeypatch, "score", "--device", "cpu", *words) == 0
    command = f"sepbench train score --device cpu {shlex.join(words)}"
    trained = (f"train of {words[1]}", Path(f"{stem}.safetensors"), Path(f"runs/train-{stem}"), command)
    assert told == [*fetched, ("on stderr", True, 5), ("", 1.0), ("the bar", 0.25, "step 1"), trained, "end"]
    use = f"It is used by: sepbench run ... --set METHOD.weights={stem}.safetensors"
    assert capsys.readouterr() == (f"{stem}.safetensors and its card {stem}.json written. {use}\n", "")


DEFAULTS: dict[str, Any] = {"labels": (), "steps": None, "minutes": None, "init": None, "seed": 0, "device": "resolved auto"}


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ((), "seed", 0),
        (("--labels", "4,2"), "labels", (4, 2)),
        (("--steps", "7"), "steps", 7),
        (("--minutes", "0.5"), "minutes", 0.5),
        (("--init", "w.safetensors"), "init", Path("w.safetensors")),
        (("--seed", "3"), "seed", 3),
        (("--device", "cuda:1"), "device", "resolved cuda:1"),
    ],
)
def test_an_option_reaches_the_trainer_under_its_name(
    monkeypatch: pytest.MonkeyPatch, told: list[Any], given: dict[str, Any], words: tuple[str, ...], name: str, value: Any
) -> None:
    monkeypatch.setattr("sepbench.run.plan.resolve_device", lambda wanted: f"resolved {wanted}")
    assert _train(monkeypatch, "score", "--dataset", "a", "--out", "o.safetensors", "--folder", "f", *words) == 0
    assert {key: given[key] for key in DEFAULTS} == DEFAULTS | {name: value}
    assert (given["out"], given["folder"]) == (Path("o.safetensors"), Path("f"))


def test_weights_that_are_a_folder_have_no_card_beside_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: list[Any]) -> None:
    assert _train(monkeypatch, "vqvae", "--device", "cpu", "--dataset", "a", "--out", "w") == 0
    assert capsys.readouterr().out == "w written. It is used by: sepbench train tokens --init w ...\n"


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_no_time_to_train_is_told_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: list[Any], minutes: str
) -> None:
    assert _train(monkeypatch, "score", "--dataset", "a", "--minutes", minutes) == 2
    assert capsys.readouterr().err == f"error: --minutes {minutes} is no time to train; give a number above 0, or leave it out for the whole recipe\n"
    assert told == []


@pytest.mark.parametrize(("text", "labels"), [("", ()), ("3", (3,)), (" 1, 0,, ,2 ", (1, 0, 2)), ("-1", (-1,))])
def test_labels_are_read_in_their_order(text: str, labels: tuple[int, ...]) -> None:
    assert train._labels(text) == labels


@pytest.mark.parametrize("text", ["a", "1.5", "1;2", "0-4"])
def test_labels_that_are_no_numbers_are_one_line(text: str) -> None:
    with pytest.raises(SepbenchError) as refused:
        train._labels(text)
    assert str(refused.value) == f"--labels {text!r} is no list of numbers; write it as 0,1,2,3,4"
