"""Which tasks a method takes with settings other than its defaults, at the last value that is taken and the first that is not, and the whole line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_frozen_supports import tasks

from sepbench.protocols import Support
from sepbench.registry import create_separator

YES = ""
GREY = "the classifier of perceptual takes colour images of at least 18 x 18 pixels; leave it at 0"
OF_PATCHES = "yes: degenerate on a single image, which is one observation: filters learnt from its patches separate disjoint spectra only"
OF_WINDOWS = "yes: one channel is one observation: filters learnt from its windows separate disjoint spectra only"
VOCALS = "yes: foreground is source 0 (vocals), by the class's name"
WIDER = "use a larger gamma_ratio or more steps"
FOUR: dict[str, Any] = {"n_sources": 4, "source_classes": ("any",) * 4, "scored_sources": (0, 1, 2, 3)}
OVERSHOT, FEWER = "diverges: the last step multiplies the residual", "use a larger gamma_ratio or fewer resamplings"
SMALLER = "use a smaller delta or factor"
ANY_ORDER: dict[str, Any] = {"targets": "permutations"}
CASES: list[tuple[str, str, dict[str, Any], str, dict[str, Any], str]] = [
    ("glom", "image", {"perceptual": 1.0}, "as it is", {}, GREY),
    ("glom", "image", {"perceptual": 1.0}, "as it is", {"source_shape": (3, 17, 40)}, GREY),
    ("glom", "image", {"perceptual": 1.0}, "as it is", {"source_shape": (3, 40, 17)}, GREY),
    ("glom", "image", {"perceptual": 1.0}, "as it is", {"source_shape": (3, 18, 18)}, YES),
    ("glom", "image", {"perceptual": 1.0}, "none observed", {}, "glom learns from clean samples of one source; this task has no observed source"),
    ("glom-joint", "image", {"perceptual": 0.5}, "as it is", {}, GREY),
    ("ica", "image", {"patch": 9}, "as it is", {"source_shape": (1, 9, 8)}, "patches of 9 pixels do not fit into images of 9 x 8; choose a smaller patch"),
    ("ica", "image", {"patch": 9}, "as it is", {"source_shape": (1, 8, 9)}, "patches of 9 pixels do not fit into images of 8 x 9; choose a smaller patch"),
    ("ica", "image", {"patch": 8}, "as it is", {"source_shape": (1, 8, 9)}, OF_PATCHES),
    ("ica", "image", {"components": 2}, "three", {}, "2 components cannot make 3 sources; choose a larger patch or more components"),
    ("ica", "image", {"components": 3}, "three", {}, OF_PATCHES),
    ("ica", "image", {"patch": 2}, "six of one class", {}, "4 components cannot make 6 sources; choose a larger patch or more components"),
    ("ica", "image", {"patch": 2}, "six of one class", {"source_shape": (3, 32, 32)}, OF_PATCHES),
    ("ica", "audio", {"lags": 40}, "short", {"assignment": "permutation"}, OF_WINDOWS),
    ("ica", "audio", {"lags": 41}, "short", {"assignment": "permutation"}, "windows of 41 samples do not fit into signals of 40; choose fewer lags"),
    ("ica", "audio", {"components": 2}, "three of one class", {}, "2 components cannot make 3 sources; choose more lags and components"),
    ("ica", "audio", {"lags": 2}, "three of one class", {}, "2 components cannot make 3 sources; choose more lags and components"),
    ("ica", "audio", {"lags": 3}, "three of one class", {}, OF_WINDOWS),
    # Four levels of Karras et al. from 1 to 0.005: the last but one is 13.4 times the last, and A A^T is 2 (sum) or 1/2 (mean).
    ("gaussian", "vector", {"gamma_ratio": 0.3, "steps": 4}, "as it is", {}, f"diverges: a step multiplies the residual by -20.47; {WIDER}"),
    ("gaussian", "vector", {"gamma_ratio": 0.3, "steps": 4, "churn": 0.0}, "as it is", {}, f"diverges: a step multiplies the residual by -19.75; {WIDER}"),
    ("gaussian", "vector", {"gamma_ratio": 0.3, "steps": 4}, "mean", {}, f"diverges: a step multiplies the residual by -5.06; {WIDER}"),
    # One step alone is the last: A A^T / 0.3^2 is 22.2, or 5.6 for the mean, with and without the prior's pull of 1.
    ("gaussian", "vector", {"gamma_ratio": 0.3, "steps": 1}, "as it is", {}, f"{OVERSHOT} 2 times by up to 22.22; {FEWER}"),
    ("gaussian", "vector", {"gamma_ratio": 0.3, "steps": 1}, "mean", {}, f"{OVERSHOT} 2 times by up to 5.56; {FEWER}"),
    ("gaussian", "vector", {"steps": 1}, "mean", {}, YES),
    # The last noise level is 1/200 of the first: 1.78^9 is 179, 1.78^10 is 318.
    ("gaussian", "vector", {"resamplings": 9}, "as it is", {}, YES),
    ("gaussian", "vector", {"resamplings": 10}, "as it is", {}, f"{OVERSHOT} 10 times by up to 1.78; {FEWER}"),
    # Four sources: without the prior's pull the factor is -0.73, with it the residual grows.
    ("gaussian", "vector", {"steps": 25}, "three of one class", FOUR, f"diverges: a step multiplies the residual by -1.22; {WIDER}"),
    ("gaussian", "vector", {"steps": 35}, "three of one class", FOUR, YES),
    # 1 - q - gram c q with q = delta / lowest^2: 1 - 1 - 2, 1 - 0.2 - 2.4, 1 - 0.8 - 1.6, 1 - 1 - 1/2.
    ("basis-ncsn", "vector", {"delta": 1e-4}, "as it is", {}, f"diverges: each step multiplies the residual by -2.00; {SMALLER}"),
    ("basis-ncsn", "vector", {"factor": 6.0}, "as it is", {}, f"diverges: each step multiplies the residual by -1.60; {SMALLER}"),
    ("basis-ncsn", "vector", {"lowest": 0.005}, "as it is", {}, f"diverges: each step multiplies the residual by -1.40; {SMALLER}"),
    ("basis-ncsn", "vector", {"delta": 1e-4}, "mean", {}, YES),
    ("dirac", "vector", {"slot": 1}, "as it is", {}, YES),
    ("dirac", "vector", {"slot": 2}, "as it is", {}, "its setting slot is 2, the task's sources are numbered 0 to 1"),
    ("dirac", "vector", {"slot": 2}, "three", {}, YES),
    ("supervised", "image", {"targets": "classes"}, "three", {}, YES),
    ("supervised", "image", ANY_ORDER, "agnostic", {}, YES),
    (
        *("supervised", "image", ANY_ORDER, "as it is", {}),
        "supervised is for tasks whose sources are all of one class; choose supervised or supervised-sources",
    ),
    (
        *("supervised", "image", ANY_ORDER, "agnostic, ordered", {}),
        "supervised cannot tell sources of one class apart; choose a task under the best assignment",
    ),
    ("supervised", "image", ANY_ORDER, "six of one class", {}, "6 sources have too many orders"),
    ("supervised", "image", ANY_ORDER, "six of one class", {"n_sources": 5, "source_classes": ("any",) * 5}, YES),
    ("supervised", "image", {"network": "unet"}, "as it is", {}, YES),
    ("supervised", "audio", {"network": "unet"}, "as it is", {}, "supervised separates image signals here, the task is of domain 'audio'"),
    ("nes", "audio", {"network": "unet"}, "as it is", {}, "nes separates image signals here, the task is of domain 'audio'"),
    ("nes", "audio", {"init": "random"}, "as it is", {}, YES),
    ("nes", "audio", {"init": "am"}, "as it is", {}, "nes of audio starts from init=constant or random; am is for images"),
    ("nes", "audio", {"init": "mine.safetensors"}, "as it is", {}, "nes of audio starts from init=constant or random; mine.safetensors is for images"),
    ("nes", "image", {"init": "mine.safetensors"}, "as it is", {}, YES),
    ("lass", "image", {"sampler": "beam"}, "agnostic", {}, YES),
    ("lass", "image", {"sampler": "greedy"}, "three of one class", {}, YES),
    ("lass", "image", {"sampler": "particles"}, "three of one class", {}, YES),
    ("lass", "image", {"sampler": "beam"}, "three of one class", {}, "lass has its beam for two sources, the task has 3; use --set lass.sampler=draw"),
    *(
        ("lass", "image", {"codes": 513}, task, {}, answer)
        for task, answer in (
            ("agnostic", YES),
            ("three of one class", "lass sums over all triples of codes where there are more than two sources, for at most 512 codes"),
        )
    ),
    ("lass", "image", {"codes": 512}, "three of one class", {}, YES),
    ("nmf", "image", {"shared_atoms": 2}, "three of one class", {}, "2 shared_atoms cannot make 3 groups; choose more"),
    ("nmf", "image", {"shared_atoms": 3}, "three of one class", {}, "yes: one dictionary, its atoms grouped for each mixture"),
    ("nmf", "audio", {"shared_atoms": 2}, "three of one class", {}, "2 shared_atoms cannot make 3 groups; choose more"),
    ("nmf-blind", "audio", {"components": 2}, "three of one class", {}, "2 components cannot make 3 sources; choose more"),
    ("nmf-blind", "audio", {"components": 3}, "three of one class", {}, "yes: bins are grouped by timbre, group 0 is the louder one"),
    ("s-d", "image", {}, "as it is", {"source_shape": (1, 4, 4)}, YES),
    ("s-d", "image", {}, "as it is", {"source_shape": (3, 3, 9)}, "s-d takes images of at least 4 x 4 pixels"),
    ("s-d-32", "image", {}, "as it is", {"source_shape": (3, 9, 3)}, "s-d-32 takes images of at least 4 x 4 pixels"),
    ("ideal-mask", "image", {"block": 1}, "as it is", {}, "yes: single pixels: the estimates are the references themselves"),
    ("ideal-mask", "image", {"block": 1, "mask": "binary"}, "as it is", {}, "yes: bound for masks no finer than its blocks"),
    ("ideal-mask", "image", {"block": 2}, "as it is", {}, "yes: bound for masks no finer than its blocks"),
    ("repet", "audio", {"period": 0.1}, "just short of three periods", {}, VOCALS),
    ("repet", "audio", {"shortest": 0.5}, "just short of three periods", {}, VOCALS),
    (
        *("repet", "audio", {"shortest": 0.9}, "three periods", {}),
        f"{VOCALS}; 2.40 s are less than three periods of 0.9 s: the period is a third of the signal",
    ),
    ("repet", "audio", {"shortest": 0.9}, "three periods", {"sample_rate": None}, "REPET masks spectrograms of audio; the task is of domain 'audio'"),
    ("repet-sim", "audio", {"apart": 2.4}, "three periods", {}, VOCALS),
    ("repet-sim", "audio", {"apart": 2.5}, "three periods", {}, f"{VOCALS}; no two frames of 2.40 s are 2.5 s apart: everything is background"),
    ("hpss", "audio", {"percussive_class": "bass"}, "as it is", {}, "yes: percussive part is source 1 (bass), by the class's name"),
    (
        *("hpss", "audio", {"percussive_class": "kit"}, "as it is", {}),
        "HPSS cannot tell which source is its percussive part: the classes are drums, bass, and it knows exactly one of kit; "
        "choose a task under the best assignment",
    ),
]


@pytest.mark.parametrize(("name", "domain", "settings", "which", "change", "answer"), CASES, ids=lambda value: str(value)[:40])
def test_what_a_method_takes_follows_from_its_settings(
    name: str, domain: Any, settings: dict[str, Any], which: str, change: dict[str, Any], answer: str
) -> None:
    support = create_separator(name, settings, domain).supports(replace(tasks(domain)[which], **change))
    assert support == Support(answer == YES or answer.startswith("yes: "), answer.removeprefix("yes: "))
