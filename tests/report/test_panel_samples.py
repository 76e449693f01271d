"""Draws of one mixture by hand: what a method is asked, what becomes of whatever it answers or raises, and the values under its pictures."""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sepbench.errors import DataError, MethodError
from sepbench.metrics.kinds import MetricInfo
from sepbench.report.panels import gradients, samples
from sepbench.report.panels.gradients import has_prior
from sepbench.report.panels.samples import _sample_block, can_sample, draw_samples
from sepbench.suites.loader import load_suite

SPEC = load_suite("digits-pairs").tasks["class-split"].spec


class Sampler:
    """Draws what it is told to, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, list[tuple[Any, ...]]()

    def sample(self, *given: Any) -> Any:
        self.asked.append(given)
        torch.set_grad_enabled(False)
        if isinstance(self.answer, KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C does
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def score_prior(self, slot: int) -> Any:
        raise AssertionError


def session(separator: Any) -> Any:
    mixtures = SimpleNamespace(mixtures=lambda examples, device: ("mixtures", examples, device))
    return SimpleNamespace(separator=separator, ctx=SimpleNamespace(task=SPEC, device="a device"), cell=SimpleNamespace(method="toy"), mixture_set=mixtures)


def test_what_a_method_is_asked_and_what_is_kept_of_its_answer() -> None:
    """Numbers of single precision that nothing is differentiated by, whatever the method works with."""
    answer = torch.arange(3 * 2 * 64, dtype=torch.float64).reshape(1, 3, 2, 1, 8, 8).requires_grad_()
    sampler = Sampler(answer)
    made = session(sampler)
    drawn = draw_samples(made, 5, 3)
    assert sampler.asked == [(("mixtures", [5], "a device"), 3, made.ctx)]
    assert torch.equal(drawn, answer[0].float())
    assert (drawn.dtype, drawn.requires_grad) == (torch.float32, False)
    assert torch.is_grad_enabled()  # what the method has changed is put back
    with pytest.raises(MethodError) as caught:
        draw_samples(made, 5, 4)
    assert str(caught.value) == "toy: sample returned shape (1, 3, 2, 1, 8, 8) instead of (1, 4, 2, 1, 8, 8)"
    with pytest.raises(MethodError) as caught:
        draw_samples(session(object()), 5, 3)
    assert str(caught.value) == "toy draws no posterior samples; choose a method that does with --method"


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (DataError("the song is damaged"), DataError, "the song is damaged"),
        (MethodError("its own words"), MethodError, "its own words"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (ValueError("no\nsample"), MethodError, "toy failed to sample mixture 5: ValueError: no sample"),
        (SystemExit(3), MethodError, "toy failed to sample mixture 5: SystemExit: 3"),
    ],
    ids=["data", "method", "ctrl-c", "value", "exit"],
)
def test_an_error_of_a_method_names_it_and_the_mixture_in_one_line(error: BaseException, raised: type[BaseException], told: str) -> None:
    with torch.enable_grad(), pytest.raises(raised) as caught:
        draw_samples(session(Sampler(error)), 5, 3)
    assert (type(caught.value), str(caught.value)) == (raised, told)


@pytest.mark.parametrize("asked", [can_sample, has_prior])
def test_methods_are_made_with_the_settings_of_the_run_and_supplied_ones_never(monkeypatch: pytest.MonkeyPatch, asked: Any) -> None:
    made: list[tuple[Any, ...]] = []
    methods = {name: SimpleNamespace(settings={"of": name}) for name in ("toy", "plain", "supplied")}
    run: Any = SimpleNamespace(record=SimpleNamespace(methods=methods), suite=SimpleNamespace(domain="image"), separates=lambda method: method != "supplied")
    for module in (samples, gradients):
        monkeypatch.setattr(module, "create_separator", lambda *given: made.append(given) or (object() if given[0] == "plain" else Sampler(None)))
    assert [asked(run, name) for name in methods] == [True, False, False]
    assert made == [("toy", {"of": "toy"}, "image"), ("plain", {"of": "plain"}, "image")]


def test_values_under_draws_are_those_of_the_ranking_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their digits are those of the largest, whatever its sign; a metric of mixtures has none to write under a source."""
    asked: list[tuple[Any, ...]] = []
    info = MetricInfo("m", "dB", True, frozenset({"image"}), "source", "made up", assigned_by="m")
    metric: Any = SimpleNamespace(info=info, pairwise=lambda a, b: (a - b).flatten(2).mean(2, keepdim=True))
    monkeypatch.setattr(samples, "get_metric", lambda *given: asked.append(given) or metric)
    run: Any = SimpleNamespace(metric=SimpleNamespace(info=SimpleNamespace(name="m")))
    truth = torch.zeros(2, 1, 8, 8)
    images = torch.stack([torch.full((1, 8, 8), value) for value in (-0.5, 0.0625)])
    block = _sample_block(run, SPEC, images, truth)
    assert (block.captions, block.images.shape) == (("-0.50", "0.06"), (2, 8, 8, 3))
    assert asked == [("m", SPEC)]
    images[0, 0, 0, 0] = math.inf
    assert _sample_block(run, SPEC, images, truth).captions == ("failed", "0.0625")
    metric.info = replace(info, per="mixture")
    assert _sample_block(run, SPEC, images, truth).captions == ("", "")
    monkeypatch.setattr(samples, "get_metric", lambda *given: SimpleNamespace(info=info))
    assert _sample_block(run, SPEC, images, truth).captions == ("", "")
