"""The token transformer of LASS: its size, causality, and that making a sequence step by step is the full pass."""

from __future__ import annotations

import pytest
import torch

from baselines.networks.token_transformer import TokenTransformer, _Dropout


@pytest.fixture
def small() -> TokenTransformer:
    network = TokenTransformer(codes=5, length=6, width=8, layers=2, heads=2)
    network.draw_weights(torch.Generator().manual_seed(1))
    with torch.no_grad():
        for weight in network.parameters():  # GPT-2's first weights are too small for the tests to see what depends on what
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())), alpha=0.5)
    return network


def _tokens(count: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(5, (count, 6), generator=torch.Generator().manual_seed(seed))


def test_size_is_the_papers() -> None:
    """Section 7.1 of docs/protocols.md has 0.63 M: 634,112, and here the vector that begins a sequence."""
    assert sum(p.numel() for p in TokenTransformer().parameters()) == 634_112 + 128


def test_steps_with_a_cache_are_the_full_pass(small: TokenTransformer) -> None:
    tokens = _tokens(4)
    cache, made = small.start(4), []
    for position in range(6):
        made.append(small.step(tokens[:, position - 1] if position else None, cache))
    torch.testing.assert_close(torch.stack(made, 1), small(tokens), atol=1e-5, rtol=1e-5)


def test_a_cache_goes_on_with_other_sequences(small: TokenTransformer) -> None:
    """Sequences that a search keeps, twice or not at all, go on as themselves."""
    tokens, rows = _tokens(4), torch.tensor([2, 1, 0, 0])
    cache = small.start(4)
    for position in range(3):
        small.step(tokens[:, position - 1] if position else None, cache)
    before = cache.values[..., : cache.filled, :].clone()
    cache.reorder(rows)
    assert torch.equal(cache.values[..., : cache.filled, :], before[:, :, rows])
    logits = small.step(tokens[rows, 2], cache)
    torch.testing.assert_close(logits, small(tokens[rows])[:, 3], atol=1e-5, rtol=1e-5)


def test_a_position_sees_the_tokens_before_it_alone(small: TokenTransformer) -> None:
    tokens = _tokens(2)
    for position in range(6):
        changed = tokens.clone()
        changed[:, position] = (changed[:, position] + 1) % 5
        same = (small(changed) - small(tokens)).abs().amax((0, 2)) < 1e-6
        assert same[: position + 1].all()
        assert not same[position + 1 :].any()


def test_what_begins_a_sequence_is_a_vector_of_its_own(small: TokenTransformer) -> None:
    before, first = small(_tokens(1))[:, 0], small.step(None, small.start(1))
    torch.testing.assert_close(first, before)
    with torch.no_grad():
        small.begin.neg_()
    assert not torch.allclose(small(_tokens(1))[:, 0], before)


def test_log_prob_is_that_of_the_steps_and_sums_to_one() -> None:
    network = TokenTransformer(codes=3, length=3, width=8, layers=1, heads=1)
    network.draw_weights(torch.Generator().manual_seed(7))
    every = torch.cartesian_prod(*[torch.arange(3)] * 3)
    with torch.no_grad():
        assert float(network.log_prob(every).exp().sum()) == pytest.approx(1.0, abs=1e-6)


def test_dropout_draws_from_its_generator_alone(small: TokenTransformer) -> None:
    tokens = _tokens(4)
    state = torch.get_rng_state()
    first, again, other = (small(tokens, 0.3, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(small(tokens, 0.3), small(tokens)), "no generator, no dropout"


def test_written_out_attention_is_torchs(small: TokenTransformer) -> None:
    """Of a rate so small that nothing is dropped."""
    tokens = _tokens(4)
    torch.testing.assert_close(small(tokens, 1e-7, torch.Generator().manual_seed(0)), small(tokens), atol=1e-5, rtol=1e-5)


def test_steps_out_of_turn(small: TokenTransformer) -> None:
    cache = small.start(1)
    with pytest.raises(ValueError, match="takes no token"):
        small.step(torch.tensor([0]), cache)
    small.step(None, cache)
    with pytest.raises(ValueError, match="the token before it"):
        small.step(None, cache)
    for _ in range(5):
        small.step(torch.tensor([0]), cache)
    with pytest.raises(ValueError, match="nothing"):
        small.step(torch.tensor([0]), cache)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        TokenTransformer(width=10, heads=3)


def test_first_weights_are_gpt_2s() -> None:
    """Deviation 0.02, and a fraction of it in the two layers of a block that add to the stream; no biases."""
    network = TokenTransformer(codes=50, length=40, width=64, layers=2, heads=2)
    for p in network.parameters():
        torch.nn.init.constant_(p, 7.0)
    network.draw_weights(torch.Generator().manual_seed(0))
    for name, p in network.named_parameters():
        if "norm" in name or "before" in name:
            assert bool((p == 7.0).all()), name
        elif name.endswith("bias"):
            assert not bool(p.any()), name
        else:
            adds = name.endswith(("out.weight", "down.weight"))
            assert float(p.detach().std()) == pytest.approx(0.02 / (2.0 if adds else 1.0), rel=0.25 if p.ndim == 1 else 0.05), name
            assert float(p.detach().mean()) == pytest.approx(0.0, abs=0.008 if p.ndim == 1 else 0.002), name


def test_dropout_drops_its_share_and_scales_the_rest() -> None:
    x = torch.ones(200, 500)
    dropped = _Dropout(0.25, torch.Generator().manual_seed(0))(x)
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float((dropped == 0).double().mean()) == pytest.approx(0.25, abs=0.01)
    for rate, random in ((0.0, torch.Generator()), (0.25, None)):
        assert _Dropout(rate, random)(x) is x


def test_with_dropout_a_position_sees_the_tokens_before_it_alone(small: TokenTransformer) -> None:
    tokens = _tokens(2)
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 5
    one, other = (small(some, 0.4, torch.Generator().manual_seed(3)) for some in (tokens, changed))
    same = (one - other).abs().amax((0, 2)) < 1e-6
    assert same.tolist() == [True] * 4 + [False] * 2


def test_words_for_steps_out_of_turn(small: TokenTransformer) -> None:
    cache = small.start(2)
    told = []
    for position in range(7):
        for tokens in (torch.tensor([0, 1]), None):
            if (tokens is None) == (position == 0) and position < 6:
                continue
            with pytest.raises(ValueError, match="position") as refused:
                small.step(tokens, cache)
            told.append(str(refused.value))
        if position < 6:
            small.step(None if position == 0 else torch.tensor([0, 1]), cache)
    assert told[0] == "position 0 of 6 takes no token"
    assert told[1:6] == [f"position {position} of 6 takes the token before it" for position in range(1, 6)]
    assert told[6:] == ["position 6 of 6 takes nothing"] * 2


def test_shapes_and_types(small: TokenTransformer) -> None:
    assert small.start(3).values.shape == (2, 2, 3, 2, 6, 4)
    assert small.log_prob(_tokens(3)).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert small(_tokens(3)).dtype == torch.float32
    assert small(_tokens(3)[:, :4]).shape == (3, 4, 5)
    with pytest.raises(ValueError, match=r"^3 heads do not divide a width of 10$"):
        TokenTransformer(width=10, heads=3)
