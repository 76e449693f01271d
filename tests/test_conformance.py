"""``sepbench validate`` finds what it promises to find: one broken method per rule, and an honest one that passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import broken_methods
import pytest
import torch

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
    assert checks[-1] == Check(rule, False, seen)
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
