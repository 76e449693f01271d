"""The suites that ship: their facts, their digests, and that no method trains on what it is tested on."""

from __future__ import annotations

import hashlib
import math
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from suite_toys import NumberedSignals

from sepbench.data.lists.pairs import list_sha256, read_pairs
from sepbench.errors import DataError, SupervisionError, UnsupportedTaskError
from sepbench.metrics.psnr_pooled import PSNR_POOLED32
from sepbench.protocols import Supervision
from sepbench.registry import suite_names
from sepbench.resources import suites_root
from sepbench.suites.assembly import FrozenList
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite, Task

NAMES = sorted(path.stem for path in suites_root().glob("*.toml"))
TASKS = [(suite, task) for suite in NAMES for task in load_suite(suite).tasks]
WithData = Callable[[Task], Task]

SIZES = {  # mixtures of the test tasks: the papers' figures, docs/protocols.md sec. 1
    "bags-shoes-mini": {"x-bags": 200, "x-shoes": 200, "x-bags-half": 100, "x-shoes-half": 100},
    "celeba-lass": {"pairs": 10_000},
    "cifar10-color": {"colorization": 50_000},
    "cifar10-mini-color": {"colorization": 1017},
    "cifar10-mini-pairs": {"class-split": 1000, "class-agnostic": 1000},
    "cifar10-pairs": {"class-split": 25_000, "class-agnostic": 25_000},
    "digits-pairs": {"class-split": 1000, "class-agnostic": 1000},
    "drums-bass-synth": {"best-assignment": 450, "by-role": 450},
    "fsdd-esc10": {"speech": 147},
    "fsdd-noise": {"white": 125, "pink": 125, "brown": 125, "babble": 125},
    "fsdd-pairs": {"class-split": 500, "class-agnostic": 500},
    "gaussian-exact": {"d2": 100, "d8": 100, "d8-three": 100, "d64": 100},
    "gmm-exact": {"d2": 100, "d8": 100, "d64": 100},
    "mnist-lass": {"permuted": 10_000},
    "mnist-nes": {"x-0-4": 5000, "x-5-9": 5000},
    "mnist-pairs": {"class-split": 6000, "class-agnostic": 6000},
    "mnist-quads": {"quads": 1000},
    "musdb-drums": {"drums": 450},
    "musdb-vocals": {"vocals": 450},
    "slakh-drums-bass": {"best-assignment": 450, "by-role": 450},
    "speech-noise": {"speech": 1000},
    "stems-drums-bass": {"best-assignment": 57, "by-role": 57, "best-assignment-half": 29, "by-role-half": 29},
    "stems-vocals": {"vocals": 46, "vocals-half": 29},
    "stems-drums": {"drums": 87, "drums-half": 47},
}
# Whose signals are few or small; the check of all of them takes seconds for the others.
SMALL = {"digits-pairs", "gaussian-exact", "gmm-exact", "bags-shoes-mini", "stems-vocals", "mnist-quads"}
# Lists made by rules, of data that nobody here has; see test_derived_lists.
DERIVED = {"celeba-lass", "musdb-drums", "musdb-vocals", "slakh-drums-bass", "speech-noise"}


@pytest.fixture(scope="module")
def suites() -> dict[str, Suite]:
    """All suites, loaded once: the rows that may be trained on are worked out once per suite."""
    return {name: load_suite(name) for name in NAMES}


def test_every_suite_of_the_issue_is_there() -> None:
    assert set(NAMES) == set(SIZES)
    assert set(NAMES) <= set(suite_names())


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_has_the_papers_sizes(suites: dict[str, Suite], name: str) -> None:
    suite = suites[name]
    assert suite.name == name
    assert suite.version == 1
    assert {key: task.n_examples for key, task in suite.tasks.items() if task.split == "test"} == SIZES[name]


@pytest.mark.parametrize("name", NAMES)
def test_what_can_be_tuned_has_a_validation_task(suites: dict[str, Suite], name: str) -> None:
    validated = {task.validates for task in suites[name].tasks.values() if task.split == "validation"}
    too_small = name in ("bags-shoes-mini", "stems-drums-bass", "stems-vocals", "stems-drums")
    assert validated == (set() if too_small else set(SIZES[name]))


