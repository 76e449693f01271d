"""What a user gives as ``--set METHOD.weights=``: paths of ``.safetensors`` files or ``package.module:NAME`` references, with commas between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from baselines.priors.score_prior import Precision
from baselines.priors.user_prior import is_reference, load_reference, module_sha256
from baselines.priors.weights_io import check_weights, file_sha256, load_prior
from sepbench.errors import DataError
from sepbench.protocols import ScorePrior, TaskSpec


def split(weights: str) -> list[str]:
    """The single files and references."""
    return [part.strip() for part in weights.split(",")]


def digests(weights: str) -> str:
    """SHA-256 of every file, or of the module that a reference names, with commas between; what is not there is left out, and told of by ``check``."""
    found = [module_sha256(part) if is_reference(part) else file_sha256(Path(part)) if Path(part).is_file() else "" for part in split(weights)]
    return ",".join(digest for digest in found if digest)


def check(weights: str, task: TaskSpec, method: str, count: int, ten_levels_do: bool) -> None:
    """Whether a method can use the priors on a task, before anything is loaded.

    Args:
        weights: as the user gave them.
        task: whose sources they must fit.
        method: its name, for messages.
        count: priors that it takes.
        ten_levels_do: it asks for no other noise levels than the ten of NCSN, in float32.

    Raises:
        DataError: too few or too many, one that is not there or damaged, of another shape, or that knows too few noise levels.
    """
    given = split(weights)
    if len(given) != count:
        counted = f"{count} prior{'s' * (count > 1)}"
        raise DataError(f"{method} takes {counted} on task {task.name}, its setting weights names {len(given)}; give {counted}")
    for part in given:
        if is_reference(part):
            load_reference(part, task.source_shape)
            continue
        card = check_weights(Path(part))
        if tuple(card["shape"]) != task.source_shape:
            own, wanted = ("x".join(map(str, sizes)) for sizes in (card["shape"], task.source_shape))
            advice = "choose other tasks with --tasks, or train a prior with `sepbench train`"
            raise DataError(f"{part} was trained on signals of shape {own}, task {task.name} has {wanted}; {advice}")
        if card["kind"] == "ncsn-refinenet" and not ten_levels_do:
            raise DataError(f"{part} knows ten noise levels only, in float32; basis-ncsn and basis-ncsn-code can use it, {method} as set cannot")


def load(weights: str, shape: tuple[int, ...], precision: Precision, device: str) -> Sequence[ScorePrior]:
    """The priors, in the order given.

    Raises:
        DataError: see ``check``.
    """
    return [load_reference(part, shape) if is_reference(part) else load_prior(Path(part), precision=precision, device=device) for part in split(weights)]
