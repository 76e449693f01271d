"""The folder of a kept fit, call by call: what is digested, what is removed, what is noted, and what is said where a file cannot be read or written."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sepbench.errors import DataError
from sepbench.run import fit_cache
from sepbench.run.fit_cache import CacheError, FitFacts, KeptFit, Stopwatch, UnreadableFitError, clear, digest, entries, fits_root

FACTS = FitFacts(12.5, 1.25, "cpu:x", "session 1")


@pytest.fixture(autouse=True)
def root(data_home: Path) -> Path:
    return data_home / "cache" / "fits"


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that was not let go would hold these tests up for ever."""
    real = fcntl.flock

    def flock(handle: int, how: int) -> None:
        assert how & fcntl.LOCK_NB, "no other process is here to wait for"
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def kept() -> KeptFit:
    """A finished fit of two files, one of them in a folder."""
    fit = KeptFit("learner", {"seed": 0})
    with fit.locked():
        fit.keep(_save, FACTS)
    return fit


def _save(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "b.bin").write_bytes(b"bb")
    (folder / "a.bin").write_bytes(b"a")


def test_a_folder_is_called_after_its_method_and_the_digest_of_its_key(root: Path) -> None:
    key = {"b": {2: "x", 10: Path("p/q")}, "a": (1, None)}
    text = '{"a": [1, null], "b": {"10": "p/q", "2": "x"}}'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert digest(key) == digest(dict(reversed(key.items()))) == expected
    fit = KeptFit("m", key)
    assert fit.folder == root / "m" / expected[:32]
    assert fit.key == json.loads(text)
    assert (fit.fitted, fit.work()) == (fit.folder / "fitted", fit.folder / "work")
    assert fit.work().is_dir()
    with fit.locked():
        assert (fit.folder / "key.json").read_text() == json.dumps({"b": {"2": "x", "10": "p/q"}, "a": [1, None]}, indent=1) + "\n"
    (fit.folder / "key.json").write_text("mine")
    with fit.locked():
        assert (fit.folder / "key.json").read_text() == "mine"  # written once


def test_a_finished_fit_says_what_it_took_and_what_it_holds(kept: KeptFit) -> None:
    stored = json.loads((kept.folder / "fit.json").read_text())
    assert datetime.fromisoformat(stored.pop("created")).utcoffset() == timedelta(0)
    assert stored == {
        **{"seconds": 12.5, "load_seconds": 1.25, "timing_group": "cpu:x", "session": "session 1"},
        "files": {name: hashlib.sha256(text).hexdigest() for name, text in (("a.bin", b"a"), ("deep/b.bin", b"bb"))},
    }
    assert (kept.facts(), kept.damaged) == (FACTS, False)
    assert KeptFit("learner", {"seed": 0}).facts() == FACTS
    assert (KeptFit("learner", {"seed": 1}).facts(), KeptFit("learner", {"seed": 1}).damaged) == (None, False)


DAMAGE: dict[str, Callable[[KeptFit], object]] = {
    "changed": lambda fit: (fit.fitted / "deep" / "b.bin").write_bytes(b"bc"),
    "lost": lambda fit: (fit.fitted / "deep" / "b.bin").unlink(),
    "one more": lambda fit: (fit.fitted / "deep" / "c.bin").write_bytes(b""),
    "renamed": lambda fit: (fit.fitted / "a.bin").rename(fit.fitted / "c.bin"),
    "no folder": lambda fit: shutil.rmtree(fit.fitted),
    **{
        f"without {name}": lambda fit, name=name: (fit.folder / "fit.json").write_text(
            json.dumps({key: value for key, value in json.loads((fit.folder / "fit.json").read_text()).items() if key != name})
        )
        for name in ("seconds", "load_seconds", "timing_group", "session", "files")
    },
    **{f"{text} in its place": lambda fit, text=text: (fit.folder / "fit.json").write_text(text) for text in ("", "[]", "null", "3")},
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_not_as_it_was_written_is_damaged(kept: KeptFit, what: str) -> None:
    DAMAGE[what](kept)
    assert (kept.facts(), kept.damaged) == (None, True)


@pytest.mark.parametrize("named", [True, False])
def test_a_fit_of_another_user_is_told_by_its_file_or_else_by_its_folder(kept: KeptFit, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, "denied", *([str(path)] if named else []))

    monkeypatch.setattr(fit_cache, "file_sha256", refuse)
    place = kept.fitted / "a.bin" if named else kept.folder
    with pytest.raises(UnreadableFitError) as refused:
        kept.facts()
    assert str(refused.value) == f"the kept fit {place} cannot be read: permission denied; ask its owner, or set SEPBENCH_CACHE to your own folder"
    (entry,) = entries()
    assert (entry.facts, entry.folder) == (None, kept.folder)


# ---- what goes and what stays ----------------------------------------------------------------------------------------------------------


def test_a_fit_that_is_kept_takes_the_place_of_all_that_was_there(kept: KeptFit) -> None:
    (kept.work() / "checkpoint").touch()
    (kept.folder / "key.json").unlink()  # somebody has cleared the cache meanwhile
    fresh = kept.folder / f"fitted.{socket.gethostname()}-{os.getpid()}.tmp"
    fresh.mkdir()
    (fresh / "of a process of the same number").touch()
    kept.keep(lambda folder: (folder / "new").touch(), FitFacts(1.0, 0.5, "g"))
    assert [path.name for path in kept.fitted.iterdir()] == ["new"]
    assert kept.facts() == FitFacts(1.0, 0.5, "g", "")
    assert sorted(path.name for path in kept.folder.iterdir()) == ["fit.json", "fitted", "key.json", "lock"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError("odd"), ValueError("not saved")], ids=str)