@pytest.mark.parametrize(("suite", "task"), TASKS)
def test_a_task_is_consistent(suites: dict[str, Suite], suite: str, task: str) -> None:
    found = suites[suite].tasks[task]
    spec = found.spec
    assert (spec.suite, spec.name) == (suite, task)
    assert "--" not in suite + task
    assert found.frozen == isinstance(found.data.pairs, FrozenList) == (suite not in DERIVED)
    if isinstance(found.data.pairs, FrozenList):
        pairs = read_pairs(found.data.pairs.path)
        assert pairs.indices.shape == (found.n_examples, spec.n_sources)
        assert found.pairs_sha256 == pairs.sha256
        assert (found.digest == "") == (found.mixtures_sha256 == "")
    assert spec.class_agnostic == (len(set(spec.source_classes)) == 1)
    assert (spec.observed_source is None) == (found.data.train_observed is None) or bool(found.data.untrainable)


def test_only_data_that_nobody_here_has_are_without_mixture_digest(suites: dict[str, Suite]) -> None:
    missing = {suite for suite, task in TASKS if not suites[suite].tasks[task].mixtures_sha256}
    assert missing == set(DERIVED)


def test_the_papers_rules_are_in_the_specs(suites: dict[str, Suite]) -> None:
    nes = suites["mnist-nes"].tasks["x-5-9"].spec
    assert (nes.source_classes, nes.source_shape, nes.operator, nes.assignment) == (("5-9", "0-4"), (1, 32, 32), "sum", "ordered")
    assert (nes.scored_sources, nes.observed_source) == ((0,), 1)
    split = suites["mnist-pairs"].tasks["class-split"].spec
    assert (split.source_classes, split.source_shape, split.operator, split.assignment) == (("0-4", "5-9"), (1, 28, 28), "sum", "permutation")
    assert suites["mnist-pairs"].tasks["class-agnostic"].spec.class_agnostic
    assert suites["mnist-lass"].tasks["permuted"].spec.operator == "mean"
    assert suites["mnist-quads"].tasks["quads"].spec.n_sources == 4
    color = suites["cifar10-color"].tasks["colorization"].spec
    assert (color.operator, color.n_sources, color.source_shape) == ("channel-mean", 1, (3, 32, 32))


def test_metrics_are_known(suites: dict[str, Suite]) -> None:
    catalogue = pytest.importorskip("sepbench.metrics.catalogue")
    for suite in suites.values():
        for metric in suite.metrics:
            assert suite.domain in catalogue.get_metric(metric).info.domains
        for task in suite.tasks.values():
            catalogue.check_metrics(suite.metrics, task.spec)


def test_exact_suites_score_draws_of_sources_with_a_known_distribution(suites: dict[str, Suite]) -> None:
    exact = {name for name, suite in suites.items() for task in suite.tasks.values() if task.spec.posterior_draws}
    assert exact == {"gaussian-exact", "gmm-exact"}
    for name, suite in suites.items():
        for task in suite.tasks.values():
            assert task.spec.analytic_prior == (name in exact)
            assert task.spec.posterior_draws == (256 if name in exact else 0)
            if name not in exact:
                with pytest.raises(SupervisionError, match="has no analytic prior"):
                    task.view("bound").prior(0)
    spec = suites["gaussian-exact"].tasks["d8-three"].spec
    assert (spec.domain, spec.n_sources, spec.source_shape, spec.assignment) == ("vector", 3, (8,), "ordered")


@pytest.mark.parametrize(("task", "most_modes"), [("d2", 2), ("d8", 2), ("d64", 2)])
def test_posteriors_of_gaussian_mixtures_have_two_modes(suites: dict[str, Suite], task: str, most_modes: int) -> None:
    """Most mixtures are explained by two combinations of components, none of which is all but certain."""
    found = suites["gmm-exact"].tasks[task]
    shares = found.exact_posterior().responsibilities(found.mixture_set().mixtures(range(100)).values)
    assert float((shares.amax(1) < 0.9).double().mean()) > 0.5
    assert float((shares > 0.05).sum(1).double().median()) == most_modes


def test_without_a_known_distribution_there_is_no_exact_posterior(suites: dict[str, Suite]) -> None:
    with pytest.raises(UnsupportedTaskError, match="digits-pairs/class-split has no posterior in closed form"):
        suites["digits-pairs"].tasks["class-split"].exact_posterior()


# --- with data -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "task"), [pytest.param(*one, marks=[pytest.mark.slow] * (one[0] == "drums-bass-synth")) for one in TASKS])
def test_the_mixtures_are_those_that_were_frozen(suites: dict[str, Suite], with_data: WithData, suite: str, task: str) -> None:
    found = with_data(suites[suite].tasks[task])
    assert found.verify() == found.mixtures_sha256
    assert found.mixture_set().source_shape == found.spec.source_shape


