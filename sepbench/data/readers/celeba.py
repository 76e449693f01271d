"""CelebA, aligned faces: ``list_eval_partition.txt`` and ``img_align_celeba/NNNNNN.jpg``, as 32 x 32 images.

The splits are the official ones. An image is cut to its central 140 x 140 and resized to 32 x 32, as the released code
of NCSN does (Song and Ermon 2019; docs/protocols.md 1.6). The filter, pillow's bilinear one, is our choice. Files are
decoded when a row is asked for, each once in a process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sepbench.data.readers import unreadable
from sepbench.data.readers.image_folder import opened_image
from sepbench.errors import DataError
from sepbench.protocols import Domain
from sepbench.torch_later import torch

PARTITION, IMAGES = "list_eval_partition.txt", "img_align_celeba"
SPLITS = {"train": "0", "validation": "1", "test": "2"}
"""Our names of the splits -> the numbers in the partition: 162,770, 19,867 and 19,962 images."""
SIZE = (178, 218)
"""Width and height of an aligned image."""
_CUT, _SIDE = 140, 32


def read_partition(folder: Path, split: str) -> list[Path]:
    """The images of a split, in the order of the partition. No image is opened.

    Raises:
        DataError: the partition cannot be read, a line is no name and number, a name is there twice, or the split has no image.
    """
    path = folder / PARTITION
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text; replace the file") from error
    split_of: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in SPLITS.values() or Path(words[0]).name != words[0]:
            raise DataError(f"{path}, line {number:,}: expected a file name and 0, 1 or 2, got {line.strip()[:60]!r}; replace the file")
        if words[0] in split_of:
            raise DataError(f"{path}, line {number:,}: {words[0]} is there twice; replace the file")
        split_of[words[0]] = words[1]
    chosen = [folder / IMAGES / name for name, which in split_of.items() if which == SPLITS[split]]
    if not chosen:
        raise DataError(f"{path} has no image of the {split} split ({SPLITS[split]}); replace the file")
    return chosen


class Faces:
    """A ``SignalSet`` of images ``(3, 32, 32)`` in [0, 1], whole 255ths. All have label 0.

    Args:
        name, split: for messages.
        files: aligned images, in order.
    """

    def __init__(self, name: str, split: str, files: Sequence[Path]) -> None:
        self.name, self.split = name, split
        self.domain: Domain = "image"
        self.shape = (3, _SIDE, _SIDE)
        self._files = tuple(files)
        self.labels = torch.zeros(len(files), dtype=torch.int64)
        # 500 MB for the training split; the system hands out only what is written
        self._pixels = torch.empty((len(files), *self.shape), dtype=torch.uint8)
        self._decoded = [False] * len(files)

    def __len__(self) -> int:
        return len(self._files)

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Images ``(n, 3, 32, 32)`` float32 on the CPU.

        Raises:
            SepbenchError: pillow is not installed.
            DataError: a file is missing, cannot be decoded, or is no aligned image.
        """
        rows = torch.as_tensor(indices, dtype=torch.int64)
        for row in rows.tolist():  # each is another file
            if not self._decoded[row]:
                self._pixels[row] = _pixels(self._files[row])
                self._decoded[row] = True
        return self._pixels[rows].float() / 255.0

    def content_hashes(self, rows: torch.Tensor) -> list[bytes]:
        """A digest of every file's bytes; nothing is decoded."""
        digests = []
        for row in rows.tolist():
            try:
                digests.append(hashlib.sha256(self._files[row].read_bytes()).digest())
            except OSError as error:
                raise unreadable(self._files[row], error) from error
        return digests


def _pixels(path: Path) -> torch.Tensor:
    """One image ``(3, 32, 32)`` uint8."""
    import PIL.Image

    with opened_image(path) as image:
        if image.size != SIZE or image.mode != "RGB":
            width, height = image.size
            raise DataError(f"{path} is {width} x {height} {image.mode}; aligned images of CelebA are {SIZE[0]} x {SIZE[1]} RGB: unpack img_align_celeba.zip")
        left, top = ((side - _CUT) // 2 for side in SIZE)
        cut = image.crop((left, top, left + _CUT, top + _CUT))
        small = np.asarray(cut.resize((_SIDE, _SIDE), PIL.Image.Resampling.BILINEAR))
    return torch.from_numpy(small.transpose(2, 0, 1).copy())
