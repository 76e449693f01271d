"""Mixtures to look at and listen to, card by card: files, captions, sounds, their level, and what is said where something is left out."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sepbench.errors import SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.report.html import examples
from sepbench.report.html.examples import _disagreement, choose
from sepbench.report.html.examples import examples as section
from sepbench.report.html.media import Media, flac, strip
from sepbench.report.panels.shown import shown

pytest.importorskip("altair")
soundfile = pytest.importorskip("soundfile", reason="extra 'audio' is not installed")
RATE = 8_000


def noise(key: int, *shape: int) -> torch.Tensor:
    return 0.1 * torch.from_numpy(np.random.Generator(np.random.Philox(key)).normal(size=shape)).float()


class Made:
    """A run of three mixtures of two sources; ``nmf`` gives the true sources halved, ``ica`` in the wrong order."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, domain: str = "audio", agnostic: bool = False, metric: str = "", shape: tuple[int, ...] = (1, 4_000)
    ) -> None:
        self.truth = noise(1, 3, 2, *shape) if domain == "audio" else torch.rand(3, 2, *shape, generator=torch.Generator().manual_seed(1))
        self.metric: Any = get_metric(metric or ("sdr" if domain == "audio" else "psnr"))
        self.scores: dict[str, dict[tuple[int, int], float]] = {"nmf": {(0, 0): 12.345, (0, 1): 1.0}, "ica": {(0, 1): 0.012}}
        self.spec = SimpleNamespace(
            **{"domain": domain, "n_sources": 2, "class_agnostic": agnostic, "source_classes": ("drums", 5), "source_shape": shape, "name": "t", "suite": "s"},
            **{"sample_rate": RATE if domain == "audio" else None},
        )
        self.task: Any = SimpleNamespace(spec=self.spec, mixture_set=lambda: SimpleNamespace(mixtures=self.mixtures, sources=self.sources))
        self.suite = SimpleNamespace(domain=domain, name="s")
        self.kept: dict[str, Any] = {"nmf": lambda truth: truth / 2, "ica": lambda truth: truth.flip(1)}
        monkeypatch.setattr(examples, "mixture_head", lambda task: "mixture\n(0 to 2)")
        monkeypatch.setattr(examples, "assignment_of", self.assignment)
        monkeypatch.setattr(examples, "choose", lambda run, task, methods, asked: {2: "best", 0: "chosen"} if not asked else dict.fromkeys(asked, "chosen"))

    def mixtures(self, numbers: list[int]) -> Any:
        return SimpleNamespace(values=self.truth[numbers].sum(1), operator=SimpleNamespace(output_range=lambda low, high: (2 * low, 2 * high)))

    def sources(self, numbers: list[int]) -> torch.Tensor:
        return self.truth[numbers]

    def assignment(self, metric: Any, estimates: torch.Tensor, truths: torch.Tensor, spec: Any) -> torch.Tensor:
        assert (metric, spec) == (self.metric, self.spec)
        return torch.tensor([[0, 1] if torch.equal(one, true / 2) else [1, 0] for one, true in zip(estimates, truths, strict=True)])

    def tasks(self, names: list[str]) -> list[Any]:
        assert names == ["t"]
        return [self.task]

    def methods(self, task: str) -> list[str]:
        return list(self.kept)

    def estimates(self, task: Any, method: str, numbers: list[int]) -> torch.Tensor:
        made: torch.Tensor = self.kept[method](self.truth[numbers])
        return made

    def source_values(self, task: str, method: str, numbers: list[int]) -> dict[tuple[int, int], float]:
        return {key: value for key, value in self.scores[method].items() if key[0] in numbers}

    def made(self, budget: int = 1 << 24, asked: tuple[int, ...] = ()) -> Any:
        self.media = Media(budget)
        view: Any = SimpleNamespace(board=SimpleNamespace(opened=self, slug="b"), task="t")
        return section(view, self.media, asked)

    def sound(self, name: str) -> np.ndarray[Any, Any]:
        values, rate = soundfile.read(io.BytesIO(self.media.files[f"media/b/t/{name}.flac"]), always_2d=True)
        assert rate == RATE
        return np.asarray(values.T)


