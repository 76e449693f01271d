"""A tiny training run in a process of its own, to be killed: ``python train_until_done.py FOLDER STEPS``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from baselines.networks.unet import UNetConfig
from baselines.training.config import TrainConfig
from baselines.training.score import build_model
from baselines.training.trainer import ScoreTraining

LAYOUT = UNetConfig(widths=(8, 16, 16), blocks=(1, 1, 1), heads=2, embedding=16)


def tiny_images(count: int = 60) -> torch.Tensor:
    """uint8 8x8 images: one bright bar each."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 40, (count, 1, 8, 8), generator=random, dtype=torch.uint8)
    images[torch.arange(count), 0, torch.randint(0, 8, (count,), generator=random)] = 230
    return images


def tiny_trainer(folder: Path, **changes: object) -> ScoreTraining:
    settings: dict[str, object] = {"steps": 40, "batch": 8, "warmup": 4, **changes}
    images = tiny_images()
    config = TrainConfig(**settings)  # type: ignore[arg-type]
    return ScoreTraining(build_model(LAYOUT, images[:50], config.seed), images[:50], images[50:], config, folder)


if __name__ == "__main__":
    tiny_trainer(Path(sys.argv[1]), steps=int(sys.argv[2])).run(checkpoint_seconds=0.0, log_every=5, validate_every=10)
