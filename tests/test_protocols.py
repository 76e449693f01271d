"""The contracts' own words: what stands where a method says nothing, and what a context without references answers."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from sepbench.errors import SupervisionError
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import SUPERVISION_LEVELS, Assignment, Budget, Domain, MethodInfo, Mixtures, RunContext, Supervision, Support, TaskSpec

TASK = TaskSpec("s", "t", "image", 2, (1, 8, 8), "sum", ("digit", "digit"), "permutation", (0, 1))


def test_what_a_method_and_a_task_need_not_say() -> None:
    info = MethodInfo("toy", "Toy", "1", frozenset({"image"}), "blind", "none", deterministic=True)
    assert (info.bound, info.max_batch, info.max_batch_cpu) == ("", 500, None)
    assert (TASK.observed_source, TASK.sample_rate, TASK.datasets, TASK.analytic_prior, TASK.posterior_draws) == (None, None, (), False, 0)
    assert (Support(True).note, Support(False).note) == ("", "")


@pytest.mark.parametrize(("classes", "agnostic"), [(("a", "a"), True), (("a", "b"), False), (("a", "a", "b"), False), (("a",), True)])
def test_a_task_whose_slots_draw_from_one_class_knows_no_classes(classes: tuple[str, ...], agnostic: bool) -> None:
    assert replace(TASK, source_classes=classes).class_agnostic is agnostic


def test_a_context_hands_out_no_references_and_needs_nothing_else() -> None:
    context = RunContext(TASK, "cpu", NoiseSource(0), 0)
    assert (context.budget, context.cache) == ("paper", None)
    context.progress(0.5, "half")
    with pytest.raises(SupervisionError) as refused:
        context.references(torch.tensor([0]))
    assert str(refused.value) == "references are handed to methods of supervision 'bound' only; declare it in MethodInfo to get them"


def test_a_batch_has_as_many_mixtures_as_ids_and_as_many_sources_as_its_operator() -> None:
    mixtures = Mixtures(torch.zeros(5, 1, 8, 8), torch.arange(5), make_operator("sum", 3))
    assert (len(mixtures), mixtures.n_sources) == (5, 3)


def test_the_words_that_declarations_may_use() -> None:
    """They stand in the files of runs and in third parties' code: a word that is taken away breaks those."""
    assert (get_args(Domain), get_args(Assignment), get_args(Budget)) == (("image", "audio", "vector"), ("permutation", "ordered"), ("quick", "paper"))
    assert get_args(Supervision) == ("blind", "mixtures+one", "sources", "prior", "bound") == tuple(SUPERVISION_LEVELS)
