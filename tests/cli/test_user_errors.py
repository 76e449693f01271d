"""Bad input: one clear line on stderr, exit code 2, no traceback, and nothing already written is lost."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from sepbench.cli.main import main


def _sepbench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sepbench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def _assert_one_line(capsys: pytest.CaptureFixture[str], expected: str) -> None:
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert expected in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err


DIGITS = ("run", "--suite", "digits-pairs", "--limit", "4", "--methods", "average")

CASES = {
    "unknown suite": (("run", "--suite", "digit-pairs"), "did you mean digits-pairs"),
    "methods without commas": (("run", "--suite", "digits-pairs", "--methods", "nmf average"), "separate names by commas: nmf,average"),
    "unknown method": (("run", "--suite", "digits-pairs", "--methods", "avrage"), "did you mean average"),
    "unknown task": (("run", "--suite", "digits-pairs", "--methods", "average", "--tasks", "class-splt"), "did you mean class-split"),
    "limit 0": (("run", "--suite", "digits-pairs", "--limit", "0"), "--limit"),
    "a seed beyond the columns": ((*DIGITS, "--seed", str(2**64)), "--seed must be below 2**63"),
    "a word for a number": ((*DIGITS, "--methods", "nmf", "--set", "nmf.atoms=abc"), "nmf.atoms must be a whole number, got 'abc'"),
    "wrong device": ((*DIGITS, "--device", "gpu7"), "gpu7"),
    "unknown setting": ((*DIGITS, "--set", "average.nothing=1"), "setting"),
    "malformed setting": ((*DIGITS, "--set", "average"), "METHOD.SETTING=VALUE"),
    "show nothing": (("show", "no-such-run"), "no-such-run"),
    "compare nothing": (("compare", "no-such-run", "neither"), "no-such-run"),
    "check nothing": (("check", "no-such.csv", "--against", "neither.csv"), "no-such.csv"),
    "score nothing": (("score", "no-such-run"), "no-such-run"),
    "bad method name": (("new-method", "My Method"), "lower-case"),
    "taken method name": (("new-method", "average"), "registered already"),
    "unknown data set": (("data", "path", "mnits"), "did you mean mnist"),
    "exact sampler on images": (("validate", "exact-posterior", "--suite", "digits-pairs"), "exact-posterior takes no task of digits-pairs"),
    "validate unknown": (("validate", "avrage"), "did you mean average"),
}


@pytest.mark.parametrize(("arguments", "expected"), CASES.values(), ids=CASES.keys())
def test_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _sepbench(monkeypatch, *arguments) == 2
    _assert_one_line(capsys, expected)
    assert not list(tmp_path.rglob("*.parquet"))


def test_cuda_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    assert _sepbench(monkeypatch, *DIGITS, "--device", "cuda") == 2
    _assert_one_line(capsys, "cuda")


def test_missing_data_offline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("SEPBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert _sepbench(monkeypatch, "run", "--suite", "mnist-pairs", "--limit", "4", "--methods", "average") == 2
    _assert_one_line(capsys, "SEPBENCH_OFFLINE")


def test_corrupt_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(b"not mnist"))
    monkeypatch.setenv("SEPBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert _sepbench(monkeypatch, "run", "--suite", "mnist-pairs", "--limit", "4", "--methods", "average") == 2
    _assert_one_line(capsys, "ubyte.gz")


def test_out_is_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    assert _sepbench(monkeypatch, *DIGITS, "--out", str(tmp_path / "taken" / "run")) == 2
    _assert_one_line(capsys, "taken")
    assert _sepbench(monkeypatch, *DIGITS, "--out", str(tmp_path / "taken")) == 2
    _assert_one_line(capsys, "taken is a file; choose a new or empty folder")
    assert (tmp_path / "taken").read_text() == "mine"


def test_another_request_does_not_touch_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert _sepbench(monkeypatch, *DIGITS, "--tasks", "class-split", "--out", str(out)) == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert before
    capsys.readouterr()
    assert _sepbench(monkeypatch, *DIGITS, "--tasks", "class-split", "--seed", "5", "--out", str(out)) == 2
    _assert_one_line(capsys, "--out")
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_tf32_on_the_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    request = ("run", "--suite", "digits-pairs", "--methods", "projected", "--set", "projected.precision=tf32", "--device", "cpu")
    assert _sepbench(monkeypatch, *request, "--out", str(tmp_path / "run")) == 2
    _assert_one_line(capsys, "precision tf32 is an arithmetic of CUDA GPUs")
    assert not (tmp_path / "run").exists()


ODD = "caf\udce9"
"""A name of bytes that are no UTF-8, as Python shows them."""


@pytest.mark.parametrize("arguments", [("show", ODD), ("check", "s", "--against", ODD), ("panel", ODD), ("score", ODD), (*DIGITS, "--out", f"runs/{ODD}")])
def test_names_that_are_no_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    assert _sepbench(monkeypatch, *arguments) == 2
    _assert_one_line(capsys, r"caf\udce9, is not UTF-8 text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", ["SEPBENCH_DATA", "SEPBENCH_CACHE"])
def test_variables_that_are_no_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str) -> None:
    monkeypatch.setenv(variable, f"/{ODD}")
    assert _sepbench(monkeypatch, "data", "list") == 2
    _assert_one_line(capsys, rf"{variable}, /caf\udce9, is not UTF-8 text")


@pytest.mark.parametrize("arguments", [("data", "path", "mnist"), ("env",), ("cache", "list")])
def test_no_home(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for variable in ("HOME", "XDG_CACHE_HOME", "SEPBENCH_CACHE", "SEPBENCH_DATA"):
        monkeypatch.delenv(variable, raising=False)
    assert _sepbench(monkeypatch, *arguments) == 2
    _assert_one_line(capsys, "set HOME, or set SEPBENCH_CACHE")


@pytest.mark.parametrize("error", [ValueError("odd\nwords"), RecursionError(), MemoryError(), AssertionError(), BaseExceptionGroup("two", [KeyError(1)])])
def test_a_crash_is_no_regression(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException) -> None:
    def crash(target: str, **options: object) -> None:
        raise error

    monkeypatch.setattr("sepbench.results.target.open_results", crash)
    assert _sepbench(monkeypatch, "check", "a", "--against", "b") == 2
    _assert_one_line(capsys, f"error: unexpected {type(error).__name__}")
    monkeypatch.setenv("SEPBENCH_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["sepbench", "check", "a", "--against", "b"])
    with pytest.raises(type(error)):
        main()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "/data/a"), 2, "error: /data/a: permission denied"),
        (OSError(28, "No space left on device"), 2, "error: no space left on device"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (KeyboardInterrupt(), 130, ""),
        (EOFError(), 2, "error: unexpected RuntimeError: EOFError"),
    ],
)
def test_files_and_readers_that_fail(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: BaseException, code: int, said: str) -> None:
    def fail(target: str, **options: object) -> None:
        raise error

    monkeypatch.setattr("sepbench.results.target.open_results", fail)
    monkeypatch.setattr("os.dup2", lambda *files: None)
    assert _sepbench(monkeypatch, "check", "a", "--against", "b") == code
    assert said in capfd.readouterr().err
