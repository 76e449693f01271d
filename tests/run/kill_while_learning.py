"""A script: run the learner (``training_fake``) in child processes that are killed (SIGKILL) while it fits, while its fit is put away, and while it
separates; then let one finish, and fit once more. Prints how many were killed in each of the three, and of that last fit its seconds and whether
it was read from the cache.

``python kill_while_learning.py FOLDER OPTIONS KILLS SEED``, with as many kills of each kind.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from run_until_done import attempt, finished_within, register
from training_fake import counted

from sepbench.run.execute import check_data
from sepbench.run.plan import make_plan
from sepbench.run.request import RunRequest
from sepbench.run.session import open_session
from sepbench.suites.loader import load_suite

LONGEST = 300.0
"""Seconds that a child may take to come to where it is killed."""
WHERE = {"s": 3, "el": 1, "b": 4}
"""Letters of the learner's pulse, for steps, an ended fit or a load, and batches: the child is killed after so many more of them at the most, and
then within a moment."""


def killed(child: int, pulse: Path, letters: str, more: int, moment: float) -> bool:
    """Kill a child when it has written so many of these letters more, a moment later; False if it ends before."""
    wanted, deadline = counted(pulse, letters) + more, time.monotonic() + LONGEST
    while counted(pulse, letters) < wanted:
        if finished_within(child, 0.003):
            return False
        if time.monotonic() > deadline:
            raise SystemExit(f"none of {letters!r} within {LONGEST} s")
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main(folder: Path, options: dict[str, Any], kills: int, seed: int) -> None:
    register()
    request, pulse = RunRequest(device="cpu", **options), Path(os.environ["LEARNER_PULSE"])
    check_data(make_plan(request, load_suite(request.suite)))  # the data set is read once, by the parent
    chance, done = random.Random(seed), dict.fromkeys(WHERE, 0)
    for letters, most in WHERE.items():
        for _ in range(kills):
            done[letters] += killed(attempt(folder, request), pulse, letters, chance.randint(1, most), chance.uniform(0.0, 0.02))
    if not finished_within(attempt(folder, request), LONGEST):
        raise SystemExit("the run does not end")
    plan = make_plan(request, load_suite(request.suite))
    started = time.perf_counter()
    session = open_session(plan.cells[0], plan, plan.cells[0].task.mixture_set(), lambda tell: None)
    sys.stdout.write(json.dumps({"killed": done, "seconds": time.perf_counter() - started, "cached": session.cached}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
