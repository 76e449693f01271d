"""What a metric is: one object of one of five kinds. A kind is a protocol of one or two methods. A metric has the methods that it needs, and no others.

=========  ===================  ===============================================================  ============================
kind       method               looks at                                                         for example
=========  ===================  ===============================================================  ============================
pair       ``pairwise``         one estimate and one true source                                 ``psnr``, ``ssim``, ``si_sdr``
mixture    ``mixture_scores``   all of one mixture: its estimates, true sources and mixture      ``mixture_error``, ``sir``
pooled     ``parts``, ``pool``  a set of examples: one value of all, not a mean of values         ``psnr_pooled32``
posterior  ``posterior_score``  all posterior draws of one mixture, and its exact posterior      ``c2st``
set        ``extractor``,       all estimates together, by their features, against a reference    ``fid_cifarnet``
           ``pool``
=========  ===================  ===============================================================  ============================

All values are float64 on the CPU, unreduced: ``results/`` makes means and intervals. A value that belongs to one
example must depend only on that example, to the bit, in whatever batch it is scored. NaN stands for "not defined".

One line registers a metric, an entry point of the group ``sepbench.metrics`` (see ``sepbench.registry``). The end of
this file says what a metric may offer besides its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from sepbench.protocols import Domain, Support, TaskSpec

if TYPE_CHECKING:
    import torch

    from sepbench.metrics.sets.features import SetFeatures, SetReference, SetValue
    from sepbench.metrics.squared_error import Array, Integers
    from sepbench.protocols import Mixtures

Per = Literal["source", "mixture", "group", "posterior", "set"]


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a metric says of itself.

    Attributes:
        name: key, as in suites and leaderboards.
        unit: ``dB``, ``1`` for pure numbers.
        higher_is_better: direction of improvement.
        domains: signals it is defined for.
        per: what one value belongs to: a ``source`` of an example, a ``mixture`` (an example), a ``group`` of examples that are pooled, a
            ``posterior`` (all draws of an example) or the whole ``set`` of estimates.
        source: where the formula comes from.
        assigned_by: the metric of pairs whose best assignment puts the estimates in order on permutation tasks, its own name if it assigns
            itself. Empty if no order is needed.
    """

    name: str
    unit: str
    higher_is_better: bool
    domains: frozenset[Domain]
    per: Per
    source: str
    assigned_by: str = ""


