"""``sepbench.evaluate``: score estimates that exist already, made by any program."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sepbench.api.arguments import flag, one_name, path_of, public, suite_name, whole
from sepbench.api.opened import Run
from sepbench.api.telling import tell
from sepbench.data.datasets import manifests_of
from sepbench.data.files.fetch import fetch
from sepbench.data.files.manifests import load_manifest
from sepbench.errors import flat
from sepbench.results.evaluation import evaluate_estimates
from sepbench.suites.loader import load_suite

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


@public
def evaluate(
    suite: str | os.PathLike[str],
    *,
    task: str,
    estimates: str | os.PathLike[str] | torch.Tensor | npt.NDArray[np.floating],
    name: str,
    out: str | os.PathLike[str] | None = None,
    supervision: str = "",
    limit: int | None = None,
    partial: bool = False,
    allow_clipped: bool = False,
    keep_estimates: bool = True,
    device: str = "cpu",
) -> Run:
    """Score estimates without a method and open the run; what it writes is what ``sepbench evaluate`` writes.

    Everything is read and checked before anything is written. With the same ``out`` another name or another task is added. Prints nothing; what is odd
    is a ``RunWarning``.

    Args:
        suite: its name, or the path of its TOML file.
        task: one of its tasks.
        estimates: an array ``(M, K, ...)`` float of the first M mixtures, images in [0, 1], sounds as stored; or the path of a ``.npy``, ``.npz`` or
            ``.safetensors`` file, of a folder of images or sounds, or of a Parquet index. See docs/evaluate.md.
        name: what the row is called; not that of a registered method.
        out: the run's folder. Default: ``runs/SUITE-HASH``, the same for the same estimates under the same name.
        supervision: what the method learnt from, if that is known: ``blind``, ``mixtures+one``, ``sources``, ``prior`` or ``bound``.
        limit: only the first so many mixtures.
        partial: mixtures may be missing; the row is marked, and never ranked.
        allow_clipped: take sounds that stay at full scale as they are.
        keep_estimates: keep a copy in the run's folder; ``Run.estimates`` needs it.
        device: where features for FID, KID and inception score are extracted.

    Raises:
        SepbenchError: an argument that cannot be used, estimates that do not fit, or a folder that holds something else; one line that says what to do.
    """
    loaded = load_suite(suite_name(suite))
    chosen = loaded.task(one_name("task", task, "a task's name"))
    for manifest in manifests_of(chosen.spec.datasets):
        fetch(load_manifest(manifest))
    given = path_of("estimates", estimates) if isinstance(estimates, (str, os.PathLike)) else estimates
    what = repr(str(given)) if isinstance(estimates, (str, os.PathLike)) else f"an array of shape {tuple(getattr(given, 'shape', ()))}"
    store = evaluate_estimates(
        suite_name(suite),
        task,
        given,
        one_name("name", name, "the row's name"),
        None if out is None else path_of("out", out),
        supervision=supervision,
        limit=None if limit is None else whole("limit", limit, 1),
        partial=flag("partial", partial),
        allow_clipped=flag("allow_clipped", allow_clipped),
        keep_estimates=flag("keep_estimates", keep_estimates),
        device=device,
        command=flat(f"sepbench.evaluate({loaded.name!r}, task={task!r}, estimates={what}, name={name!r})"),
        warn=tell,
    )
    return Run(store.path)
