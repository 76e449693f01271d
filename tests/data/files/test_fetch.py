"""Lookup, fetching and verification against a server on this machine; the outside network is never touched."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from sepbench.data.files.fetch import cache_folder, data_folders, fetch, locate, obtain, offline, status, verify
from sepbench.data.files.integrity import MANY_FILES, check_file, check_files
from sepbench.data.files.manifests import DataFile, Manifest, load_manifest
from sepbench.errors import DataError

A, B = bytes(range(256)) * 1000, b"label" * 77


def entry(name: str, content: bytes, *urls: str, form: str = "", optional: bool = False) -> DataFile:
    return DataFile(name, len(content), sha256=hashlib.sha256(content).hexdigest(), urls=urls, form=form, optional=optional)


def toy(*files: DataFile) -> Manifest:
    return Manifest("toy", "t", "l", "c", "h", files)


@pytest.fixture
def served(data_home, file_server):
    """A server with two files and a manifest whose first mirror works."""
    file_server.files = {"a.bin": A, "sub/b.bin": B}
    file_server.manifest = toy(entry("a.bin", A, file_server.url("good", "a.bin")), entry("sub/b.bin", B, file_server.url("good", "sub/b.bin")))
    return file_server


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    attempts: list[object] = []

    def refuse(*arguments: object, **options: object) -> None:
        attempts.append(arguments)
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


def put(root: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        path = root / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / "toy"


def leftovers(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- fetching


def test_files_are_fetched_into_the_cache_with_progress(served) -> None:
    seen: list[tuple[str, int, int]] = []
    folder = fetch(served.manifest, lambda *report: seen.append(report))
    assert folder == cache_folder() / "toy"
    assert (folder / "a.bin").read_bytes() == A
    assert (folder / "sub/b.bin").read_bytes() == B
    assert leftovers(folder) == {"a.bin", "sub/b.bin"}
    for name, content in (("a.bin", A), ("sub/b.bin", B)):
        done = [d for n, d, _ in seen if n == name]
        assert done == sorted(done)
        assert done[-1] == len(content)
        assert {total for n, _, total in seen if n == name} == {len(content)}


def test_files_are_asked_for_as_they_are_stored(served) -> None:
    # Some stores unpack .gz files for clients that accept gzip as a transfer encoding; the checksum would then never agree.
    fetch(served.manifest)
    assert served.encodings == ["identity", "identity"]


def test_what_is_there_is_not_fetched_again(served) -> None:
    fetch(served.manifest)
    served.requests.clear()
    assert fetch(served.manifest) == locate(served.manifest)
    assert served.requests == []


@pytest.mark.parametrize("bad", ["broken", "wrong", "absent"])
def test_the_next_mirror_is_tried(served, bad: str) -> None:
    manifest = toy(entry("a.bin", A, served.url(bad, "a.bin"), served.url("good", "a.bin")))
    assert (fetch(manifest) / "a.bin").read_bytes() == A
    assert served.requests == [f"/{bad}/a.bin", "/good/a.bin"]
    assert leftovers(cache_folder() / "toy") == {"a.bin"}


def test_a_dead_host_is_only_one_mirror_down(served) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}/a.bin"
    assert (fetch(toy(entry("a.bin", A, dead, served.url("good", "a.bin")))) / "a.bin").read_bytes() == A
    with pytest.raises(DataError, match="no connection"):
        fetch(toy(entry("b.bin", B, dead)))


def test_a_wrong_checksum_is_an_error_with_both_digests_and_leaves_nothing(served) -> None:
    manifest = toy(entry("a.bin", A, served.url("wrong", "a.bin")))
    with pytest.raises(DataError, match=r"cannot download a\.bin") as caught:
        fetch(manifest)
    message = str(caught.value)
    assert hashlib.sha256(A).hexdigest() in message
    assert hashlib.sha256(A[::-1]).hexdigest() in message
    assert "\n" not in message
    assert leftovers(cache_folder()) == set()


def test_every_mirror_down_names_each_and_keeps_the_files_already_fetched(served) -> None:
    manifest = toy(entry("a.bin", A, served.url("good", "a.bin")), entry("sub/b.bin", B, served.url("absent", "sub/b.bin"), served.url("broken", "sub/b.bin")))
    with pytest.raises(DataError, match=r"HTTP 404.*broke off") as caught:
        fetch(manifest)
    assert "\n" not in str(caught.value)
    assert leftovers(cache_folder() / "toy") == {"a.bin"}
    served.requests.clear()
    mended = toy(manifest.files[0], entry("sub/b.bin", B, served.url("good", "sub/b.bin")))
    fetch(mended)
    assert served.requests == ["/good/sub/b.bin"]


def test_md5_serves_where_no_sha256_is_known(served) -> None:
    def file(kind: str, digest: str) -> DataFile:
        return DataFile("a.bin", len(A), md5=digest, urls=(served.url(kind, "a.bin"),))

    right = hashlib.md5(A).hexdigest()
    with pytest.raises(DataError, match=f"wrong md5 .*expected {right}"):
        fetch(toy(file("wrong", right)))
    fetch(toy(file("good", right)))
    assert [check.state for check in verify(toy(file("good", right)))] == ["ok"]


def test_an_unwritable_cache_is_one_clear_line(served, data_home: Path) -> None:
    blocked = data_home / "blocked"
    blocked.write_text("a file where the cache folder should be")
    os.environ["SEPBENCH_CACHE"] = str(blocked / "cache")  # undone by monkeypatch in data_home
    with pytest.raises(DataError, match=r"cannot write .*SEPBENCH_CACHE"):
        fetch(served.manifest)


@pytest.mark.parametrize("damage", [A[:100], A[::-1]], ids=["size", "content"])
def test_a_damaged_file_in_the_cache_is_replaced(served, damage: bytes) -> None:
    folder = fetch(served.manifest)
    (folder / "a.bin").write_bytes(damage)
    os.utime(folder / "a.bin", ns=(1, 1))
    with pytest.raises(DataError, match="sepbench data fetch toy"):
        locate(served.manifest)
    served.requests.clear()
    fetch(served.manifest)
    assert served.requests == ["/good/a.bin"]
    assert locate(served.manifest) == folder


# --- offline and missing


def test_offline_never_touches_the_network(data_home: Path, no_network: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home))
    with pytest.raises(DataError) as caught:
        fetch(load_manifest("mnist"))
    message = str(caught.value)
    for part in ("t10k-labels-idx1-ubyte.gz", str(data_home / "mnist"), str(data_home / "cache" / "mnist"), "SEPBENCH_OFFLINE", "put the files there"):
        assert part in message
    assert "\n" not in message
    assert no_network == []
    # The control: online, the same call does try.
    monkeypatch.delenv("SEPBENCH_OFFLINE")
    with pytest.raises(DataError, match="no connection"):
        fetch(load_manifest("mnist"))
    assert no_network


@pytest.mark.parametrize(("value", "expected"), [("", False), ("0", False), ("false", False), ("no", False), ("1", True), ("true", True), ("yes", True)])
def test_offline_reads_the_usual_words(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", value)
    assert offline() is expected


def test_data_that_cannot_be_downloaded_say_which_files_to_put_where(data_home: Path, no_network: list[object]) -> None:
    with pytest.raises(DataError, match=r"no bags/test\.npy, shoes/test\.npy in .*bags-shoes-mini.*not offered for download") as caught:
        fetch(load_manifest("bags-shoes-mini"))
    assert "SEPBENCH_DATA" in str(caught.value)
    assert no_network == []


def test_locate_does_not_download(served) -> None:
    with pytest.raises(DataError, match="run 'sepbench data fetch toy'"):
        locate(served.manifest)
    assert served.requests == []


# --- lookup


def test_sepbench_data_comes_before_the_cache(served, data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = fetch(served.manifest)
    own = put(data_home / "own", {"a.bin": A, "sub/b.bin": B})
    assert locate(served.manifest) == cached
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own"))
    assert locate(served.manifest) == own
    assert data_folders() == [data_home / "own", cache_folder()]
    (own / "sub/b.bin").unlink()
    assert locate(served.manifest) == cached


def test_sepbench_data_pointing_nowhere_is_a_clear_error(served, data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "nowhere"))
    for call in (locate, fetch, verify, status):
        with pytest.raises(DataError, match="nowhere is not a folder"):
            call(served.manifest)
    assert served.requests == []


def test_a_damaged_file_of_the_users_own_is_reported_and_left_alone(served, data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = put(data_home / "own", {"a.bin": A[::-1], "sub/b.bin": B})
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own"))
    with pytest.raises(DataError, match=r"wrong sha256 .*replace the file"):
        fetch(served.manifest)
    assert (own / "a.bin").read_bytes() == A[::-1]
    assert served.requests == []


def test_any_complete_form_will_do(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = toy(entry("packed.gz", A, form="packed"), entry("x", A, form="plain"), entry("y", B, form="plain"))
    own = put(data_home / "own", {"x": A})
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own"))
    with pytest.raises(DataError, match="no y in"):
        obtain(manifest)
    put(data_home / "own", {"y": B})
    assert (obtain(manifest).folder, obtain(manifest).form) == (own, "plain")
    put(data_home / "own", {"packed.gz": A})
    assert obtain(manifest).form == "packed"


def test_status_tells_the_five_states(served, data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(served.manifest).state == "missing"
    assert status(load_manifest("digits")).state == "built-in"
    own = put(data_home / "own", {"a.bin": A})
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own"))
    assert (status(served.manifest).state, status(served.manifest).folder) == ("incomplete", own)
    put(data_home / "own", {"sub/b.bin": B})
    assert status(served.manifest).state == "present"
    put(data_home / "own", {"a.bin": A + b"x"})
    assert status(served.manifest).state == "damaged"


# --- verification


def test_verify_reports_every_kind_of_fault_with_what_was_found(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = put(data_home / "own", {"right": A, "short": A[:7], "flipped": A[::-1]})
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own"))
    files = [entry(name, A) for name in ("right", "short", "flipped", "absent")]
    checks = verify(toy(*files, entry("readme", B, optional=True)))
    assert [(check.name, check.state) for check in checks] == [("right", "ok"), ("short", "wrong size"), ("flipped", "wrong sha256"), ("absent", "missing")]
    assert (checks[1].found, checks[1].expected) == ("7", str(len(A)))
    assert (checks[2].found, checks[2].expected) == (hashlib.sha256(A[::-1]).hexdigest(), hashlib.sha256(A).hexdigest())
    assert str(own / "flipped") in checks[2].describe()
    put(data_home / "own", {"readme": A})
    assert verify(toy(*files, entry("readme", B, optional=True)))[-1].state == "wrong size"


def test_a_stamp_spares_hashing_and_verify_does_not_trust_it(data_home: Path) -> None:
    folder, stamps = put(data_home / "own", {"a.bin": A}), data_home / "stamps"
    file = entry("a.bin", A)
    assert check_file(file, folder, stamps).ok
    times = (folder / "a.bin").stat().st_mtime_ns
    (folder / "a.bin").write_bytes(A[::-1])  # same size, and below the same time: only reading it tells
    os.utime(folder / "a.bin", ns=(times, times))
    assert check_file(file, folder, stamps).ok
    assert check_file(file, folder, stamps, rehash=True).state == "wrong sha256"
    assert check_file(file, folder, stamps).state == "wrong sha256"  # and the stamp is gone


@pytest.fixture
def many(data_home: Path) -> tuple[Path, list[DataFile]]:
    """As many small files as share a stamp."""
    contents = {f"sub/{n}.bin": n.to_bytes(4, "big") for n in range(MANY_FILES)}
    return put(data_home / "own", contents), [entry(name, content) for name, content in contents.items()]


def test_many_files_share_a_stamp_that_verify_does_not_trust(many: tuple[Path, list[DataFile]], data_home: Path) -> None:
    folder, files = many
    stamps = data_home / "stamps"
    assert check_files(files, folder, stamps) == []
    assert len(list(stamps.iterdir())) == 1
    assert [check.state for check in check_files(files, folder, stamps, rehash=True)] == ["ok"] * MANY_FILES
    path = folder / "sub/7.bin"
    times = path.stat().st_mtime_ns
    path.write_bytes(b"abcd")
    os.utime(path, ns=(times, times))
    assert check_files(files, folder, stamps) == []  # same size, and below the same time: only reading it tells
    for rehash in (True, False):  # and the stamp is gone
        assert [check.name for check in check_files(files, folder, stamps, rehash=rehash) if not check.ok] == ["sub/7.bin"]


def test_one_changed_file_of_many_is_always_noticed(many: tuple[Path, list[DataFile]], data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, files = many
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own"))
    assert locate(toy(*files)) == folder
    path = folder / "sub/42.bin"
    path.write_bytes(b"abcd")
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=r"42\.bin has the wrong sha256"):
        locate(toy(*files))
    path.write_bytes(b"abc")
    with pytest.raises(DataError, match=r"42\.bin has the wrong size"):
        locate(toy(*files))
    path.unlink()
    with pytest.raises(DataError, match=r"no sub/42\.bin in .*; it is not offered for download, get it from h and put the files there yourself"):
        locate(toy(*files))
    assert [check.state for check in verify(toy(*files)) if not check.ok] == ["missing"]


def test_a_message_names_a_few_missing_files_and_counts_the_rest(data_home: Path) -> None:
    with pytest.raises(DataError, match=r"no a, b, c, d, e, 2 more files in"):
        locate(toy(*(entry(name, A) for name in "abcdefg")))


def test_a_changed_time_or_size_is_always_noticed(data_home: Path) -> None:
    folder, stamps = put(data_home / "own", {"a.bin": A}), data_home / "stamps"
    file = entry("a.bin", A)
    assert check_file(file, folder, stamps).ok
    (folder / "a.bin").write_bytes(A[::-1])
    os.utime(folder / "a.bin", ns=(1, 1))
    assert check_file(file, folder, stamps).state == "wrong sha256"
    (folder / "a.bin").write_bytes(A[:-1])
    assert check_file(file, folder, stamps).state == "wrong size"


def test_a_damaged_stamp_or_an_unwritable_stamp_folder_only_costs_time(data_home: Path) -> None:
    folder, stamps = put(data_home / "own", {"a.bin": A}), data_home / "stamps"
    file = entry("a.bin", A)
    assert check_file(file, folder, stamps).ok
    (stamp,) = stamps.iterdir()
    stamp.write_text("{")
    assert check_file(file, folder, stamps).ok
    assert check_file(file, folder, folder / "a.bin" / "stamps").ok


def test_a_stamp_does_not_vouch_for_another_digest(data_home: Path) -> None:
    folder, stamps = put(data_home / "own", {"a.bin": A}), data_home / "stamps"
    assert check_file(entry("a.bin", A), folder, stamps).ok
    assert check_file(entry("a.bin", A[::-1]), folder, stamps).state == "wrong sha256"


@pytest.mark.parametrize("name", ["mnist", "cifar10-mini", "bags-shoes-mini"])
def test_the_real_files_are_what_their_manifests_say(real_data, name: str) -> None:
    real_data(name)
    checks = verify(load_manifest(name))
    assert [check for check in checks if not check.ok] == []
    assert len(checks) == len(load_manifest(name).files)


def test_the_digits_of_scikit_learn_are_the_frozen_ones() -> None:
    (check,) = verify(load_manifest("digits"))
    assert check.ok
    assert check.found == load_manifest("digits").array_sha256


@pytest.mark.parametrize("part", ["cache", "own"])
def test_offline_takes_what_is_whole(served, data_home: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    folder = fetch(served.manifest) if part == "cache" else put(data_home / "own", {"a.bin": A, "sub/b.bin": B})
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own") if part == "own" else "")
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    requests = len(served.requests)
    assert fetch(served.manifest) == folder
    assert len(served.requests) == requests
    (folder / "a.bin").unlink()
    with pytest.raises(DataError, match="SEPBENCH_OFFLINE"):
        fetch(served.manifest)


def test_a_stamp_of_many_files_does_not_vouch_for_other_digests(many: tuple[Path, list[DataFile]], data_home: Path) -> None:
    folder, files = many
    assert check_files(files, folder, data_home / "stamps") == []
    other = [*files[:-1], entry(files[-1].name, b"abcd")]
    assert [(check.name, check.state) for check in check_files(other, folder, data_home / "stamps")] == [(files[-1].name, "wrong sha256")]
    algorithm = DataFile("sub/1.bin", 4, md5=hashlib.md5((1).to_bytes(4, "big")).hexdigest())
    assert check_file(algorithm, folder, data_home / "stamps").ok
    assert check_file(files[1], folder, data_home / "stamps").ok
