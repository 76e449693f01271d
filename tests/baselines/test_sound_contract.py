"""What every audio method of this group promises, whatever it does: shapes, mixing back, rows by themselves, silence, NaN, short signals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from method_toys import ToyView, context, operator_for, rows_of
from sound_toys import mixed, sound_task, sounds

from baselines.average import Average
from baselines.ft2d import FT2D
from baselines.hpss import HPSS
from baselines.ica_audio import SingleChannelAudioICA
from baselines.ideal_binary_mask import IdealBinaryMask
from baselines.ideal_ratio_mask import IdealRatioMask
from baselines.mixture import MixtureAsEstimate
from baselines.nmf_audio import SupervisedAudioNMF
from baselines.nmf_blind import BlindNMF
from baselines.nmf_semi_audio import SemiSupervisedAudioNMF
from baselines.repet import REPET
from baselines.repet_sim import REPETSim
from baselines.rpca_audio import AudioRobustPCA
from sepbench.protocols import Mixtures, RunContext, Separator, TaskSpec

LENGTH = 4_000
Made = tuple[Separator, TaskSpec]
Maker = Callable[[int, str], Made]


def blind(method: Callable[[], Separator]) -> Maker:
    def make(length: int, operator: str) -> Made:
        return method(), sound_task(length, operator=operator)

    return make


def supervised(length: int, operator: str) -> Made:
    task, train = sound_task(length, operator=operator), sounds(6, length, seed=9)
    method = SupervisedAudioNMF(atoms=6, iterations=10, coding_iterations=10)
    method.fit(ToyView(task, "sources", (train[:, 0], train[:, 1])), context(task))
    return method, task


def agnostic(length: int, operator: str) -> Made:
    task, train = sound_task(length, ("any", "any"), operator), sounds(6, length, seed=9)
    method = SupervisedAudioNMF(shared_atoms=8, iterations=10, coding_iterations=10)
    method.fit(ToyView(task, "prior", pooled=train.flatten(0, 1)), context(task))
    return method, task


def semi(length: int, operator: str) -> Made:
    task, train = sound_task(length, operator=operator, observed=0), sounds(6, length, seed=9)
    method = SemiSupervisedAudioNMF(atoms=6, iterations=10, coding_iterations=20)
    method.fit(ToyView(task, "mixtures+one", mixed=mixed(train[:3]).values, one=train[3:, 0]), context(task))
    return method, task


MAKERS: dict[str, Maker] = {
    "rpca": blind(AudioRobustPCA),
    "ica": blind(lambda: SingleChannelAudioICA(lags=16, components=6)),
    "nmf-blind": blind(lambda: BlindNMF(components=6, iterations=20)),
    "nmf": supervised,
    "nmf-agnostic": agnostic,
    "nmf-semi": semi,
    "ideal-ratio-mask": blind(IdealRatioMask),
    "ideal-binary-mask": blind(IdealBinaryMask),
    "hpss": blind(HPSS),
    "repet": blind(REPET),
    "repet-sim": blind(REPETSim),
    "ft2d": blind(FT2D),
    "average": blind(Average),
    "mixture": blind(MixtureAsEstimate),
}
MASKS = [name for name in MAKERS if name not in ("mixture",)]


def with_references(task: TaskSpec, sources: torch.Tensor) -> RunContext:
    return context(task, references=lambda ids: sources[ids])


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_a_separator_of_audio_that_takes_the_task(name: str) -> None:
    method, task = MAKERS[name](LENGTH, "mean")
    assert isinstance(method, Separator)
    assert "audio" in method.info.domains
    assert method.supports(task).ok


@pytest.mark.parametrize("operator", ["sum", "mean", "gain"])
@pytest.mark.parametrize("name", MASKS)
def test_estimates_mix_to_the_mixture(name: str, operator: str) -> None:
    method, task = MAKERS[name](LENGTH, operator)
    sources = sounds(3, LENGTH)
    mixtures = mixed(sources, operator)
    before = mixtures.values.clone()
    estimates = method.separate(mixtures, with_references(task, sources))
    assert estimates.shape == sources.shape
    assert estimates.dtype == torch.float32
    torch.testing.assert_close(mixtures.operator.forward(estimates), mixtures.values, atol=1e-5, rtol=0)
    assert torch.equal(before, mixtures.values)


@pytest.mark.parametrize(("method", "classes"), [(AudioRobustPCA, "speech"), (HPSS, "drums"), (REPET, "speech"), (REPETSim, "vocals"), (FT2D, "speech")])
def test_parts_are_put_into_slots_before_they_are_divided_by_the_weights(method: Callable[[], Separator], classes: str) -> None:
    """The named part comes first here, and second in the method's own order; the weights of the two slots differ."""
    mixtures = mixed(sounds(3, LENGTH), "gain")
    in_first, in_second = (sound_task(LENGTH, names, "gain", assignment="ordered") for names in ((classes, "b"), ("b", classes)))
    first, second = (method().separate(mixtures, context(task)) for task in (in_first, in_second))
    torch.testing.assert_close(mixtures.operator.forward(first), mixtures.values, atol=1e-5, rtol=0)
    weights = mixtures.operator.adjoint(torch.ones_like(mixtures.values))
    torch.testing.assert_close((first * weights).flip(1), second * weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MAKERS)
