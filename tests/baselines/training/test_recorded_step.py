"""Steps that are recorded give eager's numbers, also after what a step works on was replaced; a stand-in records, for there is no GPU in these tests."""

from __future__ import annotations

import contextlib
import math
import warnings

import pytest
import torch

from baselines.training import recorded_step
from baselines.training.config import generator
from baselines.training.mask import MaskConfig, MaskRecipe, MaskTraining, Precision, new_network
from baselines.training.recorded_step import RecordedStep, Recorder, Step, StepRunner, adam, restore_adam, set_rate

CPU = torch.device("cpu")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def record_by_calling_again(made: list[RecordedStep]) -> Recorder:
    """A graph reads the batch that it was recorded with and writes the loss that it was recorded with; recording makes no step."""

    def record(step: Step, batch: torch.Tensor) -> RecordedStep:
        buffer, loss = batch.clone(), torch.zeros(())
        made.append(RecordedStep(buffer, loss, lambda: loss.copy_(step(buffer).detach()) and None))
        return made[-1]

    return record


def training(record: Recorder | None) -> MaskTraining:
    network = new_network(MaskConfig(layers=2, filters=4), 0)
    made = MaskTraining(network, MaskRecipe(1e-2, precision="float32"))
    made.steps_on = StepRunner(made._step_on, CPU, record)
    return made


def batches(count: int) -> list[torch.Tensor]:
    random = generator(0, "batches")
    return [torch.rand(6, 2, 1, 8, 8, generator=random) for _ in range(count)]


def weights(made: MaskTraining) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in made.network.state_dict().values()])


def test_recorded_steps_are_eagers_with_falling_rates_and_a_fresh_adam() -> None:
    recorded: list[RecordedStep] = []
    pair = training(None), training(record_by_calling_again(recorded))
    for number, batch in enumerate(batches(12)):
        if number == 6:
            for one in pair:
                one.restart_optimiser()
        losses = []
        for one in pair:
            one.update(batch, 1.0 / (1 + number))
            losses.append(one.row()["loss"])
        assert losses[0] == losses[1]
    assert torch.equal(*map(weights, pair))
    assert len(recorded) == 2, "a fresh Adam has other tensors, so that a graph of the old one would move nothing"


def test_another_shape_is_recorded_anew() -> None:
    recorded: list[RecordedStep] = []
    eager, graphed = training(None), training(record_by_calling_again(recorded))
    for batch in [*batches(5), *(part[:3] for part in batches(5))]:
        eager.update(batch)
        graphed.update(batch)
    assert torch.equal(weights(eager), weights(graphed))
    assert [len(one.batch) for one in recorded] == [6, 3]


def test_eager_goes_on_where_recording_fails() -> None:
    def fails(step: Step, batch: torch.Tensor) -> RecordedStep:
        raise RuntimeError("operation not permitted when stream is capturing")

    eager, graphed = training(None), training(fails)
    for number, batch in enumerate(batches(6)):
        eager.update(batch)
        told = pytest.warns(RuntimeWarning, match="without a CUDA graph .*not permitted") if number == 3 else contextlib.nullcontext()
        with told:
            graphed.update(batch)
    assert torch.equal(weights(eager), weights(graphed))


def test_running_out_of_memory_is_told() -> None:
    def fails(step: Step, batch: torch.Tensor) -> RecordedStep:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    graphed = training(fails)
    *first, last = batches(4)
    for batch in first:
        graphed.update(batch)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        graphed.update(last)


def test_a_resumed_training_records_anew_and_has_the_bits_of_one_left_alone() -> None:
    recorded: list[RecordedStep] = []
    left_alone, stopped = training(record_by_calling_again([])), training(record_by_calling_again([]))
    for batch in batches(5):
        left_alone.update(batch)
        stopped.update(batch)
    resumed = training(record_by_calling_again(recorded))
    resumed.restore({**stopped.state()})
    for batch in batches(5):
        left_alone.update(batch)
        resumed.update(batch)
    assert torch.equal(weights(left_alone), weights(resumed))
    assert len(recorded) == 1


def test_options_of_the_device_outlive_a_checkpoint_of_another_one() -> None:
    """A checkpoint of a GPU has its rate in a tensor and says that Adam is one kernel; on the CPU neither holds."""
    parameters = [torch.nn.Parameter(torch.ones(3))]
    optimiser = adam(parameters, 0.1, (0.5, 0.999))
    parameters[0].grad = torch.ones(3)
    optimiser.step()
    state = optimiser.state_dict()
    of_gpu = {**state, "param_groups": [{**state["param_groups"][0], "lr": torch.tensor(0.1), "capturable": True, "fused": True}]}
    restore_adam(optimiser, of_gpu)
    (group,) = optimiser.param_groups
    assert (group["lr"], group["capturable"], group["fused"]) == (0.1, False, None)


