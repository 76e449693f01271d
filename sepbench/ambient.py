"""What code may change for its whole process, put back after it: a method must not decide how the next one computes, or where files go."""

from __future__ import annotations

import contextlib
import functools
import gc
import operator
import os
import random
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import numpy as np

from sepbench.torch_later import torch

_VARIABLES = ("SEPBENCH_DATA", "SEPBENCH_CACHE", "SEPBENCH_OFFLINE", "HOME", "XDG_CACHE_HOME", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
"""Of the environment; others are a method's own affair, whose library may read them later."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
_LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS)


class ProcessEndedError(BaseException):
    """A method asked for the end of the process, or of the run, which is not its own.

    No ``Exception``, so that code which swallows those goes on to no next line.
    """


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a plain text, read at every call of a method
    except OSError:  # it has been removed
        return None


def _go_to(folder: str | None) -> None:
    with contextlib.suppress(OSError):
        os.chdir(folder or os.curdir)


def _device() -> torch.device | None:
    try:
        return torch.get_default_device()
    except Exception:  # a device that is not there, as it turns out when it is first used
        return None


def _set_device(device: torch.device | None) -> None:
    torch.set_default_device(None)  # torch's own state, in which nothing slows its calls down
    if _device() != device:
        torch.set_default_device(device)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _products() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # torch's newer switches say what this older one cannot
        return None


def _variables() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in _VARIABLES}


def _set_variables(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _keeps(before: tuple[str, ...], after: tuple[str, ...]) -> bool:
    """A method may add to sys.path, for its own modules that it imports later."""
    return set(before) <= set(after)


def _set_path(before: tuple[str, ...]) -> None:
    sys.path[:] = [*before, *(entry for entry in sys.path if entry not in before)]


def _raised_warnings() -> list[Any]:
    return [entry for entry in warnings.filters if entry[0] == "error"]


def _set_raised_warnings(before: list[Any]) -> None:
    """Warnings that have become errors are warnings again; what libraries silence when they are imported stays silent."""
    warnings.filters[:] = [entry for entry in warnings.filters if entry[0] != "error" or entry in before]  # type: ignore[index]


def _set_streams(streams: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = streams


def _set_threads(count: int) -> None:
    """Not ``torch.set_num_threads``: whoever calls it, batched LU decompositions go wrong in this process from then on (pytorch issues 142815 and 141358)."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(count, user_api="openmp")


def _umask() -> int:
    mask = os.umask(0o077)  # it can be read in no other way
    os.umask(mask)
    return mask


def _handlers() -> list[Any]:
    return [signal.getsignal(number) for number in _SIGNALS]


def _set_handlers(handlers: list[Any]) -> None:
    if threading.current_thread() is threading.main_thread():  # others may set none
        for number, handler in zip(_SIGNALS, handlers, strict=True):
            if handler is not None:  # one that was not made in Python
                signal.signal(number, handler)


def _alarm_is_set() -> bool:
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _set_alarm(before: bool) -> None:
    if not before:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(kind) for kind in _LIMITS]


def _set_limits(limits: list[tuple[int, int]]) -> None:
    for kind, (soft, _) in zip(_LIMITS, limits, strict=True):
        with contextlib.suppress(OSError, ValueError):  # a hard limit that was lowered stays
            resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


def _cudnn() -> tuple[bool, bool, bool]:
    return torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic


def _set_cudnn(flags: tuple[bool, bool, bool]) -> None:
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = flags


def _flushes_denormals() -> bool:
    return float(torch.tensor(1e-310, dtype=torch.float64, device="cpu") * 0.5) == 0.0  # wherever tensors are made by default


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the process's state: what it is called, how it is read, how it is set, and whether two readings are as good as the same."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    same: Callable[[Any, Any], bool] = operator.eq


