from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from train_until_done import tiny_images, tiny_trainer

from baselines.training.loop import CHECKPOINT, LOG
from baselines.training.trainer import DECAY_FLAG, PRE_DECAY, ScoreTraining
from sepbench.errors import SepbenchError

SCRIPT = Path(__file__).parent.parent / "train_until_done.py"
STEPS = 24


def _state(trainer: ScoreTraining) -> dict[str, torch.Tensor]:
    return {**{f"model.{k}": v for k, v in trainer.model.state_dict().items()}, **{f"ema.{k}": v for k, v in trainer.ema.items()}}


def _assert_same(one: ScoreTraining, other: ScoreTraining) -> None:
    first, second = _state(one), _state(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def _rows(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    for row in rows:
        row.pop("minutes")
    return rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ScoreTraining:
    trainer = tiny_trainer(tmp_path_factory.mktemp("whole"), steps=STEPS)
    trainer.run(log_every=5, validate_every=10)
    return trainer


class _Stopped(Exception):
    """Raised in the middle of a run."""


def test_resume_is_bit_exact(whole: ScoreTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny_trainer(tmp_path, steps=STEPS)
    step = first.advance

    def seven_steps() -> None:  # to the middle of a window of the log
        if first.step == 7:
            raise _Stopped
        step()

    monkeypatch.setattr(first, "advance", seven_steps)
    with pytest.raises(_Stopped):
        first.run(checkpoint_seconds=0.0, log_every=5, validate_every=10)
    second = tiny_trainer(tmp_path, steps=STEPS)
    assert second.step == 7
    second.run(log_every=5, validate_every=10)
    _assert_same(whole, second)
    assert _rows(tmp_path) == _rows(whole.folder)


@pytest.mark.slow
def test_kill_9_loses_nothing(whole: ScoreTraining, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(STEPS)]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[3])}
    process = subprocess.Popen(command, env=environment)
    until = time.monotonic() + 120
    while not (tmp_path / CHECKPOINT).exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = int(torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"])
    assert 0 < killed_at <= STEPS
    resumed = tiny_trainer(tmp_path, steps=STEPS)
    resumed.run(log_every=5, validate_every=10)
    _assert_same(whole, resumed)
    assert _rows(tmp_path) == _rows(whole.folder)


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, steps=150, warmup=10, ema=0.9)
    before = trainer.validate()
    trainer.run(log_every=50, validate_every=50)
    after = trainer.validate()
    assert before == pytest.approx([1.0] * len(before), abs=0.35)
    # Below the texture of the toy images (deviation 0.045) there is little to learn.
    assert all(a < 0.6 * b for a, b in list(zip(after, before, strict=True))[2:]), (before, after)
    assert _rows(tmp_path)[-1]["validation"] == after


def test_workers_share_a_batch_without_changing_the_sum(tmp_path: Path) -> None:
    one, two = tiny_trainer(tmp_path / "1", workers=1, bf16=False), tiny_trainer(tmp_path / "2", workers=2, bf16=False)
    for trainer in (one, two):
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in trainer.model.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=random))
        trainer.train_step()
    for (name, p), q in zip(one.model.named_parameters(), two.model.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-5, msg=name)
    torch.testing.assert_close(one.window.total, two.window.total, rtol=1e-4, atol=1e-4)


def test_flag_file_starts_the_decay(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, steps=10_000)
    for _ in range(6):
        trainer.train_step()
    (tmp_path / DECAY_FLAG).write_text("4")
    trainer.run(log_every=1)
    assert (trainer.step, trainer.decay_start, trainer.decay_steps) == (10, 6, 4)
    assert [row["rate"] for row in _rows(tmp_path)] == [1.0, 0.75, 0.5, 0.25]
    assert torch.load(tmp_path / PRE_DECAY, weights_only=True)["step"] == 6


