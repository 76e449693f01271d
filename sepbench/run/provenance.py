"""Where a run's numbers come from: everything that ``run.json`` holds, and which part of it must agree before a run is resumed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sepbench
from sepbench.errors import flat
from sepbench.precision import computes_bfloat16
from sepbench.registry import own_suite
from sepbench.run.plan import MethodEntry, Plan
from sepbench.run.records import EnvironmentRecord, MethodRecord, RunRecord, SessionRecord, SuiteRecord, TaskRecord
from sepbench.run.source import source_sha256
from sepbench.torch_later import torch

SHARED, COMMIT = "SEPBENCH_SHARED", "SEPBENCH_COMMIT"
FORMAT = 2
"""Of a run's folder. Folders of format 1 (before shards were cut by cost) can be read, and not gone on with."""
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "safetensors",
    "pooch",
    "torchvision",
    "torch-fidelity",
    "scikit-image",
    "museval",
    "nussl",
    "librosa",
    "soundfile",
    "ray",
    "pydantic",
)


def run_record(plan: Plan, command: str, backend: str = "local", workers: int = 1) -> RunRecord:
    """The contents of ``run.json`` for a run that begins now.

    Args:
        plan: what is going to run.
        command: the exact command line.
        backend, workers: who is going to do it.
    """
    request, facts = plan.request, environment(plan.device)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return RunRecord(
        format=FORMAT,
        sepbench_version=sepbench.__version__,
        command=command,
        created=created,
        suite=SuiteRecord(name=plan.suite.name, version=plan.suite.version, path=str(own.resolve()) if (own := own_suite(request.suite)) else ""),
        tasks={name: _task_record(plan, name) for name in plan.tasks},
        methods={name: _method_record(entry) for name, entry in plan.methods.items()},
        grid={name: list(plan.methods) for name in plan.tasks},
        metrics=list(plan.metrics),
        seed=request.seed,
        fit_seed=request.fit_seed,
        budget=request.budget,
        device=plan.device,
        limit=request.limit,
        shard_size=request.shard_size,
        timing_group=timing_group(plan.device),
        environment=facts,
        sessions=[SessionRecord(command=command, created=created, git_sha=commit(facts), backend=backend, workers=workers)],
    )


def commit(environment: EnvironmentRecord) -> str:
    """The commit, marked where files differ from it."""
    return environment.git_sha + ("-dirty" if environment.git_sha and environment.git_dirty else "")


def _task_record(plan: Plan, name: str) -> TaskRecord:
    task = plan.tasks[name]
    return TaskRecord(
        digest=task.digest,
        pairs_sha256=task.pairs_sha256,
        mixtures_sha256=task.mixtures_sha256,
        n_examples=task.n_examples,
        n_planned=plan.n_planned(name),
    )


def _method_record(entry: MethodEntry) -> MethodRecord:
    info, cls = entry.info, entry.cls
    return MethodRecord(
        version=flat(info.version),
        title=flat(info.title),
        supervision=info.supervision,
        bound=info.bound,
        deterministic=info.deterministic,
        settings=json.loads(json.dumps(dict(entry.settings), default=str)),
        files={setting: dict(paths) for setting, paths in entry.files.items()},
        source=f"{cls.__module__}:{cls.__qualname__}",
        source_sha256=source_sha256(cls),
        weights_sha256=entry.weights_sha256,
    )


def identity(record: RunRecord) -> dict[str, Any]:
    """The part of a run's record that decides its numbers, flat. Sessions write into one folder only if what they share of it agrees."""
    flat: dict[str, Any] = {"suite": record.suite.name, "suite version": record.suite.version}
    for name, task in record.tasks.items():
        flat |= {f"{key} of task {name}": getattr(task, key) for key in ("pairs_sha256", "mixtures_sha256")}
    for name, method in record.methods.items():
        for key in ("version", "settings", "files", "source", "source_sha256", "weights_sha256"):
            flat[f"{key} of method {name}"] = getattr(method, key)
    flat |= {key: getattr(record, key) for key in ("seed", "fit_seed", "budget", "device", "shard_size", "timing_group", "sepbench_version")}
    flat["torch version"] = record.environment.packages.get("torch", "")
    return flat


def conflict(there: RunRecord, here: RunRecord) -> tuple[str, Any, Any] | None:
    """The first entry of two identities that differs, with both values; tasks and methods that only one of them has are no conflict."""
    old, new = identity(there), identity(here)
    return next(((key, old[key], new[key]) for key in new if key in old and old[key] != new[key]), None)


