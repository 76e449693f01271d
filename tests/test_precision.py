"""``float32`` is float32 on a GPU: torch's global switches are set for a block, whatever they were, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sepbench import precision
from sepbench.precision import as_the_session_says, computes_bfloat16, float32_products, has_narrow_map, training_autocast


def switches() -> tuple[Any, ...]:
    """Everything that torch has to say about TF32; what it refuses to say counts as "refused"."""

    def read(what: str) -> Any:
        try:
            return torch.get_float32_matmul_precision() if what == "products" else torch.backends.cudnn.allow_tf32
        except RuntimeError:
            return "refused"

    new = [getattr(getattr(torch.backends.cudnn, name, None), "fp32_precision", None) for name in ("conv", "rnn")]
    return (read("products"), read("convolutions"), torch.backends.cuda.matmul.allow_tf32 if read("products") != "refused" else None, *new)


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    yield
    for operation in (torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", None), getattr(torch.backends.cudnn, "rnn", None)):
        if hasattr(operation, "fp32_precision"):
            operation.fp32_precision = "none" if operation is torch.backends.cuda.matmul else "tf32"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.parametrize("products", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [True, False])
@pytest.mark.parametrize("tf32", [True, False])
def test_products_and_convolutions_agree_inside_and_nothing_is_left_changed(products: str, convolutions: bool, tf32: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
    before = switches()

    def block() -> None:
        with float32_products("cuda:1", tf32):
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (tf32, tf32)
            with float32_products("cuda", not tf32):
                assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (not tf32, not tf32)
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (tf32, tf32)
            raise KeyError

    with pytest.raises(KeyError):
        block()
    assert switches() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has the legacy switches alone")
def test_switches_that_the_legacy_interface_cannot_say_are_put_back_too() -> None:
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # and recurrent layers in TF32: allow_tf32 can be neither
    before = switches()
    assert "refused" in before
    with float32_products("cuda"):
        assert torch.backends.cudnn.allow_tf32 is False
    assert switches() == before


def test_the_cpu_is_left_alone() -> None:
    before = switches()
    with float32_products("cpu", tf32=True), as_the_session_says(torch.device("cpu")):
        assert switches() == before


@pytest.mark.parametrize(("products", "tf32"), [("highest", False), ("high", True), ("medium", True)])
def test_what_has_no_precision_of_its_own_follows_the_session(products: str, tf32: bool) -> None:
    torch.set_float32_matmul_precision(products)
    with as_the_session_says("cuda"):
        assert torch.backends.cudnn.allow_tf32 is tf32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine; scripts/gpu_session.sh runs this where there is one")
def test_float32_convolutions_on_a_gpu_are_those_of_float64() -> None:
    x, w = (torch.randn(8, 64, 28, 28, generator=torch.Generator().manual_seed(1)), torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(2)))
    exact = torch.nn.functional.conv2d(x.double(), w.double(), padding=1)
    errors = []
    for tf32 in (False, True):
        with float32_products("cuda", tf32):
            found = torch.nn.functional.conv2d(x.cuda(), w.cuda(), padding=1).cpu()
        errors.append(float((found - exact).abs().max() / exact.std()))
    assert errors[0] < 1e-5
    assert errors[1] > 10 * errors[0]


# --- bfloat16, where it is computed


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_training_is_in_bfloat16_where_it_is_wanted_and_computed(monkeypatch: pytest.MonkeyPatch, wanted: bool, has: bool) -> None:
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: has)
    with training_autocast("cpu", wanted):
        product = torch.ones(2, 3) @ torch.ones(3, 2)
    assert product.dtype == (torch.bfloat16 if wanted and has else torch.float32)


def test_rounded_weights_are_kept_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: True)
    for kept in (True, False):
        with training_autocast("cpu", True, cache_enabled=kept):
            assert torch.is_autocast_cache_enabled() == kept


def test_a_processor_is_asked_and_a_gpu_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[bool] = [False, True]
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: answers.pop(0))
    assert [computes_bfloat16("cpu"), computes_bfloat16(torch.device("cpu"))] == [False, True]
    assert computes_bfloat16("cuda")
    assert computes_bfloat16("cuda:1")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not computes_bfloat16("cpu")


def test_a_torch_that_cannot_tell_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not computes_bfloat16("cpu")


def test_the_block_is_of_the_device_s_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: True)
    for device, kind in (("cpu", "cpu"), (torch.device("cuda", 1), "cuda")):
        block = training_autocast(device, bfloat16=False)
        assert (block.device, block.fast_dtype, block._enabled, block._cache_enabled) == (kind, torch.bfloat16, False, True)
    assert not training_autocast("cpu", bfloat16=True, cache_enabled=False)._cache_enabled


@pytest.mark.parametrize(
    ("size", "halvings", "narrow"),
    [
        ((64, 16), 4, True),
        ((64, 16), 3, False),
        ((16, 64), 4, False),
        ((16, 16), 4, False),
        ((16, 15), 3, True),  # 8 x 7, 4 x 3, 2 x 1: halves are rounded down
        ((15, 16), 5, False),
        ((64, 2), 1, True),
        ((64, 1), 3, False),
        ((4, 2), 1, True),
        ((3, 2), 1, False),
    ],
)
def test_a_map_that_is_1_wide_and_higher(size: tuple[int, int], halvings: int, narrow: bool) -> None:
    assert has_narrow_map(size, halvings) is narrow


def test_a_narrow_map_is_computed_in_float32_by_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: True)
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype, enabled, cache_enabled: asked.append((kind, enabled)))
    for device in ("cpu", "cuda:1"):
        for narrow in (False, True):
            training_autocast(device, bfloat16=True, narrow=narrow)
    assert asked == [("cpu", True), ("cpu", False), ("cuda", True), ("cuda", True)]
