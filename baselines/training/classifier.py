"""The recipe of ``sepbench train classifier``: a small classifier.

Its features give distances between sets of images (``baselines/extractors``). The loss is cross entropy with smoothed
labels (Szegedy et al. 2016). The optimisers are Muon and AdamW with linear warm-up and linear decay to zero, as in
Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024). Images are shifted by up to two pixels. Photographs
are mirrored in every other epoch, so the network sees each image both ways in turn. The last tenth of the training
split, at most 5,000 images, is held out. The card states the accuracy on it.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from baselines.extractors.classifier_io import load_classifier, save_classifier
from baselines.networks.classifier import ClassifierConfig, SmallClassifier
from baselines.priors.weights_io import images_sha256
from baselines.training import loop
from baselines.training.config import TrainConfig, batch_indices, derived_seed, generator, rate_share
from baselines.training.edm_loss import as_float
from baselines.training.loop import CHECKPOINT
from baselines.training.optimiser import Optimiser
from baselines.training.score import check_writable, hardware
from sepbench.errors import SepbenchError
from sepbench.precision import training_autocast
from sepbench.protocols import SignalSet
from sepbench.trainers import Trainer

_WHITENING_IMAGES = 5_000
_HELD_OUT = 5_000
_ACCURACY_BATCH = 250
_SMALLEST_SIDE = 18


@dataclass(frozen=True, slots=True)
class ClassifierRecipe:
    """Everything that the result depends on besides the data.

    Attributes:
        widths: channels of the network's blocks.
        epochs: passes over the training images.
        batch: images per step.
        mirror: exchange left and right of half of the images in even epochs, and of the other half in odd epochs.
        shift: the largest shift, in pixels. The mirrored border fills the gap.
        smoothing: share of a label's weight that is spread over all classes.
        lr, matrix_lr: peak rates of AdamW and Muon.
        warmup: share of the steps spent in linear warm-up. The rest is linear decay.
        seed: of weights, order and shifts.
    """

    widths: tuple[int, int, int] = (64, 256, 256)
    epochs: int = 10
    batch: int = 256
    mirror: bool = False
    shift: int = 2
    smoothing: float = 0.2
    lr: float = 4e-3
    matrix_lr: float = 5e-3
    warmup: float = 0.15
    seed: int = 0

    def optimiser(self, steps: int) -> TrainConfig:
        """The settings of the optimiser and of the rates for a run of ``steps`` steps.

        Decay begins at the end of warm-up.
        """
        warmup = max(1, round(self.warmup * steps))
        return TrainConfig(steps=steps, batch=self.batch, workers=1, lr=self.lr, matrix_lr=self.matrix_lr, warmup=warmup, seed=self.seed)


RECIPES: Mapping[str, ClassifierRecipe] = {
    "mnist": ClassifierRecipe(widths=(32, 64, 128), epochs=8, smoothing=0.1),
    "cifar10": ClassifierRecipe(mirror=True),
}


def recipe_for(name: str, shape: tuple[int, ...]) -> ClassifierRecipe:
    """The data set's own recipe, or the recipe of the most similar data set: grey or colour.

    Args:
        name: of the data set.
        shape: of one signal, ``(C, H, W)``.

    Raises:
        SepbenchError: the signals are not images of at least 18 x 18.
    """
    if len(shape) != 3 or min(shape[1:]) < _SMALLEST_SIDE:
        raise SepbenchError(f"data set {name!r} holds signals of shape {shape}; the classifier takes images of at least {_SMALLEST_SIDE} x {_SMALLEST_SIDE}")
    return RECIPES.get(name, RECIPES["cifar10" if shape[0] > 1 else "mnist"])


class ClassifierTraining:
    """A run in a folder, for ``baselines.training.loop``.

    Args:
        images: ``(N, C, H, W)`` uint8, or float32 in [0, 1].
        labels: ``(N,)`` int64 classes 0 to ``classes - 1``.
        recipe: settings. They must equal those of a checkpoint in the folder.
        folder: checkpoints and log.
        steps: length of the run; None: the recipe's epochs.
        device: where to train.

    Raises:
        SepbenchError: the folder has a checkpoint of another run.
    """

    def __init__(
        self, images: torch.Tensor, labels: torch.Tensor, recipe: ClassifierRecipe, folder: Path, *, steps: int | None = None, device: str = "cpu"
    ) -> None:
        self.images, self.labels, self.recipe, self.folder, self.device = images, labels, recipe, folder, torch.device(device)
        self.steps = steps or math.ceil(recipe.epochs * len(images) / recipe.batch)
        self.config = recipe.optimiser(self.steps)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(recipe.seed, "weights"))
            self.network = SmallClassifier(ClassifierConfig(images.shape[1], recipe.widths, int(labels.max()) + 1))
        self.network.whiten_by(as_float(images[:_WHITENING_IMAGES]))
        self.network.to(self.device)
        self.optimiser = Optimiser(self.network, self.config, outer=("whiten", "head"))
        self.origin = {"images": images_sha256(images), "labels": images_sha256(labels), "steps": self.steps, **asdict(recipe)}
        self.step = 0
        self.seconds = 0.0
        self._window: list[tuple[float, float]] = []
        folder.mkdir(parents=True, exist_ok=True)
        loop.resume(self, folder, self.device)

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        recipe, n = self.recipe, len(self.images)
        rows = batch_indices(recipe.seed, self.step, recipe.batch, n)
        random = generator(recipe.seed, "step", self.step)
        images = as_float(self.images[rows])
        if recipe.mirror:
            epoch = (self.step * recipe.batch + torch.arange(len(rows))) // n
            images = torch.where(((rows + epoch) % 2 == 1)[:, None, None, None], images.flip(-1), images)
        return shifted(images, recipe.shift, random).to(self.device), self.labels[rows].to(self.device)

    def advance(self) -> None:
        """Make one update of the weights.

        Raises:
            SepbenchError: the loss is not finite.
        """
        images, labels = self._batch()
        self.network.train()
        self.network.zero_grad(set_to_none=True)
        with training_autocast(self.device, bfloat16=True):
            logits = self.network(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.smoothing)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SepbenchError(f"training diverged at step {self.step}: the loss is not finite; lower the learning rates and start again")
        loss.backward()
        decay_start = self.config.warmup
        self.optimiser.step(rate_share(self.config, self.step, decay_start, self.steps - decay_start))
        self.step += 1
        self._window.append((value, float((logits.detach().argmax(1) == labels).double().mean())))

    def row(self) -> Mapping[str, Any]:
        """Mean loss and mean accuracy in [0, 1] since the last row."""
        losses, right = zip(*self._window, strict=True)
        self._window = []
        return {"loss": round(sum(losses) / len(losses), 4), "accuracy": round(sum(right) / len(right), 4)}

    def state(self) -> Mapping[str, Any]:
        """See ``baselines.training.loop.Training``."""
        return {"origin": self.origin, "network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "window": list(self._window)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            SepbenchError: it belongs to another run.
        """
        found, wanted = (json.loads(json.dumps(origin)) for origin in (state["origin"], self.origin))
        changed = sorted(key for key in wanted if found.get(key) != wanted[key])
        if changed:
            raise SepbenchError(f"{self.folder / CHECKPOINT} is of another run ({', '.join(changed)}); ask for the same, or give another --folder")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._window = [(loss, right) for loss, right in state["window"]]