def test_sounds_of_a_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch)
    found = made.made()
    assert (found.seconds, found.kilohertz, found.width, found.audio, found.methods, found.note) == (0.5, 4.0, 176, True, ("nmf", "ica"), "")
    assert found.told == "Best, median and worst by the mean over the methods, the largest disagreement of two methods, and mixtures drawn by lot."
    assert [(one.number, one.why, one.scale_note) for one in found.examples] == [(2, "best", ""), (0, "chosen", "")]
    mixture, truth, nmf, ica = found.examples[1].cards
    place = "media/b/t/00000"
    assert (mixture.name, mixture.picture, mixture.words, mixture.captions, mixture.error, mixture.count) == (
        *("mixture (0 to 2)", f"{place}/_mixture.png", "Mixture 0", (), "", 1),
    )
    assert [(sound.label, sound.file) for sound in mixture.sounds] == [("mixture", f"{place}/_mixture_0.flac")]
    assert (truth.name, truth.words, truth.captions, truth.count) == ("truth", "True sources of mixture 0: source: drums, source: 5", ("drums", "5"), 2)
    assert [(sound.label, sound.file) for sound in truth.sounds] == [(f"truth: {name}", f"{place}/_truth_{k}.flac") for k, name in enumerate(("drums", "5"))]
    assert (nmf.name, nmf.picture, nmf.error, nmf.count) == ("nmf", f"{place}/nmf.png", f"{place}/nmf_error.png", 2)
    assert nmf.captions == ("drums 12.35\N{NO-BREAK SPACE}dB", "5 1.00\N{NO-BREAK SPACE}dB")
    assert nmf.words == "Estimates of nmf for mixture 0: drums 12.35\N{NO-BREAK SPACE}dB, 5 1.00\N{NO-BREAK SPACE}dB"
    assert nmf.error_words == "Absolute difference of nmf's estimates from the truth, mixture 0"
    assert ica.captions == ("drums", "5 0.0120\N{NO-BREAK SPACE}dB")  # digits of its own; a source without a score has its name
    assert [sound.label for sound in ica.sounds] == ["ica: drums", "ica: 5"]
    assert made.sound("00000/_mixture_0") == pytest.approx(made.truth[0].sum(0).numpy(), abs=1e-4)
    assert made.sound("00000/nmf_1") == pytest.approx(made.truth[0, 1].numpy() / 2, abs=1e-4)
    assert made.sound("00000/ica_0") == pytest.approx(made.truth[0, 0].numpy(), abs=1e-4)  # in the order of the references
    assert made.media.files[f"{place}/nmf.png"] == strip(shown(made.truth[0] / 2, made.spec))  # type: ignore[arg-type]
    assert made.media.files[f"{place}/nmf_error.png"] == strip(shown(made.truth[0] / 2, made.spec))  # type: ignore[arg-type]
    assert len(made.media.files) == 2 * (2 + 3 + 2 * 4)


@pytest.mark.parametrize(("peak", "whose", "note"), [(1.0, "truth", False), (2.0, "truth", True), (4.0, "estimate", True), (0.5, "estimate", False)])
def test_sounds_beyond_full_scale_are_all_played_softer(monkeypatch: pytest.MonkeyPatch, peak: float, whose: str, note: bool) -> None:
    made = Made(monkeypatch)
    made.truth = made.truth / made.truth.abs().max() * 0.25
    if whose == "truth":
        made.truth[0, 1, 0, 7] = -peak
        made.truth[0, 0, 0, 7] = 0.0
    else:
        loud = torch.zeros_like(made.truth[:1])
        made.truth[0, :, 0, 3] = 0.0
        loud[0, 0, 0, 3], loud[0, 1, 0, 3] = peak, math.nan
        made.kept["nmf"] = lambda truth: truth.flip(1) + loud
    found = made.made(asked=(0,))
    scale = min(1.0, 1 / peak)
    assert found.examples[0].scale_note == (
        f"All sounds of this mixture are played at {scale:.2f} of their level, because one of them goes beyond full scale." if note else ""
    )
    assert made.sound("00000/_truth_0") == pytest.approx(made.truth[0, 0].numpy() * scale, abs=1e-4)
    assert made.sound("00000/ica_1") == pytest.approx(made.truth[0, 1].numpy() * scale, abs=1e-4)