def grown(there: RunRecord, here: RunRecord) -> RunRecord:
    """A run's record after a session of more mixtures, methods or tasks: what either has, and the larger numbers of mixtures."""
    tasks = dict(there.tasks)
    for name, task in here.tasks.items():
        before = tasks.get(name)
        tasks[name] = task if before is None else task.model_copy(update={"n_planned": max(task.n_planned, before.n_planned)})
    limit = None if there.limit is None or here.limit is None else max(there.limit, here.limit)
    sessions = [*there.sessions, *here.sessions]
    asked = [[*(there.methods_on(name) if name in there.tasks else []), *(here.methods_on(name) if name in here.tasks else [])] for name in tasks]
    grid = {name: list(dict.fromkeys(methods)) for name, methods in zip(tasks, asked, strict=True)}
    return there.model_copy(update={"tasks": tasks, "methods": there.methods | here.methods, "grid": grid, "limit": limit, "sessions": sessions})


def short_hash(record: RunRecord) -> str:
    """Eight hex digits of the run's identity and extent: the same command on the same code and data gives the same folder name."""
    whole = identity(record) | {"tasks": list(record.tasks), "methods": list(record.methods), "limit": record.limit}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:8]


def default_folder(record: RunRecord) -> Path:
    """Where a run goes that names no folder: ``runs/SUITE-HASH`` below the working folder."""
    return Path("runs") / f"{record.suite.name}-{short_hash(record)}"


def environment(device: str = "cpu") -> EnvironmentRecord:
    """Versions, processor, threads, git state and GPU: what decides numbers in the last digits, and speed.

    ``threads`` is torch's number of threads; ``git_sha`` is empty outside a source checkout; ``gpu`` is empty on the CPU.
    """
    sha, dirty = git_state(Path(sepbench.__file__).resolve().parent.parent)
    return EnvironmentRecord(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu_model(),
        instruction_set=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        omp_num_threads=os.environ.get("OMP_NUM_THREADS", ""),
        packages=package_versions(),
        git_sha=sha,
        git_dirty=dirty,
        gpu=gpu_name(device),
    )


def package_versions() -> dict[str, str]:
    """Versions of the installed packages among those that numbers depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """Name of the processor, as the kernel knows it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpu_name(device: str) -> str:
    """Name of a CUDA device; empty for the CPU."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else ""


def timing_group(device: str) -> str:
    """Rows with the same group may be compared in time: processor, threads and precision, or GPU and precision.

    ``SEPBENCH_SHARED=1`` says that other work runs on the machine at the same time: such seconds are a group of their own, with the word ``shared``.
    """
    shared = " shared" if os.environ.get(SHARED) else ""
    if torch.device(device).type == "cuda":
        return f"cuda:{gpu_name(device)}{shared}:{_precision()}"
    return f"cpu:{cpu_model()}:{torch.get_num_threads()}threads{shared}:{_precision()}"


def arithmetic(device: str) -> str:
    """What decides a fit's numbers besides the processor: kind of device, threads, precision of products, and whether bfloat16 is computed."""
    kind = torch.device(device).type
    threads = f":{torch.get_num_threads()}threads" if kind == "cpu" else ""
    return f"{kind}{threads}:{_precision()}{'' if computes_bfloat16(device) else ':without bfloat16'}"


def _precision() -> str:
    # torch calls float32 products that are rounded to TF32 or bfloat16 inside "high" and "medium" precision.
    return {"highest": "float32", "high": "tf32", "medium": "bf16"}[torch.get_float32_matmul_precision()]


def git_state(root: Path) -> tuple[str, bool]:
    """Commit and whether anything differs from it; ``("", False)`` without git, a checkout or a commit.

    A copy without ``.git``, on a machine that is lent say, is told its commit by ``SEPBENCH_COMMIT``; that it is unchanged is whoever copied it's word, which
    the digest of the source beside it holds them to.
    """
    if not (root / ".git").exists():
        return os.environ.get(COMMIT, ""), False
    sha = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    return (sha, bool(_git(root, "status", "--porcelain"))) if sha else ("", False)


def _git(root: Path, *arguments: str) -> str:
    try:
        # "--no-optional-locks": a benchmark that runs beside an editor must not fight for the index.
        done = subprocess.run(["git", "--no-optional-locks", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
