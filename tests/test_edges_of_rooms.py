"""Edges that a list of planted faults found without a test: a folder that a method leaves, a name with a space, the one source that is NaN.

One test per edge, in the order of the pipeline.
"""

from __future__ import annotations

import math
import os
import tempfile
from importlib.metadata import EntryPoint
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baselines.decomposition.nonnegative import encode
from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.priors.score_prior import NCSNPrior
from baselines.sampling.problem import Meter
from baselines.training.on_device import GradientParts
from sepbench import registry, resources
from sepbench.cli import evaluate
from sepbench.data.estimates.png import read_png
from sepbench.data.estimates.problems import KIND, FileProblem
from sepbench.data.files import fetch
from sepbench.data.files.manifests import DataFile, Manifest
from sepbench.data.readers.audio_files import read_vorbis
from sepbench.errors import DataError, MethodError, MetricError, SepbenchError, SuiteError
from sepbench.gmm import GaussianMixture
from sepbench.metrics.assignment import total_score
from sepbench.report.html import history
from sepbench.results.store import RunStore
from sepbench.run.fit_cache import KeptFit
from sepbench.suites import readiness

KINDS_OF_ERRORS = {
    registry.SEPARATOR_GROUP: MethodError,
    registry.SUITE_GROUP: SuiteError,
    registry.METRIC_GROUP: MetricError,
    registry.DATASET_GROUP: DataError,
    registry.TRAINER_GROUP: MethodError,
    registry.BACKEND_GROUP: SepbenchError,
    registry.EXTRACTOR_GROUP: MetricError,
}


@pytest.mark.parametrize("group", KINDS_OF_ERRORS)
def test_what_cannot_be_loaded_raises_the_error_of_its_kind(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    broken = EntryPoint("mine", "no_such_package:X", group)
    monkeypatch.setattr(registry, "points", lambda asked: {"mine": broken} if asked == group else {})
    with pytest.raises(SepbenchError, match=r"'mine' .* cannot be loaded") as caught:
        registry.load_entry(group, "mine")
    assert type(caught.value) is KINDS_OF_ERRORS[group]


def test_folders_of_suites_may_have_spaces_in_their_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = tmp_path / "my suites", tmp_path / "x"
    monkeypatch.setenv("SEPBENCH_SUITES", f"{first}{os.pathsep}{second}")
    assert registry.suite_folders()[:2] == [first, second]


def test_the_folder_that_an_installation_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resources, "_WHEEL_ROOT", tmp_path / "a")
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "b" / "c")
    with pytest.raises(FileNotFoundError) as caught:
        resources.resource_root("leaderboards")
    assert str(caught.value) == "the folder 'leaderboards' is missing from this installation of sepbench; install it again"


def test_densities_and_scores_are_exact_at_the_smallest_noise() -> None:
    narrow = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 1).double(), torch.full((1, 1, 1), 1e-4, dtype=torch.float64))
    x = torch.tensor([[0.02]], dtype=torch.float64)
    assert float(narrow.log_prob(x)) == pytest.approx(-0.5 * 0.02**2 / 1e-4 - 0.5 * math.log(2 * math.pi * 1e-4), rel=1e-9)
    assert float(narrow.score(x, 1e-3)) == pytest.approx(-0.02 / (1e-4 + 1e-6), rel=1e-9)


# ---- data ------------------------------------------------------------------------------------------------------------------------------


def _status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, manifest: Manifest) -> str:
    monkeypatch.delenv("SEPBENCH_DATA", raising=False)
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path))
    return fetch.status(manifest).state


