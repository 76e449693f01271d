"""Calls of a method and facts of the machine: what is counted, refused and told, without a run."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import sepbench.run.provenance as provenance
import sepbench.run.separate as separate
from sepbench.run.plan import make_plan
from sepbench.run.records import RunRecord
from sepbench.run.request import RunRequest
from sepbench.run.separate import ContractError
from sepbench.suites.loader import load_suite

SUITE = load_suite("digits-pairs")
SPEC = SUITE.task("class-split").spec


def _ctx(draws: int = 0, device: str = "cpu") -> Any:
    return SimpleNamespace(task=replace(SPEC, posterior_draws=draws), device=device)


# ---- what is returned ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ([1], "separate returned list instead of a tensor"),
        (torch.zeros(3, 2, 1, 8, 8), "separate returned shape (3, 2, 1, 8, 8) instead of (2, 2, 1, 8, 8)"),
        (torch.zeros(2, 2, 1, 8, 8).double(), "separate returned torch.float64 instead of torch.float32"),
        (torch.zeros(2, 2, 1, 8, 8, device="meta"), "separate returned estimates on meta instead of cpu"),
        (torch.zeros(2, 2, 1, 8, 8).to_sparse(), "separate returned a tensor of layout torch.sparse_coo"),
    ],
)
def test_what_is_no_estimate(returned: object, told: str) -> None:
    with pytest.raises(ContractError) as caught:
        separate._checked(returned, _ctx(), 2)
    assert str(caught.value).startswith(told)


def test_draws_have_an_axis_of_their_own() -> None:
    assert separate._checked(torch.zeros(2, 5, 2, 1, 8, 8), _ctx(5), 2).shape == (2, 5, 2, 1, 8, 8)
    with pytest.raises(ContractError, match=r"^sample returned shape \(2, 2, 1, 8, 8\) instead of \(2, 5, 2, 1, 8, 8\)$"):
        separate._checked(torch.zeros(2, 2, 1, 8, 8), _ctx(5), 2)


def test_estimates_are_copied() -> None:
    theirs = torch.zeros(2, 2, 1, 8, 8, requires_grad=True)
    ours = separate._checked(theirs, _ctx(), 2)
    with torch.no_grad():
        theirs += 1
    assert float(ours.max()) == 0.0
    assert not ours.requires_grad


class _Counts:
    def __init__(self, counted: object) -> None:
        self.counted = counted

    def network_evaluations(self) -> object:
        return self.counted


@pytest.mark.parametrize(
    ("counted", "told"),
    [
        (torch.zeros(3), r"shape \(3,\) instead of a tensor of shape \(2,\)"),
        (5, r"returned int instead of a tensor of shape \(2,\)"),
        (torch.tensor([1.0, -1.0]), "below 0 or not finite"),
        (torch.tensor([1.0, torch.inf]), "below 0 or not finite"),
    ],
)
def test_wrong_counts_of_evaluations(counted: object, told: str) -> None:
    with pytest.raises(ContractError, match=told):
        separate._evaluations(_Counts(counted), 2)  # type: ignore[arg-type]


def test_counts_of_evaluations() -> None:
    found = separate._evaluations(_Counts(torch.tensor([0, 3])), 2)  # type: ignore[arg-type]
    assert found is not None
    assert found.tolist() == [0.0, 3.0]
    assert found.dtype == torch.float64
    assert separate._evaluations(_Counts(None), 2) is None  # type: ignore[arg-type]
    assert separate._evaluations(object(), 2) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "unit", "batch", "most", "cuts"),
    [
        ((0, 10), 4, 4, None, [0, 4, 8, 10]),
        ((2, 10), 4, 4, None, [2, 4, 8, 10]),
        ((0, 10), 5, 3, None, [0, 3, 5, 8, 10]),
        ((0, 8), 8, 8, 3, [0, 3, 6, 8]),
        ((1, 8), 4, 4, 2, [1, 2, 4, 6, 8]),
    ],
)
def test_batches_begin_at_the_multiples_of_a_unit(ids: tuple[int, int], unit: int, batch: int, most: int | None, cuts: list[int]) -> None:
    session: Any = SimpleNamespace(cell=SimpleNamespace(unit=unit, batch=batch), most=most)
    found = [part.tolist() for part in separate._batches(torch.arange(*ids), session)]
    assert found == [list(range(*pair)) for pair in itertools.pairwise(cuts)]


def test_memory_that_is_too_short_halves_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most two mixtures fit: ten are tried as 10, 5, 3, 2 ... and all go through."""
    warned: list[str] = []
    teller = SimpleNamespace(warn=warned.append)
    cell = SimpleNamespace(method="m", task=SimpleNamespace(spec=SPEC))
    session: Any = SimpleNamespace(cell=cell, teller=teller, most=None, first_traceback="", ctx=_ctx())
    tried: list[int] = []

    def attempt(session: object, ids: torch.Tensor) -> Any:
        tried.append(len(ids))
        return separate._Failure(torch.cuda.OutOfMemoryError(), "no room") if len(ids) > 2 else len(ids)

    monkeypatch.setattr(separate, "_attempt", attempt)
    monkeypatch.setattr(separate, "release", lambda device: None)
    found = list(separate._attempts(session, torch.arange(10)))
    assert torch.cat([ids for ids, _ in found]).tolist() == list(range(10))
    assert [outcome for _, outcome in found] == [len(ids) for ids, _ in found]
    assert tried[:4] == [10, 5, 3, 2]
    assert session.most == 2
    assert warned[-1] == f"m on {SPEC.name}: out of memory with 10 mixtures at once; 2 from here on"