def test_an_estimate_that_failed_has_a_picture_and_no_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch)
    broken = torch.zeros_like(made.truth[:1])
    broken[0, 1, 0, 100] = math.inf
    made.kept = {"ica": lambda truth: truth.flip(1) + broken}
    made.scores["ica"] = {(0, 0): math.nan}
    found = made.made(asked=(0,))
    _, _, card = found.examples[0].cards
    assert (card.captions, card.sounds) == (("failed", "failed"), ())
    assert card.words == "Estimates of ica for mixture 0: drums, 5"
    assert not any("ica_0.flac" in name for name in made.media.files)
    assert "media/b/t/00000/ica.png" in made.media.files


@pytest.mark.parametrize(("side", "width"), [(8, 84), (84, 84), (85, 85)])
def test_images_have_no_sounds(monkeypatch: pytest.MonkeyPatch, side: int, width: int) -> None:
    made = Made(monkeypatch, "image", agnostic=True, shape=(1, 4, side))
    made.truth = made.truth * 3.0
    made.scores = {"nmf": {}, "ica": {(0, 0): math.inf, (0, 1): 0.002}}
    found = made.made(asked=(0,))
    assert (found.seconds, found.kilohertz, found.audio, found.width) == (0.0, 0.0, False, width)
    (only,) = found.examples
    assert only.scale_note == ""
    assert all(card.sounds == () for card in only.cards)
    _, truth, nmf, ica = only.cards
    assert (truth.captions, truth.words) == (("", ""), "True sources of mixture 0: source 1, source 2")
    assert (nmf.captions, nmf.words) == (("", ""), "Estimates of nmf for mixture 0: without values")
    assert ica.captions == ("", "0.0020\N{NO-BREAK SPACE}dB")
    files = made.media.files
    assert set(files) == {f"media/b/t/00000/{name}.png" for name in ("_mixture", "_truth", "nmf", "nmf_error", "ica", "ica_error")}
    spec: Any = made.spec
    assert files["media/b/t/00000/nmf_error.png"] == strip(shown(made.truth[0] / 2, spec))  # the difference without its sign
    assert files["media/b/t/00000/_mixture.png"] == strip(shown(made.truth[:1].sum(1), spec, 0.0, 2.0))


def test_a_metric_without_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, "image", metric="ssim", shape=(1, 8, 8))
    _, _, nmf, _ = made.made(asked=(0,)).examples[0].cards
    assert nmf.captions == ("drums 12.345", "5 1.000")


def test_mixtures_that_do_not_fit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, "image", shape=(1, 8, 8))
    made.made(asked=(0,))
    found = made.made(asked=(1, 0, 2), budget=made.media.used)
    assert len(found.examples) < 3
    left = 3 - len(found.examples)
    assert found.note == f"{left} of 3 mixtures are left out: the budget of {made.media.budget / 1e6:g} MB is used up (--budget-mb)."
    poor = made.made(asked=(0,), budget=1_500_000)
    assert (len(poor.examples), poor.note) == (1, "")
    assert made.made(asked=(0, 1), budget=0).note == "2 of 2 mixtures are left out: the budget of 0 MB is used up (--budget-mb)."


def test_methods_whose_estimates_were_not_kept_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, "image", shape=(1, 8, 8))

    def lost(truth: torch.Tensor) -> torch.Tensor:
        raise SepbenchError("not kept")

    made.kept = {"nmf": lost, "ica": made.kept["ica"], "rpca": lost}
    found = made.made()
    assert (found.methods, found.note) == (("ica",), "not kept.")
    assert [card.name for card in found.examples[0].cards] == ["mixture (0 to 2)", "truth", "ica"]
    poor = made.made(budget=0)
    assert poor.note == "not kept. 2 of 2 mixtures are left out: the budget of 0 MB is used up (--budget-mb)."
    made.kept = {"nmf": lost}
    none = made.made()
    assert (none.examples, none.methods, none.note) == ((), (), "not kept.")


def test_where_there_is_no_section(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, "image", shape=(1, 8, 8))
    nothing: Any = SimpleNamespace(board=SimpleNamespace(opened=None), task="t")
    assert section(nothing, Media(1)) is None
    made.suite.domain = "vector"
    assert made.made() is None
    made.suite.domain = "image"
    made.spec.source_shape = (2, 8, 8)
    found = made.made()
    assert found.note.startswith("No signals are shown: images of task t of suite s have 2 channels, ")
    assert (found.told, found.examples) == ("", ())