def test_deadline_starts_the_decay_in_time(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, steps=10_000)
    trainer.step, trainer.seconds = 78, 77.0
    trainer._plan_decay(100.0)
    assert trainer.decay_start is None
    trainer.seconds = 78.1  # 22 more steps at one second each end at 100
    trainer._plan_decay(100.0)
    assert (trainer.decay_start, trainer.decay_steps) == (78, 22)
    # The decision is on disk: another clock does not move it.
    assert tiny_trainer(tmp_path, steps=10_000).decay_start == 78


@pytest.mark.slow
def test_a_run_is_extended_from_before_its_decay(whole: ScoreTraining, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes((whole.folder / PRE_DECAY).read_bytes())
    longer = tiny_trainer(tmp_path, steps=2 * STEPS)
    assert longer.step == whole.decay_start
    longer.run(log_every=5)
    fresh = tiny_trainer(tmp_path / "fresh", steps=2 * STEPS)
    fresh.run(log_every=5)
    _assert_same(longer, fresh)


def _copied(run: ScoreTraining, folder: Path, **missing: object) -> Path:
    """The checkpoint of a run in a folder of its own, less the entries named."""
    state = torch.load(run.folder / CHECKPOINT, weights_only=True)
    torch.save({key: value for key, value in state.items() if key not in missing}, folder / CHECKPOINT)
    return folder


@pytest.mark.parametrize(
    ("steps", "minutes", "changed"),
    [
        (2 * STEPS, None, "steps 24 then, 48 now"),
        (STEPS - 1, None, "steps 24 then, 23 now"),
        (STEPS, 60.0, "minutes not given then, 60.0 now"),
    ],
)
def test_a_finished_run_is_not_what_another_length_asks_for(whole: ScoreTraining, tmp_path: Path, steps: int, minutes: float | None, changed: str) -> None:
    other = tiny_trainer(_copied(whole, tmp_path), steps=steps)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(SepbenchError, match=rf"holds a finished run of 24 steps \({changed}\); give another --folder, or delete it to train anew"):
        other.run(deadline_minutes=minutes)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_finished_run_is_what_the_same_length_asks_for(whole: ScoreTraining, tmp_path: Path) -> None:
    again = tiny_trainer(_copied(whole, tmp_path), steps=STEPS)
    again.run()
    assert again.asked == {"steps": STEPS, "minutes": None}
    _assert_same(whole, again)


def test_the_deadline_that_a_run_was_given_is_remembered(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=10_000).run(deadline_minutes=1e-6)
    again = tiny_trainer(tmp_path, steps=10_000)
    ended_at = again.step
    again.run(deadline_minutes=1e-6)
    assert again.step == ended_at < 40
    with pytest.raises(SepbenchError, match=r"a finished run of \d+ steps \(minutes 1e-06 then, 60.0 now\)"):
        again.run(deadline_minutes=60.0)


def test_a_run_killed_in_its_decay_is_finished_by_the_same_request_only(whole: ScoreTraining, tmp_path: Path) -> None:
    killed = tiny_trainer(tmp_path, steps=STEPS)
    killed._accept({"steps": STEPS, "minutes": None})
    while killed.step < STEPS - 2:
        killed._plan_decay(None)
        killed.train_step()
    killed.save(tmp_path / CHECKPOINT)
    with pytest.raises(SepbenchError, match=r"an unfinished run, 22 of 24 steps \(minutes not given then, 60.0 now\); ask for the same to finish it"):
        tiny_trainer(tmp_path, steps=STEPS).run(deadline_minutes=60.0)
    resumed = tiny_trainer(tmp_path, steps=STEPS)
    resumed.run()
    _assert_same(whole, resumed)


def test_before_its_decay_a_run_takes_another_length_but_none_it_has_passed(whole: ScoreTraining, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes((whole.folder / PRE_DECAY).read_bytes())
    with pytest.raises(SepbenchError, match=r"an unfinished run, 19 of 24 steps \(steps 24 then, 10 now\)"):
        tiny_trainer(tmp_path, steps=10).run()
    other = tiny_trainer(tmp_path, steps=STEPS + 1)
    other.run(deadline_minutes=60.0)
    assert (other.step, other.asked) == (STEPS + 1, {"steps": STEPS + 1, "minutes": 60.0})


def test_a_checkpoint_from_before_requests_were_recorded(whole: ScoreTraining, tmp_path: Path) -> None:
    _copied(whole, tmp_path, asked=True, origin=True)
    with pytest.raises(SepbenchError, match="steps 24 then, 48 now"):
        tiny_trainer(tmp_path, steps=2 * STEPS).run()
    again = tiny_trainer(tmp_path, steps=STEPS)
    again.run()
    _assert_same(whole, again)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 the head of a zip", b"half", b"other"])
def test_what_is_no_checkpoint_is_one_line(whole: ScoreTraining, tmp_path: Path, content: bytes) -> None:
    if content == b"half":
        content = (whole.folder / CHECKPOINT).read_bytes()[:5000]
    (tmp_path / CHECKPOINT).write_bytes(content)
    if content == b"other":
        torch.save({"model": {}}, tmp_path / CHECKPOINT)
    with pytest.raises(SepbenchError, match=r"checkpoint.*; delete it, or train in another folder$") as refused:
        tiny_trainer(tmp_path, steps=STEPS)
    assert "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)  # torch's own advice for pickles is to run what they hold


def test_other_settings_or_images_are_refused(whole: ScoreTraining) -> None:
    with pytest.raises(SepbenchError, match=r"other settings \(batch, lr\)"):
        tiny_trainer(whole.folder, steps=STEPS, batch=4, lr=1e-4)
    model = tiny_trainer(whole.folder.parent / "elsewhere", steps=STEPS).model
    model.mean += 0.01
    with pytest.raises(SepbenchError, match="other images"):
        ScoreTraining(model, tiny_images()[:50], tiny_images()[50:], whole.config, whole.folder)
    model.mean = whole.model.mean
    with pytest.raises(SepbenchError, match="other images"):  # of the same mean and deviation
        ScoreTraining(model, tiny_images()[:50].flip(0), tiny_images()[50:], whole.config, whole.folder)
    with pytest.raises(SepbenchError, match="other weights"):
        ScoreTraining(model, tiny_images()[:50], tiny_images()[50:], whole.config, whole.folder, init="digest")


def test_a_checkpoint_from_before_a_setting_existed_had_its_default(whole: ScoreTraining, tmp_path: Path) -> None:
    state = torch.load(whole.folder / PRE_DECAY, weights_only=True)
    del state["config"]["mirror"]
    torch.save(state, tmp_path / CHECKPOINT)
    assert tiny_trainer(tmp_path, steps=STEPS).step == whole.decay_start
    with pytest.raises(SepbenchError, match=r"other settings \(mirror\)"):
        tiny_trainer(tmp_path, steps=STEPS, mirror=True)


def test_mirroring_shows_other_images_and_resumes_to_the_same(tmp_path: Path) -> None:
    plain, shown = (tiny_trainer(tmp_path / name, steps=6, mirror=name == "mirrored") for name in ("plain", "mirrored"))
    for trainer in (plain, shown):
        trainer.run(log_every=5)
    assert any(not torch.equal(value, _state(shown)[name]) for name, value in _state(plain).items())
    again = tiny_trainer(tmp_path / "again", steps=6, mirror=True)
    for _ in range(3):
        again._plan_decay(None)
        again.train_step()
    again.save(tmp_path / "again" / CHECKPOINT)
    resumed = tiny_trainer(tmp_path / "again", steps=6, mirror=True)
    resumed.run(log_every=5)
    _assert_same(shown, resumed)


def test_divergence_is_named(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)
    with pytest.raises(SepbenchError, match="diverged at step 0"):
        trainer.train_step()
