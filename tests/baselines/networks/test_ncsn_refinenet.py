from __future__ import annotations

import re

import pytest
import torch

from baselines.networks.ncsn_refinenet import ConditionalInstanceNormPlus, CondRefineNetDilated, from_checkpoint, ncsn_sigmas


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


def test_norms_begin_near_one_and_without_a_shift() -> None:
    """Scale and multiple are drawn around 1 with deviation 0.02, for each level by itself; the shift is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        weight = ConditionalInstanceNormPlus(200).embed.weight.detach()
    assert weight.shape == (10, 600)
    assert float(weight[:, :400].mean()) == pytest.approx(1.0, abs=0.002)
    assert float(weight[:, :400].std()) == pytest.approx(0.02, rel=0.05)
    assert not bool(weight[:, 400:].any())


def test_the_norm_by_hand() -> None:
    """Channels of mean 1 and 3: standardised they are -1 and 1 over the root of 2."""
    norm = ConditionalInstanceNormPlus(2)
    with torch.no_grad():
        norm.embed.weight[4] = torch.tensor([2.0, 3.0, 0.5, 0.25, 10.0, 20.0])
    x = torch.tensor([[[[0.0, 2.0]], [[2.0, 4.0]]]])
    found = norm(x, torch.tensor([4]))
    half = 0.5**0.5
    wanted = torch.tensor([[[[2 * (-1 - 0.5 * half) + 10, 2 * (1 - 0.5 * half) + 10]], [[3 * (-1 + 0.25 * half) + 20, 3 * (1 + 0.25 * half) + 20]]]])
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_a_checkpoint_is_read_as_float32_and_ready_for_use() -> None:
    state = CondRefineNetDilated(1, 4).half().state_dict()
    network = from_checkpoint(state)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not network.training
    for stem in (None, torch.zeros(4)):
        with pytest.raises(ValueError, match="NCSN") as refused:
            from_checkpoint({} if stem is None else {"begin_conv.weight": stem})
        advice = "it holds no begin_conv.weight; pass the state dict of a CondRefineNetDilated"
        assert str(refused.value) == f"this is no NCSN checkpoint: {advice}"
    with pytest.raises(ValueError, match="missing") as first:
        from_checkpoint({name: value for name, value in state.items() if name not in ("res1.0.conv1.bias", "end_conv.bias")})
    assert str(first.value) == "NCSN checkpoint: end_conv.bias is missing; see docs/protocols.md, section 3.1"
