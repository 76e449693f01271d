"""Where a run's numbers come from: everything that ``run.json`` holds, and which part of it must agree before a run is resumed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import sepbench
from sepbench.run.plan import MethodEntry, Plan
from sepbench.run.source import source_sha256

FORMAT = 1
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
)

RunRecord = dict[str, Any]


def run_record(plan: Plan, command: str) -> RunRecord:
    """The contents of ``run.json``, as JSON would give them back.

    Args:
        plan: what is going to run.
        command: the exact command line.
    """
    request, facts = plan.request, environment(plan.device)
    record = {
        "format": FORMAT,
        "sepbench_version": sepbench.__version__,
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "suite": {"name": plan.suite.name, "version": plan.suite.version} | _suite_file(request.suite),
        "tasks": {name: _task_record(plan, name) for name in plan.tasks},
        "methods": {name: _method_record(entry) for name, entry in plan.methods.items()},
        "metrics": list(plan.metrics),
        "seed": request.seed,
        "budget": request.budget,
        "device": plan.device,
        "limit": request.limit,
        "shard_size": request.shard_size,
        "timing_group": timing_group(plan.device),
        "environment": facts,
    }
    return json.loads(json.dumps(record, default=str))  # type: ignore[no-any-return]


def _suite_file(asked: str) -> dict[str, str]:
    """Where a suite lies that was asked for by its file and not by its name."""
    return {"path": str(Path(asked).resolve())} if asked.endswith(".toml") else {}


def _task_record(plan: Plan, name: str) -> dict[str, Any]:
    task = plan.tasks[name]
    return {
        "digest": task.digest,
        "pairs_sha256": task.pairs_sha256,
        "mixtures_sha256": task.mixtures_sha256,
        "n_examples": task.n_examples,
        "n_planned": plan.n_planned(name),
    }


def _method_record(entry: MethodEntry) -> dict[str, Any]:
    info, cls = entry.info, entry.cls
    record = {
        "version": info.version,
        "title": info.title,
        "supervision": info.supervision,
        "bound": info.bound,
        "deterministic": info.deterministic,
        "settings": dict(entry.settings),
        "source": f"{cls.__module__}:{cls.__qualname__}",
        "source_sha256": source_sha256(cls),
    }
    stated = {"weights_sha256": entry.weights_sha256, "files": entry.files}
    return record | {key: value for key, value in stated.items() if value}


def identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's record that decides its numbers, flat: two sessions may write into one folder only if all of it agrees."""
    flat: dict[str, Any] = {
        "suite": record["suite"]["name"],
        "suite version": record["suite"]["version"],
        "tasks": list(record["tasks"]),
        "methods": list(record["methods"]),
    }
    for name, task in record["tasks"].items():
        flat |= {f"{key} of task {name}": task[key] for key in ("pairs_sha256", "mixtures_sha256", "n_planned")}
    for name, method in record["methods"].items():
        flat |= {f"{key} of method {name}": method.get(key, "") for key in ("version", "settings", "source", "source_sha256", "weights_sha256", "files")}
    flat |= {key: record[key] for key in ("seed", "budget", "device", "limit", "shard_size", "timing_group", "sepbench_version")}
    flat["torch version"] = record["environment"]["packages"].get("torch", "")
    return flat


def short_hash(record: Mapping[str, Any]) -> str:
    """Eight hex digits of the run's identity: the same command on the same code and data gives the same folder name."""
    return hashlib.sha256(json.dumps(identity(record), sort_keys=True).encode()).hexdigest()[:8]


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions, processor, threads, git state and GPU: what decides numbers in the last digits, and speed.

    ``threads`` is torch's number of threads; ``git_sha`` is empty outside a source checkout; ``gpu`` is empty on the CPU.
    """
    sha, dirty = git_state(Path(sepbench.__file__).resolve().parent.parent)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", ""),
        "packages": package_versions(),
        "git_sha": sha,
        "git_dirty": dirty,
        "gpu": gpu_name(device),
    }


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
    """Rows with the same group may be compared in time: processor, threads and precision, or GPU and precision."""
    # torch calls float32 products that are rounded to TF32 or bfloat16 inside "high" and "medium" precision.
    precision = {"highest": "float32", "high": "tf32", "medium": "bf16"}[torch.get_float32_matmul_precision()]
    if torch.device(device).type == "cuda":
        return f"cuda:{gpu_name(device)}:{precision}"
    return f"cpu:{cpu_model()}:{torch.get_num_threads()}threads:{precision}"


def git_state(root: Path) -> tuple[str, bool]:
    """Commit and whether anything differs from it; ``("", False)`` without git, a checkout or a commit."""
    if not (root / ".git").exists():
        return "", False
    sha = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    return (sha, bool(_git(root, "status", "--porcelain"))) if sha else ("", False)


def _git(root: Path, *arguments: str) -> str:
    try:
        # "--no-optional-locks": a benchmark that runs beside an editor must not fight for the index.
        done = subprocess.run(["git", "--no-optional-locks", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
