"""Plants the faults of ``planted_faults.toml`` one at a time, and sees whether a test notices.

    SEPBENCH_DATA=... python benchmarks/planted_faults.py [--list FILE] [--first N] [--part I/N] [--out FILE] [--only TEXT] [--count] \\
        [--covered MAP@COMMIT ...]

Two copies of the last commit are made in a temporary folder; the folder that this is called from is never changed. In one of them a line is replaced
and the tests that stand beside the fault are run, up to the first that fails. When all faults have had their turn, those that passed unnoticed have
another with the wider sets. A fault counts as noticed if a test fails that passes on the unchanged copy; one that fails there too is left out, and the
fault is tried again. A crash counts as noticed, and so does a test that alone goes on for half of ``LIMIT`` seconds of the processor's time and ends
soon on the unchanged copy; ``by`` says so. A set that is cut off by that limit without such a test has noticed nothing. Faults are taken in an order
in which each kind comes up evenly, so the table of a part is a fair sample. Rows of an earlier call are kept, and the same command goes on where it was
stopped. Writes ``benchmarks/results/planted_faults.csv``, in which ``noticed`` is empty where the wider set has not run yet, and prints the count.

Every test run is forked from this process, which has loaded torch and its like, but nothing of the project: a fault costs what its tests cost.
Where maps of coverage are given, the tests are those that run the faulty line (``covering_tests.py``), as far as they still exist: the most specific
``SPECIFIC`` first. With the wider sets come the files named after the faulty one and the next ``FURTHER``, so nobody has to choose tests. Hypothesis draws
the same examples each time. One process works at a time on each table; the seconds are those of this machine, whatever else it did. ``--part 2/3`` takes
every third fault from the second on, for several processes with a table each; ``--count --out A B`` counts them together.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from covering_tests import CoveringTests
from hypothesis import HealthCheck, settings

HERE = Path(__file__).resolve().parent
END = os._exit  # the real one: a fault in sepbench/ambient.py may leave another in its place
PRELOADED = ("torch", "numpy", "scipy.signal", "scipy.stats", "scipy.special", "pandas", "sklearn.datasets", "pyarrow.parquet", "safetensors.torch", "pydantic")
PRELOADED += ("rich.console", "typer", "pooch", "hypothesis.strategies", "sympy", "skimage.metrics", "PIL.Image", "xdist")
LIMIT = 240  # seconds of the processor for one run of tests
WALL = 600  # seconds of the clock, against tests that wait for ever without working
MOST_LEFT_OUT = 20
SPECIFIC = 40  # tests that a fault has in its first turn, where a map of coverage chooses them
FURTHER = 400  # and how many more in its second
COLUMNS = ("file", "kind", "fault", "noticed", "by", "seconds", "why")
TEXT: Any = {"capture_output": True, "text": True, "check": True}
CHOSEN = ("-q", "-p", "no:cacheprovider", "-m", "not slow", "--no-header", "--tb=line")


class UnfitFault(Exception):
    """A fault whose text does not stand in its file exactly once, or whose replacement is no Python."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the list; see the top of ``planted_faults.toml``."""

    kind: str
    file: str
    text: str
    to: str
    why: str
    tests: tuple[str, ...]
    wider: tuple[str, ...]

    @property
    def shown(self) -> str:
        return f"{self.text} -> {self.to or '(nothing)'}"

    def planted(self, source: str) -> str:
        """The file's text with the fault.

        Raises:
            UnfitFault: see there.
        """
        if source.count(self.text) != 1:
            raise UnfitFault(f"{self.file} holds {source.count(self.text)} times: {self.text}")
        changed = source.replace(self.text, self.to)
        try:
            compile(changed, self.file, "exec")
        except SyntaxError as error:
            raise UnfitFault(f"{self.file}: {self.shown} is no Python ({error.msg})") from error
        return changed


