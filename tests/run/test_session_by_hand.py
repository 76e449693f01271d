"""Sessions with stand-ins for methods: what a fit's key holds, when a fit is loaded or made, what a method is told, and what it tells."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import run_fakes
import torch
from training_fake import Learner

import sepbench
from sepbench.handed_over import HELD
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.run import session
from sepbench.run.fit_cache import CacheError, FitFacts, KeptFit
from sepbench.run.plan import Plan
from sepbench.run.session import Tell, Teller, fit_key, keep_fit, open_session
from sepbench.run.source import source_sha256
from sepbench.settings import FitScope

Planned = Callable[..., Plan]


# ---- keys ------------------------------------------------------------------------------------------------------------------------------


def test_a_key_holds_everything_that_decides_a_fit(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "arithmetic", lambda device: f"arithmetic of {device}")
    plan = planned("learner", seed=3, budget="quick", settings={"learner": {"rate": 0.5}})
    entry = replace(plan.methods["learner"], weights_sha256="ab", files={"start": {"z": "22", "a": "11"}})
    plan = replace(plan, methods={"learner": entry})
    (cell,) = plan.cells
    task = asdict(cell.task.spec)
    del task["suite"], task["name"]
    key = fit_key(cell, plan, "data")
    assert key == {
        **{"training": "data", "task": task, "method": "learner", "version": "1", "source": source_sha256(Learner), "supervision": "prior"},
        **{"settings": {"steps": 5, "rate": 0.5, "table": {}, "start": ""}, "files": {"start": ["11", "22"]}, "weights": "ab", "seed": 3, "budget": "quick"},
        **{"arithmetic": "arithmetic of cpu", "sepbench": sepbench.__version__, "torch": torch.__version__},
    }


@pytest.mark.parametrize(("seed", "fit_seed", "counts"), [(3, None, 3), (3, 0, 0), (0, 5, 5)])
def test_the_seed_of_fits_counts_where_there_is_one(planned: Planned, seed: int, fit_seed: int | None, counts: int) -> None:
    plan = planned("learner", seed=seed, fit_seed=fit_seed)
    assert fit_key(plan.cells[0], plan, "data")["seed"] == counts


class OfRate:
    """Stands for a class whose one setting is ``rate``."""

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = rate


def test_of_a_scope_only_what_it_says_stands_in_the_key(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("learner")
    entry = plan.methods["learner"]
    entry = replace(entry, settings={**entry.settings, HELD: "state"}, files={"start": {"a": "11"}, "rate": {"b": "22"}})
    plan = replace(plan, methods={"learner": entry})
    whole = fit_key(plan.cells[0], plan, "data")
    monkeypatch.setattr(Learner, "fit_scope", FitScope(frozenset({"operator", "n_sources"})), raising=False)
    assert fit_key(plan.cells[0], plan, "data") == whole | {"task": {"operator": "sum", "n_sources": 2}}
    monkeypatch.setattr(Learner, "fit_scope", FitScope(frozenset({"operator"}), "mean", "9", OfRate))
    assert fit_key(plan.cells[0], plan, "data") == whole | {
        **{"task": {"operator": "sum"}, "method": "mean", "version": "9", "source": source_sha256(OfRate)},
        **{"settings": {"rate": 0.1, HELD: "state"}, "files": {"rate": ["22"]}},
    }


# ---- loaded or made --------------------------------------------------------------------------------------------------------------------


class Toy:
    """Counts what is done to it, all objects together."""

    done: list[str]
    full = False
    unloadable: BaseException | None = None
    unfit: BaseException | None = None

    def fit(self, view: Any, ctx: Any) -> None:
        self.done.append(f"fit in {ctx.cache.name} with {sorted(path.name for path in ctx.cache.iterdir())}")
        (ctx.cache / "checkpoint").touch()
        ctx.progress(0.5, "half")
        if self.unfit is not None:
            raise self.unfit

    def save(self, folder: Path) -> None:
        self.done.append("save")
        if self.full:
            raise OSError(28, "No space left on device")
        (folder / "learnt").touch()

    def load(self, folder: Path, ctx: Any) -> None:
        self.done.append(f"load {sorted(path.name for path in folder.iterdir())}")
        if self.unloadable is not None:
            raise self.unloadable


class Kept:
    """A fit of ``Toy`` in a cache of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.told: list[str] = []
        self.made: list[Toy] = []
        for name, value in {"done": self.done, "full": False, "unloadable": None, "unfit": None}.items():
            monkeypatch.setattr(Toy, name, value, raising=False)
        monkeypatch.setattr(session, "_as_fitted", lambda separator: separator)
        monkeypatch.setattr(session, "as_the_session_says", lambda device: contextlib.nullcontext())
        monkeypatch.setattr(session, "timing_group", lambda device: f"group of {device}")
        self.kept = KeptFit("toy", {"a": 1})

    def make(self) -> Toy:
        self.made.append(Toy())
        return self.made[-1]

    def __call__(self, refit: str | None = None) -> tuple[Any, FitFacts, bool]:
        def tell(told: Tell) -> None:
            self.told.append(f"! {told.warning}" if told.warning else told.stage)

        teller = Teller(tell)
        try:
            return keep_fit(self.make, SimpleNamespace(), told_by(teller), self.kept, teller, refit)  # type: ignore[arg-type]
        finally:
            assert teller.ticks == []


