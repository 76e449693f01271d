"""Fits that are kept: a method that can be saved (``Fitted``) trains once, and a fit that was killed goes on where it was.

::

    CACHE/fits/METHOD/DIGEST/
      key.json      everything that decides the fit; DIGEST is the SHA-256 of it
      work/         ``ctx.cache``: checkpoints of a fit that is not finished
      refit         name of the ``--refit`` that began it, where one did
      fitted/       what ``save`` wrote
      fit.json      seconds, and digests of the files in ``fitted/``; written last

A lock on the folder keeps two processes from training the same thing: the second waits and loads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sepbench.data.files.fetch import cache_folder
from sepbench.errors import SepbenchError
from sepbench.files import TEMPORARY, file_sha256, hold, open_to_others, write_atomically

_WORK, _FITTED, _FACTS, _KEY, _SECONDS, _REFIT = "work", "fitted", "fit.json", "key.json", ".seconds", "refit"
_NOTE_EVERY = 10.0
"""Seconds."""


class CacheError(SepbenchError):
    """The cache of fits cannot be used: not writable, or no such entry."""


class UnreadableFitError(SepbenchError):
    """A kept fit may not be read by this user."""


@dataclass(frozen=True, slots=True)
class FitFacts:
    """What is known of a finished fit.

    Attributes:
        seconds: of ``fit``, reading training data left out, all its sessions together.
        load_seconds: spent in reading training data.
        timing_group: where that was.
        session: name of the ``--refit`` that made it, so that it is made once, and not once per worker or after every kill.
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
    return hashlib.sha256(json.dumps(_as_read(key), sort_keys=True).encode()).hexdigest()


