"""A stranger's package whose methods do to the whole process what they should do to themselves only."""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView


class Odd(BaseException):
    """No ``Exception``, like the panics of PyO3."""


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise Odd


class Plain:
    """Halves of the mixture."""

    info: ClassVar[MethodInfo]
    max_batch = 500

    def __init_subclass__(cls) -> None:
        cls.info = MethodInfo(
            name=cls.__name__.lower(),
            title=cls.__name__,
            version="1",
            domains=frozenset({"image"}),
            supervision="blind",
            paper="none",
            deterministic=True,
            max_batch=cls.max_batch,
        )

    def supports(self, task: TaskSpec) -> Support:
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        pass

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        return mixtures.operator.pseudo_inverse(mixtures.values)


class Double(Plain):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        torch.set_default_dtype(torch.float64)


class Elsewhere(Plain):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        torch.set_default_device("meta")


class Absent(Plain):
    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        torch.set_default_device("cuda:99")
        return super().separate(mixtures, ctx)


class Strict(Plain):
    def __init__(self) -> None:
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("medium")
        np.seterr(all="raise")
        warnings.simplefilter("error")
        sys.setrecursionlimit(2_000)


class Wanderer(Plain):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        folder = Path("elsewhere")
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        os.environ["SEPBENCH_DATA"] = os.environ["SEPBENCH_CACHE"] = "nowhere"

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        os.chdir("/")
        return super().separate(mixtures, ctx)


class Silent(Plain):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


class Meddles(Plain):
    """Files that nobody may read or write to, a second to live, and numbers near zero that are none."""

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        os.umask(0o777)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        gc.disable()
        sys.path.clear()
        sys.settrace(lambda *seen: None)
        torch.backends.mkldnn.set_flags(False)
        os.close(1)
        os.close(2)
        torch.autograd.set_detect_anomaly(True)
        torch.set_flush_denormal(True)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0.05)


class Seeding(Plain):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)


class Panics(Plain):
    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        raise Odd("index out of bounds: \udce9\x1b[31m\x00")


class PanicsInFit(Plain):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        raise Odd


class Wordless(Plain):
    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        raise Mute


class Quits(Plain):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        raise SystemExit(0)


class Exits(Plain):
    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        try:
            os._exit(3)
        except Exception:
            return super().separate(mixtures, ctx)


class Aborts(Plain):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        os.abort()


class Interrupts(Plain):
    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        raise KeyboardInterrupt


class InterruptsInFit(Plain):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        raise KeyboardInterrupt


class Forks(Plain):
    """A process of its own may end as it likes."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        child = os.fork()
        if child == 0:
            os._exit(7)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 7:
            raise AssertionError
        return super().separate(mixtures, ctx)


class Generates(Plain):
    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        raise GeneratorExit


class Forgets(Plain):
    @property
    def posterior_samples(self) -> int:
        raise Odd("not fitted")


class Babbles(Plain):
    """Odd words wherever words are taken."""

    prior_label = "a prior\nof \udce9"

    def supports(self, task: TaskSpec) -> Support:
        return Support(True, "[bold]careful[/bold] \udce9\n\x1b[2J")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        ctx.progress(float("nan"), "[/red] \udce9\x00")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        ctx.progress(float("nan"), "\udce9")
        return super().separate(mixtures, ctx)


class Reuses(Plain):
    """Writes every batch of estimates into one tensor."""

    buffer: ClassVar[torch.Tensor]
    max_batch = 1

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        estimates = super().separate(mixtures, ctx)
        if not hasattr(Reuses, "buffer"):
            Reuses.buffer = torch.empty_like(estimates)
        return Reuses.buffer.copy_(estimates)


class Threaded(Plain):
    """Leaves a thread alone, which fails."""

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        thread = threading.Thread(target=lambda: [][0])
        thread.start()
        thread.join()


class Sparse(Plain):
    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        return super().separate(mixtures, ctx).to_sparse()


class Last(Plain):
    """Notes what it finds."""

    found: ClassVar[dict[str, Any]] = {}

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        self.found |= {
            "dtype": torch.get_default_dtype(),
            "device": torch.empty(0).device.type,
            "threads": torch.get_num_threads(),
            "gradients": torch.is_grad_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "products": torch.get_float32_matmul_precision(),
            "numpy": np.geterr(),
            "raised": [entry for entry in warnings.filters if entry[0] == "error"],
            "depth": sys.getrecursionlimit(),
            "mask": os.umask(0o022),
            "limit": resource.getrlimit(resource.RLIMIT_FSIZE),
            "path": tuple(sys.path),
            "traced": sys.gettrace(),
            "library": torch._C._get_mkldnn_enabled(),
            "collects": gc.isenabled(),
            "anomalies": torch.is_anomaly_enabled(),
            "tiny": float(torch.tensor(1e-310, dtype=torch.float64) * 0.5),
            "interrupt": getattr(signal.getsignal(signal.SIGINT), "handler", "another one"),
            "alarm": signal.getitimer(signal.ITIMER_REAL),
            "folder": str(Path.cwd()),
            "variables": (os.environ.get("SEPBENCH_DATA"), os.environ.get("SEPBENCH_CACHE")),
            "streams": (sys.stdout, sys.stderr),
            "draws": (random.random(), np.random.random(), float(torch.rand(1))),  # noqa: NPY002
        }
