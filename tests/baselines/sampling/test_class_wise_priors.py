"""Methods that take one prior per source class: which weights they ask for, and that each source gets its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from method_toys import context, mix, toy_task

from baselines.networks.unet import ScoreUNet, UNetConfig
from baselines.priors.edm import EDMDenoiser
from baselines.priors.score_prior import EDMPrior
from baselines.priors.shipped import shipped_weights
from baselines.priors.weights_io import save_prior
from baselines.sampling.separator import ScoreSeparator
from sepbench.errors import DataError
from sepbench.files import file_sha256
from sepbench.protocols import TaskSpec
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite

METHODS = ("basis-ncsn-per-class", "projected-4x-per-class")
LAYOUT = UNetConfig(channels=1, widths=(8, 8, 8), blocks=(1, 1, 1), heads=1, embedding=8)


def _separator(name: str, **settings: object) -> ScoreSeparator:
    separator = create_separator(name, settings)
    assert isinstance(separator, ScoreSeparator)
    return separator


@pytest.fixture(scope="module")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Untrained priors whose data have means 0.2 and 0.6: at the highest noise each denoises to nearly its own mean."""
    folder, files = tmp_path_factory.mktemp("weights"), []
    for name, mean in (("dark", 0.2), ("bright", 0.6)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            network = ScoreUNet(LAYOUT)
        prior = EDMPrior(EDMDenoiser(network, sigma_data=0.1, mean=mean).eval(), (1, 8, 8), (0.005, 2.0))
        files.append(save_prior(folder / f"{name}.safetensors", prior, {}))
    return files


@pytest.mark.parametrize("name", METHODS)
def test_knowing_the_classes_is_stated(name: str) -> None:
    assert _separator(name).info.supervision == "sources"
    assert _separator(name.removesuffix("-per-class")).info.supervision == "prior"


@pytest.mark.parametrize("name", METHODS)
def test_every_source_gets_the_prior_of_its_place(name: str, two_files: list[Path]) -> None:
    task = toy_task()
    quick = {"steps_per_level": 2} if name.startswith("basis") else {"steps": 4}
    separator = _separator(name, weights=f"{two_files[0]}, {two_files[1]}", **quick)
    assert separator.supports(task).ok
    separator.fit(None, context(task))  # type: ignore[arg-type]
    noisy = torch.zeros(1, 1, 8, 8)
    means = [float(separator.score_prior(slot).denoise(noisy, 1.0).mean()) for slot in range(2)]
    assert means == pytest.approx([0.2, 0.6], abs=0.1)
    assert separator.weights_sha256 == ",".join(file_sha256(path) for path in two_files)
    estimates = separator.separate(mix(torch.full((2, 2, 1, 8, 8), 0.4)), context(task))
    assert estimates.shape == (2, 2, 1, 8, 8)
    assert bool((estimates[:, 0].mean((1, 2, 3)) < estimates[:, 1].mean((1, 2, 3))).all())


@pytest.mark.parametrize(("name", "count", "needed"), [(METHODS[0], 1, "2 priors"), (METHODS[1], 3, "2 priors"), ("projected", 2, "1 prior ")])
def test_another_number_of_files_is_refused(name: str, count: int, needed: str, two_files: list[Path]) -> None:
    weights = ",".join(str(two_files[0]) for _ in range(count))
    with pytest.raises(DataError, match=f"takes {needed}.* names {count};"):
        _separator(name, weights=weights).supports(toy_task())


@pytest.mark.parametrize("name", METHODS)
def test_where_no_prior_ships_for_a_class_it_is_named(name: str) -> None:
    support = _separator(name).supports(load_suite("mnist-pairs").tasks["class-agnostic"].spec)
    assert not support.ok
    assert "mnist of class 0-9" in support.note


@pytest.mark.parametrize("name", METHODS)
def test_shipped_class_wise_priors_are_found(name: str) -> None:
    spec: TaskSpec = load_suite("mnist-pairs").tasks["class-split"].spec
    listed = {entry.classes: entry.sha256 for entry in shipped_weights() if entry.dataset == "mnist"}
    assert {"0-4", "5-9"} <= set(listed)
    separator = _separator(name)
    assert separator.supports(spec).ok
    separator.fit(None, context(spec))  # type: ignore[arg-type]
    assert separator.weights_sha256 == f"{listed['0-4']},{listed['5-9']}"


def test_exact_priors_need_no_class_wise_row() -> None:
    spec = load_suite("gaussian-exact").tasks["d2"].spec
    assert not _separator(METHODS[0]).supports(spec).ok
    assert _separator("basis-ncsn").supports(spec).ok
