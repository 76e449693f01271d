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


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("error", [KeyError("a"), IndexError("a"), TypeError("a"), ValueError("a"), RuntimeError("a\nb")], ids=lambda e: type(e).__name__)
def test_what_a_state_that_does_not_fit_raises_is_one_line(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / CHECKPOINT
    torch.save({"step": 3, "seconds": 1.0}, path)
    training = LinearTraining(torch.zeros(8, 6), STEPS, seed=3)

    def restore(state: object) -> None:
        raise error

    training.restore = restore  # type: ignore[method-assign, assignment]
    with pytest.raises(SepbenchError) as refused:
        resume(training, tmp_path)
    assert str(refused.value) == f"{path} does not fit what is trained here ({type(error).__name__}); delete it, or train in another folder"
    assert (training.step, training.seconds) == (0, 0.0)


def test_what_a_training_refuses_itself_and_faults_of_the_program_go_through(tmp_path: Path) -> None:
    torch.save({"step": 3, "seconds": 1.0}, tmp_path / CHECKPOINT)
    training = LinearTraining(torch.zeros(8, 6), STEPS, seed=3)
    for error in (SepbenchError("of another run"), ZeroDivisionError("a")):

        def restore(state: object, error: Exception = error) -> None:
            raise error

        training.restore = restore  # type: ignore[method-assign, assignment]
        with pytest.raises(type(error), match=str(error)):
            resume(training, tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"seconds": 1.0}, "is no checkpoint of this trainer"),
        ({"step": 1}, "is no checkpoint of this trainer"),
        ([1, 2], "is no checkpoint of this trainer"),
        (None, "cannot be read as a checkpoint (EOFError)"),
    ],
    ids=["no step", "no seconds", "list", "empty"],
)
def test_words_for_what_is_no_checkpoint(tmp_path: Path, content: object, says: str) -> None:
    path = tmp_path / CHECKPOINT
    path.touch()
    if content is not None:
        torch.save(content, path)
    with pytest.raises(SepbenchError) as refused:
        resume(LinearTraining(torch.zeros(8, 6), STEPS, seed=3), tmp_path)
    assert str(refused.value) == f"{path} {says}; delete it, or train in another folder"


def test_nothing_is_resumed_where_nothing_is(tmp_path: Path) -> None:
    training = LinearTraining(torch.zeros(8, 6), STEPS, seed=3)
    training.step = 2
    assert not resume(training, None)
    assert not resume(training, tmp_path)
    assert training.step == 2


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    run(LinearTraining(torch.zeros(8, 6), 2, seed=3), tmp_path / "a" / "b")
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [CHECKPOINT, LOG]


@pytest.mark.parametrize(
    ("line", "step"),
    [('{"step": 7, "loss": 1}', 7), ('{"step": 7', -1), ("", -1), ("[7]", -1), ('{"loss": 1}', -1), ('{"step": null}', -1), ('{"step": "x"}', -1), ("3", -1)],
)
def test_the_step_of_a_line_of_the_log(line: str, step: int) -> None:
    assert loop._step_of(line) == step


def test_rows_up_to_the_step_stay(tmp_path: Path) -> None:
    path = tmp_path / LOG
    loop._drop_log_after(path, 3)
    assert not path.exists()
    rows = [json.dumps({"step": step}) for step in (0, 2, 3, 4, -1)]
    path.write_text("\n".join([*rows, "{"]))
    loop._drop_log_after(path, 3)
    assert path.read_text() == "".join(row + "\n" for row in rows[:3])


def test_a_row_as_a_line_of_text() -> None:
    assert loop._line({"step": 300, "minutes": 1.25, "loss": 0.3, "more": 1}) == "step 300, 1.2 min, loss 0.3"
    assert loop._line({"step": 0, "minutes": 61.06, "loss_of_b": 1}) == "step 0, 61.1 min"


def test_what_is_due_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint at its time to the second, counted from when the last one was written; progress once a second."""
    now = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    clock = loop._Clock(5.0)
    told, written = [], 0.0
    for passed in (0.5, 0.5, 0.25, 3.5, 0.25, 4.75):
        now[0] += passed
        assert clock.lap() == passed + written
        told.append((clock.progress_is_due(), clock.checkpoint_is_due()))
        if told[-1][1]:
            now[0] += 0.25
            written = 0.25
            clock.saved()
    assert told == [(False, False), (True, False), (False, False), (True, False), (False, True), (True, False)]
    now[0] += 0.25
    clock.lap()
    assert clock.checkpoint_is_due()


def test_a_signal_that_is_ignored_stays_ignored_and_a_second_one_acts_at_once() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), list[str]()
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with loop._signals_wait() as waiting:
            signal.raise_signal(signal.SIGTERM)
        assert waiting == []
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        signal.signal(signal.SIGTERM, lambda number, frame: seen.append("handled"))
        with loop._signals_wait() as waiting:
            signal.raise_signal(signal.SIGTERM)
            seen.append("waits")
            signal.raise_signal(signal.SIGTERM)
            seen.append("ends")
        assert seen == ["waits", "handled", "ends", "handled"]
        assert waiting == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_progress_between_rows_repeats_the_last_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is one, it tells the step at which the process began."""
    now = iter(range(10**6))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(now)))
    training = LinearTraining(torch.zeros(8, 6), 6, seed=3)
    training.step = 1
    told: list[tuple[float, str]] = []
    run(training, None, log_every=3, progress=lambda fraction, text: told.append((fraction, text.partition(",")[0])))
    assert told == [(2 / 6, "step 1"), (3 / 6, "step 3"), (4 / 6, "step 3"), (5 / 6, "step 3"), (1.0, "step 6")]
    assert training.seconds == 5.0


class _Touch:
    """What a file may hold that does something when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_checkpoints_are_read_to_the_device_and_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"step": 3, "seconds": _Touch(tmp_path / "made")}, tmp_path / CHECKPOINT)
    with pytest.raises(SepbenchError, match=r"cannot be read as a checkpoint \(UnpicklingError\)"):
        resume(LinearTraining(torch.zeros(8, 6), STEPS, seed=3), tmp_path)
    assert not (tmp_path / "made").exists()
    places: list[object] = []
    monkeypatch.setattr(loop.torch, "load", lambda path, map_location, weights_only: places.append(map_location) or {"step": 3, "seconds": 2.0})
    training = LinearTraining(torch.zeros(8, 6), STEPS, seed=3)
    training.restore = lambda state: None  # type: ignore[method-assign, assignment]
    for device in ("cuda:1", torch.device("cpu")):
        assert resume(training, tmp_path, device)
    assert resume(training, tmp_path)
    assert places == ["cuda:1", torch.device("cpu"), "cpu"]
    assert (training.step, training.seconds) == (3, 2.0)


def test_a_handler_that_python_did_not_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python could not put it back."""
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: pytest.fail("set"))
    with loop._signals_wait() as waiting:
        assert waiting == []
