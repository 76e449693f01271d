"""Train a score prior on an array of images and write it: ``OMP_NUM_THREADS=1 python -m baselines.training.score --help``."""

from __future__ import annotations

import argparse
import errno
import hashlib
import importlib.util
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.networks.ncsn_refinenet import ncsn_sigmas
from baselines.networks.unet import ScoreUNet, UNetConfig
from baselines.priors.edm import EDMDenoiser
from baselines.priors.score_prior import ScorePrior
from baselines.priors.weights_io import images_sha256, load_prior, save_prior
from baselines.training.config import TrainConfig, derived_seed
from baselines.training.denoising_loss import loss_per_level
from baselines.training.samples import draw_samples, sample_report, write_sheet
from baselines.training.trainer import CHECKPOINT, Progress, Trainer
from sepbench.errors import SepbenchError
from sepbench.noise import NoiseSource

_CARD_IMAGES = 512
_CARD_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """Layout and settings for a kind of data."""

    layout: UNetConfig
    config: TrainConfig
    held_out: int


RECIPES: Mapping[str, Recipe] = {
    # about 0.25 s of two cores per step: 2.1 M parameters, most of them at 7x7
    # levels of 0.1 to 1.5 get most of the batch: there it is decided which digit a sample becomes, and there the loss falls for longest
    "mnist": Recipe(UNetConfig(channels=1, widths=(32, 64, 128)), TrainConfig(steps=16_000, focus_range=(0.1, 1.5), decay_fraction=0.6), held_out=5_000),
    # under a minute: 8x8 images are 2x2 at the quarter resolution, and most of a step is overhead that a larger batch does not raise
    "digits": Recipe(
        UNetConfig(channels=1, widths=(16, 32, 32), blocks=(1, 1, 1), heads=2, embedding=32),
        TrainConfig(steps=600, batch=128, warmup=50, focus_range=(0.1, 1.5)),
        held_out=200,
    ),
    # a mirrored photograph is as likely as the photograph, which doubles the data (a mirrored digit is no digit)
    "cifar10": Recipe(UNetConfig(channels=3, widths=(48, 96, 160)), TrainConfig(steps=60_000, mirror=True), held_out=5_000),
    # 4,585 images: the small network sees each of them more often than it gains from more weights
    "cifar10-mini": Recipe(UNetConfig(channels=3, widths=(32, 64, 128)), TrainConfig(steps=20_000, decay_fraction=0.4, mirror=True), held_out=500),
}


def build_model(layout: UNetConfig, images: torch.Tensor, seed: int, init: ScorePrior | None = None) -> EDMDenoiser:
    """A fresh denoiser for ``images``, or one that starts from the weights and scale of ``init`` (fine-tuning to a class, say)."""
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
    """Make the folder of a file that training will write, and try to write there: hours later is too late to learn that it cannot be.

    Raises:
        SepbenchError: it cannot be written, or its card or sheet of samples would replace it.
    """
    if path.suffix in (".json", ".png"):
        raise SepbenchError(f"{option} {path}: the card and a picture take .json and .png beside the weights; name the weights NAME.safetensors")
    probe = f"{path.name}.{os.getpid()}.tmp"  # a name of its own: a run under way may be writing in the same folder
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / probe).touch()
        (path.parent / probe).unlink()
    except OSError as error:
        reason = f"{path.parent} is no folder" if isinstance(error, FileExistsError) else error.strerror or error
        raise SepbenchError(f"cannot write {path}: {reason}; choose another place with {option}") from error


def _digest(prior: ScorePrior) -> str:
    """Of the weights alone: not of their file, which may be renamed or written anew."""
    tensors = prior.denoiser.network.state_dict()
    return hashlib.sha256("".join(f"{name} {images_sha256(value)}\n" for name, value in tensors.items()).encode()).hexdigest()


def train_score(
    images: torch.Tensor,
    held_out: torch.Tensor,
    layout: UNetConfig,
    config: TrainConfig,
    folder: Path,
    *,
    deadline_minutes: float | None = None,
    init: ScorePrior | None = None,
    device: str = "cpu",
    export_only: bool = False,
    progress: Progress = lambda fraction, text: None,
) -> Trainer:
    """Train to the end, or resume the run in ``folder``.

    Args:
        images: ``(N, C, H, W)`` uint8, or float32 in [0, 1]; H and W multiples of 4.
        held_out: images of the same kind that validate and are never trained on.
        layout, config: network and settings.
        folder: log and checkpoints.
        deadline_minutes: training time to end after; the schedule then depends on the clock (its decay's first step is recorded).
        init: weights to start from.
        device: ``cpu`` or ``cuda``.
        export_only: take the run as it stands in its last checkpoint, without another step (another process may be training it).
        progress: told a fraction and a line of text now and then.

    Raises:
        SepbenchError: the folder cannot be written, or holds a run that another request led to.
    """
    if images.ndim != 4 or images.shape[1] != layout.channels or any(n % 4 for n in images.shape[2:]):
        raise ValueError(f"images must be (N, {layout.channels}, H, W) with H and W multiples of 4, got {tuple(images.shape)}")
    model = build_model(layout, images, config.seed, init).to(device)
    if not export_only:
        check_writable(folder / CHECKPOINT, "--folder")
    trainer = Trainer(model, images, held_out, config, folder, init=None if init is None else _digest(init))
    if not export_only:
        trainer.run(deadline_minutes=deadline_minutes, progress=progress)
    elif trainer.step == 0:
        raise SepbenchError(f"{folder} holds no checkpoint to export; train first")
    return trainer


