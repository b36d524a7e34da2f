"""A convolution with ReLU6 in one pass is the two steps, on every path."""

import pytest
import torch
import torch.nn.functional as F

from realrag.encoders import fused
from realrag.encoders.fused import conv_relu6

# channels in and out, kernel, stride, groups, padding
LAYERS = [(3, 8, 3, 2, 1, 0), (8, 8, 3, 1, 8, 1), (8, 8, 5, 2, 8, 0), (8, 16, 1, 1, 1, 0), (16, 16, 5, 1, 16, 2)]


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize(("inside", "outside", "kernel", "stride", "groups", "padding"), LAYERS)
def test_it_is_the_convolution_and_then_the_bounds(
    monkeypatch, one_pass, inside, outside, kernel, stride, groups, padding
):
    monkeypatch.setattr(fused, "ONE_PASS", fused.ONE_PASS and one_pass)
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(inside, outside, kernel, stride, groups=groups)
    layer.weight.data *= 8
    x = torch.randn(3, inside, 17, 20).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    wanted = F.relu6(F.conv2d(x, layer.weight, layer.bias, stride, padding, 1, groups)).detach()
    assert 0.1 < (wanted == 0).float().mean() < 0.9 and (wanted == 6).any()
    with torch.inference_mode():
        torch.testing.assert_close(conv_relu6(x, layer, padding), wanted)
    assert torch.equal(x, before)
    found = conv_relu6(x.requires_grad_(), layer, padding)
    torch.testing.assert_close(found.detach(), wanted)
    found.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    with torch.no_grad():
        half = conv_relu6(x.detach().bfloat16(), layer.bfloat16(), padding)
    torch.testing.assert_close(half.float(), wanted, rtol=0.05, atol=0.2)
