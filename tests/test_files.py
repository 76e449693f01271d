"""Files are whole or absent, readable by whom the umask says, and known by their digests."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sepbench import files
from sepbench.files import check_readable, file_digest, file_sha256, holding_folder, making_folder, open_to_others, replacing, write_atomically


@contextmanager
def _umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def _private(path: Path) -> None:
    path.unlink()
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("a"),
    "safetensors": lambda path: save_file({"a": torch.zeros(2)}, path),  # makes a file of its own, of mode 0600
    "torch": lambda path: torch.save({"a": 1}, path),
    "private": _private,
    "open to all": lambda path: path.chmod(0o777),
}


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o000])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_written_file_has_the_mode_that_the_umask_gives(tmp_path: Path, writer: str, umask: int) -> None:
    with _umask(umask):
        write_atomically(tmp_path / "a", WRITERS[writer])
        assert os.umask(umask) == umask  # and the umask is as it was
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_what_replaces_a_file_has_its_own_mode(tmp_path: Path) -> None:
    (tmp_path / "a").touch(0o600)
    with _umask(0o022):
        write_atomically(tmp_path / "a", WRITERS["safetensors"])
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_writer_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    def half(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("the disk is full")

    write_atomically(tmp_path / "deep" / "a", WRITERS["text"])
    with pytest.raises(RuntimeError, match="the disk is full"):
        write_atomically(tmp_path / "deep" / "a", half)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "deep" / "a" / "b", WRITERS["text"])
    assert [(path.name, path.read_text()) for path in (tmp_path / "deep").iterdir()] == [("a", "a")]


def test_several_files_appear_when_the_block_ends(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "b") as second:
        first.write_text("1")
        second.write_text("2")
        assert not (tmp_path / "a").exists()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "1", "b": "2"}


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path: Path) -> None:
    contents, failed = [str(number) * 100_000 for number in range(8)], []

    def work(content: str) -> None:
        try:
            for _ in range(20):
                write_atomically(tmp_path / "a", lambda path: path.write_text(content))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() in contents


def test_kill_9_leaves_a_whole_file(tmp_path: Path) -> None:
    """A process writes ever longer files of one letter, each of its own length, until it is killed."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom sepbench.files import write_atomically\n"
        "n = 0\nwhile True:\n    n += 1\n    write_atomically(Path(sys.argv[1]), lambda path: path.write_text(f'{n} ' + 'x' * n * 1000))\n"
    )
    for _ in range(3):
        path = tmp_path / "a"
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        while not path.exists() and process.poll() is None:
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        number, _, rest = path.read_text().partition(" ")
        assert len(rest) == 1000 * int(number)


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert file_digest(tmp_path / "a", "md5") == hashlib.md5(b"abc" * 100_000).hexdigest()
    with pytest.raises(OSError):
        file_sha256(tmp_path / "b")


def test_files_of_others_writers_are_opened_to_others(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b"):
        (tmp_path / name).write_text("1")
        (tmp_path / name).chmod(0o600)
    with _umask(0o022):
        open_to_others(tmp_path)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()} == {"a": 0o644, "b": 0o644}


def _make_folder(folder: Path, name: str, error: BaseException | None = None) -> None:
    with making_folder(folder) as place:
        (place / name).touch()
        if error is not None:
            raise error


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with pytest.raises(KeyboardInterrupt):
        _make_folder(folder, "first", KeyboardInterrupt())
    assert list((tmp_path / "deep").iterdir()) == []
    _make_folder(folder, "first")
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["out", "first"]
    with pytest.raises(OSError):
        _make_folder(folder, "second")  # it holds something
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["out", "first"]


