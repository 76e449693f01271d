"""The driver of ``gpu_session.sh``: stages with limits, what is done is not done again, and everything small enough is packed as it comes.

A stage is a command in a process group of its own. Its end is written down (``stages/NAME.json``), its output goes to ``logs/NAME.log``. Stages of the
first phase run side by side, all others alone. No stage is begun that the time left cannot hold; one that outlasts its limit is ended.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
SEPBENCH = (PYTHON, "-m", "sepbench.cli.main")
MOST_BYTES = 16_000_000
PACK_EVERY = 30.0
RESERVE = 10.0
"""Seconds kept for the last packing."""
GPU_TESTS = ("test_precision", "test_noise", "baselines/sampling/test_problem", "baselines/priors/test_engine", "baselines/training/test_on_device")
"""Files with tests that only a GPU can run."""
CLASSICAL = ("average", "mixture", "ideal-mask", "nmf", "ica", "rpca")
SAMPLERS = ("basis-ncsn", "basis-ncsn-tuned", "dirac", "gaussian", "diffusion-gibbs", "alpha-rgs", "projected", "projected-4x")
AUDIO = ("average", "nmf", "nmf-blind", "ica", "rpca", "hpss", "repet", "repet-sim", "ft2d", "ideal-ratio-mask")


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: file name of its log and record.
        command: what is run in the repository's root.
        limit: seconds after which it is ended.
        least: seconds that must be left to begin it.
        needs: folder of ``SEPBENCH_DATA`` without which it is left out.
        alone: no other stage runs beside it.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    least: float = 15.0
    needs: str = ""
    alone: bool = True


@dataclass
class Session:
    """Folders, clock and device of one loan."""

    out: Path
    minutes: float
    tiny: bool
    begun: float = field(default_factory=time.monotonic)
    packed: float = 0.0

    def __post_init__(self) -> None:
        self.work = self.out.with_name(self.out.name + ".work")
        self.device = "cpu" if self.tiny else "cuda"
        for folder in (self.out, self.work / "logs", self.work / "stages", self.work / "runs"):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        return 60.0 * self.minutes - (time.monotonic() - self.begun) - RESERVE

    @property
    def timings(self) -> Path:
        return self.work / "timings.jsonl"

    def record(self, name: str) -> Path:
        return self.work / "stages" / f"{name}.json"

    def done(self, name: str) -> dict[str, Any] | None:
        """How a stage went, None if it was not run to its end."""
        try:
            return dict(json.loads(self.record(name).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None


# ---- what is run --------------------------------------------------------------------------------------------------------------------------


def _validate(name: str, session: Session, suite: str, task: str, methods: Sequence[str], limit: float) -> Stage:
    return Stage(name, (PYTHON, __file__, "--validate", session.device, suite, task, *methods), limit, alone=False)


def correctness(session: Session) -> list[Stage]:
    """Two minutes, side by side."""
    tests = ["tests/test_precision.py"] if session.tiny else [f"tests/{name}.py" for name in GPU_TESTS]
    stages = [Stage("tests", (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests), 110, alone=False)]
    if session.tiny:
        return [*stages, _validate("validate-classical", session, "digits-pairs", "class-split", ("average",), 60)]
    digits = str(session.work / "runs" / "digits-pairs")
    run, check = ("run", "--suite", "digits-pairs", "--device", "cuda", "--out", digits), ("check", digits, "--against", "leaderboards/digits-pairs.csv")
    gate = " && ".join(shlex.join([*SEPBENCH, *command]) for command in (run, check))
    return [
        *stages,
        _validate("validate-classical", session, "digits-pairs", "class-split", CLASSICAL, 110),
        _validate("validate-samplers", session, "gaussian-exact", "d8", SAMPLERS, 110),
        _validate("validate-networks", session, "digits-pairs", "class-split", ("projected-4x", "basis-ncsn"), 110),
        _validate("validate-audio", session, "drums-bass-synth", "best-assignment", AUDIO, 110),
        Stage("gate-digits", ("bash", "-c", gate), 110, alone=False),
    ]


def timings(session: Session) -> list[Stage]:
    """The table, measured alone."""
    command = [PYTHON, "benchmarks/gpu_timings.py", "--device", session.device, "--out", str(session.timings), *(["--tiny"] if session.tiny else [])]
    limit = 60.0 if session.tiny else max(60.0, min(240.0, 0.4 * 60 * session.minutes))
    return [Stage("timings", (*command, "--seconds", f"{limit - 20:.0f}"), limit)]


def training(session: Session) -> list[Stage]:
    """One prior: CIFAR-10's, in up to 8 minutes of what is left, or that of its small part where only that is there."""

    def stage(dataset: str, *length: str, limit: float, least: float = 90.0) -> Stage:
        weights = f"{dataset}-all.safetensors"
        command = (*SEPBENCH, "train", "score", "--dataset", dataset, "--seed", "2", *length, "--device", session.device)
        places = ("--folder", str(session.work / f"train-{dataset}"), "--out", str(session.work / weights))
        return Stage(f"train-{dataset}", (*command, *places), limit, least, "" if session.tiny else dataset)

    if session.tiny:
        return [stage("digits", "--steps", "3", limit=60, least=5)]
    # A run that has begun its decay takes no other length, so the length of the first try is kept.
    kept = session.work / "train-minutes.txt"
    if not kept.exists():
        kept.write_text(f"{min(8.0, max(1.0, 0.5 * session.left / 60)):.1f}")
    minutes = kept.read_text()
    data = Path(os.environ.get("SEPBENCH_DATA", "")) / "cifar10"
    return [stage("cifar10" if data.is_dir() else "cifar10-mini", "--minutes", minutes, limit=60 * float(minutes) + 90)]


