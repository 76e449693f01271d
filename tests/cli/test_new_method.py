"""``sepbench new-method``: what its templates promise. ``test_third_party.py`` installs the first one as a package; here is the one with a network."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from sepbench import registry
from sepbench.cli.main import app
from sepbench.cli.method_page import facts_of
from sepbench.conformance import validate_method
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Task


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The module that ``new-method my-net --trained`` writes."""
    folder = tmp_path_factory.mktemp("new")
    done = CliRunner().invoke(app, ["new-method", "my-net", "--trained", "--into", str(folder)])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (folder / "my-net").iterdir()) == ["README.md", "my_net.py", "pyproject.toml", "test_my_net.py"]
    spec = importlib.util.spec_from_file_location("my_net", folder / "my-net" / "my_net.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["my_net"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("more", [(), ("--trained",)])
def test_the_readme_has_the_next_commands(more: tuple[str, ...], tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["new-method", "my-net", "--into", str(tmp_path), *more]).stdout
    readme = (tmp_path / "my-net" / "README.md").read_text()
    commands = re.findall(r"^(?:pip|sepbench) .*$", readme, flags=re.M)
    assert len(commands) == 3
    assert commands[0] == "pip install --no-deps -e ."  # the reader stands in the folder of the file
    assert [line.strip() for line in said.splitlines() if line.startswith("  sepbench")] == commands[1:]


@pytest.fixture(scope="module")
def task() -> Task:
    return load_suite("digits-pairs").tasks["class-split"]


def _fit(module: ModuleType, task: Task, folder: Path | None, seed: int = 0, **settings: Any) -> Any:
    method = module.MyNet(**{"epochs": 4, "training_samples": 64, **settings})
    method.fit(task.view("sources"), RunContext(task.spec, "cpu", NoiseSource(seed), seed, cache=folder))
    return method


def _weights(method: Any) -> torch.Tensor:
    return torch.cat([value.flatten() for value in method._network.state_dict().values()])


def test_the_template_with_a_network_keeps_the_contract(written: ModuleType, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    found, point = registry._separators, EntryPoint("my-net", "my_net:MyNet", registry.SEPARATOR_GROUP)
    monkeypatch.setattr(registry, "_separators", lambda: found() | {"my-net": point})
    checks = validate_method("my-net", task, settings={"epochs": 3, "training_samples": 64})
    assert [check for check in checks if check.passed is False] == []
    assert sum(check.passed is True for check in checks) >= 15


def test_what_list_shows_of_a_new_method_is_a_sentence_to_be_replaced(written: ModuleType) -> None:
    facts = dict(facts_of("my-net", written.MyNet()))
    assert facts["about"] == "Replace this sentence: what My net does. ``sepbench list my-net`` shows it."


def test_a_fit_that_was_killed_goes_on_to_the_same_bits(written: ModuleType, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "MINUTE", 0.0)
    whole = _fit(written, task, None)
    trained, epochs = written.MyNet._train_epoch, []

    def killed(self: Any, samples: Any, epoch: int, optimiser: Any, ctx: RunContext) -> None:
        if epoch == 2 and not epochs:
            epochs.append(epoch)
            raise KeyboardInterrupt
        trained(self, samples, epoch, optimiser, ctx)

    monkeypatch.setattr(written.MyNet, "_train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        _fit(written, task, tmp_path)
    resumed = _fit(written, task, tmp_path)
    assert epochs == [2]
    assert torch.equal(_weights(resumed), _weights(whole))


def test_the_seed_decides_the_weights_and_nothing_else_does(written: ModuleType, task: Task) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, second, other = (_weights(_fit(written, task, None, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_of_ones_own_take_the_place_of_training(written: ModuleType, task: Task, tmp_path: Path) -> None:
    trained = _fit(written, task, None)
    path = tmp_path / "mine.safetensors"
    save_file(trained._network.state_dict(), path)
    read = _fit(written, task, None, seed=5, weights=str(path))
    assert torch.equal(_weights(read), _weights(trained))
    assert len(read.weights_sha256) == 64


def test_each_setting_changes_what_is_learnt(written: ModuleType, task: Task) -> None:
    usual = _weights(_fit(written, task, None))
    for change in ({"epochs": 3}, {"batch": 16}, {"lr": 1e-3}, {"training_samples": 100}):
        assert not torch.equal(_weights(_fit(written, task, None, **change)), usual), change
    assert _fit(written, task, None, width=8)._network is not None
    assert len(_weights(_fit(written, task, None, width=8))) < len(usual)