def test_data_without_a_single_file_are_missing_and_not_incomplete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where a manifest names files and a layout."""
    both = (DataFile("a.bin", 1, md5="0" * 32), DataFile("b.bin", 1, md5="0" * 32))
    for files, layout in ((both, ("x/*",)), (both, ()), ((), ("x/*",))):
        assert _status(monkeypatch, tmp_path, Manifest("d", "", "", "", "", files, layout=layout)) == "missing"
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.bin").write_bytes(b"1")
    assert _status(monkeypatch, tmp_path, Manifest("d", "", "", "", "", both, layout=("x/*",))) == "incomplete"


def test_a_vorbis_file_keeps_its_channels(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    time = torch.arange(8_000) / 8_000
    left, right = torch.sin(2 * math.pi * 440 * time), 0.3 * torch.sin(2 * math.pi * 660 * time)
    soundfile.write(tmp_path / "two.ogg", torch.stack([left, right], 1).numpy(), 8_000, format="OGG", subtype="VORBIS")
    found = read_vorbis(tmp_path / "two.ogg", 8_000)
    assert found.shape == (2, 8_000)
    assert float((found[0] - left)[500:-500].square().mean()) < 1e-3
    assert float(found[1].square().mean()) == pytest.approx(0.045, rel=0.1)


def test_a_moving_picture_is_a_wrong_kind_and_not_damage() -> None:
    image = pytest.importorskip("PIL.Image")
    frames = [image.new("RGB", (4, 4), (level, 0, 0)) for level in (10, 200)]
    content = BytesIO()
    frames[0].save(content, format="PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(FileProblem) as caught:
        read_png(content.getvalue())
    assert caught.value.args == (KIND, "several pictures")


def test_all_data_sets_of_a_task_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("sepbench.report.fetching.fetch_with_progress", lambda manifest: fetched.append(manifest.name))
    task: Any = SimpleNamespace(spec=SimpleNamespace(datasets=("fsdd", "esc10", "fsdd")))
    evaluate.fetch_data_of(task)
    assert fetched == ["esc10", "fsdd"]


def test_a_suite_of_ones_own_lacks_what_is_beside_it_and_what_is_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SEPBENCH_DATA", raising=False)
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "suite.toml").touch()
    suite: Any = SimpleNamespace(tasks={"t": SimpleNamespace(spec=SimpleNamespace(datasets=("mnist", "beside:low")))})
    found = readiness.readiness(str(tmp_path / "own"), suite)
    assert (found.state, found.lacking) == ("own copy", ("mnist", "beside:low"))


# ---- methods ---------------------------------------------------------------------------------------------------------------------------


def test_codes_follow_the_loudness_of_their_signals() -> None:
    random = torch.Generator().manual_seed(3)
    atoms, signals = torch.rand(3, 12, generator=random), torch.rand(5, 12, generator=random)
    loud = encode(signals, atoms, 200)
    torch.testing.assert_close(encode(1e-4 * signals, atoms, 200), 1e-4 * loud, rtol=1e-3, atol=1e-9)


def test_losses_of_parts_keep_their_digits() -> None:
    wanted = torch.tensor([1.0001, 2.0003, 3.0007, 4.0009])
    parts = GradientParts(lambda batch, rows: wanted[rows], lambda: None)
    batch: Any = (torch.zeros(4, 1, 2, 2), torch.zeros(4), torch.zeros(4, 1, 2, 2))
    assert torch.equal(parts(batch), wanted)


def test_a_prior_keeps_its_name_on_its_device() -> None:
    prior = NCSNPrior(CondRefineNetDilated(1, 8), (1, 8, 8), name="mine")
    assert prior.to("cpu").name == "mine"
    assert NCSNPrior(prior.network, (1, 8, 8)).to("cpu").name == "NCSN"


def test_a_meter_that_does_not_know_how_much_is_to_do_tells_nothing() -> None:
    told: list[float] = []
    meter = Meter(lambda fraction, text: told.append(fraction))
    meter.count(3)
    assert (told, meter.expected, meter.seen) == ([], 0.0, 3)
    meter.expected = 12
    meter.count(3)
    assert told == [0.5]


# ---- runs and results ------------------------------------------------------------------------------------------------------------------


def test_a_leftover_that_another_run_removes_first_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path))
    fit = KeptFit("learner", {"seed": 0})
    real = Path.glob
    gone = [fit.folder / "fitted.elsewhere.tmp"]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(gone) if self == fit.folder else real(self, pattern))
    with fit.locked(lambda: None):
        assert fit.facts() is None


def test_a_run_stays_in_its_folder_when_a_method_leaves_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = RunStore(Path("run"))
    monkeypatch.chdir(tmp_path / "there")
    assert store.path == Path("run")
    assert store._root == tmp_path / "here" / "run"


@pytest.mark.parametrize("where", [0, 1])
def test_an_assignment_with_an_undefined_score_is_undefined(where: int) -> None:
    pairwise = torch.ones(1, 2, 2)
    pairwise[0, where, where] = math.nan
    assert total_score(pairwise, torch.tensor([[0, 1]])).isnan().all()
    assert float(total_score(pairwise, torch.tensor([[1, 0]]))) == 2.0


def test_the_history_of_a_leaderboard_is_unpacked_outside_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That folder may be read-only."""
    asked: list[tuple[Any, ...]] = []
    real = tempfile.TemporaryDirectory
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda *given, **named: (asked.append((given, named)), real(*given, **named))[1])
    monkeypatch.setattr(history, "_git", lambda folder, *words: b"abc\t2026-01-01\tfirst" if words[0] == "log" else b"")
    assert history.git_states(tmp_path / "board.csv", 3, lambda text: None) == []
    assert asked == [((), {})]
