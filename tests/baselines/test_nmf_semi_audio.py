"""Semi-supervised NMF of audio: the observed source in its slot, whatever the loudness of the training data."""

from __future__ import annotations

import pytest
from method_toys import ToyView, context, toy_task
from sound_toys import best_sdr, mixed, sound_task, sounds

from baselines.average import Average
from baselines.nmf_semi_audio import SemiSupervisedAudioNMF

TRAIN = sounds(12, seed=100)


@pytest.mark.parametrize("observed", [0, 1])
def test_the_observed_source_comes_out_in_its_slot(observed: int) -> None:
    task, sources = sound_task(assignment="ordered", observed=observed), sounds(4, seed=1)
    method = SemiSupervisedAudioNMF(atoms=12, iterations=40)
    assert method.supports(task).ok
    method.fit(ToyView(task, "mixtures+one", mixed=mixed(TRAIN[:6]).values, one=TRAIN[6:, observed]), context(task))
    estimates = method.separate(mixed(sources), context(task))
    error = 10 * (sources.square().sum() / (estimates - sources).square().sum()).log10()
    assert float(error) > best_sdr(Average().separate(mixed(sources), context(task)), sources) + 0.5


def test_training_data_of_another_loudness_give_the_same_estimates() -> None:
    """Frames are scaled before the sparsity weighs them."""
    task, sources = sound_task(observed=0), sounds(2, seed=1)
    found = []
    for gain in (1.0, 0.01):
        method = SemiSupervisedAudioNMF(atoms=6, iterations=10)
        method.fit(ToyView(task, "mixtures+one", mixed=gain * mixed(TRAIN[:6]).values, one=gain * TRAIN[6:, 0]), context(task))
        found.append(method.separate(mixed(gain * sources), context(task)) / gain)
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-3


def test_what_it_refuses() -> None:
    assert "observed" in SemiSupervisedAudioNMF().supports(sound_task()).note
    assert not SemiSupervisedAudioNMF().supports(sound_task(classes=("a", "b", "c"), observed=0)).ok
    assert not SemiSupervisedAudioNMF().supports(toy_task(observed=0)).ok


def test_asks_for_mixtures_and_one_source_only_a_quarter_in_the_quick_budget() -> None:
    task = sound_task(observed=0)
    for budget, limit in (("paper", 4), ("quick", 1)):
        view = ToyView(task, "mixtures+one", mixed=mixed(TRAIN[:6]).values, one=TRAIN[6:, 0])
        SemiSupervisedAudioNMF(atoms=2, iterations=4, samples=4).fit(view, context(task, budget=budget))
        assert view.asked == [("observed", limit), ("mixtures", limit)]


def test_separate_wants_a_fit() -> None:
    with pytest.raises(ValueError, match="before fit"):
        SemiSupervisedAudioNMF().separate(mixed(sounds(1)), context(sound_task(observed=0)))


@pytest.mark.parametrize("wrong", [{"atoms": 0}, {"iterations": 0}, {"samples": 0}, {"frames": 0}, {"sparsity": -1.0}, {"coding_sparsity": -0.1}])
def test_bad_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SemiSupervisedAudioNMF(**wrong)  # type: ignore[arg-type]
