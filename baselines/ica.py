"""Single-channel ICA of images: FastICA on the patches of one mixture. Davies and James, Signal Processing 87(8), 2007.

Supervision: ``blind``.

ICA needs as many observations as sources. One mixture is one observation, and ordinary ICA is degenerate there. Davies
and James make several observations of one signal by a delay embedding, and show what that can do. The components are
outputs of linear filters, so sources come apart only where their spectra are disjoint. Two digits have the same
spectrum, so this cannot separate them: it scores below ``average``. The row is in the leaderboard as a floor, because
LASS compares with ICA.

For every mixture, the method does the following. Patches are the delay embedding of an image:

1. all overlapping patches are the observations x, ``(C p^2, n)``; colour channels are further rows;
2. whitening: z = D^-1/2 V^T (x - mean), the leading ``components`` principal directions (V, D from ``eigh``);
3. symmetric FastICA (Hyvarinen, IEEE Trans. Neural Networks 10(3), 1999; Hyvarinen, Karhunen and Oja 2001, Table 8.4) with g = tanh,
   from the identity: W <- E[g(W z) z^T] - diag(E[g'(W z)]) W,  W <- (W W^T)^-1/2 W; after five steps stabilised (``fast_ica``);
4. grouping: components that are active at the same places belong to one source. The envelope of a component is its squared activation
   smoothed by a box; envelopes are compared by correlation and put into K groups by energy-weighted spherical k-means from farthest-first
   seeds (``group_components``), most energetic group first;
5. each group's patches A_k W_k z are folded back to an image; mean and dropped directions are shared evenly among the sources.

The defaults were chosen on 500 pairs of MNIST's training images, where they reach 14.1 dB. Patches of 3, 4 and 6 reach
13.6, 13.7 and 13.9, and 16 components reach 14.1 in twice the time. A box of 9 brings textures of disjoint spectra
apart, as it should. Smaller boxes and fewer components do less to the mixture. So digits score higher (14.5 with a box
of 1) only as they move towards ``average`` (14.9). Audio suites get ``baselines/ica_audio.py`` under the same name.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.component_groups import envelope_similarity, group_components
from baselines.decomposition.fast_ica import CHUNK_ELEMENTS, fast_ica, whiten
from baselines.decomposition.parts import estimates_from_parts, part_support
from baselines.decomposition.patches import fold_patches, positions, unfold_patches
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


@dataclass(config=STRICT)
class SingleChannelICA:
    """K groups of filter outputs as estimates; the weighted estimates add up to the mixture."""

    patch: int = Field(8, ge=2, description="p, side of the patches in pixels")
    components: int = Field(8, ge=2, description="independent components per mixture")
    window: int = Field(9, ge=1, description="side of the box that smooths the envelopes, odd, in pixels")
    max_iterations: int = Field(100, ge=1, description="most iterations, for mixtures whose FastICA does not converge")
    tolerance: float = Field(1e-3, gt=0, description="FastICA ends when no component turns by more than sqrt(2 tolerance) radians")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="ica",
        title="ICA",
        version="1",
        domains=frozenset({"image"}),
        supervision="blind",
        paper="Davies and James 2007; Hyvarinen 1999, symmetric FastICA with log cosh",
        deterministic=True,
        max_batch=2048,
        max_batch_cpu=500,
    )

    def __post_init__(self) -> None:
        if self.window % 2 == 0:
            raise ValueError(f"window must be odd, got {self.window}")

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, "single-channel ICA")
        if not support.ok:
            return support
        channels, height, width = task.source_shape
        if self.patch > min(height, width):
            return Support(False, f"patches of {self.patch} pixels do not fit into images of {height} x {width}; choose a smaller patch")
        available = min(self.components, channels * self.patch**2)
        if task.n_sources > available:
            return Support(False, f"{available} components cannot make {task.n_sources} sources; choose a larger patch or more components")
        return Support(True, "degenerate on a single image, which is one observation: filters learnt from its patches separate disjoint spectra only")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, K, C, H, W)``, not clamped; NaN for a mixture that is not finite."""
        values = mixtures.values.to(ctx.device)
        batch, channels, height, width = values.shape
        finite = values.isfinite().flatten(1).all(1)[:, None, None, None]
        seen = torch.where(finite, values, 0.0)
        rows, columns = positions(height, width, self.patch)
        budget = CHUNK_ELEMENTS.get(values.device.type, CHUNK_ELEMENTS["cpu"])
        estimates = values.new_empty(batch, mixtures.n_sources, *values.shape[1:])
        for chunk in torch.split(torch.arange(batch), max(1, budget // (channels * self.patch**2 * rows * columns))):
            images = seen[chunk.to(values.device)].double()
            parts = self._parts(images, mixtures.n_sources)
            estimates[chunk.to(values.device)] = estimates_from_parts(parts, images, mixtures.operator.select(chunk)).float()
            ctx.progress((int(chunk[-1:].sum()) + 1) / max(1, batch), "images")
        return torch.where(finite.unsqueeze(1), estimates, torch.nan)

    def _parts(self, images: torch.Tensor, sources: int) -> torch.Tensor:
        """``(B, K, C, H, W)`` parts that add up to the images."""
        shape = (int(images.shape[-2]), int(images.shape[-1]))
        whitening = whiten(unfold_patches(images, self.patch), self.components)
        unmixing = fast_ica(whitening.white, max_iterations=self.max_iterations, tolerance=self.tolerance).matrix
        activations = unmixing @ whitening.white
        mixing = whitening.inverse @ unmixing.mT
        places = activations.reshape(*activations.shape[:2], *positions(*shape, self.patch))
        energy = mixing.square().sum(1) * activations.square().mean(-1)
        labels = group_components(envelope_similarity(places, self.window), energy, sources)
        groups = [(mixing * (labels == k).to(mixing.dtype).unsqueeze(1)) @ activations for k in range(sources)]
        parts = torch.stack([fold_patches(group, shape, self.patch) for group in groups], 1)
        return parts + (images - parts.sum(1)).unsqueeze(1) / sources
