"""Blind NMF: the mixture's own spectral templates, bins clustered by timbre. nussl 1.1.9's TimbreClustering, batched.

NMF of one mixture and clustering of its components by timbre: Spiertz and Gnann, "Source-filter based clustering for monaural blind source
separation", DAFx 2009 (there a component as a whole belongs to a source; here, as in nussl, a bin does).

Supervision: ``blind``.

Per mixture, with V ``(F, N)`` its magnitude spectrogram:

1. V ~ W^T H with ``components`` templates W_r and activations H_r. Start: the non-negative double SVD of Boutsidis and Gallopoulos (Pattern
   Recognition 41(4), 2008, table 1), zeros replaced by the mean of V (their variant NNDSVDa); then ``iterations`` rounds of coordinate
   descent on the squared error (HALS: Cichocki and Phan, IEICE Trans. E92-A(3), 2009, algorithm 2), which is what scikit-learn's default does;
2. the timbre t_r of a template: 13 mel cepstra of its power (``baselines.decomposition.cepstrum``);
3. a bin's feature is the mean timbre of what it consists of, ``sum_r W_r(f) H_r(n) t_r``, scaled to length 1;
4. k-means on the features of the loudest 10 % of the bins. nussl starts it once, at random; here the best of four starts counts, where one of the four
   longest principal axes cuts the features in two, K - 1 times (after PCA-Part: Su and Dy, ICTAI 2004), so the result depends on the mixture alone.
   In 40 cases (20 mixtures, K = 2 and 3) the sum of squares was lower than nussl's in 12 and higher in one;
5. masks ``exp(-5 d_k) / sum_j exp(-5 d_j)`` with d_k a bin's distance from centre k. Groups are numbered by falling energy.

nussl has no default for the number of components; its documentation uses 50. Its constants 1e-6 (1.) and 1e-8 (3.) are
absolute, so the masks depend on the loudness of the mixture. We keep them. So the estimates are nussl's wherever its
k-means finds the same optimum.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch.nn import functional

from baselines.decomposition.cepstrum import cepstrum
from baselines.decomposition.masks import mask_support, separate_by_masks
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT
from sepbench.stft import Stft

_LOUD = 0.1
_STIFFNESS = 5.0
_LEAST_LENGTH, _LEAST_WEIGHT = 1e-8, 1e-8
"""Added to a feature's length and to a mask's weight. The first is nussl's, and in the scale of its spectra: features of silent bins stay near zero."""
_LLOYD_ROUNDS = 50
_STARTS = 4
_TINY = 1e-12
_SPAN = 2048
"""Frames whose features are held at a time: of ten minutes at 22,050 Hz they would take 1.7 GB, and their lengths as much again. A multiple of 4."""
_MIXTURES = 16
"""Worked on at a time: their features, 16 numbers for each bin, are 140 MB for 3 s at 22,050 Hz."""


def double_svd(matrices: torch.Tensor, count: int, sizes: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """NNDSVDa: factors ``(B, R, m)`` and ``(B, R, n)`` with ``sum_r left_r right_r^T ~ matrices (B, m, n)``.

    Args:
        matrices: not negative; both sizes are multiples of 4.
        count: how many, at most the smaller size; R is the next multiple of 4, zeros fill it up.
        sizes: rows and columns from which on there are only zeros (padding); so are the factors there, and positive elsewhere.
    """
    wide = matrices.shape[1] < matrices.shape[2]
    tall = (matrices.mT if wide else matrices).double()
    squared, right = torch.linalg.eigh(tall.mT @ tall)
    padded = count + -count % 4
    singular, right = squared[:, -padded:].flip(-1).clamp(min=0.0).sqrt(), right[:, :, -padded:].flip(-1).mT
    left = right @ tall.mT / singular.clamp(min=_TINY).unsqueeze(-1)
    signed = [(left.clamp(min=0.0), right.clamp(min=0.0)), ((-left).clamp(min=0.0), (-right).clamp(min=0.0))]
    energies = torch.stack([torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1) for a, b in signed])
    better = (energies[1] > energies[0]).unsqueeze(-1)
    scale = (singular * energies.amax(0)).sqrt().unsqueeze(-1)
    found = [scale * functional.normalize(torch.where(better, minus, plus), dim=-1) for plus, minus in zip(*signed, strict=True)]
    mean = matrices.double().sum((1, 2)).reshape(-1, 1, 1) / (sizes[0] * sizes[1])
    for factor, size in zip(found, sizes[::-1] if wide else sizes, strict=True):
        factor.copy_(torch.where(factor < 1e-6, mean, factor))[:, :, size:] = 0.0
        factor[:, count:] = 0.0
    first, second = (factor.to(matrices.dtype) for factor in found)
    return (second, first) if wide else (first, second)


