"""Read every committed leaderboard and write it with the columns of this version: new ones with their defaults, retired ones gone.

    python scripts/rewrite_leaderboards.py [FOLDER]

Rows, their order and all values that stay are the same text before and after; a file where that is not so is left as it was, with exit code 1.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

from sepbench.results.columns import column_names
from sepbench.results.leaderboard_file import format_leaderboard, read_leaderboard, write_leaderboard

NOT_LEADERBOARDS = ("published.csv",)


def rewrite(path: Path) -> str:
    """Rewrite one file; what came of it in words.

    Raises:
        ValueError: a value would change.
    """
    before, frame = path.read_text(encoding="utf-8"), read_leaderboard(path)
    after = format_leaderboard(frame)
    old, new = (list(csv.DictReader(io.StringIO(text))) for text in (before, after))
    gone = [name for name in old[0] if name not in column_names()]
    added = [name for name in column_names() if name not in old[0]]
    kept = [name for name in column_names() if name in old[0]]
    if [[row[name] for name in kept] for row in old] != [[row[name] for name in kept] for row in new]:
        raise ValueError(f"{path}: values would change")
    write_leaderboard(frame, path)
    return f"{path}: {len(new)} rows, added {', '.join(added) or 'nothing'}, dropped {', '.join(gone) or 'nothing'}"


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "leaderboards"
    trouble = 0
    for path in sorted(folder.glob("*.csv")):
        if path.name not in NOT_LEADERBOARDS:
            try:
                print(rewrite(path))
            except ValueError as error:
                print(error, file=sys.stderr)
                trouble = 1
    return trouble


if __name__ == "__main__":
    sys.exit(main())
