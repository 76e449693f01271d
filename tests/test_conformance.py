"""``sepbench validate`` finds what it promises to find: one broken method per rule, and an honest one that passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import broken_methods
import pytest
import torch
from told_places import without_place

from sepbench import conformance
from sepbench.conformance import Check, validate_method
from sepbench.errors import SepbenchError
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Separator, Support, TaskSpec, TrainingView
from sepbench.suites.loader import load_suite

_CALLS = count(1)
"""Never the same number again: what an irreproducible method draws on."""

INFO = MethodInfo(
    name="subject", title="Subject", version="1", domains=frozenset({"image"}), supervision="prior", paper="none", deterministic=False, max_batch=500
)


@dataclass
class Honest:
    """Half the mixture plus a little keyed noise, and the training mean."""

    info: MethodInfo = INFO

    def supports(self, task: TaskSpec) -> Support:
        return Support(task.n_sources == 2, "two sources only")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        self.mean = view.clean(100).mean(0)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        noise = torch.stack([ctx.noise.normal(mixtures.example_ids, 0, k, ctx.task.source_shape) for k in range(2)], dim=1)
        return mixtures.operator.pseudo_inverse(mixtures.values) + 0.01 * noise + 0 * self.mean


def _broken(name: str) -> Separator:
    """An ``Honest`` with one rule broken."""
    subject = Honest()
    honest = subject.separate

    def separate(mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        x = honest(mixtures, ctx)
        breaks: dict[str, Callable[[], torch.Tensor]] = {
            "shape": lambda: x[:, :1],
            "dtype": lambda: x.double(),
            "finite": lambda: x / 0,
            "mutates": lambda: (mixtures.values.mul_(0.5), x)[1],
            "irreproducible": lambda: x + next(_CALLS),
            "batch": lambda: x + x.mean(0, keepdim=True),
            "order": lambda: x + torch.arange(len(x)).view(-1, 1, 1, 1, 1),
            "global rng": lambda: (torch.rand(1), x)[1],
            "references": lambda: ctx.references(mixtures.example_ids),
            "crash": lambda: torch.linalg.cholesky(-torch.eye(2)),
        }
        return breaks[name]() if name in breaks else x

    subject.separate = separate  # type: ignore[method-assign]
    if name == "deterministic":
        subject.info = replace(INFO, deterministic=True)
    if name == "name":
        subject.info = replace(INFO, name="somebody-else")
    if name == "supervision":

        def fit(view: TrainingView, ctx: RunContext) -> None:
            view.sources(0)

        subject.fit = fit  # type: ignore[method-assign]
    return subject


def _validate(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Separator]) -> list[Check]:
    monkeypatch.setattr(conformance, "create_separator", lambda name, settings=None, domain=None: make())
    return validate_method("subject", load_suite("digits-pairs").tasks["class-split"])


def test_an_honest_method_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = _validate(monkeypatch, Honest)
    assert not [check for check in checks if check.passed is False]
    assert sum(check.passed is True for check in checks) >= 14


def test_of_an_honest_method_every_rule_is_tried_and_of_a_bound_all_but_the_one_on_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """None stands for not tried."""
    untried = {check.rule: check.detail for check in _validate(monkeypatch, Honest) if check.passed is not True}
    assert "works without seeing references" not in untried
    bound = {check.rule: check.passed for check in _validate(monkeypatch, lambda: Honest(replace(INFO, supervision="bound"))) if "references" in check.rule}
    assert bound == {"works without seeing references": None}


def test_every_rule_that_takes_time_is_told_before_it_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "create_separator", lambda name, settings=None, domain=None: Honest())
    told: list[str] = []
    checks = validate_method("subject", load_suite("digits-pairs").tasks["class-split"], begin=told.append)
    order = [check.rule for check in checks]
    assert told[:2] == [conformance.FITS, conformance.RUNS]
    assert told[2:] == [rule for rule in order if rule in told[2:]]
    assert {conformance.REPEATS, conformance.REPRODUCES, conformance.USES_SEED, conformance.BATCHES, conformance.ORDERS, conformance.SHARDS} == set(told[2:])


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("shape", "shape (B, K"),
        ("dtype", "float32"),
        ("finite", "finite"),
        ("mutates", "not changed in place"),
        ("irreproducible", "the same call again"),
        ("batch", "batch-invariant"),
        ("order", "order-invariant"),
        ("global rng", "global state"),
        ("references", "separate() runs"),
        ("crash", "separate() runs"),
        ("deterministic", "declared deterministic"),
        ("name", "info is complete"),
        ("supervision", "fit() works"),
    ],
)
def test_each_fault_is_found(monkeypatch: pytest.MonkeyPatch, fault: str, rule: str) -> None:
    broken = [check.rule for check in _validate(monkeypatch, lambda: _broken(fault)) if check.passed is False]
    assert any(rule in found for found in broken), broken


@pytest.mark.parametrize("factor", [255.0, 2.0])
def test_images_far_outside_their_range_break_no_rule_and_are_told(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    class Bright(Honest):
        def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
            return factor * super().separate(mixtures, ctx)

    monkeypatch.setattr(conformance, "create_separator", lambda name, settings=None, domain=None: Bright())
    told: list[str] = []
    checks = validate_method("subject", load_suite("digits-pairs").tasks["class-split"], warn=told.append)
    assert all(check.passed is not False for check in checks)
    assert [line.partition(" reaches ")[0] for line in told] == ["subject on digits-pairs/class-split"] * (factor > 2)


RAISES = ("SupportsRaises", "SupportsExits", "ExitsInFit", "ExitsInSeparate")
BREAKERS = {
    "SupportsIsTrue": ("supports() answers with a Support", "method 'subject': supports() must return a sepbench.protocols.Support, got bool"),
    "SupportsRaises": ("supports() answers with a Support", "method 'subject' cannot say whether it supports task 'class-split': KeyError: 'operator\\nname'"),
    "SupportsExits": ("supports() answers with a Support", "method 'subject' cannot say whether it supports task 'class-split': SystemExit: 0"),
    "ExitsInFit": ("fit() works on what the declared supervision hands out", "SystemExit: 3"),
    "ExitsInSeparate": ("separate() runs", "SystemExit: [/x] done"),
    "ReturnsAnArray": ("separate() runs", "separate returned ndarray instead of a tensor"),
    "SamplesAnArray": ("separate() runs", "sample returned ndarray instead of a tensor"),
}


@pytest.mark.parametrize(("what", "rule", "seen"), [(what, *found) for what, found in BREAKERS.items()], ids=BREAKERS.keys())
def test_what_is_wrong_is_the_last_row(monkeypatch: pytest.MonkeyPatch, what: str, rule: str, seen: str) -> None:
    checks = _validate(monkeypatch, getattr(broken_methods, what))
    assert replace(checks[-1], detail=without_place(checks[-1].detail)) == Check(rule, False, seen)
    assert (checks[-1].detail != seen) == bool(checks[-1].traceback) == (what in RAISES)
    assert [check.rule for check in checks if check.passed is False] == ["info is complete", rule]  # registered under another name


KEEPERS = {
    "Keeps": (True, "largest difference 0"),
    "KeepsTooFewDigits": (False, "largest difference 0.05"),
    "KeepsNothing": (False, "FileNotFoundError: [Errno 2] No such file or directory"),
    "LoadsLater": (False, "FileNotFoundError: [Errno 2] No such file or directory"),
    "ExitsInLoad": (False, "SystemExit: 4"),
    "Toy": (None, "not offered"),
}


@pytest.mark.parametrize(("what", "passed", "seen"), [(what, *found) for what, found in KEEPERS.items()], ids=KEEPERS.keys())
def test_what_is_kept_must_give_the_bits_of_the_fit(monkeypatch: pytest.MonkeyPatch, what: str, passed: bool | None, seen: str) -> None:
    checks = _validate(monkeypatch, getattr(broken_methods, what))
    (found,) = [check for check in checks if check.rule == conformance.KEEPS]
    assert found.passed is passed
    assert found.detail.startswith(seen)
    assert [check.rule for check in checks if check.passed is False] == ["info is complete", *([conformance.KEEPS] if passed is False else [])]


def test_info_of_the_wrong_kinds_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(INFO, name=7, domains=["image"], max_batch="many")  # type: ignore[arg-type]
    found = _validate(monkeypatch, lambda: Honest(wrong))[0]
    assert found.passed is False
    for text in ("info.name is 7", "domains ['image'] must be a frozenset of some of image, audio, vector", "max_batch must be positive"):
        assert text in found.detail


def test_a_task_that_is_not_supported_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class One(Honest):
        def supports(self, task: TaskSpec) -> Support:
            return Support(False, "needs three sources")

    with pytest.raises(SepbenchError, match="needs three sources"):
        _validate(monkeypatch, One)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({}, "Subject, version 1"),
        ({"name": "half-mine"}, "info.name is 'half-mine', registered as 'subject'"),
        ({"supervision": "none"}, "supervision 'none' is none of blind, mixtures+one, sources, prior, bound"),
        ({"domains": frozenset()}, "domains [] must be a frozenset of some of image, audio, vector"),
        ({"domains": frozenset({"image", "text"})}, "domains ['image', 'text'] must be a frozenset of some of image, audio, vector"),
        ({"domains": {"image"}}, "domains {'image'} must be a frozenset of some of image, audio, vector"),
        ({"title": ""}, "title is empty"),
        ({"version": "", "paper": ""}, "version is empty; paper is empty"),
        ({"max_batch": 0}, "max_batch must be positive; the name lower-case and without '--'"),
        ({"max_batch": 1.0}, "max_batch must be positive; the name lower-case and without '--'"),
        ({"max_batch": 1}, "Subject, version 1"),
        ({"name": "Subject"}, "info.name is 'Subject', registered as 'subject'; max_batch must be positive; the name lower-case and without '--'"),
        ({"name": "a--b"}, "info.name is 'a--b', registered as 'subject'; max_batch must be positive; the name lower-case and without '--'"),
    ],
)
def test_what_is_wrong_with_an_info(changes: dict[str, object], detail: str) -> None:
    found = conformance._check_info("subject", replace(INFO, **changes))  # type: ignore[arg-type]
    assert found == Check("info is complete", detail == "Subject, version 1", detail)


@pytest.mark.parametrize(
    ("a", "b", "tolerance", "passed", "detail"),
    [
        ([0.0, 1.0], [0.0, 1.0], 0.0, True, "largest difference 0"),
        ([0.0, 1.0], [0.5, 1.0], 0.5, True, "largest difference 0.5"),
        ([0.0, 1.0], [0.75, 1.0], 0.5, False, "largest difference 0.75"),
        ([float("nan"), float("inf")], [float("nan"), float("inf")], 0.0, True, "largest difference 0"),
        ([float("inf")], [-float("inf")], 1.0, False, "largest difference inf"),
        ([0.0], [float("nan")], 1.0, False, "largest difference nan"),
        ([], [], 0.0, True, "largest difference 0"),
        ([0.0], [0.0, 0.0], 1.0, False, "shapes (1,) and (2,)"),
    ],
)
def test_when_estimates_are_the_same(a: list[float], b: list[float], tolerance: float, passed: bool, detail: str) -> None:
    assert conformance._same("rule", torch.tensor(a), torch.tensor(b), tolerance) == Check("rule", passed, detail)


def test_what_was_seen_is_told_of_every_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {check.rule: check.detail for check in _validate(monkeypatch, Honest)}
    shape = "(6, 2, 1, 8, 8)"
    expected = {
        "info is complete": "Subject, version 1",
        "supports() answers with a Support": "two sources only",
        "works without seeing references": "references raise SupervisionError during all checks",
        conformance.FITS: "prior",
        "estimates have shape (B, K, ...)": f"{shape}, wanted {shape}",
        "estimates are float32": "torch.float32",
        "estimates lie on the context's device": "cpu, wanted cpu",
        "estimates are finite": "",
        "mixtures are not changed in place": "",
        conformance.USES_SEED: "",
        conformance.SAMPLES: "not offered",
        conformance.LOG_PROBS: "not offered",
        conformance.KEEPS: "not offered",
        "global state is left alone": "",
    }
    assert {rule: told[rule] for rule in expected} == expected
    still = {check.rule: check.detail for check in _validate(monkeypatch, lambda: Honest(replace(INFO, deterministic=True)))}
    assert still[conformance.IGNORES_SEED] == ""


def test_what_is_offered_besides_is_told_with_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rich(Honest):
        def sample(self, mixtures: Mixtures, n: int, ctx: RunContext) -> torch.Tensor:
            return torch.stack([self.separate(mixtures, ctx) + k for k in range(n)], dim=1)

        def log_prob(self, sources: torch.Tensor) -> torch.Tensor:
            return sources.flatten(2).sum(2)

        def save(self, folder: Path) -> None:
            torch.save(self.mean, folder / "mean")

        def load(self, folder: Path, ctx: RunContext) -> None:
            self.mean = torch.load(folder / "mean")

    begun: list[str] = []
    monkeypatch.setattr(conformance, "create_separator", lambda name, settings=None, domain=None: Rich())
    task = load_suite("digits-pairs").tasks["class-split"]
    checks = {check.rule: check for check in validate_method("subject", task, examples=3, begin=begun.append)}
    assert checks[conformance.SAMPLES] == Check(conformance.SAMPLES, True, "(3, 2, 2, 1, 8, 8), wanted (3, 2, 2, 1, 8, 8)")
    assert checks[conformance.SAMPLES_FINITE] == Check(conformance.SAMPLES_FINITE, True, "torch.float32")
    assert checks[conformance.LOG_PROBS] == Check(conformance.LOG_PROBS, True, "(3, 2)")
    assert checks[conformance.KEEPS] == Check(conformance.KEEPS, True, "largest difference 0")
    assert begun[-3:] == [conformance.SAMPLES, conformance.LOG_PROBS, conformance.KEEPS]


def test_a_method_that_seeds_or_changes_the_process_is_told_what(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(Honest):
        def fit(self, view: TrainingView, ctx: RunContext) -> None:
            super().fit(view, ctx)
            torch.manual_seed(3)
            torch.set_default_dtype(torch.float64)
            torch.set_default_device("cpu")

    before = torch.get_rng_state()
    try:
        detail = _validate(monkeypatch, Careless)[-1].detail
    finally:
        torch.set_rng_state(before)
    assert detail == "changed: torch's global random state, torch's default dtype"
    assert torch.get_default_dtype() == torch.float32


def test_a_task_that_is_not_supported_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class One(Honest):
        def supports(self, task: TaskSpec) -> Support:
            return Support(False, "needs\nthree sources")

    with pytest.raises(SepbenchError) as caught:
        _validate(monkeypatch, One)
    assert str(caught.value) == "subject does not take digits-pairs/class-split: needs three sources; choose another with --suite and --task"
