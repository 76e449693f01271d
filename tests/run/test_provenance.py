"""``run.json``: complete, plain JSON, and an identity that moves when the numbers would."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import run_fakes
import torch

from sepbench.run import provenance
from sepbench.run.plan import Plan
from sepbench.run.provenance import conflict, environment, git_state, grown, identity, run_record, short_hash, timing_group
from sepbench.run.records import CellRecord, RunRecord
from sepbench.run.source import source_sha256

Planned = Callable[..., Plan]


def test_a_record_holds_everything_and_is_json(planned: Planned) -> None:
    record = run_record(planned("halves", "oracle", seed=3, settings={"halves": {"gain": 0.5}}), "sepbench run --suite digits-pairs", "ray", 3)
    assert RunRecord.model_validate(json.loads(json.dumps(record.mapping()))) == record
    assert record.format == 2
    assert record.command == "sepbench run --suite digits-pairs"
    assert record.suite.name == "digits-pairs"
    task = record.tasks["class-split"]
    assert (task.n_examples, task.n_planned, len(task.pairs_sha256), len(task.digest)) == (1000, 10, 64, 64)
    method = record.methods["halves"]
    assert method.settings == {"gain": 0.5, "rank": 3, "mode": "plain", "fast": False}
    assert method.source == "run_fakes:Halves"
    assert method.source_sha256 == source_sha256(run_fakes.Halves)
    assert record.methods["oracle"].bound == "upper"
    assert (record.seed, record.budget, record.device, record.limit, record.shard_size) == (3, "paper", "cpu", 10, 4)
    assert record.timing_group.startswith("cpu:")
    assert f":{torch.get_num_threads()}threads:float32" in record.timing_group
    assert record.methods_on("class-split") == ["halves", "oracle"]
    assert [(session.backend, session.workers) for session in record.sessions] == [("ray", 3)]


def test_environment_names_what_decides_numbers() -> None:
    facts = environment()
    assert facts.packages["torch"] == torch.__version__.split("+")[0] or facts.packages["torch"] == torch.__version__
    assert facts.threads == torch.get_num_threads()
    assert facts.instruction_set == torch.backends.cpu.get_cpu_capability()
    assert facts.cpu
    assert facts.gpu == ""
    assert isinstance(facts.git_dirty, bool)


CHANGES = {
    "seed": {"seed": 1},
    "limit": {"limit": 9},
    "shards": {"shard_size": 5},
    "budget": {"budget": "quick"},
    "settings": {"settings": {"halves": {"gain": 0.5}}},
    "tasks": {"tasks": ("class-agnostic",)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_identity_moves_with_the_request(planned: Planned, change: dict[str, object]) -> None:
    one, other = run_record(planned("halves"), "x"), run_record(planned("halves", **change), "x")
    assert short_hash(one) != short_hash(other)


def test_identity_stays_for_the_same_request(planned: Planned) -> None:
    one, other = run_record(planned("halves"), "one"), run_record(planned("halves", keep_estimates=False, latency=True), "other")
    other.created = "another day"
    assert identity(one) == identity(other)
    assert short_hash(one) == short_hash(other)


def test_identity_moves_with_sources_data_and_machine(planned: Planned) -> None:
    plan = planned("halves")
    record = run_record(plan, "x")
    for path in (
        ("methods", "halves", "source_sha256"),
        ("tasks", "class-split", "mixtures_sha256"),
        ("suite", "name"),
        ("timing_group",),
        ("environment", "packages", "torch"),
    ):
        changed = record.mapping()
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = "changed"
        other = RunRecord.model_validate(changed)
        assert identity(other) != identity(record), path
        assert conflict(record, other) is not None


def test_more_of_everything_is_no_conflict(planned: Planned) -> None:
    one = run_record(planned("halves"), "x")
    other = run_record(planned("noisy", "halves", tasks=("class-agnostic", "class-split"), limit=12), "y")
    assert conflict(one, other) is None
    whole = grown(one, other)
    assert (list(whole.methods), list(whole.tasks), whole.limit) == (["halves", "noisy"], ["class-split", "class-agnostic"], 12)
    assert (whole.methods_on("class-split"), whole.methods_on("class-agnostic")) == (["halves", "noisy"], ["noisy", "halves"])
    assert [session.command for session in whole.sessions] == ["x", "y"]
    assert whole.tasks["class-split"].n_planned == 12


def test_weights_stand_in_the_record(planned: Planned) -> None:
    plan = planned("halves")
    entry = replace(plan.methods["halves"], weights_sha256="ab")
    record = run_record(replace(plan, methods={"halves": entry}), "x")
    assert record.methods["halves"].weights_sha256 == "ab"
    assert identity(record) != identity(run_record(plan, "x"))


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True, capture_output=True)


def test_git_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) == ("", False)
    _git(tmp_path, "init", "-q")
    assert git_state(tmp_path) == ("", False)
    (tmp_path / "file").write_text("one")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "one")
    sha, dirty = git_state(tmp_path)
    assert (len(sha), dirty) == (40, False)
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == (sha, True)


def test_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == ("", False)


def test_precision_is_part_of_the_timing_group() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert timing_group("cpu").endswith(":tf32")
    finally:
        torch.set_float32_matmul_precision(before)
    assert timing_group("cpu").endswith({"highest": ":float32", "high": ":tf32", "medium": ":bf16"}[before])


def test_cpu_model_off_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance.Path, "read_text", lambda self, **options: (_ for _ in ()).throw(OSError()))
    assert provenance.cpu_model()


def test_a_copy_without_git_is_told_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEPBENCH_COMMIT", "abc123")
    assert git_state(tmp_path) == ("abc123", False)


def test_seconds_of_a_shared_machine_are_a_group_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = timing_group("cpu")
    monkeypatch.setenv("SEPBENCH_SHARED", "1")
    shared = timing_group("cpu")
    assert shared != alone
    assert shared.replace(" shared", "") == alone
    assert shared.rpartition(":")[2] == alone.rpartition(":")[2], "a method's own precision takes the place of the last word"


def test_packages_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"torch": "2.9", "ray": "2.5"}

    def version(name: str) -> str:
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(provenance, "version", version)
    assert provenance.package_versions() == there
    assert environment().packages == there


def test_what_numbers_depend_on_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package that is needed, but those that only read and show texts or fetch files, and those of the extras that compute."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed, extras = (
        {re.split(r"[^\w-]", line)[0] for line in lines}
        for lines in (project["dependencies"], [line for extra in project["optional-dependencies"].values() for line in extra])
    )
    monkeypatch.setattr(provenance, "version", str.upper)
    found = provenance.package_versions()
    assert found == {name: name.upper() for name in provenance.PACKAGES}
    assert needed - found.keys() == {"requests", "platformdirs", "typer", "pyyaml", "rich", "threadpoolctl"}
    assert found.keys() - needed <= extras | {"torchvision"}


def test_facts_of_the_environment_come_from_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(provenance, "git_state", lambda root: ("abc", True) if (root / "pyproject.toml").is_file() else ("wrong folder", False))
    monkeypatch.setattr(provenance, "gpu_name", lambda device: f"name of {device}")
    monkeypatch.setattr(provenance, "cpu_model", lambda: "A Chip")
    facts = environment("cuda:1")
    assert (facts.omp_num_threads, facts.git_sha, facts.git_dirty, facts.gpu, facts.cpu) == ("3", "abc", True, "name of cuda:1", "A Chip")
    assert (facts.python, facts.platform) == (platform.python_version(), platform.platform())
    assert provenance.commit(facts) == "abc-dirty"
    assert provenance.commit(facts.model_copy(update={"git_dirty": False})) == "abc"
    assert provenance.commit(facts.model_copy(update={"git_sha": ""})) == ""
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert environment().omp_num_threads == ""


def test_the_commit_of_a_session_and_the_words_of_a_method_are_one_line(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "git_state", lambda root: ("abc", True))
    plan = planned("halves", fit_seed=7, budget="quick")
    entry = plan.methods["halves"]
    entry = replace(
        entry,
        info=replace(entry.info, title="two\nlines", version="1\n2", deterministic=False),
        files={"prior": {"a.bin": "00"}},
        settings={"path": Path("a/b"), "rank": 3},
    )
    record = run_record(replace(plan, methods={"halves": entry}), "sepbench run")
    assert [(one.command, one.git_sha, one.backend, one.workers, one.created) for one in record.sessions] == [
        ("sepbench run", "abc-dirty", "local", 1, record.created)
    ]
    assert datetime.fromisoformat(record.created).utcoffset() == timedelta(0)
    method = record.methods["halves"]
    assert (method.title, method.version, method.deterministic, method.supervision) == ("two lines", "1 2", False, "blind")
    assert (method.files, method.settings) == ({"prior": {"a.bin": "00"}}, {"path": "a/b", "rank": 3})
    assert (record.fit_seed, record.budget, record.suite.path, record.suite.version) == (7, "quick", "", plan.suite.version)
    assert (record.metrics, record.grid) == (list(plan.metrics), {"class-split": ["halves"]})
    task = plan.tasks["class-split"]
    assert (record.tasks["class-split"].mixtures_sha256, record.tasks["class-split"].digest) == (task.mixtures_sha256, task.digest)


def test_methods_of_a_task_and_entries_of_later_versions(planned: Planned) -> None:
    record = run_record(planned("halves", "noisy"), "x")
    record.grid = {"class-split": ["noisy"]}
    assert (record.methods_on("class-split"), record.methods_on("other")) == (["noisy"], [])
    record.grid = {}
    assert record.methods_on("other") == ["halves", "noisy"]
    later = record.mapping() | {"of the future": [1, 2]}
    assert RunRecord.model_validate(later).mapping() == later
    cell = CellRecord(peak_mb=float("nan"), latency_seconds=float("inf"))
    assert "NaN" in cell.model_dump_json()
    assert "Infinity" in cell.model_dump_json()


def test_a_record_that_grows_leaves_the_old_one_as_it_was(planned: Planned) -> None:
    one, other = run_record(planned("halves"), "x"), run_record(planned("noisy", tasks=("class-agnostic", "class-split"), limit=12), "y")
    before = one.mapping()
    assert grown(one, other).tasks["class-agnostic"].n_planned == 12
    assert one.mapping() == before