def test_a_fit_that_cannot_be_saved_leaves_its_checkpoints_and_nothing_half_done(kept: KeptFit, error: Exception) -> None:
    (kept.work() / "checkpoint").touch()

    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise error

    with pytest.raises(CacheError if isinstance(error, OSError) else ValueError) as refused:
        kept.keep(fails, FACTS)
    if isinstance(error, OSError):
        what = "No space left on device" if error.errno else "odd"
        assert str(refused.value) == f"cannot write {kept.folder}: {what}; free some space or set SEPBENCH_CACHE to a writable folder"
    assert sorted(path.name for path in kept.folder.iterdir()) == ["key.json", "lock", "work"]
    assert (kept.facts(), kept.damaged) == (None, False)


@pytest.mark.parametrize(("checkpoints", "left"), [(False, ["key.json", "lock", "work"]), (True, ["key.json", "lock"])])
def test_a_fit_is_forgotten_with_its_checkpoints_or_without(kept: KeptFit, checkpoints: bool, left: list[str]) -> None:
    for _ in range(2):  # and once more, where nothing is
        (kept.work() / "checkpoint").touch()
        kept.forget(checkpoints=checkpoints)
        assert sorted(path.name for path in kept.folder.iterdir()) == left


def test_a_new_fit_goes_on_from_the_checkpoints_of_those_who_asked_for_it(kept: KeptFit) -> None:
    (kept.work() / "checkpoint").touch()  # of nobody who asked for a new fit
    for name, goes_on in (("one", False), ("one", True), ("two", False), ("one", False)):
        kept.begin_again(name)
        assert (kept.work() / "checkpoint").exists() == goes_on
        (kept.work() / "checkpoint").touch()
    assert (kept.folder / "refit").read_text() == "one"
    (kept.folder / "refit").write_bytes(b"\xff")
    kept.begin_again("one")
    assert [path.name for path in kept.work().iterdir()] == []
    kept.keep(lambda folder: (folder / "learnt").touch(), FACTS)
    assert sorted(path.name for path in kept.folder.iterdir()) == ["fit.json", "fitted", "key.json", "lock"]
    kept.begin_again("one")  # it asks for one that is not there, as a finished fit that cannot be loaded
    assert (kept.facts(), kept.fitted.exists()) == (None, False)
    (kept.folder / "refit").unlink()
    (kept.folder / "refit").mkdir()
    with pytest.raises(CacheError, match=r"^cannot write .*/refit: Is a directory; free some space or set SEPBENCH_CACHE to a writable folder$"):
        kept.begin_again("two")