def leaderboards(session: Session) -> list[Stage]:
    """In order of value: network samplers on MNIST, on CIFAR-10 with the prior that was trained, draws of vectors, and the classical methods."""

    def run(name: str, suite: str, methods: Sequence[str], *more: str, needs: str = "", limit: float = 240) -> Stage:
        out = str(session.work / "runs" / name)
        chosen = ("--methods", ",".join(methods)) if methods else ()
        command = (*SEPBENCH, "run", "--suite", suite, *chosen, "--device", session.device, "--no-keep-estimates", *more, "--out", out)
        return Stage(f"run-{name}", command, limit, least=10 if session.tiny else 25, needs="" if session.tiny else needs)

    def settings(methods: Sequence[str], prior: Path | None = None) -> list[str]:
        pairs = [f"{method}.precision=bfloat16" for method in methods] + [f"{method}.weights={prior}" for method in methods if prior is not None]
        return [part for pair in pairs for part in ("--set", pair)]

    if session.tiny:
        own = session.work / "digits-all.safetensors"
        prior = own if own.exists() else None
        return [
            run(
                "digits-tiny",
                "digits-pairs",
                ("average", "projected"),
                "--tasks",
                "class-split",
                "--limit",
                "3",
                "--budget",
                "quick",
                *settings(("projected",), prior),
                limit=60,
            )
        ]
    quick, slow = ("projected-4x", "projected-16x"), ("basis-ncsn", "basis-ncsn-tuned-denoised")
    # A run grows in place: the first mixtures are a leaderboard of their own if the time is up before the others are done.
    stages = [run("mnist-pairs", "mnist-pairs", quick, "--limit", limit, *settings(quick), needs="mnist") for limit in ("1000", "6000")]
    stages = [Stage(**{**vars(stage), "name": f"{stage.name}-{number}"}) for number, stage in enumerate(stages, 1)]
    for dataset in ("cifar10", "cifar10-mini"):
        weights = session.work / f"{dataset}-all.safetensors"
        if weights.exists():
            stages.append(run(f"{dataset}-pairs", f"{dataset}-pairs", quick[:1], "--limit", "2000", *settings(quick[:1], weights), needs=dataset))
            stages.append(run(f"{dataset}-color", f"{dataset}-color", ("gaussian",), "--limit", "2000", *settings(("gaussian",), weights), needs=dataset))
    stages.append(run("mnist-basis", "mnist-pairs", slow, "--limit", "1000", *settings(slow), needs="mnist"))
    stages += [run("gaussian-exact", "gaussian-exact", ()), run("gmm-exact", "gmm-exact", ())]
    stages.append(run("mnist-classical", "mnist-pairs", CLASSICAL, "--latency", needs="mnist"))
    stages.append(run("drums-bass-synth", "drums-bass-synth", AUDIO))
    return stages


