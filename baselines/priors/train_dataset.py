"""The trainer behind ``sepbench train score``: a recipe for the data set, its training split less the suites' held-out tail, weights and card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from baselines.priors.score_prior import ScorePrior
from baselines.priors.weights_io import load_prior
from baselines.training.score import RECIPES, Recipe, check_writable, export, train_score
from baselines.training.trainer import Progress
from sepbench.errors import SepbenchError


class Signals(Protocol):
    """The part of ``sepbench.data.signals.SignalSet`` that training needs."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def labels(self) -> torch.Tensor: ...

    def __len__(self) -> int: ...

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor: ...


def recipe_for(name: str, shape: tuple[int, ...]) -> Recipe:
    """The data set's own recipe, or that of the data set most like it: 8x8, grey or colour.

    Raises:
        SepbenchError: the network needs images ``(C, H, W)`` with H and W multiples of 4.
    """
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4:
        raise SepbenchError(f"data set {name!r} holds signals of shape {shape}; the network takes images whose height and width are multiples of 4")
    if name in RECIPES:
        return RECIPES[name]
    like = RECIPES["digits" if max(shape[1:]) <= 16 else "cifar10" if shape[0] > 1 else "mnist"]
    return replace(like, layout=replace(like.layout, channels=shape[0]))


def train_dataset(
    signals: Signals,
    *,
    labels: tuple[int, ...],
    folder: Path,
    out: Path,
    steps: int | None,
    minutes: float | None,
    init: Path | None,
    seed: int,
    device: str,
    command: str,
    progress: Progress,
) -> Path:
    """Train on a training split, or resume, and write weights and card; returns the weights' path.

    The recipe's last so many images are held out for validation, as the suites do; ``labels`` chooses classes among both parts.

    Raises:
        SepbenchError: images that the network cannot take, labels that leave nothing, weights that are no U-Net,
            or a place that cannot be written.
    """
    recipe = recipe_for(signals.name, signals.shape)
    if len(signals) <= recipe.held_out:
        raise SepbenchError(f"data set {signals.name!r} has {len(signals)} training images, of which {recipe.held_out} would be held out; it takes more")
    parts = [torch.arange(len(signals) - recipe.held_out), torch.arange(len(signals) - recipe.held_out, len(signals))]
    if labels:
        parts = [rows[torch.isin(signals.labels[rows], torch.tensor(labels))] for rows in parts]
    if min(len(rows) for rows in parts) == 0:
        raise SepbenchError(f"data set {signals.name!r} has no training images of classes {', '.join(map(str, labels))}; see its labels")
    check_writable(out, "--out")
    start = None
    if init is not None:
        loaded = load_prior(init)
        if not isinstance(loaded, ScorePrior):
            raise SepbenchError(f"{init} holds no edm-unet; only such a prior can be trained on")
        start = loaded
    config = replace(recipe.config, seed=seed, steps=steps or recipe.config.steps)
    images, held_out = (signals.load(rows) for rows in parts)
    trainer = train_score(images, held_out, recipe.layout, config, folder, deadline_minutes=minutes, init=start, device=device, progress=progress)
    which = f"train 0..{len(signals) - recipe.held_out - 1}" + (f", classes {', '.join(map(str, labels))}" if labels else "")
    return export(trainer, out, f"{signals.name} {which}", command)
