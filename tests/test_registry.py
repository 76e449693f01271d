"""Lookup by name: nearest names, settings, broken third parties, and names that two distributions claim."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_methods import register
from third_parties import install, package
from told_places import without_place

from sepbench import registry
from sepbench.errors import MethodError, NameClaimedError, SuiteError, UnknownNameError
from sepbench.protocols import Domain
from sepbench.settings import setting_names, settings_of


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Registers an entry point named ``mine``."""

    def register_mine(value: str, group: str = registry.SEPARATOR_GROUP) -> None:
        install(monkeypatch, tmp_path, "my-package", {group: {"mine": value}})

    return register_mine


def test_unknown_names_answer_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown method 'avrage'; did you mean average"):
        registry.create_separator("avrage")
    with pytest.raises(UnknownNameError, match=r"unknown suite 'mnist-pair'; did you mean mnist-pairs"):
        registry.suite_path("mnist-pair")
    with pytest.raises(UnknownNameError, match=r"unknown method 'zzz'; no installed package brings it .*'pip install -e FOLDER', or begin one"):
        registry.create_separator("zzz")


def test_a_far_off_name_is_not_guessed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(registry.SUITES_VARIABLE, str(tmp_path / "kept"))
    for name in ("my-method", "my-net", "wiener", "separator"):
        with pytest.raises(UnknownNameError, match=f"unknown method '{name}'; no installed package brings it"):
            registry.create_separator(name)
    for name in ("my-suite", "shapes", "photos"):
        with pytest.raises(UnknownNameError) as caught:
            registry.suite_path(name)
        assert f"is not in {tmp_path}/kept and {tmp_path}/suites (SEPBENCH_SUITES names more folders)" in str(caught.value)
        assert "did you mean" not in str(caught.value)
    (tmp_path / "my-method").mkdir()
    (tmp_path / "my-method" / "pyproject.toml").write_text("")
    with pytest.raises(UnknownNameError, match=r"the folder my-method is not installed: run 'pip install -e \./my-method'"):
        registry.create_separator("my-method")


def test_settings_are_checked_by_name() -> None:
    with pytest.raises(UnknownNameError, match="unknown setting of nmf 'atomz'"):
        registry.create_separator("nmf", {"atomz": 3})


def test_settings_are_recorded() -> None:
    separator = registry.create_separator("nmf")
    recorded = settings_of(separator)
    assert recorded
    assert set(recorded) == set(setting_names(type(separator)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_package.module:Thing", "cannot be loaded: ModuleNotFoundError"),
        ("json:no_such_name", "cannot be loaded: AttributeError"),
        ("json:JSONDecoder", "lacks info, supports, fit, separate;"),
    ],
)
def test_a_broken_third_party_method_is_one_clear_error(mine: Callable[..., None], value: str, message: str) -> None:
    mine(value)
    with pytest.raises(MethodError, match=message):
        registry.create_separator("mine")


BROKEN = {
    "RaisesWhenMade": "method 'toy' cannot be created: RuntimeError: no licence",
    "ExitsWhenMade": "method 'toy' cannot be created: SystemExit: 0",
    "InfoIsADict": "method 'toy': info must be a sepbench.protocols.MethodInfo, got dict",
    "InfoIsNone": "method 'toy': info must be a sepbench.protocols.MethodInfo, got NoneType",
    "InfoRaises": "method 'toy' cannot say its info: RuntimeError: no info today",
    "InfoMissesAnAttribute": "method 'toy' cannot say its info: AttributeError: 'InfoMissesAnAttribute' object has no attribute 'information'",
    "make_nothing": "method 'toy' (builtins.NoneType) lacks info, supports, fit, separate; see sepbench.protocols.Separator",
    "NoFit": "method 'toy' (broken_methods.NoFit) lacks fit; see sepbench.protocols.Separator",
    "NoInfoAndSupports": "method 'toy' (broken_methods.NoInfoAndSupports) lacks info, supports; see sepbench.protocols.Separator",
    "NO_METHOD": "method 'toy' (broken_methods:NO_METHOD) is of type int; its entry point must name the method's class",
    "torch": "method 'toy' (broken_methods:torch) is of type module; its entry point must name the method's class",
    "INFO": "method 'toy' (broken_methods:INFO) is of type MethodInfo; its entry point must name the method's class",
    "__builtins__": "method 'toy' (broken_methods:__builtins__) is not in the table that its entry point names; the table must have the class under 'toy'",
    "Any": "method 'toy' refuses its settings: Any cannot be instantiated",
}


@pytest.mark.parametrize(("what", "message"), BROKEN.items(), ids=BROKEN.keys())
def test_what_cannot_be_made_into_a_method_is_one_line(monkeypatch: pytest.MonkeyPatch, what: str, message: str) -> None:
    register(monkeypatch, "toy", what)
    with pytest.raises(MethodError) as caught:
        registry.create_separator("toy")
    assert without_place(str(caught.value)) == message


