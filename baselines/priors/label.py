"""What a prior is, in one line for the results: kind of network, number of parameters, first digits of its weights' SHA-256."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from baselines.priors.score_prior import EDMPrior, NCSNPrior
from baselines.priors.user_prior import UserPrior
from sepbench.protocols import ScorePrior

_DIGITS = 8


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
    if isinstance(prior, EDMPrior):
        return f"EDM U-Net, {_size(prior.denoiser.network)}"
    if isinstance(prior, NCSNPrior):
        return f"NCSN RefineNet, {_size(prior.network)}"
    return prior.name if isinstance(prior, UserPrior) else "exact"


def _size(network: nn.Module) -> str:
    """``2.1 M``, ``118 k``."""
    count = sum(parameter.numel() for parameter in network.parameters())
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"
