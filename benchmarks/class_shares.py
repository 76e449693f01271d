"""Do unequal shares of classes make the distance of true sources to the reference? FID of the row ``original`` against references of chosen shares.

    SEPBENCH_DATA=... python benchmarks/class_shares.py RUN    # a run of cifar10-pairs, class-split, with --methods original

The training images of CIFAR-10 are 60 % animals and 40 % vehicles, the sources of class-split 50 and 50. RUN's features of the true sources are held
against all training images, and against 40,000 of them: drawn evenly from both kinds, and drawn as they are (the same number, so that size does not
count). Five draws of each. Rows go to ``benchmarks/results/class_shares.csv``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from sepbench.metrics.sets.frechet import FrechetReference, frechet_distance
from sepbench.metrics.sets.moments import moments_of
from sepbench.suites.loader import load_suite

CSV = Path(__file__).parent / "results" / "class_shares.csv"
VEHICLES = torch.tensor([0, 1, 8, 9])
NUMBER, DRAWS = 40_000, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run: Path = parser.parse_args().run
    files = sorted((run / "features" / "class-split--original").rglob("*.safetensors"))
    kept = [load_file(path) for path in files]
    estimates = np.concatenate([part["cifarnet.features"].flatten(0, 1).double().numpy() for part in kept])
    reference = load_file(next((run / "references").glob("cifarnet-*.safetensors")))["features"].double().numpy()
    (training, rows_of_reference, _), *more = load_suite("cifar10-pairs").tasks["class-split"].reference()
    assert not more  # one data set holds both classes
    vehicle = torch.isin(training.labels[rows_of_reference], VEHICLES).numpy()
    random = np.random.default_rng(0)
    rows = []

    def row(what: str, chosen: np.ndarray) -> None:
        distance = frechet_distance(moments_of([estimates]), FrechetReference(moments_of([reference[chosen]])))
        rows.append({"reference": what, "images": len(chosen), "vehicles": round(float(vehicle[chosen].mean()), 3), "fid_cifarnet": round(distance, 4)})

    row("all training images", np.arange(len(reference)))
    for _ in range(DRAWS):
        row("as they are", random.choice(len(reference), NUMBER, replace=False))
    for _ in range(DRAWS):
        kinds = [random.choice(np.flatnonzero(kind), NUMBER // 2, replace=False) for kind in (vehicle, ~vehicle)]
        row("evenly", np.concatenate(kinds))
    table = pd.DataFrame(rows)
    table.to_csv(CSV, index=False)
    print(table.groupby("reference", sort=False).mean(numeric_only=True).to_string())


if __name__ == "__main__":
    main()
