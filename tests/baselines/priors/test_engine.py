"""Engines give eager's numbers; where they fail, eager goes on. Graphs are recorded by a stand-in, for there is no GPU in these tests."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from baselines.networks.unet import ScoreUNet, UNetConfig
from baselines.priors.edm import EDMDenoiser
from baselines.priors.engine import MAX_GRAPHS, Engine, EngineKind, Pass, Recorded, fused_norm, rounded
from baselines.priors.score_prior import EDMPrior
from baselines.priors.weights_io import save_prior
from sepbench.precision import Precision

SHAPE = (3, 8, 8)


def record_by_calling_again(function: Pass, x: torch.Tensor, sigma: torch.Tensor) -> Recorded:
    """What a graph does, without one: it computes on its own buffers into its own output."""
    x, sigma = x.clone(), sigma.clone(memory_format=torch.contiguous_format)
    out = function(x, sigma).clone()

    def replay() -> None:
        out.copy_(function(x, sigma))

    return Recorded(x, sigma, out, replay)


@pytest.fixture
def denoiser() -> EDMDenoiser:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        network = ScoreUNet(UNetConfig(channels=3, widths=(8, 16, 16), blocks=(1, 1, 1), heads=2, embedding=16))
        for p in network.parameters():
            if not bool(p.any()):
                nn.init.normal_(p, 0.0, 0.1)
    return EDMDenoiser(network, 0.3, 0.4).eval().requires_grad_(False)


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE, generator=random), torch.full((), 0.1 * seed + 0.1).expand(count)


def test_a_recorded_pass_gives_eagers_numbers_and_outputs_of_its_own(denoiser: EDMDenoiser) -> None:
    engine, calls = Engine("graph", record_by_calling_again), []
    for count, seed in ((4, 1), (4, 2), (2, 3), (4, 4)):
        x, sigma = images(count, seed)
        calls.append((engine(denoiser.forward, denoiser, x, sigma), denoiser(x, sigma)))
    score = engine(denoiser.score, denoiser, *images(4, 1))
    for found, wanted in (*calls, (score, denoiser.score(*images(4, 1)))):  # after all calls: none has overwritten another's output
        assert torch.equal(found, wanted)
    assert len(engine._made) == 3


def test_shapes_beyond_the_limit_are_not_recorded(denoiser: EDMDenoiser) -> None:
    engine = Engine("graph", record_by_calling_again)
    for count in range(1, MAX_GRAPHS + 4):
        x, sigma = images(count, 1)
        assert torch.equal(engine(denoiser.forward, denoiser, x, sigma), denoiser(x, sigma))
    assert len(engine._made) == MAX_GRAPHS
    assert not engine.failed


@pytest.mark.parametrize("kind", ["graph", "compile"])
def test_where_an_engine_fails_eager_goes_on(denoiser: EDMDenoiser, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch, "compile", lambda function: fails)
    engine = Engine(kind, fails)  # type: ignore[arg-type]
    x, sigma = images(3, 1)
    with pytest.warns(RuntimeWarning, match=rf"engine {kind} failed and eager goes on \(RuntimeError: operation not permitted when stream is capturing\)"):
        found = engine(denoiser.forward, denoiser, x, sigma)
    torch.testing.assert_close(found, denoiser(x, sigma), rtol=1e-5, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine(denoiser.forward, denoiser, x, sigma)


def test_out_of_memory_is_for_the_caller_who_halves(denoiser: EDMDenoiser) -> None:
    def full(*args: object) -> Recorded:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    engine = Engine("graph", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        engine(denoiser.forward, denoiser, *images(3, 1))
    assert not engine.failed


def test_channels_last_and_a_compiler_change_roundings_only(denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """The compiler's part is left out; the memory format is real, also for what is stored."""
    x, sigma = images(5, 2)
    wanted, before = denoiser(x, sigma), {name: value.clone() for name, value in denoiser.state_dict().items()}
    monkeypatch.setattr(torch, "compile", lambda function: function)
    prior = EDMPrior(denoiser, SHAPE, (0.01, 2.0)).with_engine("compile")
    torch.testing.assert_close(prior.denoise(x, sigma), wanted, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    save_prior(tmp_path / "weights.safetensors", prior)


def test_gradients_are_taken_of_the_eager_pass(denoiser: EDMDenoiser) -> None:
    prior = EDMPrior(denoiser, SHAPE, (0.01, 2.0), engine=Engine("graph", record_by_calling_again))
    x = images(2, 1)[0].requires_grad_(True)
    prior.denoise(x, 0.3).sum().backward()
    assert x.grad is not None
    assert not prior.engine._made
    prior.denoise(x.detach(), 0.3)
    assert prior.engine._made


def test_weights_rounded_once_are_those_that_autocast_rounds_at_every_call(denoiser: EDMDenoiser) -> None:
    x, sigma = images(5, 2)
    copied = rounded(denoiser)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(copied(x, sigma), denoiser(x, sigma))
    kept = [p.dtype for p in denoiser.parameters()]
    assert set(kept) == {torch.float32}
    assert {p.dtype for p in copied.parameters()} == {torch.float32, torch.bfloat16}


def test_weights_are_rounded_once_on_a_gpu_in_bfloat16_only(denoiser: EDMDenoiser) -> None:
    gpu, cpu, engine = torch.device("cuda:0"), torch.device("cpu"), Engine()
    assert engine.network(denoiser, True, cpu) is engine.network(denoiser, False, gpu) is denoiser
    once = engine.network(denoiser, True, gpu)
    assert once is not denoiser
    assert engine.network(denoiser, True, gpu) is once
    assert Engine(round_once=False).network(denoiser, True, gpu) is denoiser


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine; scripts/gpu_session.sh runs this where there is one")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["graph", "fused", "compile"])
def test_engines_on_a_gpu(denoiser: EDMDenoiser, kind: EngineKind, precision: Precision) -> None:
    eager = EDMPrior(denoiser, SHAPE, (0.01, 2.0), precision).to("cuda")
    prior = eager.with_engine(kind)
    for count, seed in ((6, 1), (6, 2), (3, 3)):
        x = images(count, seed)[0].cuda()
        wanted, found = eager.denoise(x, 0.3), prior.denoise(x, 0.3)
        if kind == "graph":
            assert torch.equal(found, wanted)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 if precision == "float32" else 3e-2)
    assert not prior.engine.failed


