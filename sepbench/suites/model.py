"""What a loaded suite is: tasks, their digests, and the papers' rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sepbench.data.lists.clusters import Clusters
from sepbench.data.mixtures import MixtureSet, Transform
from sepbench.data.views import PooledView, make_view
from sepbench.errors import ArgumentError, SuiteError, UnsupportedTaskError, nearest
from sepbench.gmm import ExactPosterior
from sepbench.protocols import Domain, SignalSet, Supervision, Support, TaskSpec
from sepbench.suites import NOT_FROZEN
from sepbench.suites.assembly import TaskData
from sepbench.suites.published import PublishedRow

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    ExampleIds = Sequence[int] | torch.Tensor | npt.NDArray[np.integer]

TaskSplit = Literal["test", "validation"]

_UNTRAINED: tuple[Supervision, ...] = ("blind", "bound")


@dataclass(frozen=True, slots=True)
class Task:
    """One frozen list of mixtures to separate.

    Attributes:
        spec: what a separator knows of the task.
        split: ``test``, or ``validation`` for lists made from training signals that no training view hands out.
        validates: for a validation task, the test task that it stands for; else empty.
        n_examples: mixtures in the list.
        mixtures_sha256: digest of all mixtures, see ``MixtureSet.digest``; empty if it is not frozen yet.
        data: where the signals come from.
    """

    spec: TaskSpec
    split: TaskSplit
    validates: str
    n_examples: int
    mixtures_sha256: str
    data: TaskData = field(repr=False, compare=False)

    @property
    def frozen(self) -> bool:
        """False while a rule makes the pair list from the data on this machine, and nobody has frozen its digest."""
        return bool(self.data.pairs.sha256)

    @property
    def pairs_sha256(self) -> str:
        """Digest of the pair list's file. If the list is not frozen, it is the digest of the list that the rule makes, and this opens the data.

        Raises:
            DataError: not frozen, and the data set is missing or corrupt.
        """
        return self.data.pairs.sha256 or self.data.pair_list().sha256

    @property
    def digest(self) -> str:
        """SHA-256 over both digests' hex text; empty where the mixtures' digest is not frozen; ``NOT_FROZEN`` and the list's where that is not either."""
        if not self.frozen:
            return NOT_FROZEN + self.pairs_sha256
        if not self.mixtures_sha256:
            return ""
        return hashlib.sha256((self.pairs_sha256 + self.mixtures_sha256).encode("ascii")).hexdigest()

    def mixture_set(self) -> MixtureSet:
        """The mixtures and their true sources.

        Raises:
            DataError: the data set is missing or corrupt.
            SuiteError: the pair list is not the frozen one, or does not fit the data.
        """
        return self.data.mixture_set()

    def mixtures(self, ids: ExampleIds | None = None) -> torch.Tensor:
        """Mixtures ``(B, ...)`` float32 on the CPU, of these examples (numbers of the frozen list, from 0) or of all.

        Every call opens the data anew, so ask for many examples at once. ``mixture_set`` keeps them open, and knows the
        operator.

        Raises:
            ArgumentError: ids that are no such numbers.
            DataError, SuiteError: see ``mixture_set``.
        """
        wanted = self.example_ids(ids)
        return self.mixture_set().mixtures(wanted).values

    def references(self, ids: ExampleIds | None = None) -> torch.Tensor:
        """True sources ``(B, K, ...)`` of these examples, or of all; otherwise as ``mixtures``."""
        wanted = self.example_ids(ids)
        return self.mixture_set().sources(wanted)

    def example_ids(self, ids: ExampleIds | None = None) -> torch.Tensor:
        """Numbers of examples as ``(B,)`` int64; of all examples if None.

        Raises:
            ArgumentError: they are not whole numbers in [0, n_examples), or not in one row.
        """
        return example_numbers(ids, self.n_examples, f"task {self.spec.name!r}")

    def clusters(self) -> Clusters:
        """Which mixtures share a song, an image or a recording, and so are not independent; one row of keys per mixture.

        Raises:
            DataError: the list is made by a rule from data that are not here.
            SuiteError: see ``TaskData.clusters``.
        """
        return self.data.clusters()

    def reference(self) -> list[tuple[SignalSet, torch.Tensor, Transform]]:
        """What all estimates together are compared with: data sets, rows ``(n,)`` of their training split, and what is done to each signal.

        Raises:
            UnsupportedTaskError: the task has no training split.
            DataError: the data set is missing or corrupt.
        """
        return self.data.reference(self.spec.scored_sources)

    def support(self, supervision: Supervision) -> Support:
        """Whether this task has training data for a level, and if not, why. Opens no data."""
        if supervision in _UNTRAINED:
            return Support(True)
        if self.data.untrainable:
            return Support(False, self.data.untrainable)
        if supervision == "mixtures+one" and self.spec.observed_source is None:
            return Support(False, "this task has no observed class")
        return Support(True)

    def view(self, supervision: Supervision) -> PooledView:
        """Training data at one level. They never contain a signal of the test split, nor one with the content of a test or validation signal.

        Raises:
            UnsupportedTaskError: the level needs training data and this task has none.
            SupervisionError: no such level.
        """
        if supervision not in _UNTRAINED and self.data.untrainable:
            raise UnsupportedTaskError(f"{self.spec.suite}/{self.spec.name}: {self.data.untrainable}")
        return make_view(supervision, self.spec, self.data.training, self.data.priors())

    def exact_posterior(self) -> ExactPosterior:
        """``p(sources | mixture)`` in closed form.

        Raises:
            UnsupportedTaskError: the sources' distribution is not known, or the mixing differs between examples.
        """
        priors, weights = self.data.priors(), self.data.mixture_set().operator_for([0]).matrix()
        if not priors or weights.shape != (1, len(priors)):
            where = f"{self.spec.suite}/{self.spec.name}"
            raise UnsupportedTaskError(f"{where} has no posterior in closed form: it needs generated sources and one weighted sum for all mixtures")
        return ExactPosterior(priors, weights[0])

    def verify(self) -> str:
        """Mix everything again and compare with the frozen digest; returns the digest.

        Raises:
            SuiteError: the mixtures are not those that were frozen.
        """
        found = self.mixture_set().digest()
        if self.mixtures_sha256 and found != self.mixtures_sha256:
            where = f"{self.spec.suite}/{self.spec.name}"
            raise SuiteError(f"the mixtures of {where} have digest {found}, frozen is {self.mixtures_sha256}; the data are not those of this suite version")
        return found


