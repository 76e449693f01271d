"""Where the time of a run goes: share spent in compiled code (torch, numpy, file writes) against the Python interpreter, per method.

    python benchmarks/profile_run.py --suite mnist-pairs --limit 1000

Runs each (task, method) cell of the suite in this process under cProfile, in a temporary folder, and adds up each function's own time:
built-in functions are compiled code, everything else is interpreter.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
from pathlib import Path

from sepbench.results.store import RunStore
from sepbench.run.execute import execute
from sepbench.run.plan import make_plan
from sepbench.run.provenance import run_record
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite


def own_times(stats: pstats.Stats) -> tuple[float, float, list[tuple[float, str]]]:
    """Seconds in compiled code, seconds in Python code, and the five most expensive functions by own time."""
    compiled = python = 0.0
    functions = []
    for (file, _line, name), (_calls, _primitive, own, _total, _callers) in stats.stats.items():  # type: ignore[attr-defined]
        if file == "~":
            compiled += own
        else:
            python += own
        functions.append((own, name if file == "~" else f"{Path(file).name}:{name}"))
    return compiled, python, sorted(functions, reverse=True)[:5]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="digits-pairs")
    parser.add_argument("--methods", default="", help="comma-separated; default: the suite's list")
    parser.add_argument("--limit", type=int, default=None)
    arguments = parser.parse_args()
    suite = load_suite(arguments.suite)
    methods = tuple(m for m in arguments.methods.split(",") if m) or suite.methods
    print(f"{'method':14s} {'seconds':>8s} {'compiled':>9s} {'Python':>7s}  most expensive by own time")
    for method in methods:
        plan = make_plan(RunRequest(arguments.suite, methods=(method,), limit=arguments.limit, device="cpu"), suite)
        with tempfile.TemporaryDirectory() as folder:
            record = run_record(plan, "profile")
            store = RunStore.create(Path(folder) / "run", record, lambda message: None)
            profile = cProfile.Profile()
            with store.session(record):
                profile.enable()
                execute(plan, store)
                profile.disable()
        compiled, python, top = own_times(pstats.Stats(profile))
        total = compiled + python
        names = ", ".join(f"{name} {own / total:.0%}" for own, name in top)
        print(f"{method:14s} {total:8.2f} {compiled / total:9.0%} {python / total:7.0%}  {names}", flush=True)


if __name__ == "__main__":
    main()
