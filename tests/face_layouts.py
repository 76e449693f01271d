"""A small CelebA in the official layout: made-up pictures, written when a test asks for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def make_celeba(root: Path, train: int, validation: int, test: int) -> Path:
    """Aligned images of smooth colours and a sharp pattern, no two alike, and their partition."""
    import PIL.Image

    folder, rng, lines = root / "celeba", np.random.default_rng(5), []
    (folder / "img_align_celeba").mkdir(parents=True)
    rows, columns = np.mgrid[:218, :178]
    for number, split in enumerate([0] * train + [1] * validation + [2] * test, 1):
        waves = [np.sin(rows * a + columns * b + c) for a, b, c in rng.uniform(0.01, 0.2, (3, 3))]
        pixels = 127 + 90 * np.stack(waves, -1) + 30 * rng.choice((-1.0, 1.0), (218, 178, 1))
        name = f"{number:06d}.jpg"
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "img_align_celeba" / name, quality=90)
        lines.append(f"{name} {split}\n")
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    return folder