def test_a_batch_that_fails_is_tried_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = SimpleNamespace(first_traceback="", ctx=_ctx())

    def attempt(session: object, ids: torch.Tensor) -> Any:
        return separate._Failure(ValueError("bad\nthree"), "bad three") if 3 in ids else len(ids)

    monkeypatch.setattr(separate, "_attempt", attempt)
    found = [(ids.tolist(), outcome) for ids, outcome in separate._attempts(session, torch.arange(2, 5))]
    assert [ids for ids, _ in found] == [[2], [3], [4]]
    assert [isinstance(outcome, str) for _, outcome in found] == [False, True, False]
    assert found[1][1] == "bad three"
    monkeypatch.setattr(separate, "_attempt", lambda session, ids: separate._Failure(ContractError("shape"), "shape"))
    assert [ids.tolist() for ids, _ in separate._attempts(session, torch.arange(3))] == [[0, 1, 2]]  # a broken contract fails whole


def test_errors_have_a_bounded_length() -> None:
    assert len(separate.one_line(ValueError("x" * 1_000))) == 300


# ---- the machine -----------------------------------------------------------------------------------------------------------------------


def test_what_the_timing_group_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "cpu_model", lambda: "A Chip")
    monkeypatch.setattr(provenance, "gpu_name", lambda device: f"GPU {device[-1]}")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.delenv(provenance.SHARED, raising=False)
    assert provenance.timing_group("cpu") == "cpu:A Chip:3threads:float32"
    assert provenance.timing_group("cuda:1") == "cuda:GPU 1:float32"
    monkeypatch.setattr(provenance, "computes_bfloat16", lambda device: True)
    assert (provenance.arithmetic("cpu"), provenance.arithmetic("cuda:1")) == ("cpu:3threads:float32", "cuda:float32")
    monkeypatch.setattr(provenance, "computes_bfloat16", lambda device: device != "cpu")  # a fit of one processor is not another's
    assert (provenance.arithmetic("cpu"), provenance.arithmetic("cuda:1")) == ("cpu:3threads:float32:without bfloat16", "cuda:float32")
    monkeypatch.setenv(provenance.SHARED, "1")
    assert provenance.timing_group("cpu") == "cpu:A Chip:3threads shared:float32"
    assert provenance.timing_group("cuda:1") == "cuda:GPU 1 shared:float32"
    for precision, word in (("high", "tf32"), ("medium", "bf16")):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda precision=precision: precision)
        assert provenance.timing_group("cuda:0").endswith(f":{word}")


