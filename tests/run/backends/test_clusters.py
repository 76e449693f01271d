"""The recipes of ``docs/clusters.md`` run as written: two Ray nodes on this machine, and a SLURM that starts its tasks here."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backend_runs import separate
from run_harness import bits

from sepbench.results.store import RunStore
from sepbench.run.backends.local import LocalBackend

ROOT = Path(__file__).resolve().parents[3]
needs_ray = pytest.mark.skipif(shutil.which("ray", path=Path(sys.executable).parent) is None, reason="Ray is not installed")
pytestmark = [needs_ray, pytest.mark.slow, pytest.mark.usefixtures("site")]

TOKEN = "of-this-test-and-not-of-the-users-home"
LONGEST = 600.0
"""Seconds to wait for what must happen."""


def _commands(heading: str) -> list[tuple[str, str]]:
    """(where, command) of every command under a heading of the recipes."""
    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```console[^\n]*\n(.*?)```", section, flags=re.S)
    return [(where, command) for block in blocks for where, command in re.findall(r"^(\w*)\$ (.*)$", block, flags=re.M)]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


class Machines:
    """Starts the recipes' commands in process groups of their own, which end with the test."""

    def __init__(self, shared: Path, folder: Path) -> None:
        self.shared, self.port, self.logs = shared, _free_port(), folder
        self._running: list[subprocess.Popen[str]] = []

    def _as_here(self, command: str) -> str:
        """This machine stands for all, with one CPU each; the documented port may be taken."""
        command = command.replace("/shared/", f"{self.shared}/").replace("HEAD:6379", f"127.0.0.1:{self.port}").replace("--port=6379", f"--port={self.port}")
        return f"{command} --num-cpus=1" if " ray start " in command else command

    def start(self, command: str) -> subprocess.Popen[str]:
        log = (self.logs / f"{len(self._running)}.log").open("w", encoding="utf-8")
        with log:
            started = subprocess.Popen(
                ["bash", "-c", self._as_here(command)], stdout=log, stderr=subprocess.STDOUT, text=True, cwd=self.shared, start_new_session=True
            )
        self._running.append(started)
        return started

    def run(self, command: str) -> str:
        """What a command says; it must succeed."""
        code, said, errors = self.ended(self._as_here(command))
        assert code == 0, f"$ {command}\n{said}\n{errors}\n{self.told()}"
        return said

    def ended(self, command: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command. One that takes too long is ended as a terminal would, so that it can end what it has started."""
        run = subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.shared, start_new_session=True)
        try:
            said, errors = run.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGTERM)
            said, errors = run.communicate(timeout=60.0)
        return run.returncode, said, errors

    def told(self) -> str:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(self.logs.glob("*.log")))

    def until(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LONGEST
        while not happened():
            assert time.monotonic() < deadline, f"{what} did not happen within {LONGEST} s\n{self.told()}"
            time.sleep(0.2)

    def stop(self) -> None:
        for group in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(group.pid, signal.SIGTERM)
        for group in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                group.wait(timeout=20.0)
        _end(self.logs)
        for group in self._running:
            group.wait()


def _with_ray_in(folder: Path) -> list[int]:
    """Processes of this test whose Ray writes into that folder."""
    found, wanted = [], f"RAY_TMPDIR={folder}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def _end(folder: Path) -> None:
    """Nothing of a test that went wrong stays behind."""
    for pid in _with_ray_in(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def alone() -> Iterator[None]:
    """Clusters on this machine follow one another, also where pytest has several workers: two at once start for minutes on two cores."""
    with Path(tempfile.gettempdir(), "sepbench-cluster-tests.lock").open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: None) -> Iterator[Machines]:
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short, for Ray makes sockets there
    (folder / "token").write_text(TOKEN, encoding="utf-8")
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    started = Machines(shared, folder)
    yield started
    started.stop()


def _cpus(machines: Machines) -> int:
    """CPUs of the cluster, asked by a process of its own; 0 while nobody listens."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", machines.port), timeout=1.0).close()
        address = f"127.0.0.1:{machines.port}"
        question = f"import ray; ray.init('{address}', logging_level='ERROR', log_to_driver=False); print(int(ray.cluster_resources().get('CPU', 0)))"
        environment = {**os.environ, "RAY_AUTH_MODE": "token"}
        asked = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, cwd=machines.shared, check=False, env=environment)
        return int(asked.stdout) if asked.returncode == 0 else 0
    return 0


def _cluster(machines: Machines) -> subprocess.Popen[str]:
    """Start the head and the second machine, which is returned."""
    (_, token), (_, head), (_, worker), _ = _commands("Several machines")
    assert machines.run(token).strip() == TOKEN
    machines.start(head)
    machines.until(lambda: _cpus(machines) == 1, "the head")
    second = machines.start(worker)
    machines.until(lambda: _cpus(machines) == 2, "the second machine")
    return second


