"""``sepbench report``: folders, one line for every mistake, and the server on the loopback address."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from pathlib import Path

import pytest
from synthetic_run import SyntheticRun

from sepbench.cli.main import main
from sepbench.report.html import page
from sepbench.report.html.serve import ADDRESS, make_server, state_of

pytest.importorskip("altair")


def sepbench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sepbench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.fixture(autouse=True)
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "vega_script", lambda: "/* not here */")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real run, with estimates to look at."""
    path = tmp_path_factory.mktemp("report") / "run"
    with pytest.MonkeyPatch.context() as patch:
        command = ("run", "--suite", "digits-pairs", "--tasks", "class-split", "--limit", "12", "--methods", "average,ica", "--out", str(path))
        assert sepbench(patch, *command) == 0
    return str(path)


def test_a_run_has_its_report_beside_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: str) -> None:
    capsys.readouterr()
    assert sepbench(monkeypatch, "report", run, "--examples", "5") == 0
    folder = Path(run) / "report"
    assert capsys.readouterr().out.startswith(f"{folder / 'index.html'}: ")
    pictures = {path.relative_to(folder).as_posix() for path in folder.glob("media/**/*.png")}
    assert {f"media/run/class-split/00005/{name}.png" for name in ("mixture", "truth", "average", "average-error", "ica", "ica-error")} <= pictures
    shown = (folder / "index.html").read_text(encoding="utf-8")
    for word in ("chosen", "best mean psnr", "median mean psnr", "worst mean psnr", "drawn by lot"):
        assert word in shown
    assert all(f'src="{path}"' in shown for path in pictures)
    listed = set(json.loads((folder / page.MANIFEST).read_text(encoding="utf-8"))["files"])
    assert listed == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {page.MANIFEST}


def test_nothing_beyond_the_budget(monkeypatch: pytest.MonkeyPatch, run: str, tmp_path: Path) -> None:
    assert sepbench(monkeypatch, "report", run, "--budget-mb", "0.003", "--out", str(tmp_path / "small")) == 0
    weights = [path.stat().st_size for path in (tmp_path / "small").glob("media/**/*.png")]
    assert 0 < sum(weights) <= 3000
    assert "mixtures are left out: the budget of 0.003 MB is used up" in (tmp_path / "small" / "index.html").read_text(encoding="utf-8")


def test_estimates_that_were_not_kept_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = SyntheticRun({"nmf": 16.0, "ica": 13.0}, n=8).save(tmp_path / "run")
    assert sepbench(monkeypatch, "report", made, "--out", str(tmp_path / "report")) == 0
    assert "were not kept" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


CASES = {
    "nothing named": ((), "or give --leaderboards"),
    "both": (("RUN", "--leaderboards"), "or give --leaderboards"),
    "no such run": (("nothing",), "nothing"),
    "no such task": (("RUN", "--task", "class-splt"), "did you mean class-split"),
    "no numbers": (("RUN", "--examples", "best"), "write it as 0,5,7"),
    "no folder": (("RUN", "--out", "/dev/null/x"), "choose a writable folder with --out"),
}


@pytest.mark.parametrize("case", CASES)
def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: str, case: str) -> None:
    arguments, told = CASES[case]
    capsys.readouterr()
    assert sepbench(monkeypatch, "report", *(run if argument == "RUN" else argument for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_server_shows_its_folder_to_this_machine_only(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("here it is")
    (tmp_path / "secret").write_text("not for others")
    server = make_server(tmp_path / "report", 0)
    assert server.server_address[0] == "127.0.0.1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    port = int(server.server_address[1])

    def ask(path: str, host: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(ADDRESS, port, timeout=10)
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.status, answer.read()
        connection.close()
        return body

    try:
        assert ask("/", f"127.0.0.1:{port}") == (200, b"here it is")
        assert ask("/../secret", f"127.0.0.1:{port}")[0] == 404
        assert ask("/", f"evil.example.org:{port}")[0] == 403
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_run_that_goes_on_is_another_state(tmp_path: Path) -> None:
    made = SyntheticRun({"nmf": 16.0}, n=8).save(tmp_path / "run")
    before = state_of([made])
    assert before == state_of([made])
    SyntheticRun({"nmf": 16.5}, n=8).save(tmp_path / "other")
    (tmp_path / "run" / "scores" / "more.parquet").write_bytes(b"more")
    assert state_of([made]) != before
