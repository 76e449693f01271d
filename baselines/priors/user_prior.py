"""Priors of the user's own: ``package.module:NAME`` names any object with ``score(x, sigma)``, or what makes one when it is called."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from baselines.priors.score_prior import denoise_with
from baselines.priors.weights_io import file_sha256
from sepbench.errors import DataError, MethodError
from sepbench.protocols import HasDensity, ScorePrior

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
        return denoise_with(self, x, sigma)

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


def load_reference(text: str, shape: tuple[int, ...]) -> ScorePrior:
    """The prior behind ``package.module:NAME``.

    Args:
        text: the reference.
        shape: of the task's sources; an object that has a ``shape`` of its own must agree.

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
    own = getattr(model, "shape", shape)
    if tuple(own) != shape:
        raise DataError(f"prior {text} is for signals of shape {tuple(own)}, the task has {shape}; choose other tasks with --tasks")
    return (UserPriorWithDensity if isinstance(model, HasDensity) else UserPrior)(text, model)