def test_refused_settings_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy", "RefusesItsSettings")
    with pytest.raises(MethodError, match=r"^method 'toy' refuses its settings: gain must be positive$"):
        registry.create_separator("toy")


def test_a_class_without_a_signature_is_one_line(mine: Callable[..., None]) -> None:
    mine("builtins:dict")
    with pytest.raises(MethodError, match="method 'mine' has no settings that can be listed: ValueError: no signature found"):
        registry.create_separator("mine")


def test_info_may_come_with_the_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy", "InfoComesWithTheInstance")
    assert registry.create_separator("toy").info.name == "toy"


# --- one name, one implementation per domain ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("domain", "cls"), [(None, "Toy"), ("image", "Toy"), ("vector", "Toy"), ("audio", "InfoComesWithTheInstance")])
def test_a_domain_gets_its_own_implementation_and_else_the_plain_one(monkeypatch: pytest.MonkeyPatch, domain: Domain | None, cls: str) -> None:
    register(monkeypatch, "toy", "Toy")
    register(monkeypatch, "toy.audio", "InfoComesWithTheInstance")
    assert registry.separator_class("toy", domain).__name__ == cls
    assert type(registry.create_separator("toy", domain=domain)).__name__ == cls


def test_an_implementation_is_no_method_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy", "Toy")
    register(monkeypatch, "toy.audio", "Toy")
    assert registry.separator_names().count("toy") == 1
    assert "toy.audio" not in registry.separator_names()
    assert registry.separator_domains("toy") == [None, "audio"]
    with pytest.raises(UnknownNameError, match=r"unknown method 'toy.audio'; did you mean toy"):
        registry.create_separator("toy.audio")


def test_a_method_may_have_no_plain_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy.audio", "Toy")
    assert "toy" in registry.separator_names()
    assert registry.separator_domains("toy") == ["audio"]
    for domain in (None, "image", "audio"):
        assert registry.separator_class("toy", domain).__name__ == "Toy"  # type: ignore[arg-type]


def test_another_word_after_a_dot_is_part_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy.fast", "Toy")
    assert "toy.fast" in registry.separator_names()
    assert registry.separator_class("toy.fast", "audio").__name__ == "Toy"


def test_settings_are_those_of_the_implementation() -> None:
    """Each has its own, under plain names."""
    assert registry.create_separator("ica", {"lags": 32}, "audio").lags == 32  # type: ignore[attr-defined]
    with pytest.raises(UnknownNameError, match="unknown setting of ica 'lags'"):
        registry.create_separator("ica", {"lags": 32}, "image")
    with pytest.raises(UnknownNameError, match="unknown setting of ica 'patch'"):
        registry.create_separator("ica", {"patch": 4}, "audio")


@pytest.mark.parametrize("name", registry.separator_names())
def test_implementations_answer_to_the_method_s_name_and_keep_to_their_domain(name: str) -> None:
    domains = registry.separator_domains(name)
    infos = [registry.create_separator(name, domain=domain).info for domain in domains]
    assert {info.name for info in infos} == {name}
    assert len({info.title for info in infos}) == 1
    assert len({info.supervision for info in infos}) == 1 or name.partition("-")[0] == "lass", "on sound lass learns a prior per class"
    for domain, info in zip(domains, infos, strict=True):
        assert domain is None or info.domains == {domain}
    assert sum(len(info.domains) for info in infos) == len(frozenset[str]().union(*(info.domains for info in infos)))


@pytest.mark.parametrize(("value", "message"), [("nowhere:SUITE", "cannot be loaded"), ("os:sep", "not a file"), ("json:loads", "of type function")])
def test_a_broken_third_party_suite_is_one_clear_error(mine: Callable[..., None], value: str, message: str) -> None:
    mine(value, registry.SUITE_GROUP)
    with pytest.raises(SuiteError, match=message):
        registry.suite_path("mine")


def test_a_broken_trainer_is_one_clear_error(mine: Callable[..., None]) -> None:
    mine("os:sep", registry.TRAINER_GROUP)
    with pytest.raises(MethodError, match=r"trainer 'mine' \(os:sep\) is of type str; see sepbench.trainers.Trainer"):
        registry.trainer("mine")
    assert callable(registry.trainer("score"))


def test_a_group_without_any_entry_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not list(Path(place).glob("sepbench*.dist-info"))])
    with pytest.raises(UnknownNameError, match="no metric 'psnr': none is registered"):
        registry.load_entry(registry.METRIC_GROUP, "psnr")


# --- one name, two distributions

GROUPS = (registry.SEPARATOR_GROUP, registry.SUITE_GROUP, registry.METRIC_GROUP, registry.DATASET_GROUP, registry.TRAINER_GROUP, registry.BACKEND_GROUP)


def _ask(group: str, name: str) -> object:
    """Through the door that everybody uses."""
    from sepbench.data.datasets import registered_dataset
    from sepbench.metrics.catalogue import get_metric

    doors: dict[str, Callable[[str], object]] = {
        registry.SEPARATOR_GROUP: registry.separator_class,
        registry.SUITE_GROUP: registry.suite_path,
        registry.METRIC_GROUP: get_metric,
        registry.DATASET_GROUP: registered_dataset,
        registry.TRAINER_GROUP: registry.trainer,
    }
    return doors.get(group, lambda name: registry.load_entry(group, name))(name)


