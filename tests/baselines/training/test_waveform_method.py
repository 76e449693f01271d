"""What methods on waveforms hand on to the training, and what they say before they learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import context
from sound_toys import sound_task
from torch import nn
from wave_toys import RowsView

from baselines.training import waveform_method
from baselines.training.waveform import WaveformRecipe, negative_sdr, new_network
from baselines.training.waveform_method import LearntWaveforms
from sepbench.protocols import TaskSpec


class OneLayer(LearntWaveforms):
    errors = negative_sdr

    def network(self, task: TaskSpec) -> nn.Module:
        return nn.Sequential(nn.Conv1d(task.source_shape[0], task.n_sources, 1), nn.Unflatten(1, (task.n_sources, 1)))


@pytest.mark.parametrize(
    ("classes", "operator", "weights", "any_order"),
    [
        (("a", "b"), "mean", (0.5, 0.5), False),
        (("a", "b"), "sum", (1.0, 1.0), False),
        (("a", "a"), "gain", None, True),
        (("a", "b", "a"), "mean", (1 / 3, 1 / 3, 1 / 3), True),
    ],
)
def test_settings_and_the_run_are_handed_on(
    classes: tuple[str, ...], operator: str, weights: tuple[float, ...] | None, any_order: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = sound_task(60, classes, operator)
    seen: list[Any] = []
    monkeypatch.setattr(waveform_method, "resume", lambda one, folder, device: seen.append((folder, device)))
    monkeypatch.setattr(waveform_method, "run", lambda one, folder, progress: seen.append((one, folder, progress)))
    told = lambda fraction, text: None  # noqa: E731
    method = OneLayer(steps=25, batch=3, segment=7, lr=0.5, decay=0.25, clip=2.0, fit_precision="float32")
    sources = tuple(torch.full((slot + 1, 1, 60), float(slot)) for slot in range(len(classes)))
    method.fit(RowsView(task, "sources", sources), context(task, 9, cache=tmp_path, progress=told, budget="quick"))
    assert seen[0] == (tmp_path, "cpu")
    training, *rest = seen[1]
    assert rest == [tmp_path, told]
    assert training.recipe == WaveformRecipe(negative_sdr, any_order, 3, 3, 7, 0.5, 0.25, 2.0, (0.25, 1.25), "float32", 9)
    assert training.remixes.recipe == training.recipe
    assert [len(rows) for rows in training.remixes.sources] == list(range(1, len(classes) + 1))
    assert training.remixes.weights == (None if weights is None else pytest.approx(weights))
    assert torch.equal(training.network[0].weight, new_network(lambda: method.network(task), 9)[0].weight)
    assert method._fitted() is training.network


def test_nothing_is_separated_or_kept_before_it_was_learnt(tmp_path: Path) -> None:
    for call in (lambda: OneLayer().parts(torch.zeros(1, 1, 8)), lambda: OneLayer().save(tmp_path)):
        with pytest.raises(ValueError, match=r"^fit\(\) or load\(\) first$"):
            call()
    with pytest.raises(TypeError, match="abstract"):
        LearntWaveforms()  # type: ignore[abstract]


def test_parts_of_what_was_read_are_those_of_what_was_kept(tmp_path: Path) -> None:
    task = sound_task(60)
    method, read = OneLayer(), OneLayer()
    method._network = new_network(lambda: method.network(task), 3)
    method.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["network.safetensors"]
    read.load(tmp_path, context(task))
    mixtures = torch.randn(2, 1, 60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(read.parts(mixtures), method.parts(mixtures))
