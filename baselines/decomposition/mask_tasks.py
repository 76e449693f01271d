"""Tasks for methods that learn masks of mixtures: ``supervised``, ``nes`` and methods built on them.

They work in parts: a part is a source times its weight in the mixture, so parts add up to it. Mixtures to learn from
are then sums of parts. This needs weights that are the same in all mixtures: operators ``sum`` and ``mean``. Audio may
also be mixed under ``gain``, see ``baselines/decomposition/mask_signals.py``.
"""

from __future__ import annotations

from collections.abc import Collection

from baselines.decomposition.parts import part_support
from sepbench.operators import make_operator
from sepbench.protocols import Domain, Support, TaskSpec

_OF_FIXED_WEIGHTS = frozenset({"sum", "mean"})


def mask_support(task: TaskSpec, method: str, domains: Collection[Domain] = frozenset({"image"})) -> Support:
    """Whether a method that learns masks of mixtures takes a task.

    The task must be of one of the domains, and have at least two sources. Images must all be mixed with the same
    weights.
    """
    support = part_support(task, method, domains)
    if support.ok and task.domain == "audio" and task.sample_rate is None:
        return Support(False, f"{method} masks spectrograms, and this task has no sample rate")
    if support.ok and task.domain == "image" and task.operator not in _OF_FIXED_WEIGHTS:
        return Support(False, f"{method} must know how loud each source is in training mixtures; operator {task.operator!r} does not tell")
    return support


def observed_and_other_support(task: TaskSpec, method: str, domains: Collection[Domain] = frozenset({"image"})) -> Support:
    """``mask_support``, for methods that also need one observed source and one other."""
    support = mask_support(task, method, domains)
    if support.ok and task.observed_source is None:
        return Support(False, f"{method} learns from clean samples of one source; this task has no observed source")
    if support.ok and task.n_sources != 2:
        return Support(False, f"{method} separates one observed source from one other, the task has {task.n_sources}")
    return support


def part_weights(task: TaskSpec) -> tuple[float, ...]:
    """The weight of each source in a mixture, K numbers, which are the same in all mixtures."""
    return tuple(make_operator(task.operator, task.n_sources).matrix().reshape(-1).tolist())
