"""From what a user names to estimates that can be scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sepbench.data.estimates import arrays
from sepbench.data.estimates.files import FileEstimates
from sepbench.data.estimates.names import list_folder, read_index
from sepbench.data.estimates.problems import EstimatesError, Problems
from sepbench.data.estimates.signals import SUFFIXES
from sepbench.data.estimates.supplied import Supplied
from sepbench.protocols import TaskSpec
from sepbench.torch_later import torch

Estimates: TypeAlias = "Path | str | npt.NDArray[Any] | torch.Tensor"
"""What may be supplied: the path of a file or a folder, or an array ``(M, K, ...)``."""


def open_estimates(estimates: Estimates, spec: TaskSpec, n_examples: int, problems: Problems) -> Supplied:
    """Estimates of a task; of files nothing but names and headers is read.

    Args:
        estimates: what was supplied.
        spec: the task.
        n_examples: its mixtures.
        problems: told of what is wrong with names.

    Raises:
        EstimatesError: nothing there, of no kind that is known, or an array of another shape.
        DataError: it cannot be opened.
    """
    if isinstance(estimates, np.ndarray | torch.Tensor):
        return arrays.of_array(estimates, spec, n_examples)
    path = Path(estimates)
    if not path.exists():
        raise EstimatesError(f"there is no {path}; name the file or the folder that holds the estimates")
    suffix = path.suffix.lower()
    if path.is_file() and suffix in arrays.SUFFIXES:
        return arrays.of_file(path, spec, n_examples)
    if path.is_file() and suffix != ".parquet":
        raise EstimatesError(f"{path} is no {', '.join(arrays.SUFFIXES)} or .parquet file; give one of these, or a folder of images or sounds")
    if spec.posterior_draws:
        raise EstimatesError(f"{path}: task {spec.name} scores {spec.posterior_draws} draws per mixture; give one array (M, N, K, ...) as {arrays.SUFFIXES[0]}")
    if path.is_file():
        return FileEstimates(read_index(path, spec, n_examples, problems), path.parent, spec)
    table = list_folder(path, spec, n_examples, problems)
    if not table and not problems:
        kinds = " or ".join(f"000012_1{suffix}" for suffix in SUFFIXES[spec.domain])
        raise EstimatesError(f"{path} is empty; it must hold one file per mixture and source, {kinds}")
    return FileEstimates(table, path, spec)
