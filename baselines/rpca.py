"""Robust PCA by inexact augmented Lagrange multipliers. Lin, Chen and Ma, arXiv 1009.5055 (2010), Algorithm 5.

Supervision: ``blind``.

Principal component pursuit (Candes, Li, Ma and Wright, J. ACM 2011) cuts a matrix D into a low-rank part A and a sparse part E:

    min ||A||_* + lambda ||E||_1   subject to   D = A + E,   lambda = 1 / sqrt(max(m, n)).

Algorithm 5, with Y the multiplier, mu the penalty and S_t the soft threshold at t:

    A <- U S_{1/mu}(Sigma) V^T,  where U Sigma V^T = D - E + Y / mu
    E <- S_{lambda/mu}(D - A + Y / mu)
    Y <- Y + mu (D - A - E)
    mu <- rho mu   if min(mu, sqrt(mu)) ||E_new - E_old||_F < eps_2 ||D||_F
    until          ||D - A - E||_F < eps_1 ||D||_F

Audio (Huang, Chen, Smaragdis and Hasegawa-Johnson, ICASSP 2012, sec. 3): D is the magnitude spectrogram, A the repeating accompaniment, E the
voice; a bin belongs to the voice where |E| > |A| (their eq. 3, gain 1), and never below 100 Hz. Settings are nussl 1.1.9's (rho = 1.5, the penalty
grows in every iteration, at most 100 of them), but for the end: eps_1 = 1e-4 instead of 1e-7, 23 iterations instead of 38, and those in float32
but for Gram matrices (``shrinkage.py``). A mask asks only which part of a bin is larger, which is settled by then: on 56 mixtures (7 each of
validation drums and bass, two speakers, speech in white, brown and babble noise, and three kinds of toys) estimates correlate at >= 0.9998 with
those of float64 and 1e-7, half of them at >= 0.99999; 1e-3 left 0.9975 on the worst toy. ``benchmarks/nussl_speed.py`` prints speed and agreement.

Images: the split of two objects is degenerate, neither digit is low-rank and neither is sparse. A holds what rows and columns share
(strokes along the axes, smooth background), E what is left, and both hold pieces of both sources. The row is in the leaderboard because
LASS compares with it, as a floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from baselines.decomposition.masks import background_mask, mask_support, separate_by_masks
from baselines.decomposition.parts import estimates_from_parts, part_support
from baselines.decomposition.roles import VOICES, role_support, slot_of_role
from baselines.decomposition.shrinkage import ExactShrinkage, Shrinkage, WarmShrinkage
from baselines.decomposition.side_by_side import side_by_side
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView

_CHUNK_ELEMENTS = 1 << 20
"""Matrix elements worked on at a time: eight float64 work arrays of 8 MiB each."""

_SPECTROGRAM_PIECE = {"cpu": 1 << 19, "cuda": 1 << 25}
"""The same for spectrograms: three of 3 s at 22,050 Hz in each thread of the CPU; a GPU wants more at once."""

_SPECTROGRAM_CHUNK = 1 << 22
"""Bins of the mixtures that the threads share at a time."""


@dataclass(frozen=True, slots=True)
class Decomposition:
    """What ``robust_pca`` returns.

    Attributes:
        low_rank, sparse: ``(B, m, n)`` in the precision asked for, adding up to the matrix within ``tolerance`` where converged.
        iterations: ``(B,)`` int64, iterations that each matrix took.
        converged: ``(B,)`` bool, False where ``max_iterations`` ended it.
    """

    low_rank: torch.Tensor
    sparse: torch.Tensor
    iterations: torch.Tensor
    converged: torch.Tensor


def soft_threshold(values: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """``sign(v) max(|v| - t, 0)``, elementwise; ``threshold`` broadcasts and is not negative."""
    return values - values.clamp(min=-threshold, max=threshold)


def robust_pca(
    matrices: torch.Tensor,
    *,
    sparsity: float = 1.0,
    growth: float = 1.6,
    tolerance: float = 1e-7,
    penalty_tolerance: float = 1e-3,
    max_iterations: int = 300,
    precision: torch.dtype = torch.float64,
    shrinkage: Shrinkage | None = None,
) -> Decomposition:
    """Principal component pursuit of each matrix of a batch (Lin, Chen and Ma 2010, Algorithm 5).

    Each matrix has its own penalty and stops by its own residual, so its result does not depend on the rest of the batch.

    Args:
        matrices: ``(B, m, n)``, any scale; a matrix of zeros gives zeros.
        sparsity: ``lambda sqrt(max(m, n))``; 1 in the paper. More makes the sparse part sparser.
        growth: rho, growth of the penalty.
        tolerance: eps_1, on the relative residual.
        penalty_tolerance: eps_2, on the movement of E that lets the penalty grow; ``inf`` lets it grow always, as the authors' released
            code does (with growth 1.5).
        max_iterations: an end for matrices that do not converge.
        precision: float64, or float32 with ``WarmShrinkage`` for tolerances from 1e-4 on.
        shrinkage: of the singular values; ``ExactShrinkage`` by default, ``WarmShrinkage`` is faster where ranks are low.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        found = robust_pca(
            matrices.mT,
            sparsity=sparsity,
            growth=growth,
            tolerance=tolerance,
            penalty_tolerance=penalty_tolerance,
            max_iterations=max_iterations,
            precision=precision,
            shrinkage=shrinkage,
        )
        return Decomposition(found.low_rank.mT, found.sparse.mT, found.iterations, found.converged)
    data = matrices.to(precision)
    batch, _, columns = data.shape
    weight = sparsity / columns**0.5
    low_rank, sparse = torch.zeros_like(data), torch.zeros_like(data)
    iterations = torch.zeros(batch, dtype=torch.int64, device=data.device)
    converged = data.flatten(1).eq(0).all(1)
    active = (~converged).nonzero().squeeze(1)
    state = _State.start(data[active], weight, shrinkage or ExactShrinkage())
    for _ in range(max_iterations):
        if active.numel() == 0:
            break
        done = state.step(weight, growth, tolerance, penalty_tolerance)
        iterations[active] += 1
        if bool(done.any()):
            low_rank[active[done]], sparse[active[done]] = state.low_rank[done], state.sparse[done]
            converged[active[done]] = True
            active, state = active[~done], state.select(~done)
    low_rank[active], sparse[active] = state.low_rank, state.sparse
    return Decomposition(low_rank, sparse, iterations, converged)