def test_the_processor_is_the_kernel_s_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: "processor : 0\nmodel name\t: A: Chip \nmodel name\t: other\n")
    assert provenance.cpu_model() == "A: Chip"


def test_the_state_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(provenance.COMMIT, "abc")
    assert provenance.git_state(tmp_path) == ("abc", False)
    for command in ("init -q", "-c user.name=a -c user.email=b commit -q --allow-empty -m x"):
        if command.startswith("-c"):
            assert provenance.git_state(tmp_path) == ("", False)  # no commit yet
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    sha, dirty = provenance.git_state(tmp_path)
    assert len(sha) == 40
    assert not dirty
    (tmp_path / "new").touch()
    assert provenance.git_state(tmp_path) == (sha, True)


def _record(*methods: str, **asked: Any) -> RunRecord:
    asked = {"tasks": ("class-split",), "limit": 5} | asked
    return provenance.run_record(make_plan(RunRequest("digits-pairs", methods, device="cpu", **asked), SUITE), "a command")


def test_what_decides_a_run_s_numbers() -> None:
    here = _record("average")
    assert provenance.conflict(here, here) is None
    for changes, key in (({"seed": 3}, "seed"), ({"budget": "quick"}, "budget"), ({"shard_size": 2}, "shard_size")):
        there = _record("average", **changes)
        found = provenance.conflict(there, here)
        assert found == (key, getattr(there, key), getattr(here, key))
        assert provenance.short_hash(there) != provenance.short_hash(here)
    assert provenance.conflict(_record("nmf"), here) is None  # what only one of them has is no conflict
    other = _record("nmf", settings={"nmf": {"atoms": 3}})
    key, old, new = provenance.conflict(other, _record("nmf")) or ("", {}, {})
    assert key == "settings of method nmf"
    assert old["atoms"] == 3 != new["atoms"]
    for one in (_record("nmf"), _record("average", limit=6)):
        assert provenance.short_hash(one) != provenance.short_hash(here)
    assert provenance.short_hash(_record("average")) == provenance.short_hash(here)
    assert provenance.default_folder(here) == Path("runs") / f"digits-pairs-{provenance.short_hash(here)}"


def test_every_part_of_an_identity_counts() -> None:
    here = _record("average")
    suite, task = here.suite.model_copy(update={"version": 99}), here.tasks["class-split"]
    for changed, told in (
        ({"suite": suite}, ("suite version", 99, here.suite.version)),
        ({"tasks": {"class-split": task.model_copy(update={"pairs_sha256": "x"})}}, ("pairs_sha256 of task class-split", "x", task.pairs_sha256)),
        ({"tasks": {"class-split": task.model_copy(update={"mixtures_sha256": "x"})}}, ("mixtures_sha256 of task class-split", "x", task.mixtures_sha256)),
        ({"sepbench_version": "0"}, ("sepbench_version", "0", here.sepbench_version)),
        ({"device": "cuda"}, ("device", "cuda", "cpu")),
        ({"fit_seed": 7}, ("fit_seed", 7, here.fit_seed)),
    ):
        assert provenance.conflict(here.model_copy(update=changed), here) == told


def test_a_run_that_has_grown() -> None:
    small, large = _record("average", limit=5), _record("nmf", limit=9)
    for there, here in ((small, large), (large, small)):
        whole = provenance.grown(there, here)
        assert whole.limit == 9
        assert whole.tasks["class-split"].n_planned == 9
        assert set(whole.methods) == {"average", "nmf"}
        assert list(whole.grid["class-split"]) == [*there.methods, *here.methods]
        assert len(whole.sessions) == 2
    assert provenance.grown(small, _record("average", limit=None)).limit is None