def descend(matrices: torch.Tensor, left: torch.Tensor, right: torch.Tensor, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounds of HALS from factors ``(B, R, m)`` and ``(B, R, n)`` of matrices ``(B, m, n)``; the squared error never rises."""
    left, right = left.clone(), right.clone()
    for _ in range(iterations):
        _sweep(right, left @ left.mT, left @ matrices)
        _sweep(left, right @ right.mT, right @ matrices.mT)
    return left, right


def _sweep(factor: torch.Tensor, gram: torch.Tensor, products: torch.Tensor) -> None:
    """Each component in turn to its best value for the other factor as it is, in place; one without energy in the other factor stays."""
    energies = gram.diagonal(dim1=1, dim2=2).unsqueeze(-1)
    steps = torch.where(energies > 0, 1.0 / energies.clamp(min=torch.finfo(gram.dtype).tiny), 0.0)
    for r in range(factor.shape[1]):
        gradient = (gram[:, r : r + 1] @ factor).squeeze(1) - products[:, r]
        factor[:, r] = (factor[:, r] - gradient * steps[:, r]).clamp_(min=0.0)


def bin_features(templates: torch.Tensor, activations: torch.Tensor, timbres: torch.Tensor) -> torch.Tensor:
    """``sum_r W_r(f) H_r(n) t_r`` over its length: ``(B, R, F)``, ``(B, R, N)`` and ``(B, R, D)`` to ``(B, D, F, N)``."""
    weighted = templates.unsqueeze(1) * timbres.mT.unsqueeze(-1)  # (B, D, R, F)
    features: torch.Tensor = weighted.mT @ activations.unsqueeze(1)
    unit: torch.Tensor = features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + _LEAST_LENGTH)
    return unit


def cluster_centres(points: torch.Tensor, groups: int) -> torch.Tensor:
    """k-means of each set of points ``(B, n, D)``: of ``_STARTS`` starts by principal components the best, as centres ``(B, K, D)``."""
    tried = [_lloyd(points, _cut(points, groups, axis), groups) for axis in range(min(_STARTS, points.shape[2]))]
    best = torch.stack([spread for _, spread in tried]).argmin(0)
    return torch.stack([centres for centres, _ in tried])[best, torch.arange(len(points), device=points.device)]


def _cut(points: torch.Tensor, groups: int, axis: int) -> torch.Tensor:
    """Labels ``(B, n)``: the set is cut at its mean across one principal axis (0 is the longest), then always the widest group across its longest."""
    rows = torch.arange(len(points), device=points.device)
    labels = torch.zeros(points.shape[:2], dtype=torch.int64, device=points.device)
    for new in range(1, groups):
        centres, spread = _centres(points, labels, new)
        widest = spread.argmax(1)
        inside = labels == widest.unsqueeze(1)
        centred = torch.where(inside.unsqueeze(-1), points - centres[rows, widest].unsqueeze(1), 0.0)
        last = points.shape[2] - 1 - (axis if new == 1 else 0)
        direction = torch.linalg.eigh(centred.mT @ centred).eigenvectors[:, :, last : last + 1]
        labels = torch.where(inside & ((centred @ direction).squeeze(-1) > 0), new, labels)
    return labels


def _lloyd(points: torch.Tensor, labels: torch.Tensor, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres ``(B, K, D)`` after so many rounds, and the sum of squared distances ``(B,)`` that they leave."""
    for _ in range(_LLOYD_ROUNDS):
        centres, _ = _centres(points, labels, groups)
        labels = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
    centres, spread = _centres(points, labels, groups)
    return centres, spread.sum(1)


def _centres(points: torch.Tensor, labels: torch.Tensor, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means ``(B, K, D)`` and sums of squared distances ``(B, K)`` of groups; an empty group is centred on all points."""
    members = functional.one_hot(labels, groups).to(points.dtype)
    counts = members.sum(1)
    means = members.mT @ points / counts.clamp(min=1.0).unsqueeze(-1)
    means = torch.where(counts.unsqueeze(-1) > 0, means, points.mean(1, keepdim=True))
    spread = (points - members @ means).square().sum(-1, keepdim=True) * members
    return means, spread.sum(1)


def _picked(points: torch.Tensor, features: torch.Tensor, bins: torch.Tensor, start: int, sizes: tuple[int, int]) -> torch.Tensor:
    """Points ``(B, n, D)`` of the ``bins`` ``(B, n)`` of a spectrogram ``(F, N)``: those in frames start to start + S get the features ``(B, F S, D)``."""
    width = features.shape[1] // sizes[0]
    frames = bins % sizes[1] - start
    inside = (frames >= 0) & (frames < width)
    here = bins // sizes[1] * width + frames.clamp(0, width - 1)
    return torch.where(inside.unsqueeze(-1), features[torch.arange(len(features), device=bins.device).unsqueeze(1), here], points)


def _soft_masks(features: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Shares ``(B, K, n)`` of groups in bins of features ``(B, n, D)``, by their distances to the centres ``(B, K, D)``."""
    distances = torch.cdist(features, centres, compute_mode="donot_use_mm_for_euclid_dist")
    weights = (-_STIFFNESS * distances).exp() + _LEAST_WEIGHT
    return (weights / weights.sum(-1, keepdim=True)).mT


@dataclass(config=STRICT)
class BlindNMF:
    """K groups of bins of like timbre, group 0 the one of most energy."""

    components: int = Field(50, ge=2, description="templates per mixture, at most as many as frames or bins")
    iterations: int = Field(200, ge=1, description="rounds of coordinate descent; scikit-learn's limit")
    coefficients: int = Field(13, ge=1, le=128, description="mel cepstra per template")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nmf-blind",
        title="NMF, clustered by timbre",
        version="1",
        domains=frozenset({"audio"}),
        supervision="blind",
        paper="Spiertz and Gnann 2009, by bins as nussl 1.1.9's TimbreClustering",
        deterministic=True,
        max_batch=64,
    )

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "blind NMF")
        if not support.ok:
            return support
        if task.assignment == "ordered":
            return Support(False, "blind NMF cannot tell which group of components is which source; choose a task under the best assignment")
        if task.n_sources > self.components:
            return Support(False, f"{self.components} components cannot make {task.n_sources} sources; choose more")
        return Support(True, "bins are grouped by timbre, group 0 is the louder one")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to estimates ``(B, K, C, T)``; channels are averaged for the masks and share them."""
        return separate_by_masks(mixtures, ctx, lambda magnitudes, rate: self._masks(magnitudes, rate, mixtures.n_sources))

    def _masks(self, magnitudes: torch.Tensor, sample_rate: int, sources: int) -> torch.Tensor:
        """Magnitudes ``(B, C, F, N)`` to masks ``(B, K, C, F, N)``."""
        bins, frames = magnitudes.shape[-2:]
        window = torch.hann_window(Stft.at(sample_rate).window_length, dtype=torch.float64).sqrt()
        # nussl's spectra are divided by the window's sum, and its constants are meant for that. Multiples of 4: see ``spectrogram_nmf``.
        spectra = functional.pad(magnitudes.mean(1) / float(window.sum()), (0, -frames % 4, 0, -bins % 4))
        masks = torch.cat([self._groups(one, (bins, frames), sample_rate, sources) for one in spectra.split(_MIXTURES)])
        energy = (masks * magnitudes.mean(1).square().unsqueeze(1)).sum((2, 3))
        order = energy.argsort(dim=1, descending=True, stable=True)
        chosen = masks[torch.arange(len(masks), device=masks.device).unsqueeze(1), order]
        return chosen.unsqueeze(2).expand(-1, -1, magnitudes.shape[1], -1, -1)

    def _groups(self, spectra: torch.Tensor, sizes: tuple[int, int], sample_rate: int, sources: int) -> torch.Tensor:
        """``(B, F', N')`` padded spectra to soft masks ``(B, K, F, N)`` of the given sizes F, N."""
        templates, activations = descend(spectra, *double_svd(spectra, min(self.components, *sizes), sizes), self.iterations)
        timbres = self._timbres(templates, sizes[0], sample_rate)
        starts = range(0, spectra.shape[2], _SPAN)

        def features(start: int) -> torch.Tensor:
            """``(B, F' S, D)`` of the bins of a span of S frames."""
            return bin_features(templates, activations[:, :, start : start + _SPAN], timbres).flatten(2).mT

        only = features(0) if len(starts) == 1 else None
        count = int(_LOUD * sizes[0] * sizes[1])
        loud = spectra.flatten(1).topk(max(count - count % 16, 16)).indices
        points = torch.zeros(*loud.shape, timbres.shape[2], dtype=spectra.dtype, device=spectra.device)
        for start in starts:
            points = _picked(points, features(start) if only is None else only, loud, start, (spectra.shape[1], spectra.shape[2]))
        centres = cluster_centres(points, sources)
        masks = [_soft_masks(features(start) if only is None else only, centres).unflatten(-1, (spectra.shape[1], -1)) for start in starts]
        return torch.cat(masks, -1)[..., : sizes[0], : sizes[1]]

    def _timbres(self, templates: torch.Tensor, bins: int, sample_rate: int) -> torch.Tensor:
        """Cepstra ``(B, R, D)`` of templates ``(B, R, F')`` with ``bins`` bins each; D is the next multiple of 16, zeros fill it up."""
        size = self.coefficients + -self.coefficients % 16
        transform = functional.pad(cepstrum(sample_rate, bins, self.coefficients), (0, templates.shape[2] - bins, 0, size - self.coefficients))
        return templates.square() @ transform.T.to(templates).expand(len(templates), -1, -1)
