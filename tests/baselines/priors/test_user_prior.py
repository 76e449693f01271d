"""Any object with ``score(x, sigma)`` is a prior for every sampler: named as ``module:NAME``, checked, and one line where it is none."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from method_toys import toy_task
from setting_worlds import tiny_prior

from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.priors.score_prior import EDMPrior, NCSNPrior
from baselines.priors.user_prior import UserPrior, UserPriorWithDensity, check, digests, is_reference, load, load_reference, module_sha256
from baselines.priors.weights_io import save_prior
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


def test_every_prior_of_a_list_is_checked(module: str, tmp_path: Path) -> None:
    """What comes after a reference too."""
    task = load_suite("digits-pairs").tasks["class-split"].spec
    gone = tmp_path / "gone.safetensors"
    for weights in (f"{module}:MADE,{gone}", f"{gone},{module}:MADE"):
        with pytest.raises(DataError, match=r"^no weights at .*gone\.safetensors; give the path of a \.safetensors file or train one"):
            check(weights, task, "m", 2, ten_levels_do=True)
    with pytest.raises(DataError, match="Small is for signals of shape"):
        check(f"{module}:MADE,{module}:Small", task, "m", 2, ten_levels_do=True)
    check(f"{module}:MADE, {module}:Gaussian", task, "m", 2, ten_levels_do=False)


@pytest.mark.parametrize(
    ("weights", "count", "message"),
    [
        ("a,b", 1, "m takes 1 prior on task {task}, its setting weights names 2; give 1 prior"),
        ("a", 2, "m takes 2 priors on task {task}, its setting weights names 1; give 2 priors"),
        (
            *("{small}", 1),
            "{small} was trained on signals of shape 1x4x8, task {task} has 1x8x8; choose other tasks with --tasks, or train a prior with `sepbench train`",
        ),
        ("{ten}", 1, "{ten} knows ten noise levels only, in float32; basis-ncsn and basis-ncsn-code can use it, m as set cannot"),
    ],
)
def test_what_does_not_fit_is_said_whole(tmp_path: Path, weights: str, count: int, message: str) -> None:
    task = load_suite("digits-pairs").tasks["class-split"].spec
    network = CondRefineNetDilated(1, 4)
    paths = {name: save_prior(tmp_path / f"{name}.safetensors", NCSNPrior(network, shape)) for name, shape in (("ten", (1, 8, 8)), ("small", (1, 4, 8)))}
    with pytest.raises(DataError) as told:
        check(weights.format(**paths), task, "m", count, ten_levels_do=False)
    assert str(told.value) == message.format(task=task.name, **paths)
    check(str(paths["ten"]), task, "m", 1, ten_levels_do=True)


def test_digests_stand_in_the_order_of_the_weights(module: str, tmp_path: Path) -> None:
    """A file that is not there has none, nor has a module that is not there, is built in, or is a folder without a file."""
    (tmp_path / "a.bin").write_bytes(b"a")
    (tmp_path / "folder_of_a_user").mkdir()
    file, code = sha256(b"a").hexdigest(), sha256((tmp_path / f"{module}.py").read_bytes()).hexdigest()
    assert digests(f"{tmp_path / 'a.bin'}, {module}:MADE") == f"{file},{code}"
    assert digests(f"{module}:MADE,{tmp_path / 'none.bin'},{tmp_path / 'a.bin'},{tmp_path}") == f"{code},{file}"
    for nothing in ("nowhere:X", "nowhere.at_all:X", "sys:X", "folder_of_a_user:X"):
        assert module_sha256(nothing) == "", nothing
    assert digests("sys:X,nowhere:X") == ""


def test_priors_are_loaded_in_order_at_the_precision_that_is_set(module: str, tmp_path: Path) -> None:
    path = tiny_prior(tmp_path, 1)
    own, edm = load(f"{module}:MADE, {path}", toy_task(), "bfloat16", "cpu")
    assert isinstance(own, UserPrior)
    assert own.name == f"{module}:MADE"
    assert isinstance(edm, EDMPrior)
    assert edm.precision == "bfloat16"
    assert edm.name == Path(path).stem


@pytest.mark.parametrize(
    ("text", "is_one"), [("a:B", True), ("a.b_1:_c", True), ("a/b.safetensors", False), ("C:\\a.b", False), ("a:b.c", False), ("a:", False)]
)
def test_what_names_an_object_and_what_a_file(text: str, is_one: bool) -> None:
    assert is_reference(text) is is_one


def test_what_a_users_denoiser_returns_is_checked_and_brought_to_the_type_of_x() -> None:
    class Odd:
        answer: object = None

        def score(self, x: torch.Tensor, sigma: float) -> object:
            return self.answer

        denoise = score

    odd, x = Odd(), torch.rand(2, 3)
    prior = UserPrior("my:odd", odd)
    for call, what in ((prior.score, "score"), (prior.denoise, "denoise")):
        for answer, got in ((None, "NoneType"), (torch.zeros(3), r"\(3,\)")):
            odd.answer = answer
            with pytest.raises(MethodError, match=rf"^prior my:odd: {what}\(x, sigma\) must return a tensor of x's shape \(2, 3\), got {got}$"):
                call(x, 0.5)
        odd.answer = x.clone().fill_(torch.inf)
        with pytest.raises(MethodError, match=rf"^prior my:odd: {what}\(x, sigma\) is not finite; look at it at the noise levels"):
            call(x, 0.5)
        odd.answer = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
        found = call(x, 0.5)
        assert (found.dtype, found.requires_grad) == (torch.float32, False)
