"""Training rows by position, over the seams of pools, and what is said where there are none."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sepbench.data.mixtures import Transform
from sepbench.data.views import Pool, PooledRows, TrainingMaterial, content_hashes, make_view, training_digest, without_duplicates
from sepbench.errors import DataError, SupervisionError
from sepbench.suites.loader import load_suite


@dataclass
class Numbers:
    """Signal i of a set that starts at ``first`` is the number first + i."""

    first: int
    count: int = 4
    name: str = "numbers"
    split: str = "train"
    shape: tuple[int, ...] = (1,)

    def __len__(self) -> int:
        return self.count

    def load(self, rows: torch.Tensor) -> torch.Tensor:
        return (self.first + torch.as_tensor(rows, dtype=torch.float32)).unsqueeze(1)


def _pool(*parts: tuple[int, list[int]]) -> Pool:
    return Pool(tuple((Numbers(first), torch.tensor(rows, dtype=torch.int64)) for first, rows in parts))  # type: ignore[misc]


POOL = _pool((10, [3, 0]), (20, []), (30, [1, 2, 3]))  # holds 13, 10, 31, 32, 33


def test_positions_of_a_pool_are_those_of_its_parts_one_after_the_other() -> None:
    assert len(POOL) == 5
    assert POOL.load().squeeze(1).tolist() == [13, 10, 31, 32, 33]
    for limit in (1, 2, 3, 5, 9):
        assert POOL.load(limit).squeeze(1).tolist() == [13, 10, 31, 32, 33][:limit]
    assert POOL.load_rows(torch.tensor([4, 0, 2, 1, 2])).squeeze(1).tolist() == [33, 13, 31, 10, 31]
    assert POOL.load_rows(torch.tensor([], dtype=torch.int64)).shape == (0, 1)
    with pytest.raises(IndexError, match=r"\[0, 5\)"):
        POOL.load_rows(torch.tensor([5]))


def test_rows_outside_are_refused_with_both_ends() -> None:
    rows = PooledRows(3, lambda wanted: wanted.float())
    assert rows.load([0, 2]).tolist() == [0.0, 2.0]
    assert len(rows) == 3
    assert len(rows.load([])) == 0
    for wanted in ([-1, 2], [0, 3], [3]):
        with pytest.raises(IndexError, match=rf"\[0, 3\), got {min(wanted)} to {max(wanted)}"):
            rows.load(wanted)


def _material(**changes: Any) -> TrainingMaterial:
    made = TrainingMaterial(POOL, (_pool((10, [0, 1])), _pool((30, [2]))), _pool((50, [1])), None, torch.arange(0), lambda values: 2 * values, 0)  # type: ignore[arg-type]
    return replace(made, **changes)


TASK = load_suite("digits-pairs").task("class-split").spec


def test_every_accessor_hands_out_its_own_signals_transformed() -> None:
    view = make_view("sources", TASK, _material)
    assert view.sources(0).squeeze(1).tolist() == [20, 22]
    assert view.sources(1).squeeze(1).tolist() == [64]
    assert view.rows("sources", 1).load([0]).squeeze(1).tolist() == [64]
    assert view.rows("sources", 0).load([1, 0]).squeeze(1).tolist() == [22, 20]
    assert view.rows("clean").load([1]).squeeze(1).tolist() == [20]
    assert view.clean(2).squeeze(1).tolist() == [26, 20]
    for slot in (-1, 2):
        with pytest.raises(ValueError, match=rf"\[0, 2\), got {slot}"):
            view.sources(slot)


def test_what_a_task_does_not_have_is_said() -> None:
    view = make_view("mixtures+one", replace(TASK, observed_source=1), lambda: _material(observed=None))
    where = f"{TASK.suite}/{TASK.name}"
    for ask, what in ((view.mixtures, "training mixtures"), (view.observed, "observed samples")):
        with pytest.raises(SupervisionError, match=f"task {where} has no {what}"):
            ask()
    for name, what in (("mixtures", "training mixtures"), ("observed", "observed samples")):
        with pytest.raises(SupervisionError, match=f"task {where} has no {what}"):
            view.rows(name)  # type: ignore[arg-type]
    assert make_view("mixtures+one", replace(TASK, observed_source=1), _material).rows("observed").load([0]).item() == 102
    with pytest.raises(SupervisionError, match="no observed class"):
        make_view("mixtures+one", replace(TASK, observed_source=None), _material).observed()


def test_where_nothing_is_left_the_count_and_the_reason_are_said() -> None:
    empty = _pool((10, []))
    part = make_view("sources", TASK, lambda: _material(sources=(empty, empty), excluded=1234))
    with pytest.raises(DataError, match=r"no training image of source 1 is left: 1,234 images"):
        part.sources(1)
    whole = make_view("prior", TASK, lambda: _material(clean=empty, excluded=1234))
    with pytest.raises(DataError, match=r"none of the 1,234 training images is left"):
        whole.clean()
    assert make_view("sources", TASK, lambda: _material(excluded=7)).excluded_duplicates == 7


@pytest.mark.parametrize("level", ["prior", "sources", "mixtures+one"])
def test_the_digest_counts_what_the_level_hands_out_and_nothing_else(level: str) -> None:
    def digest(**changes: Any) -> str:
        return training_digest(_material(transform=str, **changes), level)  # type: ignore[arg-type]

    other = _pool((70, [0]))
    told = {
        "clean": digest(clean=other) != digest(),
        "sources": digest(sources=(_pool((10, [0, 1])), other)) != digest(),
        "observed": digest(observed=other) != digest(),
    }
    assert told == {"clean": level in ("prior", "sources"), "sources": level == "sources", "observed": level == "mixtures+one"}
    if level == "sources":
        swapped = _material().sources[::-1]
        assert digest(sources=swapped) != digest()


def test_duplicates_are_found_by_content_whatever_the_set() -> None:
    protected = frozenset(content_hashes(Numbers(10), torch.tensor([1, 3])))  # type: ignore[arg-type]
    kept = without_duplicates(Numbers(8, count=9), torch.tensor([6, 5, 4, 3, 0]), protected)  # type: ignore[arg-type]
    assert kept.tolist() == [6, 4, 0]  # 13 and 11 are protected


@pytest.mark.parametrize(
    ("supervision", "what", "message"),
    [
        ("mixtures+one", "observed", "no training image of observed is left: 1,234 images"),
        ("sources", "sources", "no training image of source 1 is left: 1,234 images"),
        ("prior", "clean", "none of the 1,234 training images is left"),
    ],
)
def test_rows_of_which_none_is_left_are_not_said_to_be_none_that_the_task_has(supervision: Any, what: Any, message: str) -> None:
    empty = _pool((10, []))
    material = _material(**{what: (empty, empty) if what == "sources" else empty}, excluded=1234)
    with pytest.raises(DataError, match=message):
        make_view(supervision, replace(TASK, observed_source=1), lambda: material).rows(what, 1 if what == "sources" else 0)


@pytest.mark.parametrize(
    ("level", "ask", "changes", "told"),
    [
        ("mixtures+one", lambda view: view.observed(), {"observed": _pool((10, []))}, "no training observed image is left: 3 images"),
        ("mixtures+one", lambda view: view.rows("observed"), {"observed": _pool((10, []))}, "no training image of observed is left: 3 images"),
        ("prior", lambda view: view.rows("clean"), {"clean": POOL, "excluded": 0}, ""),
        ("prior", lambda view: view.clean(), {"clean": _pool((1, [])), "excluded": 0}, "no training image is left: 0 images"),
        ("sources", lambda view: view.sources(0), {"sources": (_pool((1, [])),) * 2}, "no training image of source 0 is left: 3 images"),
        ("sources", lambda view: view.clean(), {"clean": _pool((1, []))}, "none of the 3 training images is left"),
    ],
)
def test_the_whole_line_where_nothing_is_left(level: Any, ask: Any, changes: dict[str, Any], told: str) -> None:
    view = make_view(level, replace(TASK, observed_source=1), lambda: _material(**({"excluded": 3} | changes)))
    if not told:
        assert len(ask(view)) == 5
        return
    with pytest.raises(DataError) as caught:
        ask(view)
    split = "occur in the test split"
    why = f": all {split}, or among what is held out for validation" if told.startswith("none") else f" were left out because they {split}"
    assert str(caught.value) == f"{told}{why}; task digits-pairs/class-split needs training data of its own"


class Mixed:
    """Training mixtures: what they are asked for."""

    def mixtures(self, rows: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(values=10 * rows)

    def content(self, rows: torch.Tensor) -> bytes:
        return f"mixtures {rows.tolist()}".encode()


def test_mixtures_that_touch_no_excluded_image_are_handed_out() -> None:
    material = _material(mixtures=Mixed(), mixture_rows=torch.tensor([4, 1, 7]))
    view = make_view("mixtures+one", replace(TASK, observed_source=1), lambda: material)
    assert (view.mixtures().tolist(), view.mixtures(2).tolist()) == ([40, 10, 70], [40, 10])
    assert (len(view.rows("mixtures")), view.rows("mixtures").load([2, 0]).tolist()) == (3, [70, 40])
    none = make_view("mixtures+one", replace(TASK, observed_source=1), lambda: replace(material, mixture_rows=torch.arange(0), excluded=2))
    for ask in (none.mixtures, lambda: none.rows("mixtures")):
        with pytest.raises(DataError, match="no training mixture is left: 2 images were left out because they occur in the test split; "):
            ask()


def test_a_digest_is_that_of_names_splits_lengths_contents_and_mixtures() -> None:
    """By hand: the level and the transform, every part of every pool, and the mixtures that are handed out."""

    def part(first: int, rows: list[int]) -> bytes:
        contents = b"".join(hashlib.sha256(struct.pack("<f", first + row)).digest() for row in rows)
        return f"numbers train {len(rows)}".encode() + contents

    transform = Transform(2)
    material = _material(transform=transform, mixtures=Mixed(), mixture_rows=torch.tensor([4, 1]))
    clean = part(10, [3, 0]) + part(20, []) + part(30, [1, 2, 3])
    wanted = {
        "prior": clean,
        "sources": clean + part(10, [0, 1]) + part(30, [2]),
        "mixtures+one": part(50, [1]) + b"mixtures [4, 1]",
    }
    for level, content in wanted.items():
        view = make_view(level, TASK, lambda: material)  # type: ignore[arg-type]
        assert view.digest == hashlib.sha256(f"{level} Transform(pad=2)".encode() + content).hexdigest()
    for level in ("blind", "bound"):
        view = make_view(level, TASK, lambda: pytest.fail("opened"))  # type: ignore[arg-type,return-value]
        assert view.digest == ""
    without = replace(material, mixtures=None, observed=None)
    assert training_digest(without, "mixtures+one") == hashlib.sha256(b"mixtures+one Transform(pad=2)").hexdigest()


def test_what_is_said_of_levels_and_arguments() -> None:
    cases = [
        ("blind", lambda view: view.clean(), "a method of supervision 'blind' asked for clean(); declare 'prior' or 'sources' in MethodInfo to get them"),
        ("prior", lambda view: view.sources(0), "a method of supervision 'prior' asked for sources(); declare 'sources' in MethodInfo to get them"),
        (
            "blind",
            lambda view: view.prior(0),
            "a method of supervision 'blind' asked for prior(); declare 'prior' or 'sources' or 'bound' in MethodInfo to get them",
        ),
        (
            "bound",
            lambda view: view.prior(1),
            "task digits-pairs/class-split has no analytic prior: the distribution of its sources is not known in closed form",
        ),
        (
            "mixtures+one",
            lambda view: view.rows("observed"),
            "this task has no observed class: digits-pairs/class-split offers nothing to a method of supervision 'mixtures+one'",
        ),
    ]
    for level, ask, told in cases:
        with pytest.raises(SupervisionError) as caught:
            ask(make_view(level, replace(TASK, observed_source=None), _material))  # type: ignore[arg-type,no-untyped-call]
        assert str(caught.value) == told
    view = make_view("sources", TASK, _material, priors=("first", "second"))  # type: ignore[arg-type]
    assert (view.prior(0), view.prior(1)) == ("first", "second")
    for limit in (0, -1):
        with pytest.raises(ValueError, match=f"^limit must be at least 1, got {limit}$"):
            view.clean(limit)
    with pytest.raises(ValueError, match=r"^slot must lie in \[0, 2\), got 2$"):
        view.prior(2)
    with pytest.raises(SupervisionError) as caught:
        make_view("none", TASK, _material)  # type: ignore[arg-type]
    assert str(caught.value) == "unknown supervision level 'none'; choose from blind, mixtures+one, sources, prior, bound"