def _same_as_alone(folder: Path, alone: Path, workers: int) -> None:
    _, expected, _ = separate(alone, LocalBackend(), "average", "nmf")
    store = RunStore.open(folder)
    assert bits(store.read_scores()) == bits(expected.read_scores())
    assert {(cell.state, cell.workers) for cell in store.read_cells().values()} == {("done", workers)}


def test_several_machines(machines: Machines, tmp_path: Path) -> None:
    _cluster(machines)
    machines.run(_commands("Several machines")[-1][1])
    _same_as_alone(machines.shared / "runs" / "digits", tmp_path / "alone", workers=2)


def test_a_machine_is_lost_and_the_other_does_its_work(machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    monkeypatch.setenv("DEADLY_PIDS", str(pids))
    monkeypatch.setenv("DEADLY_NAP", "0.2")
    second = _cluster(machines)
    command = _commands("Several machines")[-1][1].replace("average,nmf", "sleepy --tasks class-split --limit 400")
    run = machines.start(command)
    machines.until(lambda: len(list(pids.iterdir())) == 2, "work on both machines")
    os.killpg(second.pid, signal.SIGKILL)
    machines.until(lambda: run.poll() is not None, "the end of the run")
    assert run.returncode == 0, machines.told()
    assert "it is done again" in machines.told()
    store = RunStore.open(machines.shared / "runs" / "digits")
    assert store.read_cells()["class-split", "sleepy"].workers == 2
    monkeypatch.setenv("DEADLY_NAP", "0")
    _, alone, _ = separate(tmp_path / "alone", LocalBackend(), "sleepy", tasks=("class-split",), limit=400)
    assert bits(store.read_scores()) == bits(alone.read_scores())


FAKES = {
    # sbatch --nodes=N --cpus-per-task=C ... SCRIPT COMMAND: the script runs where the first task does.
    "sbatch": """
        for option in "$@"; do
            case $option in
                --nodes=*) export SLURM_JOB_NUM_NODES=${option#*=} ;;
                --cpus-per-task=*) export SLURM_CPUS_PER_TASK=${option#*=} ;;
            esac
        done
        while [[ $1 == --* ]]; do shift; done
        export SLURM_JOB_ID=$FAKE_JOB SLURM_JOB_NODELIST="here[1-$SLURM_JOB_NUM_NODES]"
        exec bash "$@"
        """,
    "scontrol": """
        [ "$1 $2" = "show hostnames" ] || exit 1
        for _ in $(seq "$SLURM_JOB_NUM_NODES"); do echo 127.0.0.1; done
        """,
    # srun OPTIONS COMMAND: a task per node, each a group that gets the signal when the step is ended.
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
            SLURM_NODEID=$node setsid "$@" >&2 &
            tasks+=("-$!")
        done
        trap 'kill -TERM -- "${tasks[@]}"; wait; exit 143' TERM
        wait
        """,
}


@pytest.fixture
def slurm(tmp_path: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the commands of SLURM, in front of all others; yields where the job's Ray writes."""
    for name, text in FAKES.items():
        path = tmp_path / "slurm" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}", encoding="utf-8")
        path.chmod(0o755)
    job = os.getpid()
    monkeypatch.setenv("FAKE_JOB", str(job))
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}{os.pathsep}{os.environ['PATH']}")
    (machines.shared / "scripts").symlink_to(ROOT / "scripts")
    yield Path(f"/tmp/ray-{job}")
    _end(Path(f"/tmp/ray-{job}"))


def test_slurm(slurm: Path, machines: Machines, tmp_path: Path) -> None:
    ((_, command),) = _commands("SLURM")
    said = machines.run(command)
    assert "Ray: 2 of 2 nodes, 2 CPUs, 0 GPUs" in said
    _same_as_alone(machines.shared / "runs" / "slurm", tmp_path / "alone", workers=2)
    machines.until(lambda: not _with_ray_in(slurm), "the end of the job's Ray")
    assert not slurm.exists(), "the job tidies up"


def test_slurm_ends_with_the_exit_code_of_the_command(slurm: Path, machines: Machines) -> None:
    ((_, command),) = _commands("SLURM")
    batch = command.split(" sepbench ")[0].replace("--nodes=2", "--nodes=1")
    code, _, errors = machines.ended(f"{batch} sh -c 'exit 7'")
    assert code == 7, errors
    code, _, errors = machines.ended(batch)
    assert code == 2
    assert "usage: sbatch" in errors


def test_one_machine(machines: Machines, tmp_path: Path) -> None:
    commands = _commands("One machine")
    assert len(commands) >= 2
    for _, command in commands:
        machines.run(command)
    _same_as_alone(machines.shared / "runs" / "digits", tmp_path / "alone", workers=2)
