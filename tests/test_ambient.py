"""What code does to its whole process is seen, named and put back, part by part; and nobody ends the process."""

from __future__ import annotations

import gc
import io
import os
import random
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from sepbench import ambient
from sepbench.ambient import ProcessEndedError, changed, generators, put_back, state, threads


def _lower(kind: int, soft: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


def _assign(owner: object, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)


def _turn(owner: object, name: str) -> Callable[[], None]:
    return lambda: setattr(owner, name, not getattr(owner, name))


FOLDER, VARIABLES, PATH, WARNINGS = "the working folder", "variables of the environment", "entries of sys.path", "warnings that are errors"
HANDLERS, LIMITS, ERRORS, DETERMINISM, CUDNN = (
    "signal handlers",
    "limits of resources",
    "numpy's handling of errors",
    "torch's determinism",
    "torch's use of cuDNN",
)
NAMES = ("SEPBENCH_DATA", "SEPBENCH_CACHE", "SEPBENCH_OFFLINE", "HOME", "XDG_CACHE_HOME", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
CHANGES: dict[str, tuple[str, Callable[[], object]]] = {
    "folder": (FOLDER, lambda: os.chdir("/")),
    **{f"set {name}": (VARIABLES, lambda name=name: os.environ.update({name: "another"})) for name in NAMES},  # type: ignore[misc]
    "a variable gone": (VARIABLES, lambda: os.environ.pop("HOME")),
    "path": (PATH, sys.path.clear),
    "trace": ("a trace function", lambda: sys.settrace(lambda *seen: None)),
    "profile": ("a profile function", lambda: sys.setprofile(lambda *seen: None)),
    "output": ("output streams", _assign(sys, "stdout", io.StringIO())),
    "errors": ("output streams", _assign(sys, "stderr", io.StringIO())),
    "warnings": (WARNINGS, lambda: warnings.simplefilter("error")),
    "recursion": ("the limit of recursion", lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 500)),
    "umask": ("the mask of file modes", lambda: os.umask(os.umask(0o077) ^ 0o010)),
    **{
        f"handler {number.name}": (HANDLERS, lambda number=number: signal.signal(number, lambda *seen: None))  # type: ignore[misc]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    },
    "alarm": ("an alarm", lambda: signal.setitimer(signal.ITIMER_REAL, 1000)),
    "open files": (LIMITS, lambda: _lower(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1)()),
    "file size": (LIMITS, _lower(resource.RLIMIT_FSIZE, 1 << 40)),
    "memory": (LIMITS, _lower(resource.RLIMIT_AS, 1 << 46)),
    "garbage": ("garbage collection", gc.disable),
    "numpy divide": (ERRORS, lambda: np.seterr(divide="raise")),
    "numpy over": (ERRORS, lambda: np.seterr(over="raise")),
    "numpy under": (ERRORS, lambda: np.seterr(under="raise")),
    "numpy invalid": (ERRORS, lambda: np.seterr(invalid="raise")),
    "dtype": ("torch's default dtype", lambda: torch.set_default_dtype(torch.float64)),
    "device": ("torch's default device", lambda: torch.set_default_device("meta")),
    "threads": ("torch's thread count", lambda: threadpool_limits(torch.get_num_threads() + 1, user_api="openmp")),
    "gradients": ("torch's gradient mode", lambda: torch.set_grad_enabled(False)),
    "anomalies": ("torch's anomaly detection", lambda: torch.autograd.set_detect_anomaly(True)),
    "oneDNN": ("torch's use of oneDNN", lambda: torch.backends.mkldnn.set_flags(False)),
    **{f"cuDNN {flag}": (CUDNN, _turn(torch.backends.cudnn, flag)) for flag in ("enabled", "benchmark", "deterministic")},
    "denormals": ("denormal numbers", lambda: torch.set_flush_denormal(True)),
    "determinism": (DETERMINISM, lambda: torch.use_deterministic_algorithms(True)),
    "determinism that warns": (DETERMINISM, lambda: torch.use_deterministic_algorithms(True, warn_only=True)),
    "products": ("torch's precision of products", lambda: torch.set_float32_matmul_precision("medium")),
}


@pytest.fixture
def _plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every variable is set, and pytest's own turning of warnings into errors is kept."""
    for name in NAMES:
        monkeypatch.setenv(name, "1")
    with warnings.catch_warnings():
        yield


@pytest.mark.parametrize(("part", "change"), CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.usefixtures("_plain")
def test_a_change_is_named_alone_and_put_back_also_after_an_error(part: str, change: Callable[[], object]) -> None:
    before, seen = state(), []

    def block() -> None:
        with put_back():
            change()
            heard = signal.getsignal(signal.SIGINT)
            if isinstance(heard, ambient._Heard):  # the block's own, which tells Ctrl-C from an error
                signal.signal(signal.SIGINT, heard.handler)
            seen.extend(changed(before))
            raise KeyError

    with pytest.raises(KeyError):
        block()
    assert seen == [part]
    assert changed(before) == []


def test_every_part_has_its_change() -> None:
    assert {part for part, _ in CHANGES.values()} == {part.name for part in ambient._parts()}


@pytest.mark.usefixtures("_plain")
def test_what_a_method_may_do_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """More places for modules, warnings that are silent, variables of its own, a stricter alarm where one ran already."""
    before, path = state(), list(sys.path)
    with put_back():
        sys.path.insert(0, "/somewhere")
        warnings.simplefilter("ignore", UserWarning)
        monkeypatch.setenv("A_LIBRARY_OF_MINE", "1")
    assert changed(before) == []
    assert sys.path == ["/somewhere", *path]
    assert "ignore" in [entry[0] for entry in warnings.filters[:1]]
    assert os.environ["A_LIBRARY_OF_MINE"] == "1"
    with put_back():
        sys.path[:] = ["/elsewhere", path[-1]]
    assert sys.path == ["/somewhere", *path, "/elsewhere"]
    sys.path[:] = path


def test_an_alarm_that_ran_before_goes_on() -> None:
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        with put_back():
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_folder_that_is_removed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    with put_back():
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("how", ["closed", "turned"])
def test_what_streams_are_open_on_is_put_back_and_no_file_stays_open(number: int, how: str, tmp_path: Path) -> None:
    before, there = os.fstat(number), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with put_back():
        if how == "closed":
            os.close(number)
        else:
            other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
            os.dup2(other, number)
            os.close(other)
    after = os.fstat(number)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)
    assert len(os.listdir("/proc/self/fd")) <= there  # noqa: PTH208 - fewer where an older file was collected meanwhile


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda: os._exit(3), r"called os._exit\(3\), which would have ended the whole run"),
        (lambda: os.abort(), r"called os.abort\(\), which would have ended the whole run"),
        (lambda: (_ for _ in ()).throw(KeyboardInterrupt()), "raised KeyboardInterrupt, which would have ended the whole run as Ctrl-C does"),
    ],
)
def test_nobody_ends_the_process(end: Callable[[], object], told: str) -> None:
    real = os._exit, os.abort
    with pytest.raises(ProcessEndedError, match=f"^{told}$"), put_back():
        end()
    assert (os._exit, os.abort) == real
    assert not issubclass(ProcessEndedError, Exception)


