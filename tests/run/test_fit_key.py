"""What decides a fit: which changes lead to another one, and which do not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_harness import Runner
from training_fake import Learner, counted

from sepbench.data.views import Pool, training_digest
from sepbench.run import session
from sepbench.run.fit_cache import digest, entries
from sepbench.run.plan import Plan
from sepbench.run.records import CellRecord
from sepbench.run.session import fit_key
from sepbench.settings import FitScope
from sepbench.suites.model import Suite

Planned = Callable[..., Plan]


@pytest.fixture(autouse=True)
def pulse(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the learner counts what it does; fits are kept in a folder of this test's own."""
    monkeypatch.setenv("LEARNER_PULSE", str(data_home / "pulse"))
    monkeypatch.setattr(Learner, "caches", [])
    return data_home / "pulse"


def _cell(runner: Runner, plan: Plan) -> CellRecord:
    _, store = runner(plan)
    return store.read_cells()["class-split", "learner"]


def _key(plan: Plan, training: str = "data") -> str:
    return digest(fit_key(plan.cells[0], plan, training))


MOVES: dict[str, dict[str, Any]] = {
    "setting": {"settings": {"learner": {"rate": 0.2}}},
    "seed": {"seed": 1},
    "budget": {"budget": "quick"},
    "task": {"tasks": ("class-agnostic",)},
}
STAYS: dict[str, dict[str, Any]] = {
    "limit": {"limit": 20},
    "shard size": {"shard_size": 7},
    "kept estimates": {"keep_estimates": False},
    "name of the task": {"tasks": ("class-split-val",)},
    "default given": {"settings": {"learner": {"rate": 0.1}}},
    "other methods": {"settings": {"noisy": {"nap": 0.5}}},
}


@pytest.mark.parametrize("options", MOVES.values(), ids=MOVES.keys())
def test_what_moves_the_key(planned: Planned, options: Mapping[str, Any]) -> None:
    assert _key(planned("learner", **options)) != _key(planned("learner"))


@pytest.mark.parametrize("options", STAYS.values(), ids=STAYS.keys())
def test_what_leaves_the_key(planned: Planned, options: Mapping[str, Any]) -> None:
    assert _key(planned("learner", "noisy", **options)) == _key(planned("learner"))


