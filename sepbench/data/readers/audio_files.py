"""WAV and FLAC files, read whole or in spans, Ogg Vorbis read whole, and polyphase resampling.

Nothing here guesses: a file that is not what its header says is an error. Only of a cut Ogg file nothing tells its length: its manifest has to.

Samples are float32 as stored (16-bit values / 32768), shape ``(channels, T)``. soundfile (libsndfile) decodes; scipy resamples.
"""

from __future__ import annotations

import math
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sepbench.compat import import_soundfile
from sepbench.data.readers.audio_headers import wrong_length
from sepbench.errors import DataError, flat
from sepbench.torch_later import torch

_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC")
_OGG = ("OGG",)
_PCM_SCALE = 32_768
_HALF_LENGTH = 10  # zero crossings of scipy's default filter on each side, at the lower of both rates


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says.

    Attributes:
        length: samples per channel, T.
        sample_rate: Hz.
        channels: 1 for mono.
        coding: libsndfile's word for how a sample is stored: ``PCM_16``, ``PCM_24``, ``FLOAT``, ...
    """

    length: int
    sample_rate: int
    channels: int
    coding: str = field(default="", compare=False)


def audio_info(path: Path) -> AudioInfo:
    """Length, rate and channels of a file; no sample is decoded, so that damage inside a FLAC file shows only when it is read.

    Raises:
        DataError: missing, not WAV or FLAC, cut off (WAV), empty, or a header that is wrong or silent about the length.
    """
    with _opened(path) as file:
        return AudioInfo(int(file.frames), int(file.samplerate), int(file.channels), str(file.subtype))


def read_audio(path: Path, sample_rate: int | None = None, mono: bool = True) -> torch.Tensor:
    """A whole file, ``(channels, T)`` float32; ``(1, T)``, the mean of the channels, if ``mono``.

    Args:
        path: a WAV or FLAC file.
        sample_rate: the rate the file must have, in Hz; None takes any (``audio_info`` tells which). To change it: ``resample``.
        mono: average the channels.

    Raises:
        DataError: missing, not WAV or FLAC, cut off, damaged, empty, another rate, samples that are not finite.
    """
    return read_span(path, 0, None, sample_rate, mono)


def read_span(path: Path, start: int, length: int | None, sample_rate: int | None = None, mono: bool = True) -> torch.Tensor:
    """Samples ``[start, start + length)`` of a file, ``(channels, length)`` float32, without decoding the rest. Arguments and errors as for ``read_audio``.

    Args:
        start: first sample.
        length: number of samples; None reads to the end.

    Raises:
        DataError: also a span that reaches beyond the file.
    """
    with _opened(path) as file:
        if sample_rate is not None and file.samplerate != sample_rate:
            raise DataError(f"{path} has {file.samplerate:,} Hz, expected {sample_rate:,} Hz; convert the file, e.g. with ffmpeg -ar {sample_rate}")
        stop = int(file.frames) if length is None else start + length
        if not 0 <= start < stop <= file.frames:
            raise DataError(f"{path} has {file.frames:,} samples, asked for {start:,} to {stop:,}; the file is shorter than the others of its set, replace it")
        return _samples(path, file, start, stop, mono)


def read_pcm(path: Path, sample_rate: int) -> torch.Tensor:
    """A whole mono file of 16 bits, ``(T,)`` int16.

    Raises:
        DataError: as ``read_audio``; more than one channel, samples that are no 16-bit numbers.
    """
    values = read_audio(path, sample_rate, mono=False)
    if len(values) != 1:
        raise DataError(f"{path} has {len(values)} channels, expected one; replace the file")
    scaled = values[0] * _PCM_SCALE
    samples = scaled.to(torch.int16)
    if not torch.equal(samples.to(torch.float32), scaled):
        raise DataError(f"{path} is not 16-bit audio; replace the file by the original")
    return samples


def read_vorbis(path: Path, sample_rate: int) -> torch.Tensor:
    """A whole Ogg Vorbis file, ``(channels, T)`` float32; its last bits are the decoder's.

    Raises:
        DataError: missing, not Ogg, damaged, empty, another rate, samples that are not finite.
    """
    with _opened(path, _OGG) as file:
        if file.samplerate != sample_rate:
            raise DataError(f"{path} has {file.samplerate:,} Hz, expected {sample_rate:,} Hz; use the files as they were published")
        return _samples(path, file, 0, int(file.frames), mono=False)


def _samples(path: Path, file: Any, start: int, stop: int, mono: bool) -> torch.Tensor:
    try:
        if start:
            file.seek(start)
        values = file.read(stop - start, dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{path} is damaged between samples {start:,} and {stop:,}: {_reason(error)}; replace the file") from error
    if len(values) != stop - start:
        raise DataError(f"{path} ends at sample {start + len(values):,}, its header announces {file.frames:,}; replace the file")
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds samples that are not finite; replace the file")
    channels = np.ascontiguousarray(values.T)
    if mono and len(channels) > 1:
        channels = channels.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    return torch.from_numpy(channels)


@contextmanager
def _opened(path: Path, formats: Sequence[str] = _FORMATS) -> Iterator[Any]:
    """The open ``soundfile.SoundFile``, its header checked."""
    wanted = "Ogg Vorbis" if formats == _OGG else "WAV or FLAC"
    if not path.is_file():
        raise DataError(f"{path} is missing; check that the data set is complete")
    try:
        # As bytes where names are bytes: not every one is UTF-8, and soundfile encodes strictly.
        file = import_soundfile().SoundFile(str(path) if sys.platform == "win32" else os.fsencode(path))
    except (RuntimeError, OSError) as error:
        raise DataError(f"{path} is no readable {wanted} file: {_reason(error)}; replace the file") from error
    with file:
        if file.format not in formats:
            raise DataError(f"{path} is {file.format} audio; convert it to {wanted}, e.g. with ffmpeg")
        try:
            problem = wrong_length(path, int(file.frames))
        except (OSError, struct.error) as error:
            raise DataError(f"{path} cannot be read: {flat(error)}; replace the file") from error
        if problem:
            raise DataError(f"{path} {problem}; replace the file, or write it anew, e.g. with ffmpeg")
        if file.frames < 1 or not file.seekable():
            raise DataError(f"{path} has no samples; replace the file")
        yield file


def _reason(error: Exception) -> str:
    """libsndfile's own words, without the path that our message names already."""
    return str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")


