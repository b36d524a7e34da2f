"""The self-reflective loss against eq. 5-8 written out number by number, in one process and in two."""

import itertools
import math

import numpy as np
import pytest
import torch
from loss_toy import half_of_the_loss, made, random_head
from two_ranks import in_two_ranks, needs_gloo

from realrag.errors import RealRAGError
from realrag_train.contrastive.loss import LossConfig, cached_backward, contrastive_loss, utility_loss


def slow_loss(queries, photos, classes, negatives, present, config):
    """Loss and its gradients with respect to queries, photos and negatives: eq. 5-8 with loops, in float64."""
    q, p, n = (x.double().numpy() for x in (queries, photos, negatives))
    b, k = len(q), n.shape[1]
    gq, gp, gn = np.zeros_like(q), np.zeros_like(p), np.zeros_like(n)
    total = 0.0
    ways = ("text to image", "image to text") if config.symmetric else ("text to image",)
    for way, i in itertools.product(ways, range(b)):
        asks, ga, gives, gg = (q, gq, p, gp) if way == "text to image" else (p, gp, q, gq)
        positives = [j for j in range(b) if j == i or (config.multi_positive and classes[j] == classes[i])]
        others = [
            j for j in range(b) if j not in positives and not (config.mask_same_class and classes[j] == classes[i])
        ]
        d_nor = sum(math.exp(asks[i] @ gives[j] / config.tau) for j in others)
        reflective = [] if way == "image to text" or config.kind == "normal" else [x for x in range(k) if present[i, x]]
        tau_ref = config.tau if config.reflect_tau else 1.0
        d_ref = sum(math.exp(asks[i] @ n[i, x] / tau_ref) for x in reflective)
        for j in positives:
            share = 1 / (b * len(positives) * len(ways))
            top = math.exp(asks[i] @ gives[j] / config.tau)
            bottom = top + d_nor + config.lambda_ref * d_ref
            total += -share * math.log(top / bottom)
            ga[i] += share * (top / bottom - 1) * gives[j] / config.tau
            gg[j] += share * (top / bottom - 1) * asks[i] / config.tau
            for o in others:
                weight = share * math.exp(asks[i] @ gives[o] / config.tau) / bottom / config.tau
                ga[i] += weight * gives[o]
                gg[o] += weight * asks[i]
            for x in reflective:
                weight = share * config.lambda_ref * math.exp(asks[i] @ n[i, x] / tau_ref) / bottom / tau_ref
                ga[i] += weight * n[i, x]
                gn[i, x] += weight * asks[i]
    return total, gq, gp, gn


SWITCHES = list(itertools.product(["normal", "reflective"], [True, False], [True, False], [True, False], [True, False]))


@pytest.mark.parametrize("kind,reflect_tau,mask,multi,symmetric", SWITCHES)
def test_loss_and_gradients_are_the_equations(kind, reflect_tau, mask, multi, symmetric):
    queries, photos, classes, negatives, present = made()
    config = LossConfig(kind, 0.2, False, 0.7, reflect_tau, mask, multi, symmetric)
    leaves = [x.clone().requires_grad_() for x in (queries, photos, negatives)]
    loss = contrastive_loss(leaves[0], leaves[1], config, classes=classes, negatives=leaves[2], present=present)
    loss.backward()
    expected, *gradients = slow_loss(queries, photos, classes, negatives, present, config)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        found = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        assert np.allclose(found.numpy(), gradient, atol=1e-12)