@functools.cache
def _parts() -> tuple[_Part, ...]:
    return (
        _Part("the working folder", _folder, _go_to),
        _Part("variables of the environment", _variables, _set_variables),
        _Part("entries of sys.path", lambda: tuple(sys.path), _set_path, _keeps),
        _Part("a trace function", sys.gettrace, sys.settrace),
        _Part("a profile function", sys.getprofile, sys.setprofile),
        _Part("output streams", lambda: (sys.stdout, sys.stderr), _set_streams),
        _Part("warnings that are errors", _raised_warnings, _set_raised_warnings),
        _Part("the limit of recursion", sys.getrecursionlimit, sys.setrecursionlimit),
        _Part("the mask of file modes", _umask, os.umask),
        _Part("signal handlers", _handlers, _set_handlers),
        _Part("an alarm", _alarm_is_set, _set_alarm),
        _Part("limits of resources", _limits, _set_limits),
        _Part("garbage collection", gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()),
        _Part("numpy's handling of errors", np.geterr, lambda kinds: np.seterr(**kinds)),
        _Part("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        _Part("torch's default device", _device, _set_device),
        _Part("torch's thread count", torch.get_num_threads, _set_threads),
        _Part("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
        _Part("torch's anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        _Part("torch's use of oneDNN", torch._C._get_mkldnn_enabled, torch.backends.mkldnn.set_flags),
        _Part("torch's use of cuDNN", _cudnn, _set_cudnn),
        _Part("denormal numbers", _flushes_denormals, torch.set_flush_denormal),
        _Part("torch's determinism", _deterministic, lambda both: torch.use_deterministic_algorithms(both[0], warn_only=both[1])),
        _Part("torch's precision of products", _products, lambda precision: torch.set_float32_matmul_precision(precision or "highest")),
    )


def state() -> tuple[Any, ...]:
    """What ``put_back`` puts back, as it is now; see ``changed``."""
    return tuple(part.read() for part in _parts())


def changed(before: tuple[Any, ...]) -> list[str]:
    """What is not as it was when ``state`` returned ``before``, in words."""
    return [part.name for part, value in zip(_parts(), before, strict=True) if not part.same(value, part.read())]


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    """After the block the process is as it was before: working folder, sepbench's variables, output streams and what they are open on, entries of sys.path,
    functions that trace, warnings, errors of numpy, file mode mask, signal handlers, alarms, limits of resources, the garbage collector, and torch's default
    number type and device, threads, gradients, search for anomalies, libraries, tiny numbers, determinism and precision of products. Where nothing changed
    it costs a fraction of a millisecond.

    In the block nobody ends the process by ``os._exit`` or ``os.abort``, and KeyboardInterrupt comes out of it only after Ctrl-C.

    Global generators are not among them: who draws from one gets another number at every call. See ``generators``.

    Raises:
        ProcessEndedError: by such a call, or by a KeyboardInterrupt that nobody asked for.
    """
    before = state()
    try:
        with _same_descriptors(), _no_end(), _only_real_interrupts():
            yield
    finally:
        for part, value in zip(_parts(), before, strict=True):
            if not part.same(value, part.read()):
                part.write(value)


@contextlib.contextmanager
def _same_descriptors() -> Iterator[None]:
    """Standard input, output and errors are open on the same files after the block, whoever closed or turned them."""
    kept = [(number, _copy_of(number), _file_behind(number)) for number in range(3)]
    try:
        yield
    finally:
        for number, copy, before in kept:
            with contextlib.suppress(OSError):  # a copy that was closed too
                if copy is not None and _file_behind(number) != before:
                    os.dup2(copy, number)
                if copy is not None:
                    os.close(copy)


def _copy_of(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:  # it is closed, or there are too many
        return None


def _file_behind(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _no_end() -> Iterator[None]:
    """Calls that end a process at once raise an error here; in processes that are forked meanwhile they do what they always do."""
    owner, real_exit, real_abort = os.getpid(), os._exit, os.abort

    def exit_(status: int) -> NoReturn:
        if os.getpid() != owner:
            real_exit(status)
        raise ProcessEndedError(f"called os._exit({status}), which would have ended the whole run")

    def abort() -> NoReturn:
        if os.getpid() != owner:
            real_abort()
        raise ProcessEndedError("called os.abort(), which would have ended the whole run")

    os._exit, os.abort = exit_, abort
    try:
        yield
    finally:
        os._exit, os.abort = real_exit, real_abort


@contextlib.contextmanager
def _only_real_interrupts() -> Iterator[None]:
    """A KeyboardInterrupt without an interrupt is the method's own, and no wish of the user's.

    Outside the main thread nothing tells the two apart, and it comes through.
    """
    handler = signal.getsignal(signal.SIGINT)
    heard = _Heard(handler) if callable(handler) else None
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and heard:
        signal.signal(signal.SIGINT, heard)
    try:
        yield
    except KeyboardInterrupt as error:
        if not on_main or (heard and heard.times):
            raise
        raise ProcessEndedError("raised KeyboardInterrupt, which would have ended the whole run as Ctrl-C does") from error
    finally:
        if on_main and heard and signal.getsignal(signal.SIGINT) is heard:
            signal.signal(signal.SIGINT, handler)


class _Heard:
    """A signal's handler, which counts how often it was called."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler, self.times = handler, 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.times += 1
        self.handler(number, frame)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """torch, and the libraries of linear algebra that are loaded, compute with so many threads in the block; then as before.

    A library that is loaded in the block keeps that number, for it reads it once.
    """
    import scipy.linalg  # noqa: F401 - so that its library is among those that are loaded
    from threadpoolctl import threadpool_limits

    torch.get_num_threads()  # torch sets a thread's number when it is first asked for it: before it is limited, then, not after
    with put_back(), threadpool_limits(count):
        os.environ["OMP_NUM_THREADS"] = str(count)
        yield


def generators() -> Callable[[], None]:
    """Remember the states of the global generators of Python, numpy and torch; what is returned puts them back, as often as it is called."""
    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        torch.set_rng_state(tensors)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)

    return restore
