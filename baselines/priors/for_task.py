"""The priors of a task, for the separators that sample under them: the user's own, the true ones where they are known, or those that ship;
and what results say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from baselines.priors import user_prior
from baselines.priors.engine import EngineKind
from baselines.priors.padded import PaddedPrior, padded
from baselines.priors.score_prior import EDMPrior, NCSNPrior
from baselines.priors.shipped import ShippedWeights, find_weights
from baselines.priors.weights_io import check_weights, load_prior
from sepbench.errors import UnsupportedTaskError
from sepbench.precision import Precision
from sepbench.protocols import ScorePrior, Support, TaskSpec, TrainingView

_DIGITS = 8


def digests(weights: str) -> str:
    """SHA-256 of the weights that a user names, with commas between; empty if he names none, or none that is there."""
    return user_prior.digests(weights) if weights else ""


def prior_support(task: TaskSpec, weights: str, *, method: str, per_class: bool, ten_levels_do: bool) -> Support:
    """Whether there is a prior for every source of a task, at the task's own shape.

    Args:
        task: the task.
        weights: the method's setting; empty for what is known or ships.
        method: its name, for messages.
        per_class: it wants one prior per source class.
        ten_levels_do: it asks for no other noise levels than the ten of NCSN, in float32.

    Raises:
        DataError: weights that are not there, are not those of their card, or do not fit the task or the settings.
    """
    if weights:
        user_prior.check(weights, task, method, task.n_sources if per_class else 1, ten_levels_do)
        return Support(True)
    if task.analytic_prior:
        if per_class:
            return Support(False, "the true prior of every source is known here and every sampler gets it; there are no classes to learn")
        return Support(True)
    found = [find_weights(task, k, per_class) for k in range(task.n_sources)]
    for path, sha256 in {entry.path: entry.sha256 for entry in found if entry is not None}.items():
        check_weights(path, sha256)
    missing = [k for k, entry in enumerate(found) if entry is None]
    if not missing:
        return Support(True)
    where = task.datasets[missing[0]] if task.datasets else task.suite
    which = f" of class {task.source_classes[missing[0]]}" if per_class else ""
    wanted = "x".join(map(str, task.unpadded_shape))
    return Support(False, f"no prior ships for {where}{which} at {wanted}; train one and give it with --set {method}.weights=FILE")


def priors_for(task: TaskSpec, view: TrainingView, weights: str, *, per_class: bool, precision: Precision, device: str) -> tuple[Sequence[ScorePrior], str]:
    """One prior for all sources of a task, or one per source, and the digest of their weights, empty where they are known in closed form.

    Raises:
        DataError: see ``prior_support``.
        UnsupportedTaskError: no prior ships for the task.
    """
    if weights:
        return user_prior.load(weights, task, precision, device), digests(weights)
    if task.analytic_prior:
        return [view.prior(slot) for slot in range(task.n_sources)], ""
    entries = [find_weights(task, k, per_class) for k in (range(task.n_sources) if per_class else range(1))]
    found = [entry for entry in entries if entry is not None]
    if len(found) < len(entries):
        raise UnsupportedTaskError(f"no prior ships for task {task.suite}/{task.name}; train one with `sepbench train`")
    return [load_shipped(entry, task, precision, device) for entry in found], ",".join(entry.sha256 for entry in found)


def load_shipped(entry: ShippedWeights, task: TaskSpec, precision: Precision, device: str) -> ScorePrior:
    """A prior that ships, at the shape of a task that ``find_weights`` found it for.

    Raises:
        DataError: its file is missing or damaged.
    """
    return padded(load_prior(entry.path, entry.sha256, precision, device), entry.shape, task.source_shape)


def run_by(priors: Sequence[ScorePrior], engine: EngineKind) -> list[ScorePrior]:
    """The priors with their networks run by an engine; those without a network of ours as they are."""
    return [_run_by(prior, engine) for prior in priors]


def _run_by(prior: ScorePrior, engine: EngineKind) -> ScorePrior:
    if isinstance(prior, PaddedPrior):
        return replace(prior, inner=_run_by(prior.inner, engine))
    return prior.with_engine(engine) if isinstance(prior, EDMPrior) else prior


def prior_label(priors: Sequence[ScorePrior], weights_sha256: str) -> str:
    """``EDM U-Net, 2.1 M, 770f3f6b``; class-wise priors of one kind: ``EDM U-Net, 2.1 M, 74acb72f + 3840ba05``; ``exact`` where the density is known.

    Args:
        priors: one for all sources, or one per source.
        weights_sha256: digests of their weights with commas between; empty where there are none.
    """
    digests = [digest[:_DIGITS] for digest in weights_sha256.split(",") if digest]
    kinds = list(dict.fromkeys(_kind(prior) for prior in priors))
    return ", ".join([" + ".join(kinds), *([" + ".join(dict.fromkeys(digests))] if digests else [])])


def _kind(prior: ScorePrior) -> str:
    """Kind and size."""
    if isinstance(prior, PaddedPrior):
        return _kind(prior.inner)
    if isinstance(prior, EDMPrior):
        return f"EDM U-Net, {_size(prior.denoiser.network)}"
    if isinstance(prior, NCSNPrior):
        return f"NCSN RefineNet, {_size(prior.network)}"
    return prior.name if isinstance(prior, user_prior.UserPrior) else "exact"


def _size(network: nn.Module) -> str:
    """``2.1 M``, ``118 k``."""
    count = sum(parameter.numel() for parameter in network.parameters())
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"
