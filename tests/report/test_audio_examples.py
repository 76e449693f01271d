"""WAV files of a run's first mixtures: which there are, what they are called, and what they hold; of made-up signals, without any data."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sepbench.errors import SepbenchError
from sepbench.report import audio_examples
from sepbench.report.audio_examples import check_audio, write_examples

soundfile = pytest.importorskip("soundfile", reason="extra 'audio' is not installed")


def noise(key: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.Generator(np.random.Philox(key)).normal(size=shape)).float()


class Made:
    """A run of two tasks of two channels and eight samples; methods give the true sources in the wrong order, times a number of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, planned: int = 3) -> None:
        self.truth = 3.0 * noise(1, planned, 2, 2, 8)  # beyond full scale: nothing is clipped
        self.gains = {"nmf": 0.5, "ica": 0.25}
        self.metric = object()
        self.planned, self.read = planned, list[tuple[str, str, list[int]]]()
        monkeypatch.setattr(audio_examples, "assignment_of", self.assignment)

    def assignment(self, metric: Any, estimates: torch.Tensor, truths: torch.Tensor, spec: Any) -> torch.Tensor:
        assert metric is self.metric
        assert torch.equal(estimates.flip(1) / estimates.flip(1).flatten()[0], truths / truths.flatten()[0])
        return torch.tensor([[1, 0]]).expand(len(truths), 2)

    def tasks(self) -> list[Any]:
        def task(name: str, agnostic: bool) -> Any:
            spec = SimpleNamespace(name=name, sample_rate=8_000, class_agnostic=agnostic, source_classes=("drums", "bass"), n_sources=2)
            mixtures = SimpleNamespace(
                mixtures=lambda examples: SimpleNamespace(values=self.truth[list(examples)].sum(1)), sources=lambda examples: self.truth[list(examples)]
            )
            return SimpleNamespace(spec=spec, mixture_set=lambda: mixtures)

        return [task("by-role", False), task("any", True)]

    def n_planned(self, task: str) -> int:
        assert task in ("by-role", "any")
        return self.planned

    def methods(self, task: str) -> list[str]:
        return {"by-role": ["nmf", "ica"], "any": ["ica"]}[task]

    def estimates(self, task: Any, method: str, examples: Any) -> torch.Tensor:
        self.read.append((task.spec.name, method, list(examples)))
        return self.gains[method] * self.truth[list(examples)].flip(1)


@pytest.mark.parametrize(("count", "written"), [(1, 1), (2, 2), (3, 3), (7, 3), (0, 0)])
def test_the_first_mixtures_of_every_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, written: int) -> None:
    made: Any = Made(monkeypatch)
    if not count:
        made.assignment = None
        monkeypatch.setattr(audio_examples, "assignment_of", lambda *given: torch.zeros(0, 2, dtype=torch.long))
    places = write_examples(made, count, tmp_path / "audio")
    assert places == [tmp_path / "audio" / task / f"{example:04}" for task in ("by-role", "any") for example in range(written)]
    assert made.read == [(task, method, list(range(written))) for task, method in (("by-role", "nmf"), ("by-role", "ica"), ("any", "ica"))]


def test_what_the_files_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: Any = Made(monkeypatch)
    write_examples(made, 2, tmp_path)
    names = {"by-role": ("-0-drums", "-1-bass"), "any": ("-0", "-1")}
    for task, ends in names.items():
        for example in range(2):
            wanted = {"mixture": made.truth[example].sum(0)}
            for whose, gain in {"truth": 1.0, **{name: made.gains[name] for name in made.methods(task)}}.items():
                wanted |= {f"{whose}{end}": gain * made.truth[example, k] for k, end in enumerate(ends)}  # in the order of the references
            folder = tmp_path / task / f"{example:04}"
            assert {path.name for path in folder.iterdir()} == {f"{name}.wav" for name in wanted}
            for name, signal in wanted.items():
                values, rate = soundfile.read(folder / f"{name}.wav", dtype="float32")
                assert rate == 8_000
                np.testing.assert_array_equal(values.T, signal.numpy())
                assert soundfile.info(folder / f"{name}.wav").subtype == "FLOAT"
    assert float(np.abs(made.truth.numpy()).max()) > 1.0


def test_estimates_that_failed_are_written_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: Any = Made(monkeypatch)
    made.gains = {"nmf": math.nan, "ica": 1.0}
    monkeypatch.setattr(audio_examples, "assignment_of", lambda *given: torch.tensor([[1, 0]]))
    write_examples(made, 1, tmp_path)
    values, _ = soundfile.read(tmp_path / "by-role" / "0000" / "nmf-0-drums.wav", dtype="float32")
    assert np.isnan(values).all()


def test_sounds_may_be_written_again_over_the_old_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: Any = Made(monkeypatch)
    first = write_examples(made, 1, tmp_path)
    made.truth = -made.truth
    assert write_examples(made, 2, tmp_path)[0] == first[0]
    values, _ = soundfile.read(tmp_path / "any" / "0000" / "mixture.wav", dtype="float32")
    np.testing.assert_array_equal(values.T, made.truth[0].sum(0).numpy())


def refuse_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.write_text("a file")


def refuse_file(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def write(*given: Any, **named: Any) -> None:
        raise soundfile.LibsndfileError(1)

    monkeypatch.setattr(soundfile, "write", write)


@pytest.mark.parametrize("refuse", [refuse_folder, refuse_file])
def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refuse: Callable[[pytest.MonkeyPatch, Path], None]) -> None:
    made: Any = Made(monkeypatch)
    refuse(monkeypatch, tmp_path / "audio")
    with pytest.raises(SepbenchError) as caught:
        write_examples(made, 1, tmp_path / "audio")
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'audio' / 'by-role' / '0000'}: ")
    assert str(caught.value).endswith("; choose a writable folder with --out")


@pytest.mark.parametrize(("domain", "taken"), [("audio", True), ("image", False), ("vector", False)])
def test_what_can_be_listened_to(domain: str, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(audio_examples, "import_soundfile", lambda: asked.append(True))
    suite: Any = SimpleNamespace(name="s", domain=domain)
    if taken:
        check_audio(suite)
        assert asked == [True]  # a missing package is told before anything is computed
        return
    with pytest.raises(SepbenchError) as caught:
        check_audio(suite)
    assert str(caught.value) == f"--save-audio: suite s has {domain} signals; draw them with `sepbench panel RUN` instead"
