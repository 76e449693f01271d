"""What an accelerator would refuse or wait for, seen without one: methods run on torch's meta device, which holds shapes and no numbers.

There, reading a number back (``float``, ``if tensor``, ``tolist``, ``cpu``) raises, so what passes never waits for the queue. Operations that mix both
devices, which CUDA refuses or which copy from the host, are counted; a sampler's count must not depend on its number of steps.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sepbench.noise import NoiseSource, noise_levels
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite

DEVICE = "meta"


class HostTraffic(TorchDispatchMode):
    """Counts operations between tensors of both devices, by the line of ours that asked for them."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        inside = {tensor.device.type for tensor in tensors if tensor.ndim}
        everywhere = {leaf.device.type for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)} | {tensor.device.type for tensor in tensors}
        if {"cpu", DEVICE} <= everywhere:
            copies = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_) or len(inside) == 1
            (self.copies if copies else self.refused)[f"{func} at {_own_line()}"] += 1
        return out


def _own_line() -> str:
    frames = [frame for frame in traceback.extract_stack() if "/sepbench/" in frame.filename or "/baselines/" in frame.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "the test"


@contextmanager
def host_traffic() -> Iterator[HostTraffic]:
    """Watches operations, and numbers that ``torch.tensor`` and ``torch.as_tensor`` carry to the device, which no operation shows."""
    with HostTraffic() as seen:

        def carrying(function: Any) -> Any:
            def watched(data: Any, *args: Any, **kwargs: Any) -> Any:
                if not isinstance(data, torch.Tensor) and torch.device(kwargs.get("device") or "cpu").type == DEVICE:
                    seen.copies[f"{function.__name__} at {_own_line()}"] += 1
                return function(data, *args, **kwargs)

            return watched

        with mock.patch.object(torch, "tensor", carrying(torch.tensor)), mock.patch.object(torch, "as_tensor", carrying(torch.as_tensor)):
            yield seen


def separated(task: str, method: str, settings: dict[str, Any] | None = None) -> HostTraffic:
    """Traffic of one batch of three of ``SUITE/TASK``."""
    suite, name = task.split("/")
    chosen = load_suite(suite).tasks[name]
    separator = create_separator(method, settings or {})
    ctx = RunContext(chosen.spec, DEVICE, NoiseSource(0), 0)
    separator.fit(chosen.view(separator.info.supervision), ctx)
    mixtures = chosen.mixture_set().mixtures(torch.arange(3), DEVICE)
    separator.separate(mixtures, ctx)  # analytic priors keep what they moved
    with host_traffic() as seen:
        estimates = separator.separate(mixtures, ctx)
    assert estimates.device.type == DEVICE
    assert estimates.shape == (3, chosen.spec.n_sources, *chosen.spec.source_shape)
    return seen


STEPS = {
    "basis-ncsn": "steps_per_level",
    "basis-ncsn-denoised": "steps_per_level",
    "basis-ncsn-tuned": "steps_per_level",
    "basis-ncsn-tuned-denoised": "steps_per_level",
    "basis-ncsn-10x": "steps_per_level",
    "dirac": "steps",
    "gaussian": "steps",
    "diffusion-gibbs": "levels",
    "alpha-rgs": "iterations",
    "projected": "steps",
    "projected-4x": "steps",
}


FEW_LEVELS: dict[str, dict[str, Any]] = {
    "basis-ncsn": {"levels": 2},
    "basis-ncsn-denoised": {"levels": 2},
    "basis-ncsn-tuned": {"levels": 2, "level_shares": (1.0, 2.0)},
    "basis-ncsn-tuned-denoised": {"levels": 2, "level_shares": (1.0, 2.0)},
    "basis-ncsn-10x": {"levels": 2, "best_of": 3},
}
"""All levels are run by the same lines: two of them show what ten would, in a fifth of the time."""

TASKS = ("gaussian-exact/d8", "gmm-exact/d8", "digits-pairs/class-split")
ON_THE_HOST = {("digits-pairs/class-split", "projected-4x")}
"""The mean of several draws finds their order on the host, once, after the last step."""


LONG = {("digits-pairs/class-split", name) for name in ("diffusion-gibbs", "basis-ncsn-10x", "dirac", "gaussian", "basis-ncsn-tuned-denoised")}
CASES = [
    pytest.param(*case, marks=[pytest.mark.slow] * (case in LONG or case[0] != "digits-pairs/class-split"))
    for case in sorted(set(product(TASKS, STEPS)) - ON_THE_HOST)
]


@pytest.mark.parametrize(("task", "method"), CASES)
def test_no_step_of_a_sampler_waits_for_the_device_or_copies_to_it(task: str, method: str) -> None:
    few, many = (separated(task, method, {STEPS[method]: steps, **FEW_LEVELS.get(method, {})}) for steps in (1, 3))
    assert not many.refused
    assert few.copies.total() > 0  # mixtures' ids and operator have to get there: a watch that sees nothing would pass too
    assert many.copies == few.copies


@pytest.mark.parametrize(("method", "settings"), [("average", {}), ("mixture", {}), ("hpss", {}), ("ft2d", {}), ("nmf-blind", {"iterations": 3})])
def test_audio_methods_without_a_stopping_rule_never_wait_for_the_device(method: str, settings: dict[str, int]) -> None:
    assert not separated("drums-bass-synth/best-assignment-val", method, settings).refused


def test_the_watch_sees_mixed_devices_and_carried_numbers() -> None:
    with host_traffic() as seen:
        x = torch.ones(3, device=DEVICE)
        torch.arange(3).to(DEVICE)
        torch.tensor(1.0, device=DEVICE)
        x + noise_levels(0.5, torch.float32, x.device)
    assert seen.copies.total() == 2
    with host_traffic() as seen, pytest.raises(RuntimeError):
        float(x.sum())
    with host_traffic() as seen:
        torch.ones(3, 3, device=DEVICE) @ torch.ones(3, 3)  # which CUDA refuses, and meta alone does not
    assert seen.refused.total() == 1


def test_noise_levels_are_the_numbers() -> None:
    assert torch.equal(noise_levels(0.1, torch.float32, torch.device("cpu")), torch.tensor(0.1))
    levels = torch.tensor([0.1, 2.0], dtype=torch.float64)
    assert torch.equal(noise_levels(levels, torch.float32, torch.device("cpu")), levels.float())
