"""What a loan of a GPU is used for: the stages of ``gpu_session.sh``, in order of value.

First what tells whether anything is right, then the timings alone, a prior for CIFAR-10 where the data are, and last everything else, side by side: methods
that learn on MNIST, samplers and classical methods. The seconds of stages that run side by side are a timing group of their own (``SEPBENCH_SHARED``).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

PYTHON = sys.executable
SEPBENCH = (PYTHON, "-m", "sepbench.cli.main")
RESERVE = 10.0
"""Seconds kept for the last packing."""
GPU_TESTS = (
    "test_precision",
    "test_noise",
    "baselines/sampling/test_problem",
    "baselines/priors/test_engine",
    "baselines/training/test_on_device",
    "baselines/training/test_recorded_step",
)
"""Files with tests that only a GPU can run."""
CLASSICAL = ("average", "mixture", "ideal-mask", "nmf", "ica", "rpca")
SAMPLERS = ("basis-ncsn", "basis-ncsn-tuned", "dirac", "gaussian", "diffusion-gibbs", "alpha-rgs", "projected", "projected-4x")
AUDIO = ("average", "nmf", "nmf-blind", "ica", "rpca", "hpss", "repet", "repet-sim", "ft2d", "ideal-ratio-mask")
BASIS = ("basis-ncsn", "basis-ncsn-code", "basis-ncsn-denoised", "basis-ncsn-tuned", "basis-ncsn-tuned-denoised")
LASS = ("lass", "lass-raw", "lass-selected", "lass-printed", "lass-topk", "lass-ancestral", "lass-beam", "lass-greedy")
LASS_FIT = {
    "codec_epochs": 30,
    "codec_batch": 128,
    "codec_lr": 1e-3,
    "reconstruction": 10,
    "prior_epochs": 60,
    "prior_batch": 256,
    "prior_lr": 1e-3,
    "passes": 30,
}
"""A fit of minutes; the paper's has 500 epochs, smaller batches and lower rates."""
LEARNT = ("lass", "lass-beam", "s-d", "supervised", "nes", "glom", "am", "supervised-unet", "nes-glom")
NES_TASKS = ("x-0-4", "x-5-9")


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

    def environment(self) -> Mapping[str, str]:
        """That of this process, and whether the seconds are those of a shared machine."""
        return os.environ if self.alone else {**os.environ, "SEPBENCH_SHARED": "1", "OMP_NUM_THREADS": "1"}


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


def _validate(name: str, session: Session, suite: str, task: str, methods: Sequence[str], limit: float) -> Stage:
    driver = str(Path(__file__).with_name("gpu_session.py"))
    return Stage(name, (PYTHON, driver, "--validate", session.device, suite, task, *methods), limit, alone=False)


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
        _runs(session, "digits-learnt", "digits-pairs", LEARNT, ("class-split", "4"), more=("--budget", "quick")),
    ]


def timings(session: Session) -> list[Stage]:
    """The table, measured alone."""
    command = [PYTHON, "benchmarks/gpu_timings.py", "--device", session.device, "--out", str(session.timings), *(["--tiny"] if session.tiny else [])]
    limit = 60.0 if session.tiny else max(60.0, min(240.0, 0.16 * 60 * session.minutes))
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


# ---- leaderboards, side by side ---------------------------------------------------------------------------------------------------------------


def leaderboards(session: Session) -> list[Stage]:
    """In order of value. Several runs of one stage come one after the other, the first mixtures of a task before the others."""
    if session.tiny:
        own = session.work / "digits-all.safetensors"
        prior = {"weights": str(own)} if own.exists() else {}
        methods = ("average", "projected")
        return [_runs(session, "digits-tiny", "digits-pairs", methods, ("class-split", "3"), settings={"projected": prior}, more=("--budget", "quick"))]
    learnt = [_lass(session), *_masks(session), *_generators(session)]
    bfloat16 = {name: {"precision": "bfloat16"} for name in ("projected-4x", "projected-auto")}
    classical = [
        _runs(session, "mnist-auto", "mnist-pairs", ("projected-auto", "projected-4x"), ("", "6000"), settings=bfloat16, needs="mnist"),
        _runs(session, "mnist-classical", "mnist-pairs", CLASSICAL, ("", ""), more=("--latency",), needs="mnist"),
        _runs(session, "drums-bass-synth", "drums-bass-synth", AUDIO, ("", "")),
    ]
    return [*_samplers(session), *learnt, *_on_cifar10(session), *classical]


