"""The noise-conditional score network of Song and Ermon (NeurIPS 2019), app. A and B.

The paper is "Generative modeling by estimating gradients of the data distribution". The network is the RefineNet with
dilated convolutions that BASIS uses as its prior. The layout follows docs/protocols.md, section 3.1 (7,638,657
parameters on MNIST, 30,117,635 on CIFAR-10). It uses no code of the authors. The network takes the number of one of
ten noise levels, and returns the score itself, for images in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

N_LEVELS = 10
_RCU_CONVS = 2
_CRP_STAGES = 2


def ncsn_sigmas() -> torch.Tensor:
    """The ten levels of Song and Ermon (2019), sec. 5: geometric from 1 to 0.01, ``(10,)`` float64."""
    return torch.logspace(0.0, -2.0, N_LEVELS, dtype=torch.float64)


def _conv3(inputs: int, outputs: int, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)


class ConditionalInstanceNormPlus(nn.Module):
    """Instance norm plus a learned multiple of the standardised channel means (app. A.1).

    Scale, multiple and shift depend on the noise level.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(N_LEVELS, 3 * channels)
        with torch.no_grad():
            self.embed.weight[:, : 2 * channels].normal_(1.0, 0.02)
            self.embed.weight[:, 2 * channels :].zero_()

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        gamma, alpha, beta = (p[:, :, None, None] for p in self.embed(level).chunk(3, dim=1))
        means = x.mean(dim=(2, 3), keepdim=True)
        standardised = (means - means.mean(1, keepdim=True)) / torch.sqrt(means.var(1, keepdim=True) + 1e-5)
        out: torch.Tensor = gamma * (F.instance_norm(x) + alpha * standardised) + beta
        return out


class MeanPoolConv(nn.Module):
    """A convolution, then the mean of each 2x2 block."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(self.conv(x), 2)


class ConditionalResidualBlock(nn.Module):
    """norm, ELU, conv, norm, ELU, conv, plus the input.

    The first block of a stage may halve the resolution or dilate.
    """

    def __init__(self, inputs: int, outputs: int, pool: bool = False, dilation: int = 1, first: bool = False) -> None:
        super().__init__()
        middle = inputs if first else outputs
        self.conv1 = _conv3(inputs, middle, dilation)
        self.normalize2 = ConditionalInstanceNormPlus(middle)
        self.conv2: nn.Module = MeanPoolConv(middle, outputs, 3) if pool else _conv3(middle, outputs, dilation)
        self.shortcut: nn.Module | None = None
        if first:
            self.shortcut = MeanPoolConv(inputs, outputs, 1) if pool else _conv3(inputs, outputs, dilation)
        self.normalize1 = ConditionalInstanceNormPlus(inputs)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.elu(self.normalize1(x, level)))
        h = self.conv2(F.elu(self.normalize2(h, level)))
        out: torch.Tensor = h + (x if self.shortcut is None else self.shortcut(x))
        return out


class ResidualConvUnit(nn.Module):
    """RCU: ``blocks`` times (norm, ELU, 3x3 conv) twice, plus the input."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.norms = nn.ModuleList(ConditionalInstanceNormPlus(channels) for _ in range(blocks * _RCU_CONVS))
        self.convs = nn.ModuleList(_conv3(channels, channels, bias=False) for _ in range(blocks * _RCU_CONVS))

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        for block in range(self.blocks):
            h = x
            for number in range(block * _RCU_CONVS, (block + 1) * _RCU_CONVS):
                h = self.convs[number](F.elu(self.norms[number](h, level)))
            x = x + h
        return x


class MultiScaleFusion(nn.Module):
    """MSF: norm and 3x3 conv of each input, upsampled to the finest resolution and summed.

    Upsampling is bilinear with aligned corners.
    """

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalInstanceNormPlus(width) for width in inputs)
        self.convs = nn.ModuleList(_conv3(width, channels) for width in inputs)

    def forward(self, inputs: Sequence[torch.Tensor], level: torch.Tensor, size: torch.Size) -> torch.Tensor:
        scaled = [
            F.interpolate(conv(norm(x, level)), size=size, mode="bilinear", align_corners=True)
            for x, norm, conv in zip(inputs, self.norms, self.convs, strict=True)
        ]
        return torch.stack(scaled).sum(0)


