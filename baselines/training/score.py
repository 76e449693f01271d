"""The recipe of ``sepbench train score``: a denoiser over a continuous range of noise levels.

It learns from a data set's training split without the held-out tail of the suites. In Python, ``train_score`` and
``export`` do the same for any array of images, layout and settings.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from baselines.networks.ncsn_refinenet import ncsn_sigmas
from baselines.networks.unet import ScoreUNet, UNetConfig
from baselines.priors.edm import EDMDenoiser
from baselines.priors.score_prior import EDMPrior
from baselines.priors.weights_io import images_sha256, load_prior, save_prior
from baselines.training.config import TrainConfig, derived_seed
from baselines.training.edm_loss import loss_per_level
from baselines.training.loop import CHECKPOINT, Progress
from baselines.training.samples import draw_samples, sample_report, write_sheet
from baselines.training.trainer import ScoreTraining
from sepbench.errors import SepbenchError
from sepbench.memory import scaled
from sepbench.noise import NoiseSource
from sepbench.protocols import SignalSet
from sepbench.trainers import Trainer

_CARD_IMAGES = 512
_CARD_SAMPLES = 64
GPU_BATCH = 1024
COMPILE = "SEPBENCH_TRAIN"
"""Environment variable. ``compile`` trains the network under ``torch.compile``, on a GPU."""


@dataclass(frozen=True, slots=True)
class ScoreRecipe:
    """Layout and settings for a kind of data, and how many images at the end of the split are held out."""

    layout: UNetConfig
    config: TrainConfig
    held_out: int


RECIPES: Mapping[str, ScoreRecipe] = {
    # About 0.25 s of two cores per step: 2.1 M parameters, most of them at 7x7.
    # Most of the batch has levels of 0.1 to 1.5. They decide which digit a sample becomes, and there the loss falls
    # for longest.
    "mnist": ScoreRecipe(UNetConfig(channels=1, widths=(32, 64, 128)), TrainConfig(steps=16_000, focus_range=(0.1, 1.5), decay_fraction=0.6), held_out=5_000),
    # Under a minute: 8x8 images are 2x2 at the quarter resolution. Most of a step is overhead that a larger batch does
    # not raise.
    "digits": ScoreRecipe(
        UNetConfig(channels=1, widths=(16, 32, 32), blocks=(1, 1, 1), heads=2, embedding=32),
        TrainConfig(steps=600, batch=128, warmup=50, focus_range=(0.1, 1.5)),
        held_out=200,
    ),
    # A mirrored photograph is as likely as the photograph, so mirroring doubles the data (a mirrored digit is no
    # digit).
    "cifar10": ScoreRecipe(UNetConfig(channels=3, widths=(48, 96, 160)), TrainConfig(steps=60_000, mirror=True), held_out=5_000),
    # 4,585 images: the small network sees each of them more often, and this gains more than more weights would.
    "cifar10-mini": ScoreRecipe(UNetConfig(channels=3, widths=(32, 64, 128)), TrainConfig(steps=20_000, decay_fraction=0.4, mirror=True), held_out=500),
}


def recipe_for(name: str, shape: tuple[int, ...]) -> ScoreRecipe:
    """The data set's own recipe, or the recipe of the most similar data set: 8x8, grey or colour.

    Args:
        name: of the data set.
        shape: of one signal.

    Raises:
        SepbenchError: the signals are not images ``(C, H, W)`` with H and W multiples of 4.
    """
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4:
        raise SepbenchError(f"data set {name!r} holds signals of shape {shape}; the network takes images whose height and width are multiples of 4")
    if name in RECIPES:
        return RECIPES[name]
    like = RECIPES["digits" if max(shape[1:]) <= 16 else "cifar10" if shape[0] > 1 else "mnist"]
    return replace(like, layout=replace(like.layout, channels=shape[0]))


@dataclass(frozen=True, slots=True)
class Material:
    """What a recipe trains on.

    Attributes:
        recipe: layout and settings.
        images: ``(N, C, H, W)`` to train on.
        held_out: images of the same kind to validate with.
        name: what the images are and which of them are used, for the card.
    """

    recipe: ScoreRecipe
    images: torch.Tensor
    held_out: torch.Tensor
    name: str


def material(signals: SignalSet, labels: tuple[int, ...]) -> Material:
    """Split a training split into images to train on and held-out images.

    The recipe says how many of the last images are held out, as in the suites. ``labels`` chooses classes in both
    parts; empty: all.

    Raises:
        SepbenchError: the network cannot take the images, there are too few, or the labels leave nothing.
    """
    recipe = recipe_for(signals.name, signals.shape)
    count = len(signals) - recipe.held_out
    if count <= 0:
        raise SepbenchError(f"data set {signals.name!r} has {len(signals)} training images, of which {recipe.held_out} would be held out; it takes more")
    parts = [torch.arange(count), torch.arange(count, len(signals))]
    if labels:
        parts = [rows[torch.isin(signals.labels[rows], torch.tensor(labels))] for rows in parts]
    if min(len(rows) for rows in parts) == 0:
        raise SepbenchError(f"data set {signals.name!r} has no training images of classes {', '.join(map(str, labels))}; see its labels")
    images, held_out = (signals.load(rows) for rows in parts)
    which = f"train 0..{count - 1}" + (f", classes {', '.join(map(str, labels))}" if labels else "")
    return Material(recipe, images, held_out, f"{signals.name} {which}")


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
    """Train on a training split, or resume, and write weights and card. Returns the path of the weights.

    See ``sepbench.trainers.Trainer``.

    Raises:
        SepbenchError: the network cannot take the images, the labels leave nothing, ``init`` is no U-Net, or a place
            cannot be written.
    """
    data = material(signals, labels)
    check_writable(out, "--out")
    batch = batch_on(device, data.recipe.config)
    config = replace(data.recipe.config, seed=seed, steps=steps or data.recipe.config.steps, batch=batch)
    start = None if init is None else load_start(init, signals.shape)
    layout = data.recipe.layout if start is None else network_of(start).config
    training = train_score(data.images, data.held_out, layout, config, folder, deadline_minutes=minutes, init=start, device=device, progress=progress)
    return export(training, out, data.name, command)


if TYPE_CHECKING:
    _: Trainer = train


def batch_on(device: str, config: TrainConfig) -> int:
    """Images per step: the recipe's number on the CPU, and 1,024 on a GPU, which the recipe's number would leave idle.

    It is less if the GPU's memory is small, but never less than the recipe's number.
    """
    return config.batch if torch.device(device).type == "cpu" else max(config.batch, scaled(GPU_BATCH, device))


def load_start(path: Path, shape: tuple[int, ...]) -> EDMPrior:
    """The weights to start from. Training keeps their network, whatever the recipe's layout is.

    Raises:
        SepbenchError: the file is no U-Net, is for images with other channels, or cannot be read.
    """
    prior = load_prior(path)
    if not isinstance(prior, EDMPrior):
        raise SepbenchError(f"{path} holds no edm-unet; only such a prior can be trained on")
    channels = network_of(prior).config.channels
    if channels != shape[0]:
        raise SepbenchError(f"{path} is a prior of images with {channels} channels, these have {shape[0]}; start from another")
    return prior


def network_of(prior: EDMPrior) -> ScoreUNet:
    """The prior's U-Net. ``load_prior`` makes no other network for a prior of this kind.

    Raises:
        TypeError: the prior was made with another network.
    """
    network = prior.denoiser.network
    if not isinstance(network, ScoreUNet):
        raise TypeError(f"prior {prior.name!r} has a {type(network).__name__} and no ScoreUNet")
    return network


def build_model(layout: UNetConfig, images: torch.Tensor, seed: int, init: EDMPrior | None = None) -> EDMDenoiser:
    """A fresh denoiser for ``images``, or one with the weights and scale of ``init``.

    The second can fine-tune to a class, for example.

    Args:
        layout: of the network.
        images: ``(N, C, H, W)`` uint8, or float32 in [0, 1]. Their mean and standard deviation are the scale of a
            fresh one.
        seed: of fresh weights.
        init: weights to start from.

    Raises:
        SepbenchError: ``init`` has another layout.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, "weights"))
        network = ScoreUNet(layout)
    if init is not None:
        try:
            network.load_state_dict(init.denoiser.network.state_dict())
        except RuntimeError:
            have, need = (sum(p.numel() for p in net.parameters()) for net in (init.denoiser.network, network))
            raise SepbenchError(
                f"the weights to start from ({init.name}, {have:,} parameters) are of another layout than this data set's recipe ({need:,} parameters); "
                "start from weights of the same recipe, or from none"
            ) from None
        return EDMDenoiser(network, init.denoiser.sigma_data, init.denoiser.mean)
    pixels = images.to(torch.float64) / (255.0 if images.dtype == torch.uint8 else 1.0)
    return EDMDenoiser(network, sigma_data=float(pixels.std()), mean=float(pixels.mean()))