def test_training_data_code_version_and_arithmetic_move_the_key(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [_key(planned("learner")), _key(planned("learner"), "other data")]
    monkeypatch.setattr(session, "arithmetic", lambda device: "cpu:8threads:bf16")
    found.append(_key(planned("learner")))
    monkeypatch.setattr(session, "source_sha256", lambda cls: "0" * 64)
    found.append(_key(planned("learner")))
    monkeypatch.setattr(Learner, "info", replace(Learner.info, version="2"))
    found.append(_key(planned("learner")))
    monkeypatch.setattr(Learner, "weights_sha256", "ab", raising=False)
    found.append(_key(planned("learner")))
    assert len(set(found)) == len(found)


def test_a_file_that_a_setting_names_moves_the_key_by_its_content(planned: Planned, tmp_path: Path) -> None:
    start = tmp_path / "start.bin"
    start.write_text("1")
    first = _key(planned("learner", settings={"learner": {"start": str(start)}}))
    os.utime(start)
    assert _key(planned("learner", settings={"learner": {"start": str(start)}})) == first
    start.write_text("2")
    assert _key(planned("learner", settings={"learner": {"start": str(start)}})) != first


class _Signals:
    """A signal set of four numbers."""

    name, split, domain, shape = "numbers", "train", "vector", (1,)
    labels = torch.zeros(4, dtype=torch.int64)

    def __init__(self, values: tuple[float, ...]) -> None:
        self._values = torch.tensor(values).unsqueeze(1)

    def __len__(self) -> int:
        return len(self._values)

    def load(self, indices: Any) -> torch.Tensor:
        return self._values[torch.as_tensor(indices)]


def test_the_digest_of_training_data_is_that_of_their_content(digits: Suite) -> None:
    view = digits.tasks["class-split"].view("prior")
    material = view._material

    def of(values: tuple[float, ...], rows: tuple[int, ...] = (0, 1, 2, 3)) -> str:
        pool = Pool(((_Signals(values), torch.tensor(rows)),))  # type: ignore[arg-type]
        return training_digest(replace(material, clean=pool), "prior")

    assert of((1.0, 2.0, 3.0, 4.0)) == of((1.0, 2.0, 3.0, 4.0))
    others = [of((1.0, 2.0, 3.0, 4.5)), of((1.0, 2.0, 4.0, 3.0)), of((1.0, 2.0, 3.0, 4.0), (0, 1, 2)), of((1.0, 2.0, 3.0, 4.0), (1, 0, 2, 3))]
    assert len({of((1.0, 2.0, 3.0, 4.0)), *others}) == 5


def test_names_of_entries_that_are_no_words_make_a_key_that_reads_back(planned: Planned, runner: Runner, pulse: Path) -> None:
    plan = planned("learner", settings={"learner": {"table": {2: "b", 10: "a", "c": "d"}}})
    _cell(runner, plan)
    (entry,) = entries("learner")
    assert entry.facts is not None  # the listing finds the folder by the key that is written there


@dataclass
class _OfRate:
    """Stands for a class with the fit of several methods, whose one setting is ``rate``."""

    rate: float = 0.1


class TestWhatAMethodStates:
    """``fit_scope``: the fit depends on ``rate`` and on the signals' shape alone."""

    @pytest.fixture(autouse=True)
    def scope(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Learner, "fit_scope", FitScope(frozenset({"source_shape"}), "mean", "1", _OfRate), raising=False)

    def test_other_settings_tasks_and_versions_leave_the_key(self, planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
        first = _key(planned("learner"))
        assert _key(planned("learner", tasks=("class-agnostic",))) == first
        assert _key(planned("learner", settings={"learner": {"steps": 7}})) == first
        monkeypatch.setattr(Learner, "info", replace(Learner.info, version="2"))
        assert _key(planned("learner")) == first

    @pytest.mark.parametrize("options", [MOVES["setting"], MOVES["seed"], MOVES["budget"]])
    def test_what_it_depends_on_moves_the_key(self, planned: Planned, options: Mapping[str, Any]) -> None:
        assert _key(planned("learner", **options)) != _key(planned("learner"))

    def test_data_version_and_code_of_the_scope_move_the_key(self, planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
        found = [_key(planned("learner")), _key(planned("learner"), "other data")]
        scope = Learner.fit_scope  # type: ignore[attr-defined]
        for other in (replace(scope, version="2"), replace(scope, name="other"), replace(scope, code=Suite), replace(scope, task=frozenset({"operator"}))):
            monkeypatch.setattr(Learner, "fit_scope", other)
            found.append(_key(planned("learner")))
        assert len(set(found)) == len(found)

    def test_two_tasks_train_once(self, planned: Planned, runner: Runner, pulse: Path) -> None:
        """The two tasks of the digits have the same pooled training images at the level of a prior."""
        runner(planned("learner", tasks=("class-split", "class-agnostic")))
        (entry,) = entries("mean")
        assert entry.facts is not None
        assert not entries("learner")
        assert (counted(pulse, "f"), counted(pulse, "l")) == (1, 1)


@pytest.mark.parametrize(("name", "shared"), [("learner", False), ("supervised", True), ("supervised-sources", True)])
def test_how_estimates_are_scored_moves_the_key_unless_a_method_says_that_its_fit_does_not_ask(planned: Planned, name: str, shared: bool) -> None:
    plan = planned(name)
    (cell,) = plan.cells
    keys = {digest(fit_key(cell, plan, "data"))}
    for change in ({"assignment": "ordered"}, {"scored_sources": (0,)}):
        other = replace(cell, task=replace(cell.task, spec=replace(cell.task.spec, **change)))
        keys.add(digest(fit_key(other, plan, "data")))
    assert len(keys) == (1 if shared else 3)
    other = replace(cell, task=replace(cell.task, spec=replace(cell.task.spec, observed_source=0, operator="mean")))
    assert digest(fit_key(other, plan, "data")) not in keys


def test_presets_with_other_settings_do_not_share_a_fit(planned: Planned) -> None:
    keys = [digest(fit_key(plan.cells[0], plan, "data")) for plan in map(planned, ("supervised", "supervised-sources", "supervised-unet"))]
    assert len(set(keys)) == 3
