"""Inception score: how sure a classifier is of each image, and how evenly its classes appear.

Salimans et al., "Improved techniques for training GANs" (2016), sec. 4: ``exp(mean over images of KL(p(y|x) || p(y)))``, p(y) the mean of p(y|x)
over the images; published as mean and standard deviation over 10 splits of the images. Here the splits follow the images' numbers in the frozen list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from sepbench.metrics.sets.moments import Array, Stream

SPLITS = 10


@dataclass(frozen=True, slots=True, eq=False)
class InceptionValues:
    """The score as a value per image.

    Attributes:
        values: ``(n,)``; their mean is the score, their deviations from it the influence of each image.
        splits: ``(10,)`` the score of each split.
    """

    values: Array
    splits: Array


def split_score(logits: npt.NDArray[np.floating]) -> tuple[float, Array]:
    """The score of one split ``(m, classes)`` and the influence ``(m,)`` of each image: the score times the deviation of its divergence from the mean."""
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    p = np.exp(log_p)
    log_q = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))
    divergence = (p * (log_p - log_q)).sum(axis=1)
    score = float(np.exp(divergence.mean()))
    return score, np.asarray(score * (divergence - divergence.mean()))


def inception_values(stream: Stream) -> InceptionValues:
    """The score of a stream of logits ``(b, classes)``; all NaN for fewer images than splits."""
    logits = np.concatenate([np.asarray(part, np.float32) for part in stream()])
    count = len(logits)
    if count < SPLITS:
        return InceptionValues(np.full(count, np.nan), np.full(SPLITS, np.nan))
    values, scores = np.empty(count), np.empty(SPLITS)
    for split in range(SPLITS):
        start, stop = split * count // SPLITS, (split + 1) * count // SPLITS
        scores[split], influence = split_score(logits[start:stop])
        # Splits weigh alike whatever their size.
        values[start:stop] = influence * (count / (SPLITS * (stop - start)))
    return InceptionValues(values + (float(scores.mean()) - values.mean()), scores)