@dataclass(slots=True)
class _State:
    """The iterates of the matrices that have not converged yet: D, A, E, Y, ``(B, m, n)``; mu and ||D||_F, ``(B, 1, 1)``."""

    data: torch.Tensor
    low_rank: torch.Tensor
    sparse: torch.Tensor
    multiplier: torch.Tensor
    penalty: torch.Tensor
    norm: torch.Tensor
    shrinkage: Shrinkage

    @classmethod
    def start(cls, data: torch.Tensor, weight: float, shrinkage: Shrinkage) -> _State:
        """The paper's start: Y = D / max(||D||_2, ||D||_inf / lambda), E = 0, mu = 1.25 / ||D||_2."""
        spectral = torch.linalg.eigvalsh((data @ data.mT).double())[:, -1].clamp(min=0.0).sqrt().reshape(-1, 1, 1).to(data.dtype)
        largest = data.abs().amax((1, 2), keepdim=True)
        dual = torch.maximum(spectral, largest / weight)
        zeros = torch.zeros_like(data)
        return cls(data, zeros, zeros, data / dual, 1.25 / spectral, _frobenius(data), shrinkage)

    def step(self, weight: float, growth: float, tolerance: float, penalty_tolerance: float) -> torch.Tensor:
        """One pass of Algorithm 5; returns which matrices are done, ``(B,)`` bool."""
        shifted = (self.multiplier / self.penalty).add_(self.data)
        self.low_rank = self.shrinkage(shifted - self.sparse, 1.0 / self.penalty.flatten())
        sparse = soft_threshold(shifted.sub_(self.low_rank), weight / self.penalty)
        residual = (self.data - self.low_rank).sub_(sparse)
        self.multiplier = (self.penalty * residual).add_(self.multiplier)
        if math.isinf(penalty_tolerance):
            self.penalty = growth * self.penalty
        else:
            moved = torch.minimum(self.penalty, self.penalty.sqrt()) * _frobenius(sparse - self.sparse)
            self.penalty = torch.where(moved < penalty_tolerance * self.norm, growth * self.penalty, self.penalty)
        self.sparse = sparse
        return (_frobenius(residual) < tolerance * self.norm).flatten()

    def select(self, rows: torch.Tensor) -> _State:
        return _State(
            self.data[rows], self.low_rank[rows], self.sparse[rows], self.multiplier[rows], self.penalty[rows], self.norm[rows], self.shrinkage.select(rows)
        )


