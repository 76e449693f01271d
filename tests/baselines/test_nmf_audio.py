"""Supervised NMF of audio: dictionaries that separate, groups where there are no classes, honest refusals."""

from __future__ import annotations

import pytest
import torch
from method_toys import ToyView, context, toy_task
from sound_toys import best_sdr, mixed, sound_task, sounds

from baselines.average import Average
from baselines.decomposition.spectrogram_nmf import Divergence
from baselines.nmf_audio import SupervisedAudioNMF
from sepbench.protocols import TaskSpec

TRAIN = sounds(12, seed=100)


def fitted(task: TaskSpec, seed: int = 0, **more: object) -> SupervisedAudioNMF:
    level = "prior" if task.class_agnostic else "sources"
    settings_ = {"atoms": 12, "shared_atoms": 16, "iterations": 40} | more
    method = SupervisedAudioNMF(**settings_)  # type: ignore[arg-type]
    method.fit(ToyView(task, level, (TRAIN[:, 0], TRAIN[:, 1]), TRAIN.flatten(0, 1)), context(task, seed))  # type: ignore[arg-type]
    return method


@pytest.mark.parametrize("divergence", ["kl", "euclidean"])
def test_dictionaries_of_classes_separate_in_their_order(divergence: Divergence) -> None:
    task, sources = sound_task(assignment="ordered"), sounds(4, seed=1)
    estimates = fitted(task, divergence=divergence).separate(mixed(sources), context(task))
    error = 10 * (sources.square().sum() / (estimates - sources).square().sum()).log10()
    assert float(error) > best_sdr(Average().separate(mixed(sources), context(task)), sources) + 4


def test_the_fit_depends_on_the_seed_alone() -> None:
    task = sound_task()
    found = [fitted(task, seed).separate(mixed(sounds(2)), context(task)) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_without_classes_atoms_are_grouped_for_each_mixture() -> None:
    task, sources = sound_task(classes=("any", "any")), sounds(4, seed=1)
    method = fitted(task)
    assert method.supports(task).ok
    assert best_sdr(method.separate(mixed(sources), context(task)), sources) > best_sdr(Average().separate(mixed(sources), context(task)), sources)


def test_what_it_takes() -> None:
    method = SupervisedAudioNMF()
    assert method.supports(sound_task(assignment="ordered")).ok
    refused = method.supports(sound_task(classes=("any", "any"), assignment="ordered"))
    assert not refused.ok
    assert "best assignment" in refused.note
    assert "shared_atoms" in SupervisedAudioNMF(shared_atoms=1).supports(sound_task(classes=("any", "any"))).note
    assert not method.supports(sound_task(classes=("a", "a", "b"))).ok
    assert not method.supports(toy_task()).ok


def test_quick_learns_from_a_quarter() -> None:
    task = sound_task()
    view = ToyView(task, "sources", (TRAIN[:, 0], TRAIN[:, 1]))
    SupervisedAudioNMF(atoms=2, iterations=4, samples=8).fit(view, context(task, budget="quick"))
    assert [limit for _, limit in view.asked] == [2, 2]


def test_separate_wants_a_fit() -> None:
    with pytest.raises(ValueError, match="before fit"):
        SupervisedAudioNMF().separate(mixed(sounds(1)), context(sound_task()))


@pytest.mark.parametrize(
    "wrong", [{"atoms": 0}, {"shared_atoms": 0}, {"iterations": 0}, {"samples": 0}, {"frames": 0}, {"sharpness": -1.0}, {"divergence": "itakura-saito"}]
)
def test_bad_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SupervisedAudioNMF(**wrong)  # type: ignore[arg-type]
