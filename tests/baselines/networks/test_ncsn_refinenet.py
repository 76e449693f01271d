from __future__ import annotations

import re

import pytest
import torch

from baselines.networks.ncsn_refinenet import CondRefineNetDilated, from_checkpoint, ncsn_sigmas


@pytest.mark.parametrize(("channels", "features", "count"), [(1, 64, 7_638_657), (3, 128, 30_117_635)])
def test_parameter_counts(channels: int, features: int, count: int) -> None:
    """docs/protocols.md, section 3.1."""
    with torch.device("meta"):
        network = CondRefineNetDilated(channels, features)
    assert sum(p.numel() for p in network.parameters()) == count


def test_levels_are_those_of_the_paper() -> None:
    printed = [1, 0.59948, 0.35938, 0.21544, 0.12915, 0.07743, 0.04642, 0.02783, 0.01668, 0.01]
    assert ncsn_sigmas().tolist() == pytest.approx(printed, abs=5e-6)


@pytest.mark.parametrize("size", [28, 32])
def test_output_is_shaped_like_the_input_and_depends_on_the_level(size: int) -> None:
    network = CondRefineNetDilated(1, 4).eval()
    x = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    high, low, both = (network(x, torch.tensor(level)) for level in ([0, 0], [9, 9], [0, 9]))
    assert high.shape == x.shape
    assert not torch.allclose(high, low)
    torch.testing.assert_close(both, torch.stack([high[0], low[1]]))


def _authors_name(name: str) -> str:
    name = re.sub(r"\.(norm|conv)s\.(\d)\.", lambda m: f".{int(m[2]) // 2 + 1}_{int(m[2]) % 2 + 1}_{m[1]}.", name) if re.search(r"adapt|output", name) else name
    for own, theirs in ((".adapt.", ".adapt_convs."), (".output.", ".output_convs."), (".fusion.", ".msf."), (".pooling.", ".crp.")):
        name = name.replace(own, theirs)
    return "module." + name


def test_a_checkpoint_in_the_authors_naming_is_mapped() -> None:
    source = CondRefineNetDilated(1, 4).eval()
    state = {_authors_name(name): value for name, value in source.state_dict().items()}
    assert "module.refine4.output_convs.3_2_conv.weight" in state
    assert "module.refine2.adapt_convs.1.2_1_norm.embed.weight" in state
    assert "module.refine3.msf.convs.0.bias" in state
    assert "module.res2.0.conv2.conv.weight" in state
    mapped = from_checkpoint(state)
    x, level = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([4])
    torch.testing.assert_close(mapped(x, level), source(x, level))


def test_checkpoints_that_do_not_fit_are_refused_by_name() -> None:
    state = CondRefineNetDilated(1, 4).state_dict()
    with pytest.raises(ValueError, match=r"begin_conv\.weight"):
        from_checkpoint({"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"res3\.1\.conv1\.bias is missing"):
        from_checkpoint({name: value for name, value in state.items() if name != "res3.1.conv1.bias"})
    with pytest.raises(ValueError, match="extra is not part of the layout"):
        from_checkpoint({**state, "extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"end_conv\.bias has shape \(2,\), the layout needs \(1,\)"):
        from_checkpoint({**state, "end_conv.bias": torch.zeros(2)})
