"""A script: run a suite in child processes that are killed (SIGKILL) at random moments, until one finishes; prints the number of kills
and the seconds of the last attempt.

The children are forked from a process that has imported everything, so that an attempt takes milliseconds and not the seconds of an import.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import run_fakes

from sepbench import registry
from sepbench.results.store import RunStore
from sepbench.run.execute import check_data, execute
from sepbench.run.plan import make_plan
from sepbench.run.provenance import run_record
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite


def run(folder: Path, request: RunRequest) -> None:
    plan = make_plan(request, load_suite(request.suite))
    record = run_record(plan, "test")
    store = RunStore.create(folder, record)
    with store.session(record):
        execute(plan, store)


def attempt(folder: Path, request: RunRequest) -> int:
    """Fork a run; its process id."""
    child = os.fork()
    if child == 0:
        try:
            run(folder, request)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def finished_within(child: int, seconds: float) -> bool:
    """Whether the child ended by itself in that time; raises if it failed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise SystemExit(f"the run failed with status {status}")
            return True
        time.sleep(0.002)
    return False


def register() -> None:
    """The fake methods beside the real ones, for this process and those that it forks."""
    points, found = run_fakes.entry_points(), registry._separators
    registry._separators = lambda: found() | points


def main(folder: Path, options: dict[str, Any], longest: float, seed: int) -> None:
    register()
    request = RunRequest(device="cpu", **options)
    check_data(make_plan(request, load_suite(request.suite)))  # the data set is read once, by the parent
    chance, kills = random.Random(seed), 0
    while True:
        started = time.monotonic()
        child = attempt(folder, request)
        if finished_within(child, chance.uniform(0.0, longest)):
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        longest *= 1.05  # a slow machine gets there in the end
    sys.stdout.write(f"{kills} {time.monotonic() - started}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
