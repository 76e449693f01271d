"""Long recordings as a signal set: every row is one chunk of fixed length, and only the chunks that are asked for are decoded.

A set holds file names and numbers, so its memory does not grow with the length of the recordings, and ``load`` needs that of the chunks it returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sepbench.data.readers.audio_files import AudioInfo, audio_info, read_resampled, resampled_length
from sepbench.errors import DataError
from sepbench.protocols import Domain
from sepbench.torch_later import torch

_BITS = 16
_PROBE = 4096  # bytes read at the start, the middle and the end of a file to tell it from others


@dataclass(frozen=True, slots=True)
class Recording:
    """One piece of sound.

    Attributes:
        files: WAV or FLAC files that are summed sample by sample (the stems of one instrument); none at all is silence.
        label: class number.
        info: the length that counts and the files' rate, cut into consecutive chunks without overlap, the rest at the end left out. None: one
            chunk from the middle, the file's length being looked up when it is loaded (for sets of very many short files).
        group: name of the song or the original recording that it comes from, the same in every set of the corpus; empty: the files' names.
    """

    files: tuple[Path, ...]
    label: int = 0
    info: AudioInfo | None = None
    group: str = ""


class ChunkedAudio:
    """A ``SignalSet`` of chunks ``(1, length)``, mono, at one rate. Rows are ordered by recording, then by time.

    Samples are resampled where a file has a higher rate, summed over the recording's files, and rounded to 16 bits like a WAV file's, which hides
    the last bits in which machines may differ.

    Args:
        name, split: for messages.
        recordings: in order.
        length: samples per chunk.
        sample_rate: Hz of the chunks.

    Raises:
        DataError: not one whole chunk.
    """

    def __init__(self, name: str, split: str, recordings: Sequence[Recording], length: int, sample_rate: int) -> None:
        self.name, self.split = name, split
        self.domain: Domain = "audio"
        self.shape = (1, length)
        self.sample_rate = sample_rate
        self._recordings = tuple(recordings)
        counts = torch.tensor([_chunks(recording, length, sample_rate) for recording in recordings], dtype=torch.int64)
        if not int(counts.sum()):
            raise DataError(f"data set {name!r} {split} has no recording of {length / sample_rate:.2f} s; check that it is complete")
        self._recording = torch.repeat_interleave(torch.arange(len(counts)), counts)
        self._number = torch.arange(len(self._recording)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        self.labels = torch.tensor([recording.label for recording in recordings], dtype=torch.int64)[self._recording]
        self._probes: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._recording)

    @property
    def groups(self) -> tuple[str, ...]:
        """Of every row the song or the original recording."""
        names = [recording.group or "|".join(map(str, recording.files)) for recording in self._recordings]
        return tuple(names[number] for number in self._recording.tolist())

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Chunks ``(n, 1, length)`` float32 on the CPU.

        Raises:
            DataError: a file is missing, damaged, too short, or of a lower rate than the set's.
        """
        rows = torch.as_tensor(indices, dtype=torch.int64).tolist()
        chunks = torch.zeros((len(rows), *self.shape))
        for chunk, row in zip(chunks, rows, strict=True):  # each is another part of another file
            recording = self._recordings[int(self._recording[row])]
            if recording.files:
                chunk.copy_(self._read(recording, int(self._number[row])))
        return chunks.mul_(2 ** (_BITS - 1)).round_().div_(2 ** (_BITS - 1))

    def _read(self, recording: Recording, number: int) -> torch.Tensor:
        path, length, rate = recording.files[0], self.shape[1], self.sample_rate
        info = recording.info or audio_info(path)
        if info.sample_rate < rate:
            raise DataError(f"{path} has {info.sample_rate:,} Hz, {self.name} needs at least {rate:,} Hz; get the recording in its original rate")
        start = number * length
        if recording.info is None:
            total = resampled_length(info.length, info.sample_rate, rate)
            if total < length:
                raise DataError(f"{path} lasts {total / rate:.2f} s, {self.name} needs {length / rate:.2f} s; replace or remove the file")
            start = (total - length) // 2
        return read_resampled(recording.files, start, length, rate)

    def content_hashes(self, rows: torch.Tensor) -> list[bytes]:
        """A digest per chunk that is the same for the same place in files of the same bytes, by size and a few kilobytes of each: nothing is decoded."""
        digests = []
        for row in rows.tolist():
            recording = int(self._recording[row])
            if recording not in self._probes:
                self._probes[recording] = b"".join(_probe(path) for path in self._recordings[recording].files)
            digests.append(hashlib.sha256(self._probes[recording] + int(self._number[row]).to_bytes(8, "big")).digest())
        return digests


def _chunks(recording: Recording, length: int, sample_rate: int) -> int:
    if recording.info is None:
        return 1
    return resampled_length(recording.info.length, recording.info.sample_rate, sample_rate) // length


def _probe(path: Path) -> bytes:
    sha = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            sha.update(size.to_bytes(8, "big"))
            for start in (0, size // 2, max(0, size - _PROBE)):
                stream.seek(start)
                sha.update(stream.read(_PROBE))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check that the data set is complete") from error
    return sha.digest()
