"""Records of runs that are written by hand: every entry of an identity, what grows, what a folder is called, and what is asked of the machine."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import run_fakes
import torch

from sepbench.run import provenance
from sepbench.run.plan import MethodEntry
from sepbench.run.provenance import arithmetic, conflict, cpu_model, default_folder, git_state, grown, identity, run_record, short_hash, timing_group
from sepbench.run.records import RunRecord
from sepbench.run.source import source_sha256

CONTENT: dict[str, Any] = {
    **{"format": 2, "sepbench_version": "1.2", "command": "sepbench run", "created": "then", "suite": {"name": "s", "version": 4, "path": "a.toml"}},
    **{"tasks": {"t": {"digest": "d", "pairs_sha256": "pp", "mixtures_sha256": "mm", "n_examples": 9, "n_planned": 5}}, "metrics": ["psnr"]},
    "methods": {
        "m": {
            **{"version": "7", "title": "M", "supervision": "blind", "bound": "", "deterministic": True, "settings": {"rank": 3}, "files": {"f": {"a": "00"}}},
            **{"source": "x:M", "source_sha256": "src", "weights_sha256": "www"},
        }
    },
    **{"grid": {"t": ["m"]}, "seed": 0, "fit_seed": 1, "budget": "paper", "device": "cpu", "limit": 5, "shard_size": 8, "timing_group": "cpu:x"},
    **{"environment": {"packages": {"torch": "2", "numpy": "1"}, "cpu": "Chip"}, "sessions": [{"command": "one", "created": "then"}]},
}
IDENTITY: dict[str, Any] = {
    **{"suite": "s", "suite version": 4, "pairs_sha256 of task t": "pp", "mixtures_sha256 of task t": "mm", "version of method m": "7"},
    **{"settings of method m": {"rank": 3}, "files of method m": {"f": {"a": "00"}}, "source of method m": "x:M", "source_sha256 of method m": "src"},
    **{"weights_sha256 of method m": "www", "seed": 0, "fit_seed": 1, "budget": "paper", "device": "cpu", "shard_size": 8, "timing_group": "cpu:x"},
    **{"sepbench_version": "1.2", "torch version": "2"},
}


def record(*changes: tuple[tuple[str, ...], Any]) -> RunRecord:
    """The content above with other values at some places."""
    content = json.loads(json.dumps(CONTENT))
    for path, value in changes:
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return RunRecord.model_validate(content)


def test_the_identity_of_a_run_entry_by_entry() -> None:
    assert identity(record()) == IDENTITY
    assert list(identity(record())) == list(IDENTITY)  # the first that differs is the one that is told
    assert identity(record((("environment", "packages"), {})))["torch version"] == ""


DECIDES: dict[str, tuple[tuple[str, ...], Any]] = {
    **{"suite": (("suite", "name"), "other"), "suite version": (("suite", "version"), 5), "seed": (("seed",), 1), "fit_seed": (("fit_seed",), None)},
    **{f"{key} of task t": (("tasks", "t", key), "other") for key in ("pairs_sha256", "mixtures_sha256")},
    **{f"{key} of method m": (("methods", "m", key), "other") for key in ("version", "source", "source_sha256", "weights_sha256")},
    **{f"{key} of method m": (("methods", "m", key), {"other": {"a": "1"}}) for key in ("settings", "files")},
    **{key: ((key,), "other") for key in ("budget", "device", "timing_group", "sepbench_version")},
    **{"shard_size": (("shard_size",), None), "torch version": (("environment", "packages", "torch"), "other")},
}
DECIDES_NOTHING: list[tuple[tuple[str, ...], Any]] = [
    *(((key,), "other") for key in ("command", "created")),
    *((("methods", "m", key), "other") for key in ("title", "supervision", "bound")),
    *((("environment", key), value) for key, value in (("cpu", "other"), ("packages", {"torch": "2", "numpy": "9"}))),
    *((("tasks", "t", key), value) for key, value in (("digest", "other"), ("n_planned", 3))),
    *((("suite", "path"), "other"), (("metrics",), ["mse"]), (("limit",), 3)),
]


@pytest.mark.parametrize("key", DECIDES)
def test_what_decides_numbers_is_a_conflict_that_names_both_values(key: str) -> None:
    assert set(DECIDES) == set(IDENTITY)
    other = record(DECIDES[key])
    assert conflict(record(), other) == (key, IDENTITY[key], DECIDES[key][1])
    assert short_hash(other) != short_hash(record())


def test_what_decides_no_number_is_no_conflict() -> None:
    for change in DECIDES_NOTHING:
        assert conflict(record(), record(change)) is None, change
    assert conflict(record(), record(DECIDES["device"], DECIDES["suite"])) == ("suite", "s", "other")  # the first of two


def test_a_run_s_folder_is_called_after_its_identity_and_extent() -> None:
    whole = IDENTITY | {"tasks": ["t"], "methods": ["m"], "limit": 5}
    expected = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:8]
    assert default_folder(record()) == Path("runs") / f"s-{expected}"
    task, method = CONTENT["tasks"]["t"], CONTENT["methods"]["m"]
    extents = [record(), record((("limit",), None)), record((("tasks",), {"t": task, "u": task})), record((("methods",), {"m": method, "n": method}))]
    assert len({short_hash(one) for one in extents}) == 4


@pytest.mark.parametrize(("there", "here", "limit"), [(None, 5, None), (5, None, None), (None, None, None), (5, 9, 9), (9, 5, 9)])
def test_a_run_grows_to_the_larger_of_two_limits(there: int | None, here: int | None, limit: int | None) -> None:
    assert grown(record((("limit",), there)), record((("limit",), here))).limit == limit


@pytest.mark.parametrize(("there", "here"), [(3, 8), (8, 3)])
def test_a_run_grows_by_tasks_methods_and_sessions(there: int, here: int) -> None:
    """The record of a method that both have is the newer one; the digest of a task too, with the larger number of mixtures."""
    old = record((("tasks", "t", "n_planned"), there), (("command",), "first"))
    task, method = CONTENT["tasks"]["t"] | {"n_planned": here, "digest": "new"}, CONTENT["methods"]["m"] | {"title": "new"}
    new = record(
        *((("tasks",), {"u": task, "t": task}), (("methods",), {"n": method, "m": method}), (("grid",), {"u": ["n"], "t": ["n", "m"]})),
        *((("sessions",), [{"command": "two", "created": "now"}]), (("command",), "second")),
    )
    whole = grown(old, new)
    assert [(name, one.n_planned, one.digest) for name, one in whole.tasks.items()] == [("t", 8, "new"), ("u", here, "new")]
    assert [(name, one.title) for name, one in whole.methods.items()] == [("m", "new"), ("n", "new")]
    assert whole.grid == {"t": ["m", "n"], "u": ["n"]}
    assert [one.command for one in whole.sessions] == ["one", "two"]
    assert whole.command == "first"
    assert old == record((("tasks", "t", "n_planned"), there), (("command",), "first"))


# ---- what a plan says ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(("supervision", "bound"), [("sources", ""), ("bound", "upper")])
def test_the_record_of_a_method_is_what_it_says_of_itself(deterministic: bool, supervision: Any, bound: Any) -> None:
    said = run_fakes.info("m", supervision, title="a\nb", version="1\n2", bound=bound, deterministic=deterministic)
    entry = MethodEntry(said, run_fakes.Halves, {"path": Path("a/b"), 3: (1, 2)}, "ab", {"f": {"x": "00"}})  # type: ignore[dict-item]
    assert provenance._method_record(entry).mapping() == {
        **{"version": "1 2", "title": "a b", "supervision": supervision, "bound": bound, "deterministic": deterministic},
        **{"settings": {"path": "a/b", "3": [1, 2]}, "files": {"f": {"x": "00"}}, "weights_sha256": "ab"},
        **{"source": "run_fakes:Halves", "source_sha256": source_sha256(run_fakes.Halves)},
    }


def test_the_record_of_a_run_is_of_its_request(planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("halves", seed=3, fit_seed=4, budget="quick", limit=7, shard_size=None)
    monkeypatch.setattr(provenance, "timing_group", lambda device: f"group of {device}")
    made = run_record(replace(plan, metrics=("psnr", "mse")), "x", "ray", 6)
    assert (made.seed, made.fit_seed, made.budget, made.device, made.limit, made.shard_size) == (3, 4, "quick", "cpu", 7, None)
    assert (made.metrics, made.timing_group, made.suite.path) == (["psnr", "mse"], "group of cpu", "")
    assert [(one.backend, one.workers) for one in made.sessions] == [("ray", 6)]
    monkeypatch.chdir(tmp_path)
    own = run_record(replace(plan, request=replace(plan.request, suite="own.toml")), "x")
    assert (own.suite.name, own.suite.path) == ("digits-pairs", str(tmp_path.resolve() / "own.toml"))


# ---- the machine -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("vendor_id\t: V\nmodel\t\t: 85\nmodel name\t: A: Chip \nmodel name\t: Other\n", "A: Chip"),
        ("processor\t: 0\nmodel\t: 85\n", "of the platform"),  # ARM has no such line
        ("", "of the platform"),
    ],
)
@pytest.mark.parametrize("processor", ["of the platform", ""])
def test_the_processor_s_name(monkeypatch: pytest.MonkeyPatch, text: str, found: str, processor: str) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, **options: {"/proc/cpuinfo": text}[str(self)])
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "of the machine")
    assert cpu_model() == (found if processor else found.replace("platform", "machine"))


@pytest.mark.parametrize(("asked", "name"), [("highest", "float32"), ("high", "tf32"), ("medium", "bf16")])
@pytest.mark.parametrize(("bfloat16", "lacks"), [(True, ""), (False, ":without bfloat16")])
def test_groups_of_seconds_and_of_fits(monkeypatch: pytest.MonkeyPatch, asked: str, name: str, bfloat16: bool, lacks: str) -> None:
    monkeypatch.delenv("SEPBENCH_SHARED", raising=False)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: asked)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(provenance, "cpu_model", lambda: "Chip")
    monkeypatch.setattr(provenance, "gpu_name", lambda device: f"GPU {device}")
    monkeypatch.setattr(provenance, "computes_bfloat16", lambda device: bfloat16)
    assert (timing_group("cpu"), timing_group("cuda:1")) == (f"cpu:Chip:3threads:{name}", f"cuda:GPU cuda:1:{name}")
    assert (arithmetic("cpu"), arithmetic("cuda:1")) == (f"cpu:3threads:{name}{lacks}", f"cuda:{name}{lacks}")
    monkeypatch.setenv("SEPBENCH_SHARED", "1")
    assert (timing_group("cpu"), timing_group("cuda:1")) == (f"cpu:Chip:3threads shared:{name}", f"cuda:GPU cuda:1 shared:{name}")


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([(0, "abc\n"), (0, "")], ("abc", False)),
        ([(0, "abc\n"), (0, " M file\n")], ("abc", True)),
        ([(1, "abc\n"), (0, " M file\n")], ("", False)),  # no commit yet
        ([(0, "abc\n"), (1, " M file\n")], ("abc", False)),
        ([OSError()], ("", False)),
        ([subprocess.TimeoutExpired("git", 20)], ("", False)),
    ],
    ids=str,
)
def test_what_git_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: list[Any], state: tuple[str, bool]) -> None:
    asked: list[tuple[list[str], dict[str, Any]]] = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        asked.append((command, options))
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(returncode=answer[0], stdout=answer[1])

    (tmp_path / ".git").write_text("gitdir: elsewhere")  # a worktree has a file there
    monkeypatch.setenv("SEPBENCH_COMMIT", "of a copy")
    monkeypatch.setattr(subprocess, "run", run)
    assert git_state(tmp_path) == state
    head = ["git", "--no-optional-locks", "-C", str(tmp_path)]
    wanted = [[*head, "rev-parse", "--verify", "--quiet", "HEAD"], [*head, "status", "--porcelain"]]
    assert [command for command, _ in asked] == wanted[: len(asked)]
    assert asked[0][1] == {"capture_output": True, "text": True, "timeout": 20, "check": False}


def test_a_copy_that_nobody_tells_its_commit_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SEPBENCH_COMMIT", raising=False)
    assert git_state(tmp_path) == ("", False)
