"""Steps of training against the same steps written out: clipping, rates, the running average and its warm-up, and rows of the log that are no longer true."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from train_until_done import LAYOUT, tiny_images, tiny_trainer

from baselines.priors.edm import EDMDenoiser
from baselines.training import trainer as trainer_module
from baselines.training.config import TrainConfig, batch_indices, draw_sigmas, generator
from baselines.training.edm_loss import BandMeans, as_float, edm_losses, fixed_noise, spread_sigmas
from baselines.training.loop import CHECKPOINT, LOG, resume, run
from baselines.training.on_device import DeviceBatches
from baselines.training.score import build_model
from baselines.training.trainer import DECAY_FLAG, PRE_DECAY, ScoreTraining
from sepbench.errors import SepbenchError

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


@pytest.mark.parametrize(
    ("step", "seconds", "deadline", "flag", "decay"),
    [
        (5, 0.0, None, "7", (5, 7)),
        (5, 0.0, None, " 7\n", (5, 7)),
        (39, 0.0, None, "", (39, 11)),
        (39, 0.0, None, "soon", (39, 11)),
        (0, 0.0, None, "", (0, 1)),
        (77, 0.0, None, None, None),
        (78, 0.0, None, None, (78, 22)),
        (90, 0.0, None, None, (90, 10)),
        (19, 1e9, 1.0, None, None),
        (20, 1e9, 1.0, None, (20, 6)),
        (32, 63.9, 82.0, None, None),
        (32, 64.0, 82.0, None, (32, 9)),
    ],
)
def test_when_the_decay_begins_and_how_long_it_is(
    step: int, seconds: float, deadline: float | None, flag: str | None, decay: tuple[int, int] | None, tmp_path: Path
) -> None:
    """Of a hundred steps the last 22 decay. A file that names no number, and a deadline, give it 22 / 78 of the steps so far."""
    trainer = tiny_trainer(tmp_path, steps=100)
    trainer.step, trainer.seconds = step, seconds
    if flag is not None:
        (tmp_path / DECAY_FLAG).write_text(flag)
    trainer._plan_decay(deadline)
    assert ((trainer.decay_start, trainer.decay_steps) if trainer.decay_start is not None else None) == decay
    assert (tmp_path / PRE_DECAY).exists() is (tmp_path / CHECKPOINT).exists() is (decay is not None)
    if decay is not None:
        kept = [torch.load(tmp_path / name, weights_only=True)["decay"] for name in (PRE_DECAY, CHECKPOINT)]
        assert kept == [(None, 0), decay]
        trainer.step += 1
        trainer._plan_decay(0.0)
        assert (trainer.decay_start, trainer.decay_steps) == decay


@pytest.mark.parametrize(
    ("step", "start", "steps", "seconds", "deadline", "fraction", "finished"),
    [
        (30, None, 0, 0.0, None, 0.3, False),
        (100, None, 0, 0.0, None, 1.0, True),
        (30, None, 0, 60.0, 100.0, 0.6, False),
        (70, None, 0, 60.0, 100.0, 0.7, False),
        (30, None, 0, 200.0, 100.0, 1.0, False),
        (30, 20, 20, 200.0, 100.0, 0.75, False),
        (40, 20, 20, 0.0, None, 1.0, True),
        (39, 20, 20, 0.0, None, 39 / 40, False),
    ],
)
def test_how_much_of_a_run_is_done(
    step: int, start: int | None, steps: int, seconds: float, deadline: float | None, fraction: float, finished: bool, tmp_path: Path
) -> None:
    """Until the decay begins, by steps or by the clock, whichever is further; then by the steps that are left."""
    trainer = tiny_trainer(tmp_path, steps=100)
    trainer.step, trainer.decay_start, trainer.decay_steps, trainer.seconds, trainer._deadline = step, start, steps, seconds, deadline
    assert (trainer.fraction, trainer.finished) == (pytest.approx(fraction), finished)


def test_a_row_tells_rate_norm_losses_and_at_times_the_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(tmp_path, steps=100, warmup=3)
    monkeypatch.setattr(trainer, "validate", lambda mapper: ["validated"])
    trainer._validate_every = 4
    rows = {}
    for step in (1, 2, 4, 6, 100):
        trainer.step = step
        trainer.window.add(torch.tensor([0.01, 0.3]), torch.tensor([1.0, 3.0]), 2.00004)
        trainer.window.add(torch.tensor([0.01]), torch.tensor([2.0]), 1.0)
        if step == 6:
            trainer.decay_start, trainer.decay_steps = 4, 3
        rows[step] = trainer.row()
    assert [rows[step]["rate"] for step in rows] == [0.3333, 0.6667, 1.0, 0.6667, 0.0]
    assert [rows[step]["decay_start"] for step in rows] == [None, None, None, 4, 4]
    assert [step for step in rows if "validation" in rows[step]] == [4, 100]
    assert rows[4]["validation"] == ["validated"]
    assert all(row["grad_norm"] == 1.5 for row in rows.values())
    assert json.dumps(rows[2]["loss"]) == "[1.5, NaN, NaN, NaN, 3.0, NaN]"


def test_the_validation_is_of_the_first_held_out_images_at_fixed_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the averaged weights, in chunks, in the order of the images; computed as the steps are."""
    monkeypatch.setattr(trainer_module, "_VALIDATION_IMAGES", 7)
    monkeypatch.setattr(trainer_module, "_VALIDATION_CHUNK", 3)
    trainer = tiny_trainer(tmp_path, bf16=False)
    assert torch.equal(trainer.held_out, as_float(tiny_images()[50:57]))
    for value in trainer.ema.values():
        value.add_(0.05)
    sizes: list[int] = []
    losses = trainer_module.edm_losses

    def watched(model: EDMDenoiser, clean: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(clean))
        return losses(model, clean, *rest)

    sigma, noise, model = spread_sigmas(7, *trainer.config.sigma_range), fixed_noise(trainer.held_out.shape), trainer.averaged()
    bands = BandMeans.empty()
    with torch.no_grad():
        bands.add(sigma, losses(model, trainer.held_out, noise, sigma, model.sigma_data))
    monkeypatch.setattr(trainer_module, "edm_losses", watched)
    found = trainer.validate()
    assert sizes == [3, 3, 1]
    assert found == pytest.approx(bands.means(), rel=1e-3, nan_ok=True)
    plain = trainer.model.eval()
    with torch.no_grad():
        other = losses(plain, trainer.held_out, noise, sigma, plain.sigma_data)
    assert float(other.sum()) != pytest.approx(float((bands.total).sum()), rel=1e-2)


