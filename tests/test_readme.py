"""The README's tour: every command of it runs as written, in one folder, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _tour() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.S)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.slow
def test_every_command_of_the_tour_runs(tmp_path: Path) -> None:
    commands = _tour()
    assert len(commands) >= 8
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "SEPBENCH_OFFLINE": "1"}
    environment.pop("SEPBENCH_DATA", None)
    for command in commands:
        done = subprocess.run(command.split(), capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command


def test_the_two_first_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def test_every_suite_of_the_table_exists_and_none_is_missing() -> None:
    from sepbench.registry import suite_names

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| suite |") : text.index("Each has a page")]
    named = {name for row in table.splitlines() for name in re.findall(r"`([a-z0-9-]+)`", row.split("|")[1] if "|" in row else "")}
    assert named == set(suite_names())


def test_the_figures_are_those_of_the_leaderboard() -> None:
    """Mean, interval and number of mixtures of every row of the first table."""
    from sepbench.results.leaderboard_file import read_leaderboard

    frame = read_leaderboard(ROOT / "leaderboards" / "mnist-pairs.csv")
    ours = frame[(frame.task == "class-split") & (frame.metric == "psnr")].set_index("method")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)`[^|]*\|[^|]*\| ([\d,]+) \| ([\d.]+) \[([\d.]+), ([\d.]+)\] \|", text, flags=re.M)
    assert len(rows) >= 6
    for method, count, *figures in rows:
        row = ours.loc[method]
        assert int(count.replace(",", "")) == row.n_scored, method
        assert figures == [f"{value:.2f}" for value in (row["mean"], row.ci_low, row.ci_high)], method
