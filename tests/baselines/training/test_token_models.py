"""The fit of LASS: its three stages, resuming, what is kept, and files that do not go together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import Digits, ToyView, context, toy_task

from baselines.training import loop, token_models
from baselines.training.codec import VQVAETraining
from baselines.training.token_models import LearntTokens
from baselines.training.tokens import SumTraining, TokenTraining
from sepbench.errors import DataError

TASK = toy_task()
_CODEC: Mapping[str, Any] = {"codes": 10, "width": 8, "codec_epochs": 2, "codec_batch": 32, "codec_lr": 3e-3, "restart_every": 4}
_PRIOR: Mapping[str, Any] = {"prior_width": 8, "prior_layers": 1, "prior_epochs": 2, "prior_batch": 32, "prior_lr": 3e-3, "passes": 2}
TINY: Mapping[str, Any] = {**_CODEC, **_PRIOR, "held_out": 20}


def fitted(digits: Digits, cache: Path | None = None, seed: int = 0, **settings: Any) -> LearntTokens:
    method = LearntTokens(**{**TINY, **settings})
    method.fit(ToyView(TASK, "prior", pooled=digits.pooled[:150]), context(TASK, seed, cache=cache))
    return method


def test_a_fit_follows_from_seed_and_settings(digits: Digits, tmp_path: Path) -> None:
    first = fitted(digits)
    assert first.weights_sha256 == fitted(digits, tmp_path).weights_sha256
    assert first.weights_sha256 != fitted(digits, seed=1).weights_sha256
    assert first.fitted().sums.digest != fitted(digits, symmetric=False).fitted().sums.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codec", "prior", "sums"]
    assert int(first.fitted().sums.counts.sum()) == 2 * 67 * 4 * 2, "twice 67 pairs of 135 images, four positions, both orders"


@pytest.mark.parametrize("stage", [VQVAETraining, TokenTraining, SumTraining])
def test_a_fit_that_is_killed_goes_on(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: type[loop.Training]) -> None:
    class Killed(BaseException):
        pass

    advance = stage.advance
    made = [0]

    def until(self: loop.Training) -> None:
        made[0] += 1
        if made[0] == 2:
            raise Killed
        advance(self)

    with monkeypatch.context() as patched:
        patched.setattr(stage, "advance", until)
        patched.setattr(token_models, "run", lambda one, folder, progress: loop.run(one, folder, checkpoint_seconds=0.0, progress=progress))
        with pytest.raises(Killed):
            fitted(digits, tmp_path)
    monkeypatch.setattr(stage, "advance", lambda self: (pytest.fail("began anew") if self.step < 1 else None, advance(self)))
    resumed = fitted(digits, tmp_path)
    monkeypatch.undo()
    assert resumed.weights_sha256 == fitted(digits).weights_sha256


def test_a_kept_fit_is_the_fit(digits: Digits, tmp_path: Path) -> None:
    method, loaded = fitted(digits), LearntTokens(**TINY)
    assert loaded.weights_sha256 == ""
    with pytest.raises(ValueError, match="fit"):
        loaded.fitted()
    method.save(tmp_path)
    loaded.load(tmp_path, context(TASK))
    assert loaded.weights_sha256 == method.weights_sha256
    images = digits.pooled[:4]
    assert torch.equal(loaded.fitted().codec(images).images, method.fitted().codec(images).images)
    assert not any(p.requires_grad for network in (loaded.fitted().codec, method.fitted().prior) for p in network.parameters())


def test_files_that_do_not_go_together(digits: Digits, tmp_path: Path) -> None:
    """Another codec, another number of codes, damage: one line each."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, seed in ((one, 0), (other, 1)):
        folder.mkdir()
        fitted(digits, seed=seed).save(folder)

    def told(settings: Mapping[str, Any] = TINY) -> str:
        with pytest.raises(DataError) as error:
            LearntTokens(**settings).load(one, context(TASK))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "layout" in told({**TINY, "codes": 11})
    for name in ("prior", "sums"):
        right = (one / f"{name}.safetensors").read_bytes()
        (one / f"{name}.safetensors").write_bytes((other / f"{name}.safetensors").read_bytes())
        assert "another codec" in told()
        (one / f"{name}.safetensors").write_bytes(right[:100])
        assert "cannot be read" in told()
        (one / f"{name}.safetensors").unlink()
        assert "is missing" in told()
        (one / f"{name}.safetensors").write_bytes(right)
    LearntTokens(**TINY).load(one, context(TASK))


def test_quick_makes_a_tenth(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[float] = []
    monkeypatch.setattr(token_models, "run", lambda one, folder, progress: steps.append(one.steps / one.batches))
    for budget in ("paper", "quick"):
        view = ToyView(TASK, "prior", pooled=digits.pooled[:200])
        LearntTokens(**{**TINY, "codec_epochs": 500, "prior_epochs": 500, "passes": 50}).fit(view, context(TASK, budget=budget))
    assert steps == [500, 500, 50, 50, 50, 5]


def test_progress_goes_up_to_all_of_it(digits: Digits) -> None:
    told: list[tuple[float, str]] = []
    method = LearntTokens(**TINY)
    method.fit(ToyView(TASK, "prior", pooled=digits.pooled[:150]), context(TASK, progress=lambda done, text: told.append((done, text))))
    shares = [done for done, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert {text.partition(":")[0] for _, text in told} == {"codec", "prior", "sums"}
