"""Fill the column ``evaluations_per_mixture`` of committed rows that were made before sepbench counted evaluations.

    SEPBENCH_DATA=... python scripts/count_evaluations.py [--network] mnist-pairs [...]

Only rows of methods that evaluate the prior equally often for every mixture, whatever the prior says, the device and the precision (``FIXED``). Each is run
on the first mixture of its task with the settings of its ``command``; the count of that mixture is the row's. The network is left out (its output is zeros)
unless ``--network`` is given, since the count does not depend on it and 10,000 evaluations take minutes. A row whose method has another version today, or
whose weights are others, is left empty. All other values of the file stay the same text.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch

import sepbench
from baselines.priors.score_prior import EDMPrior
from sepbench.results.leaderboard_file import read_leaderboard, write_leaderboard

FOLDER = Path(__file__).resolve().parent.parent / "leaderboards"
FIXED = ("basis", "projected-4x", "projected-8x", "projected-16x", "ula")
"""Beginnings of names. ``projected-auto`` and ``lass`` draw until they have seen enough, or count otherwise."""


def settings_of(command: str, method: str) -> dict[str, str]:
    """The settings of one method in the command that made a row."""
    words = shlex.split(command)
    given = (words[at + 1] for at, word in enumerate(words) if word == "--set")
    return dict(one.removeprefix(f"{method}.").split("=", 1) for one in given if one.startswith(f"{method}."))


def uncounted(board: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    """The cells without a count: task, method and one of its rows."""
    chosen = board[board["method"].str.startswith(FIXED) & (board["prior"] != "") & board["evaluations_per_mixture"].isna()]
    for (task, method), rows in chosen.groupby(["task", "method"], sort=False):
        yield str(task), str(method), rows.iloc[0]


def count(suite: str, task: str, method: str, row: pd.Series) -> float | None:
    """Evaluations of the prior per source for one mixture; None where today's method or weights are not the row's."""
    with tempfile.TemporaryDirectory() as folder:
        given = {method: settings_of(row["command"], method)}
        run = sepbench.run(suite, methods=method, tasks=task, limit=1, settings=given, device="cpu", out=Path(folder) / "run", budget=row["budget"])
        made = run.summary.iloc[0]
        same = made["method_version"] == row["method_version"] and made["weights_sha256"] == row["weights_sha256"]
        return float(made["evaluations_per_mixture"]) if same else None


def _zeros(prior: EDMPrior, which: str, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """In the place of a network."""
    return torch.zeros_like(x)


def main() -> int:
    names = [name for name in sys.argv[1:] if name != "--network"]
    if len(names) < len(sys.argv) - 1:
        fill(names)
    else:
        with patch.object(EDMPrior, "_evaluate", _zeros):
            fill(names)
    return 0


def fill(names: list[str]) -> None:
    """Fill the boards of suites."""
    for name in names:
        path = FOLDER / f"{name}.csv"
        board = read_leaderboard(path)
        for task, method, row in list(uncounted(board)):
            found = count(name, task, method, row)
            print(name, task, method, "other version or weights" if found is None else found, flush=True)
            if found is not None:
                board.loc[(board["task"] == task) & (board["method"] == method), "evaluations_per_mixture"] = found
                write_leaderboard(board, path)


if __name__ == "__main__":
    sys.exit(main())