def _norm_silu(x: torch.Tensor, norm: nn.GroupNorm, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None) -> torch.Tensor:
    """What the kernel computes, in torch."""
    y = norm(x.float()) if scale is None or shift is None else norm(x.float()) * scale.float() + shift.float()
    return torch.nn.functional.silu(y).to(x.dtype)


def _as_if_on_a_gpu(monkeypatch: pytest.MonkeyPatch, kernel: Any) -> Engine:
    """An engine whose kernel is tried on the CPU."""
    monkeypatch.setitem(sys.modules, "baselines.networks.norm_kernel", SimpleNamespace(norm_silu=kernel))
    monkeypatch.setattr("baselines.priors.engine.fused_norm", lambda device, check=fused_norm: check(torch.device("cpu")))
    return Engine("fused", record_by_calling_again)


def test_fused_norms_change_roundings_only(denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    x, sigma = images(5, 2)
    for bfloat16, tolerance in ((False, 1e-5), (True, 2e-2)):
        engine = _as_if_on_a_gpu(monkeypatch, _norm_silu)
        network = engine.network(denoiser, bfloat16, torch.device("cuda"))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            wanted, found = denoiser(x, sigma), engine(network.forward, network, x, sigma)
        torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)
        assert not engine.failed
        assert len(engine._made) == 1
    assert denoiser.network.fused is None  # what is trained, stored and differentiated is left alone


def test_a_kernel_with_other_numbers_is_not_used(denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _as_if_on_a_gpu(monkeypatch, lambda x, norm, scale=None, shift=None: 1.001 * _norm_silu(x, norm, scale, shift))
    with pytest.warns(RuntimeWarning, match="engine fused failed and eager goes on .*not torch's"):
        network = engine.network(denoiser, False, torch.device("cuda"))
    x, sigma = images(5, 2)
    assert torch.equal(engine(network.forward, network, x, sigma), denoiser(x, sigma))


KERNEL = """
import torch
from torch import nn
from torch.nn import functional as F
from baselines.networks.norm_kernel import norm_silu
from baselines.priors.engine import fused_norm
fused_norm(torch.device("cpu"))
random = torch.Generator().manual_seed(0)
for channels, side in ((16, 7), (16, 28), (24, 5)):
    x = 2 * torch.randn(3, channels, side, side, generator=random) + 1
    scale, shift = torch.randn(3, 2 * channels, generator=random)[:, :, None, None].chunk(2, 1)
    for affine in (True, False):
        norm = nn.GroupNorm(channels // 8, channels, affine=affine).requires_grad_(False)
        if affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        torch.testing.assert_close(norm_silu(x, norm), F.silu(norm(x)), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(norm_silu(x, norm, scale, shift), F.silu(norm(x) * scale + shift), rtol=1e-5, atol=1e-5)
        half = norm_silu(x.bfloat16(), norm, scale.bfloat16(), shift.bfloat16())
        assert half.dtype == torch.bfloat16
        wanted = F.silu(norm(x.bfloat16().float()) * scale.bfloat16().float() + shift.bfloat16().float())
        torch.testing.assert_close(half.float(), wanted, rtol=1e-2, atol=1e-2)
large = torch.randn(1, 8, 64, 64, generator=random)  # more than a program holds
norm = nn.GroupNorm(1, 8).requires_grad_(False)
torch.testing.assert_close(norm_silu(large, norm), F.silu(norm(large)))
"""


def test_the_norms_kernel_is_torchs() -> None:
    """In Triton's interpreter, in a process of its own."""
    pytest.importorskip("triton", reason="Triton is not installed; it comes with torch for CUDA")
    done = subprocess.run([sys.executable, "-c", KERNEL], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_norms_kernel_compiles_for_a_gpu_that_is_not_there(dtype: str) -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed; it comes with torch for CUDA")
    from triton.backends.compiler import GPUTarget

    from baselines.networks.norm_kernel import _norm_silu as kernel

    signature = dict.fromkeys(("x", "out", "weight", "bias", "scale", "shift"), f"*{dtype}")
    signature |= {**dict.fromkeys(("channels", "size", "row_stride"), "i32"), "eps": "fp32"}
    signature |= dict.fromkeys(("GROUP", "AFFINE", "MODULATED", "BLOCK"), "constexpr")
    constants = {"GROUP": 8, "AFFINE": True, "MODULATED": True, "BLOCK": 8192}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants)
    assert "cubin" in triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8}).asm


