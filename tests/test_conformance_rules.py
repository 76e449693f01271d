"""Every rule of ``sepbench validate`` has a method that breaks it and nothing else, and one that comes as near as it may. A new rule without one fails here."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from sepbench import ambient, conformance
from sepbench.conformance import Check, validate_method
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.suites.loader import load_suite

_CALLS = count(1)
INFO = MethodInfo("subject", "Subject", "1", frozenset({"image"}), "prior", "none", deterministic=False)
INFO_RULE, SUPPORTS_RULE, REFERENCES_RULE = "info is complete", "supports() answers with a Support", "works without seeing references"
SHAPE, FLOAT, PLACE, FINITE = "estimates have shape (B, K, ...)", "estimates are float32", "estimates lie on the context's device", "estimates are finite"
KEPT_AS_THEY_ARE, LEFT_ALONE = "mixtures are not changed in place", "global state is left alone"


class Whole:
    """Keeps every rule, and offers everything there is to offer: half the mixture, a little noise, and a shift that it learns."""

    info: Any = INFO

    def __init__(self) -> None:
        self.calls = 0

    def supports(self, task: TaskSpec) -> Any:
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        self.shift = float(view.clean(20).mean())

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
        self.calls += 1
        noise = torch.stack([ctx.noise.normal(mixtures.example_ids, 0, k, ctx.task.source_shape) for k in range(2)], dim=1)
        return mixtures.operator.pseudo_inverse(mixtures.values) + 0.01 * noise + self.shift

    def sample(self, mixtures: Mixtures, n: int, ctx: RunContext) -> Any:
        noise = torch.stack([ctx.noise.normal(mixtures.example_ids, 1, k, (n, *ctx.task.source_shape)) for k in range(2)], dim=2)
        return mixtures.operator.pseudo_inverse(mixtures.values).unsqueeze(1) + 0.1 * noise

    def log_prob(self, sources: torch.Tensor) -> Any:
        return -sources.flatten(2).square().sum(2)

    def save(self, folder: Path) -> None:
        (folder / "shift").write_text(repr(self.shift))

    def load(self, folder: Path, ctx: RunContext) -> None:
        self.shift = float((folder / "shift").read_text())


class Elsewhere(torch.Tensor):
    """Says that it lies on a GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)


Change = Callable[[Whole, torch.Tensor, Mixtures, RunContext], Any]


def after(change: Change, **more: Any) -> type[Whole]:
    """A ``Whole`` whose estimates are changed before they are returned; ``more`` are attributes of the class."""

    def separate(self: Whole, mixtures: Mixtures, ctx: RunContext) -> Any:
        return change(self, Whole.separate(self, mixtures, ctx), mixtures, ctx)

    return type("Broken", (Whole,), {"separate": separate, **more})


def other(**methods: Any) -> type[Whole]:
    return type("Broken", (Whole,), methods)


def doing(act: Callable[[Mixtures], object]) -> type[Whole]:
    """Does something besides."""
    return after(lambda self, x, mixtures, ctx: (act(mixtures), x)[1])


class Unlike(Whole):
    """No two instances give the same."""

    def __init__(self) -> None:
        super().__init__()
        self.own = 1e-6 * next(_CALLS)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
        return super().separate(mixtures, ctx) + self.own

    def save(self, folder: Path) -> None:
        (folder / "shift").write_text(f"{self.shift!r} {self.own!r}")

    def load(self, folder: Path, ctx: RunContext) -> None:
        self.shift, self.own = map(float, (folder / "shift").read_text().split())


class Raises(Whole):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        raise RuntimeError("not today")


