"""The contract of what ``sepbench train`` calls: trainers of priors, named by entry points of the group ``sepbench.trainers``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sepbench.protocols import SignalSet


class Trainer(Protocol):
    """Trains a prior for ``sepbench train``. An entry point of the group ``sepbench.trainers`` names it, and sepbench calls it with these arguments."""

    def __call__(
        self,
        signals: SignalSet,
        *,
        labels: tuple[int, ...],
        folder: Path,
        out: Path,
        steps: int | None,
        minutes: float | None,
        init: Path | None,
        seed: int,
        device: str,
        command: str,
        progress: Callable[[float, str], None],
    ) -> Path:
        """Train on a data set's training split, or go on where ``folder`` stands; returns the path of the weights.

        Args:
            signals: the split.
            labels: only signals of these classes; empty for all.
            folder: checkpoints and log.
            out: the weights to write; their card goes beside them.
            steps, minutes: length of the run; None for the recipe's.
            init: weights to start from.
            seed: of weights, order and noise.
            device: ``cpu`` or ``cuda``.
            command: the command line, for the card.
            progress: told the fraction done and one line of text.
        """
