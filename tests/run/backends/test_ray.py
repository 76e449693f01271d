"""Ray actors: the same bits, whoever dies on the way. Ray is started for each test, in a folder of its own, and ends with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from backend_runs import Watched, separate, sepbench
from run_harness import bits

from sepbench.errors import SepbenchError
from sepbench.results.store import RunStore
from sepbench.run.backends import ray as backend
from sepbench.run.backends.local import LocalBackend
from sepbench.run.backends.ray import Actors, RayBackend
from sepbench.run.plan import make_plan
from sepbench.run.request import RequestError, RunRequest
from sepbench.run.session import Tell
from sepbench.suites.loader import load_suite

pytestmark = pytest.mark.usefixtures("site")
needs_ray = pytest.mark.skipif(shutil.which("ray", path=Path(sys.executable).parent) is None, reason="Ray is not installed")

CLASS_SPLIT = {"tasks": ("class-split",)}


@pytest.fixture(autouse=True)
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray writes: a short path, for it makes sockets there; gone afterwards. No cluster of anybody else is joined."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    (folder / "token").write_text("of-this-test-and-not-of-the-user's-home", encoding="utf-8")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@needs_ray
def test_the_command_with_two_actors_gives_the_bits_of_one_process(tmp_path: Path) -> None:
    arguments = ("run", "--suite", "digits-pairs", "--methods", "average,nmf", "--limit", "100", "--device", "cpu")
    run = sepbench(*arguments, "--backend", "ray", "--workers", "2", "--out", "shared", cwd=tmp_path)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert [line for line in errors.splitlines() if not line.startswith("done ")] == [], "Ray says nothing itself"
    _, alone, _ = separate(tmp_path / "alone", LocalBackend(), "average", "nmf", limit=100)
    shared = RunStore.open(tmp_path / "shared")
    assert bits(shared.read_scores()) == bits(alone.read_scores())
    assert {(cell.state, cell.workers) for cell in shared.read_cells().values()} == {("done", 2)}
    assert shared.read_run().sessions[-1].backend == "ray"


@needs_ray
@pytest.mark.slow
def test_an_actor_that_dies_in_a_batch_is_replaced_and_the_batch_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEADLY_MARKER", str(tmp_path / "died"))
    outcome, killed, watched = separate(tmp_path / "killed", RayBackend(2), "mortal", limit=60, shard_size=20, **CLASS_SPLIT)
    assert (tmp_path / "died").exists()
    _, undisturbed, _ = separate(tmp_path / "undisturbed", LocalBackend(), "mortal", limit=60, shard_size=20, **CLASS_SPLIT)
    assert bits(killed.read_scores()) == bits(undisturbed.read_scores())
    assert outcome.exit_code == 0
    (warning,) = watched.warnings
    assert "mixtures 20 to 39; it is done again" in warning
    assert watched.mixtures == pytest.approx(60)


@needs_ray
@pytest.mark.slow
def test_all_actors_killed_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pids").mkdir()
    monkeypatch.setenv("DEADLY_PIDS", str(tmp_path / "pids"))
    monkeypatch.setenv("DEADLY_NAP", "0.1")
    kills: list[int] = []

    def kill_them() -> None:
        working = [int(path.name) for path in (tmp_path / "pids").iterdir()]
        if not kills and len(working) == 2:
            kills.extend(working)
            for pid in kills:
                os.kill(pid, signal.SIGKILL)

    _, killed, watched = separate(tmp_path / "killed", RayBackend(2), "sleepy", progress=Watched(kill_them), limit=200, **CLASS_SPLIT)
    assert len(kills) == 2
    monkeypatch.setenv("DEADLY_NAP", "0")
    _, undisturbed, _ = separate(tmp_path / "undisturbed", LocalBackend(), "sleepy", limit=200, **CLASS_SPLIT)
    assert bits(killed.read_scores()) == bits(undisturbed.read_scores())
    assert watched.mixtures == pytest.approx(200)


@needs_ray
@pytest.mark.slow
def test_a_machine_that_does_not_see_the_run_s_folder_ends_the_run_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunStore, "opener", lambda self: partial(RunStore, Path("/not/on/this/machine")))
    with pytest.raises(SepbenchError, match=r"does not see the run's folder.*use an --out that all machines share"):
        separate(tmp_path / "run", RayBackend(2), "plain", limit=20, **CLASS_SPLIT)


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SepbenchError, match=r"pip install 'sepbench\[ray\]'"):
        RayBackend()


def test_no_workers_are_refused() -> None:
    with pytest.raises(RequestError, match="at least 1, got 0"):
        RayBackend(0)


@needs_ray
def test_a_cluster_that_is_not_there_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(SepbenchError, match=r"no Ray cluster answers at RAY_ADDRESS=127.*ray start --head"):
            RayBackend(2)


@pytest.mark.parametrize("address", ["", "auto", "ray://head:10001"])
@pytest.mark.parametrize("workers", [None, 3])
@pytest.mark.parametrize("said", ["", "1"])
def test_a_ray_of_our_own_reports_to_nobody_and_a_cluster_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, address: str, workers: int | None, said: str
) -> None:
    started: dict[str, Any] = {}
    fake = SimpleNamespace(init=lambda **options: started.update(options), cluster_resources=lambda: {"CPU": 8.0 * torch.get_num_threads()})
    monkeypatch.setattr(backend, "_ray", lambda: fake)
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", said)
    if not said:
        del os.environ["RAY_USAGE_STATS_ENABLED"]  # put back as it was at the end
    made = RayBackend(workers)
    assert os.environ.get("RAY_USAGE_STATS_ENABLED") == (said or (None if address else "0"))
    own = {"address": "local", "include_dashboard": False} | ({"num_cpus": workers * torch.get_num_threads()} if workers else {})
    assert {key: started[key] for key in started if key not in ("logging_level", "log_to_driver", "configure_logging")} == (
        {"address": address} if address else own
    )
    assert made.workers == (workers or 8)


class _FullCluster:
    """Stands for Ray with a cluster that never has room: no actor ever answers."""

    exceptions = None

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick

    def remote(self, *arguments: Any, **options: Any) -> Any:
        return self

    __call__ = options = remote

    @property
    def peek(self) -> Any:
        return self

    def wait(self, refs: list[Any], **options: Any) -> tuple[list[Any], list[Any]]:
        self._tick()
        return [], refs


def test_a_cluster_without_room_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class _Enough(Exception):
        pass

    def tick() -> None:
        clock[0] += 1.0
        if clock[0] > 1000.0:
            raise _Enough

    monkeypatch.setattr("sepbench.run.backends.ray.time.monotonic", lambda: clock[0])
    plan = make_plan(RunRequest("digits-pairs", ("plain",), device="cpu"), load_suite("digits-pairs"))
    pool = Actors(_FullCluster(tick), 2, 1, plan, RunStore(tmp_path))
    assert not pool.ready(0)
    (event,) = pool.wait()
    assert event.tell is not None
    assert "no room" in event.tell.warning
    assert not event.death
    with pytest.raises(_Enough):
        pool.wait()


# ---- without Ray ---------------------------------------------------------------------------------------------------------------------


def cluster(monkeypatch: pytest.MonkeyPatch, workers: int | None, **resources: float) -> backend.RayBackend:
    monkeypatch.setattr(backend, "_ray", lambda: SimpleNamespace(init=lambda **options: None, cluster_resources=lambda: resources))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    return backend.RayBackend(workers)


@pytest.mark.parametrize(
    ("resources", "workers"), [({"CPU": 9.0}, 4), ({"CPU": 9.0, "GPU": 3.0}, 3), ({"CPU": 1.0}, 1), ({}, 1), ({"CPU": 9.0, "GPU": 0.0}, 4)]
)
def test_a_cluster_has_a_worker_per_gpu_or_as_many_as_its_cores_take(monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], workers: int) -> None:
    assert cluster(monkeypatch, None, **resources).workers == workers
    assert cluster(monkeypatch, 6, **resources).workers == 6


@pytest.mark.parametrize(
    ("device", "resources", "line"),
    [
        ("cpu", {"CPU": 6.0}, ""),
        ("cpu", {"CPU": 5.5}, "3 workers need 6 CPUs, the cluster has 5; ask for fewer with --workers"),
        ("cuda", {"CPU": 6.0, "GPU": 3.0}, ""),
        ("cuda", {"CPU": 6.0, "GPU": 2.0}, "3 workers need 3 GPUs, the cluster has 2; ask for fewer with --workers"),
        ("cuda", {"CPU": 6.0}, "3 workers need 3 GPUs, the cluster has 0; ask for fewer with --workers"),
        ("cuda:1", {"CPU": 6.0, "GPU": 3.0}, "Ray gives each worker a GPU of its own: use --device cuda instead of cuda:1"),
    ],
)
def test_a_cluster_without_room_is_one_line(monkeypatch: pytest.MonkeyPatch, device: str, resources: dict[str, float], line: str) -> None:
    made, plan = cluster(monkeypatch, 3, **resources), SimpleNamespace(device=device)
    if not line:
        made._check_room(plan)  # type: ignore[arg-type]
        return
    with pytest.raises(RequestError) as refused:
        made._check_room(plan)  # type: ignore[arg-type]
    assert str(refused.value) == line


@pytest.mark.parametrize(
    ("address", "asked"), [("host:99", ("host", 99)), ("::1:99", ("::1", 99)), ("auto", None), ("", None), ("ray://h:1", None), ("h:x", None), (":9", None)]
)
def test_only_addresses_of_a_machine_are_knocked_at(monkeypatch: pytest.MonkeyPatch, address: str, asked: Any) -> None:
    knocked: list[Any] = []
    monkeypatch.setattr(backend.socket, "create_connection", lambda where, timeout: knocked.append((where, timeout)) or SimpleNamespace(close=lambda: None))
    backend._knock(address)
    assert knocked == ([(asked, 10.0)] if asked else [])


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), OverflowError("port"), TimeoutError("timed out")], ids=repr)
def test_a_machine_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refused(where: object, timeout: float) -> Any:
        raise error

    monkeypatch.setattr(backend.socket, "create_connection", refused)
    with pytest.raises(SepbenchError) as told:
        backend._knock("host:99")
    assert str(told.value).startswith(f"no Ray cluster answers at RAY_ADDRESS=host:99 ({type(error).__name__}: ")
    assert str(told.value).endswith("); is the head started? ('ray start --head')")


def test_what_actors_are_told_between_two_questions() -> None:
    """Mixtures add up, of fractions the last one counts; stages and warnings stay in their order."""
    worker = backend.RayWorker(None, None, "", ".", [])  # type: ignore[arg-type]
    stage, warning = Tell(stage="score"), Tell(warning="careful")
    for tell in (
        *(Tell(1.0), Tell(2.0), stage, Tell(1.0), warning, Tell(0.5), Tell(0.5)),
        *(Tell(stage="fit 5%", fraction=0.05), Tell(stage="fit 9%", fraction=0.09), stage),
    ):
        worker._tell(tell)
    assert worker.peek() == [Tell(3.0), stage, Tell(1.0), warning, Tell(1.0), Tell(stage="fit 9%", fraction=0.09), stage]
    assert worker.peek() == []


def test_an_actor_works_where_the_command_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr(sys, "path", ["there"])
    backend.RayWorker(None, None, "", str(tmp_path), ["new", "there"])  # type: ignore[arg-type]
    assert (Path.cwd(), sys.path) == (tmp_path, ["there", "new"])
    backend.RayWorker(None, None, "", str(tmp_path / "nothing"), [])  # type: ignore[arg-type]
    assert Path.cwd() == tmp_path
    assert backend._how(RuntimeError("it died. Its node was lost")) == "RuntimeError: it died"
    assert len(backend._how(RuntimeError("x" * 500))) == 200
