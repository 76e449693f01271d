"""Priors of the user's own, as ``--set METHOD.weights=`` names them, with commas between: paths of ``.safetensors`` files, or ``package.module:NAME``
of any object with ``score(x, sigma)``, or of what makes one when it is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from baselines.priors.padded import padded
from baselines.priors.score_prior import tweedie
from baselines.priors.weights_io import check_weights, load_prior
from sepbench.errors import DataError, MethodError
from sepbench.files import file_sha256
from sepbench.precision import Precision
from sepbench.protocols import HasDensity, ScorePrior, TaskSpec

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_reference(text: str) -> bool:
    """Whether a text names an object in a module and not a file."""
    return _REFERENCE.fullmatch(text) is not None


@dataclass(frozen=True)
class UserPrior:
    """An object with ``score(x, sigma)`` as samplers want it: its denoiser by Tweedie's formula if it has none, and what it returns is checked.

    Attributes:
        name: the reference, for messages.
        model: the user's object.
    """

    name: str
    model: Any

    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Gradient of ``log p_sigma`` at x, ``(M, ...)``."""
        return self._checked(self.model.score(x, sigma), x, "score")

    def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Posterior mean of the clean source given the noisy x, ``(M, ...)``."""
        if hasattr(self.model, "denoise"):
            return self._checked(self.model.denoise(x, sigma), x, "denoise")
        return tweedie(x, self.score(x, sigma), sigma)

    def _checked(self, values: object, x: torch.Tensor, what: str) -> torch.Tensor:
        if not isinstance(values, torch.Tensor) or values.shape != x.shape:
            got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
            raise MethodError(f"prior {self.name}: {what}(x, sigma) must return a tensor of x's shape {tuple(x.shape)}, got {got}")
        # On an accelerator the check would stall the queue; there the run's own check of the estimates catches it.
        if values.device.type == "cpu" and not bool(torch.isfinite(values).all()):
            raise MethodError(f"prior {self.name}: {what}(x, sigma) is not finite; look at it at the noise levels that the sampler asks for")
        return values.detach().to(x.dtype)


@dataclass(frozen=True)
class UserPriorWithDensity(UserPrior):
    """One that also offers ``log_prob(x)``, which unlocks best-of-N by it."""

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """``log p(x)`` in nats, ``(M,)`` float64."""
        values: torch.Tensor = self.model.log_prob(x)
        return values.detach().double()


def module_sha256(text: str) -> str:
    """SHA-256 of the file of the module that a reference names, which is not run for it; empty if there is none."""
    try:
        spec = importlib.util.find_spec(text.partition(":")[0])
    except (ImportError, ValueError):
        return ""
    return file_sha256(Path(spec.origin)) if spec is not None and spec.origin and Path(spec.origin).is_file() else ""


def load_reference(text: str, shape: tuple[int, ...], unpadded: tuple[int, ...] | None = None) -> ScorePrior:
    """The prior behind ``package.module:NAME``.

    Args:
        text: the reference.
        shape: of the task's sources; an object that has a ``shape`` of its own must agree.
        unpadded: their shape without the border that the task adds, which an object's own shape may also be; None: there is no border.

    Raises:
        DataError: there is no such module or object, it cannot be made, or it is no prior for these sources.
    """
    module_name, _, attribute = text.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
        model = found if hasattr(found, "score") and not isinstance(found, type) else found()
    except ModuleNotFoundError as error:
        raise DataError(f"prior {text}: no module {error.name!r}; install its package or name its folder in PYTHONPATH") from None
    except Exception as error:  # whatever a user's module raises
        raise DataError(f"prior {text} cannot be made: {type(error).__name__}: {error}") from error
    if not callable(getattr(model, "score", None)):
        raise DataError(f"prior {text}: {type(model).__name__} has no score(x, sigma); see ScorePrior in sepbench/protocols.py")
    own = tuple(getattr(model, "shape", shape))
    if own not in (shape, unpadded):
        raise DataError(f"prior {text} is for signals of shape {own}, the task has {shape}; choose other tasks with --tasks")
    return padded((UserPriorWithDensity if isinstance(model, HasDensity) else UserPrior)(text, model), own, shape)


def split(weights: str) -> list[str]:
    """The single files and references."""
    return [part.strip() for part in weights.split(",")]


def digests(weights: str) -> str:
    """SHA-256 of every file, or of the module that a reference names, separated by commas. A missing file has none; ``check`` names it."""
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
            load_reference(part, task.source_shape, task.unpadded_shape)
            continue
        card = check_weights(Path(part))
        if tuple(card["shape"]) not in (task.source_shape, task.unpadded_shape):
            own, wanted = ("x".join(map(str, sizes)) for sizes in (card["shape"], task.source_shape))
            advice = "choose other tasks with --tasks, or train a prior with `sepbench train`"
            raise DataError(f"{part} was trained on signals of shape {own}, task {task.name} has {wanted}; {advice}")
        if card["kind"] == "ncsn-refinenet" and not ten_levels_do:
            raise DataError(f"{part} knows ten noise levels only, in float32; basis-ncsn and basis-ncsn-code can use it, {method} as set cannot")


def load(weights: str, task: TaskSpec, precision: Precision, device: str) -> Sequence[ScorePrior]:
    """The priors for a task, in the order given.

    Raises:
        DataError: see ``check``.
    """
    return [_load(part, task, precision, device) for part in split(weights)]


def _load(part: str, task: TaskSpec, precision: Precision, device: str) -> ScorePrior:
    if is_reference(part):
        return load_reference(part, task.source_shape, task.unpadded_shape)
    prior = load_prior(Path(part), precision=precision, device=device)
    return padded(prior, prior.shape, task.source_shape)
