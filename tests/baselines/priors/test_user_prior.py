"""Any object with ``score(x, sigma)`` is a prior for every sampler: named as ``module:NAME``, checked, and one line where it is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from baselines.priors.user_prior import UserPriorWithDensity, load_reference, module_sha256
from sepbench.errors import DataError, MethodError
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.selection import by_truth
from sepbench.suites.loader import load_suite

MODULE = """
import torch

class Gaussian:
    # independent pixels N(0.3, 0.4^2): all that score() needs
    def score(self, x, sigma):
        level = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return (0.3 - x) / (0.16 + level**2)

class WithDenoiser(Gaussian):
    def denoise(self, x, sigma):
        level = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return x + level**2 * self.score(x, level)

    def log_prob(self, x):
        return -((x - 0.3) ** 2).flatten(1).sum(1) / 0.32

class Small(Gaussian):
    shape = (1, 4, 4)

class Broken:
    def __init__(self):
        raise RuntimeError("no weights here")

class Lost(Gaussian):
    def score(self, x, sigma):
        return super().score(x, sigma).masked_fill(x > 1.0, float("nan"))

class Flat(Gaussian):
    def score(self, x, sigma):
        return super().score(x, sigma).flatten(1)

MADE, NUMBER = Gaussian(), 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "prior_of_a_user_" + tmp_path.name.rpartition("_")[2].replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def _estimates(method: str, reference: str, **settings: object) -> torch.Tensor:
    task = load_suite("digits-pairs").tasks["class-split"]
    separator = create_separator(method, {"weights": reference, **settings})
    ctx = RunContext(task.spec, "cpu", NoiseSource(0), 0)
    assert separator.supports(task.spec).ok
    separator.fit(task.view("prior"), ctx)
    return separator.separate(task.mixture_set().mixtures(torch.arange(3)), ctx)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("basis-ncsn", {"steps_per_level": 4}),
        ("dirac", {"steps": 6}),
        ("gaussian", {"steps": 12}),
        ("diffusion-gibbs", {"levels": 5}),
        ("alpha-rgs", {"iterations": 6}),
        ("projected-4x", {"steps": 6}),
    ],
)
def test_a_score_is_enough_for_every_sampler(module: str, method: str, settings: dict[str, int]) -> None:
    alone = _estimates(method, f"{module}:Gaussian", **settings)
    torch.testing.assert_close(alone, _estimates(method, f"{module}:WithDenoiser", **settings), atol=1e-5, rtol=1e-5)
    assert bool(torch.isfinite(alone).all())
    assert not torch.equal(alone, _estimates(method, "", **settings))


def test_an_object_and_a_class_are_taken_and_a_density_is_seen(module: str) -> None:
    shape, x = (1, 8, 8), torch.rand(2, 1, 8, 8)
    made, by_class = load_reference(f"{module}:MADE", shape), load_reference(f"{module}:Gaussian", shape)
    assert torch.equal(made.score(x, 0.1), by_class.score(x, 0.1))
    dense = load_reference(f"{module}:WithDenoiser", shape)
    assert isinstance(dense, UserPriorWithDensity)
    assert dense.log_prob(x).dtype == torch.float64
    assert bool(torch.isfinite(_estimates("projected", f"{module}:WithDenoiser", steps=4, best_of=3, criterion="log-prior")).all())
    assert len(module_sha256(f"{module}:Gaussian")) == 64


def test_its_digest_stands_in_the_results(module: str) -> None:
    separator = create_separator("projected", {"weights": f"{module}:Gaussian"})
    assert separator.weights_sha256 == module_sha256(f"{module}:Gaussian")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nothing", "cannot be made: AttributeError"),
        ("Broken", "cannot be made: RuntimeError: no weights here"),
        ("NUMBER", "cannot be made: TypeError"),
        ("torch", r"cannot be made: TypeError"),
        ("Small", r"is for signals of shape \(1, 4, 4\), the task has \(1, 8, 8\)"),
    ],
)
def test_what_is_no_prior_is_one_line(module: str, name: str, message: str) -> None:
    task = load_suite("digits-pairs").tasks["class-split"]
    with pytest.raises(DataError, match=message):
        create_separator("projected", {"weights": f"{module}:{name}"}).supports(task.spec)
    with pytest.raises(DataError, match="no module 'nowhere'; install its package"):
        create_separator("projected", {"weights": "nowhere.at_all:Gaussian"}).supports(task.spec)


@pytest.mark.parametrize(
    ("name", "message"),
    [("Lost", r"score\(x, sigma\) is not finite"), ("Flat", r"must return a tensor of x's shape \(.*\), got \(")],
)
def test_what_a_prior_returns_is_checked(module: str, name: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        _estimates("projected", f"{module}:{name}", steps=5)


def test_a_better_prior_separates_better(module: str) -> None:
    task = load_suite("digits-pairs").tasks["class-split"]
    truth = task.mixture_set().sources(torch.arange(3))

    def mean(run: Callable[[], torch.Tensor]) -> float:
        return float(by_truth(run().unsqueeze(1), truth, task.spec).mean())

    assert mean(lambda: _estimates("projected-4x", "")) > mean(lambda: _estimates("projected-4x", f"{module}:Gaussian")) + 1
