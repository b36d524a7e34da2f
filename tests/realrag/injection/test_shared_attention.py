"""Shared attention without an adapter file: each formula against a slow twin, and its two ends, 0 and 1."""

import math

import pytest
import torch

from realrag.injection.shared_attention import (
    Statistics,
    adain,
    as_bias,
    attend_to_both,
    content_seed,
    fit,
    fixed_noise,
    frequency_scale,
    noised,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_attention(q, k, v, k_ref, v_ref, strength, mask=None):
    """One query at a time, one key at a time: reference keys count `strength` times."""
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                total, weighted = 0.0, torch.zeros(q.shape[3], dtype=q.dtype)
                for keys, values, factor, own in ((k[b], v[b], 1.0, True), (k_ref[0], v_ref[0], strength, False)):
                    for j in range(keys.shape[1]):
                        score = (q[b, h, i] @ keys[h, j]).item() / math.sqrt(q.shape[3])
                        if own and mask is not None:
                            score += mask[b, i, j].item()
                        weight = factor * math.exp(score)
                        total += weight
                        weighted += weight * values[h, j]
                out[b, h, i] = weighted / total
    return out


@pytest.mark.parametrize("strength", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_over_both_is_its_slow_twin(strength, masked):
    q, k, v = randn(2, 2, 3, 4), randn(2, 2, 5, 4, seed=1), randn(2, 2, 5, 4, seed=2)
    k_ref, v_ref = randn(1, 2, 4, 4, seed=3), randn(1, 2, 4, 4, seed=4)
    mask = randn(2, 3, 5, seed=5) if masked else None
    fast = attend_to_both(q, k, v, k_ref, v_ref, strength, mask)
    assert torch.allclose(fast, slow_attention(q, k, v, k_ref, v_ref, strength, mask), rtol=1e-12, atol=1e-12)


def test_strength_two_is_the_same_reference_twice():
    q, k, v = randn(1, 2, 3, 4), randn(1, 2, 5, 4, seed=1), randn(1, 2, 5, 4, seed=2)
    k_ref, v_ref = randn(1, 2, 4, 4, seed=3), randn(1, 2, 4, 4, seed=4)
    doubled = attend_to_both(q, k, v, torch.cat((k_ref, k_ref), 2), torch.cat((v_ref, v_ref), 2), 1.0)
    assert torch.allclose(attend_to_both(q, k, v, k_ref, v_ref, 2.0), doubled, rtol=1e-12)


def test_a_strength_near_zero_leaves_the_own_attention():
    q, k, v = randn(1, 2, 3, 4), randn(1, 2, 5, 4, seed=1), randn(1, 2, 5, 4, seed=2)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(attend_to_both(q, k, v, k, v, 1e-12), plain, atol=1e-10)


def test_a_boolean_mask_hides_what_is_false():
    q = randn(1, 1, 1, 4)
    assert as_bias(torch.tensor([[True, False]]), q).tolist() == [[[[0.0, -math.inf]]]]
    assert as_bias(torch.zeros(3, 2, 5), q).shape == (3, 1, 2, 5)


def test_adain_is_its_slow_twin_and_blends():
    x, reference = randn(2, 3, 7, 4), randn(2, 3, 5, 4, seed=1) * 3 + 2
    moved = adain(x, Statistics.of(reference))
    for b in range(2):
        for h in range(3):
            for d in range(4):
                own, other = x[b, h, :, d], reference[b, h, :, d]
                scale = math.sqrt(other.var(correction=0).item() + 1e-5) / math.sqrt(
                    own.var(correction=0).item() + 1e-5
                )
                expected = (own - own.mean()) * scale + other.mean()
                assert torch.allclose(moved[b, h, :, d], expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(adain(x, Statistics.of(reference), 0.0), x, atol=1e-6)
    assert torch.allclose(adain(x, Statistics.of(reference), 0.5), (x + moved) / 2, atol=1e-6)


def test_the_frequency_scale_is_the_published_formula_on_every_axis():
    axes, expected = (16, 56, 56), []
    for axis, size in enumerate(axes):
        pairs = size // 2
        for d in range(pairs):
            factor = 3.0 if axis == 0 else 1.05 + (3.0 - 1.05) * (d / pairs) ** 50
            expected += [factor, factor]
    assert torch.allclose(frequency_scale(axes), torch.tensor(expected))


def test_scaling_rotated_keys_is_scaling_them_before_the_rotation():
    angle = torch.tensor(0.7)
    rotation = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    x = torch.tensor([0.3, -1.2])
    assert torch.allclose(rotation @ (x * 1.7), (rotation @ x) * 1.7)


def test_the_noise_of_a_reference_is_fixed_by_its_content():
    image = torch.rand(8, 6, 3, generator=torch.Generator().manual_seed(0))
    other = image.clone()
    other[0, 0, 0] = 1 - other[0, 0, 0]
    latent = torch.zeros(1, 4, 2, 2)
    assert torch.equal(*(fixed_noise(latent, content_seed(image.clone())) for _ in range(2)))
    assert content_seed(image) != content_seed(other)
    assert content_seed(image) != content_seed(image.reshape(6, 8, 3))


def test_a_noised_reference_runs_from_the_picture_to_pure_noise():
    latent, noise = randn(1, 4, 2, 2), randn(1, 4, 2, 2, seed=1)
    assert torch.equal(noised(latent, noise, 0.0), latent)
    assert torch.equal(noised(latent, noise, 1.0), noise)
    assert torch.allclose(noised(latent, noise, 0.25), 0.75 * latent + 0.25 * noise)


@pytest.mark.parametrize("size", [(768, 512), (4000, 30), (5, 5), (333, 777), (2048, 2048)])
def test_a_photo_is_fitted_into_its_token_budget(size):
    width, height = fit(*size, tokens=1024, longest=40)
    assert width % 16 == height % 16 == 0 and width * height <= 1024 * 256
    assert max(width, height) <= 640 and (width <= max(size[0], 16) and height <= max(size[1], 16))


def test_a_weight_of_2_on_a_references_tokens_equals_having_them_twice():
    q, k, v, k_ref, v_ref = (randn(1, 2, n, 4, seed=n) for n in (3, 5, 5, 4, 4))
    bias = torch.tensor([[math.log(2.0)] * 2 + [0.0] * 2], dtype=torch.float64)
    twice = attend_to_both(q, k, v, k_ref[:, :, [0, 1, 0, 1, 2, 3]], v_ref[:, :, [0, 1, 0, 1, 2, 3]], 0.7)
    torch.testing.assert_close(attend_to_both(q, k, v, k_ref, v_ref, 0.7, bias=bias), twice)
    weighted = Statistics.of(k_ref, weights=torch.tensor([2.0, 2, 1, 1]))
    repeated = Statistics.of(k_ref[:, :, [0, 1, 0, 1, 2, 3]])
    torch.testing.assert_close((weighted.mean, weighted.std), (repeated.mean, repeated.std))


def test_a_bias_per_row_goes_with_a_mask_on_the_own_keys():
    q, k, v, k_ref, v_ref = (randn(1, 2, n, 4, seed=n) for n in (3, 5, 5, 4, 4))
    mask, bias = randn(1, 3, 5, seed=9), randn(3, 4, seed=10)
    found = attend_to_both(q, k, v, k_ref, v_ref, 1.0, mask, bias)
    for row in range(3):
        scores = torch.cat((q[0, 1, row] @ k[0, 1].T / 2 + mask[0, row], q[0, 1, row] @ k_ref[0, 1].T / 2 + bias[row]))
        torch.testing.assert_close(found[0, 1, row], scores.softmax(0) @ torch.cat((v[0, 1], v_ref[0, 1])))
