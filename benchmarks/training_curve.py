"""Held-out loss per noise band against minutes, from the log of a training run.

    python benchmarks/training_curve.py runs/train-mnist-score/log.jsonl --name mnist-all

writes ``benchmarks/results/training-NAME.csv`` and a plot. Bands are log-equal parts of the noise range, lowest first; a loss of 1 is that of a
network that outputs zero.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parent / "results"


def read(log: Path) -> pd.DataFrame:
    """One row per validation."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return pd.DataFrame(
        [
            {"step": row["step"], "minutes": row["minutes"], "rate": row["rate"], **{f"band_{i}": loss for i, loss in enumerate(row["validation"])}}
            for row in rows
            if "validation" in row
        ]
    )


def plot(table: pd.DataFrame, path: Path, name: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for band in [column for column in table if column.startswith("band_")]:
        first = table[band].iloc[0]
        axes.plot(table.minutes, table[band] / first, marker="o", markersize=3, label=f"{band.replace('_', ' ')}, at first {first:.3f}")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("held-out loss, relative to the first")
    axes.set_title(f"Training of {name}: held-out loss per noise band, lowest noise first")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("--name", required=True)
    args = parser.parse_args()
    table = read(args.log)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / f"training-{args.name}.csv", index=False)
    plot(table, RESULTS / f"training-{args.name}.png", args.name)


if __name__ == "__main__":
    main()
