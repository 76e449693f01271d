"""Whether two runs have the same scores to the last bit: ``python scripts/same_bits.py RUN RUN``.

Prints how many values there are and how many differ, by task, method and metric; exit code 1 if any does. Seconds are left aside. Runs of format 1
can be compared with later ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from sepbench.results.store import RunStore

KEYS = ["task", "method", "metric", "example", "source"]


def scores(folder: Path) -> pd.DataFrame:
    """All scores of a run in one order, texts as plain texts."""
    frame = RunStore.open(folder).read_scores([*KEYS, "value", "error"])
    return frame.astype(dict.fromkeys(("task", "method", "metric", "error"), str)).sort_values(KEYS, ignore_index=True)


def main(one: Path, other: Path) -> int:
    a, b = scores(one), scores(other)
    both = a.merge(b, on=KEYS, suffixes=("_a", "_b"))
    bits_a, bits_b = (both[column].to_numpy(np.float64).view(np.int64) for column in ("value_a", "value_b"))
    different = both[(bits_a != bits_b) | (both["error_a"] != both["error_b"])]
    print(f"{len(a):,} and {len(b):,} scores, {len(both):,} in common, {len(different):,} of them different")
    if len(different):
        largest = (different["value_a"] - different["value_b"]).abs().max()
        print(f"largest difference {largest:.2g}, in mixtures {', '.join(map(str, sorted(different['example'].unique())[:20]))}")
        print(different.groupby(["task", "method", "metric"]).size().to_string())
    return int(bool(len(different)) or len(both) < max(len(a), len(b)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
