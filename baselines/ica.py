"""Single-channel ICA: FastICA on the patches of one mixture. Davies and James, Signal Processing 87(8), 2007.

Supervision: ``blind``.

ICA needs as many observations as sources. One mixture is one observation: ordinary ICA is degenerate there. nussl, given one channel, has
one component to find: it subtracts the mean, divides by the standard deviation, may turn the sign, and scales the result to the mixture's
peak. What comes back is the mixture, or the negated mixture, less its mean; a test shows it. Davies and James make several observations of one
signal by a delay embedding and show what that can do: the components are outputs of linear filters, so sources come apart only where their
spectra are disjoint. Two digits have the same spectrum, so this cannot separate them either: it scores below ``average``. Drums and bass
have not, two speakers have. The row is in the leaderboard because LASS compares with ICA, as a floor.

What is done here, per mixture:

1. all overlapping patches are the observations x, ``(C p^2, n)``; colour channels are further rows. Audio (mono): all windows of ``lags`` samples,
   ``(p, T + p - 1)``, mirrored at both ends;
2. whitening: z = D^-1/2 V^T (x - mean), the leading ``components`` principal directions (V, D from ``eigh``);
3. symmetric FastICA (Hyvarinen, IEEE Trans. Neural Networks 10(3), 1999; Hyvarinen, Karhunen and Oja 2001, Table 8.4) with g = tanh,
   from the identity: W <- E[g(W z) z^T] - diag(E[g'(W z)]) W,  W <- (W W^T)^-1/2 W; after five steps stabilised (``fast_ica``);
4. grouping: components that are active at the same places belong to one source. The envelope of a component is its squared activation
   smoothed by a box; envelopes are compared by correlation and put into K groups by energy-weighted spherical k-means from farthest-first
   seeds (``group_components``), most energetic group first;
5. each group's patches A_k W_k z are folded back to an image; mean and dropped directions are shared evenly among the sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from baselines.decomposition.delay_embedding import Windows
from baselines.decomposition.parts import estimates_from_parts, part_support
from baselines.decomposition.patches import Size, fold_patches, positions, sides, unfold_patches
from sepbench.protocols import MethodInfo, MixingOperator, Mixtures, RunContext, Support, TaskSpec, TrainingView

_CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 25}
"""Patch elements worked on at a time: 16 MiB per float64 work array on the CPU; a GPU wants more at once."""

_STRIDE = 4
"""Of the windows of audio, which differ little from one sample to the next."""

_DAMPING = 0.7
_LEAST_CURVATURE = 0.2
"""Of the stabilised steps. With these no example of 200 digit pairs depends on perturbations of 1e-12; at damping 1 a third do."""


@dataclass(frozen=True, slots=True)
class Whitening:
    """White observations and the way back.

    Attributes:
        white: ``(B, d, n)`` with mean 0 and, where the observations have that many dimensions, covariance 1.
        matrix: ``(B, d, D)``, from centred observations to ``white``.
        inverse: ``(B, D, d)``, back to the projection of the centred observations on the d directions.
    """

    white: torch.Tensor
    matrix: torch.Tensor
    inverse: torch.Tensor


def whiten(observations: torch.Tensor, components: int | None = None, ridge: float = 1e-6) -> Whitening:
    """PCA whitening of each example.

    Args:
        observations: ``(B, D, n)`` float64, n samples of D dimensions.
        components: d, the leading principal directions that are kept; all by default.
        ridge: added to the variances, in units of the largest one, so that directions without variance stay (nearly) zero.
    """
    centred = observations - observations.mean(-1, keepdim=True)
    matrix, inverse = principal_directions(centred @ centred.mT / observations.shape[-1], components, ridge)
    return Whitening(matrix @ centred, matrix, inverse)


def principal_directions(covariance: torch.Tensor, components: int | None = None, ridge: float = 1e-6) -> tuple[torch.Tensor, torch.Tensor]:
    """``matrix`` and ``inverse`` of ``Whitening`` from covariances ``(B, D, D)``; the rest as for ``whiten``."""
    variances, vectors = torch.linalg.eigh(covariance)
    kept = covariance.shape[1] if components is None else min(components, covariance.shape[1])
    variances, vectors = variances[:, -kept:].flip(-1).clamp(min=0.0), vectors[:, :, -kept:].flip(-1)
    floor = (ridge * variances[:, :1]).clamp(min=torch.finfo(variances.dtype).tiny)
    scale = (variances + floor).sqrt()
    return vectors.mT / scale.unsqueeze(-1), vectors * scale.unsqueeze(-2)


def decorrelate(unmixing: torch.Tensor) -> torch.Tensor:
    """``(W W^T)^-1/2 W``, the orthogonal matrix nearest to W (symmetric decorrelation), of each ``(B, d, d)``."""
    values, vectors = torch.linalg.eigh(unmixing @ unmixing.mT)
    nearest: torch.Tensor = (vectors / values.clamp(min=torch.finfo(values.dtype).tiny).sqrt().unsqueeze(-2)) @ (vectors.mT @ unmixing)
    return nearest


@dataclass(frozen=True, slots=True)
class Unmixing:
    """What ``fast_ica`` returns: orthogonal ``(B, d, d)``, iterations ``(B,)`` int64, converged ``(B,)`` bool."""

    matrix: torch.Tensor
    iterations: torch.Tensor
    converged: torch.Tensor


def fast_ica(white: torch.Tensor, start: torch.Tensor | None = None, *, plain_steps: int = 5, max_iterations: int = 200, tolerance: float = 1e-4) -> Unmixing:
    """Symmetric FastICA with the log cosh contrast on each example of a batch.

    The first steps are Hyvarinen's. On few samples, or where components are nearly Gaussian, these jump about for ever and a rounding error
    decides where they end (half of all 8 x 8 digit pairs). So the steps after them are stabilised: every component keeps the sign of its
    kurtosis (is it peaked or flat?), which makes the fixed points of FastICA the maxima of one smooth contrast, and W is turned uphill by
    0.7 of the Newton step of Ablin, Cardoso and Gramfort ("Faster ICA under orthogonal constraint", ICASSP 2018).

    Each example stops by its own rule, when no row would turn by more than ``sqrt(2 tolerance)`` radians; for plain steps that is scikit-learn's
    ``max_i | |<w_i new, w_i old>| - 1 | < tolerance``. Its result does not depend on the rest of the batch.

    Args:
        white: ``(B, d, n)`` whitened observations, float64 recommended.
        start: ``(B, d, d)`` first unmixing matrix, made orthogonal; the identity by default.
        plain_steps: steps before stabilisation.
        max_iterations: an end for examples that do not converge.
        tolerance: of the stopping rule.
    """
    batch, size, _ = white.shape
    eye = torch.eye(size, dtype=white.dtype, device=white.device).expand(batch, size, size)
    matrix = eye.clone() if start is None else decorrelate(start)
    iterations = torch.zeros(batch, dtype=torch.int64, device=white.device)
    converged = torch.zeros(batch, dtype=torch.bool, device=white.device)
    active, signs = torch.arange(batch, device=white.device), torch.ones(batch, size, dtype=white.dtype, device=white.device)
    for step in range(max_iterations):
        if active.numel() == 0:
            break
        old = matrix[active]
        cross, slope = _response(old, white)
        if step < plain_steps:
            new = decorrelate((cross - torch.diag_embed(slope)) @ old)
            turned = ((new * old).sum(-1).abs() - 1.0).abs().amax(-1)
            signs = torch.where(cross.diagonal(dim1=1, dim2=2) < slope, -1.0, 1.0).to(white.dtype)
        else:
            turn = _uphill(cross, slope, signs)
            new = decorrelate(old + _DAMPING * turn @ old)
            turned = turn.square().sum(-1).amax(-1) / 2
        matrix[active] = new
        iterations[active] += 1
        done = turned < tolerance
        if bool(done.any()):
            converged[active[done]] = True
            active, signs, white = active[~done], signs[~done], white[~done]
    return Unmixing(matrix, iterations, converged)


def _response(unmixing: torch.Tensor, white: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``E[g(y) y^T]`` ``(B, d, d)`` and ``E[g'(y)]`` ``(B, d)`` for y = W z and g = tanh."""
    components = unmixing @ white
    response = torch.tanh(components)
    samples = white.shape[-1]
    # E[g'] = 1 - E[tanh^2], by a norm: no third array of the size of the responses.
    slope = 1.0 - torch.linalg.vector_norm(response, dim=-1).square() / samples
    return response @ components.mT / samples, slope