def test_a_process_that_is_forked_ends_as_ever() -> None:
    with put_back():
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_ctrl_c_comes_through_and_the_handler_is_as_before() -> None:
    heard: list[int] = []

    def handler(number: int, frame: object) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt), put_back():
            signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
        with put_back():
            assert signal.getsignal(signal.SIGINT) is not handler
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_s_interrupt_comes_through() -> None:
    seen: list[BaseException] = []

    def work() -> None:
        try:
            with put_back():
                raise KeyboardInterrupt
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(error) for error in seen] == [KeyboardInterrupt]


def test_so_many_threads_work_in_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before, pools = torch.get_num_threads(), [pool["num_threads"] for pool in threadpool_info()]
    with threads(3):
        assert torch.get_num_threads() == 3
        assert {pool["num_threads"] for pool in threadpool_info()} == {3}
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert torch.get_num_threads() == before
    assert [pool["num_threads"] for pool in threadpool_info()][: len(pools)] == pools
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_global_generators_are_put_back_as_often_as_asked() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random_sample()), float(torch.rand(1))  # noqa: NPY002

    restore = generators()
    try:
        first = draw()
        assert all(a != b for a, b in zip(first, draw(), strict=True))
        restore()
        assert draw() == first
        restore()
        assert draw() == first
    finally:
        restore()


