"""Training that stays on its device, with the CPU in the place of the GPU: the same bits after a kill, a divergence that is told late and keeps the
checkpoint, gradients in parts, and a compiler that fails."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from train_until_done import LAYOUT, tiny_images

from baselines.training.config import TrainConfig, batch_indices
from baselines.training.loop import CHECKPOINT, LOG
from baselines.training.on_device import Batch, DeviceBatches, Finite, GradientParts
from baselines.training.score import batch_on, build_model
from baselines.training.trainer import ScoreTraining
from sepbench.errors import SepbenchError


def resident(folder: Path, compiled: bool = False, **changes: Any) -> ScoreTraining:
    images = tiny_images()
    config = TrainConfig(**{"steps": 12, "batch": 8, "warmup": 4, "bf16": False, **changes})
    return ScoreTraining(build_model(LAYOUT, images[:50], config.seed), images[:50], images[50:], config, folder, resident=True, compiled=compiled)


def weights(trainer: ScoreTraining) -> dict[str, torch.Tensor]:
    return {**{f"model.{k}": v for k, v in trainer.model.state_dict().items()}, **{f"ema.{k}": v for k, v in trainer.ema.items()}}


def assert_same(one: ScoreTraining, other: ScoreTraining, **tolerance: float) -> None:
    first, second = weights(one), weights(other)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=tolerance.get("rtol", 0), atol=tolerance.get("atol", 0), msg=name)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, mirror: bool) -> None:
    whole = resident(tmp_path / "whole", mirror=mirror)
    whole.run(log_every=4)
    first = resident(tmp_path / "killed", mirror=mirror)
    for _ in range(6):
        first.advance()
        if first.step == 4:
            first.row()
    first.save(tmp_path / "killed" / CHECKPOINT)
    second = resident(tmp_path / "killed", mirror=mirror)
    assert second.step == 6
    second.run(log_every=4)
    assert_same(whole, second)
    rows = [[json.loads(line) for line in (folder / LOG).read_text().splitlines()] for folder in (tmp_path / "whole", tmp_path / "killed")]
    assert [row["loss"] for row in rows[1]] == [row["loss"] for row in rows[0]][1:]


@pytest.mark.slow
def test_the_loss_falls_as_it_does_on_the_host(tmp_path: Path) -> None:
    trainer = resident(tmp_path, steps=150, warmup=10, ema=0.9, batch=16)
    before = trainer.validate()
    trainer.run(log_every=50, validate_every=50)
    assert all(a < 0.6 * b for a, b in list(zip(trainer.validate(), before, strict=True))[2:])


def test_batches_take_the_images_that_the_host_takes_and_levels_of_the_same_law() -> None:
    images, config = tiny_images(), TrainConfig(steps=1, batch=40)
    clean, noise, sigma = DeviceBatches(images, config, torch.device("cpu"))(3)
    assert torch.equal(clean, images[batch_indices(config.seed, 3, 40, len(images))] / 255.0)
    assert noise.shape == clean.shape
    assert abs(float(noise.mean())) < 5 / noise.numel() ** 0.5
    low, high = config.sigma_range
    assert low <= float(sigma.min()) < float(sigma.max()) <= high
    again = DeviceBatches(images, config, torch.device("cpu"))(3)
    assert all(torch.equal(a, b) for a, b in zip((clean, noise, sigma), again, strict=True))


def test_divergence_is_told_when_the_log_is_due_and_no_checkpoint_holds_it(tmp_path: Path) -> None:
    trainer = resident(tmp_path, steps=40)
    for _ in range(2):
        trainer.advance()
    trainer.save(tmp_path / CHECKPOINT)
    kept = (tmp_path / CHECKPOINT).read_bytes()
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)
    trainer.advance()  # nothing is read back here
    with pytest.raises(SepbenchError, match="diverged by step 3: a gradient is not finite"):
        trainer.save(tmp_path / CHECKPOINT)
    with pytest.raises(SepbenchError, match="diverged by step 5"):
        trainer.run(log_every=5, checkpoint_seconds=1e9)
    assert (tmp_path / CHECKPOINT).read_bytes() == kept


def test_a_batch_too_large_for_the_memory_is_computed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roomy, crowded = resident(tmp_path / "roomy"), resident(tmp_path / "crowded")
    forward, sizes = crowded.model.forward, []

    def limited(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(x, sigma)

    monkeypatch.setattr(crowded.model, "forward", limited)
    with pytest.warns(RuntimeWarning, match="a batch of 8 images is computed in 4 parts from here on"):
        crowded.advance()
    assert sizes == [8, 4, 2, 2, 2, 2]
    roomy.advance()
    gradients = [[p.grad for p in trainer.model.parameters()] for trainer in (roomy, crowded)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(crowded.window.total, roomy.window.total, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(crowded.model, "forward", lambda x, sigma: limited(x.repeat(4, 1, 1, 1), sigma))
    with pytest.warns(RuntimeWarning, match="8 parts"), pytest.raises(torch.cuda.OutOfMemoryError):
        crowded.advance()


class _Uncompilable(torch.nn.Module):
    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no compiler\nand a page of advice")


def test_a_compiler_that_fails_is_told_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: _Uncompilable())
    compiled, plain = resident(tmp_path / "compiled", compiled=True), resident(tmp_path / "plain")
    with pytest.warns(RuntimeWarning, match=r"trained without torch.compile \(NotImplementedError: no compiler\)"):
        compiled.run(log_every=4)
    plain.run(log_every=4)
    assert_same(plain, compiled)


def test_the_cpu_takes_the_recipes_batch_and_a_gpu_what_its_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(steps=1, batch=64)
    assert batch_on("cpu", config) == 64
    for scaled, batch in ((1024, 1024), (256, 256), (16, 64)):
        monkeypatch.setattr("baselines.training.score.scaled", lambda most, device, size=scaled: size)
        assert batch_on("cuda", config) == batch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine; scripts/gpu_session.sh runs this where there is one")
def test_no_step_on_a_gpu_waits_for_it(tmp_path: Path) -> None:
    images = tiny_images()
    config = TrainConfig(steps=40, batch=8, warmup=4, mirror=True)
    model = build_model(LAYOUT, images[:50], 0).to("cuda")
    trainer = ScoreTraining(model, images[:50], images[50:], config, tmp_path)
    for _ in range(2):  # the first steps make what all others use
        trainer.train_step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):  # within the first epoch, whose order is on the device by now
            trainer.train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.run(log_every=10)
    assert trainer.finished
    assert resident(tmp_path / "host").validate() != trainer.validate()


class _Full(torch.nn.Module):
    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def test_a_compiled_network_that_fills_the_memory_is_no_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: _Full())
    training = resident(tmp_path, compiled=True)
    with pytest.warns(RuntimeWarning) as told, pytest.raises(torch.cuda.OutOfMemoryError):
        training.advance()
    assert [str(one.message) for one in told] == [f"out of memory: a batch of 8 images is computed in {parts} parts from here on" for parts in (2, 4, 8)]
    assert training._compiled is not None


def test_only_a_training_that_stays_on_its_device_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: pytest.fail("compiled"))
    images = tiny_images()
    model = build_model(LAYOUT, images[:50], 0)
    for stays, compiled in ((False, True), (None, True), (True, False)):
        config = TrainConfig(steps=2, batch=8)
        training = ScoreTraining(model, images[:50], images[50:], config, tmp_path / str(stays), resident=stays, compiled=compiled)
        assert training.resident is bool(stays)
        assert training._compiled is None


@pytest.mark.parametrize(("count", "parts"), [(1, [[0, 1, 2, 3, 4]]), (2, [[0, 2, 4], [1, 3]]), (4, [[0, 4], [1], [2], [3]])])
def test_parts_of_a_batch_are_interleaved(count: int, parts: list[list[int]]) -> None:
    seen: list[list[int]] = []

    def gradient(batch: Batch, rows: slice) -> torch.Tensor:
        seen.append(batch[0][rows].tolist())
        return 10.0 * batch[0][rows]

    cleared: list[int] = []
    made = GradientParts(gradient, lambda: cleared.append(1))
    made.count = count
    batch = (torch.arange(5.0), torch.zeros(5), torch.zeros(5))
    assert made(batch).tolist() == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert (seen, cleared) == (parts, [1])


@pytest.mark.parametrize(("size", "most"), [(1, 1), (2, 2), (3, 2), (4, 4), (5, 4)])
def test_parts_end_where_there_is_an_image_for_each(size: int, most: int) -> None:
    def full(batch: Batch, rows: slice) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    made = GradientParts(full, lambda: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(torch.cuda.OutOfMemoryError):
            made((torch.zeros(size), torch.zeros(size), torch.zeros(size)))
    assert made.count == most


def test_whether_all_numbers_were_finite() -> None:
    for bad in (torch.inf, -torch.inf, torch.nan):
        known = Finite(torch.device("cpu"))
        assert known
        known.add(torch.tensor(3.0))
        assert known
        known.add(torch.tensor(bad))
        known.add(torch.tensor(1.0))
        assert not known