def contents(values: torch.Tensor) -> list[bytes]:
    """Digest of each signal (an own way of hashing, apart from the package's)."""
    return [hashlib.md5(row.tobytes()).digest() for row in values.flatten(1).numpy()]


def mixed_contents(task: Task) -> set[bytes]:
    mixtures = task.mixture_set()
    return set(contents(mixtures.sources(range(len(mixtures))).flatten(0, 1)))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in SMALL)) for name in NAMES])
def test_no_training_signal_is_a_test_or_validation_signal(suites: dict[str, Suite], with_data: WithData, name: str) -> None:
    tasks = [with_data(task) for task in suites[name].tasks.values() if not task.data.untrainable]
    scored = set().union(*(mixed_contents(task) for task in tasks))
    for task in (task for task in tasks if task.split == "test"):
        clean = contents(task.view("prior").clean())
        assert not scored.intersection(clean)
        material = task.data.training()
        allowed = set(clean)
        for slot in range(task.spec.n_sources if not task.spec.class_agnostic else 1):
            assert allowed.issuperset(contents(task.view("sources").sources(slot)))
        if material.mixtures is not None:
            observed = set(contents(task.view("mixtures+one").observed()))
            hidden = set(contents(material.mixtures.sources(material.mixture_rows).flatten(0, 1)))
            assert observed <= allowed
            assert hidden <= allowed
            assert not observed & hidden


@pytest.mark.parametrize(
    ("name", "clean", "excluded"),
    [
        ("digits-pairs", 800, 0),
        ("mnist-pairs", 55_000, 0),
        ("mnist-nes", 55_000, 0),
        ("cifar10-mini-pairs", 4585, 0),
        ("bags-shoes-mini", 200, 0),
        ("fsdd-pairs", 2400, 0),
        ("fsdd-noise", 2625, 0),
        ("fsdd-esc10", 2733, 3),  # excluded: digital silence, which test clips have too, in all three
        ("stems-drums-bass", 84, 6),
        ("stems-vocals", 77, 30),
        ("stems-drums", 100, 6),
        # excluded: digital silence, which test songs have too; 22 more chunks are labelled silent
        pytest.param("drums-bass-synth", 1135, 43, marks=pytest.mark.slow),
    ],
)
def test_how_many_signals_a_method_may_learn_from(suites: dict[str, Suite], with_data: WithData, name: str, clean: int, excluded: int) -> None:
    task = with_data(next(task for task in suites[name].tasks.values() if not task.data.untrainable))
    material = task.data.training()
    assert (len(material.clean), material.excluded) == (clean, excluded)
    assert material.mixtures is not None
    assert len(material.mixture_rows) == len(material.mixtures)


def test_bags_and_shoes_take_only_methods_that_learn_nothing(suites: dict[str, Suite]) -> None:
    tasks = suites["bags-shoes-mini"].tasks
    levels: tuple[Supervision, ...] = ("mixtures+one", "sources", "prior")
    for level in levels:
        assert not tasks["x-bags"].support(level).ok
        assert tasks["x-bags-half"].support(level).ok
        with pytest.raises(UnsupportedTaskError, match="use task x-shoes-half"):
            tasks["x-shoes"].view(level)


@pytest.mark.parametrize(("suite", "tasks"), [("fsdd-pairs", ["class-split", "class-agnostic-val"]), ("fsdd-noise", ["white", "babble", "brown-val"])])
def test_both_sources_of_a_speech_mixture_are_equally_loud(suites: dict[str, Suite], with_data: WithData, suite: str, tasks: list[str]) -> None:
    for name in tasks:
        task = with_data(suites[suite].tasks[name])
        assert (task.spec.operator, task.spec.sample_rate, task.spec.source_shape) == ("gain", 8000, (1, 16_384))
        mixtures = task.mixture_set()
        ids = range(len(mixtures))
        gains = mixtures.operator_for(ids).matrix()[:, 0]
        sources = mixtures.sources(ids).double()
        levels = gains * sources.square().mean((2, 3)).sqrt()
        assert (gains[:, 0] == 1).all()
        torch.testing.assert_close(levels[:, 1], levels[:, 0], rtol=1e-5, atol=0)  # 0 dB
        # A method that cannot know the order is not scored by the gain of the other source.
        torch.testing.assert_close(gains[:, 1], torch.ones(len(gains), dtype=torch.float64), rtol=1e-3, atol=0)
        made = mixtures.mixtures(ids).values.double()
        torch.testing.assert_close(made, (gains[:, :, None, None] * sources).sum(1), rtol=0, atol=1e-7)