def _lost(self: Whole, x: torch.Tensor, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
    x[mixtures.example_ids == 1, 0, 0, 0, 0] = torch.nan
    return x


def _raising(self: Whole, x: torch.Tensor, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
    return torch.linalg.cholesky(-torch.eye(2))


def constant(self: Whole, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
    return mixtures.operator.pseudo_inverse(mixtures.values)


def same_draws(self: Whole, mixtures: Mixtures, n: int, ctx: RunContext) -> torch.Tensor:
    return constant(self, mixtures, ctx).unsqueeze(1).repeat(1, n, 1, 1, 1, 1)


def lost_draws(self: Whole, mixtures: Mixtures, n: int, ctx: RunContext) -> torch.Tensor:
    x = Whole.sample(self, mixtures, n, ctx)
    x[0, 1] = torch.inf
    return x  # type: ignore[no-any-return]


def one_draw_too_many(self: Whole, mixtures: Mixtures, n: int, ctx: RunContext) -> torch.Tensor:
    return Whole.sample(self, mixtures, n + 1, ctx)  # type: ignore[no-any-return]


def remembering(self: Whole, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
    """Keeps a number of the first batch that it sees, and uses it ever after."""
    self.first = getattr(self, "first", float(mixtures.example_ids.min()))
    return Whole.separate(self, mixtures, ctx) + 0.01 * self.first  # type: ignore[no-any-return]


SINGLE = after(lambda self, x, mixtures, ctx: x + 0.01 * (len(x) == 1))
BACKWARDS = after(lambda self, x, mixtures, ctx: x + 0.01 * float(mixtures.example_ids[0] > mixtures.example_ids[-1]))
MIDDLE = after(lambda self, x, mixtures, ctx: x + 0.01 * (int(mixtures.example_ids.min()) > 0 and len(x) > 1))
DETERMINISTIC = replace(INFO, deterministic=True)

BROKEN: dict[str, list[type[Whole]]] = {
    INFO_RULE: [
        other(info=replace(INFO, **wrong))
        for wrong in (
            {"name": "somebody"},
            {"title": ""},
            {"version": ""},
            {"paper": ""},
            {"max_batch": 0},
            {"max_batch": "many"},
            {"domains": frozenset()},
            {"domains": ["image"]},
            {"domains": frozenset({"image", "smell"})},
        )
    ],
    SUPPORTS_RULE: [other(supports=lambda self, task: True), other(supports=lambda self, task: None)],
    conformance.FITS: [Raises, other(fit=lambda self, view, ctx: view.sources(0)), other(fit=lambda self, view, ctx: ctx.references(torch.tensor([0])))],
    conformance.RUNS: [
        after(_raising),
        doing(lambda mixtures: os._exit(0)),
        after(lambda self, x, mixtures, ctx: x.numpy()),
        after(lambda self, x, mixtures, ctx: ctx.references(mixtures.example_ids)),
        other(sample=lambda self, mixtures, n, ctx: None),
        other(log_prob=lambda self, sources: 0.0),
    ],
    SHAPE: [
        after(lambda self, x, mixtures, ctx: x[:, :1]),
        after(lambda self, x, mixtures, ctx: x.flatten(2)),
        after(lambda self, x, mixtures, ctx: torch.cat([x, x[:, :1]], 1)),
    ],
    FLOAT: [after(lambda self, x, mixtures, ctx: x.double())],
    PLACE: [after(lambda self, x, mixtures, ctx: x.as_subclass(Elsewhere))],
    FINITE: [after(_lost, log_prob=lambda self, sources: Whole.log_prob(self, sources.nan_to_num()))],
    KEPT_AS_THEY_ARE: [doing(lambda mixtures: mixtures.values.mul_(0.5)), doing(lambda mixtures: mixtures.example_ids.add_(1))],
    conformance.REPEATS: [after(lambda self, x, mixtures, ctx: x + 1e-6 * self.calls)],
    conformance.REPRODUCES: [Unlike],
    conformance.IGNORES_SEED: [other(info=DETERMINISTIC)],
    conformance.USES_SEED: [other(separate=constant, load=lambda self, folder, ctx: None)],
    conformance.BATCHES: [SINGLE],
    conformance.ORDERS: [BACKWARDS],
    conformance.SHARDS: [MIDDLE, other(separate=remembering)],
    conformance.SAMPLES: [other(sample=same_draws), other(sample=one_draw_too_many)],
    conformance.SAMPLES_FINITE: [other(sample=lost_draws), other(sample=lambda self, mixtures, n, ctx: Whole.sample(self, mixtures, n, ctx).double())],
    conformance.LOG_PROBS: [
        other(log_prob=lambda self, sources: Whole.log_prob(self, sources).sum(1)),
        other(log_prob=lambda self, sources: Whole.log_prob(self, sources).masked_fill(torch.arange(2) == 1, torch.nan)),
    ],
    conformance.KEEPS: [
        other(save=lambda self, folder: (folder / "shift").write_text(f"{self.shift + 1e-6!r}")),
        other(save=lambda self, folder: None),
    ],
    LEFT_ALONE: [
        doing(lambda mixtures: torch.rand(1)),
        doing(lambda mixtures: np.random.rand()),  # noqa: NPY002
        doing(lambda mixtures: torch.set_default_dtype(torch.float64)),
        doing(lambda mixtures: threadpool_limits(torch.get_num_threads() + 1, user_api="openmp")),  # torch.set_num_threads would break LU for the process
        doing(lambda mixtures: torch.set_grad_enabled(False)),
        doing(lambda mixtures: os.chdir("/")),
        doing(lambda mixtures: os.umask(0o077)),
        doing(lambda mixtures: gc.disable()),
        doing(lambda mixtures: torch.set_flush_denormal(True)),
        doing(lambda mixtures: os.environ.update(SEPBENCH_OFFLINE="0")),
    ],
}
"""Rule -> methods that break it alone."""

NO_METHOD_CAN = {REFERENCES_RULE: "the checker's own promise: a method that asks for references fails in fit() or separate()"}


def validated(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]) -> list[Check]:
    monkeypatch.setattr(conformance, "create_separator", lambda name, settings=None, domain=None: make())
    restore = ambient.generators()
    with ambient.put_back():
        try:
            np.random.seed(0)  # noqa: NPY002
            np.random.random_sample(3)  # noqa: NPY002  amid its 624 words a draw moves the position alone
            return validate_method("subject", load_suite("digits-pairs").tasks["class-split"])
        finally:
            restore()


def test_every_rule_has_its_broken_method(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = validated(monkeypatch, Whole)
    assert [check for check in checks if check.passed is not True] == []
    named = {value for name, value in vars(conformance).items() if name.isupper() and isinstance(value, str)}
    assert {check.rule for check in checks} | named == {*BROKEN, *NO_METHOD_CAN}


@pytest.mark.parametrize(("rule", "number"), [(rule, number) for rule, methods in BROKEN.items() for number in range(len(methods))])
def test_a_broken_rule_is_found_and_no_other(monkeypatch: pytest.MonkeyPatch, rule: str, number: int) -> None:
    checks = validated(monkeypatch, BROKEN[rule][number])
    assert [check.rule for check in checks if check.passed is False] == [rule]


NEARLY: dict[str, type[Whole]] = {
    "one by one": after(lambda self, x, mixtures, ctx: x + 9e-4 * (len(x) == 1)),
    "reversed": after(lambda self, x, mixtures, ctx: x + 9e-4 * float(mixtures.example_ids[0] > mixtures.example_ids[-1])),
    "from the middle": after(lambda self, x, mixtures, ctx: x + 9e-4 * (int(mixtures.example_ids.min()) > 0 and len(x) > 1)),
}


@pytest.mark.parametrize("how", NEARLY)
def test_rounding_is_allowed_where_batches_differ(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    assert [check for check in validated(monkeypatch, NEARLY[how]) if check.passed is False] == []


def test_what_is_not_offered_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        info = INFO
        supports, fit, separate = Whole.supports, Whole.fit, Whole.separate
        calls = 0

    checks = validated(monkeypatch, Plain)
    assert [check.rule for check in checks if check.passed is None] == [conformance.SAMPLES, conformance.LOG_PROBS, conformance.KEEPS]
    assert all(check.detail == "not offered" for check in checks if check.passed is None)


def test_a_bound_sees_references_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bound(Whole):
        info = replace(INFO, supervision="bound", deterministic=True)

        def fit(self, view: TrainingView, ctx: RunContext) -> None:
            self.shift = 0.0

        def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
            return ctx.references(mixtures.example_ids)

    checks = validated(monkeypatch, Bound)
    assert [check.rule for check in checks if check.passed is None] == [REFERENCES_RULE]
    assert [check.rule for check in checks if check.passed is False] == []


@dataclass
class Seen:
    """What a check was made with."""

    budget: str = ""
    batches: tuple[int, ...] = ()


def test_the_checks_run_with_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()

    class Watched(Whole):
        def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
            seen.budget, seen.batches = ctx.budget, (*seen.batches, len(mixtures))
            return super().separate(mixtures, ctx)

    for budget, examples in (("quick", 6), ("paper", 4)):
        seen.batches = ()
        monkeypatch.setattr(conformance, "create_separator", lambda name, settings=None, domain=None: Watched())
        more = {} if budget == "quick" else {"budget": budget, "examples": examples}
        validate_method("subject", load_suite("digits-pairs").tasks["class-split"], **more)  # type: ignore[arg-type]
        assert seen.budget == budget
        half = examples // 2
        assert seen.batches == (examples, examples, examples, examples, *[1] * examples, examples, examples - half, examples)


def test_every_instance_is_made_fitted_and_run_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, domain, device, seeds and the training data of the level: what one forgets to hand on. ``cpu:0`` is the CPU under another name."""
    made: list[tuple[object, ...]] = []
    fits: list[tuple[object, ...]] = []
    asked: list[tuple[object, ...]] = []

    class Watched(Whole):
        info = replace(INFO, supervision="sources")

        def fit(self, view: TrainingView, ctx: RunContext) -> None:
            fits.append((view.supervision, ctx.device, ctx.seed, ctx.noise.seed, ctx.budget, ctx.task.name))
            super().fit(view, ctx)

        def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
            asked.append(("separate", ctx.device, ctx.seed))
            return super().separate(mixtures, ctx)

        def sample(self, mixtures: Mixtures, n: int, ctx: RunContext) -> Any:
            asked.append(("sample", ctx.device, n, len(mixtures)))
            return super().sample(mixtures, n, ctx)

        def load(self, folder: Path, ctx: RunContext) -> None:
            asked.append(("load", ctx.device, ctx.seed, sorted(path.name for path in folder.iterdir())))
            super().load(folder, ctx)

    def create(name: str, settings: object, domain: object) -> Watched:
        made.append((name, settings, domain))
        return Watched()

    def supports(name: str, separator: object, spec: TaskSpec, device: str) -> Support:
        asked.append(("supports", name, spec.name, device))
        return Support(True, "as told")

    monkeypatch.setattr(conformance, "create_separator", create)
    monkeypatch.setattr(conformance, "ask_support", supports)
    checks = validate_method("subject", load_suite("digits-pairs").tasks["class-split"], device="cpu:0", settings={"a": 1}, examples=3)
    assert [check for check in checks if check.passed is False] == []
    assert [check.detail for check in checks if check.rule == SUPPORTS_RULE] == ["as told"]
    assert set(map(str, made)) == {str(("subject", {"a": 1}, "image"))}
    assert len(made) == 6  # to be looked at, for four fits, and to be loaded into
    assert fits == [("sources", "cpu:0", seed, seed, "quick", "class-split") for seed in (0, 0, 1, 0)]
    assert asked[0] == ("supports", "subject", "class-split", "cpu:0")
    assert ("sample", "cpu:0", 2, 3) in asked
    assert ("load", "cpu:0", 0, ["shift"]) in asked
    assert [one[2] for one in asked if one[0] == "separate"].count(1) == 1
    assert {one[1] for one in asked[1:]} == {"cpu:0"}


def test_of_a_task_with_few_mixtures_all_are_used_and_what_a_method_changes_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changes(Whole):
        def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
            os.environ["SEPBENCH_OFFLINE"] = "changed"
            return super().separate(mixtures, ctx)

    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    monkeypatch.setattr(conformance, "create_separator", lambda name, settings=None, domain=None: Changes())
    task = replace(load_suite("digits-pairs").tasks["class-split"], n_examples=4)
    checks = validate_method("subject", task, examples=6)
    (shape,) = [check.detail for check in checks if check.rule == SHAPE]
    assert shape == "(4, 2, 1, 8, 8), wanted (4, 2, 1, 8, 8)"
    assert [(check.rule, check.detail) for check in checks if check.passed is False] == [(LEFT_ALONE, "changed: variables of the environment")]
    assert os.environ["SEPBENCH_OFFLINE"] == "1"
