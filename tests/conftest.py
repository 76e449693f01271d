"""Fixtures that several folders share: an isolated data home, the real data where there are any, and a local server that can misbehave.

This folder is on the import path, for test material that several folders share (``synthetic_run``, ``run_fakes``).
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import collecting
import hypothesis
import pytest
import run_fakes
import typer.testing

from sepbench import registry
from sepbench.data import array_sets
from sepbench.run import provenance

# Typer builds the same tree of commands for every call of ``main`` and of its runner, which takes 0.07 s.
typer.main.get_command = functools.cache(typer.main.get_command)
if hasattr(typer.testing, "_get_command"):
    typer.testing._get_command = typer.main.get_command


def _seen_not_waited_for(handle: int) -> None:
    os.fstat(handle)  # a descriptor that is none still raises


# No test can cut the power, so none can tell whether the disk was waited for: 5 ms a file and folder, at tens of thousands of writes. That it is asked,
# and for what, is test_files.py's; programs that tests start wait as ever.
os.fsync = _seen_not_waited_for

# No test may depend on the clock. Where CI is set, hypothesis draws the same examples every time.
_repeated = hypothesis.settings().derandomize or bool(os.environ.get("CI"))
hypothesis.settings.register_profile("without-deadline", parent=hypothesis.settings(), deadline=None, derandomize=_repeated)
hypothesis.settings.load_profile("without-deadline")

# A shell's job in the background ignores SIGINT, and so would tests that press Ctrl-C, and the programs that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Folders of tests lie in memory where there is enough, and where programs may be started from it: a disk takes up to 4 ms to remove one, and tests make
# and remove tens of thousands. One test installs all of torch into its own.
_MEMORY, _ENOUGH = Path("/dev/shm"), 8 << 30
_usable = "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC
if _usable and shutil.disk_usage(_MEMORY).free > _ENOUGH:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# Every run writes down the state of the checkout and the versions of packages, which do not change while tests run: 0.05 s a run, at thousands of runs.
_git, _told = provenance._git, dict[tuple[str, ...], str]()
_installed = provenance.package_versions()


def _git_once(root: Path, *arguments: str) -> str:
    if root != Path(__file__).parents[1]:
        return _git(root, *arguments)
    if arguments not in _told or (arguments[0] == "rev-parse" and not _told[arguments]):  # a git that took too long is asked again
        _told[arguments] = _git(root, *arguments)
    return _told[arguments]


def _version(name: str) -> str:
    if name not in _installed:
        raise PackageNotFoundError(name)
    return _installed[name]


provenance._git = _git_once
provenance.version = _version  # importlib's own answers before any test, and in the programs that tests start

# Tests of many files ask for all data sets in turn: the package keeps the last eight splits, and tests would read the same ones over and over.
array_sets._read = functools.lru_cache(maxsize=24)(array_sets._read.__wrapped__)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """For ``collecting``: of the tests that were asked for, however few, all files of this folder are shared out only where all are asked for."""
    with collecting.without_garbage():
        if session.config.args == session.config.getini("testpaths"):
            collecting.share_the_rewriting(session.config, sorted(Path(__file__).parent.rglob("test_*.py")))
        return (yield)


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither the user's data nor his cache: SEPBENCH_CACHE is <data_home>/cache, SEPBENCH_DATA is not set."""
    monkeypatch.delenv("SEPBENCH_DATA", raising=False)
    monkeypatch.delenv("SEPBENCH_OFFLINE", raising=False)
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    return tmp_path


@pytest.fixture
def real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """The folder of a real data set, or a skip; stamps of verification go to a temporary cache."""
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))

    def folder(name: str) -> Path:
        root = os.environ.get("SEPBENCH_DATA", "")
        if not root or not (Path(root) / name).is_dir():
            pytest.skip(f"SEPBENCH_DATA does not hold {name}")
        return Path(root) / name

    return folder


class FileServer:
    """Serves ``files`` at /good/<name>; /broken/<name> breaks off half-way; /wrong/<name> delivers other bytes; anything else is 404."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.encodings: list[str] = []

    def url(self, kind: str, name: str) -> str:
        return f"{self.address}/{kind}/{name}"


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            served.encodings.append(self.headers.get("Accept-Encoding", ""))
            _, kind, name = self.path.split("/", 2)
            content = served.files.get(name)
            if content is None or kind not in ("good", "broken", "wrong"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write({"good": content, "broken": content[: len(content) // 2], "wrong": content[::-1]}[kind])

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = FileServer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def fake_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods of ``run_fakes`` registered beside the real ones."""
    points, found = run_fakes.entry_points(), registry._separators
    monkeypatch.setattr(registry, "_separators", lambda: found() | points)
    run_fakes.Fake.batches.clear()
    run_fakes.Fake.fits.clear()


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make the tests another user, who may not read a file: root may read all, and safetensors says of such a file that it is not there."""

    def forbid(path: Path) -> None:
        real = Path.open

        def opened(self: Path, *args: Any, **options: Any) -> Any:
            if self == path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
            return real(self, *args, **options)

        monkeypatch.setattr(Path, "open", opened)

    return forbid
