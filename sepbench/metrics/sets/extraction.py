"""The features of a batch of estimates, once for all metrics that share an extractor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.kinds import SetMetric
from sepbench.metrics.sets.extractors import eight_bits, extracted, get_extractor
from sepbench.protocols import TaskSpec
from sepbench.torch_later import torch


@dataclass(frozen=True, slots=True, eq=False)
class ShardFeatures:
    """Features of n examples by one extractor, float32 on the CPU.

    Attributes:
        features: ``(n, S, F)`` of the S scored sources; NaN where an estimate holds what is not finite.
        logits: ``(n, S, classes)``.
        reference: key of the reference that they are to be held against.
    """

    features: torch.Tensor
    logits: torch.Tensor
    reference: str = ""


def extractors_of(metrics: Sequence[str]) -> list[str]:
    """The extractors that some metrics need, each once.

    Raises:
        UnknownNameError: no such metric.
    """
    found = (get_metric(name) for name in metrics)
    return list(dict.fromkeys(metric.extractor for metric in found if isinstance(metric, SetMetric)))


def features_of(extractor: str, estimates: torch.Tensor, spec: TaskSpec, device: str, reference: str = "") -> ShardFeatures:
    """The features of estimates ``(n, K, C, H, W)``.

    Raises:
        UnknownNameError: no such extractor.
        DataError: its weights are not there.
    """
    images = estimates[:, list(spec.scored_sources)].cpu()
    count, sources = images.shape[:2]
    flat = images.flatten(0, 1)
    features, logits = extracted(get_extractor(extractor), eight_bits(flat), device)
    lost = ~flat.isfinite().flatten(1).all(dim=1)
    features[lost], logits[lost] = torch.nan, torch.nan
    return ShardFeatures(features.unflatten(0, (count, sources)), logits.unflatten(0, (count, sources)), reference)
