"""Ways to bring several references together, each against a slow twin written from its definition."""

import math

import pytest
import torch

from realrag.adapters.attention import attend, merge_heads
from realrag.injection.combine import MODES, Mixer, balance, per_token

B, H, L, D, T = 2, 3, 5, 4, 6


def tensors(references, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(B, H, L, D, generator=generator, dtype=dtype)
    keys, values = (torch.randn(references, 1, H, T, D, generator=generator, dtype=dtype) for _ in range(2))
    return q, keys, values


def branch_of(q, keys, values):
    def branch(picks, bias):
        k, v = (torch.cat([t[i] for i in picks], 2) for t in (keys, values))
        return merge_heads(attend(q, k, v, per_token(bias, T)))

    return branch


def softmax_row(scores):
    top = max(scores)
    shares = [math.exp(s - top) if s > -math.inf else 0.0 for s in scores]
    return [share / sum(shares) for share in shares]


def slow_one(q, k, v):
    """(B, L, H*D) of one reference, number by number."""
    out = torch.zeros(B, L, H * D, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for row in range(L):
                scores = [(q[b, h, row] @ k[0, h, t]).item() / math.sqrt(D) for t in range(T)]
                for t, share in enumerate(softmax_row(scores)):
                    out[b, row, h * D : (h + 1) * D] += share * v[0, h, t]
    return out


def slow(mode, q, keys, values, weights, masks):
    """The definition of each mode, row by row."""
    n = len(weights)
    ones = [slow_one(q, keys[i], values[i]) for i in range(n)]
    out = torch.zeros(B, L, H * D, dtype=torch.float64)
    for b in range(B):
        for row in range(L):
            m = [masks[i][row].item() for i in range(n)]
            amounts, cover = [w * x for w, x in zip(weights, m, strict=True)], max(m)
            o = [one[b, row] for one in ones]
            if mode == "sum":
                out[b, row] = sum(a * x for a, x in zip(amounts, o, strict=True))
            elif mode == "subtract":
                rest = [a * x for a, x in zip(amounts[1:], o[1:], strict=True)]
                out[b, row] = amounts[0] * o[0] - (sum(rest) / len(rest) if rest else 0)
            elif cover == 0:
                continue
            elif mode == "concat":
                for h in range(H):
                    scores = [
                        (q[b, h, row] @ keys[i, 0, h, t]).item() / math.sqrt(D)
                        + (math.log(amounts[i] / cover) if amounts[i] else -math.inf)
                        for i in range(n)
                        for t in range(T)
                    ]
                    for place, share in enumerate(softmax_row(scores)):
                        out[b, row, h * D : (h + 1) * D] += cover * share * values[place // T, 0, h, place % T]
            else:
                shares = [a / sum(amounts) for a in amounts]
                if mode == "norm average":
                    sizes = [x.square().mean().sqrt() for x in o]
                    size = sum(s * x for s, x in zip(shares, sizes, strict=True))
                    o = [x * size / own for x, own in zip(o, sizes, strict=True)]
                out[b, row] = cover * sum(s * x for s, x in zip(shares, o, strict=True))
    return out


MASKS = torch.tensor([[1, 0.5, 0, 0, 0.2], [0, 0.25, 1, 0, 0.2], [1, 1, 0.5, 0, 0]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0], [2.0, 0.5, 1.3]])
@pytest.mark.parametrize("masked", [False, True])
def test_every_mode_equals_its_slow_twin(mode, weights, masked):
    q, keys, values = tensors(len(weights))
    masks = MASKS[: len(weights)] if masked else None
    found = Mixer(mode, weights, masks)(branch_of(q, keys, values))
    everywhere = torch.ones(len(weights), L)
    expected = slow(mode, q, keys, values, weights, everywhere if masks is None else masks)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.isfinite(found).all()


def test_weight_2_equals_repeating_the_picture():
    q, keys, values = tensors(2)
    twice = Mixer("concat", [2.0, 1.0])(branch_of(q, keys, values))
    repeated = Mixer("concat", [1.0, 1.0, 1.0])(branch_of(q, keys[[0, 0, 1]], values[[0, 0, 1]]))
    torch.testing.assert_close(twice, repeated, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "sum"])
def test_the_same_picture_twice_is_the_picture_once(mode):
    q, keys, values = tensors(1)
    once = Mixer(mode, [1.0])(branch_of(q, keys, values))
    twice = Mixer(mode, [1.0, 1.0])(branch_of(q, keys[[0, 0]], values[[0, 0]]))
    torch.testing.assert_close(twice, torch.zeros_like(once) if mode == "subtract" else once, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_one_plain_reference_is_its_own_branch_bit_for_bit(mode):
    q, keys, values = tensors(1, dtype=torch.float32)
    branch = branch_of(q, keys, values)
    plain = branch([0], None)
    found = Mixer(mode, [1.0])(branch)
    assert torch.equal(found, plain) if mode != "norm average" else torch.allclose(found, plain, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_added_where_no_mask_is(mode):
    q, keys, values = tensors(3)
    found = Mixer(mode, [1.0, 2.0, 1.0], MASKS)(branch_of(q, keys, values))
    assert not found[:, 3].any() and found[:, 2].any()


def test_a_reference_beyond_its_mask_does_not_reach_another_ones_place():
    q, keys, values = tensors(2)
    masks = torch.tensor([[1.0, 1, 1, 0, 0], [0.0, 0, 0, 1, 1]])
    for mode in ("concat", "sum", "average"):
        found = Mixer(mode, [1.0, 3.0], masks)(branch_of(q, keys, values))
        one, other = (branch_of(q, keys, values)([i], None) for i in range(2))
        factor = 3.0 if mode == "sum" else 1.0
        torch.testing.assert_close(found[:, :3], one[:, :3], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(found[:, 3:], factor * other[:, 3:], rtol=1e-6, atol=1e-7)


def test_balance_only_ever_turns_down():
    loud, quiet = torch.full((1, 4, 8), 3.0), torch.full((1, 4, 8), 0.5)
    base = torch.full((1, 6, 8), -1.0)
    torch.testing.assert_close(balance(loud, base, 1.0), torch.full((1, 4, 8), 1.0))
    torch.testing.assert_close(balance(loud, base, 0.5), torch.full((1, 4, 8), 0.5))
    assert torch.equal(balance(quiet, base, 1.0), quiet)
    assert torch.equal(balance(torch.zeros(1, 4, 8), base, 1.0), torch.zeros(1, 4, 8))


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="no way to combine"):
        Mixer("multiply", [1.0])
