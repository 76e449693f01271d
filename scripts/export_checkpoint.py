"""Write the weights of a training that is not over, while it goes on: give the options that its ``sepbench train score`` was given.

    python scripts/export_checkpoint.py --dataset mnist --folder runs/train-mnist-score --out early.safetensors [--labels 0,1] [--seed 0] [--init FILE]

The averaged weights of the folder's last checkpoint and their card are written; no step is made and nothing in the folder changes.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from baselines.training.score import check_writable, export, load_start, material, train_score
from sepbench.data.datasets import open_dataset
from sepbench.errors import SepbenchError


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="data set that is trained on")
    parser.add_argument("--labels", default="", help="classes, as in 0,1,2")
    parser.add_argument("--folder", type=Path, required=True, help="of the training")
    parser.add_argument("--out", type=Path, required=True, help="NAME.safetensors to write; the card goes beside it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, default=None, help="weights that the training started from")
    parser.add_argument("--notes", default="", help="for the card")
    args = parser.parse_args(arguments)
    check_writable(args.out, "--out")
    data = material(open_dataset(args.dataset, "train"), tuple(int(label) for label in args.labels.split(",") if label))
    config = replace(data.recipe.config, seed=args.seed)
    start = None if args.init is None else load_start(args.init)
    training = train_score(data.images, data.held_out, data.recipe.layout, config, args.folder, init=start, export_only=True)
    export(training, args.out, data.name, shlex.join(["python", "scripts/export_checkpoint.py", *arguments]), args.notes)
    print(f"{args.out} written: step {training.step}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SepbenchError as error:
        raise SystemExit(f"error: {error}") from None
