"""Convolutions of a frozen tower on a CPU, as oneDNN does them best: the ReLU6 behind one in the same pass over memory, weights
laid out once, SAME padding without a copy. The numbers are those of the plain steps, bit for bit where oneDNN did those too."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RELU6 = ("hardtanh", [0.0, 6.0])
TOGETHER = 2  # photos at once for each thread of a CPU: the feature maps of more outgrow its cache


class Laid(NamedTuple):
    """Weights as oneDNN wants them, and what they were made of: `weight` in this state, at this place in memory, and padding."""

    weight: Tensor
    state: tuple[int, ...]
    laid: Tensor


def _state(weight: Tensor, *sides: int) -> tuple[int, ...]:
    return weight._version, weight.data_ptr(), *sides


_LAID: WeakKeyDictionary[nn.Conv2d, Laid] = WeakKeyDictionary()


def _lay(weight: Tensor, padding: list[int], layer: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_convolution_weight(
        weight, padding, list(layer.stride), [1, 1], layer.groups, list(x.shape)
    )


def _run(x: Tensor, weight: Tensor, padding: list[int], layer: nn.Conv2d, relu6: bool) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(
        x,
        weight,
        layer.bias,
        padding,
        list(layer.stride),
        [1, 1],
        layer.groups,
        *(RELU6 if relu6 else ("none", [])),
        None,
    )


def conv(x: Tensor, layer: nn.Conv2d, relu6: bool = True, same: bool = False) -> Tensor:
    """`layer` over x (B, C, H, W), whatever padding it has itself, then ReLU6 if asked. same: TensorFlow's SAME padding, which
    puts an odd row below and an odd column right, in place of none. x stays as it is."""
    if torch.is_grad_enabled():
        _LAID.pop(layer, None)  # the weights may be about to change
    elif ONEDNN and x.device.type == "cpu" and x.dtype == layer.weight.dtype == torch.float32:
        return _frozen(x, layer, relu6, same)
    if same:
        x = F.pad(x, same_sides(x, layer))
    x = F.conv2d(x, layer.weight, layer.bias, layer.stride, 0, 1, layer.groups)
    return x if not relu6 else F.relu6(x) if torch.is_grad_enabled() else x.clamp_(0, 6)


def in_cache(tower: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """tower(x), a few photos of x (B, C, H, W) at a time on a CPU."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return tower(x)
    return torch.cat([tower(part) for part in x.split(TOGETHER * torch.get_num_threads())])


def same_sides(x: Tensor, layer: nn.Conv2d) -> tuple[int, int, int, int]:
    """(left, right, top, bottom)"""
    (kernel, _), (stride, _) = layer.kernel_size, layer.stride
    total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (x.shape[3], x.shape[2])]
    return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2


def _frozen(x: Tensor, layer: nn.Conv2d, relu6: bool, same: bool) -> Tensor:
    larger = padding = 0  # larger: rows and columns of zeros above and left of the kernel
    if same:
        left, right, top, bottom = sides = same_sides(x, layer)
        # oneDNN pads alike on both sides. A depthwise kernel with a row and a column of zeros looks one place further up and
        # left: what is to be padded by 0 and 1 is padded by 1 and 1.
        if left == top and right == bottom and (right == left or layer.groups > 1):
            larger, padding = right - left, right
        else:
            x = F.pad(x, sides)
    return _run(x, _laid(x, layer, larger, padding), [padding] * 2, layer, relu6)


def _laid(x: Tensor, layer: nn.Conv2d, larger: int, padding: int) -> Tensor:
    weight = layer.weight
    if weight.is_inference():  # cannot tell whether it has changed
        return F.pad(weight, (larger, 0, larger, 0))
    state, known = _state(weight, larger, padding), _LAID.get(layer)
    if known is None or known.weight is not weight or known.state != state:
        known = Laid(weight, state, _lay(F.pad(weight, (larger, 0, larger, 0)), [padding] * 2, layer, x))
        _LAID[layer] = known
    return known.laid


def _works() -> bool:
    """Whether this torch has the operations that its own compiler uses on a CPU (not part of its public interface), and they do
    here what they should."""
    try:
        x = torch.arange(144.0).reshape(1, 4, 6, 6).contiguous(memory_format=torch.channels_last) / 24
        for groups in (1, 4):
            layer = nn.Conv2d(4, 4, 3, 2, groups=groups, device="meta")  # draws no random numbers
            for name, each in list(layer.named_parameters()):
                values = torch.arange(float(each.numel())).reshape(each.shape) / each.numel() - 0.4
                setattr(layer, name, nn.Parameter(values))
            plain = F.conv2d(F.pad(x, same_sides(x, layer)), layer.weight, layer.bias, 2, groups=groups)
            for relu6, wanted in ((True, plain.clamp(0, 6)), (False, plain)):
                if not torch.allclose(_frozen(x, layer, relu6, True), wanted, atol=1e-4):
                    return False
        return bool(torch.backends.mkldnn.enabled)
    except Exception:  # each build of torch refuses in its own way
        return False


with torch.no_grad():
    ONEDNN = torch.backends.mkldnn.is_available() and _works()
