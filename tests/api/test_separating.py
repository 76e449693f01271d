"""``sepbench.separate``: methods on mixtures of one's own."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from broken_methods import register
from own_methods_toys import Hidden, Keeps, Misshapes, Raises, Shares

import sepbench
from sepbench import Run, RunWarning, SepbenchError
from sepbench.errors import ArgumentError, MethodError, SettingError, UnknownNameError, UnsupportedTaskError
from sepbench.protocols import Mixtures, RunContext

TASK = "digits-pairs/class-split"


@pytest.fixture(scope="module")
def mixtures() -> torch.Tensor:
    return sepbench.load_suite("digits-pairs").task("class-split").mixtures(range(4))


def separate(method: Any, mixtures: Any, **options: Any) -> torch.Tensor:
    return sepbench.separate(method, mixtures, **({"device": "cpu"} | options))


def test_estimates_are_those_of_the_run(shared_run: Run) -> None:
    suite = sepbench.load_suite("digits-pairs")
    for task in ("class-split", "class-agnostic"):
        found = separate("nmf", suite.task(task).mixtures(range(12)), task=f"digits-pairs/{task}", ids=range(12))
        assert torch.equal(found, shared_run.estimates(task, "nmf"))
        assert torch.equal(found, separate("nmf", suite.task(task).mixtures(range(12)), task=suite.task(task)))


def test_a_method_that_learns_nothing_needs_no_task(mixtures: torch.Tensor) -> None:
    by_task = separate("average", mixtures, task=TASK)
    assert torch.equal(by_task, mixtures[:, None].repeat(1, 2, 1, 1, 1) / 2)
    assert torch.equal(separate("average", mixtures, operator="sum", n_sources=2), by_task)
    assert torch.equal(separate("average", mixtures.numpy().astype(np.float64), operator="sum", n_sources=2), by_task)
    thirds = separate("average", mixtures, operator="mean", n_sources=3)
    assert thirds.shape == (4, 3, 1, 8, 8)
    torch.testing.assert_close(thirds.mean(1), mixtures)
    assert separate("average", torch.rand(2, 1, 5, 6), operator="channel-mean", n_sources=1).shape == (2, 1, 3, 5, 6)
    assert separate(Shares, torch.randn(3, 1, 400), operator="sum", n_sources=2).shape == (3, 2, 1, 400)


def test_own_classes_and_objects_and_settings(mixtures: torch.Tensor) -> None:
    told = {"operator": "sum", "n_sources": 2}
    assert torch.equal(separate(Shares(0.3), mixtures, **told), separate(Shares, mixtures, settings={"share": 0.3}, **told))
    given = Hidden(0.3)
    assert separate(given, mixtures, task=TASK).shape == (4, 2, 1, 8, 8)
    assert given.fits == 0


def test_a_fit_of_a_run_is_found_again(mixtures: torch.Tensor) -> None:
    Keeps.learnt.clear()
    run = sepbench.run("digits-pairs", methods=Keeps, tasks="class-split", limit=4, device="cpu")
    assert torch.equal(separate(Keeps, mixtures, task=TASK), run.estimates("class-split", "keeps"))
    assert Keeps.learnt == ["class-split"]
    separate(Keeps, mixtures, task=TASK, seed=1)  # another seed is another fit
    separate(Keeps, mixtures, task=TASK, seed=1)
    assert Keeps.learnt == ["class-split"] * 2


def test_what_the_true_sources_are_needed_for_asks_which_they_are(mixtures: torch.Tensor) -> None:
    references = sepbench.load_suite("digits-pairs").task("class-split").references([2, 3])
    assert torch.equal(separate("original", mixtures[2:], task=TASK, ids=[2, 3]), references)
    with pytest.raises(ArgumentError, match="original is handed the true sources: say which of its examples these mixtures are, ids="):
        separate("original", mixtures, task=TASK)


def test_noise_belongs_to_the_ids(mixtures: torch.Tensor) -> None:
    random = separate("ica", mixtures, task=TASK)
    assert torch.equal(separate("ica", mixtures, task=TASK, ids=range(4)), random)
    assert torch.equal(separate("ica", mixtures.flip(0), task=TASK, ids=[3, 2, 1, 0]).flip(0), random)


def test_what_is_given_is_left_alone(mixtures: torch.Tensor) -> None:
    before, state = mixtures.clone(), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        separate("average", mixtures, operator="sum", n_sources=2)
    assert torch.equal(mixtures, before)
    assert torch.equal(torch.get_rng_state(), state)


SUM = {"operator": "sum", "n_sources": 2}
WRONG: dict[str, tuple[Callable[[torch.Tensor], object], type[SepbenchError], str]] = {
    "nothing stated": (lambda m: separate("average", m), ArgumentError, "task='SUITE/TASK', or operator= and n_sources="),
    "half stated": (lambda m: separate("average", m, operator="sum"), ArgumentError, "operator= and n_sources="),
    "both stated": (lambda m: separate("average", m, task=TASK, operator="sum"), ArgumentError, "leave out operator or task"),
    "operator": (lambda m: separate("average", m, operator="summ", n_sources=2), UnknownNameError, "did you mean sum"),
    "gain": (lambda m: separate("average", m, operator="gain", n_sources=2), ArgumentError, "gains belong to the examples of a task"),
    "sources": (lambda m: separate("average", m, operator="sum", n_sources=0), ArgumentError, "n_sources must be a whole number of at least 1"),
    "two sources grey": (lambda m: separate("average", m, operator="channel-mean", n_sources=2), SepbenchError, "takes one source"),
    "method": (lambda m: separate("avarage", m, **SUM), UnknownNameError, "did you mean average"),
    "several": (lambda m: separate("average,nmf", m, **SUM), ArgumentError, "takes several as a list"),
    "setting": (lambda m: separate(Shares, m, settings={"shar": 1.0}, **SUM), UnknownNameError, "did you mean share"),
    "value": (lambda m: separate(Shares, m, settings={"share": "x"}, **SUM), SettingError, "shares.share must be"),
    "settings": (lambda m: separate(Shares, m, settings=0.3, **SUM), ArgumentError, "settings must be a dict, setting -> value"),
    "learns": (lambda m: separate("nmf", m, **SUM), UnsupportedTaskError, r"nmf learns from training data \(level 'sources'\): name a task"),
    "oracle": (lambda m: separate("original", m, **SUM), UnsupportedTaskError, "original is handed the true sources: name a task"),
    "other signals": (lambda m: separate("hpss", m, **SUM), UnsupportedTaskError, "hpss separates audio signals only, and these are of kind image"),
    "other task": (lambda m: separate("hpss", m, task=TASK), UnsupportedTaskError, "hpss does not take digits-pairs/class-split"),
    "task": (lambda m: separate("average", m, task="class-split"), ArgumentError, "task must be 'SUITE/TASK'"),
    "task name": (lambda m: separate("average", m, task="digits-pairs/class-splt"), UnknownNameError, "did you mean class-split"),
    "suite name": (lambda m: separate("average", m, task="digit-pairs/class-split"), UnknownNameError, "did you mean digits-pairs"),
    "shape": (lambda m: separate("average", torch.rand(4, 1, 9, 9), task=TASK), ArgumentError, r"mixtures of shape \(B, 1, 8, 8\), got \(4, 1, 9, 9\)"),
    "no batch": (lambda m: separate("average", m[0], task=TASK), ArgumentError, r"needs a batch axis too: mixtures\[None\]"),
    "bytes": (lambda m: separate("average", (m * 255).byte(), **SUM), ArgumentError, "floating-point numbers, .*; got a tensor of uint8"),
    "integers": (lambda m: separate("average", m.long().numpy(), **SUM), ArgumentError, "got an array of int64"),
    "list": (lambda m: separate("average", m.tolist(), **SUM), ArgumentError, "mixtures must be a tensor or array"),
    "empty": (lambda m: separate("average", m[:0], **SUM), ArgumentError, r"got shape \(0, 1, 8, 8\)"),
    "nan": (lambda m: separate("average", m.masked_fill(m > 1, torch.nan), **SUM), ArgumentError, "mixture 0 holds values that are not finite"),
    "ids": (lambda m: separate("average", m, task=TASK, ids=[0, 1]), ArgumentError, "ids names 2 examples, and there are 4 mixtures"),
    "raises": (lambda m: separate(Raises, m, **SUM), MethodError, "method 'raises' failed: RuntimeError: no convergence at all"),
    "misshapes": (lambda m: separate(Misshapes, m, **SUM), MethodError, r"method 'misshapes': separate returned shape \(4, 1, 1, 8, 8\)"),
    "device": (lambda m: separate("average", m, device="gpu", **SUM), SepbenchError, "unknown device 'gpu'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_one_line_at_the_door(wrong: str, mixtures: torch.Tensor) -> None:
    call, kind, text = WRONG[wrong]
    with pytest.raises(kind, match=text) as caught:
        call(mixtures)
    assert "\n" not in str(caught.value)
    files = {Path(frame.filename).name for frame in traceback.extract_tb(caught.value.__traceback__)}
    assert files <= {"test_separating.py", "arguments.py"}


@pytest.mark.parametrize("where", [SUM, {"task": TASK}], ids=["stated", "of a task"])
def test_what_a_method_raised_is_the_cause_with_the_methods_own_frames(where: dict[str, Any], mixtures: torch.Tensor) -> None:
    with pytest.raises(MethodError, match=r" at all \(own_methods_toys.py, line \d+\)$") as caught:
        separate(Raises, mixtures, **where)
    cause = caught.value.__cause__
    assert isinstance(cause, RuntimeError)
    assert [(Path(frame.filename).name, frame.name) for frame in traceback.extract_tb(cause.__traceback__)] == [("own_methods_toys.py", "separate")]
    with pytest.raises(MethodError) as misshapen:
        separate(Misshapes, mixtures, **where)
    assert misshapen.value.__cause__ is None  # sepbench's own words, from its own code


class Bytes(Shares):
    """Returns numbers from 0 to 255."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        return 255 * super().separate(mixtures, ctx)


@pytest.mark.parametrize("where", [SUM, {"task": TASK}], ids=["stated", "of a task"])
def test_images_in_numbers_up_to_255_are_one_warning(where: dict[str, Any], mixtures: torch.Tensor) -> None:
    with pytest.warns(RunWarning, match=r"^method 'shares' reaches [\d.]+, and images are in \[0, 1\]: if it returns numbers from 0 to 255, divide") as told:
        separate(Bytes, torch.cat([mixtures] * 100), **where)
    assert len(told) == 1


@pytest.mark.parametrize("where", [SUM, {"task": TASK}], ids=["stated", "of a task"])
def test_a_method_registered_under_another_name_is_refused(monkeypatch: pytest.MonkeyPatch, where: dict[str, Any], mixtures: torch.Tensor) -> None:
    register(monkeypatch, "toy", "OtherName")
    with pytest.raises(MethodError, match=r"^method 'toy' calls itself 'toy plain'; its info.name must be that of its entry point, 'toy'$"):
        separate("toy", mixtures, **where)
