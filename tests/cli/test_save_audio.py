"""``sepbench run --save-audio``: what was scored is what can be listened to, and one line for every mistake."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sepbench.cli.main import main
from sepbench.report.panels.opened_run import OpenedRun


def sepbench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sepbench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_pictures_cannot_be_listened_to(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ("run", "--suite", "digits-pairs", "--limit", "2", "--methods", "average", "--save-audio", "1", "--out", str(tmp_path / "run"))
    assert sepbench(monkeypatch, *command) == 2
    assert capsys.readouterr().err == "error: --save-audio: suite digits-pairs has image signals; draw them with `sepbench panel RUN` instead\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not (Path(os.environ.get("SEPBENCH_DATA", "/nowhere")) / "fsdd").is_dir(), reason="SEPBENCH_DATA has no fsdd")
def test_wav_files_hold_the_mixture_the_estimates_and_the_truth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="extra 'audio' is not installed")
    folder = tmp_path / "run"
    command = ("run", "--suite", "fsdd-noise", "--tasks", "pink", "--limit", "3", "--methods", "average,ideal-ratio-mask", "--out", str(folder))
    assert sepbench(monkeypatch, *command, "--no-keep-estimates", "--save-audio", "2") == 2
    assert "leave one of them out" in capsys.readouterr().err
    assert sepbench(monkeypatch, *command, "--save-audio", "2") == 0
    assert "audio: 2 mixtures in" in capsys.readouterr().out
    assert sorted(path.name for path in (folder / "audio" / "pink").iterdir()) == ["0000", "0001"]
    written = {path.stem: soundfile.read(path, dtype="float32") for path in (folder / "audio" / "pink" / "0001").iterdir()}
    methods = ("truth", "average", "ideal-ratio-mask")
    assert set(written) == {"mixture", *(f"{whose}-{slot}" for whose in methods for slot in ("0-speech", "1-pink"))}
    assert {rate for _, rate in written.values()} == {8_000}
    run = OpenedRun.open(folder)
    (task,) = run.tasks()
    estimates = run.estimates(task, "ideal-ratio-mask", [1])
    np.testing.assert_array_equal(written["ideal-ratio-mask-1-pink"][0], estimates[0, 1, 0].numpy())
    np.testing.assert_array_equal(written["mixture"][0], task.mixture_set().mixtures([1]).values[0, 0].numpy())
    truth = task.mixture_set().sources([1])[0, :, 0].numpy()
    np.testing.assert_array_equal(written["truth-0-speech"][0], truth[0])
    errors = {name: float(np.square(written[f"{name}-0-speech"][0] - truth[0]).sum()) for name in ("average", "ideal-ratio-mask")}
    assert errors["ideal-ratio-mask"] < errors["average"] / 2