def _frobenius(matrices: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.matrix_norm(matrices, keepdim=True)
    return norms


@dataclass
class RobustPCA:
    """Source 0 is the low-rank part, source 1 the sparse part; the weighted estimates add up to the mixture.

    On audio the sparse part is the voice: it goes to the slot of class speech or vocals, if the task has one.

    Attributes:
        sparsity: lambda in units of the paper's ``1 / sqrt(max(m, n))``.
        growth, tolerance: rho and eps_1 of Algorithm 5, at the paper's values.
        penalty_tolerance: eps_2. At the paper's 1e-5 a digit pair takes more than 300 iterations; 1e-3 takes 74, raises the objective by
            1e-4 of itself and moves PSNR by 0.001 dB (500 MNIST mixtures).
        max_iterations: an end for mixtures that do not converge.
        audio_growth, audio_tolerance, audio_iterations: the same of spectrograms; from a tolerance of 1e-4 on in float32.
        high_pass: on audio, bins below that many Hz belong to the low-rank part.
    """

    sparsity: float = 1.0
    growth: float = 1.6
    tolerance: float = 1e-7
    penalty_tolerance: float = 1e-3
    max_iterations: int = 300
    audio_growth: float = 1.5
    audio_tolerance: float = 1e-4
    audio_iterations: int = 100
    high_pass: float = 100.0

    info: ClassVar[MethodInfo] = MethodInfo(
        name="rpca",
        title="rPCA",
        version="1",
        domains=frozenset({"image", "audio"}),
        supervision="blind",
        paper="Lin, Chen and Ma 2010, Algorithm 5; Candes, Li, Ma and Wright 2011; audio: Huang et al. 2012",
        deterministic=True,
    )

    def __post_init__(self) -> None:
        if min(self.sparsity, self.tolerance, self.penalty_tolerance) <= 0 or self.growth <= 1 or self.max_iterations < 1:
            raise ValueError("sparsity and both tolerances must be positive, growth above 1, max_iterations at least 1")
        if self.audio_tolerance <= 0 or self.audio_growth <= 1 or self.audio_iterations < 1 or self.high_pass < 0:
            raise ValueError("audio_tolerance must be positive, audio_growth above 1, audio_iterations at least 1, high_pass not negative")

    def supports(self, task: TaskSpec) -> Support:
        if task.domain == "audio":
            support = mask_support(task, "robust PCA", parts=2)
            return role_support(task, VOICES, "robust PCA", "sparse part") if support.ok else support
        support = part_support(task, "robust PCA")
        if not support.ok:
            return support
        if task.n_sources != 2:
            return Support(False, f"robust PCA gives two parts, low-rank and sparse; the task has {task.n_sources} sources")
        return Support(True, "degenerate on a single image: neither source is low-rank or sparse, both parts hold pieces of both")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, 2, C, H, W)``, not clamped; a colour image is one matrix ``(H, C W)``.

        Audio ``(B, C, T)`` to ``(B, 2, C, T)``; every channel is a matrix of its own.
        """
        if ctx.task.domain == "audio":
            voice_first = slot_of_role(ctx.task, VOICES) == 0
            return separate_by_masks(mixtures, ctx, lambda magnitudes, rate: self._first_mask(magnitudes, rate, voice_first), chunk_bins=_SPECTROGRAM_CHUNK)
        values = mixtures.values.to(ctx.device)
        batch, channels, height, width = values.shape
        estimates = values.new_empty(batch, 2, channels, height, width)
        for chunk in torch.split(torch.arange(batch), max(1, _CHUNK_ELEMENTS // (height * width * channels))):
            images = values[chunk.to(values.device)].double()
            matrices = images.transpose(1, 2).reshape(-1, height, channels * width)
            parts = self._parts(matrices).reshape(-1, 2, height, channels, width).transpose(2, 3)
            estimates[chunk.to(values.device)] = estimates_from_parts(parts, images, mixtures.operator.select(chunk)).float()
        return estimates

    def _parts(self, matrices: torch.Tensor) -> torch.Tensor:
        found = robust_pca(
            matrices,
            sparsity=self.sparsity,
            growth=self.growth,
            tolerance=self.tolerance,
            penalty_tolerance=self.penalty_tolerance,
            max_iterations=self.max_iterations,
        )
        return torch.stack([found.low_rank, found.sparse], 1)

    def _first_mask(self, magnitudes: torch.Tensor, sample_rate: int, voice_first: bool) -> torch.Tensor:
        """Magnitudes ``(B, C, F, N)`` to the mask ``(B, 1, C, F, N)`` of the part in slot 0: the low-rank one, or the sparse one."""
        matrices = magnitudes.flatten(0, 1)
        largest = _SPECTROGRAM_PIECE.get(magnitudes.device.type, _SPECTROGRAM_PIECE["cpu"]) // matrices[0].numel()
        share = side_by_side(self._background, matrices, largest).reshape(magnitudes.shape)
        background = background_mask(share, self.high_pass, sample_rate)
        return 1.0 - background if voice_first else background

    def _background(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """1 where the low-rank part of ``(B, F, N)`` is at least as large as the sparse one, else 0."""
        wide = spectrograms.shape[1] > spectrograms.shape[2]
        matrices = spectrograms.mT if wide else spectrograms
        rows, columns = matrices.shape[1:]
        # Every matrix of the batch must start at a multiple of 64 bytes: kernels choose their order of summation by the address, and a
        # rounding error can turn a bin. Rows and columns of zeros change nothing but the paper's lambda, which counts columns.
        padded = functional.pad(matrices, (0, -columns % 4, 0, -rows % 4)).contiguous()
        found = robust_pca(
            padded,
            sparsity=self.sparsity * (padded.shape[2] / columns) ** 0.5,
            growth=self.audio_growth,
            tolerance=self.audio_tolerance,
            penalty_tolerance=math.inf,
            max_iterations=self.audio_iterations,
            precision=torch.float32 if self.audio_tolerance >= 1e-4 else torch.float64,
            shrinkage=WarmShrinkage(),
        )
        share = (found.sparse.abs() <= found.low_rank.abs()).to(spectrograms.dtype)[:, :rows, :columns]
        return share.mT if wide else share
