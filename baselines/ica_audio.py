"""Single-channel ICA of audio: FastICA on a delay embedding of one recording. Davies and James, Signal Processing 87(8), 2007.

Supervision: ``blind``.

ICA needs as many observations as sources. One channel is one observation, and ordinary ICA is degenerate there. Given
one channel, nussl has one component to find. It subtracts the mean, divides by the standard deviation, may turn the
sign, and scales the result to the mixture's peak. The result is the mixture, or the negated mixture, less its mean; a
test shows it.

Davies and James make several observations of one signal by a delay embedding, and show what that can do. The components
are outputs of linear filters, so sources come apart only where their spectra are disjoint. Drums and bass have
different spectra, and two speakers have the same. The row is in the leaderboard as a floor, because LASS compares with
ICA.

For every mixture (mono), the method does the following:

1. all windows of ``lags`` samples are the observations x, ``(p, T + p - 1)``, mirrored at both ends;
2. whitening: z = D^-1/2 V^T (x - mean), the leading ``components`` principal directions (V, D from ``eigh``);
3. symmetric FastICA (Hyvarinen, IEEE Trans. Neural Networks 10(3), 1999; Hyvarinen, Karhunen and Oja 2001, Table 8.4) with g = tanh,
   from the identity: W <- E[g(W z) z^T] - diag(E[g'(W z)]) W,  W <- (W W^T)^-1/2 W; after five steps stabilised (``fast_ica``);
4. grouping: components that are loud at the same times belong to one source. The envelope of a component is its squared activation
   smoothed by a box; envelopes are compared by correlation and put into K groups by energy-weighted spherical k-means from farthest-first
   seeds (``group_components``), most energetic group first;
5. each group's windows A_k W_k z are folded back to a signal; mean and dropped directions are shared evenly among the sources.

On 50 validation mixtures each, 16, 32 and 64 lags gave an SDR of 2.36, 2.25 and 2.35 dB (drums and bass), and of 1.37,
1.50 and 1.82 dB (two speakers). Image suites get ``baselines/ica.py`` under the same name.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch.nn import functional

from baselines.decomposition.component_groups import correlations, group_components
from baselines.decomposition.delay_embedding import Windows
from baselines.decomposition.fast_ica import CHUNK_ELEMENTS, fast_ica, principal_directions
from baselines.decomposition.parts import estimates_from_parts, part_support
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT

_STRIDE = 4
"""Every so many windows are enough to find the components: they differ little from one sample to the next."""


@dataclass(config=STRICT)
class SingleChannelAudioICA:
    """K groups of filter outputs as estimates; the weighted estimates add up to the mixture."""

    lags: int = Field(64, ge=2, description="p, samples of a window")
    components: int = Field(16, ge=2, description="independent components per mixture")
    smoothing: float = Field(0.05, gt=0, description="length of the box that smooths the envelopes, in seconds")
    max_iterations: int = Field(100, ge=1, description="most iterations, for mixtures whose FastICA does not converge")
    tolerance: float = Field(1e-3, gt=0, description="FastICA ends when no component turns by more than sqrt(2 tolerance) radians")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="ica",
        title="ICA",
        version="1",
        domains=frozenset({"audio"}),
        supervision="blind",
        paper="Davies and James 2007; Hyvarinen 1999, symmetric FastICA with log cosh",
        deterministic=True,
        max_batch_cpu=100,
    )

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, "single-channel ICA", self.info.domains)
        if not support.ok:
            return support
        channels, length = task.source_shape
        if channels != 1:
            return Support(False, f"single-channel ICA takes mono signals, the task has {channels} channels")
        if self.lags > length:
            return Support(False, f"windows of {self.lags} samples do not fit into signals of {length}; choose fewer lags")
        available = min(self.components, self.lags)
        if task.n_sources > available:
            return Support(False, f"{available} components cannot make {task.n_sources} sources; choose more lags and components")
        if task.assignment == "ordered":
            return Support(False, "ICA cannot tell which component is which source; choose a task under the best assignment")
        return Support(True, "one channel is one observation: filters learnt from its windows separate disjoint spectra only")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, 1, T)`` to estimates ``(B, K, 1, T)``; NaN for a recording with a sample that is not finite."""
        values = mixtures.values.to(ctx.device)
        finite = values.isfinite().all(-1, keepdim=True)
        heard = torch.where(finite, values, 0.0)
        reach = round(self.smoothing * (ctx.task.sample_rate or 1) / 2)
        budget = CHUNK_ELEMENTS.get(values.device.type, CHUNK_ELEMENTS["cpu"])
        windows = values.shape[-1] + self.lags - 1
        estimates = values.new_empty(len(values), mixtures.n_sources, *values.shape[1:])
        for chunk in torch.split(torch.arange(len(values)), max(1, budget // (self.lags * windows))):
            signals = heard[chunk.to(values.device)].double()
            parts = self._parts(signals[:, 0], mixtures.n_sources, reach).unsqueeze(2)
            estimates[chunk.to(values.device)] = estimates_from_parts(parts, signals, mixtures.operator.select(chunk)).float()
            ctx.progress((int(chunk[-1:].sum()) + 1) / max(1, len(values)), "recordings")
        return torch.where(finite.unsqueeze(1), estimates, torch.nan)

    def _parts(self, signals: torch.Tensor, sources: int, reach: int) -> torch.Tensor:
        """``(B, K, T)`` parts that add up to signals ``(B, T)``, span by span: an embedding of ten minutes would be 7 GB.

        Envelopes are means over the windows at most ``reach`` away, read every ``reach + 1`` windows.
        """
        windows = Windows.of(signals, self.lags)
        mean, covariance = windows.moments()
        matrix, inverse = principal_directions(covariance, self.components)
        white = windows.filtered(matrix, _STRIDE).sub_(matrix @ mean.unsqueeze(-1))
        unmixing = fast_ica(white, max_iterations=self.max_iterations, tolerance=self.tolerance).matrix
        filters, mixing = unmixing @ matrix, inverse @ unmixing.mT
        offset = (filters @ mean.unsqueeze(-1)).squeeze(-1)
        similarity = correlations(windows.envelopes(filters, offset, reach, reach + 1))
        energy = mixing.square().sum(1) * ((filters @ covariance) * filters).sum(-1)
        labels = group_components(similarity, energy, sources)
        groups = functional.one_hot(labels, sources).to(mixing).mT  # (B, K, d)
        maps = (mixing.unsqueeze(1) * groups.unsqueeze(2)) @ filters.unsqueeze(1)
        parts = windows.mapped(maps) - (maps @ mean[:, None, :, None]).mean((-2, -1)).unsqueeze(-1)
        return parts + (signals - parts.sum(1)).unsqueeze(1) / sources
