"""One resumable loop for everything that is trained step by step.

It writes checkpoints and a log, tells its progress, and loses nothing when it ends. A ``Training`` makes one step and
gives its state. The loop does the rest. In a method's ``fit``::

    training = MaskTraining(view.rows("sources"), ctx.seed, ctx.device)
    resume(training, ctx.cache, ctx.device)
    run(training, ctx.cache, progress=ctx.progress)

A process that was killed finds its last checkpoint, at most ``checkpoint_seconds`` old. It ends with the same bits as
a process that was not killed, if everything random in a step depends only on the seed and the step's number
(``baselines.training.config.generator``).
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
        step: how many steps are done. ``advance`` counts it up.
        seconds: time spent in steps so far, over all processes. The loop counts it up.
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
        """What the log says about the steps since the last row, as JSON values.

        The loop shows the entry ``loss``, and adds step and minutes.
        """
        ...

    def state(self) -> Mapping[str, Any]:
        """Everything that later steps depend on.

        ``torch.save`` must write it, and ``torch.load(weights_only=True)`` read it.
        """
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state`` returned. The loop sets step and seconds.

        If the state belongs to another training, any error is allowed. The user sees one line.
        """
        ...


def resume(training: Training, folder: Path | None, device: str | torch.device = "cpu") -> bool:
    """Continue from the folder's checkpoint, and return whether there is one. Tensors are read to ``device``.

    Raises:
        SepbenchError: the checkpoint cannot be read or belongs to another training.
    """
    if folder is None or not (folder / CHECKPOINT).exists():
        return False
    path = folder / CHECKPOINT
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises what its parser met: pickle, zip or end of file, some without text and some with a page of it
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
    """Write the whole state to ``path`` atomically."""
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
    """Make steps until the training is finished, and write its checkpoints and log.

    After SIGTERM or Ctrl-C the loop ends the current step, writes a checkpoint, and then lets the signal act as usual.
    A second signal acts at once.

    Args:
        training: what to train, from its present state.
        folder: for checkpoints and the log; None keeps nothing.
        checkpoint_seconds: time between checkpoints. A kill loses at most this much.
        log_every: steps per row of the log.
        progress: called with the fraction done and the last row as a line of text, every second and with every row.
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
        if training.finished:  # otherwise there was a signal, and its handler let the process live
            return


class _Clock:
    """Tells what is due, by the time of the last lap."""

    def __init__(self, checkpoint_seconds: float) -> None:
        self._checkpoint_seconds = checkpoint_seconds
        self._lap = self._saved = self._told = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
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
    """Signals that came since the block began.

    They act as usual after the block. The second signal of a kind acts at once.
    """
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def wait(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[signal.Signals(number)])

    if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):  # None: not set from Python, so Python could not put it back
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
    """Drop the rows after ``step``. Their steps were lost with the process, and the loop writes them again."""
    if path.exists():
        rows = [line for line in path.read_text(encoding="utf-8").splitlines() if 0 <= _step_of(line) <= step]
        text = "".join(row + "\n" for row in rows)
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _step_of(line: str) -> int:
    """Step of a row of the log; -1 if the line is cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError):
        return -1
