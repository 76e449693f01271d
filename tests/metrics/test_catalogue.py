"""Metrics by name, and which tasks they refuse."""

from __future__ import annotations

import dataclasses
import math

import pytest
from metric_cases import image_task

from sepbench.errors import SuiteError, UnknownNameError
from sepbench.metrics.catalogue import cap_of, check_metrics, get_metric, metric_names, pair_metric


def test_names_lead_to_their_metrics() -> None:
    of_examples = ["psnr", "psnr_unclamped", "psnr_sum_mse", "psnr_pad32", "psnr_pooled32", "psnr_pooled32_pad", "ssim", "mixture_error"]
    of_sets = [f"{statistic}_{extractor}" for extractor in ("inception", "cifarnet", "mnistnet") for statistic in ("fid", "fid_inf", "kid", "is")]
    assert metric_names("image") == of_examples + of_sets
    audio = ["sdr", "sdr_mean", "sdr_corpus_median", "si_sdr", "si_sdr_improvement", "sdr_v3", "isr", "sir", "sar", "mixture_error"]
    assert metric_names("audio") == audio
    for name in metric_names():
        info = get_metric(name).info
        assert info.name == name
        assert info.source
        if info.assigned_by:
            assert pair_metric(info.assigned_by).info.assigned_by == info.assigned_by


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown metric 'pnsr'; did you mean psnr"):
        get_metric("pnsr")


def test_every_metric_takes_an_ordinary_image_task() -> None:
    check_metrics([name for name in metric_names("image") if not name.endswith("_cifarnet")], image_task(2, (1, 28, 28)))
    check_metrics([name for name in metric_names("image") if not name.endswith("_mnistnet")], image_task(2, (3, 32, 32)))


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (["psnr", "psnr"], {}, "'psnr' is listed twice for task toy/task"),
        (["psnr_pad32"], {"source_shape": (3, 64, 64)}, "'psnr_pad32' is defined for images up to 32x32, the task has 64x64; remove it from task toy/task"),
        (["ssim"], {"source_shape": (1, 5, 8)}, "'ssim' has a 7x7 window, the task's images are 5x8"),
        (["psnr"], {"domain": "audio", "source_shape": (1, 100)}, "'psnr' is not defined for audio signals"),
        (["psnr"], {"n_sources": 9}, "has 9 sources"),
    ],
)
def test_metrics_that_do_not_fit_are_refused_in_one_line(names: list[str], changes: dict[str, object], message: str) -> None:
    with pytest.raises(SuiteError, match=message) as caught:
        check_metrics(names, dataclasses.replace(image_task(2), **changes))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_nine_ordered_sources_are_fine() -> None:
    check_metrics(["psnr"], image_task(9, assignment="ordered"))


FROZEN: dict[str, tuple[str, bool, str, str]] = {
    "psnr": ("dB", True, "source", "psnr"),
    "psnr_unclamped": ("dB", True, "source", "psnr_unclamped"),
    "psnr_sum_mse": ("dB", True, "mixture", "psnr_sum_mse"),
    "psnr_pad32": ("dB", True, "source", "psnr_pad32"),
    "psnr_pooled32": ("dB", True, "group", "psnr_unclamped"),
    "psnr_pooled32_pad": ("dB", True, "group", "psnr_unclamped"),
    "ssim": ("1", True, "source", "psnr"),
    "sdr": ("dB", True, "source", "sdr"),
    "sdr_mean": ("dB", True, "source", "sdr"),
    "sdr_corpus_median": ("dB", True, "group", "sdr"),
    "si_sdr": ("dB", True, "source", "si_sdr"),
    "si_sdr_improvement": ("dB", True, "source", "si_sdr"),
    "sdr_v3": ("dB", True, "source", "sdr"),
    "isr": ("dB", True, "source", "sdr"),
    "sir": ("dB", True, "source", "sdr"),
    "sar": ("dB", True, "source", "sdr"),
    "mixture_error": ("1", False, "mixture", ""),
    **dict.fromkeys(("posterior_mean_error", "posterior_cov_error", "energy_distance", "c2st", "pit_error"), ("1", False, "posterior", "")),
    **{f"{name}_{net}": ("1", name == "is", "set", "") for name in ("fid", "fid_inf", "kid", "is") for net in ("inception", "cifarnet", "mnistnet")},
}


def test_what_a_metric_means_is_frozen() -> None:
    """Unit, direction, what a value stands for, and under whose assignment: another of these is another metric."""
    infos = {name: get_metric(name).info for name in FROZEN}
    assert {name: (info.unit, info.higher_is_better, info.per, info.assigned_by) for name, info in infos.items()} == FROZEN


def test_every_metric_is_frozen_and_has_its_domains() -> None:
    assert set(FROZEN) == set(metric_names())
    vectors = ["mixture_error", "posterior_mean_error", "posterior_cov_error", "energy_distance", "c2st", "pit_error"]
    assert metric_names("vector") == vectors
    assert get_metric("mixture_error").info.domains == {"image", "audio", "vector"}
    only_one = [name for name in metric_names() if len(get_metric(name).info.domains) != 1]
    assert only_one == ["mixture_error"]


@pytest.mark.parametrize(
    ("names", "changes", "told"),
    [
        (["c2st"], {"domain": "vector", "source_shape": (3,)}, "metric 'c2st' scores posterior draws, the task has estimates; remove it from task toy/task"),
        (
            ["mixture_error"],
            {"domain": "vector", "source_shape": (3,), "posterior_draws": 4},
            "metric 'mixture_error' scores estimates, task toy/task has posterior draws; remove it from the task",
        ),
        (["psnr"], {"n_sources": 9}, "task toy/task has 9 sources: the best assignment is found for at most 8; declare it 'ordered'"),
        (["sdr"], {}, "metric 'sdr' is not defined for image signals; remove it from task toy/task"),
        (["psnr", "ssim", "psnr"], {}, "metric 'psnr' is listed twice for task toy/task; remove one"),
    ],
)
def test_the_whole_line_about_a_metric_that_a_task_cannot_have(names: list[str], changes: dict[str, object], told: str) -> None:
    with pytest.raises(SuiteError) as caught:
        check_metrics(names, dataclasses.replace(image_task(2), **changes))  # type: ignore[arg-type]
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("name", "cap"),
    [
        ("psnr", 100.0),
        ("psnr_pad32", 100.0),
        ("psnr_sum_mse", 100.0),
        ("psnr_pooled32", math.inf),
        ("ssim", math.inf),
        ("sdr", math.inf),
        ("nobody-s", math.inf),
    ],
)
def test_where_a_metric_is_cut_off(name: str, cap: float) -> None:
    assert cap_of(name) == cap
