"""Where the time of a run goes: share of the wall clock spent inside torch's operators, per method, and the operators it is spent in.

    python benchmarks/profile_run.py --suite mnist-pairs --limit 500

Runs each method of the suite in this process under torch.profiler, in a temporary folder. The rest of the wall clock is the interpreter,
numpy (metrics), reading data and writing files, so the share is a lower bound for compiled code. A Python profiler would not do: it books
tensor arithmetic written with operators on the function that holds it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from sepbench.results.store import RunStore
from sepbench.run.execute import execute
from sepbench.run.plan import make_plan
from sepbench.run.provenance import run_record
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="digits-pairs")
    parser.add_argument("--methods", default="", help="comma-separated; default: the suite's list")
    parser.add_argument("--limit", type=int, default=None)
    arguments = parser.parse_args()
    suite = load_suite(arguments.suite)
    methods = tuple(m for m in arguments.methods.split(",") if m) or suite.methods
    print(f"{'method':14s} {'seconds':>8s} {'in torch':>8s}  most expensive operators, share of the wall clock")
    for method in methods:
        plan = make_plan(RunRequest(arguments.suite, methods=(method,), limit=arguments.limit, device="cpu"), suite)
        with tempfile.TemporaryDirectory() as folder:
            record = run_record(plan, "profile")
            store = RunStore.create(Path(folder) / "run", record, lambda message: None)
            with store.session(record), profile(activities=[ProfilerActivity.CPU]) as profiler:
                start = time.perf_counter()
                execute(plan, store)
                wall = time.perf_counter() - start
        operators = sorted(((event.self_cpu_time_total * 1e-6, event.key) for event in profiler.key_averages()), reverse=True)
        inside = sum(seconds for seconds, _ in operators)
        names = ", ".join(f"{name} {seconds / wall:.0%}" for seconds, name in operators[:4])
        print(f"{method:14s} {wall:8.2f} {inside / wall:8.0%}  {names}", flush=True)


if __name__ == "__main__":
    main()
