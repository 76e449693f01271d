"""What is asked for arrives: flags of the API, numbers of a run, keys of what is kept, and bounds of what is taken."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch

import sepbench.api.evaluating
import sepbench.api.running
import sepbench.report.panels.session
import sepbench.run.backends.local
import sepbench.run.separate
from sepbench.api.own_methods import state_sha256
from sepbench.data.estimates.png import read_png
from sepbench.data.lists.recipes import RECIPES
from sepbench.errors import SuiteError
from sepbench.gmm import ExactPosterior, GaussianMixture
from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.draws import posterior_reference
from sepbench.metrics.sets.extractors import ExtractorInfo
from sepbench.metrics.sets.references import keep_reference
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures
from sepbench.report.panels.histogram import bin_edges
from sepbench.report.table import markdown_leaderboard
from sepbench.results.gate import parse_tolerances
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.run.plan import Shard, make_plan
from sepbench.run.request import RunRequest
from sepbench.run.separate import Separated, separate_shard
from sepbench.suites.assembly import FrozenList
from sepbench.suites.loader import load_suite
from sepbench.suites.own import OwnSuite, make_suite

ROOT = Path(__file__).resolve().parents[1]


class Asked(Exception):
    """Ends a call where what it passes on is known."""


# ---- flags of the API ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["partial", "allow_clipped", "keep_estimates"])
@pytest.mark.parametrize("value", [True, False])
def test_evaluate_passes_every_flag_on(monkeypatch: pytest.MonkeyPatch, flag: str, value: bool) -> None:
    told: dict[str, Any] = {}

    def stop(*given: object, **named: object) -> None:
        told.update(named)
        raise Asked

    monkeypatch.setattr(sepbench.api.evaluating, "evaluate_estimates", stop)
    flags = dict.fromkeys(("partial", "allow_clipped", "keep_estimates"), not value) | {flag: value}
    with pytest.raises(Asked):
        sepbench.api.evaluating.evaluate("digits-pairs", task="class-split", estimates="x.npy", name="theirs", **flags)  # type: ignore[arg-type]
    assert {name: told[name] for name in flags} == flags


@pytest.mark.parametrize("flag", ["keep_estimates", "retry_failed", "refit"])
@pytest.mark.parametrize("value", [True, False])
def test_run_passes_every_flag_on(monkeypatch: pytest.MonkeyPatch, flag: str, value: bool) -> None:
    requests: list[RunRequest] = []

    def stop(request: RunRequest, *rest: object) -> None:
        requests.append(request)
        raise Asked

    monkeypatch.setattr(sepbench.api.running, "_carried_out", stop)
    flags = dict.fromkeys(("keep_estimates", "retry_failed", "refit"), not value) | {flag: value}
    with pytest.raises(Asked):
        sepbench.api.running.run("digits-pairs", methods="average", **flags)  # type: ignore[arg-type]
    assert {name: getattr(requests[0], name) for name in flags} == flags


@dataclass
class _Holds:
    value: object


@pytest.mark.parametrize("kind", ["array", "tensor", "module", "list of arrays"])
def test_an_object_that_holds_other_numbers_is_another_method(kind: str) -> None:
    def made(level: float) -> _Holds:
        if kind == "tensor":
            return _Holds(torch.full((3,), level))
        if kind == "module":
            layer = torch.nn.Linear(2, 1)
            torch.nn.init.constant_(layer.weight, level)
            torch.nn.init.zeros_(layer.bias)
            return _Holds(layer)
        array = np.full(3, level)
        return _Holds(array if kind == "array" else [array, array.copy()])

    assert state_sha256(made(1.0)) == state_sha256(made(1.0)) != state_sha256(made(2.0))


@pytest.mark.parametrize("kind", ["lambda", "local class", "open file", "lock", "generator", "module", "stream", "bottomless"])
def test_an_object_that_cannot_be_written_down_is_never_taken_for_another(tmp_path: Path, kind: str) -> None:
    """Whatever pickle says of it; the digest is one of its own at every call."""

    class Local:
        pass

    bottomless: list[Any] = []
    for _ in range(5_000):  # deeper than pickle can go
        bottomless = [bottomless]
    path = tmp_path / "open"
    path.write_text("x")
    with path.open() as handle, path.open("rb") as stream:
        values: dict[str, Any] = {
            **{"lambda": lambda: 1, "local class": Local(), "open file": handle, "lock": threading.Lock(), "generator": (n for n in range(3))},
            **{"module": os, "stream": stream, "bottomless": bottomless},
        }
        found = [state_sha256(_Holds(values[kind])) for _ in range(3)]
        assert len(set(found)) == 3
        assert all(len(digest) == 64 for digest in found)


# ---- keys of what is kept --------------------------------------------------------------------------------------------------------------


def test_reference_features_are_kept_by_the_extractor_s_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path))

    @dataclass
    class Extractor:
        weights: float
        info: ClassVar[ExtractorInfo] = ExtractorInfo("toy", 2, 0, (), "")

        def digest(self) -> str:
            return str(self.weights)

        def extract(self, images: torch.Tensor, device: str) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.full((len(images), 2), self.weights), torch.zeros(len(images), 0)

    signals = SimpleNamespace(load=lambda rows: torch.zeros(len(rows), 1, 4, 4))
    task: Any = SimpleNamespace(reference=lambda: [(signals, torch.arange(3), lambda values: values)])
    first, again, other = (keep_reference(task, Extractor(weights), "cpu") for weights in (1.0, 1.0, 2.0))  # type: ignore[arg-type]
    assert first == again
    assert first.key != other.key


# ---- numbers ---------------------------------------------------------------------------------------------------------------------------


def test_every_mixture_has_reference_draws_of_its_own() -> None:
    prior = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 2).double(), torch.eye(2).double()[None])
    exact = ExactPosterior((prior, prior), torch.ones(2).double(), 0.1)
    mixtures = Mixtures(torch.ones(2, 2), torch.tensor([3, 4]), make_operator("sum", 2))
    draws = posterior_reference(exact, mixtures, 5).draws
    assert not torch.equal(draws[0], draws[1])


def test_the_jackknife_of_a_pooled_psnr_by_hand() -> None:
    metric: Any = get_metric("psnr_pooled32")
    errors = np.array([0.1, 0.02, 0.3, 0.07])
    whole = -10 * np.log10(errors.mean())
    own = np.array([3 * (whole + 10 * np.log10(np.delete(errors, i).mean())) for i in range(4)])
    found = metric.pool({"mse": errors}, np.arange(4))
    assert np.allclose(found, whole + own - own.mean())


def test_seconds_of_a_batch_are_shared_by_its_mixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_suite("digits-pairs").task("class-split").spec
    teller = SimpleNamespace(enter=lambda *told: None, begin=lambda *told: None, end=lambda *told: None)
    cell = SimpleNamespace(task=SimpleNamespace(spec=spec), unit=4, batch=4, method="m")
    session: Any = SimpleNamespace(cell=cell, warm_up_seconds=0.5, most=None, teller=teller, first_traceback="")
    monkeypatch.setattr(sepbench.run.separate, "_mixtures", lambda session, ids: ids)
    monkeypatch.setattr(sepbench.run.separate, "separate_batch", lambda session, ids: Separated(torch.zeros(len(ids), 2, 1, 8, 8), 6.0, None))
    done = separate_shard(session, Shard(spec.name, "m", 0, 6))
    assert done.seconds.tolist() == [1.5] * 4 + [3.0] * 2


def test_paeth_rows_of_16_bits_are_decoded() -> None:
    """Filtered by section 9.4 of the PNG specification; few levels, so that left, above and upper left often tie."""
    pixels = np.random.default_rng(0).integers(0, 3, (1, 24, 24)).astype(np.uint16) * 257
    assert np.array_equal(read_png(_paeth_png(pixels[0])), pixels)


def _paeth_png(pixels: npt.NDArray[np.uint16]) -> bytes:
    height, width = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, 2 * width).astype(int)
    body = bytearray()
    for y in range(height):
        body.append(4)
        for x in range(2 * width):
            left, above = rows[y, x - 2] if x > 1 else 0, rows[y - 1, x] if y else 0
            corner = rows[y - 1, x - 2] if y and x > 1 else 0
            nearest = min((left, above, corner), key=lambda one: abs(left + above - corner - one))  # the first of equals, as specified
            body.append((rows[y, x] - nearest) % 256)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(body))) + chunk(b"IEND", b"")


# ---- lists and suites ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist-nes.x-0-4", "mnist-nes.x-5-9", "mnist-pairs.class-split", "digits-pairs.class-split"])
def test_no_observed_signal_is_in_a_training_mixture(name: str) -> None:
    def labels(dataset: str, split: str) -> npt.NDArray[np.int64]:
        return np.arange(1_000 if dataset == "digits" else 60_000) % 10

    observed, mixed = (RECIPES[f"{name}.{role}"].build(labels) for role in ("train-observed", "train-mixtures"))
    assert not set(observed[:, 0].tolist()) & set(mixed[:, 1].tolist())


@pytest.mark.parametrize("name", ["fsdd-pairs", "drums-bass-synth"])
def test_chunks_of_one_recording_are_one_cluster(name: str) -> None:
    for task in load_suite(name).tasks.values():
        recordings = task.data.pair_list().indices.numpy() // 10
        keys = task.clusters().keys
        same_keys = keys[:, None, 0] == keys[None, :, 0]
        assert np.array_equal(same_keys, recordings[:, None, 0] == recordings[None, :, 0])


def test_the_first_row_beyond_the_training_rows_is_not_taken() -> None:
    data = load_suite("digits-pairs").task("class-split").data
    lists = [listing.read().indices for listing in (data.train_mixtures, data.train_observed) if isinstance(listing, FrozenList)]
    last = max(int(indices.max()) for indices in lists)
    assert replace(data, train_rows=(0, last + 1), usable={}).training().observed is not None
    with pytest.raises(SuiteError, match=f"row {last} of digits train is not a training signal"):
        replace(data, train_rows=(0, last), usable={}).training()


def test_colour_images_that_are_wider_than_high(tmp_path: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.fromarray(random.integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(tmp_path / name / f"{number}.png")
    made = make_suite(OwnSuite("own", (tmp_path / "a", tmp_path / "b"), mixtures=1), tmp_path)
    (task, *_) = load_suite(str(made.path / "suite.toml")).tasks.values()
    assert task.spec.source_shape == (3, 8, 12)
    assert task.references([0]).shape == (1, 2, 3, 8, 12)


def test_a_suite_does_not_rank_by_one_value_of_many_mixtures() -> None:
    suite = load_suite("digits-pairs")
    ranked = replace(suite, metrics=("psnr", "psnr_pooled32"), ranking_metric="psnr_pooled32")
    with pytest.raises(SuiteError, match="one value of many mixtures together"):
        make_plan(RunRequest("digits-pairs", ("average",)), ranked)


# ---- messages and files ----------------------------------------------------------------------------------------------------------------


def test_a_tolerance_of_nothing() -> None:
    assert parse_tolerances(["psnr=0", "ssim=0.5"]) == {"psnr": 0.0, "ssim": 0.5}


def test_a_bar_in_a_name_is_no_column() -> None:
    frame = read_leaderboard(ROOT / "leaderboards" / "digits-pairs.csv")
    frame = frame.assign(method=[f"{name}|x" for name in frame["method"]])
    lines = [line for line in markdown_leaderboard(frame, None, bounds=dict.fromkeys(frame["method"], "")).splitlines() if line.startswith("|")]
    bars = [line.replace("\\|", "").count("|") for line in lines]
    assert any("\\|x" in line for line in lines)
    assert len({count for count in bars if count == bars[0]}) == 1
    heads = [number for number, line in enumerate(lines) if line.startswith("| rank")]
    for first, after in zip(heads, [*heads[1:], len(lines)], strict=True):
        assert set(bars[first:after]) == {bars[first]}


def test_gradients_of_a_quick_run_are_of_a_quick_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[RunRequest] = []

    def stop(request: RunRequest, suite: object) -> None:
        requests.append(request)
        raise Asked

    monkeypatch.setattr(sepbench.report.panels.session, "make_plan", stop)
    for budget in ("quick", "paper"):
        entry = SimpleNamespace(settings={"atoms": 3})
        record = SimpleNamespace(methods={"nmf": entry}, limit=7, seed=5, budget=budget, shard_size=2)
        run: Any = SimpleNamespace(record=record, suite=SimpleNamespace(name="digits-pairs"))
        task: Any = SimpleNamespace(spec=SimpleNamespace(name="class-split"))
        with pytest.raises(Asked):
            sepbench.report.panels.session.fitted_again(run, task, "nmf", "cpu")
        asked = requests[-1]
        assert (asked.budget, asked.seed, asked.limit, asked.shard_size) == (budget, 5, 7, 2)
        assert asked.settings == {"nmf": {"atoms": 3}}


def test_worker_processes_have_as_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Process:
        def __init__(self, **named: object) -> None:
            pass

        def start(self) -> None:
            told.append(os.environ["OMP_NUM_THREADS"])

        def kill(self) -> None:
            pass

        def join(self, *given: object) -> None:
            pass

    end = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(sepbench.run.backends.local, "_SPAWN", SimpleNamespace(Pipe=lambda: (end, end), Process=Process))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    plan: Any = SimpleNamespace(request=None, device="cpu")
    sink: Any = SimpleNamespace(opener=lambda: None)
    with sepbench.run.backends.local.Processes(2, plan, sink, "session"):
        assert told == ["3", "3"]


def test_a_histogram_reaches_over_more_than_a_few_values_far_out() -> None:
    """One value of a hundred far below the others is cut off; eight of a hundred are shown."""
    others = np.linspace(0.0, 10.0, 1_000)
    assert bin_edges(np.concatenate([np.full(5, -200.0), others]), 1_000)[0] >= 0.0
    assert bin_edges(np.concatenate([np.full(80, -200.0), others]), 1_000)[0] == -200.0
