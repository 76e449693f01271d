"""Sparse dictionaries of an observed source and of the other one; for ``nmf-semi`` on images and on audio.

These are the two stages of Halperin, Ephrat and Hoshen, "Neural separation of observed and unobserved distributions"
(2018), appendix B. The L1 penalty on the codes is ours. ``baselines/nmf_semi_printed.py`` has the printed penalty.
"""

from __future__ import annotations

import torch

from baselines.decomposition.nonnegative import sample_atoms, sparse_factorise
from sepbench.protocols import RunContext, Support, TaskSpec


def semi_supervised_support(task: TaskSpec) -> Support:
    """Whether a task has one observed source and one other."""
    if task.observed_source is None:
        return Support(False, "semi-supervised NMF learns from clean samples of one source; this task has no observed source")
    if task.n_sources != 2:
        return Support(False, f"semi-supervised NMF separates one observed source from one other, the task has {task.n_sources}")
    return Support(True)


def learn_observed_and_other(
    clean: torch.Tensor, mixed: torch.Tensor, count: int, rounds: int, sparsity: float, ctx: RunContext
) -> tuple[torch.Tensor, torch.Tensor]:
    """Learn atoms ``(R, D)`` of the observed source from clean signals, and then atoms of the other.

    The second stage learns from mixtures. In it the atoms of the observed source are fixed.

    Args:
        clean: ``(N, D)`` signals of the observed source, not negative.
        mixed: ``(M, D)`` mixtures, not negative.
        count: l, atoms per source; at most one per signal.
        rounds: of each stage.
        sparsity: alpha, L1 weight on the codes.
        ctx: its noise chooses the start, and its progress is called.

    Returns:
        The atoms of the observed source and of the other, at most ``count`` each.
    """
    noise = ctx.noise.fork(1)
    start = sample_atoms(clean, min(count, len(clean)), noise, 0)
    observed = sparse_factorise(clean, start, rounds, sparsity=sparsity, progress=lambda done: ctx.progress(done / 3, "stage 1: the observed source")).atoms
    start = torch.cat([observed, sample_atoms(mixed, min(count, len(mixed)), noise, 1)])
    both = sparse_factorise(
        mixed,
        start,
        rounds,
        sparsity=sparsity,
        fixed=len(observed),
        progress=lambda done: ctx.progress((1 + 2 * done) / 3, "stage 2: the other source"),
    )
    return observed, both.atoms[len(observed) :]