@pytest.mark.parametrize(("threads", "resident", "shared"), [(1, False, True), (2, False, False), (1, True, False)])
def test_workers_take_turns_where_torch_has_threads_of_its_own(
    threads: int, resident: bool, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.resident = resident
    seen: list[Any] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(trainer_module.loop, "run", lambda one, folder, **options: seen.extend([one._mapper is not map, folder, one._deadline, options]))
    told = lambda done, text: None  # noqa: E731
    trainer.run(2.0, 5.0, 30, 60, told)
    assert seen == [shared, tmp_path, 120.0, {"checkpoint_seconds": 5.0, "log_every": 30, "progress": told}]
    assert (trainer._validate_every, trainer._mapper) == (60, map)
    assert trainer.asked == {"steps": 40, "minutes": 2.0}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch": 4, "lr": 1e-4}, "was trained with other settings (batch, lr); use those or another folder"),
        ({"seed": 1}, "was trained with other settings (seed); use those or another folder"),
        ({"init": "digest"}, "was started from other weights (--init); start from those or use another folder"),
        ({"images": True}, "was trained on other images; use those or another folder"),
    ],
    ids=str,
)
def test_words_for_another_run(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    first = tiny_trainer(tmp_path)
    first.save(tmp_path / CHECKPOINT)
    images = tiny_images()[:50].flip(0) if change.pop("images", False) else tiny_images()[:50]
    init = change.pop("init", None)
    with pytest.raises(SepbenchError) as refused:
        ScoreTraining(first.model, images, tiny_images()[50:], replace(first.config, **change), tmp_path, init)
    assert str(refused.value) == f"{tmp_path / CHECKPOINT} {says}"


def test_replicas_share_weights_and_have_gradients_of_their_own(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, workers=3, batch=8)
    assert [replica is trainer.model for replica in trainer.replicas] == [True, False, False]
    for first, second, third in zip(*(replica.parameters() for replica in trainer.replicas), strict=True):
        assert first.data_ptr() == second.data_ptr() == third.data_ptr()
        assert second is not first
    resident = ScoreTraining(trainer.model, tiny_images()[:50], tiny_images()[50:], replace(trainer.config, workers=3), tmp_path / "b", resident=True)
    assert (resident.workers, len(resident.replicas)) == (1, 1)