def _uphill(cross: torch.Tensor, slope: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """Antisymmetric ``(B, d, d)``: the approximate Newton step for ``sum_i signs_i E[log cosh y_i]``, curvatures bounded from below."""
    curvature = signs * (cross.diagonal(dim1=1, dim2=2) - slope)
    gradient = signs.unsqueeze(-1) * cross
    return (gradient - gradient.mT) / (curvature.unsqueeze(-1) + curvature.unsqueeze(-2)).clamp(min=_LEAST_CURVATURE)


def envelope_similarity(activations: torch.Tensor, window: Size, step: Size = 1) -> torch.Tensor:
    """Correlation between the energy envelopes of components: ``(B, d, h, w)`` activations to ``(B, d, d)``.

    The envelope is the squared activation, averaged over a ``window x window`` box (odd), every ``step`` places.
    """
    high, wide = sides(window)
    margins = (high // 2, wide // 2)
    return correlations(functional.avg_pool2d(activations.square(), (high, wide), stride=sides(step), padding=margins, count_include_pad=False).flatten(2))


def correlations(envelopes: torch.Tensor) -> torch.Tensor:
    """Of each pair of rows: ``(B, d, n)`` to ``(B, d, d)``; 0 for rows without variance."""
    envelopes = envelopes - envelopes.mean(-1, keepdim=True)
    norms = torch.linalg.vector_norm(envelopes, dim=-1, keepdim=True)
    envelopes = envelopes / norms.clamp(min=torch.finfo(envelopes.dtype).tiny)
    similarity: torch.Tensor = envelopes @ envelopes.mT
    return similarity


def group_components(similarity: torch.Tensor, energy: torch.Tensor, groups: int, iterations: int = 20) -> torch.Tensor:
    """Spherical k-means on a correlation matrix, weighted by energy: which group each component belongs to.

    Seeds are chosen farthest-first: the component of most energy, then always the one with the largest energy times
    (1 - largest correlation with a seed). A seed stays in its group, so none is ever empty. The others go to the group whose
    energy-weighted mean envelope they correlate with most, for a fixed number of rounds. Groups are numbered by falling energy.

    Args:
        similarity: ``(B, d, d)`` correlations.
        energy: ``(B, d)``, not negative.
        groups: K <= d.

    Returns:
        ``(B, d)`` int64 in [0, K).
    """
    batch = energy.shape[0]
    rows = torch.arange(batch, device=energy.device)
    weights = energy + torch.finfo(energy.dtype).eps * energy.amax(-1, keepdim=True) + torch.finfo(energy.dtype).tiny
    seeds = [energy.argmax(-1)]
    for _ in range(1, groups):
        nearest = torch.stack([similarity[rows, seed] for seed in seeds]).amax(0)
        value = weights * (1.0 - nearest).clamp(min=0.0)
        value[rows.unsqueeze(-1), torch.stack(seeds, -1)] = -1.0
        seeds.append(value.argmax(-1))
    chosen = torch.stack(seeds, -1)
    numbers = torch.arange(groups, device=energy.device).expand(batch, groups)
    labels = similarity[rows.unsqueeze(-1), chosen].argmax(1).scatter(1, chosen, numbers)
    for _ in range(iterations):
        members = functional.one_hot(labels, groups).to(similarity.dtype).mT * weights.unsqueeze(1)  # (B, K, d)
        projections = members @ similarity
        lengths = (projections * members).sum(-1, keepdim=True).clamp(min=torch.finfo(similarity.dtype).tiny).sqrt()
        labels = (projections / lengths).argmax(1).scatter(1, chosen, numbers)
    totals = torch.zeros(batch, groups, dtype=energy.dtype, device=energy.device).scatter_add_(1, labels, energy)
    return totals.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1).gather(1, labels)


@dataclass(frozen=True, slots=True)
class Embedding:
    """How a signal becomes observations, and how components are compared; lengths in pixels or samples.

    Attributes:
        patch: sides of a patch.
        components: independent components per mixture.
        window, step: box that smooths the envelopes, odd, and how far apart they are read.
        stride: every so many observations are enough to find the components.
    """

    patch: Size
    components: int
    window: Size
    step: Size = 1
    stride: int = 1


PartsOf = Callable[[torch.Tensor, int, Embedding], torch.Tensor]


@dataclass
class SingleChannelICA:
    """K groups of filter outputs as estimates; the weighted estimates add up to the mixture.

    The defaults were chosen on 500 pairs of MNIST's training images, where they reach 14.1 dB: patches of 3, 4 and 6 reach 13.6, 13.7 and
    13.9, 16 components 14.1 in twice the time. A box of 9 brings textures of disjoint spectra apart, as it should; smaller boxes and fewer
    components do less to the mixture, so that digits score higher (14.5 with a box of 1) only as they move towards ``average`` (14.9).

    Attributes:
        patch: p, side of the patches in pixels.
        components: independent components per mixture.
        window: side of the box that smooths the envelopes, odd, in pixels.
        max_iterations, tolerance: of FastICA.
        lags: p of audio, in samples. On 50 validation mixtures each, 16, 32 and 64 gave an SDR of 2.36, 2.25 and 2.35 dB (drums and bass), and of 1.37,
            1.50 and 1.82 dB (two speakers).
        audio_components: the same of audio.
        smoothing: length of the box that smooths the envelopes of audio, in seconds.
    """

    patch: int = 8
    components: int = 8
    window: int = 9
    max_iterations: int = 100
    tolerance: float = 1e-3
    lags: int = 64
    audio_components: int = 16
    smoothing: float = 0.05

    info: ClassVar[MethodInfo] = MethodInfo(
        name="ica",
        title="ICA",
        version="1",
        domains=frozenset({"image", "audio"}),
        supervision="blind",
        paper="Davies and James 2007; Hyvarinen 1999, symmetric FastICA with log cosh",
        deterministic=True,
    )

    def __post_init__(self) -> None:
        if self.patch < 2 or self.components < 2 or self.max_iterations < 1 or self.tolerance <= 0:
            raise ValueError("patch and components must be at least 2, max_iterations at least 1, tolerance positive")
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"window must be odd and positive, got {self.window}")
        if self.lags < 2 or self.audio_components < 2 or self.smoothing <= 0:
            raise ValueError("lags and audio_components must be at least 2, smoothing positive")

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, "single-channel ICA", self.info.domains)
        if not support.ok:
            return support
        if task.domain == "audio":
            return self._supports_audio(task)
        channels, height, width = task.source_shape
        if self.patch > min(height, width):
            return Support(False, f"patches of {self.patch} pixels do not fit into images of {height} x {width}; choose a smaller patch")
        available = min(self.components, channels * self.patch**2)
        if task.n_sources > available:
            return Support(False, f"{available} components cannot make {task.n_sources} sources; choose a larger patch or more components")
        return Support(True, "degenerate on a single image, which is one observation: filters learnt from its patches separate disjoint spectra only")

    def _supports_audio(self, task: TaskSpec) -> Support:
        channels, length = task.source_shape
        if channels != 1:
            return Support(False, f"single-channel ICA takes mono signals, the task has {channels} channels")
        if self.lags > length:
            return Support(False, f"windows of {self.lags} samples do not fit into signals of {length}; choose fewer lags")
        available = min(self.audio_components, self.lags)
        if task.n_sources > available:
            return Support(False, f"{available} components cannot make {task.n_sources} sources; choose more lags and audio_components")
        if task.assignment == "ordered":
            return Support(False, "ICA cannot tell which component is which source; choose a task under the best assignment")
        return Support(True, "one channel is one observation: filters learnt from its windows separate disjoint spectra only")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, K, C, H, W)``, not clamped; audio ``(B, 1, T)`` to ``(B, K, 1, T)``.

        A recording with a sample that is not finite has NaN estimates.
        """
        values = mixtures.values.to(ctx.device)
        if ctx.task.domain != "audio":
            return self._separate(values, Embedding(self.patch, self.components, self.window), mixtures.operator, self._parts)
        finite = values.isfinite().all(-1).all(-1).reshape(-1, 1, 1, 1)
        silenced = torch.where(finite.squeeze(1), values, 0.0).unsqueeze(2)
        smoothing = round(self.smoothing * (ctx.task.sample_rate or 1) / 2)
        embedding = Embedding((1, self.lags), self.audio_components, (1, 2 * smoothing + 1), (1, smoothing + 1), _STRIDE)
        estimates = self._separate(silenced, embedding, mixtures.operator, self._parts_of_signals).squeeze(3)
        return torch.where(finite, estimates, torch.nan)

    def _separate(self, values: torch.Tensor, embedding: Embedding, operator: MixingOperator, parts_of: PartsOf) -> torch.Tensor:
        batch, channels, height, width = values.shape
        rows, columns = positions(height, width, embedding.patch)
        high, wide = sides(embedding.patch)
        budget = _CHUNK_ELEMENTS.get(values.device.type, _CHUNK_ELEMENTS["cpu"])
        size = max(1, budget // (channels * high * wide * rows * columns))
        estimates = values.new_empty(batch, operator.n_sources, *values.shape[1:])
        for chunk in torch.split(torch.arange(batch), size):
            images = values[chunk.to(values.device)].double()
            parts = parts_of(images, operator.n_sources, embedding)
            estimates[chunk.to(values.device)] = estimates_from_parts(parts, images, operator.select(chunk)).float()
        return estimates

    def _parts(self, images: torch.Tensor, sources: int, embedding: Embedding) -> torch.Tensor:
        """``(B, K, C, H, W)`` parts that add up to the images."""
        shape = (int(images.shape[-2]), int(images.shape[-1]))
        whitening = whiten(unfold_patches(images, embedding.patch), embedding.components)
        some = whitening.white[..., :: embedding.stride] if embedding.stride > 1 else whitening.white
        unmixing = fast_ica(some, max_iterations=self.max_iterations, tolerance=self.tolerance).matrix
        activations = unmixing @ whitening.white
        mixing = whitening.inverse @ unmixing.mT
        grid = positions(*shape, embedding.patch)
        similarity = envelope_similarity(activations.reshape(*activations.shape[:2], *grid), embedding.window, embedding.step)
        energy = mixing.square().sum(1) * activations.square().mean(-1)
        labels = group_components(similarity, energy, sources)
        groups = [(mixing * (labels == k).to(mixing.dtype).unsqueeze(1)) @ activations for k in range(sources)]
        parts = torch.stack([fold_patches(group, shape, embedding.patch) for group in groups], 1)
        return parts + (images - parts.sum(1)).unsqueeze(1) / sources

    def _parts_of_signals(self, signals: torch.Tensor, sources: int, embedding: Embedding) -> torch.Tensor:
        """``_parts`` of images ``(B, 1, 1, T)`` one row high, span by span: an embedding of ten minutes would be 7 GB."""
        windows = Windows.of(signals[:, 0, 0], self.lags)
        mean, covariance = windows.moments()
        matrix, inverse = principal_directions(covariance, embedding.components)
        white = windows.filtered(matrix, embedding.stride).sub_(matrix @ mean.unsqueeze(-1))
        unmixing = fast_ica(white, max_iterations=self.max_iterations, tolerance=self.tolerance).matrix
        filters, mixing = unmixing @ matrix, inverse @ unmixing.mT
        offset = (filters @ mean.unsqueeze(-1)).squeeze(-1)
        similarity = correlations(windows.envelopes(filters, offset, sides(embedding.window)[1] // 2, sides(embedding.step)[1]))
        energy = mixing.square().sum(1) * ((filters @ covariance) * filters).sum(-1)
        labels = group_components(similarity, energy, sources)
        groups = functional.one_hot(labels, sources).to(mixing).mT  # (B, K, d)
        maps = (mixing.unsqueeze(1) * groups.unsqueeze(2)) @ filters.unsqueeze(1)
        parts = windows.mapped(maps) - (maps @ mean[:, None, :, None]).mean((-2, -1)).unsqueeze(-1)
        parts = parts[:, :, None, None]
        return parts + (signals - parts.sum(1)).unsqueeze(1) / sources