def told_by(teller: Teller) -> RunContext:
    task: Any = SimpleNamespace()
    return RunContext(task, "cpu", NoiseSource(0), 0, progress=teller)


@pytest.fixture
def kept(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(monkeypatch)


MADE = ["fit in work with []", "save"]


def test_a_fit_is_made_kept_and_loaded_by_a_fresh_method(kept: Kept) -> None:
    separator, facts, loaded = kept()
    assert (kept.done, kept.told, loaded) == (MADE, ["fit", "fit 50% half"], False)
    assert (separator, facts.timing_group, facts.session) == (kept.made[0], "group of cpu", "")
    again, same, loaded = kept()
    assert (kept.done[2:], kept.told[2:], loaded, same) == (["load ['learnt']"], ["load the fit"], True, facts)
    assert again is kept.made[1]


def test_a_session_that_asked_for_a_new_fit_makes_it_once(kept: Kept) -> None:
    kept()
    (kept.kept.work() / "left by another").touch()
    _, facts, loaded = kept("session 7")
    assert (kept.done[2:], loaded, facts.session) == (MADE, False, "session 7")
    assert kept("session 7")[1:] == (facts, True)
    assert kept()[2]
    assert not kept("session 8")[2]


def test_a_damaged_fit_is_made_again_and_said_so_unless_a_new_one_was_asked_for(kept: Kept) -> None:
    kept()
    (kept.kept.fitted / "learnt").write_text("other")
    kept.told.clear()
    assert not kept()[2]
    assert kept.told[0] == f"! the kept fit in {kept.kept.folder} is damaged and is made again"
    (kept.kept.fitted / "learnt").write_text("other")
    kept.told.clear()
    kept("session 7")
    assert kept.told == ["fit", "fit 50% half"]


@pytest.mark.parametrize("error", [ValueError("old\nformat"), SystemExit(3)], ids=repr)
def test_a_fit_that_cannot_be_loaded_is_made_again(kept: Kept, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    kept()
    monkeypatch.setattr(Toy, "unloadable", error)
    kept.told.clear()
    separator, _, loaded = kept()
    assert (kept.done[2:], loaded) == (["load ['learnt']", *MADE], False)
    what = "ValueError: old format" if isinstance(error, ValueError) else "SystemExit: 3"
    assert kept.told == ["load the fit", f"! the kept fit in {kept.kept.folder} cannot be loaded ({what}) and is made again", "fit", "fit 50% half"]
    assert separator is kept.made[2]  # and not the one that was half loaded


def test_an_interrupt_while_a_fit_is_loaded_passes(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept()
    monkeypatch.setattr(Toy, "unloadable", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        kept()
    assert kept.kept.facts() is not None


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()], ids=repr)
def test_a_fit_that_breaks_off_notes_its_seconds(kept: Kept, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(Toy, "unfit", error)
    with pytest.raises(type(error)):
        kept()
    assert sorted(path.name for path in kept.kept.work().iterdir()) == [".seconds", "checkpoint"]
    (kept.kept.work() / ".seconds").write_text("500.0")
    monkeypatch.setattr(Toy, "unfit", None)
    assert 500.0 <= kept()[1].seconds < 600.0


def test_a_fit_that_cannot_be_kept_is_used(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "full", True)
    separator, facts, loaded = kept()
    assert (separator, loaded, facts.timing_group) == (kept.made[0], False, "group of cpu")
    reason = "cannot write {}: No space left on device; free some space or set SEPBENCH_CACHE to a writable folder"
    assert kept.told[-1] == f"! the fit of toy is not kept: {reason.format(kept.kept.folder)}"
    monkeypatch.setattr(KeptFit, "work", lambda self: (_ for _ in ()).throw(CacheError("no room to begin")))
    with pytest.raises(CacheError, match="no room to begin"):
        kept()


# ---- what a method is told -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "bound"), [("noisy", False), ("oracle", True)])
@pytest.mark.parametrize(("fit_seed", "fits_with"), [(None, 3), (8, 8)])
def test_a_method_is_told_seed_budget_and_references_as_they_were_asked_for(
    planned: Planned, monkeypatch: pytest.MonkeyPatch, method: str, bound: bool, fit_seed: int | None, fits_with: int
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(run_fakes.Noisy, "fit", lambda self, view, ctx: seen.append((view, ctx)))
    monkeypatch.setattr(run_fakes.Oracle, "fit", lambda self, view, ctx: seen.append((view, ctx)))
    plan = planned(method, seed=3, fit_seed=fit_seed, budget="quick")
    (cell,) = plan.cells
    told: list[Tell] = []
    mixture_set = cell.task.mixture_set()
    opened = open_session(cell, plan, mixture_set, told.append)
    ((view, fit),) = seen
    one, other = (source.normal(torch.tensor([0]), 0, 0, (2,)) for source in (fit.noise, opened.ctx.noise))
    assert torch.equal(one, other) == (fits_with == 3)
    assert (fit.seed, opened.ctx.seed, fit.budget, opened.ctx.budget, fit.cache, opened.ctx.cache) == (fits_with, 3, "quick", "quick", None, None)
    assert (opened.ctx.task, opened.ctx.device, opened.ctx.progress) == (cell.task.spec, "cpu", opened.teller)
    assert (opened.references is not None) == bound
    assert view.supervision == cell.info.supervision
    if bound:
        assert opened.ctx.references is opened.references
        assert torch.equal(opened.ctx.references(torch.tensor([2])), mixture_set.sources([2]))
    assert told == [Tell(stage="fit")]
    assert (opened.cached, opened.warm_up_seconds, opened.first_traceback, opened.most) == (False, None, "", None)


@pytest.mark.parametrize(("refit", "asked"), [(False, None), (True, "session 7")])
def test_only_a_run_that_refits_names_its_session(planned: Planned, monkeypatch: pytest.MonkeyPatch, data_home: Path, refit: bool, asked: str | None) -> None:
    handed: list[Any] = []
    facts = FitFacts(1.0, 2.0, "g")

    def keep(make: Any, view: Any, ctx: Any, kept: KeptFit, teller: Any, refit: Any) -> Any:
        handed.append((ctx.seed, kept.folder.parent.name, kept.key["training"] == view.digest, refit))
        return make(), facts, True

    monkeypatch.setattr(session, "keep_fit", keep)
    plan = planned("learner", seed=3, fit_seed=8, refit=refit, settings={"learner": {"rate": 0.5}})
    opened = open_session(plan.cells[0], plan, plan.cells[0].task.mixture_set(), lambda tell: None, "session 7")
    assert handed == [(8, "learner", True, asked)]
    assert (opened.fit, opened.cached, opened.separator.rate) == (facts, True, 0.5)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("method", "reads"), [("noisy", True), ("halves", False), ("oracle", False), ("learner", True)])
def test_the_training_data_of_a_fit_are_known_where_it_opened_them(planned: Planned, data_home: Path, method: str, reads: bool) -> None:
    """Those of a fit that is kept always are: its key has them."""
    plan = planned(method)
    (cell,) = plan.cells
    for _ in range(2):
        opened = open_session(cell, plan, cell.task.mixture_set(), lambda tell: None)
        assert opened.training == (cell.task.view(cell.info.supervision).digest if reads else "")
        assert (len(opened.training) == 64) == reads


def test_a_method_that_learns_without_training_data_opens_none(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(material: Any, supervision: Any) -> str:
        raise AssertionError("opened for the digest alone")

    monkeypatch.setattr("sepbench.data.views.training_digest", refuse)
    monkeypatch.setattr(run_fakes.Noisy, "fit", lambda self, view, ctx: None)
    plan = planned("noisy")
    assert open_session(plan.cells[0], plan, plan.cells[0].task.mixture_set(), lambda tell: None).training == ""


def test_a_fit_is_made_and_timed_on_the_plan_s_device_as_the_session_says(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed: whatever would wait for one is a stand-in."""
    seen: list[str] = []

    def noting(what: str) -> Any:
        @contextlib.contextmanager
        def on(device: str) -> Any:
            seen.append(f"{what} {device}")
            yield SimpleNamespace(seconds=8.0)
            seen.append(f"{what} ends")

        return on

    for name in ("Timer", "as_the_session_says"):
        monkeypatch.setattr(session, name, noting(name))
    monkeypatch.setattr(session, "timing_group", lambda device: f"group of {device}")
    monkeypatch.setattr(session, "References", lambda mixtures, device: f"references {mixtures} {device}")
    monkeypatch.setattr(run_fakes.Oracle, "fit", lambda self, view, ctx: seen.append(f"fit on {ctx.device}"))
    plan = planned("oracle", seed=3)
    plan = replace(plan, request=replace(plan.request, device="cuda:1"))
    told: list[Tell] = []
    opened = open_session(plan.cells[0], plan, "mixtures", told.append)  # type: ignore[arg-type]
    assert seen == ["Timer cuda:1", "as_the_session_says cuda:1", "fit on cuda:1", "as_the_session_says ends", "Timer ends"]
    assert opened.fit == FitFacts(8.0, 0.0, "group of cuda:1", "")
    assert (opened.ctx.device, opened.references, opened.mixture_set) == ("cuda:1", "references mixtures cuda:1", "mixtures")


# ---- what it tells ---------------------------------------------------------------------------------------------------------------------


def test_stages_batches_and_parts_of_them() -> None:
    told: list[Tell] = []
    ticks: list[str] = []
    teller = Teller(told.append)
    teller.ticks.append(lambda: ticks.append("tick"))

    def says(*tells: Tell) -> None:
        assert told == list(tells)
        told.clear()

    teller.enter("fit")
    for fraction, text in ((0.256, "a\nb"), (float("nan"), ""), (2.0, "over"), (-1.0, "under")):
        teller(fraction, text)
    says(
        Tell(stage="fit"),
        *(Tell(stage=f"fit {line}", fraction=share) for line, share in (("26% a b", 0.256), ("0%", 0.0), ("100% over", 1.0), ("0% under", 0.0))),
    )
    assert ticks == ["tick"] * 4
    teller.begin(8)
    for fraction in (0.25, 0.25, 0.125, 0.5):  # going back is not told
        teller(fraction, "text")
    says(Tell(mixtures=2.0), Tell(mixtures=2.0))
    teller.end()
    says(Tell(mixtures=4.0))
    teller(0.5, "between batches")
    says(Tell(stage="fit 50% between batches", fraction=0.5))
    teller.begin(3)
    teller.end()
    teller.begin(3)
    teller.enter("score")
    teller(0.5, "")
    teller.warn("careful")
    says(Tell(mixtures=3.0), Tell(stage="score"), Tell(stage="score 50%", fraction=0.5), Tell(warning="careful"))
