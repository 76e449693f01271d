"""The driver of ``gpu_session.sh``: stages with limits, what is done is not done again, and everything small enough is packed as it comes.

A stage (``gpu_stages.py``) is a command in a process group of its own. Its end is written down (``stages/NAME.json``), its output goes to
``logs/NAME.log``. Correctness and leaderboards run side by side, timings and training alone. No stage is begun that the time left cannot hold; one that
outlasts its limit is ended.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from gpu_stages import PYTHON, Session, Stage, correctness, leaderboards, timings, training

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 16_000_000
PACK_EVERY = 30.0
FITS = ("lass", "s-d", "supervised-unet")
"""Methods whose fits are given back."""
SIDE_BY_SIDE = 16

# ---- how it is run ------------------------------------------------------------------------------------------------------------------------


class Running:
    """A stage under way, in a process group of its own."""

    def __init__(self, stage: Stage, session: Session) -> None:
        self.stage, self.session, self.begun = stage, session, time.monotonic()
        self.limit = min(stage.limit, session.left)
        log = (session.work / "logs" / f"{stage.name}.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                stage.command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=dict(stage.environment())
            )

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
            while waiting and len(running) < (1 if waiting[0].alone or any(one.stage.alone for one in running) else side_by_side):
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


@contextlib.contextmanager
def one_context(session: Session) -> Iterator[None]:
    """Stages side by side share the GPU through NVIDIA's MPS where that is installed and works: small kernels of several processes then run at once.

    Without it they take turns. No setting of the card changes.
    """
    control = shutil.which("nvidia-cuda-mps-control", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/nvidia/bin")))
    if session.tiny or control is None or os.environ.get("SEPBENCH_MPS") == "0":
        yield
        return

    def told(word: str) -> None:
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            subprocess.run([control], input=word, text=True, timeout=20, check=False, capture_output=True)

    subprocess.run([control, "-d"], timeout=20, check=False)
    probe = "import torch; assert float(torch.ones(8, device='cuda').sum()) == 8"
    try:
        works = subprocess.run([PYTHON, "-c", probe], timeout=60, check=False).returncode == 0
    except subprocess.SubprocessError:
        works = False
    print(f"== MPS: {'on' if works else 'does not work here, off'}", flush=True)
    if not works:
        told("quit -t 1")
    try:
        yield
    finally:
        told("quit -t 1")


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
    archive = _archive(session.work, [*names, *(path for kind in ("scores", "cells") for path in session.work.glob(f"runs/*/{kind}/**/*") if path.is_file())])
    _write(session.out / "results.tar.gz", archive if len(archive) < MOST_BYTES else _archive(session.work, names))
    if not session.tiny:
        _pack_fits(session)


def _pack_fits(session: Session) -> None:
    """Fits that are made, each method's in a file that unpacks into the cache folder."""
    from sepbench.data.files.fetch import cache_folder

    fits = cache_folder() / "fits"
    for method in FITS:
        paths = [path for path in fits.glob(f"{method}/*/**/*") if path.is_file() and "work" not in path.relative_to(fits).parts]
        target = session.out / f"fits-{method}.tar.gz"
        packed = target.stat().st_mtime if target.exists() else 0.0
        whole = all((folder / "fit.json").exists() for folder in fits.glob(f"{method}/*"))
        if whole and any(path.stat().st_mtime > packed for path in paths):
            archive = _archive(fits, paths)
            if len(archive) < MOST_BYTES:
                _write(target, archive)


def _archive(root: Path, paths: Sequence[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(paths):
            try:
                data = path.read_bytes()
            except OSError:  # renamed or removed by a run under way
                continue
            info = tarfile.TarInfo(str(path.relative_to(root)))
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
    for phase in (timings, training):
        run_stages(session, phase(session))
    with one_context(session):
        run_stages(session, leaderboards(session), side_by_side=int(os.environ.get("SEPBENCH_SIDE_BY_SIDE", SIDE_BY_SIDE)))
    print((session.out / "table.md").read_text(encoding="utf-8"))
    codes = [json.loads(path.read_text(encoding="utf-8"))["code"] for path in session.work.glob("stages/*.json")]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
