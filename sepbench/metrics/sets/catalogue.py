"""The metrics of sets: a statistic joined to an extractor, under a name that says both.

================  =============================================================================  ============================
name begins       statistic                                                                      what is published beside it
================  =============================================================================  ============================
``fid_``          Frechet distance                                                               nothing
``fid_inf_``      its limit for infinitely many images                                           nothing
``kid_``          kernel distance, blocks of 1,000                                               std over blocks
``is_``           inception score, higher is better                                              std over 10 splits
================  =============================================================================  ============================

Each compares all scored estimates of a task, all sources of all mixtures together, with the training images of the
task's classes. FID depends on the number of images, and the inception score does so less. So rows of different numbers
are never ranked together. See docs/set_metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sepbench.metrics.kinds import MetricInfo
from sepbench.metrics.sets.extractors import get_extractor
from sepbench.metrics.sets.features import SetFeatures, SetReference, SetValue
from sepbench.metrics.sets.frechet import frechet_limit_values, frechet_values
from sepbench.metrics.sets.inception_score import inception_values
from sepbench.metrics.sets.kernel import kernel_values
from sepbench.protocols import Support, TaskSpec

Statistic = Callable[[SetFeatures, SetReference], SetValue]


@dataclass(frozen=True, slots=True)
class StatisticOfFeatures:
    """A ``SetMetric``: see the top of this file.

    Attributes:
        extractor: name of the extractor.
        statistic: from features to the value.
        needs_classes: whether the extractor must give logits.
    """

    info: MetricInfo
    extractor: str
    statistic: Statistic
    needs_classes: bool = False

    @property
    def spread(self) -> str:
        return "influence function"

    def supports(self, task: TaskSpec) -> Support:
        """The extractor must take images of the task's shape."""
        extractor = get_extractor(self.extractor).info
        if self.needs_classes and not extractor.classes:
            return Support(False, f"needs class probabilities, which extractor {extractor.name!r} does not give")
        return extractor.supports(task.source_shape)

    def pool(self, features: SetFeatures, reference: SetReference) -> SetValue:
        """See ``sepbench.metrics.kinds.SetMetric``."""
        return self.statistic(features, reference)


def _fid(features: SetFeatures, reference: SetReference) -> SetValue:
    return SetValue(frechet_values(features.features, reference.frechet))


def _fid_limit(features: SetFeatures, reference: SetReference) -> SetValue:
    return SetValue(frechet_limit_values(features.features, reference.frechet, features.order))


def _kid(features: SetFeatures, reference: SetReference) -> SetValue:
    found = kernel_values(features.features, reference.features)
    return SetValue(found.values, float(np.std(found.blocks)) if len(found.blocks) > 1 else float("nan"))


def _inception_score(features: SetFeatures, reference: SetReference) -> SetValue:
    found = inception_values(features.logits)
    return SetValue(found.values, float(np.std(found.splits)))


def fid(extractor: str) -> StatisticOfFeatures:
    """Heusel et al. 2017, eq. (6)."""
    return _metric("fid", extractor, False, "Heusel et al. 2017, eq. 6", _fid)


def fid_limit(extractor: str) -> StatisticOfFeatures:
    """Chong and Forsyth 2020, sec. 3."""
    return _metric("fid_inf", extractor, False, "Chong and Forsyth 2020, sec. 3: line in 1/n through 15 distances", _fid_limit)


def kid(extractor: str) -> StatisticOfFeatures:
    """Binkowski et al. 2018, sec. 4."""
    return _metric("kid", extractor, False, "Binkowski et al. 2018, sec. 4: unbiased, blocks of 1,000 side by side", _kid)


def inception_score(extractor: str) -> StatisticOfFeatures:
    """Salimans et al. 2016, sec. 4."""
    return _metric("is", extractor, True, "Salimans et al. 2016, sec. 4: mean over 10 splits", _inception_score)


def _metric(name: str, extractor: str, higher: bool, source: str, statistic: Statistic) -> StatisticOfFeatures:
    info = MetricInfo(f"{name}_{extractor}", "1", higher, frozenset({"image"}), "set", source)
    return StatisticOfFeatures(info, extractor, statistic, needs_classes=name == "is")


FID_INCEPTION, FID_LIMIT_INCEPTION, KID_INCEPTION, IS_INCEPTION = (make("inception") for make in (fid, fid_limit, kid, inception_score))
FID_MNISTNET, FID_LIMIT_MNISTNET, KID_MNISTNET, IS_MNISTNET = (make("mnistnet") for make in (fid, fid_limit, kid, inception_score))
FID_CIFARNET, FID_LIMIT_CIFARNET, KID_CIFARNET, IS_CIFARNET = (make("cifarnet") for make in (fid, fid_limit, kid, inception_score))