def _runs(
    session: Session,
    name: str,
    suite: str,
    methods: Sequence[str],
    *tasks: tuple[str, str],
    settings: Mapping[str, Mapping[str, object]] | None = None,
    more: Sequence[str] = (),
    needs: str = "",
) -> Stage:
    """Runs one after the other into one folder or, where tasks differ, one for each: pairs of a task and a limit, empty for all."""
    pairs = [f"{method}.{key}={value}" for method, values in (settings or {}).items() if method in methods for key, value in values.items()]
    commands = []
    for task, limit in tasks:
        command = [*SEPBENCH, "run", "--suite", suite, *(("--methods", ",".join(methods)) if methods else ()), "--device", session.device]
        command += [part for pair in pairs for part in ("--set", pair)] + ["--no-keep-estimates", *more]
        command += [*(("--tasks", task) if task else ()), *(("--limit", limit) if limit else ())]
        commands.append(shlex.join([*command, "--out", str(session.work / "runs" / (f"{name}-{task}" if len({one for one, _ in tasks}) > 1 else name))]))
    # one that fails does not stop the next
    script = f"code=0; {'; '.join(f'{command} || code=$?' for command in commands)}; exit $code"
    return Stage(f"run-{name}", ("bash", "-c", script), 900, 10 if session.tiny else 25, "" if session.tiny else needs, alone=False)


def _samplers(session: Session) -> list[Stage]:
    bfloat16 = {name: {"precision": "bfloat16"} for name in (*BASIS, "basis-ncsn-per-class", "projected-4x", "projected-8x", "projected-16x")}
    return [
        _runs(session, "mnist-basis", "mnist-pairs", BASIS, ("class-split", "500"), ("class-agnostic", "500"), settings=bfloat16, needs="mnist"),
        _runs(session, "mnist-per-class", "mnist-pairs", ("basis-ncsn-per-class",), ("class-split", "500"), settings=bfloat16, needs="mnist"),
        _runs(session, "mnist-quads", "mnist-quads", ("projected-4x", "basis-ncsn"), ("quads", "200"), settings=bfloat16, needs="mnist"),
        _runs(session, "mnist-projected", "mnist-pairs", ("projected-8x", "projected-16x"), ("", "500"), settings=bfloat16, needs="mnist"),
    ]


def _lass(session: Session) -> Stage:
    """One fit for all: the sampler on validation mixtures, then the test ones."""
    fit = dict.fromkeys(LASS, LASS_FIT)
    parts = [
        _runs(session, "lass", "mnist-lass", ("lass",), ("permuted", "1000"), settings=fit, needs="mnist"),
        _runs(session, "lass-val", "mnist-lass", LASS, ("permuted-val", "200"), settings=fit),
        _runs(session, "lass-pairs", "mnist-pairs", ("lass",), ("class-agnostic", "1000"), settings=fit),
        _runs(session, "lass", "mnist-lass", ("lass",), ("permuted", "10000"), settings=fit),
        _runs(session, "lass-table-3", "mnist-lass", LASS[1:], ("permuted", "1000"), settings=fit),
    ]
    scripts = [part.command[-1].removeprefix("code=0; ").removesuffix("; exit $code") for part in parts]
    script = f"code=0; {'; '.join(scripts)}; exit $code"
    return replace(parts[0], name="run-lass", command=("bash", "-c", script))


def _masks(session: Session) -> list[Stage]:
    """Table 1 of NES: a stage for each direction and group of methods."""
    groups = (("nes",), ("nes-code",), ("glom", "nes-glom"), ("supervised", "am", "nes-am"), ("supervised-unet", "nes-unet"))
    return [_runs(session, f"{names[0]}-{task}", "mnist-nes", names, (task, ""), needs="mnist") for names in groups for task in NES_TASKS]


def _generators(session: Session) -> list[Stage]:
    return [_runs(session, "s-d", "mnist-pairs", ("s-d-1", "s-d", "s-d-32"), ("class-agnostic", "500"), ("class-split", "500"), needs="mnist")]


def _on_cifar10(session: Session) -> list[Stage]:
    """With the prior of this session."""
    made = []
    for dataset in ("cifar10", "cifar10-mini"):
        weights = session.work / f"{dataset}-all.safetensors"
        if weights.exists():
            own = {name: {"precision": "bfloat16", "weights": weights} for name in ("projected-4x", "gaussian")}
            made.append(_runs(session, f"{dataset}-pairs", f"{dataset}-pairs", ("projected-4x",), ("", "2000"), settings=own, needs=dataset))
            made.append(_runs(session, f"{dataset}-color", f"{dataset}-color", ("gaussian",), ("", "2000"), settings=own, needs=dataset))
    return made