def hardware() -> dict[str, Any]:
    """What the run's time was measured on."""
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


def export(trainer: Trainer, path: Path, data_name: str, command: str, notes: str = "") -> Path:
    """Write the averaged weights of a run and their card.

    Args:
        trainer: a finished run (or one under way: the card says how many steps it made).
        path: ``.../NAME.safetensors``.
        data_name: what the images are and which of them were used.
        command: the command that made the run.
        notes: anything a reader must know besides.
    """
    model = trainer.averaged().cpu()
    prior = ScorePrior(model, tuple(trainer.images.shape[1:]), trainer.config.sigma_range)
    held_out = trainer.held_out[:_CARD_IMAGES]
    levels = ncsn_sigmas()
    losses, psnrs = loss_per_level(model, held_out, levels, model.sigma_data)
    facts: dict[str, Any] = {
        "data": {"name": data_name, "images": len(trainer.images), "sha256": images_sha256(trainer.images), "held_out": len(held_out)},
        "training": {
            "steps": trainer.step,
            "images_seen": trainer.step * trainer.config.batch,
            "decay_start": trainer.decay_start,
            "minutes": round(trainer.seconds / 60, 1),
            "seed": trainer.config.seed,
            "config": asdict(trainer.config),
            "asked": dict(trainer.asked),
            "command": command,
            "hardware": hardware(),
            "packages": {"torch": torch.__version__, "python": platform.python_version()},
        },
        "held_out_loss": {f"{s:.5f}": round(v, 5) for s, v in zip(levels.tolist(), losses, strict=True)},
        "held_out_denoising_psnr_db": {f"{s:.5f}": round(v, 3) for s, v in zip(levels.tolist(), psnrs, strict=True)},
        "sample_check": _sample_check(prior, trainer, path),
        "notes": notes,
    }
    return save_prior(path, prior, facts)


def _sample_check(prior: ScorePrior, trainer: Trainer, path: Path) -> dict[str, float | int]:
    """Unconditional samples: a sheet to look at beside the weights (where Pillow is there), and whether they are copies."""
    denoiser = prior.denoiser
    samples = draw_samples(
        prior, _CARD_SAMPLES, NoiseSource(trainer.config.seed), sigma_range=(0.01, prior.sigma_range[1]), start=(denoiser.mean, denoiser.sigma_data)
    )
    if importlib.util.find_spec("PIL") is not None:
        write_sheet(samples, path.with_suffix(".png"))
    return sample_report(samples.clamp(0, 1), trainer.images, trainer.held_out)


def _init(path: Path) -> ScorePrior:
    prior = load_prior(path)
    if not isinstance(prior, ScorePrior):
        raise SepbenchError(f"{path} holds no edm-unet; only such a prior can be trained on")
    return prior


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="mnist")
    parser.add_argument("--images", type=Path, required=True, help=".npy of (N, C, H, W), uint8 or float32 in [0, 1]; the last ones are held out")
    parser.add_argument("--folder", type=Path, required=True, help="log and checkpoints; an unfinished run there is resumed")
    parser.add_argument("--out", type=Path, default=None, help="NAME.safetensors to write at the end; the card goes beside it")
    parser.add_argument("--data-name", default="", help="for the card")
    parser.add_argument("--notes", default="", help="for the card")
    parser.add_argument("--held-out", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--widths", type=int, nargs=3, default=None)
    parser.add_argument("--deadline-minutes", type=float, default=None, help="begin the learning rate's decay in time to end after this much training")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--init", type=Path, default=None, help="weights of a prior to start from, for fine-tuning")
    parser.add_argument("--export-only", action="store_true", help="write the last checkpoint's weights without training on")
    args = parser.parse_args(argv)
    if args.out is not None:
        check_writable(args.out, "--out")
    recipe = RECIPES[args.recipe]
    changes = {key: value for key in ("steps", "batch", "workers", "seed") if (value := getattr(args, key)) is not None}
    config = TrainConfig(**{**asdict(recipe.config), **changes})
    layout = recipe.layout if args.widths is None else UNetConfig(**{**asdict(recipe.layout), "widths": tuple(args.widths)})
    images = torch.from_numpy(np.load(args.images))
    count = recipe.held_out if args.held_out is None else args.held_out
    trainer = train_score(
        images[:-count],
        images[-count:],
        layout,
        config,
        args.folder,
        deadline_minutes=args.deadline_minutes,
        init=None if args.init is None else _init(args.init),
        device=args.device,
        export_only=args.export_only,
    )
    if args.out is not None:
        command = shlex.join(["python", "-m", "baselines.training.score", *(sys.argv[1:] if argv is None else argv)])
        export(trainer, args.out, args.data_name or args.images.name, command, args.notes)


if __name__ == "__main__":
    main()