# ---- how it is run ------------------------------------------------------------------------------------------------------------------------


class Running:
    """A stage under way, in a process group of its own."""

    def __init__(self, stage: Stage, session: Session) -> None:
        self.stage, self.session, self.begun = stage, session, time.monotonic()
        self.limit = min(stage.limit, session.left)
        log = (session.work / "logs" / f"{stage.name}.log").open("ab")
        with log:
            self.process = subprocess.Popen(stage.command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def poll(self) -> bool:
        """Whether it is over, by itself or by its limit; then its record is written."""
        code, seconds = self.process.poll(), time.monotonic() - self.begun
        late = code is None and seconds > self.limit
        if code is None and not late:
            return False
        if late:
            self.end()
        record = {"name": self.stage.name, "code": code, "late": late, "seconds": round(seconds, 1), "command": " ".join(self.stage.command)}
        path = self.session.record(self.stage.name) if code is not None else self.session.work / "stages" / f"{self.stage.name}.cut"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record))
        temporary.replace(path)
        path.with_suffix(".cut" if path.suffix == ".json" else ".json").unlink(missing_ok=True)
        print(f"== {self.stage.name}: {'ended at its limit' if late else 'ok' if code == 0 else f'exit code {code}'}, {seconds:.0f} s", flush=True)
        return True

    def end(self) -> None:
        """SIGTERM to the group, which lets a training write its checkpoint; SIGKILL after five seconds."""
        for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(patience)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def run_stages(session: Session, stages: Sequence[Stage], side_by_side: int = 1) -> None:
    """Run what is not done yet, as the time allows."""
    waiting, running = list(stages), list[Running]()
    try:
        while waiting or running:
            while waiting and len(running) < (1 if waiting[0].alone else side_by_side):
                stage = waiting.pop(0)
                if (reason := _left_out(session, stage)) is None:
                    running.append(Running(stage, session))
                else:
                    print(f"== {stage.name}: {reason}", flush=True)
            running = [one for one in running if not one.poll()]
            if time.monotonic() - session.packed > PACK_EVERY:
                pack(session)
            time.sleep(0.1)
    finally:
        for one in running:
            one.end()
        pack(session)


def _left_out(session: Session, stage: Stage) -> str | None:
    done = session.done(stage.name)
    if done is not None and (done["code"] == 0 or (stage.name == "timings" and not session.timings.exists())):
        return "done already"
    data = os.environ.get("SEPBENCH_DATA", "")
    if stage.needs and not (data and (Path(data) / stage.needs).is_dir()):
        return f"left out, $SEPBENCH_DATA/{stage.needs} is not there"
    if session.left < stage.least:
        return f"left out, {max(0.0, session.left):.0f} s are left"
    return None


# ---- what is kept -------------------------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:  # cut off
            continue


def table(session: Session) -> str:
    """Everything measured so far, as Markdown."""
    lines = ["# GPU session", "", "| what | measured | to reach |", "|---|---|---|"]
    devices = set()
    for row in _rows(session.timings):
        value = f"{row['measured']:,.4g} {row['unit']}" if "measured" in row else f"failed: {row['error']}"
        lines.append(f"| {row['name']} | {value} | {row['to_reach']} |".replace("\n", " "))
        devices.add(f"{row['device']}, torch {row['torch']}")
    lines += ["", f"Measured on: {'; '.join(sorted(devices)) or 'nothing yet'}.", "", "| stage | outcome | seconds |", "|---|---|---|"]
    for path in sorted([*session.work.glob("stages/*.json"), *session.work.glob("stages/*.cut")], key=lambda path: path.stat().st_mtime):
        record = json.loads(path.read_text(encoding="utf-8"))
        outcome = "ended at its limit" if record["late"] else "ok" if record["code"] == 0 else f"exit code {record['code']}"
        lines.append(f"| {record['name']} | {outcome} | {record['seconds']} |")
    for path in sorted(session.work.glob("runs/*/leaderboard.csv")):
        lines += ["", f"## {path.parent.name}", "", *_leaderboard(path)]
    return "\n".join(lines) + "\n"


