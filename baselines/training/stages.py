"""A fit in stages: trainings one after the other, each in its own folder below ``ctx.cache``, with one progress for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from baselines.training.loop import Training, resume, run
from sepbench.protocols import RunContext


class Stages:
    """The stages of one fit, in the order in which they are made.

    Args:
        ctx: of the run. Its cache keeps the checkpoints, if there is one.
        shares: of each stage in the fit, by name, for the progress. They add up to 1.
    """

    def __init__(self, ctx: RunContext, shares: Mapping[str, float]) -> None:
        self.ctx, self.shares, self.begun = ctx, shares, 0.0

    def make(self, name: str, training: Training) -> None:
        """Make a training, or what is left of it. ``name`` is that of its share and of its folder."""
        folder = None if self.ctx.cache is None else self.ctx.cache / name
        resume(training, folder, self.ctx.device)
        run(training, folder, progress=self._tell(name, self.begun))
        self.begun += self.shares[name]

    def _tell(self, name: str, begun: float) -> Callable[[float, str], None]:
        return lambda fraction, text: self.ctx.progress(min(1.0, begun + self.shares[name] * fraction), f"{name}: {text}")