def check_writable(path: Path, option: str) -> None:
    """Make the folder of a file that training will write, and try to write there.

    After hours of training it is too late.

    Raises:
        SepbenchError: the file cannot be written, or its card or sheet of samples would replace it.
    """
    if path.suffix in (".json", ".png"):
        raise SepbenchError(f"{option} {path}: the card and a picture take .json and .png beside the weights; name the weights NAME.safetensors")
    probe = f"{path.name}.{os.getpid()}.tmp"  # a unique name: another run may write in the same folder
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / probe).touch()
        (path.parent / probe).unlink()
    except OSError as error:
        reason = f"{path.parent} is no folder" if isinstance(error, FileExistsError) else error.strerror or error
        raise SepbenchError(f"cannot write {path}: {reason}; choose another place with {option}") from error


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of the weights alone, and not of their file: the file may be renamed or written anew."""
    tensors = network.state_dict()
    return hashlib.sha256("".join(f"{name} {images_sha256(value)}\n" for name, value in tensors.items()).encode()).hexdigest()


def train_score(
    images: torch.Tensor,
    held_out: torch.Tensor,
    layout: UNetConfig,
    config: TrainConfig,
    folder: Path,
    *,
    deadline_minutes: float | None = None,
    init: EDMPrior | None = None,
    device: str = "cpu",
    export_only: bool = False,
    progress: Progress = lambda fraction, text: None,
) -> ScoreTraining:
    """Train to the end, or resume the run in ``folder``.

    Args:
        images: ``(N, C, H, W)`` uint8, or float32 in [0, 1]; H and W multiples of 4.
        held_out: images of the same kind that validate and are never trained on.
        layout, config: network and settings.
        folder: log and checkpoints.
        deadline_minutes: training time to end after. The schedule then depends on the clock, and the first step of the
            decay is recorded.
        init: weights to start from.
        device: ``cpu`` or ``cuda``.
        export_only: take the run from its last checkpoint, without another step (another process may be training it).
        progress: called with a fraction and a line of text now and then.

    Raises:
        SepbenchError: the folder cannot be written, has a run of another request, or has no checkpoint to export.
        ValueError: the images do not have that shape.
    """
    if images.ndim != 4 or images.shape[1] != layout.channels or any(n % 4 for n in images.shape[2:]):
        raise ValueError(f"images must be (N, {layout.channels}, H, W) with H and W multiples of 4, got {tuple(images.shape)}")
    model = build_model(layout, images, config.seed, init).to(device)
    if not export_only:
        check_writable(folder / CHECKPOINT, "--folder")
    started_from = None if init is None else weights_digest(init.denoiser.network)
    compiled = os.environ.get(COMPILE) == "compile" and torch.device(device).type == "cuda"
    training = ScoreTraining(model, images, held_out, config, folder, started_from, compiled=compiled)
    if not export_only:
        training.run(deadline_minutes=deadline_minutes, progress=progress)
    elif training.step == 0:
        raise SepbenchError(f"{folder} holds no checkpoint to export; train first")
    return training


def hardware() -> dict[str, Any]:
    """The hardware of this machine, beside the run's time on a card."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
    }