def resample(signal: torch.Tensor, from_rate: int, to_rate: int) -> torch.Tensor:
    """``(..., T)`` float32 at one rate to ``(..., ceil(T * to_rate / from_rate))`` float32 at another.

    Polyphase filtering by ``scipy.signal.resample_poly`` with its default low-pass (Kaiser window, beta 5, ten zero crossings on each side at the
    lower rate), computed in float64; the signal is taken to be zero outside. Equal rates: the signal itself.

    Raises:
        ValueError: a rate below 1.
    """
    if from_rate < 1 or to_rate < 1:
        raise ValueError(f"sample rates must be at least 1 Hz, got {from_rate} and {to_rate}")
    if from_rate == to_rate:
        return signal
    from scipy.signal import resample_poly  # takes a third of a second to import

    up, down = _ratio(from_rate, to_rate)
    values = resample_poly(signal.detach().cpu().double().numpy(), up, down, axis=-1, window=_low_pass(max(up, down)))
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


@lru_cache(maxsize=8)  # 44,101 taps from 44,100 to 20,480 Hz: designing them takes as long as filtering a chunk
def _low_pass(factor: int) -> npt.NDArray[np.float64]:
    from scipy.signal import firwin

    taps: npt.NDArray[np.float64] = firwin(2 * _HALF_LENGTH * factor + 1, 1.0 / factor, window=("kaiser", 5.0))
    return taps


def resampled_length(length: int, from_rate: int, to_rate: int) -> int:
    """Samples that ``resample`` makes of so many."""
    up, down = _ratio(from_rate, to_rate)
    return -(-length * up // down)


def read_resampled(paths: Sequence[Path], start: int, length: int, sample_rate: int) -> torch.Tensor:
    """Samples ``[start, start + length)`` of the sum of some files, as ``resample`` would make it as a whole, ``(1, length)`` float32.

    Only the span and the filter's reach on both sides of it are decoded, so that one chunk of an hour costs as much as one of a minute.

    Args:
        paths: at least one WAV or FLAC file, all of one rate; their channels are averaged. What is longer than the shortest file is left out.
        start, length: in samples of ``sample_rate``.
        sample_rate: Hz wanted.

    Raises:
        DataError: as ``read_span`` does; files of different rates.
    """
    infos = [audio_info(path) for path in paths]
    if other := next((path for path, found in zip(paths, infos, strict=True) if found.sample_rate != infos[0].sample_rate), None):
        raise DataError(f"{other} and {paths[0]} have different sample rates; use the files as they were published")
    info, shortest = min(zip(infos, paths, strict=True), key=lambda found: found[0].length)
    up, down = _ratio(info.sample_rate, sample_rate)
    total = resampled_length(info.length, info.sample_rate, sample_rate)
    if not 0 <= start < start + length <= total:
        raise DataError(f"{shortest} has {total:,} samples at {sample_rate:,} Hz, asked for {start:,} to {start + length:,}; replace the file")
    if up == down:
        return _sum(paths, start, length)
    reach = -(-_HALF_LENGTH * max(up, down) // up)  # of the filter, in samples of the file
    # Sample k * up of the result falls on sample k * down of the file: a span that starts there is filtered in the same phase as the whole.
    blocks = max(0, start - reach * up // down - up) // up
    stop = min(info.length, -(-(start + length) * down // up) + reach + 1)
    around = resample(_sum(paths, blocks * down, stop - blocks * down), info.sample_rate, sample_rate)
    first = start - blocks * up
    return around[..., first : first + length].contiguous()


def _sum(paths: Sequence[Path], start: int, length: int) -> torch.Tensor:
    total = read_span(paths[0], start, length)
    for path in paths[1:]:
        total += read_span(path, start, length)
    return total


def _ratio(from_rate: int, to_rate: int) -> tuple[int, int]:
    """Up and down in lowest terms."""
    common = math.gcd(from_rate, to_rate)
    return to_rate // common, from_rate // common
