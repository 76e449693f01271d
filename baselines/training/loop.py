"""One resumable loop for everything that is trained step by step: checkpoints, a log, progress, and an end that loses nothing.

What is trained says how to make one step and how to write itself down (``Training``); the loop does the rest. In a method's ``fit``::

    training = MaskTraining(view.rows("sources"), ctx.seed, ctx.device)
    resume(training, ctx.cache, ctx.device)
    run(training, ctx.cache, progress=ctx.progress)

A process that is killed at any moment finds its last checkpoint, at most ``checkpoint_seconds`` old, and ends with the bits of one that was left
alone, as long as everything random in a step depends on the seed and the step's number alone (``baselines.training.config.generator``).
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from sepbench.errors import SepbenchError
from sepbench.files import write_atomically

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
CHECKPOINT_SECONDS = 60.0
PROGRESS_SECONDS = 1.0
Progress = Callable[[float, str], None]


class Training(Protocol):
    """What the loop drives.

    Attributes:
        step: steps made so far; counted up by ``advance``.
        seconds: time spent in steps so far, over all processes; counted up by the loop.
    """

    step: int
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        ...

    @property
    def fraction(self) -> float:
        """Share of the work that is done, in [0, 1]."""
        ...

    def advance(self) -> None:
        """Make one step."""
        ...

    def row(self) -> Mapping[str, Any]:
        """What the log says of the steps since the last row, as JSON takes it; the entry ``loss`` is shown. Step and minutes are added."""
        ...

    def state(self) -> Mapping[str, Any]:
        """Everything that the steps to come depend on, as ``torch.save`` writes and ``torch.load(weights_only=True)`` reads it."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` returned; step and seconds are set besides. Whatever it raises of a state that is none of its own is told in one line."""
        ...


def resume(training: Training, folder: Path | None, device: str | torch.device = "cpu") -> bool:
    """Go on where the folder's checkpoint stands; returns whether there is one. Tensors are read to ``device``.

    Raises:
        SepbenchError: the checkpoint cannot be read or is none of this training's.
    """
    if folder is None or not (folder / CHECKPOINT).exists():
        return False
    path = folder / CHECKPOINT
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises what its parser met: pickle, zip or end of file, some without a word and some with a page
        raise SepbenchError(f"{path} cannot be read as a checkpoint ({type(error).__name__}); delete it, or train in another folder") from error
    if not isinstance(state, dict) or not {"step", "seconds"} <= set(state):
        raise SepbenchError(f"{path} is no checkpoint of this trainer; delete it, or train in another folder")
    try:
        training.restore(state)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise SepbenchError(f"{path} does not fit what is trained here ({type(error).__name__}); delete it, or train in another folder") from error
    training.step, training.seconds = state["step"], state["seconds"]
    return True


def save(training: Training, path: Path) -> None:
    """Write the whole state atomically."""
    state = {**training.state(), "step": training.step, "seconds": training.seconds}
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def run(
    training: Training,
    folder: Path | None,
    *,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    log_every: int = 100,
    progress: Progress = lambda fraction, text: None,
) -> None:
    """Make steps until the training is finished, and keep what it comes to.

    SIGTERM and Ctrl-C let the step under way end, write a checkpoint, and then end the process as they always do; a second one does so at once.

    Args:
        training: what to train, from where it stands.
        folder: for checkpoints and the log; None keeps nothing.
        checkpoint_seconds: time between checkpoints, the most that a kill can lose.
        log_every: steps per row of the log.
        progress: told the fraction done and the last row as a line of text, every second and with every row.
    """
    if folder is not None:
        _drop_log_after(folder / LOG, training.step)
    clock = _Clock(checkpoint_seconds)
    text = f"step {training.step}"
    while True:
        with _signals_wait() as waiting:
            while not training.finished and not waiting:
                training.advance()
                training.seconds += clock.lap()
                if training.step % log_every == 0 or training.finished:
                    row = {"step": training.step, "minutes": round(training.seconds / 60, 3), **training.row()}
                    text = _line(row)
                    if folder is not None:
                        _append(folder / LOG, row)
                    progress(training.fraction, text)
                elif clock.progress_is_due():
                    progress(training.fraction, text)
                if folder is not None and clock.checkpoint_is_due():
                    save(training, folder / CHECKPOINT)
                    clock.saved()
            if folder is not None:
                save(training, folder / CHECKPOINT)
        if training.finished:  # else there was a signal, and whoever handles it let the process live
            return


class _Clock:
    """What is due when, by the time of the last lap."""

    def __init__(self, checkpoint_seconds: float) -> None:
        self._checkpoint_seconds = checkpoint_seconds
        self._lap = self._saved = self._told = time.monotonic()

    def lap(self) -> float:
        """Seconds since the lap before."""
        before, self._lap = self._lap, time.monotonic()
        return self._lap - before

    def checkpoint_is_due(self) -> bool:
        return self._lap - self._saved >= self._checkpoint_seconds

    def saved(self) -> None:
        self._saved = time.monotonic()

    def progress_is_due(self) -> bool:
        due = self._lap - self._told >= PROGRESS_SECONDS
        if due:
            self._told = self._lap
        return due


@contextlib.contextmanager
def _signals_wait() -> Iterator[list[int]]:
    """Signals that came since the block began. They do what they always did when it has ended; the second of a kind does so at once."""
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def wait(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[signal.Signals(number)])

    if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):  # None: not set from Python, so that it could not be put back
                before[number] = handler
                signal.signal(number, wait)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for received in came:
            signal.raise_signal(received)


def _line(row: Mapping[str, Any]) -> str:
    """``step 300, 1.2 min, loss 0.3``: the row as a line of text."""
    return f"step {row['step']}, {row['minutes']:.1f} min" + (f", loss {row['loss']}" if "loss" in row else "")


def _append(path: Path, row: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(row) + "\n")


def _drop_log_after(path: Path, step: int) -> None:
    """Rows of steps that were lost with the process will be written again."""
    if path.exists():
        rows = [line for line in path.read_text(encoding="utf-8").splitlines() if 0 <= _step_of(line) <= step]
        text = "".join(row + "\n" for row in rows)
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _step_of(line: str) -> int:
    """Step of a row of the log; -1 of a line that the machine's end cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError):
        return -1