def _flushed(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[tuple[str, bool]]:
    """What is waited for until it is on the disk, and whether ``out`` was there by then."""
    seen: list[tuple[str, bool]] = []
    real = files.flush

    def flush(path: Path) -> None:
        real(path)
        seen.append((path.relative_to(root).as_posix().replace(files._owner(), "OWNER"), any(root.rglob("out"))))

    monkeypatch.setattr(files, "flush", flush)
    return seen


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _flushed(monkeypatch, tmp_path)
    write_atomically(tmp_path / "new" / "out", WRITERS["text"])
    assert seen == [(".", False), ("new/out.OWNER.tmp", False), ("new", True)]
    seen.clear()
    write_atomically(tmp_path / "new" / "out", WRITERS["text"])
    assert [path for path, _ in seen] == ["new/out.OWNER.tmp", "new"]


@pytest.mark.skipif(os.name != "posix", reason="posix.fsync is the call that conftest.py takes away")
def test_the_disk_is_waited_for_by_file_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import posix

    waited: list[int] = []

    def watched(handle: int) -> None:
        posix.fsync(handle)
        waited.append(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", watched)
    (tmp_path / "a").write_text("a")
    files.flush(tmp_path / "a")
    files.flush(tmp_path)
    assert waited == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _flushed(monkeypatch, tmp_path)
    with making_folder(tmp_path / "out") as place:
        (place / "deep").mkdir()
        (place / "deep" / "a").touch()
    assert sorted(seen[:2]) == [(".out.tmp/deep", False), (".out.tmp/deep/a", False)]
    assert seen[2:] == [(".out.tmp", False), (".", True)]


def test_what_an_attempt_that_was_killed_has_left_is_removed_first(tmp_path: Path) -> None:
    (tmp_path / ".out.tmp").mkdir()
    (tmp_path / ".out.tmp" / "half").touch()
    with making_folder(tmp_path / "out") as place:
        assert place == tmp_path / ".out.tmp"
        assert list(place.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    owned = tmp_path / f"a.{files._owner()}.tmp"
    owned.write_text("of a process of the same number")
    with replacing(tmp_path / "a") as place:
        assert place == owned
        assert place.read_text() == ""


def test_links_and_folders_keep_their_modes(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch(0o600)
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "deep").mkdir(0o700)
    (inside / "link").symlink_to(outside)
    (inside / "nowhere").symlink_to("gone")
    with _umask(0o022):
        open_to_others(inside)
    assert (stat.S_IMODE(outside.stat().st_mode), stat.S_IMODE((inside / "deep").stat().st_mode)) == (0o600, 0o700)
    assert sorted(path.name for path in inside.iterdir()) == ["deep", "link", "nowhere"]


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    check_readable(tmp_path / "a")
    for path, error in ((tmp_path / "b", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(error):
            check_readable(path)


def test_a_write_that_is_interrupted_leaves_nothing_and_one_below_a_file_says_so(tmp_path: Path) -> None:
    def interrupted(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", interrupted)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file" / "b", WRITERS["text"])


def test_a_block_that_takes_the_temporary_file_away_fails_with_its_own_error(tmp_path: Path) -> None:
    def taken(path: Path) -> None:
        path.unlink()
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        write_atomically(tmp_path / "a", taken)
    assert list(tmp_path.iterdir()) == []


def test_temporary_names_differ_between_machines_processes_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {files._owner()}
    for owner, name, value in ((files.socket, "gethostname", "elsewhere"), (os, "getpid", 123_456_789), (threading, "get_native_id", 987_654_321)):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, lambda value=value: value)
            names.add(files._owner())
    assert len(names) == 4


def test_no_file_stays_open(tmp_path: Path) -> None:
    there = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    _make_folder(tmp_path / "out", "a")
    write_atomically(tmp_path / "new" / "b", WRITERS["text"])
    check_readable(tmp_path / "new" / "b")
    file_sha256(tmp_path / "new" / "b")
    assert len(os.listdir("/proc/self/fd")) <= there  # noqa: PTH208 - fewer where an older file was collected meanwhile


def test_whoever_holds_a_folder_second_waits_until_the_first_is_done_and_no_file_stays(tmp_path: Path) -> None:
    folder, waited, order = tmp_path / "new" / "boards", threading.Event(), []

    def second() -> None:
        with holding_folder(folder, waited.set):
            order.append("second")

    with holding_folder(folder, lambda: pytest.fail("nobody is there")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert list(folder.iterdir()) == []
    with pytest.raises(KeyError), holding_folder(folder):
        raise KeyError
    with holding_folder(folder, lambda: pytest.fail("it was let go")):
        pass


def test_a_folder_that_cannot_be_made_opened_or_locked_is_not_held_and_its_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")  # opened like a folder it would wait for ever
    ran = []
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "pipe"):
        with holding_folder(folder, lambda: pytest.fail("nobody is there")):
            ran.append(folder.name)

    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with holding_folder(tmp_path / "new", lambda: pytest.fail("nobody is there")):
        ran.append((tmp_path / "new").name)
    assert ran == ["file", "below", "pipe", "new"]
    assert (tmp_path / "new").is_dir()
    assert len(os.listdir("/proc/self/fd")) <= there  # noqa: PTH208 - fewer where an older file was collected meanwhile
