"""A sheet: rows of images in blocks of columns, with heads, row labels and captions. Pixel-exact: every image is enlarged by a whole number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sepbench.errors import SepbenchError
from sepbench.report.panels.canvas import DPI, GREY, SMALL, TEXT, TITLE, new_figure, save_png, wrapped

Pixels = npt.NDArray[np.float64]

_SIDE = 116  # pixels that the longer side of a small image is enlarged to, at least
_GAP, _BLOCK_GAP, _MARGIN, _LABEL = 8, 30, 24, 150
_FRAME, _FAILED = 0.65, 0.88
_MOST_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Block:
    """One row's images under one head, laid out in the head's rows and columns.

    Attributes:
        images: ``(n, H, W, 3)`` in [0, 1]; an image that holds NaN is drawn as an empty field.
        captions: one short text under each image.
    """

    images: Pixels
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """A column of blocks: its text, and how the images of a block are laid out."""

    text: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class SheetRow:
    """``blocks`` has one entry per head, None for an empty place; ``label`` stands to the left, in lines."""

    label: tuple[str, ...]
    blocks: tuple[Block | None, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that a sheet shows."""

    title: str
    subtitle: str
    heads: tuple[Head, ...]
    rows: tuple[SheetRow, ...] = field(repr=False)


def pictures(values: torch.Tensor, low: float = 0.0, high: float = 1.0) -> Pixels:
    """Images ``(n, C, H, W)`` with C 1 or 3 to ``(n, H, W, 3)`` in [0, 1]: from [low, high], clamped for display; NaN stays NaN.

    Raises:
        SepbenchError: another number of channels.
    """
    if values.ndim != 4 or values.shape[1] not in (1, 3):
        raise SepbenchError(f"only images of 1 or 3 channels can be shown, these signals have shape {tuple(values.shape[1:])}")
    scaled = (values.double().cpu() - low) / (high - low)
    return np.ascontiguousarray(scaled.clamp(0, 1).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy())


def block_layout(n: int, blocks: int) -> tuple[int, int]:
    """Rows and columns of a block of n images: side by side where so many blocks have the room, else below each other, from four on in two columns."""
    if n * blocks <= _MOST_COLUMNS:
        return 1, n
    return (n, 1) if n <= 3 else (math.ceil(n / 2), 2)


def enlargement(height: int, width: int) -> int:
    """Whole number that images are enlarged by; large ones stay as they are."""
    return max(1, math.ceil(_SIDE / max(height, width)))


