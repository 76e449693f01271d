"""The server of a report: whom it answers, what it says with every answer, and what makes it look again."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sepbench.errors import SepbenchError
from sepbench.report.html import serve
from sepbench.report.html.page import Options
from sepbench.report.html.serve import make_server, serve_report, state_of

pytest.importorskip("altair")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "index.html").write_text("page")
    server = make_server(folder, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost:1", 200),
        ("127.0.0.1", 403),  # browsers name the port
        ("localhost.example.org:1", 403),
        ("evil.example.org:1", 403),
        ("evil.127.0.0.1:1", 403),
        ("", 403),
        (None, 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_only_pages_of_this_machine_are_answered(port: int, host: str | None, status: int, method: str, capfd: pytest.CaptureFixture[str]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, "/", skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == status
    assert (body == b"page") == (status == 200 and method == "GET")
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert "".join(capfd.readouterr()) == ""  # no line for each request


# -- what changes


def grown(folder: Path) -> dict[str, Path]:
    files = {"record": folder / "run.json", "cell": folder / "cells" / "t--m.json", "scores": folder / "scores" / "t--m" / "00000" / "0-5.parquet"}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    return files


@pytest.mark.parametrize("name", ["record", "cell", "scores"])
@pytest.mark.parametrize("change", ["size", "time", "gone"])
def test_what_is_another_state_of_a_run(tmp_path: Path, name: str, change: str) -> None:
    path = grown(tmp_path / "run")[name]
    before = state_of([str(tmp_path / "run")])
    assert before == state_of([str(tmp_path / "run")])
    assert str(path) in {one for one, _, _ in before}
    known = path.stat()
    if change == "size":
        path.write_text("22")
        os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    elif change == "time":
        os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns + 1_000))
    else:
        path.unlink()
    assert state_of([str(tmp_path / "run")]) != before


def test_what_is_no_other_state_of_a_run(tmp_path: Path) -> None:
    grown(tmp_path / "run")
    before = state_of([str(tmp_path / "run")])
    (tmp_path / "run" / "estimates").mkdir()
    (tmp_path / "run" / "estimates" / "0-5.safetensors").write_text("kept before they are scored")
    (tmp_path / "run" / "leaderboard.csv").write_text("written at the end")
    assert state_of([str(tmp_path / "run")]) == before


def test_a_link_that_leads_nowhere_is_passed_over(tmp_path: Path) -> None:
    """As is a file that is being replaced; what comes after it is seen."""
    files = grown(tmp_path / "run")
    (tmp_path / "run" / "cells" / "a--a.json").symlink_to(tmp_path / "gone")
    names = [name for name, _, _ in state_of([str(tmp_path / "run")])]
    assert {str(path) for path in files.values()} <= set(names)
    assert not [name for name in names if name.endswith("a--a.json")]
    assert names == sorted(names)


def test_all_targets_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "board.csv").write_text("abc")
    grown(tmp_path / "run")
    both = state_of([str(tmp_path / "board.csv"), "digits-pairs", str(tmp_path / "run")])
    assert both == tuple(sorted((*state_of([str(tmp_path / "board.csv")]), *state_of([str(tmp_path / "run")]))))
    ((name, size, _),) = state_of([str(tmp_path / "board.csv")])
    assert (name, size) == (str(tmp_path / "board.csv"), 3)
    assert state_of(["a-suite-of-no-folder"]) == ()


def test_what_cannot_be_made_at_first_is_an_error_and_nothing_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> None:
        raise SepbenchError("no such run")

    monkeypatch.setattr(serve, "write_report", fail)
    monkeypatch.setattr(serve, "make_server", lambda *given: pytest.fail("served"))
    with pytest.raises(SepbenchError, match=r"^no such run$"):
        serve_report(["x"], tmp_path, Options(), 0, pytest.fail, pytest.fail)


def test_the_server_ends_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    class Server:
        server_address = ("127.0.0.1", 1234)

        def serve_forever(self) -> None:
            ended.append("served")

        def shutdown(self) -> None:
            ended.append("shut down")

        def server_close(self) -> None:
            ended.append("closed")

    class Clock:
        def wait(self, seconds: float) -> bool:
            raise MemoryError

    asked: list[Any] = []
    monkeypatch.setattr(serve, "write_report", lambda *given: None)
    monkeypatch.setattr(serve, "make_server", lambda folder, port: asked.append((folder, port)) or Server())
    monkeypatch.setattr(serve, "threading", SimpleNamespace(Event=Clock, Thread=threading.Thread))
    told: list[str] = []
    with pytest.raises(MemoryError):
        serve_report([], tmp_path, Options(), 4321, pytest.fail, told.append)
    assert (asked, told) == ([(tmp_path, 4321)], ["http://127.0.0.1:1234/ (Ctrl-C ends it)"])
    assert sorted(ended) == ["closed", "served", "shut down"]


def test_a_report_that_could_not_be_made_is_tried_again_though_nothing_has_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may have been full: what is shown is still the old state."""
    states = iter(["old", "new", "new", "new", "new"])
    made: list[str] = []

    class Clock:
        def wait(self, seconds: float) -> bool:
            if len(made) == 3 and made[-1] == "looked":
                raise KeyboardInterrupt
            return False

    def look(targets: Any) -> str:
        found = next(states)
        if len(made) == 3:
            made[-1] = "looked"
        return found

    def write(*given: Any) -> None:
        made.append("wrote")
        if len(made) == 2:
            raise SepbenchError("no room")

    server = SimpleNamespace(server_address=("127.0.0.1", 1), serve_forever=lambda: None, shutdown=lambda: None, server_close=lambda: None)
    monkeypatch.setattr(serve, "state_of", look)
    monkeypatch.setattr(serve, "write_report", write)
    monkeypatch.setattr(serve, "make_server", lambda *given: server)
    monkeypatch.setattr(serve, "threading", SimpleNamespace(Event=Clock, Thread=threading.Thread))
    told: list[str] = []
    serve_report(["x"], tmp_path, Options(), 0, told.append, lambda address: None)
    assert made == ["wrote", "wrote", "looked"]  # at first, in vain, and once more; nothing for the state that is shown
    assert told == ["not made anew: no room"]


def test_what_changes_while_the_first_report_is_made_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before it was read is what is shown."""
    target = tmp_path / "board.csv"
    target.write_text("1")
    made: list[str] = []

    def write(*given: Any) -> None:
        made.append(target.read_text())
        target.write_text("longer")

    class Clock:
        def wait(self, seconds: float) -> bool:
            if len(made) > 1:
                raise KeyboardInterrupt
            return False

    server = SimpleNamespace(server_address=("127.0.0.1", 1), serve_forever=lambda: None, shutdown=lambda: None, server_close=lambda: None)
    monkeypatch.setattr(serve, "write_report", write)
    monkeypatch.setattr(serve, "make_server", lambda *given: server)
    looks = iter(range(5))
    real = serve.state_of
    monkeypatch.setattr(serve, "state_of", lambda targets: real(targets) if next(looks) < 4 else pytest.fail("nothing was made anew"))
    monkeypatch.setattr(serve, "threading", SimpleNamespace(Event=Clock, Thread=threading.Thread))
    serve_report([str(target)], tmp_path, Options(), 0, pytest.fail, lambda address: None)
    assert made == ["1", "longer"]
