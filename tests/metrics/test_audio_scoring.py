"""Audio through ``score_batch``: museval's numbers of saved estimates, the same bits in any batch, assignment, the mixture, families."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from audio_cases import RATE, audio_task, mixtures_of, random_audio
from third_parties import install

from sepbench.compat import import_museval
from sepbench.errors import SuiteError
from sepbench.metrics.catalogue import check_metrics, get_metric, metric_names
from sepbench.metrics.kinds import MetricInfo, MixtureMetric, NeedsTask
from sepbench.metrics.scoring import ScoreTable, score_batch
from sepbench.metrics.sdr import SDR
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures, TaskSpec
from sepbench.registry import METRIC_GROUP
from sepbench.selection import by_truth

FAST = ["sdr", "sdr_mean", "si_sdr", "si_sdr_improvement", "mixture_error"]
SLOW = ["sdr_v3", "isr", "sir", "sar"]


def column(table: ScoreTable, metric: str, width: int) -> np.ndarray:
    return table.value[table.metric == metric].reshape(-1, width)


def select(mixtures: Mixtures, rows: torch.Tensor) -> Mixtures:
    return Mixtures(mixtures.values[rows], mixtures.example_ids[rows], mixtures.operator.select(rows))


def _saved(folder: Path, references: torch.Tensor, seed: int) -> torch.Tensor:
    """Random estimates ``like references``, float32, written and read again."""
    rng = np.random.Generator(np.random.PCG64(seed))
    estimates = 0.7 * references.numpy() + 0.2 * references.numpy()[:, ::-1] + 0.02 * rng.standard_normal(references.shape)
    np.save(folder / "estimates.npy", estimates.astype(np.float32))
    return torch.from_numpy(np.load(folder / "estimates.npy"))


def _assert_museval_says_the_same(estimates: torch.Tensor, references: torch.Tensor, spec: TaskSpec) -> None:
    table = score_batch(["sdr", "sdr_mean"], estimates, references, mixtures_of(references), spec)
    for b in range(len(references)):
        x, y = (side[b].double().numpy().swapaxes(1, 2) for side in (estimates, references))
        per_window = import_museval().evaluate(y, x, win=spec.sample_rate, hop=spec.sample_rate)[0]
        np.testing.assert_allclose(column(table, "sdr", 2)[b], np.nanmedian(per_window, axis=1), rtol=0, atol=1e-6)
        np.testing.assert_allclose(column(table, "sdr_mean", 2)[b], np.nanmean(per_window, axis=1), rtol=0, atol=1e-6)


def test_museval_evaluate_gives_the_tables_values_of_five_saved_estimates(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    references = 0.1 * torch.randn(5, 2, 1, 3600, generator=generator)
    references[3, 0, :, 1000:2000] = 0.0  # one silent window
    spec = audio_task(2, (1, 3600), "ordered", rate=1000)
    _assert_museval_says_the_same(_saved(tmp_path, references, 2), references, spec)


def test_museval_evaluate_gives_the_tables_values_on_real_speech(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    folder = Path(os.environ.get("SEPBENCH_DATA", "/nonexistent")) / "fsdd" / "recordings"
    if not folder.is_dir():
        pytest.skip("no fsdd/recordings under SEPBENCH_DATA")
    length = 16_384

    def utterance(speaker: str) -> np.ndarray:
        spoken = np.concatenate([soundfile.read(folder / f"{digit}_{speaker}_0.wav", dtype="float32")[0] for digit in range(10)])
        return spoken[:length]

    references = torch.from_numpy(np.stack([utterance("jackson"), utterance("theo")])).reshape(1, 2, 1, length)
    spec = audio_task(2, (1, length), "ordered", rate=8000)
    _assert_museval_says_the_same(_saved(tmp_path, references, 3), references, spec)


def test_rows_follow_the_metrics_and_scored_slots() -> None:
    estimates, references, mixtures = random_audio(2, 3)
    table = score_batch(["sdr", "si_sdr_improvement"], estimates, references, mixtures, audio_task(3, assignment="ordered", scored=(2, 0)))
    assert table.metric.tolist() == ["sdr"] * 4 + ["si_sdr_improvement"] * 4
    assert table.source.tolist() == [2, 0] * 4
    everything = score_batch(["sdr", "si_sdr_improvement"], estimates, references, mixtures, audio_task(3, assignment="ordered"))
    for name in ("sdr", "si_sdr_improvement"):
        np.testing.assert_array_equal(column(table, name, 2), column(everything, name, 3)[:, [2, 0]])


@pytest.mark.parametrize("assignment", ["ordered", "permutation"])
@pytest.mark.parametrize(("k", "shape", "n"), [(2, (1, 250), 150), (3, (2, 320), 20), (1, (1, 60), 9), (5, (1, 101), 12), (2, (1, 120_000), 3)])
def test_an_example_has_the_same_bits_in_any_batch(assignment: str, k: int, shape: tuple[int, int], n: int) -> None:
    estimates, references, mixtures = random_audio(n, k, shape, shuffle=True)
    references[n // 2, 0, :, : shape[1] // 2] = 0.0
    task = replace(audio_task(k, shape), assignment=assignment)
    whole = score_batch(FAST, estimates, references, mixtures, task)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    for rows in (order, torch.arange(n // 2, n), torch.tensor([0]), torch.tensor([n - 1])):
        part = score_batch(FAST, estimates[rows], references[rows], select(mixtures, rows), task)
        for name in FAST:
            width = 1 if name == "mixture_error" else k
            np.testing.assert_array_equal(column(part, name, width), column(whole, name, width)[rows.numpy()], err_msg=name)


def test_the_slow_metrics_too_have_the_same_bits_in_any_batch() -> None:
    estimates, references, mixtures = random_audio(3, 2, (1, 210), shuffle=True)
    task = audio_task(2, (1, 210))
    whole = score_batch(SLOW, estimates, references, mixtures, task)
    alone = torch.tensor([2])
    part = score_batch(SLOW, estimates[alone], references[alone], select(mixtures, alone), task)
    for name in SLOW:
        assert np.isfinite(column(whole, name, 2)).all()
        np.testing.assert_array_equal(column(part, name, 2)[0], column(whole, name, 2)[2], err_msg=name)


def test_the_best_assignment_is_that_of_sdr_or_of_si_sdr() -> None:
    estimates, references, mixtures = random_audio(10, 3, shuffle=True)
    task = audio_task(3)
    table = score_batch(FAST, estimates, references, mixtures, task)
    orders = [list(order) for order in permutations(range(3))]
    for by, followers in (("sdr", ["sdr_mean"]), ("si_sdr", ["si_sdr_improvement"])):
        scored = {
            name: np.stack([column(score_batch([name], estimates[:, o], references, mixtures, replace(task, assignment="ordered")), name, 3) for o in orders])
            for name in (by, *followers)
        }
        best = scored[by].sum(2).argmax(0)
        for name in (by, *followers):
            np.testing.assert_allclose(column(table, name, 3), scored[name][best, np.arange(10)], rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", FAST[:4])
def test_the_order_of_estimates_does_not_matter_and_references_carry_their_scores(name: str) -> None:
    estimates, references, mixtures = random_audio(6, 4)
    task, shuffle = audio_task(4), torch.tensor([2, 0, 3, 1])
    before = column(score_batch([name], estimates, references, mixtures, task), name, 4)
    np.testing.assert_array_equal(column(score_batch([name], estimates[:, shuffle], references, mixtures, task), name, 4), before)
    np.testing.assert_array_equal(column(score_batch([name], estimates, references[:, shuffle], mixtures, task), name, 4), before[:, shuffle.numpy()])


def test_the_improvement_gets_the_mixture_of_its_own_example() -> None:
    estimates, references, _ = random_audio(4, 2, seed=3)
    operator = make_operator("gain", 2, gains=np.array([[1.0, 1.0], [1.0, 0.1], [0.2, 1.0], [1.0, 3.0]]))
    mixtures = Mixtures(operator.forward(references), torch.arange(4), operator)
    task = replace(audio_task(2, assignment="ordered"), operator="gain")
    table = score_batch(["si_sdr", "si_sdr_improvement"], estimates, references, mixtures, task)
    unchanged = mixtures.values.unsqueeze(1).repeat(1, 2, 1, 1)
    before = score_batch(["si_sdr"], unchanged, references, mixtures, task)
    expected = column(table, "si_sdr", 2) - column(before, "si_sdr", 2)
    np.testing.assert_allclose(column(table, "si_sdr_improvement", 2), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("assignment", ["ordered", "permutation"])
def test_undefined_estimates_give_nan_and_spoil_nothing_else(assignment: str) -> None:
    estimates, references, mixtures = random_audio(4, 2)
    task = replace(audio_task(2), assignment=assignment)
    expected = score_batch(FAST, estimates, references, mixtures, task)
    estimates[2, 1, 0, 249] = math.nan
    got = score_batch(FAST, estimates, references, mixtures, task)
    hit = got.example == 102
    if assignment == "ordered":
        hit &= (got.source == 1) | (got.source == -1)
    assert np.isnan(got.value[hit]).all()
    np.testing.assert_array_equal(got.value[~hit], expected.value[~hit])


@pytest.mark.parametrize("assignment", ["ordered", "permutation"])
def test_silence_is_looked_for_in_all_sources_of_the_example(assignment: str) -> None:
    # The two windows differ, so that leaving one out shows; the source that is scored is not the silent one.
    estimates, references, mixtures = random_audio(2, 2, (1, 200))
    estimates[0, 0, :, :100] += 0.3
    task = replace(audio_task(2, (1, 200), scored=(0,)), assignment=assignment)
    both = score_batch(["sdr"], estimates, references, mixtures, task).value
    estimates[0, 1, :, :100] = 0.0
    one = score_batch(["sdr"], estimates, references, mixtures, task).value
    assert one[0] > both[0] + 3
    assert one[1] == both[1]
    estimates[0, 1] = 0.0
    none = score_batch(["sdr", "si_sdr"], estimates, references, mixtures, task)
    assert np.isnan(none.value[none.metric == "sdr"]).tolist() == [True, False]
    assert np.isnan(none.value[none.metric == "si_sdr"]).tolist() == [assignment == "permutation", False]


def test_a_perfect_estimate_can_be_assigned() -> None:
    _, references, mixtures = random_audio(3, 2)
    table = score_batch(["sdr", "si_sdr"], references.flip(1), references, mixtures, audio_task(2))
    assert set(table.value.tolist()) == {200.0}


def test_wrong_shapes_and_lengths_are_refused() -> None:
    estimates, references, mixtures = random_audio(2, 2)
    with pytest.raises(ValueError, match=r"estimates of task toy/task must be \(2, 2, 1, 250\), got \(2, 2, 1, 249\)"):
        score_batch(["sdr"], estimates[..., :-1], references, mixtures, audio_task(2))
    with pytest.raises(ValueError, match=r"must be \(2, 2, 1, 250\), got \(2, 2, 250\)"):
        score_batch(["sdr"], estimates[:, :, 0], references, mixtures, audio_task(2))


def test_windows_need_a_sample_rate() -> None:
    check_metrics(metric_names("audio"), audio_task())
    for name in metric_names("audio"):
        if isinstance(get_metric(name), NeedsTask):
            with pytest.raises(SuiteError, match=f"metric '{name}' has windows of one second, but the task declares no sample_rate; remove it"):
                check_metrics([name], audio_task(rate=None))
        else:
            check_metrics([name], audio_task(rate=None))


def test_the_rate_comes_from_the_task() -> None:
    estimates, references, mixtures = random_audio(1, 2, (1, 600))
    estimates[..., :300] += 0.2
    by_rate = {rate: score_batch(["sdr"], estimates, references, mixtures, audio_task(2, (1, 600), rate=rate)).value[0] for rate in (100, 250, 600)}
    assert len(set(by_rate.values())) == 3
    assert getattr(get_metric("sdr", audio_task()), "sample_rate", None) == RATE
    assert get_metric("sdr") is SDR
    assert SDR.sample_rate is None


def test_metrics_of_one_call_share_their_assignment_and_name_each_other() -> None:
    estimates, references, mixtures = random_audio(1, 2, (1, 120))
    expected = ({"sdr", "sdr_mean"}, {"isr", "sir", "sar"}, {"si_sdr_improvement"}, {"mixture_error"})
    metrics = {name: get_metric(name, audio_task()) for name in metric_names("audio")}
    whole = {name: metric for name, metric in metrics.items() if isinstance(metric, MixtureMetric)}
    assert set(whole) == set().union(*expected)
    for together in expected:
        assert len({metrics[name].info.assigned_by for name in together}) == 1
        assert len({type(metrics[name]) for name in together}) == 1
        for name in together:
            got = whole[name].mixture_scores(estimates, references, mixtures)
            assert set(got) == together
            shape = (1, 2) if metrics[name].info.per == "source" else (1,)
            assert all(values.shape == shape and values.dtype == torch.float64 for values in got.values())


class _Counted:
    """Two metrics out of one call: which calls scoring makes, and with what."""

    calls: int = 0

    def __init__(self, name: str) -> None:
        self.info = MetricInfo(name, "1", True, frozenset({"audio"}), "source", "test", "sdr")

    def mixture_scores(self, estimates: torch.Tensor, references: torch.Tensor, mixtures: Mixtures) -> Mapping[str, torch.Tensor]:
        _Counted.calls += 1
        nearest = (estimates - references).abs().flatten(2).amax(2)
        return {"toy_one": nearest, "toy_two": mixtures.example_ids.double()[:, None].expand(-1, estimates.shape[1])}


TOY_ONE, TOY_TWO = _Counted("toy_one"), _Counted("toy_two")


def test_one_call_serves_two_metrics_with_estimates_in_the_order_of_the_references(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "toys", {METRIC_GROUP: {"toy_one": f"{__name__}:TOY_ONE", "toy_two": f"{__name__}:TOY_TWO"}})
    monkeypatch.setattr(_Counted, "calls", 0)
    _, references, mixtures = random_audio(4, 3)
    table = score_batch(["toy_two", "toy_one"], references[:, [1, 2, 0]] + 1e-3, references, mixtures, audio_task(3))
    assert _Counted.calls == 1
    np.testing.assert_allclose(column(table, "toy_one", 3), 1e-3, rtol=1e-3)
    assert column(table, "toy_two", 3)[:, 0].tolist() == [100, 101, 102, 103]


def test_the_oracle_of_best_of_n_takes_sdr() -> None:
    estimates, references, _ = random_audio(3, 2)
    draws = torch.stack([estimates + 0.1, estimates, estimates.flip(1)], dim=1)
    assert by_truth(draws, references, audio_task(2, assignment="ordered"), "sdr").argmax(1).tolist() == [1, 1, 1]
    free = by_truth(draws, references, audio_task(2), "sdr")
    torch.testing.assert_close(free[:, 1], free[:, 2], rtol=1e-12, atol=0)


@pytest.mark.slow
def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    """Of the metrics that are sums; ``sdr_v3`` and museval's solve systems by LAPACK, which rounds differently with another number of threads."""
    code = (
        "import hashlib; from audio_cases import *; from sepbench.metrics.scoring import score_batch\n"
        "x, y, m = random_audio(20, 2, (1, 60_000), shuffle=True)\n"
        "names = ['sdr', 'sdr_mean', 'si_sdr', 'si_sdr_improvement']\n"
        "print(hashlib.sha256(score_batch(names, x, y, m, audio_task(2, (1, 60_000), rate=22_050)).value.tobytes()).hexdigest())"
    )
    digests = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(Path(__file__).parent)}
        digests.add(subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(digests) == 1
