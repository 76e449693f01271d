"""Fits that are kept: a method that can be saved (``Fitted``) trains once, and a fit that was killed goes on where it was.

::

    CACHE/fits/METHOD/DIGEST/
      key.json      everything that decides the fit; DIGEST is the SHA-256 of it
      work/         ``ctx.cache``: checkpoints of a fit that is not finished
      fitted/       what ``save`` wrote
      fit.json      seconds, and digests of the files in ``fitted/``; written last

A lock on the folder keeps two processes from training the same thing: the second waits and loads.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sepbench.data.files.fetch import cache_folder
from sepbench.errors import SepbenchError
from sepbench.files import file_sha256, write_atomically

_WORK, _FITTED, _FACTS, _KEY = "work", "fitted", "fit.json", "key.json"


class CacheError(SepbenchError):
    """The cache of fits cannot be used: not writable, or no such entry."""


@dataclass(frozen=True, slots=True)
class FitFacts:
    """What is known of a finished fit.

    Attributes:
        seconds: of ``fit``, reading training data left out, all its sessions together.
        load_seconds: spent in reading training data.
        timing_group: where that was.
        session: of the run that made it, so that ``--refit`` makes it once and not once per worker.
    """

    seconds: float
    load_seconds: float
    timing_group: str
    session: str = ""


def fits_root() -> Path:
    """Where fits are kept: ``fits`` in the user's cache folder (``SEPBENCH_CACHE``)."""
    return cache_folder() / "fits"


def digest(key: Mapping[str, Any]) -> str:
    """SHA-256 of a key's canonical JSON."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()


class KeptFit:
    """The folder of one fit.

    Args:
        method: registry name.
        key: everything that decides the fit, JSON-able.
    """

    def __init__(self, method: str, key: Mapping[str, Any]) -> None:
        self.key = dict(key)
        self.folder = fits_root() / method / digest(key)[:32]

    @contextmanager
    def locked(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the folder against other processes that want the same fit; ``waiting`` is called if one of them is at it.

        Raises:
            CacheError: the cache folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / _KEY).is_file():
                text = json.dumps(self.key, indent=1, default=str)
                write_atomically(self.folder / _KEY, lambda path: path.write_text(text + "\n", encoding="utf-8"))
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:  # file systems without locks: both may train, and both write the same
                pass
            yield
        finally:
            os.close(handle)

    def work(self) -> Path:
        """``ctx.cache``, made if it is not there."""
        path = self.folder / _WORK
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(path, error) from error
        return path

    @property
    def fitted(self) -> Path:
        """What ``Fitted.load`` reads."""
        return self.folder / _FITTED

    def facts(self) -> FitFacts | None:
        """Of the finished fit, if there is one and its files are those that were written."""
        try:
            stored = json.loads((self.folder / _FACTS).read_text(encoding="utf-8"))
            whole = stored["files"] == _digests(self.fitted)
            return FitFacts(stored["seconds"], stored["load_seconds"], stored["timing_group"], stored["session"]) if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def spent(self) -> float:
        """Seconds that earlier sessions of an unfinished fit took, as far as they were noted."""
        try:
            return float((self.folder / _WORK / ".seconds").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0.0

    def note_seconds(self, seconds: float) -> None:
        """Note how long an unfinished fit has taken; a fit that is killed loses no more than the time since."""
        with contextlib.suppress(OSError):
            write_atomically(self.work() / ".seconds", lambda path: path.write_text(f"{seconds:.3f}", encoding="utf-8"))

    def keep(self, save: Callable[[Path], None], facts: FitFacts) -> None:
        """Store a finished fit and drop its checkpoints.

        Raises:
            CacheError: the cache folder cannot be written.
            Exception: whatever ``save`` raises.
        """
        fresh = self.folder / f"{_FITTED}.{os.getpid()}.tmp"
        try:
            self.forget()
            fresh.mkdir()
            save(fresh)
            fresh.rename(self.fitted)
            entry = {
                "seconds": facts.seconds,
                "load_seconds": facts.load_seconds,
                "timing_group": facts.timing_group,
                "session": facts.session,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "files": _digests(self.fitted),
            }
            write_atomically(self.folder / _FACTS, lambda path: path.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8"))
            shutil.rmtree(self.folder / _WORK, ignore_errors=True)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def forget(self, *, checkpoints: bool = False) -> None:
        """Drop the finished fit, and with ``checkpoints`` the unfinished one."""
        (self.folder / _FACTS).unlink(missing_ok=True)
        shutil.rmtree(self.fitted, ignore_errors=True)
        if checkpoints:
            shutil.rmtree(self.folder / _WORK, ignore_errors=True)


class Stopwatch:
    """Notes the seconds of an unfinished fit at most once in ten seconds, whenever the method tells of its progress."""

    def __init__(self, kept: KeptFit) -> None:
        self._kept = kept
        self._before = kept.spent()
        self._started = self._noted = time.monotonic()

    @property
    def before(self) -> float:
        """Seconds of earlier sessions."""
        return self._before

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._noted > 10.0:
            self._noted = now
            self._kept.note_seconds(self._before + now - self._started)


@dataclass(frozen=True, slots=True)
class Entry:
    """A fit in the cache, as ``sepbench cache list`` shows it."""

    method: str
    folder: Path
    key: Mapping[str, Any]
    facts: FitFacts | None
    megabytes: float


def entries(method: str = "") -> list[Entry]:
    """All fits of the cache, or those of one method, by method and age."""
    found = []
    for folder in sorted(fits_root().glob(f"{method or '*'}/*"), key=lambda path: (path.parent.name, path.stat().st_mtime)):
        try:
            key = json.loads((folder / _KEY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        found.append(Entry(folder.parent.name, folder, key, KeptFit(folder.parent.name, key).facts(), size))
    return found


def clear(method: str = "") -> int:
    """Remove all fits of the cache, or those of one method; returns how many there were.

    Raises:
        CacheError: something cannot be removed.
    """
    found = entries(method)
    for entry in found:
        try:
            shutil.rmtree(entry.folder)
        except OSError as error:
            raise _unusable(entry.folder, error) from error
    return len(found)


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _unusable(path: Path, error: OSError) -> CacheError:
    return CacheError(f"cannot write {path}: {error.strerror or error}; free some space or set SEPBENCH_CACHE to a writable folder")