def test_a_pass_under_autocast_is_another_graph_and_no_images_are_none(denoiser: EDMDenoiser) -> None:
    engine = Engine("graph", record_by_calling_again)
    x, sigma = images(3, 1)
    plain = engine(denoiser.forward, denoiser, x, sigma)
    with torch.autocast("cpu", torch.bfloat16):
        rough = engine(denoiser.forward, denoiser, x, sigma)
    assert not torch.equal(plain, rough)
    assert [key[::2] for key in engine._made] == [("forward", False), ("forward", True)]
    assert engine(denoiser.forward, denoiser, x[:0], sigma[:0]).shape == (0, *SHAPE)
    assert len(engine._made) == 2


def test_an_engine_that_gives_up_says_so_once_and_keeps_nothing(denoiser: EDMDenoiser) -> None:
    calls: list[int] = []

    def sometimes(function: Pass, x: torch.Tensor, sigma: torch.Tensor) -> Recorded:
        calls.append(len(x))
        if len(x) == 2:
            raise ValueError("a" * 300 + "\nand more")
        return record_by_calling_again(function, x, sigma)

    engine = Engine("graph", sometimes)
    engine(denoiser.forward, denoiser, *images(3, 1))
    engine._compiled["forward"] = denoiser.forward
    with pytest.warns(RuntimeWarning) as warned:
        engine(denoiser.forward, denoiser, *images(2, 1))
    assert [str(one.message) for one in warned] == [f"engine graph failed and eager goes on (ValueError: {'a' * 200})"]
    assert (engine.failed, engine._made, engine._compiled) == (True, {}, {})
    engine(denoiser.forward, denoiser, *images(3, 1))
    assert calls == [3, 2]


def test_a_compiler_is_called_once_for_each_pass(denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    seen: list[tuple[bool, bool]] = []

    def compile_it(function: Pass) -> Pass:
        compiled.append(function.__name__)

        def run(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            seen.append((x.is_contiguous(memory_format=torch.channels_last), sigma.is_contiguous()))
            return function(x, sigma)

        return run

    monkeypatch.setattr(torch, "compile", compile_it)
    engine = Engine("compile", record_by_calling_again)
    for function in (denoiser.forward, denoiser.score, denoiser.forward):
        engine(function, denoiser, *images(3, 1))
    assert compiled == ["forward", "score"]
    assert seen == [(True, True)] * 3
    assert engine._made == {}


def test_a_network_in_which_nothing_is_rounded_or_fused_is_itself(denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    engine = _as_if_on_a_gpu(monkeypatch, _norm_silu)
    assert engine.network(denoiser, False, cpu) is denoiser
    assert engine._own is None
    for rounds, dtypes in ((False, {torch.float32}), (True, {torch.float32, torch.bfloat16})):
        engine = _as_if_on_a_gpu(monkeypatch, _norm_silu)
        made = engine.network(denoiser, rounds, gpu)
        assert {p.dtype for p in made.parameters()} == dtypes
        assert made.network.fused is _norm_silu  # type: ignore[union-attr]
    assert Engine("graph").network(denoiser, False, gpu) is denoiser


@pytest.mark.parametrize(("plain", "scaled", "used"), [(3e-4, 0.0, False), (0.0, 3e-4, False), (0.0, -3e-4, False), (3e-5, 3e-5, True)])
def test_a_kernel_is_compared_with_and_without_scale_and_shift(plain: float, scaled: float, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(x: torch.Tensor, norm: nn.GroupNorm, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None) -> torch.Tensor:
        return _norm_silu(x, norm, scale, shift) + (plain if scale is None else scaled)

    monkeypatch.setitem(sys.modules, "baselines.networks.norm_kernel", SimpleNamespace(norm_silu=kernel))
    if used:
        assert fused_norm(torch.device("cpu")) is kernel
        return
    with pytest.raises(RuntimeError, match=r"^the kernel's norms are not torch's$"):
        fused_norm(torch.device("cpu"))
