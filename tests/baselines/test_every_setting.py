"""A law for all methods: changing a setting changes the estimates, and so does the quick budget. Who declares a setting says here what it is good for."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import frozen_outcomes
import pytest
import torch
from setting_worlds import Case, Outcome, Settings, World, audio, images, outcome, tiny_prior, under, vectors

from baselines.training.sound_tokens import LearntSoundTokens
from baselines.training.token_models import LearntTokens
from sepbench.errors import SettingError
from sepbench.kinds import choices
from sepbench.registry import create_separator, separator_class, separator_domains, separator_names
from sepbench.settings import Setting, describe

GPU = "an engine is a way to run the network on a GPU; refused on a CPU, held against eager in test_engine.py"
NETWORK = "of a network: test_settings_of_the_prior has one"
BEST = {"best_of": 4}
DRAWN: Mapping[str, Settings] = {
    "criterion": BEST,
    "loss_sigmas": BEST,
    "combine": BEST,
    "temperature": {**BEST, "combine": "mean"},
}
OF_THE_PRIOR: Mapping[str, tuple[Settings, Any]] = {
    "weights": ({}, 2),
    "precision": ({}, "bfloat16"),
    "flow_steps": ({"best_of": 2, "criterion": "log-prior", "combine": "mean", "flow_steps": 2, "flow_spacing": 1}, 3),
    "flow_spacing": ({"best_of": 2, "criterion": "log-prior", "combine": "mean", "flow_steps": 2, "flow_spacing": 1}, 2),
}
ON_NETWORKS = {"engine": GPU, **dict.fromkeys(OF_THE_PRIOR, NETWORK)}
LOSSES = {"loss_sigmas": (0.3, 0.6)}


def sampler(small: Settings, long: Settings, among: Mapping[str, Settings] | None = None, to: Settings | None = None) -> Case:
    """A sampler under the true priors of vectors. ``long`` has more steps than the quick budget."""
    return Case(vectors, small, {**DRAWN, "budget": long, **(among or {})}, {**LOSSES, **(to or {})}, ON_NETWORKS)


SHORT: Mapping[str, Settings] = {
    **{"alpha-rgs": {"iterations": 3}, "basis-ncsn": {"steps_per_level": 2, "levels": 3}, "diffusion-gibbs": {"levels": 3, "inner_steps": 2}},
    **{name: {"steps": 3} for name in ("dirac", "projected")},
    "gaussian": {"steps": 10},
}
"""On networks."""
NOTHING_TO_CUT = "there is no loop to cut short"
ITS_OWN_END = "it ends where it has converged, or after its few updates, whatever the budget"
FAST_TOKENS: Settings = {
    **{"weights": "train", "codes": 12, "width": 8, "codec_epochs": 2, "codec_batch": 16, "codec_lr": 3e-3, "restart_every": 2, "held_out": 4},
    **{"prior_width": 8, "prior_layers": 1, "prior_epochs": 2, "prior_batch": 12, "prior_lr": 5e-3, "passes": 2, "fit_precision": "float32"},
}
FAST_SOUNDS: Settings = {
    **{"bands": 16, "codes": 12, "width": 8, "codec_epochs": 8, "codec_batch": 6, "codec_lr": 2e-2, "restart_every": 2, "fit_precision": "float32"},
    **{"prior_width": 8, "prior_layers": 1, "prior_epochs": 4, "prior_batch": 3, "prior_lr": 2e-2, "passes": 2},
}
OF_SOUND_TOKENS = frozenset(setting.name for setting in describe(LearntSoundTokens))
OF_TOKENS = frozenset(setting.name for setting in describe(LearntTokens)) - {"weights"}
"""Settings of the fit of LASS. It chooses one of few candidates, so that most of them leave the estimates of four mixtures as they are."""
BY_POSTERIOR: Settings = {"selection": "posterior", "sampler": "beam", "top_k": 0, "candidates": 64, "refinement": "none", "likelihood_weight": 0.3}
DRAWS: Settings = {"selection": "posterior", "sampler": "draw", "top_k": 0, "candidates": 3, "refinement": "none"}
CANDIDATES: Mapping[str, Settings] = {
    "misaligned": {"sampler": "beam", "top_k": 0, "candidates": 3},
}
PARTICLES: Settings = {**DRAWS, "sampler": "particles", "candidates": 6, "evidence": 500.0}
LONG = partial(audio, 9_600)
AGNOSTIC_IMAGES, AGNOSTIC_AUDIO = partial(images, agnostic=True), partial(audio, classes=("any", "any"))
LOOKED_AT = "how many training estimates are kept to be looked at: test_nes.py"
CASES: Mapping[str, Case] = {
    "alpha-rgs": sampler({"iterations": 8}, {"iterations": 41}),
    "basis-ncsn": sampler(
        {"steps_per_level": 3, "levels": 4},
        {"steps_per_level": 11},
        {"level_shares": {"levels": 4}},
        {"level_shares": (2.0, 1.0, 1.0, 1.0), "start": "normal"},
    ),
    "diffusion-gibbs": sampler({"levels": 5, "inner_steps": 3}, {"levels": 11}),
    "dirac": sampler({"steps": 8, "churn": 1.0}, {"steps": 21}),
    "gaussian": sampler({"steps": 8, "churn": 1.0}, {"steps": 21}, to={"highest": 1.2}),
    "projected": sampler(
        {"steps": 8, "stochasticity": 0.7},
        {"steps": 16},
        {"prune_after": {"candidates": 6, "prune_after": (2,), "survivors": (3,)}, "survivors": {"candidates": 6, "prune_after": (2,), "survivors": (3,)}},
        {"bounded": True, "stochasticity": 0.3, "candidates": 3, "prune_after": (5,), "survivors": (1,)},
    ),
    "am": Case(images, {"epochs": 2, "lr": 1e-3, "samples": 34, "batch": 16}),
    "average": Case(images, quiet={"budget": NOTHING_TO_CUT}),
    "conv-tasnet": Case(
        audio,
        {"steps": 11, "batch": 2, "segment": 400, "filters": 8, "milliseconds": 4.0, "bottleneck": 8, "hidden": 8, "skip": 8, "blocks": 2, "repeats": 1},
        {"clip": {"clip": 0.01}},
    ),
    "demucs": Case(audio, {"steps": 11, "batch": 2, "segment": 400, "width": 4, "depth": 2, "lstm_layers": 1}, {"clip": {"clip": 0.01}}),
    "ft2d": Case(audio, to={"rates": 9}, quiet={"budget": NOTHING_TO_CUT}),
    "glom": Case(
        images,
        {"epochs": 2, "latent": 6, "search_steps": 5, "samples": 34, "batch": 16},
        {"weight": {"joint": True}, "tolerance": {"search_steps": 110, "search_lr": 1e-3, "tolerance": 0.0}},
        {"tolerance": 0.9, "restarts": 1},
        {"perceptual": "for colour images: test_glom.py"},
    ),
    "hpss": Case(
        partial(audio, classes=("drums", "bass")),
        {"frames": 7, "bins": 7},
        to={"frames": 9, "bins": 9, "percussive_class": "bass"},
        quiet={"budget": NOTHING_TO_CUT},
    ),
    "ica": Case(images, {"patch": 4, "components": 6, "window": 1, "max_iterations": 8}, to={"tolerance": 0.5, "window": 3}, quiet={"budget": ITS_OWN_END}),
    "ica.audio": Case(audio, {"lags": 16, "components": 6, "max_iterations": 8}, to={"tolerance": 0.5}, quiet={"budget": ITS_OWN_END}),
    "ideal-mask": Case(partial(images, references=True), quiet={"budget": NOTHING_TO_CUT}),
    "ideal-binary-mask": Case(partial(audio, references=True), quiet={"budget": NOTHING_TO_CUT}),
    "ideal-ratio-mask": Case(partial(audio, references=True), quiet={"budget": NOTHING_TO_CUT}),
    "lass": Case(
        partial(images, operator="mean"),
        {**FAST_TOKENS, "sampler": "draw", "candidates": 3, "top_k": 5, "refinement": "descent", "refine_steps": 6},
        {
            "smoothing": BY_POSTERIOR,
            **dict.fromkeys(("temperature", "nucleus", "top_k", "candidates"), DRAWS),
            "evidence": PARTICLES,
            "likelihood_weight": BY_POSTERIOR,
        },
        {"prior_width": 16, "prior_heads": 4, "prior_batch": 20, "held_out": 0, "nucleus": 0.3, "top_k": 1, "temperature": 5.0, "smoothing": 50.0},
        {
            "weights": "which files are read: test_shipped_tokens.py",
            "partial_mixtures": "of three sources and more, whose tokens must be worth counting: test_lass.py",
            **dict.fromkeys(CANDIDATES, "moves candidates: test_candidates_of_lass"),
        },
        learnt=OF_TOKENS,
    ),
    "lass.audio": Case(
        audio,
        {**FAST_SOUNDS, "candidates": 4},
        to={"bands": 32, "prior_width": 16, "prior_heads": 4, "prior_batch": 4, "top_k": 1, "temperature": 5.0, "smoothing": 50.0},
        quiet={"held_out": "a tenth of six sounds is none: test_sound_tokens.py", "misaligned": "handed on to the search: test_lass_audio.py"},
        learnt=OF_SOUND_TOKENS - {"held_out"},
    ),
    "mixture": Case(images, quiet={"budget": NOTHING_TO_CUT}),
    "nes": Case(images, {"iterations": 2, "epochs": 2, "lr": 1e-3, "samples": 34, "batch": 16}, to={"init": "random"}, quiet={"kept": LOOKED_AT}),
    "nmf": Case(
        images,
        {"atoms": 6, "shared_atoms": 6, "iterations": 12, "coding_iterations": 5, "samples": 30},
        within={"shared_atoms": AGNOSTIC_IMAGES, "sharpness": AGNOSTIC_IMAGES},
    ),
    "nmf.audio": Case(
        audio,
        {"atoms": 4, "shared_atoms": 4, "iterations": 12, "coding_iterations": 5, "frames": 60, "samples": 3},
        within={"shared_atoms": AGNOSTIC_AUDIO, "sharpness": AGNOSTIC_AUDIO},
    ),
    "nmf-blind": Case(audio, {"components": 6, "iterations": 8}, quiet={"budget": ITS_OWN_END}),
    "nmf-semi": Case(images, {"atoms": 6, "iterations": 6, "coding_iterations": 8, "samples": 30}, to={"coding_sparsity": 0.3}),
    "nmf-semi-printed": Case(images, {"bases": 4, "iterations": 4, "samples": 30}),
    "nmf-semi.audio": Case(
        partial(audio, observed=1), {"atoms": 4, "iterations": 6, "coding_iterations": 8, "frames": 60, "samples": 3}, to={"coding_sparsity": 0.3}
    ),
    "original": Case(partial(images, references=True), quiet={"budget": NOTHING_TO_CUT}),
    "repet": Case(
        LONG,
        {"shortest": 0.1, "longest": 0.12},
        {"shortest": {"longest": 0.3}, "longest": {"shortest": 0.2, "longest": 0.21}},
        {"shortest": 0.28, "longest": 0.3, "period": 0.2},
        {"budget": NOTHING_TO_CUT},
    ),
    "repet-sim": Case(LONG, {"apart": 0.1, "most": 3}, to={"threshold": 0.9}, quiet={"budget": NOTHING_TO_CUT}),
    "rpca": Case(images, {"max_iterations": 12}, {"growth": {"max_iterations": 40}}, {"tolerance": 0.1, "penalty_tolerance": 0.1}, {"budget": ITS_OWN_END}),
    "rpca.audio": Case(audio, {"max_iterations": 12}, to={"tolerance": 0.1}, quiet={"budget": ITS_OWN_END}),
    "s-d": Case(
        images,
        {"latent": 6, "steps": 4, "batch": 8, "restarts": 2, "first_steps": 4, "last_steps": 5, "samples": 30},
        {"tolerance": {"last_steps": 110, "search_lr": 3e-3, "tolerance": 0.0}},
        {"tolerance": 0.9, "restarts": 12},
    ),
    "supervised": Case(images, {"epochs": 2, "lr": 1e-3, "samples": 34, "batch": 16}),
}


def registered() -> list[str]:
    """Every implementation of every name, ``name.domain`` where there are several; of presets, the class that they are made of."""
    found = []
    for name in separator_names():
        for domain in separator_domains(name):
            cls = separator_class(name, domain)
            if "[" not in cls.__qualname__:
                found.append(f"{name}.{domain}" if domain and domain != "image" else name)
    return found


def settings_of(key: str) -> Mapping[str, Setting]:
    name, _, domain = key.partition(".")
    return {setting.name: setting for setting in describe(separator_class(name, domain or None))}  # type: ignore[arg-type]


def another(setting: Setting, value: Any) -> Any:
    """A legal value near the present one."""
    if isinstance(value, bool):
        return not value
    found = choices(setting.hint)
    if found:
        return next(one for one in found if one != value)
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 1.5 * value if value else 0.5
    raise AssertionError(f"say what {setting.name} is to be changed to")


def cases() -> list[tuple[str, str]]:
    return [(key, name) for key, case in CASES.items() for name in settings_of(key) if name not in case.quiet]


KEPT: dict[tuple[str, str, str, str], Outcome] = {}
SLOW_FITS = {"lass.audio", "conv-tasnet"}
"""A fit of these takes half a second, and every setting needs one."""


def made(key: str, settings: Settings, world: World, budget: str = "paper") -> Outcome:
    asked = (key, json.dumps(settings, sort_keys=True), repr(world.task), budget)
    if asked not in KEPT:
        KEPT[asked] = outcome(key.partition(".")[0], world, settings, budget)
    return KEPT[asked]


def moved(first: Outcome, second: Outcome, *, learnt: bool = False) -> bool:
    assert bool(first.estimates.isfinite().all())
    assert bool(second.estimates.isfinite().all())
    return first.learnt != second.learnt if learnt else not torch.equal(first.estimates, second.estimates)


@pytest.mark.parametrize(("key", "name"), [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] in SLOW_FITS)) for case in cases()])
def test_changing_a_setting_changes_the_estimates(key: str, name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "fit_precision":
        request.getfixturevalue("bfloat16")
        monkeypatch.setattr(sys.modules[__name__], "KEPT", {})  # what other tests have kept was made as this processor computes
    case, setting = CASES[key], settings_of(key)[name]
    before = {**case.small, **case.among.get(name, {})}
    value = before.get(name, setting.default)
    to = case.to[name] if name in case.to else another(setting, value)
    assert to != value
    world = case.within.get(name, case.world)()
    changed = moved(made(key, before, world), made(key, {**before, name: to}, world), learnt=name in case.learnt)
    assert changed, f"{key}.{name} is {to} instead of {value}, and nothing changes"


@pytest.mark.parametrize("operator", ["sum", "mean", "gain"])
@pytest.mark.parametrize("key", CASES)
def test_sources_of_other_weights_give_the_numbers_that_they_gave(key: str, operator: str) -> None:
    case = CASES[key]
    world = under(case.world(), operator)
    name, _, domain = key.partition(".")
    if not create_separator(name, case.small, domain or world.task.domain).supports(world.task).ok:
        pytest.skip("refused, as test_frozen_supports.py has it")
    found = outcome(name, world, case.small).estimates
    assert found.shape == world.sources.shape


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if "budget" not in case.quiet])
def test_the_quick_budget_is_another(key: str) -> None:
    case = CASES[key]
    settings = {**case.small, **case.among.get("budget", {})}
    assert moved(made(key, settings, case.world()), made(key, settings, case.world(), "quick"), learnt=bool(case.learnt)), key


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if NOTHING_TO_CUT in case.quiet.values() or ITS_OWN_END in case.quiet.values()])
def test_who_has_nothing_to_cut_short_says_so_rightly(key: str) -> None:
    case = CASES[key]
    assert not moved(made(key, case.small, case.world()), made(key, case.small, case.world(), "quick"))


@pytest.mark.parametrize("name", OF_THE_PRIOR)
@pytest.mark.parametrize("key", [key for key, case in CASES.items() if case.world is vectors])
def test_settings_of_the_prior(key: str, name: str, tmp_path: Path) -> None:
    """Networks that nobody has trained, for images: what they make of them does not matter."""
    among, to = OF_THE_PRIOR[name]
    weights = {"weights": tiny_prior(tmp_path, 1)}
    changed = {"weights": tiny_prior(tmp_path, 2)} if name == "weights" else {name: to}
    before = {**SHORT[key], **among, **weights}
    first, second = (outcome(key, images(), settings) for settings in (before, {**before, **changed}))
    assert moved(first, second), f"{key}.{name}"


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_of_lass(name: str) -> None:
    case = CASES["lass"]
    world, before = case.world(), {**case.small, **CANDIDATES[name]}
    ctx, found = world.context(), []
    for value in (False, True):
        method: Any = create_separator("lass", {**before, name: value})
        method.fit(world.view("prior"), ctx)
        mixtures = world.mixtures()
        found.append(method.found(mixtures.values, 2, mixtures.example_ids, ctx, lambda done: None))
    assert not all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_what_projected_auto_takes_follows_from_the_images_that_it_is_shown(tmp_path: Path) -> None:
    enough = []
    for count in (8, 9):
        method: Any = create_separator("projected-auto", {**AUTO, "weights": tiny_prior(tmp_path, 1), "calibration": count})
        method.fit(images().view("prior"), images().context())
        enough.append(method.enough(0.0))
    assert enough[0] != enough[1]


AUTO: Settings = {"search_steps": 4, "finish_steps": 2, "most_draws": 4, "calibration": 8, "probe_weight": 50.0, "judged": 1.6}
AUTO_TO: Settings = {"mirrored": 0.0, "accept": 3.0, "relax": 30.0, "judged": 0.3, "finalists": 1, "probe_sigmas": (1.2,), "probe_weight": 0.0}
AUTO_QUIET: Mapping[str, str] = {
    "engine": GPU,
    "calibration": "moves a threshold: the test above",
    **dict.fromkeys((*DRAWN, *OF_THE_PRIOR), "as for the other samplers, above"),
}


@pytest.mark.parametrize("name", [name for name in settings_of("projected-auto") if name not in AUTO_QUIET])
def test_settings_of_projected_auto(name: str, tmp_path: Path) -> None:
    """It learns what clean images come to, so that it needs images and a network."""
    setting, before = settings_of("projected-auto")[name], {**AUTO, "weights": tiny_prior(tmp_path, 1)}
    among: Settings = {"accept": {"accept": -3.0, "relax": 0.0}, "relax": {"accept": -3.0}, "most_draws": {"accept": -9.0, "relax": 0.0}}.get(name, {})
    strict: Settings = {"accept": -9.0, "relax": 0.0} if name in ("finalists", "probe_sigmas", "probe_weight") else {}
    before = {**before, **among, **strict}
    to = AUTO_TO[name] if name in AUTO_TO else another(setting, before.get(name, setting.default))
    first, second = (outcome("projected-auto", images(), settings) for settings in (before, {**before, name: to}))
    assert moved(first, second), f"{name} is {to}"


def test_every_registered_method_and_setting_is_here() -> None:
    """Whoever adds a method or a setting adds what changes with it, or why nothing does."""
    apart = {"projected-auto", "lass-projected", "exact-posterior"}
    assert set(registered()) == {*CASES, *apart}
    assert describe(separator_class("exact-posterior")) == []
    for key, case in CASES.items():
        known = {*settings_of(key), "budget"}
        assert {*case.small, *case.among, *case.to, *case.quiet, *case.within} <= known, key
        assert all(case.quiet.values())


@pytest.mark.parametrize("name", separator_names())
def test_a_switch_is_no_number_and_a_number_no_switch(name: str) -> None:
    """``--set x.steps=true`` is refused, not read as 1; so is 0 for false."""
    for domain in separator_domains(name):
        for setting in describe(separator_class(name, domain)):
            if setting.kind in ("int", "number"):
                with pytest.raises(SettingError, match=rf"{setting.name} must be"):
                    create_separator(name, {setting.name: True}, domain)
            elif setting.kind == "true | false":
                with pytest.raises(SettingError, match=rf"{setting.name} must be true or false"):
                    create_separator(name, {setting.name: 0}, domain)


FROZEN = Path(__file__).parents[1] / "golden" / "method_defaults.json"


def defaults() -> dict[str, Any]:
    """Version and default settings of every registered name, as JSON has them."""
    found = {}
    for name in separator_names():
        for domain in separator_domains(name):
            cls = separator_class(name, domain)
            settings = {setting.name: setting.default for setting in describe(cls)}
            info = cls.info
            shown = {"domains": sorted(info.domains), "supervision": info.supervision, "bound": info.bound, "deterministic": info.deterministic}
            shown |= {"title": info.title, "paper": info.paper, "max_batch": info.max_batch, "max_batch_cpu": info.max_batch_cpu}
            bounds = {
                name: ", ".join(sorted(map(repr, field.metadata))) for name, field in cls.__pydantic_fields__.items() if name in settings and field.metadata
            }
            found[f"{name}.{domain}" if domain else name] = {"version": info.version, **shown, "settings": settings, "bounds": bounds}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def test_defaults_are_those_of_the_methods_version() -> None:
    """Rows of one version were made with one set of defaults. To change a default, raise the version, then run this file: it writes what is frozen."""
    frozen, found = json.loads(FROZEN.read_text(encoding="utf-8")), defaults()
    assert set(found) == set(frozen)
    for name, wanted in frozen.items():
        assert found[name] == wanted, name


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(defaults(), indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="")
    frozen_outcomes.recorded = {}
    if pytest.main(["-q", __file__]) == 0:
        lines = [f"{json.dumps(name)}: {numbers}" for name, numbers in sorted(frozen_outcomes.recorded.items())]
        frozen_outcomes.FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="")
