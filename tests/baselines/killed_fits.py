"""Fits in stages that are killed at a step of one stage and go on from their checkpoints."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from baselines.training import loop, stages


class Killed(BaseException):
    pass


def killed_and_resumed(fit: Callable[[], object], stage: type[loop.Training], monkeypatch: pytest.MonkeyPatch) -> object:
    """What ``fit`` gives the second time, after it was killed at the second step of ``stage``; it must go on from the first."""
    advance, made, begun = stage.advance, [0], list[int]()

    def until(self: loop.Training) -> None:
        made[0] += 1
        if made[0] == 2:
            raise Killed
        advance(self)

    def watched(self: loop.Training) -> None:
        begun.append(self.step)
        advance(self)

    with monkeypatch.context() as patched:
        patched.setattr(stage, "advance", until)
        patched.setattr(stages, "run", lambda one, folder, progress: loop.run(one, folder, checkpoint_seconds=0.0, progress=progress))
        with pytest.raises(Killed):
            fit()
    with monkeypatch.context() as patched:
        patched.setattr(stage, "advance", watched)
        resumed = fit()
    assert begun[0] == 1, "began anew"
    return resumed