def read_faults(path: Path) -> list[Fault]:
    """The faults of a list, in an order in which each kind comes up evenly."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    wider: dict[str, list[str]] = document.get("wider", {})
    made: dict[str, list[Fault]] = {}
    for entry in document["fault"]:
        room = max((prefix for prefix in wider if entry["file"].startswith(prefix)), key=len, default="")
        tests = tuple(entry.get("tests", ()))
        more = tuple(one for one in wider.get(room, ()) if one not in tests)
        made.setdefault(entry["kind"], []).append(Fault(entry["kind"], entry["file"], entry["text"], entry["to"], entry["why"], tests, more))
    placed = [((number + 0.5) / len(faults), fault) for faults in made.values() for number, fault in enumerate(faults)]
    return [fault for _, fault in sorted(placed, key=lambda pair: pair[0])]


def covered(fault: Fault, covering: CoveringTests, there: Collection[str]) -> Fault:
    """The fault with the tests that run its line, as far as they are ``there``; in its second turn come the files named after its own, and the wider sets."""
    tests = [test for test in covering.of(fault.file, fault.text) if test in there]
    name = Path(fault.file).stem.strip("_")
    beside = [test for test in there if "::" not in test and name in Path(test).stem]
    *quick, slowest = fault.wider or ("",)
    more = (*quick, *beside, *tests[SPECIFIC : SPECIFIC + FURTHER], slowest)
    return replace(fault, tests=tuple(tests[:SPECIFIC]) + fault.tests, wider=tuple(dict.fromkeys(test for test in more if test)))


def tests_of(root: Path) -> list[str]:
    """Ids of all tests that are not slow, and their files. A test that a map knows may have got another name since."""
    told = subprocess.run(
        [sys.executable, "-m", "pytest", *CHOSEN, "-v", "--collect-only"], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, **TEXT
    ).stdout
    ids = [line for line in told.splitlines() if "::" in line]
    return [*dict.fromkeys(one.partition("::")[0] for one in ids), *ids]


@dataclass(frozen=True, slots=True)
class Result:
    """How a run of tests ended: ``passed``, ``failed``, ``crashed`` or ``cut off``, and the test that failed or was running."""

    end: str
    test: str = ""


class _Watcher:
    """A pytest plugin that writes down which test runs, and the first that fails."""

    def __init__(self, folder: Path) -> None:
        self._running, self._failed = folder / "running", folder / "failed"

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        self._running.write_text(nodeid, encoding="utf-8")

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._note(report)

    def pytest_collectreport(self, report: Any) -> None:
        self._note(report)

    def _note(self, report: Any) -> None:
        if report.failed and not self._failed.is_file():
            self._failed.write_text(report.nodeid, encoding="utf-8")


class Copy:
    """A copy of the last commit, in which tests are run.

    Args:
        folder: where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tree"
        self._notes, self._log, self._cache = folder / "notes", folder / "log.txt", folder / "cache"
        subprocess.run(["git", "clone", "--quiet", "--shared", str(HERE.parent), str(self.folder)], check=True)
        self._times = 0

    def plant(self, fault: Fault) -> None:
        """Write the fault into the copy, and forget what earlier ones may have left in its cache; raises UnfitFault."""
        shutil.rmtree(self._cache, ignore_errors=True)
        path = self.folder / fault.file
        changed = fault.planted(path.read_text(encoding="utf-8"))
        path.write_text(changed, encoding="utf-8")
        self._times += 1
        os.utime(path, (self._times, self._times))  # a time of its own, so that no compiled file of another text is taken for this one's

    def restore(self, fault: Fault) -> None:
        subprocess.run(["git", "-C", str(self.folder), "checkout", "--quiet", "--", fault.file], check=True)
        self._times += 1
        os.utime(self.folder / fault.file, (self._times, self._times))

    def run(self, tests: Sequence[str], left_out: Sequence[str], limit: int) -> Result:
        """Run tests up to the first failure, in a process forked from this one."""
        shutil.rmtree(self._notes, ignore_errors=True)
        self._notes.mkdir()
        child = os.fork()
        if not child:
            self._tests(tests, left_out, limit)
        status = self._wait(child)
        failed, running = (self._read(name) for name in ("failed", "running"))
        if failed:
            return Result("failed", failed)
        if os.WIFSIGNALED(status):
            return Result("cut off" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "crashed", running)
        return Result("passed" if os.WEXITSTATUS(status) in (0, 5) else "crashed", running)  # 5: every test is left out, or slow

    def _tests(self, tests: Sequence[str], left_out: Sequence[str], limit: int) -> None:
        os.setsid()
        code = 3
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 30))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.environ |= {"SEPBENCH_CACHE": str(self._cache), "PYTHONPATH": str(self.folder)}
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and tests send it
            os.chdir(self.folder)
            sys.path.insert(0, str(self.folder))
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            less = [f"--deselect={test}" for test in left_out]
            code = int(pytest.main([*CHOSEN, "-x", *less, *tests], plugins=[_Watcher(self._notes)]))
        finally:
            END(code)

    @staticmethod
    def _wait(child: int) -> int:
        until = time.monotonic() + WALL
        done, status = 0, 0
        while not done:
            done, status = os.waitpid(child, os.WNOHANG)
            if not done and time.monotonic() > until:
                os.killpg(child, signal.SIGKILL)
                until = float("inf")
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what a test may have left running
        return status

    def _read(self, name: str) -> str:
        path = self._notes / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""


