"""Which fits are kept and shared: what they depend on, under which name, in which files; and what NES begins with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_toys import Stripes
from method_toys import context, toy_task
from safetensors.torch import load_file, save_file
from setting_worlds import images
from sound_toys import sound_task

import baselines.nes
from baselines.conv_tasnet import ConvTasNetSeparator
from baselines.demucs import DemucsSeparator
from baselines.nes import NeuralEggSeparation
from baselines.networks.conv_tasnet import ConvTasNetConfig
from baselines.networks.demucs import DemucsConfig
from baselines.training.generative import LearntGenerator
from baselines.training.latent import LearntGenerators
from baselines.training.sound_tokens import LearntSoundTokens
from baselines.training.token_models import LearntTokens
from sepbench.errors import MethodError
from sepbench.protocols import Fitted
from sepbench.registry import create_separator, separator_class, separator_domains, separator_names
from sepbench.settings import OF_SIGNALS, FitScope

SCOPES: Mapping[str, FitScope] = {
    **dict.fromkeys(("am", "nes", "supervised", "conv-tasnet", "demucs"), OF_SIGNALS),
    "lass": FitScope(frozenset({"source_shape"}), "lass", "1", LearntTokens),
    "lass.audio": FitScope(frozenset({"source_shape", "sample_rate", "operator", "n_sources", "source_classes"}), "lass.audio", "1", LearntSoundTokens),
    "s-d": FitScope(frozenset({"source_shape"}), "s-d", "1", LearntGenerator),
    "glom": FitScope(OF_SIGNALS.task, "glom", "1", LearntGenerators),
}


@pytest.mark.parametrize("name", separator_names())
def test_what_a_fit_depends_on_and_who_shares_it(name: str) -> None:
    """A preset shares the fits of its method, and lass-projected those of lass; methods that learn nothing slow keep nothing."""
    family = next((family for family in SCOPES if name == family or name.startswith(f"{family}-")), None)
    for domain in separator_domains(name):
        method = separator_class(name, domain)
        assert getattr(method, "fit_scope", None) == (None if family is None else SCOPES.get(f"{family}.{domain}", SCOPES[family]))
        assert issubclass(method, Fitted) == (family is not None)


# ---- networks of a task ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("milliseconds", "rate", "length"),
    [(3.0, 8_000, 24), (2.0, 8_000, 16), (3.1, 8_000, 24), (3.2, 8_000, 26), (0.01, 8_000, 2), (3.0, 22_050, 66), (3.0, None, 2)],
)
def test_filters_of_conv_tasnet_are_an_even_number_of_samples(milliseconds: float, rate: int | None, length: int) -> None:
    small: Any = {"filters": 5, "bottleneck": 2, "hidden": 4, "skip": 3, "kernel": 7, "blocks": 1, "repeats": 6}
    network = ConvTasNetSeparator(milliseconds=milliseconds, **small).network(sound_task(900, ("a", "b", "c"), channels=2, rate=rate))
    assert network.config == ConvTasNetConfig(3, 2, 5, length, 2, 4, 3, 7, 1, 6)


def test_layers_of_demucs() -> None:
    network = DemucsSeparator(width=3, depth=2, lstm_layers=1).network(sound_task(900, ("a", "b", "c"), channels=2))
    assert network.config == DemucsConfig(3, 2, 3, 2, lstm_layers=1)


# ---- NES -------------------------------------------------------------------------------------------------------------------------------


def fit(init: str, **more: Any) -> NeuralEggSeparation:
    world = images()
    method = NeuralEggSeparation(init=init, iterations=2, epochs=1, samples=20, batch=8, lr=1e-3, fit_precision="float32", **more)
    method.fit(world.view("mixtures+one"), context(world.task))
    return method


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "init must be constant, random, am, glom or a safetensors file, got {} ("),
        ({"y": torch.zeros(2)}, "{} holds no tensor x; an estimate of the other source for each training mixture is (20, 1, 8, 8)"),
        ({"x": torch.zeros(19, 1, 8, 8)}, "{} holds x of shape (19, 1, 8, 8); an estimate of the other source for each training mixture is (20, 1, 8, 8)"),
    ],
)
def test_a_start_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, content: dict[str, torch.Tensor] | None, line: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("eggs") if content is None else save_file(content, path)
    with pytest.raises(MethodError) as told:
        fit(str(path))
    wanted = line.format(path)
    assert str(told.value).startswith(wanted) if content is None else str(told.value) == wanted
    assert "\n" not in str(told.value)
    if content is None:
        with pytest.raises(MethodError, match=re.escape(line.format(tmp_path / "nowhere"))):
            fit(str(tmp_path / "nowhere"))


def test_files_of_a_fit_and_the_iterations_that_there_are(tmp_path: Path) -> None:
    method = fit("constant", constant=0.25, kept=3)
    method.save(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.safetensors")) == [
        "eggs.safetensors",
        "iterations/001.safetensors",
        "iterations/002.safetensors",
    ]
    kept = load_file(tmp_path / "eggs.safetensors")["x"]
    assert kept.shape == (3, 3, 1, 8, 8)
    torch.testing.assert_close(kept[0], 0.25 * images().view("mixtures+one").mixtures(3))
    for number in (0, 3):
        with pytest.raises(ValueError, match=f"^outer iterations are 1 to 2, got {number}$"):
            method.after(number)
    assert [len(method.after(number)._networks) for number in (1, 2)] == [1, 2]
    assert len(method._networks) == 2


def test_eggs_are_sources_and_not_parts() -> None:
    """Under the mean a part is half a source: the constant share of the mixture is twice as loud as a source."""
    world = Stripes.make(0, "mean")
    method = NeuralEggSeparation(iterations=1, epochs=1, samples=32, constant=0.25, kept=2)
    method.fit(world.view("mixtures+one"), context(world.task))
    assert method.eggs is not None
    torch.testing.assert_close(method.eggs[0], 2 * 0.25 * world.view("mixtures+one").mixtures(2))


@pytest.mark.parametrize(("init", "begins"), [("am", 0.3), ("glom", 0.3), ("constant", 0.0)])
def test_the_start_is_three_tenths_of_the_way(monkeypatch: pytest.MonkeyPatch, init: str, begins: float) -> None:
    """Every training tells a half and all of it; the start's lines say whose they are."""
    told: list[tuple[float, str]] = []
    monkeypatch.setattr(baselines.nes, "resume", lambda *given: None)
    monkeypatch.setattr(baselines.nes, "run", lambda training, folder, progress: [progress(done, f"{done}") for done in (0.5, 1.0)])
    world = images()
    method = NeuralEggSeparation(init=init, iterations=1, epochs=1, samples=8, batch=4, fit_precision="float32")
    monkeypatch.setattr(baselines.nes, "_with_weights", lambda network, weights: network)
    method.fit(world.view("mixtures+one"), replace(context(world.task), progress=lambda done, text: told.append((done, text))))
    start = [(0.15, f"{init}: 0.5"), (0.3, f"{init}: 1.0")] if begins else []
    assert [text for _, text in told] == [text for _, text in [*start, (0, "0.5"), (0, "1.0")]]
    assert [done for done, _ in told] == pytest.approx([*(done for done, _ in start), begins + 0.5 * (1 - begins), 1.0])