def test_speech_and_real_noise_have_the_same_energy_in_the_mixture(suites: dict[str, Suite], with_data: WithData) -> None:
    for name in ("speech", "speech-val"):
        mixtures = with_data(suites["fsdd-esc10"].tasks[name]).mixture_set()
        gains, sources = mixtures.operator_for(range(len(mixtures))).matrix()[:, 0], mixtures.sources(range(len(mixtures))).double()
        levels = gains * sources.square().mean((2, 3)).sqrt()
        assert (gains[:, 0] == 1).all()
        torch.testing.assert_close(levels[:, 1], levels[:, 0], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("suite", "task", "unit", "clusters"),
    [
        ("stems-drums-bass", "best-assignment", "song", [5, 24, 19, 9]),
        ("stems-drums-bass", "by-role-half", "song", [5, 24]),
        ("stems-vocals", "vocals", "song", [22, 7, 17]),
        ("stems-drums", "drums", "song", [23, 24, 19, 21]),
    ],
)
def test_chunks_of_one_song_are_one_cluster(suites: dict[str, Suite], suite: str, task: str, unit: str, clusters: list[int]) -> None:
    found = suites[suite].tasks[task].clusters()
    assert found.unit == unit
    assert (found.keys[:, 0] == found.keys[:, 1]).all()
    assert [int((found.keys[:, 0] == key).sum()) for key in sorted(set(found.keys[:, 0]))] == clusters


def test_the_songs_mixtures_hold_what_their_stems_do(suites: dict[str, Suite], with_data: WithData) -> None:
    mixtures = with_data(suites["stems-drums-bass"].tasks["best-assignment"]).mixture_set()
    assert torch.equal(mixtures.mixtures([3]).values[0], mixtures.sources([3])[0].mean(0))
    voices = with_data(suites["stems-vocals"].tasks["vocals"]).mixture_set()
    torch.testing.assert_close(voices.mixtures([3]).values[0], voices.sources([3])[0].sum(0), rtol=0, atol=1e-7)
    drums = with_data(suites["stems-drums"].tasks["drums"]).mixture_set()  # the sum of all four stems, whichever of them is X
    same = int(torch.nonzero(drums.pairs.indices[:, 0] == voices.pairs.indices[3, 0]))
    torch.testing.assert_close(drums.mixtures([same]).values[0], voices.mixtures([3]).values[0], rtol=0, atol=1e-7)


def test_speech_suites_order_what_is_known(suites: dict[str, Suite]) -> None:
    assert {task.spec.assignment for task in suites["fsdd-pairs"].tasks.values()} == {"permutation"}
    for name, task in suites["fsdd-noise"].tasks.items():
        assert (task.spec.assignment, task.spec.source_classes) == ("ordered", ("speech", name.removesuffix("-val")))
        assert (task.spec.scored_sources, task.spec.observed_source) == ((0, 1), 1)


