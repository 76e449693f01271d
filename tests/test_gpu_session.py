"""A loan of a GPU, rehearsed on the CPU: it can be stopped at any moment, keeps what it has, goes on where it was, and holds its limits."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "gpu_session.sh"
LOAN_FILES, LOAN_BYTES = 8, 16 << 20
"""What a loan gives back."""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_session", SCRIPT.with_suffix(".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # as for a script that is run
    spec.loader.exec_module(module)
    return module


def _python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def _stage(driver: ModuleType, name: str, code: str, **changes: object):  # type: ignore[no-untyped-def]
    return driver.Stage(name, _python(code), **{"limit": 30, "least": 0, **changes})


@pytest.mark.slow
def test_a_stage_that_outlasts_its_limit_is_ended_with_all_that_it_started(driver: ModuleType, tmp_path: Path) -> None:
    session = driver.Session(tmp_path / "out", 5, tiny=True)
    late = tmp_path / "late"
    grandchild = f"import time; time.sleep(6); open({str(late)!r}, 'w')"
    child = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {grandchild!r}]); time.sleep(60)"
    driver.run_stages(session, [_stage(driver, "slow", child, limit=2), _stage(driver, "next", "print('here')")])
    assert session.done("slow") is None  # so that the next session takes it up again
    assert session.done("next")["code"] == 0
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| slow | ended at its limit |" in table
    assert "| next | ok |" in table
    time.sleep(5)
    assert not late.exists()


def test_what_is_done_is_not_done_again_and_what_failed_is(driver: ModuleType, tmp_path: Path) -> None:
    count = f"open({str(tmp_path / 'calls')!r}, 'a').write"
    stages = [_stage(driver, "good", f"{count}('g')"), _stage(driver, "bad", f"{count}('b'); raise SystemExit(3)")]
    for _ in range(2):
        driver.run_stages(driver.Session(tmp_path / "out", 5, tiny=True), stages)
    assert sorted((tmp_path / "calls").read_text()) == ["b", "b", "g"]
    assert "| bad | exit code 3 |" in (tmp_path / "out" / "table.md").read_text()


def test_stages_without_time_or_data_are_left_out(
    driver: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEPBENCH_DATA", str(tmp_path))
    session = driver.Session(tmp_path / "out", 1, tiny=True)
    fails = "raise SystemExit(1)"
    driver.run_stages(session, [_stage(driver, "long", fails, least=100), _stage(driver, "elsewhere", fails, needs="cifar10")])
    told = capsys.readouterr().out
    assert "== long: left out, " in told
    assert "cifar10 is not there" in told
    assert not list(session.work.glob("stages/*"))


def test_the_table_takes_rows_that_were_cut_off_and_figures_that_failed(driver: ModuleType, tmp_path: Path) -> None:
    session = driver.Session(tmp_path / "out", 5, tiny=True)
    rows = [{"name": "a", "measured": 12345.6, "unit": "images/s", "to_reach": ">= 1"}, {"name": "b", "error": "RuntimeError: no", "unit": "s", "to_reach": ""}]
    text = "".join(json.dumps({**row, "device": "GPU", "torch": "2"}) + "\n" for row in rows)
    session.timings.write_text(text + '{"name": "c", "meas')
    table = driver.table(session)
    assert "| a | 1.235e+04 images/s | >= 1 |" in table
    assert "| b | failed: RuntimeError: no |  |" in table
    assert "Measured on: GPU, torch 2." in table


def test_what_is_too_large_for_a_loan_is_not_packed(driver: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MOST_BYTES", 20_000)
    session = driver.Session(tmp_path / "out", 5, tiny=True)
    scores = session.work / "runs" / "one" / "scores"
    scores.mkdir(parents=True)
    (scores / "shard").write_bytes(os.urandom(30_000))
    (session.work / "logs" / "one.log").write_text("kept")
    (session.work / "prior.safetensors").write_bytes(bytes(30_000))
    (session.work / "prior.json").write_text("{}")
    driver.pack(session)
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as archive:
        assert archive.getnames() == ["logs/one.log"]
    assert (tmp_path / "out" / "prior.json").exists()
    assert not (tmp_path / "out" / "prior.safetensors").exists()


@pytest.mark.slow
def test_a_session_that_is_stopped_goes_on_and_ends_with_a_table(tmp_path: Path) -> None:
    out = tmp_path / "out"
    environment = {**os.environ, "SEPBENCH_GPU_SESSION": "tiny", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["bash", str(SCRIPT), "5", str(out)]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    timings, until = tmp_path / "out.work" / "timings.jsonl", time.monotonic() + 120
    while not timings.exists() and first.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    told, _ = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGTERM
    assert "tests: ok" in told
    measured = (out / "timings.jsonl").read_text().splitlines()
    assert measured
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    logs = "\n".join(path.read_text() for path in (tmp_path / "out.work" / "logs").glob("*.log"))
    assert second.returncode == 0, second.stdout + second.stderr + logs
    assert "== tests: done already" in second.stdout
    assert (out / "timings.jsonl").read_text().splitlines()[: len(measured)] == measured
    table = (out / "table.md").read_text()
    assert "failed" not in table
    for line in ("| basis bf16, eager |", "| trainer, MNIST U-Net, eager |", "| train-digits | ok |", "| class-split | projected | psnr |"):
        assert line in table
    kept = list(out.iterdir())
    assert {"table.md", "timings.jsonl", "session.json", "results.tar.gz", "digits-all.safetensors", "digits-all.json"} <= {path.name for path in kept}
    assert len(kept) <= LOAN_FILES
    assert all(path.stat().st_size < LOAN_BYTES for path in kept)
