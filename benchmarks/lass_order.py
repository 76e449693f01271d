"""Why blind methods stand in another order than in LASS Table 5: their SDR when the roles of their parts are fixed, instead of the best assignment.

    python benchmarks/lass_order.py [--examples 450] [--task best-assignment]

Each method separates the mixtures of ``drums-bass-synth`` once. Its two parts are then scored in three ways: under the best assignment, as the leaderboard
does; ``nussl's order``, the first part as drums and the second as bass (nussl gives repeating background or low rank or harmonic part first); and
``reversed``. Every way at two levels: ``sources`` (estimates sum to twice the mixture, which is the mean of both sources) and ``mixture`` (they sum to the
mixture, as nussl's do; LASS does not say whether it doubled them). ``ica-nussl`` is what nussl 1.1.9 makes of one channel: the mixture, with either sign;
the mean over both signs is given. Nothing is chosen by these figures. Rows go to ``benchmarks/results/lass_order.csv`` beside the published ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sepbench.metrics.assignment import best_assignment, matched
from sepbench.metrics.catalogue import pair_metric
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite

HERE = Path(__file__).parent
PUBLISHED = HERE.parent / "leaderboards" / "published.csv"
CSV = HERE / "results" / "lass_order.csv"
DRUMS, BASS = 0, 1
METHODS = ("repet", "ft2d", "repet-sim", "rpca", "hpss", "ica", "average")
IN_ROLES = frozenset({"hpss"})
"""Methods whose parts stand in the sources' slots here (percussive as drums); the others keep nussl's order."""
LEVELS = {"sources": 1.0, "mixture": 0.5}
NAMES = {"rPCA": "rpca", "ICA": "ica-nussl", "HPSS": "hpss", "REPET": "repet", "FT2D": "ft2d"}
"""LASS' names and ours."""


def separated(method: str, task: Any, examples: int) -> torch.Tensor:
    """``(B, 2, 1, T)``, the parts in nussl's order."""
    separator = create_separator(method, domain=task.spec.domain)
    ctx = RunContext(task.spec, "cpu", NoiseSource(0), 0)
    parts = [separator.separate(task.mixture_set().mixtures(ids, "cpu"), ctx) for ids in torch.arange(examples).split(10)]
    estimates = torch.cat(parts)
    return estimates.flip(1) if method in IN_ROLES else estimates


def scores(estimates: torch.Tensor, references: torch.Tensor, task: Any) -> dict[str, torch.Tensor]:
    """``(B, 2)`` dB of drums and bass for each way to say which estimate is which."""
    pairwise = pair_metric("sdr", task.spec).pairwise(estimates, references)
    return {
        "best assignment": matched(pairwise, best_assignment(pairwise)),
        "nussl's order": pairwise.diagonal(dim1=1, dim2=2),
        "reversed": pairwise.flip(1).diagonal(dim1=1, dim2=2),
    }


def rows_of(method: str, found: dict[str, torch.Tensor], level: str) -> list[dict[str, Any]]:
    return [
        {
            "method": method,
            "level": level,
            "roles": roles,
            "sdr_drums": round(float(values[:, DRUMS].mean()), 2),
            "sdr_bass": round(float(values[:, BASS].mean()), 2),
            "sdr": round(float(values.mean()), 2),
            "mixtures": len(values),
        }
        for roles, values in found.items()
    ]


def published() -> list[dict[str, Any]]:
    """Table 5's rows of the blind methods."""
    table = pd.read_csv(PUBLISHED)
    table = table[(table["source"] == "LASS") & (table["table"] == "Table 5") & table["method"].isin(list(NAMES))]
    wide = table.pivot_table(index="method", columns="direction", values="value")
    return [
        {
            "method": NAMES[str(name)],
            "level": "",
            "roles": "LASS Table 5",
            "sdr_drums": row["drums"],
            "sdr_bass": row["bass"],
            "sdr": row["avg"],
            "mixtures": int(table["n"].iloc[0]),
        }
        for name, row in wide.iterrows()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=450)
    parser.add_argument("--task", default="best-assignment")
    args = parser.parse_args()
    task = load_suite("drums-bass-synth").tasks[args.task]
    ids = torch.arange(args.examples)
    references, mixtures = task.mixture_set().sources(ids), task.mixture_set().mixtures(ids, "cpu").values
    rows = published()
    for method in METHODS:
        estimates = separated(method, task, args.examples)
        for level, gain in LEVELS.items():
            rows += rows_of(method, scores(gain * estimates, references, task), level)
    both_signs = [scores(sign * torch.stack([mixtures, mixtures], 1), references, task)["nussl's order"] for sign in (1.0, -1.0)]
    rows += rows_of("ica-nussl", {"nussl's order": torch.stack(both_signs).mean(0)}, "mixture")
    table = pd.DataFrame(rows).sort_values(["roles", "level", "sdr"], ascending=[True, True, False])
    table.to_csv(CSV, index=False, lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
