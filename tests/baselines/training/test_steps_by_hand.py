"""Steps of training against the same steps written out: clipping, rates, the running average and its warm-up, and rows of the log that are no longer true."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from train_until_done import LAYOUT, tiny_images

from baselines.training.config import TrainConfig, batch_indices, draw_sigmas, generator
from baselines.training.edm_loss import edm_losses
from baselines.training.loop import CHECKPOINT, LOG, resume, run
from baselines.training.on_device import DeviceBatches
from baselines.training.score import build_model
from baselines.training.trainer import ScoreTraining

CONFIG = TrainConfig(steps=50, batch=8, warmup=3, workers=1, lr=2e-3, matrix_lr=0.0, weight_decay=0.1, clip=0.3, ema=0.2, bf16=False, seed=4)
"""The gradient is cut at every step, the learning rate is full from the third step on, and the average's decay from the third: 0.1, 2 / 11, 0.2."""
STEPS = 5


def trained(folder: Path, resident: bool) -> ScoreTraining:
    images = tiny_images()
    return ScoreTraining(build_model(LAYOUT, images[:50], CONFIG.seed), images[:50], images[50:], CONFIG, folder, resident=resident)


def batch_of(step: int, images: torch.Tensor, resident: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if resident:
        return DeviceBatches(images, CONFIG, torch.device("cpu"))(step)
    random = generator(CONFIG.seed, "step", step)
    sigma = draw_sigmas(CONFIG, random, CONFIG.batch)
    clean = images[batch_indices(CONFIG.seed, step, CONFIG.batch, len(images))] / 255.0
    return clean, torch.randn(clean.shape, generator=random), sigma


@pytest.mark.parametrize("resident", [False, True], ids=["host", "device"])
def test_score_matching(tmp_path: Path, resident: bool) -> None:
    training, images = trained(tmp_path, resident), tiny_images()[:50]
    model = copy.deepcopy(training.model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, betas=CONFIG.betas, weight_decay=CONFIG.weight_decay)
    norms = []
    for step in range(STEPS):
        before = {name: value.clone() for name, value in training.ema.items()}
        clean, noise, sigma = batch_of(step, images, resident)
        optimiser.zero_grad()
        edm_losses(model, clean, noise, sigma, model.sigma_data).mean().backward()
        norm = torch.stack([p.grad.square().sum() for p in model.parameters() if p.grad is not None]).sum().sqrt()
        norms.append(float(norm))
        for p in model.parameters():
            if p.grad is not None:
                p.grad *= min(1.0, CONFIG.clip / float(norm))
        optimiser.param_groups[0]["lr"] = CONFIG.lr * min(1.0, (step + 1) / 3)
        optimiser.step()
        training.advance()
        decay = (0.1, 2 / 11, 0.2, 0.2, 0.2)[step]
        for name, p in training.model.named_parameters():
            torch.testing.assert_close(training.ema[name], decay * before[name] + (1 - decay) * p.detach(), atol=1e-6, rtol=1e-6)
    assert min(norms) > CONFIG.clip
    row = training.row()
    assert row["grad_norm"] == pytest.approx(sum(norms) / STEPS, abs=2e-4)
    assert row["rate"] == 1.0
    kept = training.averaged()
    for (name, found), wanted in zip(training.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4, msg=name)
        torch.testing.assert_close(dict(kept.named_parameters())[name], training.ema[name], atol=0, rtol=0)
    assert any(not torch.equal(p, q) for p, q in zip(kept.parameters(), training.model.parameters(), strict=True))
    assert not kept.training
    assert not any(p.requires_grad for p in kept.parameters())
    assert training.row()["grad_norm"] == 0.0  # a row is about the steps since the last one


def test_a_gradient_below_the_bound_is_taken_as_it_is(tmp_path: Path) -> None:
    weights = []
    for clip in (50.0, 60.0):
        images = tiny_images()
        config = TrainConfig(**{**vars_of(CONFIG), "clip": clip})
        training = ScoreTraining(build_model(LAYOUT, images[:50], 4), images[:50], images[50:], config, tmp_path / str(clip))
        training.advance()
        weights.append(torch.cat([p.detach().flatten() for p in training.model.parameters()]))
    assert torch.equal(*weights)


def vars_of(config: TrainConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in TrainConfig.__dataclass_fields__}


class Counted:
    """A training that counts."""

    def __init__(self, steps: int) -> None:
        self.step, self.seconds, self.steps, self.restored = 0, 0.0, steps, False

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def advance(self) -> None:
        self.step += 1

    def row(self) -> Mapping[str, Any]:
        return {"loss": 1.0 / self.step}

    def state(self) -> Mapping[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.restored = True


def steps_in(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / LOG).read_text().splitlines()]


def test_rows_of_steps_that_were_lost_are_written_once(tmp_path: Path) -> None:
    run(Counted(4), tmp_path, log_every=2)
    before = (tmp_path / LOG).read_text()
    assert steps_in(tmp_path) == [2, 4]
    lost = "".join(json.dumps({"step": step, "loss": -1.0}) + "\n" for step in (5, 6, 8))
    (tmp_path / LOG).write_text(before + lost + '{"step": 8, "lo')
    again = Counted(9)
    assert resume(again, tmp_path)
    assert again.restored
    assert again.step == 4
    run(again, tmp_path, log_every=2)
    assert steps_in(tmp_path) == [2, 4, 6, 8, 9]
    assert (tmp_path / LOG).read_text().startswith(before)
    assert "-1.0" not in (tmp_path / LOG).read_text()


def test_a_run_from_the_start_keeps_no_row_of_another(tmp_path: Path) -> None:
    run(Counted(4), tmp_path, log_every=1)
    (tmp_path / CHECKPOINT).unlink()
    fresh = Counted(2)
    assert not resume(fresh, tmp_path)
    run(fresh, tmp_path, log_every=1)
    assert steps_in(tmp_path) == [1, 2]


def test_progress_is_told_with_every_row_and_ends_at_one() -> None:
    told: list[tuple[float, str]] = []
    run(Counted(6), None, log_every=3, progress=lambda done, text: told.append((done, text)))
    assert told == [(0.5, "step 3, 0.0 min, loss 0.3333333333333333"), (1.0, "step 6, 0.0 min, loss 0.16666666666666666")]


def test_seconds_go_on_where_they_stood(tmp_path: Path) -> None:
    first = Counted(2)
    run(first, tmp_path)
    first.seconds = 3600.0
    from baselines.training.loop import save

    save(first, tmp_path / CHECKPOINT)
    second = Counted(3)
    resume(second, tmp_path)
    run(second, tmp_path, log_every=1)
    assert json.loads((tmp_path / LOG).read_text().splitlines()[-1])["minutes"] == pytest.approx(60.0, abs=0.1)