def test_a_row_depends_on_its_mixture_alone_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, task = MAKERS[name](LENGTH, "gain")
    sources = sounds(5, LENGTH)
    sources[3] *= 1e-3
    mixtures = mixed(sources, "gain")
    ctx = with_references(task, sources)
    whole = method.separate(mixtures, ctx)
    order = torch.tensor([4, 2, 0, 3, 1])
    assert torch.equal(method.separate(rows_of(mixtures, order), ctx), whole[order])
    singly = torch.cat([method.separate(rows_of(mixtures, torch.tensor([row])), ctx) for row in range(5)])
    assert torch.equal(singly, whole)
    for room in ("ideal", "masks", "spectrogram_nmf"):
        monkeypatch.setattr(f"baselines.decomposition.{room}.CHUNK_BINS", 1)
    monkeypatch.setattr("baselines.rpca_audio._CHUNK", 1)
    assert torch.equal(method.separate(mixtures, ctx), whole)


@pytest.mark.parametrize("name", MAKERS)
def test_silence_stays_silent_and_what_is_not_finite_stays_in_its_row(name: str) -> None:
    method, task = MAKERS[name](LENGTH, "mean")
    sources = sounds(4, LENGTH)
    sources[1] = 0.0
    mixtures = mixed(sources)
    values = mixtures.values.clone()
    values[2, 0, 77], values[3, 0, 5] = torch.nan, torch.inf
    ctx = with_references(task, sources)
    found = method.separate(Mixtures(values, mixtures.example_ids, mixtures.operator), ctx)
    assert torch.equal(found[0], method.separate(mixtures, ctx)[0])
    assert torch.equal(found[1], torch.zeros_like(found[1]))
    if name not in ("mixture", "average"):  # these copy sample by sample
        assert bool(found[2:].isnan().all())
    assert not bool(found[2:].isfinite().all())


@pytest.mark.parametrize("name", MAKERS)
def test_no_mixtures_have_no_estimates(name: str) -> None:
    method, task = MAKERS[name](LENGTH, "gain")
    sources = sounds(2, LENGTH)
    none = rows_of(mixed(sources, "gain"), torch.arange(0))
    found = method.separate(none, with_references(task, sources))
    assert (found.shape, found.dtype) == ((0, 2, 1, LENGTH), torch.float32)


@pytest.mark.parametrize("length", [40, 300])
@pytest.mark.parametrize("name", MAKERS)
def test_signals_shorter_than_a_window_or_two(name: str, length: int) -> None:
    """The window has 256 samples."""
    method, task = MAKERS[name](length, "mean")
    assert method.supports(task).ok
    sources = sounds(2, length, seed=3)
    mixtures = mixed(sources)
    estimates = method.separate(mixtures, with_references(task, sources))
    assert estimates.shape == sources.shape
    assert bool(estimates.isfinite().all())


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in ("mixture", "average", "nmf-blind")])
def test_loudness_does_not_decide(name: str) -> None:
    """A mixture a hundred times softer gives estimates a hundred times softer; not so nmf-blind, which keeps nussl's absolute floors."""
    method, task = MAKERS[name](LENGTH, "mean")
    sources = sounds(2, LENGTH)
    loud = method.separate(mixed(sources), with_references(task, sources))
    soft = method.separate(mixed(0.01 * sources), with_references(task, 0.01 * sources))
    assert float((100 * soft - loud).norm() / loud.norm()) < 2e-3


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in ("mixture", "average")])
def test_tasks_it_cannot_take(name: str) -> None:
    method, _ = MAKERS[name](LENGTH, "mean")
    assert not method.supports(sound_task(operator="channel-mean", classes=("a",))).ok
    assert not method.supports(sound_task(classes=("a",))).ok


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", ["rpca", "ica", "nmf-blind", "hpss", "repet", "repet-sim", "ft2d", "ideal-ratio-mask", "ideal-binary-mask"])
def test_on_a_gpu_as_on_the_cpu(name: str) -> None:
    method, task = MAKERS[name](LENGTH, "mean")
    sources = sounds(3, LENGTH)
    here = method.separate(mixed(sources), with_references(task, sources))
    there = RunContext(task, "cuda", with_references(task, sources).noise, 0, references=lambda ids: sources[ids].cuda())
    found = method.separate(mixed(sources), there)
    assert found.device.type == "cuda"
    assert float((found.cpu() - here).norm() / here.norm()) < 0.05


def test_gains_of_slots_are_respected() -> None:
    """The parts themselves do not depend on the operator's weights, the estimates are parts over weights."""
    sources = sounds(3, LENGTH)
    operator = operator_for("gain", 3, 2)
    method, task = MAKERS["rpca"](LENGTH, "gain")
    voice_first = sound_task(LENGTH, ("speech", "b"), "gain")
    mixtures = mixed(sources, operator)  # type: ignore[arg-type]
    weights = operator.matrix().float().reshape(3, 2, 1, 1)
    plain = method.separate(mixtures, context(task)) * weights
    turned = method.separate(mixtures, context(voice_first)) * weights
    torch.testing.assert_close(plain, turned.flip(1), atol=1e-5, rtol=0)