class Bench:
    """The two copies, and the tests that are left out."""

    def __init__(self, folder: Path) -> None:
        self.plain, self.changed = (Copy(folder / name) for name in ("plain", "changed"))
        self.left_out: list[str] = []
        self._sound: set[str] = set()

    def noticed_by(self, fault: Fault, tests: Sequence[str]) -> str:
        """Which of these tests notices a fault, empty if none does; raises UnfitFault."""
        self.changed.plant(fault)
        try:
            return self._noticed_by(tests) if tests else ""
        finally:
            self.changed.restore(fault)

    def _noticed_by(self, tests: Sequence[str]) -> str:
        for _ in range(MOST_LEFT_OUT):
            result = self.changed.run(tests, self.left_out, LIMIT)
            if result.end == "passed":
                return ""
            if result.end == "cut off":
                ends = result.test and self.changed.run([result.test], (), LIMIT // 2).end == "cut off" and self._is_sound(result.test, LIMIT // 8)
                return f"{result.test} (time-out)" if ends else ""
            if result.end == "crashed":
                where = [result.test] if result.test else list(tests)
                return f"{result.test or tests[0]} (crash)" if self.plain.run(where, self.left_out, LIMIT).end != "crashed" else ""
            if self._is_sound(result.test):
                return result.test
            self.left_out.append(result.test)
        return ""

    def _is_sound(self, test: str, limit: int = LIMIT) -> bool:
        """Whether a test passes on the unchanged copy."""
        if test not in self._sound and self.plain.run([test], (), limit).end == "passed":
            self._sound.add(test)
        return test in self._sound


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(rows: Sequence[dict[str, str]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def report(rows: Sequence[dict[str, str]]) -> None:
    """Print the count by kind, and what passed unnoticed."""
    for kind in [*dict.fromkeys(row["kind"] for row in rows), ""]:
        chosen = [row for row in rows if kind in ("", row["kind"])]
        print(f"{kind or 'all':12} {sum(row['noticed'] == 'yes' for row in chosen):3} of {len(chosen):3} noticed")
    for row in rows:
        if row["noticed"] != "yes":
            print(f"{'passed unnoticed' if row['noticed'] else 'wider tests to come'}: {row['file']}: {row['fault']}")


def plant_all(faults: Sequence[Fault], out: Path) -> None:
    """Fill the table."""
    rows = read_rows(out)
    by_fault = {(row["file"], row["fault"]): row for row in rows}
    with tempfile.TemporaryDirectory(prefix="planted-faults-") as folder:
        bench = Bench(Path(folder))
        for wider in (False, True):
            for fault in faults:
                row = by_fault.get((fault.file, fault.shown))
                if row is not None and (row["noticed"] or not wider):
                    continue
                started = time.monotonic()
                found = bench.noticed_by(fault, fault.wider if wider else fault.tests)
                seconds = time.monotonic() - started + (float(row["seconds"]) if row is not None else 0.0)
                values = (fault.file, fault.kind, fault.shown, "yes" if found else "no" * wider, found, f"{seconds:.0f}", fault.why)
                if row is None:
                    row = by_fault[fault.file, fault.shown] = {}
                    rows.append(row)
                row.update(zip(COLUMNS, values, strict=True))
                write_rows(rows, out)
                print(json.dumps({name: row[name] for name in ("file", "fault", "noticed", "by", "seconds")}), flush=True)
        for test in bench.left_out:
            print(f"left out, for it fails on the unchanged copy: {test}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", type=Path, default=HERE / "planted_faults.toml", help="faults to plant")
    parser.add_argument("--first", type=int, help="only the first so many faults of the list, in the order in which they are taken")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="only every N-th fault, from the I-th on")
    parser.add_argument("--out", type=Path, nargs="+", default=[HERE / "results" / "planted_faults.csv"], help="table to write; rows that it has are kept")
    parser.add_argument("--only", default="", help="only faults whose file or text holds this")
    parser.add_argument("--covered", nargs="+", default=[], metavar="MAP@COMMIT", help="maps of coverage that choose the tests; see covering_tests.py")
    parser.add_argument("--count", action="store_true", help="only print what the tables say")
    given = parser.parse_args()
    if not given.count:
        which, _, parts = given.part.partition("/")
        if not (which.isdecimal() and parts.isdecimal() and 1 <= int(which) <= int(parts)):
            parser.error(f"--part takes I/N with I from 1 to N, got {given.part}")
        chosen = read_faults(given.list)[: given.first][int(which) - 1 :: int(parts)]
        faults = [fault for fault in chosen if given.only in f"{fault.file} {fault.text}"]
        for fault in faults:
            fault.planted((HERE.parent / fault.file).read_text(encoding="utf-8"))
        if given.covered:
            covering = CoveringTests([(Path(one.rpartition("@")[0]), one.rpartition("@")[2]) for one in given.covered], HERE.parent)
            with tempfile.TemporaryDirectory(prefix="planted-faults-") as folder:  # what is not committed is no test there either
                there = dict.fromkeys(tests_of(Copy(Path(folder)).folder))
            faults = [covered(fault, covering, there) for fault in faults]
        for name in PRELOADED:
            importlib.import_module(name)
        settings.register_profile("planted", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("planted")
        plant_all(faults, given.out[0])
    report([row for table in given.out for row in read_rows(table)])


if __name__ == "__main__":
    main()
