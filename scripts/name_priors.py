"""Fill the column ``prior`` of committed leaderboards made before it existed, from the digests of weights that their rows have.

    python scripts/name_priors.py [FOLDER]

Rows whose weights are not among those that ship are left alone and told of, with exit code 1. Nothing else in a file changes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from baselines.priors.for_task import prior_label
from baselines.priors.shipped import FOLDER
from baselines.priors.weights_io import load_prior, read_card
from sepbench.results.leaderboard_file import read_leaderboard, write_leaderboard

NOT_LEADERBOARDS = ("published.csv",)


def name_priors(frame: pd.DataFrame, paths: dict[str, Path]) -> tuple[pd.DataFrame, set[str]]:
    """The leaderboard with the column filled, and the digests that no file of ``paths`` (SHA-256 to weights) has."""
    named, unknown = frame.copy(), set()
    for row in frame.index[(frame["prior"] == "") & (frame["weights_sha256"] != "")]:
        digests = str(frame.at[row, "weights_sha256"]).split(",")
        if all(digest in paths for digest in digests):
            named.at[row, "prior"] = prior_label([load_prior(paths[digest]) for digest in dict.fromkeys(digests)], ",".join(digests))
        else:
            unknown |= set(digests) - set(paths)
    return named, unknown


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "leaderboards"
    paths = {read_card(path)["weights_sha256"]: path for path in sorted(FOLDER.glob("*.safetensors"))}
    trouble = 0
    for path in sorted(folder.glob("*.csv")):
        if path.name in NOT_LEADERBOARDS:
            continue
        before = read_leaderboard(path)
        frame, unknown = name_priors(before, paths)
        filled = int((frame["prior"] != before["prior"]).sum())
        print(f"{path}: {filled} rows named" + (f", weights unknown: {', '.join(sorted(unknown))}" if unknown else ""))
        trouble |= bool(unknown)
        if filled:
            write_leaderboard(frame, path)
    return trouble


if __name__ == "__main__":
    sys.exit(main())