def example_numbers(ids: ExampleIds | None, count: int, where: str) -> torch.Tensor:
    """Numbers of examples as ``(B,)`` int64; all if None.

    Raises:
        ArgumentError: they are not whole numbers in [0, count), or not in one row.
    """
    import torch

    if ids is None:
        return torch.arange(count)
    known = f" to {count - 1} ({where} has {count:,} mixtures)" if count < 1 << 62 else ""
    wrong = f"ids must be a row of whole numbers from 0{known}"
    try:
        numbers = torch.as_tensor(list(ids) if isinstance(ids, range) else ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"{wrong}, got {type(ids).__name__}") from error
    if numbers.ndim != 1:
        raise ArgumentError(f"{wrong}, got {ids!r}; write a single one as [{ids!r}]" if numbers.ndim == 0 else f"{wrong}, got shape {tuple(numbers.shape)}")
    if numbers.numel() and (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool):
        raise ArgumentError(f"{wrong}, got {str(numbers.dtype).removeprefix('torch.')} values")
    bad = numbers[(numbers < 0) | (numbers >= count)]
    if len(bad):
        raise ArgumentError(f"{wrong}, got {int(bad[0])}")
    return numbers.to("cpu", torch.int64)


@dataclass(frozen=True, slots=True)
class Suite:
    """Tasks that belong together.

    Attributes:
        name, version: results of different versions are never compared.
        title, description: for people.
        domain: image, audio or vector.
        metrics: the metrics to compute, in the order of the tables.
        ranking_metric: the one that ranks.
        methods: the methods that run by default.
        tasks: by name, test tasks and validation tasks in the file's order.
        published: the papers' numbers.
    """

    name: str
    version: int
    title: str
    description: str
    domain: Domain
    metrics: tuple[str, ...]
    ranking_metric: str
    methods: tuple[str, ...]
    tasks: dict[str, Task]
    published: list[PublishedRow]

    def task(self, name: str) -> Task:
        """A task by name.

        Raises:
            UnknownNameError: no such task; the message offers the nearest names.
        """
        if name not in self.tasks:
            raise nearest(str(name), list(self.tasks), f"task of suite {self.name}")
        return self.tasks[name]