@pytest.mark.parametrize("name", ["am", "supervised"])
def test_a_mask_network_lies_in_one_file(name: str, tmp_path: Path) -> None:
    world = images()
    method: Any = create_separator(name, {"epochs": 1, "samples": 8, "batch": 8, "fit_precision": "float32"})
    method.fit(world.view(method.info.supervision), context(world.task))
    method.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.safetensors"]
    read: Any = create_separator(name, {})
    read.load(tmp_path, context(world.task))
    assert torch.equal(read.separate(world.mixtures(), context(world.task)), method.separate(world.mixtures(), context(world.task)))


@pytest.mark.parametrize("targets", ["observed", "classes"])
@pytest.mark.parametrize(("observed", "order"), [(None, [1, 0]), (0, [0, 1]), (1, [1, 0])])
def test_the_order_of_masks(targets: Any, observed: int | None, order: list[int]) -> None:
    """One mask is of the observed source, or of the last; a mask for every class keeps the slots."""
    method: Any = create_separator("supervised", {"targets": targets})
    assert method._order(toy_task(observed=observed)) == (order if targets == "observed" else [0, 1])
    layout = method._layout(toy_task(observed=observed))
    assert layout == baselines.nes.mask_layout("autoencoder", (1, 8, 8), masks=1 if targets == "observed" else 2)
