"""Norm of a score prior's gradient against the noise level (BASIS, Fig. 2). Computes: the prior is loaded and evaluated.

For noisy clean sources ``x + sigma n`` in d dimensions the expected square of the score's norm is at most ``d / sigma^2``, and close to
it where the noise drowns the signal: there sigma times the norm is level, which is why BASIS takes steps proportional to sigma^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sepbench.ambient import put_back
from sepbench.errors import MethodError, SepbenchError
from sepbench.protocols import HasScorePrior, ScorePrior
from sepbench.registry import create_separator
from sepbench.report.panels.canvas import COLOURS, GREY, SMALL, TEXT, TITLE, new_figure, save_png
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.report.panels.session import fitted_again
from sepbench.run.separate import one_line
from sepbench.run.session import Session
from sepbench.suites.model import Task

Array = npt.NDArray[np.float64]

N_IMAGES = 64
_STREAM = 7  # of the noise source: apart from that of the samplers


@dataclass(frozen=True, slots=True)
class Curve:
    """One prior: ``norms`` ``(levels, n)`` of the score at n noisy sources per level; ``label`` is empty if it serves all sources."""

    label: str
    norms: Array


@dataclass(frozen=True, slots=True)
class GradientNorms:
    """The figure.

    Attributes:
        title, subtitle: its texts.
        sigmas: ``(levels,)``, highest first.
        dimension: d, numbers per source.
        curves: one per distinct prior.
    """

    title: str
    subtitle: str
    sigmas: Array
    dimension: int
    curves: tuple[Curve, ...]


def has_prior(run: OpenedRun, method: str) -> bool:
    """Whether a method of the run works with a score prior that can be looked at."""
    return isinstance(create_separator(method, run.record.methods[method].settings, run.suite.domain), HasScorePrior)


def annealing_levels(settings: dict[str, Any]) -> list[float]:
    """The noise levels of a method, geometric from its settings ``highest`` to ``lowest`` (BASIS: 1 and 0.01) in ``levels`` (10), highest first."""
    highest, lowest, levels = (settings.get(key, default) for key, default in (("highest", 1.0), ("lowest", 0.01), ("levels", 10)))
    return [float(level) for level in np.geomspace(float(highest), float(lowest), int(levels))]


def score_norms(prior: ScorePrior, clean: torch.Tensor, sigmas: Sequence[float], session: Session, slot: int = 0) -> Array:
    """Euclidean norms ``(levels, n)`` of ``prior.score`` at clean sources ``(n, ...)`` plus noise of each level."""
    ids = torch.arange(len(clean), dtype=torch.int64)
    noise = session.ctx.noise.fork(_STREAM)
    clean = clean.to(session.ctx.device)
    rows = []
    for step, sigma in enumerate(sigmas):
        noisy = clean + sigma * noise.normal(ids, step, slot, tuple(clean.shape[1:]), session.ctx.device)
        with put_back():
            found = prior.score(noisy, sigma)
        rows.append(found.flatten(1).double().norm(dim=1).cpu().numpy())
    return np.stack(rows)


def gradient_norms(run: OpenedRun, task: Task, method: str, device: str, n: int = N_IMAGES) -> GradientNorms:
    """Evaluate a method's prior, or its priors, on the true sources of the task's first n mixtures.

    Raises:
        SepbenchError: the method has no prior that can be looked at, or it cannot be loaded or evaluated.
    """
    session = fitted_again(run, task, method, device)
    separator, spec = session.separator, task.spec
    if not isinstance(separator, HasScorePrior):
        raise MethodError(f"{method} has no score prior to look at; choose a method that does with --method")
    n = min(n, run.n_planned(spec.name))
    sources = task.mixture_set().sources(range(n))
    sigmas = annealing_levels(run.record.methods[method].settings)
    try:
        priors = [separator.score_prior(k) for k in range(spec.n_sources)]
        shared = all(prior is priors[0] for prior in priors)
        slots = [0] if shared else list(range(spec.n_sources))
        curves = [Curve("" if shared else spec.source_classes[k], score_norms(priors[k], sources[:, k], sigmas, session, k)) for k in slots]
    except SepbenchError:
        raise
    except Exception as error:  # whatever a third party's prior raises
        raise MethodError(f"the prior of {method} cannot be evaluated: {one_line(error)}") from error
    subtitle = f"Score at noisy true sources of {n:,} mixtures of {spec.suite}, {spec.name}: mean, and band from the 5 % to the 95 % quantile"
    return GradientNorms(f"Gradient norm of the prior of {method}", subtitle, np.array(sigmas), math.prod(spec.source_shape), tuple(curves))


def draw_gradients(data: GradientNorms, path: Path) -> Path:
    """Two axes: the norm itself, and sigma times the norm as the paper draws it. Annealing runs from left to right."""
    figure = new_figure(8.0, 3.7)
    figure.text(0.02, 0.975, data.title, fontsize=TITLE, weight="bold", va="top")
    figure.text(0.02, 0.905, data.subtitle, fontsize=SMALL, color=GREY, va="top")
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.085, right=0.98, top=0.8, bottom=0.15, wspace=0.26)
    root = math.sqrt(data.dimension)
    for axis, power in ((left, 0), (right, 1)):
        factor = data.sigmas**power
        for number, curve in enumerate(data.curves):
            colour = COLOURS[number % len(COLOURS)]
            low, high = np.quantile(curve.norms, (0.05, 0.95), axis=1)
            axis.fill_between(data.sigmas, low * factor, high * factor, color=colour, alpha=0.2, linewidth=0)
            axis.plot(data.sigmas, curve.norms.mean(1) * factor, "o-", color=colour, markersize=3.5, linewidth=1.4, label=curve.label or "prior")
        label = rf"$\sqrt{{d}}/\sigma$, d = {data.dimension:,}"
        axis.plot(data.sigmas, root / data.sigmas * factor, color="black", linestyle=(0, (4, 2)), linewidth=1.0, label=label)
        axis.set_xscale("log")
        axis.invert_xaxis()
        axis.set_xlabel(r"noise level $\sigma$ [units of the source]; annealing goes right", fontsize=TEXT)
        axis.tick_params(labelsize=SMALL)
        axis.spines[["top", "right"]].set_visible(False)
    left.set_yscale("log")
    left.set_ylabel(r"$\|\nabla \log p_\sigma(x)\|$ [1 / units of the source]", fontsize=TEXT)
    right.set_ylim(bottom=0)
    right.set_ylabel(r"$\sigma \, \|\nabla \log p_\sigma(x)\|$ [1]", fontsize=TEXT)
    left.legend(fontsize=SMALL, frameon=False, loc="upper left")
    return save_png(figure, path)