def test_the_rate_of_a_tensor_is_changed_in_place() -> None:
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=torch.tensor(0.1), foreach=False)
    rate = optimiser.param_groups[0]["lr"]
    set_rate(optimiser, 0.25)
    assert optimiser.param_groups[0]["lr"] is rate
    assert float(rate) == 0.25


def test_float32_stays_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 a graph and eager steps drifted apart on an H100, so only bfloat16 is recorded."""
    monkeypatch.setattr(recorded_step, "_records", lambda device: True)
    recorded = {
        precision: MaskTraining(new_network(MaskConfig(layers=2, filters=4), 0), MaskRecipe(1e-2, precision=precision)).steps_on.record is not None
        for precision in PRECISIONS
    }
    assert recorded == {"float32": False, "bfloat16": True}


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@gpu
def test_a_graph_has_eagers_numbers_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the precision of all fits that are committed. In float32 30 steps part eager and graph by 1.6e-2 of the weights' norm (docs/gpu.md)."""

    def learnt(how: str) -> MaskTraining:
        monkeypatch.setenv("SEPBENCH_TRAIN", how)
        made = MaskTraining(new_network(MaskConfig(), 0, "cuda"), MaskRecipe(1e-3))
        random = generator(0, "batches")
        for number in range(30):
            made.update(torch.rand(32, 2, 1, 32, 32, generator=random).cuda(), 1.0 - number / 40)
        return made

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eager, graphed = learnt("eager"), learnt("")
    assert graphed.steps_on.record is not None
    assert eager.steps_on.record is None
    first, second = (torch.cat([p.detach().flatten() for p in made.network.parameters()]) for made in (eager, graphed))
    assert float((first - second).norm() / first.norm()) < 2e-3


@pytest.mark.parametrize(
    ("device", "variable", "may", "records"),
    [
        ("cuda", None, True, True),
        ("cuda", "", True, True),
        ("cuda", "compile", True, True),
        ("cuda", "eager", True, False),
        ("cuda", None, False, False),
        ("cpu", None, True, False),
    ],
)
def test_who_records(device: str, variable: str | None, may: bool, records: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEPBENCH_TRAIN", raising=False)
    if variable is not None:
        monkeypatch.setenv("SEPBENCH_TRAIN", variable)
    runner = StepRunner(lambda batch: batch.sum(), torch.device(device), may_record=may)
    assert (runner.record is recorded_step.record_cuda_step) is records
    assert (runner.record is None) is not records


def test_the_warning_of_a_recording_that_fails_is_one_short_line() -> None:
    def fails(step: Step, batch: torch.Tensor) -> RecordedStep:
        raise RuntimeError("a" * 300 + "\nand more")

    def says_nothing(step: Step, batch: torch.Tensor) -> RecordedStep:
        raise ValueError

    for record, told in ((fails, f"(RuntimeError: {'a' * 200})"), (says_nothing, "(ValueError: )")):
        runner, batch = StepRunner(lambda batch: batch.sum(), CPU, record), torch.ones(2)
        for _ in range(3):
            runner(batch)
        with pytest.warns(RuntimeWarning) as warned:
            assert float(runner(batch)) == 2.0
        assert str(warned[0].message) == f"training goes on without a CUDA graph {told}"
        assert runner.record is None


def test_adam_on_a_processor_is_torchs_with_the_rate_and_betas_that_are_asked_for() -> None:
    (group,) = adam([torch.nn.Parameter(torch.ones(2))], 0.25, (0.5, 0.75)).param_groups
    assert (group["lr"], group["betas"], group["capturable"], group["fused"]) == (0.25, (0.5, 0.75), False, None)


def test_every_group_gets_the_rate() -> None:
    optimiser = torch.optim.Adam([{"params": [torch.nn.Parameter(torch.ones(1))]}, {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 3.0}], lr=0.1)
    set_rate(optimiser, 0.25)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("shape", [(4, 3), (2, 4), (4, 1), (4, 4, 1), (16,), (2, 8)])
def test_a_batch_of_any_other_shape_is_recorded_anew_after_eager_steps(shape: tuple[int, ...]) -> None:
    """Also one of as many rows, or of as many numbers, which could be copied into the buffer of the other."""
    recorded: list[RecordedStep] = []
    runner = StepRunner(lambda batch: batch.sum() * batch.ndim, CPU, record_by_calling_again(recorded))
    for size in ((4, 4), (4, 4), (4, 4), (4, 4), shape, shape):
        assert float(runner(torch.full(size, 0.5))) == 0.5 * math.prod(size) * len(size)
    assert [tuple(one.batch.shape) for one in recorded] == [(4, 4), shape]
    runner.forget()
    for left in (2, 1, 0):
        runner(torch.ones(4, 4))
        assert (len(recorded), runner._eager_steps) == (2, 3 - left)
    runner(torch.ones(4, 4))
    assert len(recorded) == 3
