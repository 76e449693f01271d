"""``sepbench report``: folders, one line for every mistake, and the server on the loopback address."""

from __future__ import annotations

import http.client
import json
import re
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image
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
        command = ("run", "--suite", "digits-pairs", "--tasks", "class-split", "--limit", "12", "--methods", "average,mixture,ica", "--out", str(path))
        assert sepbench(patch, *command) == 0
    return str(path)


def test_a_run_has_its_report_beside_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: str) -> None:
    capsys.readouterr()
    assert sepbench(monkeypatch, "report", run, "--examples", "5") == 0
    folder = Path(run) / "report"
    told = capsys.readouterr().out
    assert told.startswith(f"{folder / 'index.html'}: ")
    assert re.search(r" [1-9]\d* kB of them pictures and sounds", told)  # of so few pictures 0.0 MB says nothing
    pictures = {path.relative_to(folder).as_posix() for path in folder.glob("media/**/*.png")}
    assert {f"media/run/class-split/00005/{name}.png" for name in ("_mixture", "_truth", "average", "average_error", "mixture", "ica")} <= pictures
    one, method = (Image.open(folder / f"media/run/class-split/00005/{name}.png").width for name in ("_mixture", "mixture"))
    assert (one, method) == (8, 17)  # the mixture itself, and the two estimates of the method of that name
    shown = (folder / "index.html").read_text(encoding="utf-8")
    for word in ("chosen", "best mean psnr", "median mean psnr", "worst mean psnr", "drawn by lot"):
        assert word in shown
    assert all(f'src="{path}"' in shown for path in pictures)
    listed = set(json.loads((folder / page.MANIFEST).read_text(encoding="utf-8"))["files"])
    assert listed == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {page.MANIFEST}


def test_posterior_samples_of_one_mixture_beside_it_and_the_truth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, methods = str(tmp_path / "run"), ("projected", "projected-4x")
    command = ("run", "--suite", "digits-pairs", "--tasks", "class-split", "--limit", "5", "--budget", "quick", "--methods", ",".join(("average", *methods)))
    assert sepbench(monkeypatch, *command, "--out", run) == 0
    assert sepbench(monkeypatch, "report", run, "--samples", "3", "--device", "cpu") == 0
    shown = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    (example,) = set(re.findall(r"mixture (\d+) \(median mean psnr of the methods that draw\)", shown))
    words = {alt: src for src, alt in re.findall(r'<img[^>]* src="([^"]*/samples[^"]*)" alt="([^"]*)"', shown)}
    told = [f"3 samples of {name} by {method}, mixture {example}" for method in methods for name in ("0-4", "5-9")]
    assert sorted(words) == sorted([f"Mixture {example}", *(f"True {name} of mixture {example}" for name in ("0-4", "5-9")), *told])
    assert [Image.open(tmp_path / "run" / "report" / words[name]).width for name in (f"Mixture {example}", told[0])] == [8, 3 * 8 + 2]


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
    "both": (("RUN", "--leaderboards"), "--leaderboards takes all that are committed"),
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