def _as_read(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key as ``key.json`` gives it back: entries of a setting may be named by numbers, which sort otherwise, or not at all among words."""
    read: dict[str, Any] = json.loads(json.dumps(key, default=str))
    return read


class KeptFit:
    """The folder of one fit.

    Args:
        method: registry name.
        key: everything that decides the fit, JSON-able.
    """

    def __init__(self, method: str, key: Mapping[str, Any]) -> None:
        self.key = _as_read(key)
        self.folder = fits_root() / method / digest(key)[:32]

    @contextmanager
    def locked(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the folder against other processes that want the same fit; ``waiting`` is called if one of them is at it.

        What a killed process left there half done is removed.

        Raises:
            CacheError: the cache folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        try:
            alone = hold(handle, waiting)  # without locks both may train, and both write the same
            self._write_key()
            if alone:
                self._tidy()
            yield
        finally:
            os.close(handle)

    def _write_key(self) -> None:
        if not (self.folder / _KEY).is_file():
            text = json.dumps(self.key, indent=1)
            try:
                write_atomically(self.folder / _KEY, lambda path: path.write_text(text + "\n", encoding="utf-8"))
            except OSError as error:
                raise _unusable(self.folder, error) from error

    def _tidy(self) -> None:
        for left in self.folder.glob(f"*{TEMPORARY}"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        if self.facts() is not None:
            self._drop_work()

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
        """Of the finished fit, if there is one and its files are those that were written.

        Raises:
            UnreadableFitError: it belongs to another user.
        """
        try:
            stored = json.loads((self.folder / _FACTS).read_text(encoding="utf-8"))
            whole = stored["files"] == _digests(self.fitted)
            return FitFacts(stored["seconds"], stored["load_seconds"], stored["timing_group"], stored["session"]) if whole else None
        except PermissionError as error:  # another user's: no damage, and not to be replaced
            path = error.filename or self.folder
            raise UnreadableFitError(
                f"the kept fit {path} cannot be read: permission denied; ask its owner, or set SEPBENCH_CACHE to your own folder"
            ) from error
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def damaged(self) -> bool:
        """A fit was finished here, and its files are not those that were written."""
        return (self.folder / _FACTS).is_file() and self.facts() is None

    def spent(self) -> float:
        """Seconds that earlier sessions of an unfinished fit took, as far as they were noted; 0 where they left no checkpoint to go on from."""
        try:
            seconds = float((self.folder / _WORK / _SECONDS).read_text(encoding="utf-8"))
            return seconds if any(not entry.name.startswith(_SECONDS) for entry in (self.folder / _WORK).iterdir()) else 0.0
        except (OSError, ValueError):
            return 0.0

    def note_seconds(self, seconds: float) -> None:
        """Note how long an unfinished fit has taken; a fit that is killed loses no more than the time since.

        A cache that cannot be written is no error here: where a fit has failed, its own error is the one to tell.
        """
        with contextlib.suppress(OSError, CacheError):
            write_atomically(self.work() / _SECONDS, lambda path: path.write_text(f"{seconds:.3f}", encoding="utf-8"))

    def keep(self, save: Callable[[Path], None], facts: FitFacts) -> None:
        """Store a finished fit and drop its checkpoints.

        Raises:
            CacheError: the cache folder cannot be written.
            Exception: whatever ``save`` raises.
        """
        fresh = self.folder / f"{_FITTED}.{socket.gethostname()}-{os.getpid()}{TEMPORARY}"
        try:
            self.forget()
            self._write_key()  # somebody may have cleared the cache meanwhile
            shutil.rmtree(fresh, ignore_errors=True)  # of a process of the same number, where nothing can be locked and tidied
            fresh.mkdir()
            save(fresh)
            open_to_others(fresh)
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
            self._drop_work()
        except OSError as error:
            raise _unusable(self.folder, error) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def forget(self, *, checkpoints: bool = False) -> None:
        """Drop the finished fit, and with ``checkpoints`` the unfinished one.

        Raises:
            CacheError: the cache folder cannot be written.
        """
        try:
            (self.folder / _FACTS).unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        shutil.rmtree(self.fitted, ignore_errors=True)
        if checkpoints:
            self._drop_work()

    def begin_again(self, session: str) -> None:
        """For ``--refit``: drop the finished fit, and the unfinished one unless the same ``--refit`` began it, which goes on from its checkpoints.

        Raises:
            CacheError: the cache folder cannot be written.
        """
        path = self.folder / _REFIT
        try:
            began = path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            began = ""
        self.forget(checkpoints=began != session)
        if began != session:
            try:
                write_atomically(path, lambda temporary: temporary.write_text(session, encoding="utf-8"))
            except OSError as error:
                raise _unusable(path, error) from error

    def _drop_work(self) -> None:
        shutil.rmtree(self.folder / _WORK, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.folder / _REFIT).unlink(missing_ok=True)


class Stopwatch:
    """Notes the seconds of an unfinished fit every ten seconds, whenever the method tells of its progress."""

    def __init__(self, kept: KeptFit) -> None:
        self._kept = kept
        self._before = kept.spent()
        self._started = self._noted = time.monotonic()

    @property
    def before(self) -> float:
        """Seconds of earlier sessions."""
        return self._before

    def tick(self) -> None:
        if time.monotonic() - self._noted > _NOTE_EVERY:
            self.note()

    def note(self) -> None:
        """Note them now: the fit has failed or is interrupted."""
        self._noted = time.monotonic()
        self._kept.note_seconds(self._before + self._noted - self._started)


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
    for folder in _folders(method):
        try:
            key = json.loads((folder / _KEY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        facts = None
        with contextlib.suppress(UnreadableFitError):
            facts = KeptFit(folder.parent.name, key).facts()
        found.append(Entry(folder.parent.name, folder, key, facts, size))
    return found


def clear(method: str = "") -> int:
    """Remove all fits of the cache, or those of one method; returns how many there were.

    Raises:
        CacheError: something cannot be removed.
    """
    folders = _folders(method)
    for folder in folders:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise _unusable(folder, error) from error
    return len(folders)


def _folders(method: str) -> list[Path]:
    """Folders of fits, by method and age."""
    kept = [folder for one in fits_root().glob("*") if method in ("", one.name) for folder in one.glob("*") if folder.is_dir()]
    return sorted(kept, key=lambda path: (path.parent.name, path.stat().st_mtime))


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _unusable(path: Path, error: OSError) -> CacheError:
    return CacheError(f"cannot write {path}: {error.strerror or error}; free some space or set SEPBENCH_CACHE to a writable folder")