def mean_psnr(task: Task, estimate: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Mean over mixtures and scored sources of 10 log10(1 / MSE); no clamping, no assignment."""
    mixtures = task.mixture_set()
    ids = range(len(mixtures))
    sources = mixtures.sources(ids)[:, list(task.spec.scored_sources)].double()
    error = (estimate(mixtures.mixtures(ids).values.double()).unsqueeze(1) - sources).square().flatten(2).mean(-1)
    return float((-10 * error.log10()).mean())


@pytest.mark.parametrize(
    ("suite", "task", "expected", "tolerance"), [("mnist-pairs", "class-split", 14.79, 0.03), ("mnist-pairs", "class-agnostic", 14.89, 0.04)]
)
def test_half_the_mixture_scores_what_basis_printed(
    suites: dict[str, Suite], with_data: WithData, suite: str, task: str, expected: float, tolerance: float
) -> None:
    assert mean_psnr(with_data(suites[suite].tasks[task]), lambda m: m / 2) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("task", "expected"), [("x-0-4", 10.80), ("x-5-9", 10.98)])
def test_the_mixture_itself_scores_what_nes_printed(suites: dict[str, Suite], with_data: WithData, task: str, expected: float) -> None:
    """docs/protocols.md 1.4: per-image means 10.80 and 10.98 (pooled over batches 10.6, as printed)."""
    assert mean_psnr(with_data(suites["mnist-nes"].tasks[task]), lambda m: m) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("suite", "task", "expected"),
    [("mnist-nes", "x-0-4", 10.58), ("mnist-nes", "x-5-9", 10.61), ("bags-shoes-mini", "x-bags", 7.52), ("bags-shoes-mini", "x-shoes", 6.84)],
)
def test_the_mixture_itself_scores_what_protocols_measured_of_nes_pooled(
    suites: dict[str, Suite], with_data: WithData, suite: str, task: str, expected: float
) -> None:
    """docs/protocols.md 1.4 and flag 9, counted by other code: 156 and 6 full batches of 32."""
    mixtures = with_data(suites[suite].tasks[task]).mixture_set()
    ids = range(len(mixtures))
    parts = PSNR_POOLED32.parts(mixtures.mixtures(ids).values.unsqueeze(1), mixtures.sources(ids)[:, :1], torch.arange(len(mixtures)))
    values = PSNR_POOLED32.pool({name: part.numpy()[:, 0] for name, part in parts.items()}, np.arange(len(mixtures)))
    assert float(values.mean()) == pytest.approx(expected, abs=0.015)


# --- CIFAR-10 in full, whose labels are not here: ranks within a class ---------------------------------------------------------------


def official_counts(name: str, split: str) -> NumberedSignals:
    """Labels in random order with CIFAR-10's class sizes."""
    if name != "cifar10":
        raise DataError(name)
    per_class = {"train": 5000, "test": 1000}[split]
    order = torch.randperm(10 * per_class, generator=torch.Generator().manual_seed(per_class))
    return NumberedSignals(name, split, torch.arange(10).repeat(per_class)[order], (3, 32, 32))


def test_cifar10_ranks_fit_the_official_class_sizes() -> None:
    suite = load_suite("cifar10-pairs", official_counts)  # type: ignore[arg-type]
    task, val = suite.tasks["class-split"], suite.tasks["class-split-val"]
    labels = official_counts("cifar10", "test").labels
    animal = torch.isin(labels, torch.tensor([2, 3, 4, 5, 6, 7]))
    assert isinstance(task.data.pairs, FrozenList)
    ranks = read_pairs(task.data.pairs.path).indices
    rows = task.mixture_set().pairs.indices
    assert animal[rows[:, 0]].all()
    assert not animal[rows[:, 1]].any()
    for example in (0, 12_345, 24_999):
        assert int(animal[: rows[example, 0]].sum()) == ranks[example, 0]
        assert int((~animal[: rows[example, 1]]).sum()) == ranks[example, 1]
    assert int(val.mixture_set().pairs.indices.min()) >= 45_000
    for frozen, classes in ((task.data.train_mixtures, task.data.slots), (task.data.train_observed, task.data.slots[1:])):
        assert frozen is not None
        _, located = task.data._locate(frozen, classes, "training")
        assert int(located.indices.max()) < 45_000
    agnostic = suite.tasks["class-agnostic"]
    assert isinstance(agnostic.data.pairs, FrozenList)
    assert agnostic.mixture_set().pairs.indices.equal(read_pairs(agnostic.data.pairs.path).indices)


def test_the_script_checks_without_writing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = Path(__file__).parents[2] / "scripts" / "build_pairs.py"
    main = runpy.run_path(str(script))["main"]
    monkeypatch.setattr("sys.argv", ["build_pairs.py", "--check", "digits-pairs.class-split", "bags-shoes-mini.half"])
    assert main() == 0
    assert capsys.readouterr().out.split()[:2] == ["same", "digits-pairs.class-split"]


def test_the_digest_file_names_every_list_that_a_suite_uses(suites: dict[str, Suite]) -> None:
    used = set()
    for suite in suites.values():
        for task in suite.tasks.values():
            for frozen in (task.data.pairs, task.data.train_mixtures, task.data.train_observed):
                if isinstance(frozen, FrozenList):
                    used.add(frozen.path.name)
                    assert frozen.sha256 == list_sha256(frozen.path)
    first = next(iter(suites["mnist-pairs"].tasks.values()))
    assert isinstance(first.data.pairs, FrozenList)
    assert used == {path.name for path in first.data.pairs.path.parent.glob("*.csv")}
    assert math.prod(first.spec.source_shape) == 784
