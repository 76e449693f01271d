"""The page of ``sepbench report``: seconds to write it, its size, and seconds until chromium shows it.

    OMP_NUM_THREADS=1 python benchmarks/report_page.py [--mixtures 25000] [--methods 18] [--openings 3]

Reports a simulated run of so many mixtures and methods (``benchmarks/scale.py``) and three committed leaderboards. Each page is written by the command,
in a process of its own: ``write_seconds`` is its clock from start to end, ``write_cpu_seconds`` that of the processor. ``open_seconds`` is the clock from
the request of the file to its load event, when tables can be read and sorted, and ``first_chart_seconds`` the clock until the first
chart is drawn, to which the page is scrolled at once; both are the median over fresh browser contexts. ``load`` is the machine's load average at the end:
seconds of a machine with other work on it are upper ends.
Writes ``benchmarks/results/report_page.csv``.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scale  # the benchmark beside this one

ROOT = Path(__file__).resolve().parent.parent
BOARDS = ("mnist-pairs", "drums-bass-synth", "gaussian-exact")
SUITE = "cifar10-pairs"
"""It has lists of 25,000 mixtures, and this run no signals."""
LONGEST = 60.0


def written(target: str, folder: Path) -> dict[str, Any]:
    """Write a report; what it took and what it weighs."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "sepbench.cli.main", "report", target, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "write_seconds": round(seconds, 1),
        "write_cpu_seconds": round(cpu, 1),
        "files": len(files),
        "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 2),
        "page_megabytes": round((folder / "index.html").stat().st_size / 1e6, 2),
    }


def opened(browser: Any, page_file: Path) -> tuple[float, float]:
    """Seconds until the page is loaded, and until its first chart is drawn."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    clock = time.perf_counter()
    page.goto(page_file.as_uri(), wait_until="load")
    loaded = time.perf_counter() - clock
    page.locator("[data-chart]").first.evaluate("element => element.scrollIntoView({ behavior: 'instant' })")  # charts are drawn when they come into view
    page.locator("[data-chart] svg").first.wait_for(timeout=LONGEST * 1000)
    drawn = time.perf_counter() - clock
    context.close()
    return loaded, drawn


def rows(args: argparse.Namespace, work: Path, browser: Any) -> Iterator[dict[str, Any]]:
    """One row per report."""
    run = work / "run"
    names = tuple(f"method-{number:02}" for number in range(args.methods))
    scale.write_run(run, args.mixtures, 1_000, names, SUITE, estimates=False)
    for name, target in (("simulated run", str(run)), *((board, board) for board in BOARDS)):
        folder = work / f"report-{name.replace(' ', '-')}"
        facts = written(target, folder)
        loaded, drawn = zip(*(opened(browser, folder / "index.html") for _ in range(args.openings)), strict=True)
        shown = {"mixtures": args.mixtures, "methods": args.methods} if target == str(run) else {"mixtures": "", "methods": _methods(board=name)}
        times = {"open_seconds": round(statistics.median(loaded), 2), "first_chart_seconds": round(statistics.median(drawn), 2)}
        yield {"report": name, **shown, **facts, **times, "openings": args.openings, "load": round(os.getloadavg()[0], 1)}


def _methods(board: str) -> int:
    with (ROOT / "leaderboards" / f"{board}.csv").open(encoding="utf-8", newline="") as stream:
        return len({row["method"] for row in csv.DictReader(stream)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixtures", type=int, default=25_000, help="25,000 at most: the mixtures of the suite that the run is said to be of")
    parser.add_argument("--methods", type=int, default=18)
    parser.add_argument("--openings", type=int, default=3)
    args = parser.parse_args()
    driven = runpy.run_path(str(ROOT / "scripts" / "chromium.py"))
    if not driven["PATH"]:
        raise SystemExit("error: chromium is not installed; apt-get install chromium")
    with tempfile.TemporaryDirectory() as work, driven["browser"]() as browser:
        made = list(rows(args, Path(work), browser))
    with (ROOT / "benchmarks" / "results" / "report_page.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(made[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)
    for row in made:
        print(row)


if __name__ == "__main__":
    main()