# Things that keep the contract of each group, so that asking for a name that is not claimed twice works.
SOUND = {
    registry.SEPARATOR_GROUP: "baselines.average:Average",
    registry.SUITE_GROUP: "json:__file__",
    registry.METRIC_GROUP: "sepbench.metrics.psnr:PSNR",
    registry.DATASET_GROUP: "sepbench.data.array_sets:MNIST",
    registry.TRAINER_GROUP: "baselines.training.score:train",
    registry.BACKEND_GROUP: "sepbench.run.backends.local:LocalBackend",
}


@pytest.mark.parametrize("group", GROUPS)
def test_a_name_that_two_distributions_claim_is_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str) -> None:
    for distribution in ("first-package", "second-package"):
        install(monkeypatch, tmp_path, distribution, {group: {"twice": SOUND[group], f"only-{distribution}": SOUND[group]}})
    with pytest.raises(NameClaimedError) as caught:
        _ask(group, "twice")
    for part in ("'twice'", "first-package (", "second-package (", SOUND[group], "uninstall"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", GROUPS)
def test_all_other_names_of_the_group_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str) -> None:
    own = {} if group == registry.METRIC_GROUP else {"other": SOUND[group]}  # a metric bears the name it gives itself: psnr is asked for instead
    for distribution in ("first", "second"):
        install(monkeypatch, tmp_path, distribution, {group: {"twice": SOUND[group]} | (own if distribution == "second" else {})})
    assert {"twice", *own} <= set(registry.points(group))
    assert _ask(group, *own or ["psnr"]) is not None


def test_one_distribution_that_is_found_twice_counts_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an editable installation and a wheel of the same project are."""
    for place in ("wheel", "editable"):
        install(monkeypatch, tmp_path / place, "my-package", {registry.SEPARATOR_GROUP: {"mine": "baselines.average:Average"}})
    assert registry.separator_class("mine").__name__ == "Average"


def test_what_is_installed_is_seen_as_soon_as_it_is_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "mine" not in registry.separator_names()
    with monkeypatch.context() as patch:
        install(patch, tmp_path, "my-package", {registry.SEPARATOR_GROUP: {"mine": "baselines.average:Average"}})
        assert "mine" in registry.separator_names()
    assert "mine" not in registry.separator_names()


@pytest.mark.parametrize(
    ("group", "name"),
    [(registry.SEPARATOR_GROUP, "average"), (registry.SUITE_GROUP, "mnist-pairs"), (registry.METRIC_GROUP, "psnr"), (registry.DATASET_GROUP, "mnist")],
)
def test_a_built_in_name_cannot_be_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str, name: str) -> None:
    install(monkeypatch, tmp_path, "intruder", {group: {name: SOUND[group]}})
    with pytest.raises(NameClaimedError, match=rf"'{name}' is claimed by (?=.*\bsepbench \()(?=.*\bintruder \()"):
        _ask(group, name)


@pytest.mark.slow
def test_on_the_command_line_lists_mark_it_and_a_run_ends_with_code_2(tmp_path: Path) -> None:
    named = {registry.SEPARATOR_GROUP: {"twice": "baselines.average:Average"}, registry.METRIC_GROUP: {"psnr": "sepbench.metrics.psnr:PSNR"}}
    for distribution in ("first-package", "second-package"):
        package(tmp_path, distribution, named if distribution.startswith("first") else {registry.SEPARATOR_GROUP: named[registry.SEPARATOR_GROUP]})
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "300"}

    def sepbench(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sepbench.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    methods, metrics = sepbench("list", "methods"), sepbench("list", "metrics")
    assert (methods.returncode, metrics.returncode) == (0, 0), methods.stderr + metrics.stderr
    assert "method 'twice' is claimed by" in methods.stdout
    assert "metric 'psnr' is claimed by" in metrics.stdout
    assert "psnr_unclamped" in metrics.stdout
    refused = sepbench("run", "--suite", "digits-pairs", "--methods", "twice", "--limit", "5")
    assert refused.returncode == 2
    assert "first-package" in refused.stderr
    assert "second-package" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("how", ["load", "create"])
def test_ctrl_c_comes_through_while_a_method_is_loaded_or_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str) -> None:
    """As the signal that Ctrl-C is: it is the user's, and no fault of the method."""
    pressed = "import signal\n{}signal.raise_signal(signal.SIGINT)"
    body = pressed.format("") if how == "load" else pressed.format("class Mine:\n    def __init__(self):\n        ")
    (tmp_path / f"interrupted_{how}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    install(monkeypatch, tmp_path, "my-package", {registry.SEPARATOR_GROUP: {"mine": f"interrupted_{how}:Mine"}})
    with pytest.raises(KeyboardInterrupt):
        registry.create_separator("mine")
