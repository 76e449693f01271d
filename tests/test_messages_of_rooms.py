"""Whole messages of mathematics, lists, metrics and suites, each with the call that gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass as strict_dataclass

from sepbench import registry
from sepbench.compat import _imported
from sepbench.data.lists.builders import Draws, apart
from sepbench.errors import SepbenchError
from sepbench.metrics.assignment import best_assignment
from sepbench.metrics.catalogue import get_metric, pair_metric
from sepbench.metrics.draws import _posterior_metric
from sepbench.metrics.energy_ratio import check_audio
from sepbench.metrics.sdr import in_windows
from sepbench.metrics.sdr_corpus import _only
from sepbench.metrics.sets.moments import moments_of
from sepbench.metrics.ssim import structural_similarity
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures
from sepbench.settings import STRICT, describe
from sepbench.suites.loader import recorded_suite
from sepbench.suites.tables import read_table

IDS, SOUND = torch.arange(2), torch.zeros(2, 2, 1, 8)
WANTS_RATE = "needs the sample rate for its windows of one second; get the metric with get_metric(name, task)"
PAIR = "audio metrics need estimates and references as two float tensors of one shape (B, K, channels, T), got"


@strict_dataclass(config=STRICT)
class Base:
    steps: int = 1


@dataclass
class Plain(Base):
    more: int = 2


def of_other_lengths(name: str) -> Any:
    metric: Any = get_metric(name)
    return metric.mixture_scores(SOUND, SOUND, Mixtures(torch.zeros(2, 1, 9), IDS, make_operator("sum", 2)))


MESSAGES: list[tuple[Callable[[], Any], str]] = [
    (lambda: NoiseSource(0).words(IDS, -1, 0, 4), "step must lie in [0, 2**32), got -1"),
    (lambda: NoiseSource(0).words(IDS, 1 << 32, 0, 4), "step must lie in [0, 2**32), got 4294967296"),
    (lambda: NoiseSource(0).draw(NoiseSource(0).counters(IDS, range(1)), 1 << 32, (3,)), "step must lie in [0, 2**32), got 4294967296"),
    (lambda: NoiseSource(0).counters(IDS, range(-1, 2)), "source must lie in [0, 2**16), got -1 to 1"),
    (lambda: NoiseSource(0).counters(IDS, range(3, 65_537)), "source must lie in [0, 2**16), got 3 to 65536"),
    (lambda: NoiseSource(0).counters(IDS - 1, range(2)), "example ids must lie in [0, 2**32)"),
    (lambda: NoiseSource(0).counters(IDS + (1 << 32), range(2)), "example ids must lie in [0, 2**32)"),
    (lambda: make_operator("mean", 3).forward(SOUND), "operator 'mean' mixes 3 sources, got shape (2, 2, 1, 8)"),
    (lambda: make_operator("channel-mean", 1).forward(SOUND), "operator 'channel-mean' wants (B, 1, 3, H, W), got shape (2, 2, 1, 8)"),
    (lambda: Draws("x").integers(0, np.arange(2), 0), "bound must lie in [1, 2**32), got 0"),
    (lambda: Draws("x").integers(1 << 32, np.arange(2), 0), "bound must lie in [1, 2**32), got 4294967296"),
    (lambda: apart(Draws("x"), np.arange(3), np.zeros(3, int), np.zeros(2, int), 0), "a pool of one key leaves nothing to an example that refuses it"),
    (lambda: best_assignment(torch.zeros(2, 2, 3)), "pairwise scores must be a floating-point (B, K, K), got torch.float32 (2, 2, 3)"),
    (lambda: best_assignment(torch.zeros(2, 2, 2).long()), "pairwise scores must be a floating-point (B, K, K), got torch.int64 (2, 2, 2)"),
    (lambda: best_assignment(torch.zeros(2, 0, 0)), "pairwise scores must be a floating-point (B, K, K), got torch.float32 (2, 0, 0)"),
    (
        lambda: best_assignment(torch.zeros(1, 9, 9)),
        "the best assignment is found for at most 8 sources, the task has 9; declare its assignment 'ordered'",
    ),
    (
        lambda: pair_metric("mixture_error"),
        "metric 'mixture_error' has no value per pair of estimate and true source; choose one that has, such as psnr or sdr",
    ),
    (lambda: _posterior_metric("psnr"), "metric 'psnr' scores estimates, not posterior draws; remove it from the suite"),
    (lambda: check_audio(SOUND[:1], SOUND), f"{PAIR} torch.float32 (1, 2, 1, 8) and torch.float32 (2, 2, 1, 8)"),
    (lambda: check_audio(SOUND[0], SOUND[0]), f"{PAIR} torch.float32 (2, 1, 8) and torch.float32 (2, 1, 8)"),
    (lambda: check_audio(SOUND, SOUND.long()), f"{PAIR} torch.float32 (2, 2, 1, 8) and torch.int64 (2, 2, 1, 8)"),
    (
        lambda: check_audio(SOUND[..., :0], SOUND[..., :0]),
        "audio metrics need at least one source, channel and sample, got (B, K, channels, T) = (2, 2, 1, 0)",
    ),
    (lambda: in_windows(np.zeros((2, 8)), 0), "a window must have at least one sample, got 0"),
    (lambda: get_metric("sdr").pairwise(SOUND, SOUND), f"sdr {WANTS_RATE}"),  # type: ignore[union-attr]
    (lambda: of_other_lengths("isr"), f"isr {WANTS_RATE}"),
    (lambda: of_other_lengths("si_sdr_improvement"), "si_sdr_improvement needs mixtures shaped like one source, got (2, 1, 9) for (2, 2, 1, 8)"),
    (lambda: _only(np.array([3, 2, 3]), "rate"), "examples laid end to end must agree in rate, got [2, 3]"),
    (lambda: moments_of([]), "there are no features"),
    (
        lambda: structural_similarity(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8).double()),
        "SSIM needs two (n, C, H, W) of one float type, got (1, 1, 8, 8) and (1, 1, 8, 8)",
    ),
    (lambda: structural_similarity(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)), "SSIM needs two (n, C, H, W) of one float type, got (1, 8, 8) and (1, 8, 8)"),
    (lambda: structural_similarity(torch.zeros(1, 1, 9, 6), torch.zeros(1, 1, 9, 6)), "SSIM has a 7x7 window, the images are 9x6"),
    (lambda: describe(Plain), "Plain is a plain dataclass based on a pydantic one; decorate it with pydantic.dataclasses.dataclass(config=STRICT)"),
    (
        lambda: _imported("no_such_package.inside", "audio"),
        "no_such_package.inside cannot be imported (No module named 'no_such_package'); install it with: pip install 'sepbench[audio]' torch==2.13.0",
    ),
    (
        lambda: _imported("no_such_package", ""),
        "no_such_package cannot be imported (No module named 'no_such_package'); install it with: pip install 'no-such-package' torch==2.13.0",
    ),
    (
        lambda: recorded_suite("gone", "/nowhere/gone/suite.toml"),
        "the run's suite 'gone' was in /nowhere/gone/suite.toml, which does not exist; put it back, or name the folder with gone/ in SEPBENCH_SUITES",
    ),
]


@pytest.mark.parametrize(("call", "message"), MESSAGES, ids=[message[:50] for _, message in MESSAGES])
def test_the_whole_message(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, SepbenchError)) as refused:
        call()
    assert str(refused.value) == message


def test_a_group_that_is_empty_and_a_suite_whose_entry_point_names_no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "points", lambda group: {})
    with pytest.raises(SepbenchError) as refused:
        registry.load_entry(registry.METRIC_GROUP, "mine")
    assert str(refused.value) == "no metric 'mine': none is registered; if sepbench has been updated, install it again (pip install)"
    point = SimpleNamespace(value="my_package:SUITE")
    monkeypatch.setattr(registry, "_suites", lambda: {"mine": point})
    for loaded, told in ((7, "is of type int; its entry point must name the path of a TOML file"), (tmp_path, "")):
        monkeypatch.setattr(registry, "_load", lambda found, loaded=loaded: loaded)
        with pytest.raises(SepbenchError) as refused:
            registry.suite_path("mine")
        assert str(refused.value) == (f"suite 'mine' (my_package:SUITE) {told}" if told else f"suite 'mine' points at {tmp_path}, which is not a file")


def test_a_suite_that_is_not_there_says_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEPBENCH_SUITES", str(tmp_path / "mine"))
    with pytest.raises(SepbenchError) as refused:
        registry.suite_path("qqqqqq")
    assert str(refused.value) == (
        f"unknown suite 'qqqqqq'; it does not come with an installed package, and is not in {tmp_path / 'mine'} and {tmp_path / 'suites'} "
        "(SEPBENCH_SUITES names more folders); 'sepbench list suites' shows all, 'sepbench new-suite' makes one"
    )


def test_a_table_that_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text("a = ", encoding="utf-8")
    with pytest.raises(SepbenchError) as refused:
        read_table(path)
    assert str(refused.value).startswith(f"{path} is not valid TOML: ")
    with pytest.raises(SepbenchError) as refused:
        read_table(tmp_path / "none.toml")
    assert str(refused.value) == f"{tmp_path / 'none.toml'} cannot be read: No such file or directory; 'sepbench list suites' shows the suites"