@runtime_checkable
class PairMetric(Protocol):
    """One value per pair of an estimate and a true source. Only metrics of this kind can find assignments."""

    @property
    def info(self) -> MetricInfo: ...

    def pairwise(self, estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """``(B, K, ...)`` twice -> ``(B, K, K)``: entry [b, i, j] scores estimate i against reference j, and depends on nothing else.

        The one exception: a metric that is of the mixture kind too may look at the other sources here, as ``sdr`` does for silence.
        """


@runtime_checkable
class MixtureMetric(Protocol):
    """One value per mixture or source that needs more than a pair: the example's other sources, or its mixture."""

    @property
    def info(self) -> MetricInfo: ...

    def mixture_scores(self, estimates: torch.Tensor, references: torch.Tensor, mixtures: Mixtures) -> Mapping[str, torch.Tensor]:
        """Values by name of metric, its own and those of its class that fall off in the same call: they are then not computed again.

        Args:
            estimates, references: ``(B, K, ...)``; estimate k answers to reference k if ``info.assigned_by`` names a metric.
            mixtures: the mixtures of these examples.

        Returns:
            ``(B,)`` for metrics ``per='mixture'``, ``(B, K)`` for metrics ``per='source'``.
        """


PART = "/"
"""Between a pooled metric's name and that of a part, in the rows of scores."""


@runtime_checkable
class PooledMetric(Protocol):
    """One value per source over a whole set of examples that is no mean over examples: NES pools squared errors over batches of 32.

    Scores contain its parts, one number per example, source and part, as a run makes them shard by shard. The value is
    made from all parts of a cell when results are read. The examples' numbers alone decide which batches and windows
    are pooled. So the value does not depend on shards, on the order of work or on where a run was interrupted.
    """

    @property
    def info(self) -> MetricInfo: ...

    @property
    def spread(self) -> str:
        """How ``pool`` makes the values of single examples: ``jackknife`` or another short name; leaderboards print it beside the interval."""

    def parts(self, estimates: torch.Tensor, references: torch.Tensor, examples: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """What an example contributes, the same names for all examples of a task.

        Args:
            estimates, references: ``(B, K, ...)``; estimate k answers to reference k.
            examples: ``(B,)`` int64, the examples' numbers in the frozen list.

        Returns:
            ``(B, K)`` float64 by name of part; NaN in any part of an estimate that cannot be scored. Names without ``PART``.
        """

    def pool(self, parts: Mapping[str, Array], examples: Integers) -> Array:
        """The value of one source, as a value per example.

        Args:
            parts: ``(n,)`` by name; NaN where an example failed or does not count here.
            examples: ``(n,)`` int64, ascending, each once.

        Returns:
            ``(n,)`` values, of which the mean over the examples without NaN is the value of the set (up to rounding), and whose deviations from
            it are the influence of each example, so that the variance of their mean over clusters is that of the value (jackknife, influence
            function). NaN stays NaN; all NaN if the set has no value. Where nothing is known of the influence (a single window) all are equal: the
            value then has no interval, and ``compare`` gives no verdict.
        """


@dataclass(frozen=True, slots=True)
class PosteriorReference:
    """The exact posterior of a batch of mixtures, float64 on the CPU; sources are flattened, D numbers each.

    Attributes:
        mean: ``(B, K * D)``.
        covariance: ``(B, K * D, K * D)``; singular where the mixture is free of noise.
        draws: ``(B, M, K * D)`` exact independent draws, the same in every run.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    draws: torch.Tensor


@runtime_checkable
class PosteriorMetric(Protocol):
    """Compares a sampler's draws with the exact posterior; one value per example."""

    @property
    def info(self) -> MetricInfo: ...

    def posterior_score(self, draws: torch.Tensor, reference: PosteriorReference) -> torch.Tensor:
        """``(B, N, K * D)`` draws -> ``(B,)``; NaN where they are not all finite."""


@runtime_checkable
class SetMetric(Protocol):
    """One value of all estimates of a task together (FID, KID, inception score), all scored sources of all mixtures, from their features.

    Features are extracted shard by shard, once for all metrics of an extractor, and kept beside the scores. The value
    is made from them when results are read. ``sepbench.metrics.sets.catalogue`` has the metrics of this kind.
    """

    @property
    def info(self) -> MetricInfo: ...

    @property
    def extractor(self) -> str:
        """Name of the extractor, see ``sepbench.metrics.sets.extractors``."""
        ...

    @property
    def spread(self) -> str:
        """How ``pool`` makes the values of single images; leaderboards print it beside the interval."""

    def pool(self, features: SetFeatures, reference: SetReference) -> SetValue:
        """The value of the set, as a value per image whose mean it is, see ``SetValue``."""


Metric = PairMetric | MixtureMetric | PooledMetric | PosteriorMetric | SetMetric


# --- what a metric may offer besides its kind


@runtime_checkable
class ChoosesTasks(Protocol):
    """A metric that is not defined for every task of its domains."""

    def supports(self, task: TaskSpec) -> Support:
        """Whether the metric is defined for a task's signals; the reason in ``note`` if not, as a verb phrase ("has windows of ...")."""


@runtime_checkable
class NeedsTask(Protocol):
    """A metric that needs the task before it can compute (windows of one second need the sample rate); ``get_metric`` gives it."""

    def for_task(self, task: TaskSpec) -> Metric:
        """The same metric for one task that it supports."""


@runtime_checkable
class Combines(Protocol):
    """A pair metric with one value per mixture, made of those of its scored sources (``per='mixture'``)."""

    def combine(self, assigned: torch.Tensor) -> torch.Tensor:
        """``(B, S)`` pairwise values of the assigned sources -> ``(B,)``."""


@runtime_checkable
class FromSquaredError(Protocol):
    """A pair metric that is a function of the mean squared error alone: scoring computes the errors once for all of these."""

    @property
    def clamps(self) -> bool:
        """Whether the errors are those of estimates cut to [0, 1]."""

    def from_mse(self, mse: Array, image_size: tuple[int, int]) -> Array:
        """Mean squared errors to pairwise scores, elementwise; NaN stays NaN."""