@pytest.mark.parametrize("kind,reflect_tau,mask,multi,symmetric", SWITCHES)
def test_a_prompt_that_occurs_several_times_counts_as_often(kind, reflect_tau, mask, multi, symmetric):
    queries, photos, _, negatives, present = made()
    place = torch.tensor([2, 0, 2, 1, 0, 3, 2])
    classes = torch.tensor([5, 6, 7, 6])[place]  # two prompts of one class
    config = LossConfig(kind, 0.2, False, 0.7, reflect_tau, mask, multi, symmetric)
    answers = []
    for once in (True, False):
        leaves = [x.clone().requires_grad_() for x in (queries[:4], photos, negatives[:4])]
        asks, others, there = (x if once else x[place] for x in (leaves[0], leaves[2], present[:4]))
        loss = contrastive_loss(
            asks, leaves[1], config, classes=classes, negatives=others, present=there, place=place if once else None
        )
        loss.backward()
        answers.append([loss.detach(), *(torch.zeros_like(x) if x.grad is None else x.grad for x in leaves)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_one_pair_alone_with_one_negative_is_eq_8_by_hand():
    q = p = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    n = torch.tensor([[[0.6, 0.8]]], dtype=torch.float64)
    loss = contrastive_loss(q, p, LossConfig(tau=0.1), negatives=n)
    assert loss.item() == pytest.approx(-math.log(math.exp(10) / (math.exp(10) + math.exp(6))))
    printed = contrastive_loss(q, p, LossConfig(tau=0.1, reflect_tau=False), negatives=n)
    assert printed.item() == pytest.approx(-math.log(math.exp(10) / (math.exp(10) + math.exp(0.6))), rel=1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_weight_of_zero_is_the_normal_loss(symmetric):
    answers = []
    for config in (
        LossConfig("reflective", lambda_ref=0.0, symmetric=symmetric),
        LossConfig("normal", symmetric=symmetric),
    ):
        queries, photos, classes, negatives, present = made(dtype=torch.float32)
        photos.requires_grad_()
        loss = contrastive_loss(queries, photos, config, classes=classes, negatives=negatives, present=present)
        loss.backward()
        answers.append((loss.detach(), photos.grad))
    for reflective, normal in zip(*answers, strict=True):  # zeros are added to other sums
        torch.testing.assert_close(reflective, normal, rtol=1e-5, atol=1e-6)


def test_a_batch_of_one_class_has_no_negatives_and_no_nan():
    queries, photos, _, _, _ = made()
    photos.requires_grad_()
    loss = contrastive_loss(queries, photos, LossConfig("normal"), classes=torch.zeros(7, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and not photos.grad.any()


def test_the_temperature_can_be_learned():
    queries, photos, classes, negatives, present = made()
    tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    say = dict(classes=classes, negatives=negatives, present=present)
    contrastive_loss(queries, photos, LossConfig(), tau=tau, **say).backward()
    step = 1e-6
    up, down = (contrastive_loss(queries, photos, LossConfig(), tau=0.2 + sign * step, **say) for sign in (1, -1))
    assert tau.grad.item() == pytest.approx((up - down).item() / (2 * step), rel=1e-6)


def slow_utility(queries, candidates, utility, present, tau, beta):
    """KL(P || Q) and its gradients with respect to queries and candidates, with loops, in float64."""
    q, c = queries.numpy(), candidates.numpy()
    gq, gc, total = np.zeros_like(q), np.zeros_like(c), 0.0
    for i in range(len(q)):
        rows = [x for x in range(c.shape[1]) if present[i, x]]
        if not rows:
            continue
        wanted = [math.exp(float(utility[i, x]) / beta) for x in rows]
        found = [math.exp(q[i] @ c[i, x] / tau) for x in rows]
        logs = [math.log(f / sum(found)) - math.log(w / sum(wanted)) for f, w in zip(found, wanted, strict=True)]
        chance = [f / sum(found) for f in found]
        divergence = sum(p * log for p, log in zip(chance, logs, strict=True))
        total += divergence / len(q)
        for x, p, log in zip(rows, chance, logs, strict=True):
            slope = p * (log - divergence) / tau / len(q)  # of KL with respect to the cosine
            gq[i] += slope * c[i, x]
            gc[i, x] += slope * q[i]
    return total, gq, gc


def test_the_utility_term_and_its_gradients_are_the_divergence_written_out():
    queries, _, _, candidates, _ = made(k=5)
    utility = torch.randn(7, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    present = torch.rand(7, 5, generator=torch.Generator().manual_seed(4)) > 0.4
    present[0], present[1] = (
        False,
        torch.tensor([True, False, False, False, False]),
    )  # nothing tried; nothing to compare
    leaves = [x.clone().requires_grad_() for x in (queries, candidates)]
    loss = utility_loss(*leaves, utility, present, 0.2, 0.5)
    loss.backward()
    expected, *gradients = slow_utility(queries, candidates, utility, present, 0.2, 0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-12) and expected > 0.1
    for leaf, gradient in zip(leaves, gradients, strict=True):
        assert np.allclose(leaf.grad.numpy(), gradient, atol=1e-12)


def test_the_utility_of_a_prompt_that_occurs_several_times_counts_as_often():
    queries, _, _, candidates, present = made(k=5)
    utility, place = torch.randn(7, 5, dtype=torch.float64), torch.tensor([2, 0, 2, 2, 1])
    once = utility_loss(queries, candidates, utility, present, 0.2, 0.5, place)
    each = utility_loss(queries[place], candidates[place], utility[place], present[place], 0.2, 0.5)
    assert once.item() == pytest.approx(each.item(), abs=1e-12)


def test_the_utility_term_is_zero_where_the_scores_say_it_already_and_bears_any_unit():
    queries, _, _, candidates, _ = made(k=4)
    scores, present = torch.einsum("bd,bkd->bk", queries, candidates), torch.ones(7, 4, dtype=torch.bool)
    assert utility_loss(queries, candidates, scores, present, 0.2, 0.2).item() == pytest.approx(0, abs=1e-12)
    assert utility_loss(queries, candidates, scores + 9, present, 0.2, 0.2).item() == pytest.approx(0, abs=1e-12)
    present[:, 3] = False
    huge = torch.tensor([[1e6, 0.0, -1e6, 0.0]], dtype=torch.float64).expand(7, 4)
    assert torch.isfinite(utility_loss(queries, candidates, huge, present, 0.2, 0.2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "soft"},
        {"tau": 0.0},
        {"lambda_ref": -1.0},
        {"tau": float("nan")},
        {"lambda_utility": -1.0},
        {"beta": -1.0},
    ],
)
def test_settings_that_make_no_loss_are_refused(wrong):
    with pytest.raises(RealRAGError):
        LossConfig(**wrong)


@pytest.mark.parametrize("chunk,kind", [(1, "reflective"), (4, "reflective"), (100, "reflective"), (3, "normal")])
def test_gradient_caching_changes_nothing(chunk, kind):
    queries, photos, classes, negatives, present = made()
    config, plain, cached = LossConfig(kind, symmetric=True), random_head(), random_head()
    negatives = None if kind == "normal" else negatives

    def loss_of(zp, zn):
        return contrastive_loss(queries, zp, config, classes=classes, negatives=zn, present=present)

    expected = loss_of(plain(photos), None if negatives is None else plain(negatives))
    expected.backward()
    rows = photos if negatives is None else torch.cat([photos, negatives.flatten(0, 1)])

    def of_all(out):
        return loss_of(out[:7], None if negatives is None else out[7:].view(7, 2, 5))

    assert cached_backward(cached, rows, of_all, chunk).item() == pytest.approx(expected.item(), abs=1e-12)
    for one, other in zip(plain.parameters(), cached.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-12)


@pytest.mark.slow
@needs_gloo
def test_two_processes_are_one(tmp_path):
    config = LossConfig(symmetric=True, tau=0.2)
    ranks = in_two_ranks(half_of_the_loss, tmp_path, config)
    queries, photos, classes, negatives, present = (x[:6] for x in made())
    head = random_head()
    loss = contrastive_loss(queries, head(photos), config, classes=classes, negatives=head(negatives), present=present)
    loss.backward()
    for mine, (first, second) in zip(
        [loss.detach(), *(w.grad for w in head.parameters())], zip(*ranks, strict=True), strict=True
    ):
        assert torch.allclose(mine, (first + second) / 2, atol=1e-12)