# -- which


def chooser(values: dict[str, list[float]], bounds: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(
        **{"metric": get_metric("psnr"), "suite": SimpleNamespace(name="s"), "n_planned": lambda task: len(values["a"])},
        record=SimpleNamespace(methods={name: SimpleNamespace(bound="upper" if name in bounds else "") for name in values}),
        values=lambda task, method: {"t": dict(enumerate(values[method]))}[task],
    )


@pytest.mark.parametrize(
    ("values", "bounds", "found"),
    [
        ({"a": [1.0, 5.0, 9.0], "b": [3.0, 1.0, 8.0]}, (), (1, ("a", 5.0), ("b", 1.0))),
        ({"a": [1.0, 5.0], "b": [5.0, 1.0]}, (), (0, ("a", 1.0), ("b", 5.0))),  # of equal ones the first mixture
        ({"a": [math.nan, 2.0], "b": [9.0, 1.0]}, (), (1, ("a", 2.0), ("b", 1.0))),
        ({"a": [math.inf, 2.0], "b": [9.0, 2.0]}, (), (1, ("a", 2.0), ("b", 2.0))),
        ({"a": [1.0], "b": [2.0], "c": [8.0]}, ("c",), (0, ("a", 1.0), ("b", 2.0))),
        ({"a": [1.0, 2.0], "b": [2.0, 1.0], "c": [0.0, 9.0]}, (), (1, ("b", 1.0), ("c", 9.0))),
        ({"a": [1.0, 2.0], "b": [4.0], "c": [2.0]}, (), (0, ("a", 1.0), ("b", 4.0))),  # a mixture that both have
        ({"a": [1.0], "b": [2.0]}, ("b",), None),
        ({"a": [math.nan], "b": [2.0]}, (), None),
    ],
)
def test_the_largest_disagreement_by_hand(values: dict[str, list[float]], bounds: tuple[str, ...], found: Any) -> None:
    assert _disagreement(chooser(values, bounds), "t", list(values)) == found


def test_every_reason_of_a_mixture_is_told_and_those_that_are_named_come_first() -> None:
    run = chooser({"a": [10.0, 20.0, 30.0, math.nan], "b": [10.0, 20.0, 10.0, 5.0]})
    found = choose(run, "t", ["a", "b"], (1, 3))
    assert list(found)[:2] == [1, 3]
    assert found[3].partition(";")[0] == "chosen"
    assert "best mean psnr of the methods, 20.00" in found[1]
    assert found[1].startswith("chosen; ")
    assert "largest disagreement: a 30.00, b 10.00" in found[2]
    assert sum("drawn by lot" in words for words in found.values()) == 3  # one may have failed
    assert choose(chooser({"a": [1.0, 2.0]}), "t", ["a"], ())[1].startswith("best psnr, 2.00")
    with pytest.raises(SepbenchError, match=r"mixture 4 is not part of this run"):
        choose(run, "t", ["a", "b"], (4,))


def test_the_lot_is_of_the_suite_and_the_task() -> None:
    """A mixture of forty that is drawn by lot for one task is as a rule not drawn for another, and is drawn again whenever the page is made."""
    values = {"a": [float(k) for k in range(40)]}
    draws = {}
    for suite, task in (("s", "t"), ("s", "u"), ("v", "t")):
        run = chooser(values)
        run.suite.name, run.values = suite, lambda task, method: dict(enumerate(values[method]))
        lots = [tuple(example for example, words in choose(run, task, ["a"], ()).items() if "lot" in words) for _ in range(2)]
        assert lots[0] == lots[1]
        draws[suite, task] = lots[0]
    assert len(set(draws.values())) == 3
    assert {len(lot) for lot in draws.values()} == {3}


def test_sounds_are_rounded_to_sixteen_bits() -> None:
    signal = torch.tensor([[0.25, -1.0, 1.0, 0.1]])
    file = soundfile.SoundFile(io.BytesIO(flac(signal, RATE, 0.5)))
    assert (file.format, file.subtype, file.channels, file.samplerate) == ("FLAC", "PCM_16", 1, RATE)
    assert file.read() == pytest.approx([0.125, -0.5, 0.5, 0.05], abs=2**-15)