def export(training: ScoreTraining, path: Path, data_name: str, command: str, notes: str = "") -> Path:
    """Write the averaged weights of a run and their card. Returns the path of the weights.

    Args:
        training: a finished run, or an unfinished one: the card says how many steps it made.
        path: ``.../NAME.safetensors``.
        data_name: what the images are and which of them were used.
        command: the command that made the run.
        notes: anything else that a reader must know.
    """
    model = training.averaged()
    prior = EDMPrior(model, tuple(training.images.shape[1:]), training.config.sigma_range)
    held_out = training.held_out[:_CARD_IMAGES]
    levels = ncsn_sigmas()
    losses, psnrs = loss_per_level(model, held_out, levels, model.sigma_data)
    facts: dict[str, Any] = {
        "data": {"name": data_name, "images": len(training.images), "sha256": images_sha256(training.images), "held_out": len(held_out)},
        "training": {
            "steps": training.step,
            "images_seen": training.step * training.config.batch,
            "decay_start": training.decay_start,
            "minutes": round(training.seconds / 60, 1),
            "seed": training.config.seed,
            "config": asdict(training.config),
            "asked": dict(training.asked),
            "command": command,
            "hardware": hardware(),
            "packages": {"torch": torch.__version__, "python": platform.python_version()},
        },
        "held_out_loss": {f"{s:.5f}": round(v, 5) for s, v in zip(levels.tolist(), losses, strict=True)},
        "held_out_denoising_psnr_db": {f"{s:.5f}": round(v, 3) for s, v in zip(levels.tolist(), psnrs, strict=True)},
        "sample_check": _sample_check(prior, training, path),
        "notes": notes,
    }
    return save_prior(path, prior, facts)


def _sample_check(prior: EDMPrior, training: ScoreTraining, path: Path) -> dict[str, float | int]:
    """Draw unconditional samples, and check whether they are copies of training images.

    If Pillow is installed, a sheet of them is written beside the weights.
    """
    denoiser = prior.denoiser
    samples = draw_samples(
        prior,
        _CARD_SAMPLES,
        NoiseSource(training.config.seed),
        sigma_range=(0.01, prior.sigma_range[1]),
        start=(denoiser.mean, denoiser.sigma_data),
        device=str(training.device),
    ).cpu()
    if importlib.util.find_spec("PIL") is not None:
        write_sheet(samples, path.with_suffix(".png"))
    return sample_report(samples.clamp(0, 1), training.images, training.held_out)