def _leaderboard(path: Path) -> Iterator[str]:
    import csv

    yield "| task | method | metric | mean | 95 % interval | n | s/mixture |"
    yield "|---|---|---|---|---|---|---|"
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["metric"] in ("psnr", "ssim", "mixture_error", "si_sdr"):
                interval = f"{row['ci_low']} to {row['ci_high']}"
                yield f"| {row['task']} | {row['method']} | {row['metric']} | {row['mean']} | {interval} | {row['n_scored']} | {row['seconds_per_mixture']} |"


def pack(session: Session) -> None:
    """Bring OUT up to date: nothing in it is ever half written, or larger than what a loan gives back."""
    session.packed = time.monotonic()
    _write(session.out / "table.md", table(session).encode())
    if session.timings.exists():
        _write(session.out / "timings.jsonl", session.timings.read_bytes())
    facts = {"minutes": session.minutes, "device": session.device, "seconds": round(time.monotonic() - session.begun, 1)}
    _write(session.out / "session.json", (json.dumps(facts) + "\n").encode())
    for weights in sorted(session.work.glob("*.safetensors"))[:1]:
        for path in (weights.with_suffix(".json"), weights.with_suffix(".png"), weights):
            if path.exists() and path.stat().st_size < MOST_BYTES:
                _write(session.out / path.name, path.read_bytes())
    names = [path for pattern in ("logs/*.log", "runs/*/leaderboard.csv", "runs/*/run.json", "train-*/log.jsonl") for path in session.work.glob(pattern)]
    archive = _archive(session, [*names, *(path for kind in ("scores", "cells") for path in session.work.glob(f"runs/*/{kind}/**/*") if path.is_file())])
    _write(session.out / "results.tar.gz", archive if len(archive) < MOST_BYTES else _archive(session, names))


def _archive(session: Session, paths: Sequence[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(paths):
            try:
                data = path.read_bytes()
            except OSError:  # renamed or removed by a run under way
                continue
            info = tarfile.TarInfo(str(path.relative_to(session.work)))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


# ---- commands -----------------------------------------------------------------------------------------------------------------------------


def validate(device: str, suite: str, task: str, methods: Sequence[str]) -> int:
    """Conformance of several methods in one process; the exit code says whether all hold."""
    from sepbench.conformance import validate_method
    from sepbench.suites.loader import load_suite

    chosen, broken = load_suite(suite).tasks[task], 0
    for method in methods:
        begun = time.monotonic()
        try:
            failed = [f"{check.rule}: {check.detail}" for check in validate_method(method, chosen, device=device, examples=4) if check.passed is False]
        except Exception as error:
            failed = [f"{type(error).__name__}: {error}"]
        broken += bool(failed)
        print(f"{method}: {'ok' if not failed else '; '.join(failed)} ({time.monotonic() - begun:.1f} s)", flush=True)
    return int(broken > 0)


def main() -> int:
    if sys.argv[1:2] == ["--validate"]:
        return validate(*sys.argv[2:5], sys.argv[5:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float)
    parser.add_argument("out", type=Path, nargs="?", default=Path("gpu-session"))
    args = parser.parse_args()
    tiny = os.environ.get("SEPBENCH_GPU_SESSION") == "tiny"
    session = Session(args.out.resolve(), args.minutes, tiny)
    if not tiny:
        import torch

        if not torch.cuda.is_available():
            print("error: torch sees no GPU here; SEPBENCH_GPU_SESSION=tiny runs the session on the CPU", file=sys.stderr)
            return 2

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    run_stages(session, correctness(session), side_by_side=2 if tiny else 6)
    for phase in (timings, training, leaderboards):
        run_stages(session, phase(session))
    print((session.out / "table.md").read_text(encoding="utf-8"))
    codes = [json.loads(path.read_text(encoding="utf-8"))["code"] for path in session.work.glob("stages/*.json")]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
