"""What every figure shares: matplotlib (loaded only here), sizes, colours, PNG files."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

from sepbench.errors import SepbenchError

DPI = 150
TITLE, TEXT, SMALL = 10.0, 8.0, 7.0
"""Sizes of letters in points."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito (2008): told apart by colour-blind readers, and in grey."""
GREY = "#555555"


def new_figure(width: float, height: float) -> Any:
    """A matplotlib ``Figure`` of so many inches, free of pyplot's global state.

    Raises:
        SepbenchError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SepbenchError("pictures need matplotlib, which comes with the extra 'report': pip install 'sepbench[report]'") from error
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


def save_png(figure: Any, path: Path) -> Path:
    """Write a figure, folders included; a file that is there already is replaced.

    Raises:
        SepbenchError: it cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    except OSError as error:
        raise SepbenchError(f"cannot write {path}: {error.strerror}; choose a writable folder with --out") from error
    return path


def wrapped(text: str, pixels: float, size: float) -> list[str]:
    """Text in lines that fit into a width: its own lines, broken further at spaces and hyphens where they are too long."""
    letter = 0.58 * size * DPI / 72  # mean width of DejaVu Sans
    return [line for part in text.split("\n") for line in textwrap.wrap(part, max(6, int(pixels / letter))) or [""]]