@dataclass(slots=True)
class _Geometry:
    """Places in pixels, from the upper left corner."""

    sheet: Sheet
    cell: tuple[int, int]

    caption: int = round(SMALL * DPI / 72 * 1.5)
    line: int = round(TEXT * DPI / 72 * 1.35)

    def block_width(self, head: Head) -> int:
        return head.columns * self.cell[1] + (head.columns - 1) * _GAP

    @property
    def lefts(self) -> list[int]:
        """Left edge of each block, then the right edge of the page."""
        edges = [_MARGIN + _LABEL]
        for head in self.sheet.heads:
            edges.append(edges[-1] + self.block_width(head) + _BLOCK_GAP)
        return edges

    @property
    def width(self) -> int:
        return max(self.lefts[-1] - _BLOCK_GAP + _MARGIN, 900)

    @property
    def row_height(self) -> int:
        return max(head.rows for head in self.sheet.heads) * (self.cell[0] + self.caption)

    def headlines(self) -> list[list[str]]:
        return [wrapped(head.text, self.block_width(head) + _BLOCK_GAP - 6, TEXT) for head in self.sheet.heads]

    def opening(self) -> list[tuple[str, float]]:
        """Lines of title and subtitle with their sizes."""
        width = self.width - 2 * _MARGIN
        titles = [(line, TITLE) for line in wrapped(self.sheet.title, width, TITLE)]
        return titles + [(line, TEXT) for line in wrapped(self.sheet.subtitle, width, TEXT)]

    @property
    def top(self) -> int:
        """Upper edge of the first row of images."""
        heads = max(len(lines) for lines in self.headlines())
        return _MARGIN + sum(self.step(size) for _, size in self.opening()) + self.line // 2 + heads * self.line + 2 * _GAP

    @staticmethod
    def step(size: float) -> int:
        return round(size * DPI / 72 * 1.4)

    def row_top(self, row: int) -> int:
        return self.top + row * (self.row_height + _BLOCK_GAP // 2)

    @property
    def height(self) -> int:
        return self.row_top(len(self.sheet.rows)) + _MARGIN // 2

    def corner(self, row: int, block: int, image: int) -> tuple[int, int]:
        """Upper left corner ``(y, x)`` of an image; lower blocks are centred in their row."""
        head = self.sheet.heads[block]
        down, right = divmod(image, head.columns)
        spare = self.row_height - head.rows * (self.cell[0] + self.caption)
        return self.row_top(row) + spare // 2 + down * (self.cell[0] + self.caption), self.lefts[block] + right * (self.cell[1] + _GAP)


def draw_sheet(sheet: Sheet, path: Path) -> Path:
    """Draw a sheet as a PNG file."""
    first = next(block for row in sheet.rows for block in row.blocks if block is not None)
    height, width = first.images.shape[1:3]
    scale = enlargement(height, width)
    geometry = _Geometry(sheet, (height * scale, width * scale))
    figure = new_figure(geometry.width / DPI, geometry.height / DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(_page(geometry, scale), extent=(0, geometry.width, geometry.height, 0), interpolation="none")
    _write_opening(axes, geometry)
    for row, content in enumerate(sheet.rows):
        centre = geometry.row_top(row) + geometry.row_height / 2 - geometry.caption / 2
        axes.text(_MARGIN, centre, "\n".join(content.label), fontsize=SMALL, va="center", ha="left", linespacing=1.4)
        for number, block in enumerate(content.blocks):
            for image, caption in enumerate(block.captions if block else ()):
                y, x = geometry.corner(row, number, image)
                axes.text(x + geometry.cell[1] / 2, y + geometry.cell[0] + 3, caption, fontsize=SMALL, va="top", ha="center", color=GREY)
    return save_png(figure, path)


def _write_opening(axes: Any, geometry: _Geometry) -> None:
    y = _MARGIN // 2
    for line, size in geometry.opening():
        axes.text(_MARGIN, y, line, fontsize=size, va="top", ha="left", weight="bold" if size == TITLE else "normal", color="black" if size == TITLE else GREY)
        y += geometry.step(size)
    for head, lines, left in zip(geometry.sheet.heads, geometry.headlines(), geometry.lefts, strict=False):
        centre = left + geometry.block_width(head) / 2
        for number, line in enumerate(reversed(lines)):
            axes.text(centre, geometry.top - 2 * _GAP - number * geometry.line, line, fontsize=TEXT, va="baseline", ha="center")


def _page(geometry: _Geometry, scale: int) -> Pixels:
    """The page ``(height, width, 3)``: white, with every image in its frame."""
    page = np.ones((geometry.height, geometry.width, 3))
    height, width = geometry.cell
    for row, content in enumerate(geometry.sheet.rows):
        for number, block in enumerate(content.blocks):
            for image, values in enumerate(block.images if block else ()):
                y, x = geometry.corner(row, number, image)
                page[y - 1 : y + height + 1, x - 1 : x + width + 1] = _FRAME
                page[y : y + height, x : x + width] = _enlarged(values, scale)
    return page


def _enlarged(image: Pixels, scale: int) -> Pixels:
    if not np.isfinite(image).all():
        return np.full((image.shape[0] * scale, image.shape[1] * scale, 3), _FAILED)
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def value_texts(values: Sequence[float], write: Any) -> tuple[str, ...]:
    """Captions of values; ``failed`` for those that are not finite."""
    return tuple(write(value) if math.isfinite(value) else "failed" for value in values)