class ChainedResidualPooling(nn.Module):
    """CRP: ELU, then a chain of stages with norm, 5x5 average pooling and 3x3 conv.

    Each is added to the running sum.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalInstanceNormPlus(channels) for _ in range(_CRP_STAGES))
        self.convs = nn.ModuleList(_conv3(channels, channels, bias=False) for _ in range(_CRP_STAGES))

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        x = F.elu(x)
        path = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(F.avg_pool2d(norm(path, level), 5, stride=1, padding=2))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """RCUs of every input, fusion (unless there is one input), chained pooling, output RCU."""

    def __init__(self, inputs: Sequence[int], channels: int, output_blocks: int = 1) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(ResidualConvUnit(width, 2) for width in inputs)
        self.output = ResidualConvUnit(channels, output_blocks)
        self.fusion = MultiScaleFusion(inputs, channels) if len(inputs) > 1 else None
        self.pooling = ChainedResidualPooling(channels)

    def forward(self, inputs: Sequence[torch.Tensor], level: torch.Tensor, size: torch.Size) -> torch.Tensor:
        adapted = [unit(x, level) for unit, x in zip(self.adapt, inputs, strict=True)]
        h = adapted[0] if self.fusion is None else self.fusion(adapted, level, size)
        out: torch.Tensor = self.output(self.pooling(h, level), level)
        return out


class CondRefineNetDilated(nn.Module):
    """Images and noise levels to scores ``(B, C, H, W)``.

    The images are ``(B, C, H, W)`` in [0, 1] plus noise. The level numbers are ``(B,)`` int64: 0 is sigma = 1, and 9
    is 0.01.

    Args:
        channels: image channels.
        features: width of the first stage: 64 on MNIST, 128 on CIFAR-10 and CelebA.
    """

    def __init__(self, channels: int = 1, features: int = 64) -> None:
        super().__init__()
        f, f2 = features, 2 * features
        self.begin_conv = _conv3(channels, f)
        self.normalizer = ConditionalInstanceNormPlus(f)
        self.end_conv = _conv3(f, channels)
        block = ConditionalResidualBlock
        self.res1 = nn.ModuleList([block(f, f), block(f, f)])
        self.res2 = nn.ModuleList([block(f, f2, pool=True, first=True), block(f2, f2)])
        self.res3 = nn.ModuleList([block(f2, f2, dilation=2, first=True), block(f2, f2, dilation=2)])
        self.res4 = nn.ModuleList([block(f2, f2, dilation=4, first=True), block(f2, f2, dilation=4)])
        self.refine1 = RefineBlock((f2,), f2)
        self.refine2 = RefineBlock((f2, f2), f2)
        self.refine3 = RefineBlock((f2, f2), f)
        self.refine4 = RefineBlock((f, f), f, output_blocks=3)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        h = self.begin_conv(2.0 * x - 1.0)
        layers = []
        for stage in (self.res1, self.res2, self.res3, self.res4):
            for block in stage:
                h = block(h, level)
            layers.append(h)
        first, second, third, fourth = layers
        h = self.refine1([fourth], level, fourth.shape[2:])
        h = self.refine2([third, h], level, third.shape[2:])
        h = self.refine3([second, h], level, second.shape[2:])
        h = self.refine4([first, h], level, first.shape[2:])
        out: torch.Tensor = self.end_conv(F.elu(self.normalizer(h, level)))
        return out


_RENAMED = (
    (re.compile(r"^module\."), ""),
    (re.compile(r"\.adapt_convs\."), ".adapt."),
    (re.compile(r"\.output_convs\."), ".output."),
    (re.compile(r"\.msf\."), ".fusion."),
    (re.compile(r"\.crp\."), ".pooling."),
)
_RCU_NAME = re.compile(r"\.(\d)_(\d)_(norm|conv)\.")


def _own_name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return _RCU_NAME.sub(lambda m: f".{m[3]}s.{(int(m[1]) - 1) * _RCU_CONVS + int(m[2]) - 1}.", name)


def from_checkpoint(state: Mapping[str, torch.Tensor]) -> CondRefineNetDilated:
    """The network of a checkpoint, in evaluation mode and float32.

    The names are the authors' (the first element of the list that their trainer saves) or ours.

    Args:
        state: tensors by parameter name, with or without the prefix ``module.``.

    Raises:
        ValueError: a tensor is missing, is not part of the layout, or has another shape.
    """
    own = {_own_name(name): value for name, value in state.items()}
    stem = own.get("begin_conv.weight")
    if stem is None or stem.ndim != 4:
        raise ValueError("this is no NCSN checkpoint: it holds no begin_conv.weight; pass the state dict of a CondRefineNetDilated")
    network = CondRefineNetDilated(channels=stem.shape[1], features=stem.shape[0])
    wanted = network.state_dict()
    for name in sorted(set(wanted) ^ set(own)):
        raise ValueError(f"NCSN checkpoint: {name} is {'missing' if name in wanted else 'not part of the layout'}; see docs/protocols.md, section 3.1")
    for name, value in own.items():
        if value.shape != wanted[name].shape:
            raise ValueError(f"NCSN checkpoint: {name} has shape {tuple(value.shape)}, the layout needs {tuple(wanted[name].shape)}")
    network.load_state_dict({name: value.to(torch.float32) for name, value in own.items()})
    return network.eval()
