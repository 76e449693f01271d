"""Blind methods' SDR under every way to say which of their two parts is which, and how far each way lies from LASS Table 5.

    python benchmarks/lass_order.py [--suite drums-bass-synth] [--examples 450] [--task best-assignment]
    python benchmarks/lass_order.py --distances

Each method separates the suite's mixtures once. Its two parts are then scored in three ways: under the best assignment, as the leaderboard
does; ``nussl's order``, the first part as drums and the second as bass (nussl gives repeating background or low rank or harmonic part first); and
``reversed``. Every way at two levels: ``sources`` (estimates sum to twice the mixture, which is the mean of both sources) and ``mixture`` (they sum to the
mixture, as nussl's do; LASS does not say whether it doubled them). ``ica-nussl`` is what nussl 1.1.9 makes of one channel: the mixture, with either sign;
the mean over both signs is given. Nothing is chosen by these figures. Rows go to ``benchmarks/results/lass_order[_SUITE].csv`` beside the published ones.

``--distances`` separates nothing: from these files it works out the RMS difference to LASS over methods and both classes
(``benchmarks/results/lass_order_distances.csv``). The songs are not LASS', so a small distance is no evidence of how LASS scored.
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
RESULTS = HERE / "results"
FILES = {"drums-bass-synth": RESULTS / "lass_order.csv", "stems-drums-bass": RESULTS / "lass_order_stems-drums-bass.csv"}
DISTANCES = RESULTS / "lass_order_distances.csv"
DRUMS, BASS = 0, 1
METHODS = ("repet", "ft2d", "repet-sim", "rpca", "hpss", "ica", "average")
IN_ROLES = frozenset({"hpss"})
"""Methods whose parts stand in the sources' slots here (percussive as drums); the others keep nussl's order."""
LEVELS = {"sources": 1.0, "mixture": 0.5}
NAMES = {"rPCA": "rpca", "ICA": "ica-nussl", "HPSS": "hpss", "REPET": "repet", "FT2D": "ft2d"}
"""LASS' names and ours."""
GROUPS = (("repet", "ft2d", "rpca"), ("hpss",), ("repet", "ft2d", "rpca", "hpss"))
"""Methods over which a distance is taken; ICA of nussl has one part, so no order."""


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


def distances() -> pd.DataFrame:
    """RMS difference to LASS in dB, per suite, level, way and group of methods, over methods and both classes."""
    rows = []
    for suite, path in FILES.items():
        table = pd.read_csv(path).set_index("method")[["level", "roles", "sdr_drums", "sdr_bass"]]
        printed = table[table["roles"] == "LASS Table 5"][["sdr_drums", "sdr_bass"]]
        ours = table[table["roles"] != "LASS Table 5"]
        for (level, roles), found in ours.groupby(["level", "roles"]):
            for group in GROUPS:
                gaps = (found.loc[list(group), ["sdr_drums", "sdr_bass"]] - printed.loc[list(group)]).to_numpy()
                rms = round(float((gaps**2).mean() ** 0.5), 2)
                rows.append({"suite": suite, "level": level, "roles": roles, "methods": " ".join(group), "rms_to_lass_db": rms})
    return pd.DataFrame(rows)


def measured(suite: str, task_name: str, examples: int | None) -> pd.DataFrame:
    """All methods in all ways on a suite, beside the published rows."""
    task = load_suite(suite).tasks[task_name]
    count = task.n_examples if examples is None else examples
    ids = torch.arange(count)
    references, mixtures = task.mixture_set().sources(ids), task.mixture_set().mixtures(ids, "cpu").values
    rows = published()
    for method in METHODS:
        estimates = separated(method, task, count)
        for level, gain in LEVELS.items():
            rows += rows_of(method, scores(gain * estimates, references, task), level)
    both_signs = [scores(sign * torch.stack([mixtures, mixtures], 1), references, task)["nussl's order"] for sign in (1.0, -1.0)]
    rows += rows_of("ica-nussl", {"nussl's order": torch.stack(both_signs).mean(0)}, "mixture")
    return pd.DataFrame(rows).sort_values(["roles", "level", "sdr"], ascending=[True, True, False])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="drums-bass-synth", choices=sorted(FILES))
    parser.add_argument("--examples", type=int)
    parser.add_argument("--task", default="best-assignment")
    parser.add_argument("--distances", action="store_true")
    args = parser.parse_args()
    table, path = (distances(), DISTANCES) if args.distances else (measured(args.suite, args.task, args.examples), FILES[args.suite])
    table.to_csv(path, index=False, lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
