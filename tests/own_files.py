"""Folders of images and sounds as a user has them: odd sizes, odd lengths, made by a script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37)


def pixels(key: int, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """``(H, W, channels)`` uint8, or ``(H, W)`` of one channel: stripes that tell the key."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    planes = [(rows * (key % 7 + 1) * (c + 2) + columns * (key % 5 + 1) + 13 * key) % 256 for c in range(channels)]
    made = np.stack(planes, axis=2).astype(np.uint8)
    return made if channels > 1 else made[..., 0]


def image_folder(folder: Path, count: int, key: int = 0, sizes: Sequence[int] = _PRIMES, channels: int = 3) -> Path:
    """``count`` PNG files of odd sizes, no two alike."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        size = (sizes[number % len(sizes)], sizes[(3 * number + 1) % len(sizes)])
        Image.fromarray(pixels(key + number, size, channels)).save(folder / f"im{number}.png")
    return folder


def tone(key: int, samples: int) -> np.ndarray:
    """``(samples,)`` float32, a sweep that never repeats and never rests."""
    time = np.arange(samples) / 1000.0
    return (0.3 * np.sin(2 * np.pi * (3.0 + key % 11) * time * (1.0 + 0.1 * time) + key)).astype(np.float32)


def sound_folder(folder: Path, count: int, key: int = 0, rate: int = 1000, seconds: float = 2.0) -> Path:
    """``count`` WAV files of odd lengths from ``seconds`` on, 16 bits, mono, no two alike."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        samples = int(seconds * rate) + 137 * number
        soundfile.write(folder / f"s{number}.wav", tone(key + 100 * number, samples), rate, subtype="PCM_16")
    return folder