def shifted(images: torch.Tensor, most: int, random: torch.Generator) -> torch.Tensor:
    """Images ``(B, C, H, W)``, each shifted by up to ``most`` pixels in both directions.

    The mirrored border fills the gap.
    """
    count, channels, height, width = images.shape
    padded = F.pad(images, (most,) * 4, mode="reflect")
    down, right = torch.randint(0, 2 * most + 1, (2, count), generator=random)
    rows = (down[:, None] + torch.arange(height))[:, None, :, None].expand(-1, channels, -1, padded.shape[-1])
    columns = (right[:, None] + torch.arange(width))[:, None, None, :].expand(-1, channels, height, -1)
    return padded.gather(2, rows).gather(3, columns)


def accuracy(network: SmallClassifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share, in [0, 1], of images ``(N, C, H, W)`` whose most likely class is their label ``(N,)``."""
    with torch.no_grad():
        parts = [network(as_float(part)).argmax(1) for part in images.split(_ACCURACY_BATCH)]
    return float((torch.cat(parts) == labels).double().mean())


def train(
    signals: SignalSet,
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
    progress: Callable[[float, str], None],
) -> Path:
    """Train on a training split, or resume, and write weights and card. See ``sepbench.trainers.Trainer``.

    Raises:
        SepbenchError: the data does not fit, an option has no meaning here, or a place cannot be written.
    """
    for option, given in (("--labels", labels), ("--minutes", minutes), ("--init", init)):
        if given:
            raise SepbenchError(f"a classifier is trained on all classes, from fresh weights, for a number of steps; leave out {option}")
    recipe = replace(recipe_for(signals.name, signals.shape), seed=seed)
    check_writable(out, "--out")
    check_writable(folder / CHECKPOINT, "--folder")
    count = len(signals) - min(_HELD_OUT, len(signals) // 10)
    used, held_out = torch.arange(count), torch.arange(count, len(signals))
    training = ClassifierTraining(signals.load(used), signals.labels[used], recipe, folder, steps=steps, device=device)
    loop.run(training, folder, progress=progress)
    return export(training, (signals.load(held_out), signals.labels[held_out]), out, signals.name, command)


if TYPE_CHECKING:
    _: Trainer = train


def export(training: ClassifierTraining, held_out: tuple[torch.Tensor, torch.Tensor], path: Path, data_name: str, command: str) -> Path:
    """Write the weights and their card, and return the path.

    The accuracy is that of the stored weights, on images and labels that no step saw.

    Args:
        training: a finished run. Its network moves to the CPU.
        held_out: images ``(M, C, H, W)`` and labels ``(M,)``.
        path: of the weights.
        data_name: of the data set, for the card.
        command: the command of the run, for the card.
    """
    images, count = training.images, len(training.images)
    facts: dict[str, Any] = {
        "data": {"name": f"{data_name} train 0..{count - 1}", "images": count, "sha256": images_sha256(images)},
        "training": {
            "steps": training.step,
            "minutes": round(training.seconds / 60, 1),
            "recipe": asdict(training.recipe),
            "command": command,
            "hardware": hardware(),
            "packages": {"torch": torch.__version__, "python": platform.python_version()},
        },
        "accuracy": {},
    }
    shape = (images.shape[1], images.shape[2], images.shape[3])
    network = training.network.cpu().eval()
    save_classifier(path, network, shape, facts)
    found = accuracy(load_classifier(path), *held_out)
    which = f"{data_name} train {count}..{count + len(held_out[0]) - 1}"
    return save_classifier(path, network, shape, facts | {"accuracy": {"images": which, "value": round(found, 4)}})
