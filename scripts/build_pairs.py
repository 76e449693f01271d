"""Write the frozen pair lists, their files of cluster keys and their digests: ``SEPBENCH_DATA=... python scripts/build_pairs.py [--check] [NAME ...]``.

Lists whose labels are not on this machine are left as they are. Without data there is nothing to do: the committed files are the frozen ones.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from sepbench.data.datasets import open_dataset
from sepbench.data.lists.recipes import RECIPES
from sepbench.data.lists.recorded import CLUSTERS
from sepbench.errors import DataError
from sepbench.resources import resource_root, suites_root
from sepbench.suites.freeze import write_digests


def labels(dataset: str, split: str) -> np.ndarray:
    """Class numbers of a split."""
    return open_dataset(dataset, split).labels.numpy()


def compared(what: str, path: Path, made: bytes, write: bool) -> bool:
    """Whether a file differs from what was made; it is written if asked for."""
    same = path.is_file() and path.read_bytes() == made
    if write:
        path.write_bytes(made)
    print(f"{'same' if same else 'written' if write else 'differs':10s} {what} ({len(made):,} bytes)")
    return not same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="lists to build (all if none)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a list differs from its committed file")
    args = parser.parse_args()
    os.environ.setdefault("SEPBENCH_OFFLINE", "1")  # freezing must not start downloads
    folder = resource_root("data_manifests") / "pairs"
    differing = 0
    for name in args.names or RECIPES:
        try:
            made = RECIPES[name].csv(labels, open_dataset)
        except DataError as error:
            print(f"skipped    {name}: {error}")
            continue
        differing += compared(name, folder / f"{name}.csv", made, write=not args.check)
        if name in CLUSTERS:  # made from the list that was just written
            differing += compared(f"clusters of {name}", folder.parent / "clusters" / f"{name}.csv", CLUSTERS[name](), write=not args.check)
    if not args.check:
        write_digests(sorted(suites_root().glob("*.toml")), resource_root("data_manifests") / "tasks.toml")
        print("digests written to data_manifests/tasks.toml")
    return int(args.check and differing > 0)


if __name__ == "__main__":
    raise SystemExit(main())