def test_what_killed_processes_left_is_removed_where_the_folder_is_held(kept: KeptFit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where locks are unknown another process may be at work there, and its files stay; both train then."""

    def lay_down() -> None:
        (kept.folder / "fitted.a-1.tmp" / "deep").mkdir(parents=True)
        (kept.folder / "key.json.a-1.tmp").touch()
        (kept.work() / "checkpoint").touch()

    def unknown(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    lay_down()
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", unknown)
        with kept.locked(lambda: pytest.fail("nobody is waited for")):
            names = sorted(path.name for path in kept.folder.iterdir())
    assert names == ["fit.json", "fitted", "fitted.a-1.tmp", "key.json", "key.json.a-1.tmp", "lock", "work"]
    with kept.locked():
        assert sorted(path.name for path in kept.folder.iterdir()) == ["fit.json", "fitted", "key.json", "lock"]


def test_a_lock_is_let_go_when_the_block_ends_or_fails(kept: KeptFit) -> None:
    with pytest.raises(RuntimeError), kept.locked():
        raise RuntimeError
    with kept.locked(lambda: pytest.fail("it is free")), KeptFit("learner", {"seed": 1}).locked(lambda: pytest.fail("another fit")):
        pass


def test_folders_that_cannot_be_made_are_one_line(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "learner").write_text("a file")
    fit = KeptFit("learner", {"seed": 0})
    end = "Not a directory; free some space or set SEPBENCH_CACHE to a writable folder"
    calls: dict[Path, Callable[[], Any]] = {fit.folder: lambda: fit.locked().__enter__(), fit.folder / "work": fit.work}
    for place, call in calls.items():
        with pytest.raises(CacheError) as refused:
            call()
        assert str(refused.value) == f"cannot write {place}: {end}"
    with pytest.raises(CacheError) as refused:
        fit.forget()
    assert str(refused.value) == f"cannot write {fit.folder}: {end}"


@pytest.mark.parametrize("call", ["locked", "keep"])
def test_a_key_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(path: Path, write: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    fit = KeptFit("learner", {"seed": 0})
    fit.work()
    monkeypatch.setattr(fit_cache, "write_atomically", full)
    with pytest.raises(CacheError, match=r"^cannot write .*: No space left on device; "):
        fit.locked().__enter__() if call == "locked" else fit.keep(_save, FACTS)


# ---- seconds of an unfinished fit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noted", "others", "seconds"),
    [
        (None, ["c"], 0.0),
        ("40.5", [], 0.0),
        ("40.5", [".seconds.x.tmp"], 0.0),
        ("40.5", ["c"], 40.5),
        ("40.5", [".seconds.x.tmp", "c"], 40.5),
        ("?", ["c"], 0.0),
    ],
)
def test_seconds_of_earlier_sessions_count_where_a_checkpoint_is(noted: str | None, others: list[str], seconds: float) -> None:
    fit = KeptFit("learner", {"seed": 0})
    assert fit.spent() == 0.0
    for name in others:
        (fit.work() / name).touch()
    if noted is not None:
        (fit.work() / ".seconds").write_text(noted)
    assert fit.spent() == Stopwatch(fit).before == seconds


def test_seconds_are_noted_every_ten_seconds_and_on_top_of_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(fit_cache, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))
    fit = KeptFit("learner", {"seed": 0})
    (fit.work() / "checkpoint").touch()
    fit.note_seconds(30.0)
    noted = fit.work() / ".seconds"
    assert noted.read_text() == "30.000"
    watch = Stopwatch(fit)
    for clock, text in ((110.0, "30.000"), (110.5, "40.500"), (120.5, "40.500"), (121.0, "51.000")):
        now[0] = clock
        watch.tick()
        assert noted.read_text() == text
    now[0] = 122.0
    watch.note()
    assert (noted.read_text(), watch.before) == ("52.000", 30.0)


def test_seconds_that_cannot_be_noted_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, write: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    fit = KeptFit("learner", {"seed": 0})
    fit.folder.parent.mkdir(parents=True)
    fit.folder.touch()  # a file where the folder was
    fit.note_seconds(1.0)
    fit.folder.unlink()
    monkeypatch.setattr(fit_cache, "write_atomically", full)
    fit.note_seconds(1.0)


# ---- the whole cache -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(root: Path) -> list[Path]:
    """Two fits of b, the older first, and one of a; files and a folder without a key, which count as no fits."""
    folders = []
    for age, (method, seed) in enumerate((("b", 2), ("b", 1), ("a", 0))):
        fit = KeptFit(method, {"seed": seed})
        with fit.locked():
            (fit.work() / "bytes").write_bytes(bytes(1_500_000 * (1 + age)))
        os.utime(fit.folder, (1e9 + 10 * age, 1e9 + 10 * age))
        folders.append(fit.folder)
    (root / "a" / "file").touch()
    (root / "b" / "no-key").mkdir()
    (root / "b" / "bad-key").mkdir()
    (root / "b" / "bad-key" / "key.json").write_text("{")
    for name in ("no-key", "bad-key"):
        os.utime(root / "b" / name, (1e9 - 10, 1e9 - 10))  # older than any fit: what comes after them is listed
    (root / "loose").touch()
    return folders


@pytest.mark.parametrize(("method", "found"), [("", [2, 0, 1]), ("a", [2]), ("b", [0, 1]), ("c", [])])
def test_fits_are_listed_by_method_and_age(cache: list[Path], method: str, found: list[int]) -> None:
    listed = entries(method)
    assert [one.folder for one in listed] == [cache[number] for number in found]
    assert [(one.method, one.key) for one in listed] == [(("b", "b", "a")[number], {"seed": (2, 1, 0)[number]}) for number in found]
    assert [round(one.megabytes, 3) for one in listed] == [1.5 * (1 + number) for number in found]
    assert [one.facts for one in listed] == [None] * len(found)


@pytest.mark.parametrize(("method", "removed", "left"), [("", 5, []), ("a", 1, [0, 1]), ("b", 4, [2]), ("c", 0, [2, 0, 1])])
def test_a_cache_is_cleared_whole_or_by_method(cache: list[Path], root: Path, method: str, removed: int, left: list[int]) -> None:
    assert clear(method) == removed
    assert [one.folder for one in entries()] == [cache[number] for number in left]
    assert (root / "a" / "file").exists()
    assert clear(method) == 0


def test_a_fit_that_cannot_be_removed_is_one_line(cache: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(CacheError) as refused:
        clear("a")
    assert str(refused.value) == f"cannot write {cache[2]}: Permission denied; free some space or set SEPBENCH_CACHE to a writable folder"


def test_a_cache_that_nobody_has_used_is_empty(root: Path) -> None:
    assert fits_root() == root
    assert (entries(), clear()) == ([], 0)


def test_without_a_home_folder_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEPBENCH_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *args, **options: "~/.cache/sepbench")
    with pytest.raises(DataError, match="set HOME, or set SEPBENCH_CACHE"):
        fits_root()
