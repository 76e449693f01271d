"""``sepbench data``: what it prints, what it refuses, and that its help stays light."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sepbench.cli.data import app
from sepbench.data.files import fetch, manifests
from sepbench.data.files.integrity import MANY_FILES
from sepbench.data.files.manifests import DataFile, Manifest
from sepbench.errors import DataError, SepbenchError, UnknownNameError

CONTENT = b"content" * 5000


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("NO_COLOR", "1")
    return CliRunner()


@pytest.fixture
def toy(data_home: Path, file_server, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A data set of one file that the local server has; the only one besides the built-in digits."""
    file_server.files = {"a.bin": CONTENT}
    digest = hashlib.sha256(CONTENT).hexdigest()
    manifest = Manifest("toy", "Toy data", "CC0", "c", "h", (DataFile("a.bin", len(CONTENT), sha256=digest, urls=(file_server.url("good", "a.bin"),)),))
    own = Manifest("own", "Own data", "CC0", "c", "h", (DataFile("b.bin", 3, sha256="0" * 64),))
    part = dataclasses.replace(own, name="part", cut_from="toy")
    known = {"toy": manifest, "own": own, "part": part, "digits": manifests.load_manifest("digits")}
    monkeypatch.setattr(manifests, "load_manifest", known.__getitem__)
    monkeypatch.setattr(fetch, "load_manifest", known.__getitem__)
    monkeypatch.setattr(manifests, "manifest_names", lambda: sorted(known))
    return manifest


def test_list_shows_state_size_and_place(toy: Manifest, runner: CliRunner, data_home: Path) -> None:
    result = runner.invoke(app, ["list"])
    assert result.exit_code == 0, result.output
    rows = {line.split("│")[1].strip(): line for line in result.stdout.splitlines() if line.startswith("│")}
    assert "download" in rows["toy"]
    assert "35.0 kB" in rows["toy"]
    assert "3 bytes" in rows["own"]
    assert "own copy" in rows["own"]
    assert "ready" in rows["digits"]  # the words of sepbench list suites
    runner.invoke(app, ["fetch", "toy"])
    rows = {line.split("│")[1].strip(): line for line in runner.invoke(app, ["list"]).stdout.splitlines() if line.startswith("│")}
    assert "ready" in rows["toy"]
    assert f"Looked up in: {data_home / 'cache'}" in result.stdout


def test_list_says_what_a_data_set_without_files_is_cut_from(toy: Manifest, runner: CliRunner) -> None:
    assert "cut from" not in runner.invoke(app, ["list"]).stdout  # no data yet
    runner.invoke(app, ["fetch", "toy"])
    shown = " ".join(runner.invoke(app, ["list"]).stdout.split())
    assert "(cut from toy)" in shown
    verified = runner.invoke(app, ["verify", "part"])
    assert verified.exit_code == 0, verified.output
    assert "a.bin" in verified.stdout  # toy's file is what part is read from


def test_list_names_all_committed_data_sets(data_home: Path, runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    result = runner.invoke(app, ["list"])
    assert result.exit_code == 0, result.output
    for name in ("mnist", "cifar10", "cifar10-mini", "digits", "bags-shoes-mini", "SEPBENCH_OFFLINE"):
        assert name in result.stdout


def test_fetch_says_where_the_data_lie(toy: Manifest, runner: CliRunner, data_home: Path, file_server) -> None:
    result = runner.invoke(app, ["fetch", "toy"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"toy: {data_home / 'cache' / 'toy'}\n"
    assert "a.bin" in result.stderr
    assert file_server.requests == ["/good/a.bin"]


def test_fetch_all_passes_over_what_is_not_offered(toy: Manifest, runner: CliRunner) -> None:
    result = runner.invoke(app, ["fetch", "--all"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("toy: ")


def test_fetch_wants_names_or_all(toy: Manifest, runner: CliRunner) -> None:
    for arguments in (["fetch"], ["fetch", "toy", "--all"]):
        assert isinstance(runner.invoke(app, arguments).exception, SepbenchError)


def test_fetch_offline_is_refused(toy: Manifest, runner: CliRunner, monkeypatch: pytest.MonkeyPatch, file_server) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    result = runner.invoke(app, ["fetch", "toy"])
    assert isinstance(result.exception, DataError)
    assert "SEPBENCH_OFFLINE" in str(result.exception)
    assert file_server.requests == []


def test_verify_passes_then_names_the_damaged_file(toy: Manifest, runner: CliRunner, data_home: Path) -> None:
    runner.invoke(app, ["fetch", "toy"])
    result = runner.invoke(app, ["verify"])
    assert result.exit_code == 0, result.output
    assert "load_digits()" in result.stdout
    path = data_home / "cache" / "toy" / "a.bin"
    path.write_bytes(CONTENT[::-1])
    result = runner.invoke(app, ["verify", "toy"])
    assert isinstance(result.exception, DataError)
    for digest in (hashlib.sha256(CONTENT).hexdigest(), hashlib.sha256(CONTENT[::-1]).hexdigest()):
        assert digest in str(result.exception)
        assert digest in result.stdout
    assert str(path) in str(result.exception)


def test_verify_counts_many_files_and_names_the_wrong_ones(data_home: Path, runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_home / "cache" / "toy"
    folder.mkdir(parents=True)
    files = tuple(DataFile(f"{n}.bin", 4, sha256=hashlib.sha256(n.to_bytes(4, "big")).hexdigest()) for n in range(MANY_FILES))
    for n, file in enumerate(files):
        (folder / file.name).write_bytes(n.to_bytes(4, "big"))
    monkeypatch.setattr(manifests, "load_manifest", lambda name: Manifest("toy", "t", "l", "c", "h", files))
    result = runner.invoke(app, ["verify", "toy"])
    assert result.exit_code == 0, result.output
    assert "100 files" in result.stdout
    assert "100 ok" in result.stdout
    assert "7.bin" not in result.stdout
    (folder / "7.bin").write_bytes(b"abcd")
    result = runner.invoke(app, ["verify", "toy"])
    assert "99 ok" in result.stdout
    assert "7.bin" in result.stdout
    assert "8.bin" not in result.stdout
    assert "7.bin has the wrong sha256" in str(result.exception)


def test_verify_of_a_missing_data_set_fails(toy: Manifest, runner: CliRunner) -> None:
    assert "b.bin is missing" in str(runner.invoke(app, ["verify", "own"]).exception)


def test_path_prints_the_folder_and_nothing_else(toy: Manifest, runner: CliRunner, data_home: Path) -> None:
    assert isinstance(runner.invoke(app, ["path", "toy"]).exception, DataError)
    runner.invoke(app, ["fetch", "toy"])
    assert runner.invoke(app, ["path", "toy"]).stdout == f"{data_home / 'cache' / 'toy'}\n"


def test_an_unknown_name_offers_the_nearest(data_home: Path, runner: CliRunner) -> None:
    result = runner.invoke(app, ["path", "minst"])
    assert isinstance(result.exception, UnknownNameError)
    assert "mnist" in str(result.exception)


def test_help_loads_neither_torch_nor_pooch() -> None:
    code = "import sys, sepbench.cli.data; print(sorted({'torch', 'pooch', 'numpy', 'sklearn', 'pandas'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
