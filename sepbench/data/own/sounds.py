"""A user's sounds of any length as signals of one length, by stated rules.

==============  ====================================================================================================================
always          WAV and FLAC; cut from the start into consecutive pieces without overlap, the rest at the end is left out; silent pieces
                (RMS below -45.3 dBFS, ``lists.rules.SILENT_RMS``, or in every whole second of them) are left out; values are stored as 16 bits
``convert``     higher rates: polyphase resampling (``audio_files.resample``); several channels: their mean; other codings than 16 bits:
                rounded; what goes beyond full scale in all this: clipped, and counted; files shorter than one piece: left out
no ``convert``  such files are refused
never           lower rates are raised; a file of floats beyond full scale is scaled
==============  ====================================================================================================================
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sepbench.compat import import_soundfile
from sepbench.data.own.folders import OwnFolder, first_three
from sepbench.data.own.signals import OwnSignals
from sepbench.data.readers.audio_files import AudioInfo, audio_info, read_span, resampled_length
from sepbench.data.readers.chunks import ChunkedAudio, Recording
from sepbench.data.readers.sounding import sounding_seconds
from sepbench.errors import DataError

LONGEST = 60
"""Seconds of a piece; every second is a bit of ``OwnSignals.sounding``."""
_AS_STORED = frozenset({"PCM_16", "PCM_S8", "PCM_U8"})
_FLOATS = frozenset({"FLOAT", "DOUBLE"})
_FULL = 32_768
_BLOCK = 1 << 20  # samples of a file looked at at once
_PIECES = 64  # pieces converted at once


def read_sounds(folders: Sequence[OwnFolder], names: Sequence[str], rate: int | None, seconds: float, convert: bool) -> tuple[list[OwnSignals], int, list[str]]:
    """The sounds of some classes, all of one length, their rate in Hz, and what was done to them, in words.

    Args:
        folders: one per class.
        names: of the classes.
        rate: Hz wanted; None: the one that all files have.
        seconds: length of a piece.
        convert: see above.

    Raises:
        SepbenchError: soundfile is not installed.
        DataError: files that cannot be used as they are; three are named, with what would help. A class of which nothing is left.
    """
    import_soundfile()
    infos, faults = [list[AudioInfo]() for _ in folders], list[str]()
    for folder, found in zip(folders, infos, strict=True):
        for path in folder.files:
            try:
                found.append(audio_info(path))
            except DataError as error:
                faults.append(str(error))
    _stop_at(faults)
    rate = _rate(rate, folders, infos)
    if not 1.0 / rate <= seconds <= LONGEST:
        raise DataError(f"--seconds must be above 0 and at most {LONGEST}, got {seconds:g}")
    length = round(seconds * rate)
    notes = _checked(folders, infos, rate, length, convert)
    made = []
    for folder, name, found in zip(folders, names, infos, strict=True):
        signals, told = _pieces(folder, name, found, rate, length)
        made.append(signals)
        notes += told
    return made, rate, notes


def _stop_at(faults: list[str]) -> None:
    if faults:
        raise DataError("; ".join(faults[:3]) + (f"; and {len(faults) - 3:,} more files" if len(faults) > 3 else ""))


def _rate(rate: int | None, folders: Sequence[OwnFolder], infos: Sequence[Sequence[AudioInfo]]) -> int:
    if rate is not None and rate < 1:
        raise DataError(f"--rate must be at least 1 Hz, got {rate}")
    rates = Counter(info.sample_rate for found in infos for info in found)
    if rate is None and len(rates) > 1:
        kinds = first_three([f"{count:,} of {hz:,} Hz" for hz, count in sorted(rates.items())])
        raise DataError(f"the files have different rates: {kinds}; choose one with --rate {min(rates)} and --convert")
    rate = rate or next(iter(rates))
    all_files = [(path, info) for folder, found in zip(folders, infos, strict=True) for path, info in zip(folder.files, found, strict=True)]
    low = [f"{path} has {info.sample_rate:,} Hz" for path, info in all_files if info.sample_rate < rate]
    if low:
        count = f"{len(low):,} {'file' if len(low) == 1 else 'files'}"
        raise DataError(f"--rate {rate} is above the rate of {count}: {first_three(low)}; choose --rate {min(rates)} or less")
    return rate


def _checked(folders: Sequence[OwnFolder], infos: Sequence[Sequence[AudioInfo]], rate: int, length: int, convert: bool) -> list[str]:
    """What has to be done to the files, in words, if it may be."""
    odd, short, loud = list[str](), list[str](), list[str]()
    for folder, found in zip(folders, infos, strict=True):
        for path, info in zip(folder.files, found, strict=True):
            why = [f"{info.sample_rate:,} Hz"] if info.sample_rate != rate else []
            why += [f"{info.channels} channels"] if info.channels != 1 else []
            why += [f"{info.coding} samples"] if info.coding not in _AS_STORED else []
            if why:
                odd.append(f"{path} has {', '.join(why)}")
            if resampled_length(info.length, info.sample_rate, rate) < length:
                short.append(f"{path} lasts {info.length / info.sample_rate:.2f} s")
            if convert and info.coding in _FLOATS and (peak := _peak(path, info)) > 1.0:
                loud.append(f"{path} reaches {peak:.3g}")
    if loud:
        raise DataError(f"{_counted(loud)} of floats beyond full scale, 1: {first_three(loud)}; scale what you want to keep")
    if odd and not convert:
        raise DataError(f"{_counted(odd)} not {rate:,} Hz, mono, 16 bits: {first_three(odd)}; --convert does it by the rules of docs/own-data.md")
    if short and (not convert or len(short) == sum(map(len, infos))):
        raise DataError(_too_short([info for found in infos for info in found], rate, length, short))
    notes = [f"converted to {rate:,} Hz, mono, 16 bits: {first_three(odd)}"] if odd else []
    return notes + ([f"shorter than {length / rate:g} s and left out: {first_three(short)}"] if short else [])


def _too_short(infos: Sequence[AudioInfo], rate: int, length: int, short: Sequence[str]) -> str:
    """Which files are shorter than one piece, and which ``--seconds`` to choose: the shortest file's length, which keeps all files.

    Besides, what nine tenths and half of the files have, with how many files each of these drops.
    """
    lengths = sorted(resampled_length(info.length, info.sample_rate, rate) for info in infos)
    choices = dict[float, int]()
    for share in (0.0, 0.1, 0.5):
        seconds = _rounded_down(lengths[int(share * len(lengths))] / rate)
        if 0.0 < seconds < length / rate:
            choices[seconds] = sum(one < round(seconds * rate) for one in lengths)
    drops = [f"--seconds {seconds:g} drops {lost:,}" for seconds, lost in choices.items() if lost]
    keeps = f"--seconds {min(choices):g} keeps all {len(lengths):,} files" if len(lengths) > 1 else f"--seconds {min(choices):g} keeps it"
    if len(short) < len(lengths):
        drops.append(f"--seconds {length / rate:g} drops {len(short):,}")
        which = f"{_counted(short)} shorter than --seconds {length / rate:g}: {first_three(short)}"
    elif len(lengths) == 1:
        which = f"the only file is shorter than --seconds {length / rate:g}"
    else:
        lasts = f"{_rounded_down(lengths[0] / rate):g} to {_rounded_down(lengths[-1] / rate):g} s"
        which = f"all {len(lengths):,} files are shorter than --seconds {length / rate:g}, they last {lasts}"
    return f"{which}; {keeps}" + (f"; with --convert, {', '.join(drops)}" if drops else "")


def _rounded_down(seconds: float) -> float:
    """To hundredths; shorter than one of them, to millionths."""
    steps = 100 if seconds >= 0.01 else 1_000_000
    return math.floor(seconds * steps) / steps


def _counted(files: Sequence[str]) -> str:
    return "1 file is" if len(files) == 1 else f"{len(files):,} files are"


def _peak(path: Path, info: AudioInfo) -> float:
    blocks = (read_span(path, start, min(_BLOCK, info.length - start), mono=False) for start in range(0, info.length, _BLOCK))
    return max(float(block.abs().max()) for block in blocks)


def _pieces(folder: OwnFolder, name: str, infos: Sequence[AudioInfo], rate: int, length: int) -> tuple[OwnSignals, list[str]]:
    values, files, starts, sounding = list[npt.NDArray[np.int16]](), list[int](), list[int](), list[npt.NDArray[np.int64]]()
    silent, clipped, faults = 0, list[str](), list[str]()
    for number, (path, info) in enumerate(zip(folder.files, infos, strict=True)):
        if resampled_length(info.length, info.sample_rate, rate) < length:
            continue
        try:
            pieces, beyond = _file(path, info, rate, length)
        except DataError as error:
            faults.append(str(error))
            continue
        seconds = sounding_seconds(pieces[:, None], rate if length >= rate else length)
        heard = np.flatnonzero(seconds)
        silent += len(pieces) - len(heard)
        if beyond:
            clipped.append(f"{folder.name(path)} ({beyond:,} samples)")
        values.append(pieces[heard])
        files += [number] * len(heard)
        starts += (heard * length).tolist()
        sounding.append(seconds[heard])
    _stop_at(faults)
    if not files:
        why = _too_short(infos, rate, length, [""] * len(infos)) if not values else "all its pieces are silent; choose other files"
        raise DataError(f"nothing is left of {folder.path}: {why}")
    notes = [f"{name}: silent and left out: {silent:,} {'piece' if silent == 1 else 'pieces'}"] if silent else []
    notes += [f"{name}: clipped at full scale: {first_three(clipped)}"] if clipped else []
    file = np.array(files, dtype=np.int64)
    names = tuple(folder.name(path) for path in folder.files)
    return OwnSignals(name, np.concatenate(values), names, file, np.array(starts, dtype=np.int64), np.concatenate(sounding), file), notes


def _file(path: Path, info: AudioInfo, rate: int, length: int) -> tuple[npt.NDArray[np.int16], int]:
    """All pieces ``(n, length)`` of a file, and how many samples were clipped (a positive full scale, which 16 bits miss by one step, does not count)."""
    chunks = ChunkedAudio(str(path), "", [Recording((path,), info=info)], length, rate)
    made, beyond = list[npt.NDArray[np.int16]](), 0
    for rows in torch.arange(len(chunks)).split(_PIECES):
        whole = chunks.load(rows)[:, 0].numpy() * _FULL  # already whole numbers
        beyond += int((np.abs(whole) > _FULL).sum())
        made.append(np.clip(whole, -_FULL, _FULL - 1).astype(np.int16))
    return np.concatenate(made), beyond
