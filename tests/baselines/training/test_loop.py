"""The loop that every training stands on: kills, signals, foreign checkpoints and the log, with a tiny network trained through ``ctx.cache``."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fit_until_done import LinearTraining, context, fit

from baselines.training import loop
from baselines.training.loop import CHECKPOINT, LOG, resume, run, save
from sepbench.errors import SepbenchError

SCRIPT = Path(__file__).parent.parent / "fit_until_done.py"
STEPS = 60


def _start(folder: Path, checkpoint_seconds: float, seconds_per_step: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT), str(folder), str(STEPS), str(checkpoint_seconds), str(seconds_per_step)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])})


def _wait_for(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while not happened() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)


def _step(folder: Path) -> int:
    return int(torch.load(folder / CHECKPOINT, weights_only=True)["step"])


def _assert_same(one: LinearTraining, other: LinearTraining) -> None:
    for (name, value), second in zip(one.network.state_dict().items(), other.network.state_dict().values(), strict=True):
        assert torch.equal(value, second), name


def _rows(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "minutes"} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[LinearTraining, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return fit(context(folder), STEPS), folder


@pytest.mark.slow
def test_a_fit_that_is_killed_again_and_again_ends_with_the_same_bits(whole: tuple[LinearTraining, Path], tmp_path: Path) -> None:
    dice, steps = random.Random(0), []
    for _ in range(3):
        before = steps[-1] if steps else 0
        process = _start(tmp_path, 0.0, 0.02)
        _wait_for(lambda before=before: (tmp_path / CHECKPOINT).exists() and _step(tmp_path) > before, process)  # type: ignore[misc]
        time.sleep(dice.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps.append(_step(tmp_path))
    assert steps == sorted(set(steps))  # each went on where the one before had come to
    _assert_same(fit(context(tmp_path), STEPS), whole[0])
    assert _rows(tmp_path) == _rows(whole[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_end_and_keeps_it(whole: tuple[LinearTraining, Path], tmp_path: Path, number: signal.Signals) -> None:
    process = _start(tmp_path, 3600.0, 0.1)  # no checkpoint by the clock
    _wait_for((tmp_path / LOG).exists, process)  # ten steps
    process.send_signal(number)
    process.wait()
    assert process.returncode == -number  # Python ends with SIGINT's own code after a KeyboardInterrupt that nobody catches
    assert 10 <= _step(tmp_path) < STEPS
    _assert_same(fit(context(tmp_path), STEPS), whole[0])
    assert _rows(tmp_path) == _rows(whole[1])


class _Signalled(LinearTraining):
    """Gets a signal in one of its steps."""

    def advance(self) -> None:
        super().advance()
        if self.step == 7:
            signal.raise_signal(signal.SIGTERM)


def test_whoever_handles_a_signal_and_goes_on_gets_the_whole_training(whole: tuple[LinearTraining, Path], tmp_path: Path) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(_step(tmp_path)))
    try:
        training = _Signalled(whole[0].rows, STEPS, seed=3)
        run(training, tmp_path, log_every=10)
        assert seen == [7]  # handled after the checkpoint was written
        assert signal.getsignal(signal.SIGTERM) is not before
    finally:
        signal.signal(signal.SIGTERM, before)
    _assert_same(training, whole[0])


def test_handlers_are_put_back_and_other_threads_train_without_them(whole: tuple[LinearTraining, Path]) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    found: list[LinearTraining] = []
    thread = threading.Thread(target=lambda: found.append(fit(context(None), STEPS)))
    thread.start()
    thread.join()
    found.append(fit(context(None), STEPS))  # without a folder nothing is kept, and nothing else changes
    for training in found:
        _assert_same(training, whole[0])
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_checkpoints_are_written_by_the_clock(whole: tuple[LinearTraining, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes by seven seconds from step to step: one in nine steps writes, the ninth being the first past a minute, and the end does."""
    now = iter(range(0, 10**6, 7))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(now)))
    saved: list[int] = []
    monkeypatch.setattr(loop, "save", lambda training, path: saved.append(training.step))
    training = LinearTraining(whole[0].rows, STEPS, seed=3)
    run(training, tmp_path)
    assert saved[-1] == STEPS
    gaps = [after - before for before, after in zip([0, *saved], saved, strict=False)]
    assert max(gaps) * 7 <= 60 + 7
    assert len(saved) <= STEPS * 7 / 60 + 1


def test_progress_is_told_between_rows_too(whole: tuple[LinearTraining, Path]) -> None:
    told: list[tuple[float, str]] = []
    training = LinearTraining(whole[0].rows, 8, seed=3, seconds_per_step=0.4)
    run(training, None, log_every=100, progress=lambda fraction, text: told.append((fraction, text)))
    assert len(told) >= 2
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert told[-1][0] == 1.0
    assert told[-1][1].startswith("step 8, 0.1 min, loss 0.")


@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "another's", "no dict"])
def test_what_is_no_checkpoint_of_this_training_is_one_line(whole: tuple[LinearTraining, Path], tmp_path: Path, damage: str) -> None:
    path = tmp_path / CHECKPOINT
    content = (whole[1] / CHECKPOINT).read_bytes()
    path.write_bytes({"empty": b"", "half": content[: len(content) // 2]}.get(damage, b"garbage"))
    if damage == "another's":
        torch.save({"step": 3, "seconds": 1.0, "network": {"0.weight": torch.zeros(2)}}, path)
    elif damage == "no dict":
        torch.save([1, 2], path)
    with pytest.raises(SepbenchError, match=r"checkpoint\.pt .*; delete it, or train in another folder$") as refused:
        fit(context(tmp_path), STEPS)
    assert "\n" not in str(refused.value)


def test_a_training_that_is_done_makes_no_step(whole: tuple[LinearTraining, Path], tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes((whole[1] / CHECKPOINT).read_bytes())
    again = LinearTraining(whole[0].rows, STEPS, seed=3)
    assert resume(again, tmp_path)
    again.advance = pytest.fail  # type: ignore[method-assign, assignment]
    run(again, tmp_path)
    assert (again.step, again.seconds) == (STEPS, whole[0].seconds)


def test_a_step_that_fails_leaves_the_last_whole_checkpoint(whole: tuple[LinearTraining, Path], tmp_path: Path) -> None:
    training = LinearTraining(whole[0].rows, STEPS, seed=3)
    run(LinearTraining(whole[0].rows, 5, seed=3), tmp_path)
    resume(training, tmp_path)
    with torch.no_grad():
        training.network[0].weight.fill_(torch.nan)

    def diverge() -> None:
        raise SepbenchError("training diverged")

    training.advance = diverge  # type: ignore[method-assign]
    with pytest.raises(SepbenchError, match="diverged"):
        run(training, tmp_path)
    assert _step(tmp_path) == 5
    _assert_same(fit(context(tmp_path), STEPS), whole[0])


def test_saving_keeps_step_and_seconds(whole: tuple[LinearTraining, Path], tmp_path: Path) -> None:
    training = LinearTraining(whole[0].rows, STEPS, seed=3)
    training.step, training.seconds = 4, 2.5
    save(training, tmp_path / CHECKPOINT)
    again = LinearTraining(whole[0].rows, STEPS, seed=3)
    assert not resume(again, tmp_path / "nowhere")
    assert resume(again, tmp_path)
    assert (again.step, again.seconds) == (4, 2.5)
