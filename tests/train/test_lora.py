"""Our LoRA beside peft's: the same update, the same gradients, the same start; and factorized layers merge exactly."""

import copy

import pytest
import torch
from torch import nn

from realrag_train.lora import LowRankLinear, add_lora, merge_lora, merge_low_rank

RANK, ALPHA = 4, 10.0


class Small(nn.Module):
    """A linear layer, a 1 x 1 convolution and another linear layer, all of which LoRA adapts."""

    def __init__(self):
        super().__init__()
        self.first, self.mixed, self.last = nn.Linear(6, 8), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x):
        return self.last(torch.relu(self.mixed(torch.tanh(self.first(x))[..., None, None]).flatten(1)))


@pytest.fixture
def pair():
    """Ours and peft's of one network, with the same matrices A and B, B not zero."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    plain = Small()
    ours, config = copy.deepcopy(plain), peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=["first", "mixed", "last"]
    )  # fmt: skip
    theirs = peft.get_peft_model(copy.deepcopy(plain), config)
    ours.requires_grad_(False)
    added = add_lora(ours, ("",), RANK, ALPHA)
    assert len(added) == 6
    with torch.no_grad():
        for name in ("first", "mixed", "last"):
            own, layer = getattr(ours, name).parametrizations.weight[0], getattr(theirs.base_model.model, name)
            own.b.normal_()
            layer.lora_A["default"].weight.copy_(own.a.view_as(layer.lora_A["default"].weight))
            layer.lora_B["default"].weight.copy_(own.b.view_as(layer.lora_B["default"].weight))
    return plain, ours, theirs


def test_the_outputs_are_those_of_peft(pair):
    plain, ours, theirs = pair
    x = torch.randn(7, 6)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert (ours(x) - plain(x)).abs().max() > 1e-2


def test_the_gradients_are_those_of_peft(pair):
    _, ours, theirs = pair
    x = torch.randn(7, 6)
    for model in (ours, theirs):
        model(x).square().sum().backward()
    for name in ("first", "mixed", "last"):
        own, layer = getattr(ours, name).parametrizations.weight[0], getattr(theirs.base_model.model, name)
        for mine, other in ((own.a, layer.lora_A["default"].weight), (own.b, layer.lora_B["default"].weight)):
            torch.testing.assert_close(mine.grad, other.grad.view_as(mine), rtol=1e-4, atol=1e-5)


def test_merging_gives_the_weights_that_peft_merges(pair):
    _, ours, theirs = pair
    merge_lora(ours)
    merged = theirs.merge_and_unload()
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=1e-5, atol=1e-5)


def test_a_new_update_changes_nothing_and_starts_as_widely_as_peft_s():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(400, 300))
    ours = copy.deepcopy(plain)
    theirs = peft.get_peft_model(copy.deepcopy(plain), peft.LoraConfig(r=64, target_modules=["0"]))
    add_lora(ours, ("",), 64, 64.0)
    x = torch.randn(3, 400)
    assert torch.equal(ours(x), plain(x))
    mine, other = ours[0].parametrizations.weight[0].a, theirs.base_model.model[0].lora_A["default"].weight
    assert mine.std().item() == pytest.approx(other.std().item(), rel=0.02)
    assert mine.abs().max().item() == pytest.approx(other.abs().max().item(), rel=0.02)


def test_a_factorized_layer_merges_into_the_matrix_that_it_computes_with():
    rng = torch.Generator().manual_seed(0)
    layer = LowRankLinear(nn.Linear(6, 5), 2, zero=False, rng=rng)
    merged = merge_low_rank({f"k.{name}": value for name, value in layer.state_dict().items()})
    assert set(merged) == {"k.weight", "k.bias"} and torch.linalg.matrix_rank(merged["k.weight"]) == 2
    x = torch.randn(4, 6)
    torch.testing.assert_close(nn.functional.linear(x, merged["k.weight"], merged["k.bias"]), layer(x))
    assert not LowRankLinear(nn.Linear(6, 5), 2, zero=True, rng=rng).up.any()