# --- parts that are read or set with care


def _part(name: str) -> ambient._Part:
    return next(part for part in ambient._parts() if part.name == name)


def test_from_a_folder_that_is_gone_one_goes_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder before the block is gone already: the method's own stays, and nothing fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert ambient._folder() is None
    with put_back():
        os.chdir(tmp_path)
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("before", [None, "meta"])
def test_a_default_device_is_put_back_whatever_it_was(before: str | None) -> None:
    """Where none was set, torch keeps none: only then its functions are not intercepted."""
    torch.set_default_device(before)
    modes = torch._C._len_torch_function_stack()
    try:
        with put_back():
            torch.set_default_device("meta" if before is None else "cpu")
        assert torch.get_default_device() == torch.device(before or "cpu")
        assert torch.empty(1).device == torch.device(before or "cpu")
        assert torch._C._len_torch_function_stack() == modes
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("error", [AssertionError("Torch not compiled with CUDA enabled"), RuntimeError("no such device")])
def test_a_default_device_that_is_not_there_is_none(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail() -> torch.device:
        raise error

    monkeypatch.setattr(torch, "get_default_device", fail)
    assert _part("torch's default device").read() is None


def test_a_precision_that_torch_cannot_name_becomes_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    part = _part("torch's precision of products")
    with monkeypatch.context() as patched:
        patched.setattr(torch, "get_float32_matmul_precision", lambda: (_ for _ in ()).throw(RuntimeError("mixed")))
        assert part.read() is None
    torch.set_float32_matmul_precision("medium")
    part.write(None)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("warns", [True, False])
def test_determinism_comes_back_as_it_was(warns: bool) -> None:
    torch.use_deterministic_algorithms(True, warn_only=warns)
    try:
        with put_back():
            torch.use_deterministic_algorithms(True, warn_only=not warns)
        assert _part("torch's determinism").read() == (True, warns)
    finally:
        torch.use_deterministic_algorithms(False)


def test_handlers_are_set_by_the_main_thread_alone_and_those_of_c_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[BaseException] = []
    before = ambient._handlers()

    def work() -> None:
        try:
            ambient._set_handlers([signal.SIG_DFL] * 3)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    ambient._set_handlers([None] * 3)
    assert (failed, ambient._handlers()) == ([], before)


def test_a_handler_that_ignores_ctrl_c_is_not_replaced() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with put_back():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        with pytest.raises(ProcessEndedError, match="raised KeyboardInterrupt") as caught, put_back():
            raise KeyboardInterrupt
        assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    finally:
        signal.signal(signal.SIGINT, before)


def test_soft_limits_are_put_back_below_whatever_hard_limit_there_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hard limit that was lowered stays; a limit that cannot be set does not keep the others from being set."""
    asked: list[tuple[int, tuple[int, int]]] = []

    def setrlimit(kind: int, both: tuple[int, int]) -> None:
        asked.append((kind, both))
        if kind == resource.RLIMIT_NOFILE:
            raise ValueError("not allowed to raise maximum limit")
        if kind == resource.RLIMIT_FSIZE:
            raise OSError("no")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (3, 50))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    ambient._set_limits([(7, 99)] * 3)
    assert asked == [(kind, (7, 50)) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS)]


def test_streams_that_cannot_be_copied_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def dup(number: int) -> int:
        raise OSError("too many open files")

    monkeypatch.setattr(os, "dup", dup)
    with put_back():
        pass
    assert ambient._file_behind(10**6) is None


def test_files_of_two_disks_are_told_apart(tmp_path: Path) -> None:
    """Numbers of files are unique on one disk alone."""
    (tmp_path / "a").touch()
    with (tmp_path / "a").open() as handle:
        status = os.fstat(handle.fileno())
        assert ambient._file_behind(handle.fileno()) == (status.st_dev, status.st_ino)


def test_generators_of_gpus_are_put_back_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["first", "second"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", put.append)
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda there=there: there)
        generators()()
        assert put == ([["first", "second"]] if there else [])
