"""Pictures and sounds of a report: files within a budget. What does not fit is not written, and the page says so."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
import torch

from sepbench.compat import import_soundfile
from sepbench.report.panels.sheet import Pixels

_GAP = 1
"""Pixels between the images of one strip."""


@dataclass
class Media:
    """Files by name, and what they weigh.

    Attributes:
        budget: bytes that all files together may have.
        left_out: files that were not taken.
    """

    budget: int
    files: dict[str, bytes] = field(default_factory=dict)
    used: int = 0
    left_out: int = 0

    def add(self, files: dict[str, bytes]) -> bool:
        """Take files that belong together, all or none."""
        size = sum(map(len, files.values()))
        if self.used + size > self.budget:
            self.left_out += len(files)
            return False
        self.files |= files
        self.used += size
        return True


def strip(pictures: Pixels) -> bytes:
    """Pictures ``(n, H, W, 3)`` in [0, 1] side by side as PNG; one that holds NaN is a grey field."""
    from PIL import Image

    height = pictures.shape[1]
    parts: list[Pixels] = []
    for picture in pictures:
        parts += [np.full((height, _GAP, 3), np.nan)] * bool(parts) + [picture if np.isfinite(picture).all() else np.full_like(picture, 0.5)]
    joined = np.concatenate(parts, axis=1)
    gaps = ~np.isfinite(joined).all(2)
    levels = np.round(np.nan_to_num(joined) * 255).astype(np.uint8)
    grey = bool((levels == levels[:, :, :1]).all())
    alpha = np.where(gaps, 0, 255).astype(np.uint8)[:, :, None]
    shown = np.concatenate([levels[:, :, :1] if grey else levels, alpha], axis=2)
    out = io.BytesIO()
    Image.fromarray(shown, "LA" if grey else "RGBA").save(out, "png", optimize=True)
    return out.getvalue()


def flac(signal: torch.Tensor, sample_rate: int, scale: float) -> bytes:
    """A sound ``(channels, T)`` times ``scale`` as FLAC of 16 bits: without loss beyond rounding, and half of WAV. Samples beyond full scale are cut."""
    soundfile = import_soundfile()
    out = io.BytesIO()
    values = (torch.nan_to_num(signal.float()) * scale).clamp(-1.0, 1.0).T.numpy()
    soundfile.write(out, values, sample_rate, format="FLAC", subtype="PCM_16")
    return out.getvalue()
