"""Files that are whole or absent, and their digests."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

TEMPORARY = ".tmp"
"""How names of unfinished files end; whoever owns a folder may delete such files."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write through a temporary name, flush to the disk and rename: after a crash ``path`` holds its old content or all of the new.

    Args:
        path: the file.
        write: writes the content to the path that it is given.

    Raises:
        OSError: the file cannot be written; nothing is left of it then.
        Exception: whatever ``write`` raises.
    """
    with replacing(path) as temporary:
        write(temporary)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """``write_atomically`` as a block: it gets an empty file under a temporary name, which is flushed and renamed when the block ends.

    The temporary name carries host, process and thread, so that several machines may write into one shared folder. Missing folders are made.
    The file gets the mode that any new file in that folder gets (0666 less the umask), whatever the block leaves: some writers make files
    that their owner alone can read.

    Raises:
        OSError: the file cannot be written; nothing is left of it then.
    """
    temporary = path.with_name(f"{path.name}.{_owner()}{TEMPORARY}")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            flush(path.parent.parent)
        mode = _mode_of_new_file(temporary)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:
            temporary.chmod(mode)
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """A folder that is whole or absent: the block gets an empty folder beside it, which takes its name when the block ends.

    What an earlier attempt that was killed has left beside it is removed first. Two processes must not make the same folder at once.

    Args:
        folder: it must not be there, or be empty.

    Raises:
        OSError: it cannot be written, or holds something; nothing is left of the attempt then.
    """
    temporary = folder.with_name(f".{folder.name}{TEMPORARY}")
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        yield temporary
        for written in temporary.rglob("*"):
            flush(written)
        flush(temporary)
        temporary.replace(folder)
        flush(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _owner() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{threading.get_native_id()}"


def _mode_of_new_file(path: Path) -> int:
    """Make an empty file and look at its mode: ``os.umask`` cannot be asked without setting it, for every thread at once."""
    path.unlink(missing_ok=True)  # of a process that died and had the same number
    with path.open("xb") as handle:
        return stat.S_IMODE(os.fstat(handle.fileno()).st_mode)


def open_to_others(folder: Path) -> None:
    """Give every file of a folder the mode of a new file: some writers (safetensors) make files that their owner alone can read.

    Raises:
        OSError: the folder cannot be written.
    """
    probe = folder / f"mode{TEMPORARY}"
    mode = _mode_of_new_file(probe)
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def hold(handle: int, waiting: Callable[[], None] = lambda: None) -> bool:
    """Lock an open file or folder against other processes, until the handle is closed; whoever comes second waits here.

    Args:
        handle: of ``os.open``.
        waiting: called once if another process holds the lock.

    Returns:
        False on a file system without locks: nothing is held then.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def holding_folder(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes that hold this folder too out of it while the block runs.

    The folder itself is locked, so no lock file stays in it. It is made if it is missing. Where it cannot be made, opened or locked the block runs
    without a lock: what cannot be written says so itself.

    Args:
        folder: need not be there.
        waiting: called once if another process holds it.
    """
    handle = _folder_handle(folder)
    try:
        if handle is not None:
            hold(handle, waiting)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _folder_handle(folder: Path) -> int | None:
    """Of a folder that is made if it is missing; None where that fails."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None


def check_readable(path: Path) -> None:
    """Open a file and close it again, for libraries (safetensors, pyarrow) that call every file missing or damaged that they cannot open.

    Raises:
        OSError: why it cannot be opened.
    """
    with path.open("rb"):
        pass


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex.

    Raises:
        OSError: it cannot be read.
    """
    return file_digest(path, "sha256")


def file_digest(path: Path, algorithm: str) -> str:
    """Digest of a file's content by any algorithm of ``hashlib``, in hex; read in pieces.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()
