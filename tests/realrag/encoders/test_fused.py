"""A frozen convolution, its padding and ReLU6 in one pass are the plain steps, on every path."""

import gc

import pytest
import torch
import torch.nn.functional as F

from realrag.encoders import fused
from realrag.encoders.fused import conv, in_cache, same_sides

# channels in and out, kernel, stride, groups
LAYERS = [(3, 8, 3, 2, 1), (8, 8, 3, 1, 8), (8, 8, 5, 2, 8), (8, 16, 1, 1, 1), (16, 16, 5, 1, 16)]


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize(("inside", "outside", "kernel", "stride", "groups"), LAYERS)
def test_it_is_the_convolution_and_then_the_bounds(monkeypatch, one_pass, inside, outside, kernel, stride, groups):
    monkeypatch.setattr(fused, "ONEDNN", fused.ONEDNN and one_pass)
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(inside, outside, kernel, stride, groups=groups)
    layer.weight.data *= 8
    x = torch.randn(3, inside, 17, 20).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    wanted = F.relu6(F.conv2d(x, layer.weight, layer.bias, stride, 0, 1, groups)).detach()
    assert 0.1 < (wanted == 0).float().mean() < 0.9 and (wanted == 6).any()
    with torch.inference_mode():
        torch.testing.assert_close(conv(x, layer), wanted)
    assert torch.equal(x, before)
    found = conv(x.requires_grad_(), layer)
    torch.testing.assert_close(found.detach(), wanted)
    found.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    with torch.no_grad():
        half = conv(x.detach().bfloat16(), layer.bfloat16())
    torch.testing.assert_close(half.float(), wanted, rtol=0.05, atol=0.2)


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("relu6", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("size", [(16, 16), (17, 17), (16, 17), (3, 3)])
@pytest.mark.parametrize("groups", [1, 8])
def test_same_padding_is_tensorflows(monkeypatch, one_pass, relu6, kernel, stride, size, groups):
    monkeypatch.setattr(fused, "ONEDNN", fused.ONEDNN and one_pass)
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(8, 8, kernel, stride, groups=groups)
    x = 9 * torch.randn(2, 8, *size).contiguous(memory_format=torch.channels_last)
    rows, columns = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in size)
    sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    assert same_sides(x, layer) == sides
    wanted = F.conv2d(F.pad(x, sides), layer.weight, layer.bias, stride, groups=groups).detach()
    with torch.inference_mode():
        for _ in range(2):  # with the weights laid out anew, and as they lie
            torch.testing.assert_close(conv(x, layer, relu6=relu6, same=True), F.relu6(wanted) if relu6 else wanted)
    torch.testing.assert_close(conv(x, layer, relu6=relu6, same=True).detach(), F.relu6(wanted) if relu6 else wanted)


def stepped(layer):
    conv(torch.ones(1, 4, 5, 5), layer, relu6=False).sum().backward()
    torch.optim.AdamW(layer.parameters(), lr=0.5).step()


@pytest.mark.parametrize("change", [
    lambda layer: layer.weight.mul_(2), lambda layer: layer.load_state_dict({k: 3 * v for k, v in layer.state_dict().items()}),
    lambda layer: setattr(layer, "weight", torch.nn.Parameter(layer.weight * 2)),
    lambda layer: setattr(layer.weight, "data", layer.weight * 2),
], ids=["in place", "loaded", "another", "other data"])  # fmt: skip
def test_weights_that_have_changed_count_at_once(change):
    torch.manual_seed(0)
    layer, x = torch.nn.Conv2d(4, 4, 3), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        before = conv(x, layer, relu6=False)
        change(layer)
        torch.testing.assert_close(conv(x, layer, relu6=False), F.conv2d(x, layer.weight, layer.bias))
        assert not torch.allclose(conv(x, layer, relu6=False), before)
    stepped(layer)
    with torch.no_grad():
        torch.testing.assert_close(conv(x, layer, relu6=False), F.conv2d(x, layer.weight, layer.bias))


def test_one_layer_serves_sizes_that_are_padded_in_other_ways():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(8, 8, 3, 2, groups=8)
    with torch.no_grad():
        for size in (16, 17, 16):
            x = torch.randn(1, 8, size, size)
            wanted = F.conv2d(F.pad(x, same_sides(x, layer)), layer.weight, layer.bias, 2, groups=8)
            torch.testing.assert_close(conv(x, layer, relu6=False, same=True), wanted)


@pytest.mark.slow
def test_layers_that_are_gone_leave_nothing():
    layer = torch.nn.Conv2d(4, 4, 1)
    before = len(fused._LAID)
    with torch.no_grad():
        conv(torch.randn(1, 4, 5, 5), layer)
    assert len(fused._LAID) == before + fused.ONEDNN
    del layer
    gc.collect()
    assert len(fused._LAID) == before


def test_photos_that_go_through_in_parts_come_back_in_order():
    x, seen = torch.arange(7.0).reshape(7, 1, 1, 1), []

    def tower(part):
        seen.append(len(part))
        return part * 2

    with torch.no_grad():
        assert torch.equal(in_cache(tower, x), x * 2)
    assert max(seen) <= fused.TOGETHER * torch.get_num_threads() and sum(seen) == 7
    assert torch.equal(in_cache(tower, x), x * 2) and seen[-1] == 7  # training takes them all at once
