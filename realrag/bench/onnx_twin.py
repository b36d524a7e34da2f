"""The image tower of the small encoder as an ONNX graph in onnxruntime, with the same weights, for comparing speeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.small import SmallEncoder


def image_tower(encoder: SmallEncoder, threads: int) -> Callable[[Tensor], np.ndarray] | None:
    """(B, 3, S, S) uint8 -> (B, D) by onnxruntime with `threads` threads; None where onnx or onnxruntime is missing."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except Exception:  # a broken wheel fails in many ways; the comparison is left out
        return None
    nodes: list[Any] = []
    values: list[Any] = []

    def constant(name: str, array: np.ndarray) -> str:
        values.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def convolve(name: str, x: str, layer: nn.Conv2d, side: int) -> tuple[str, int]:
        stride, kernel = layer.stride[0], layer.kernel_size[0]
        after = -(-side // stride)
        total = max((after - 1) * stride + kernel - side, 0)
        pads = [total // 2, total // 2, total - total // 2, total - total // 2]
        parts = [constant(f"{name}.{key}", value.detach().numpy()) for key, value in layer.named_parameters()]
        shape = {"strides": [stride] * 2, "pads": pads, "group": layer.groups, "kernel_shape": [kernel] * 2}
        nodes.append(helper.make_node("Conv", [x, *parts], [f"{name}.out"], **shape))
        nodes.append(helper.make_node("Clip", [f"{name}.out", "zero", "six"], [f"{name}.act"]))
        return f"{name}.act", after

    net, side = encoder.towers.mobilenet, encoder.preprocess.size
    constant("zero", np.float32(0))
    constant("six", np.float32(6))
    x, at = convolve("stem", "pixels", net.stem, side)
    for number, block in enumerate(net.blocks):
        x, at = convolve(f"{number}.depthwise", x, block.depthwise, at)  # type: ignore[arg-type]
        x, at = convolve(f"{number}.pointwise", x, block.pointwise, at)  # type: ignore[arg-type]
    nodes.append(helper.make_node("ReduceMean", [x, constant("axes", np.array([2, 3]))], ["mean"], keepdims=0))
    projection = [constant(key, value.detach().numpy()) for key, value in encoder.towers.projection.named_parameters()]
    nodes.append(helper.make_node("Gemm", ["mean", *projection], ["embeds"], transB=1))
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["B", 3, side, side])
    made = helper.make_tensor_value_info("embeds", TensorProto.FLOAT, ["B", encoder.dim])
    graph = helper.make_graph(nodes, "tower", [given], [made], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def encode(pixels: Tensor) -> np.ndarray:
        return session.run(None, {"pixels": encoder.preprocess.normalize(pixels, torch.float32).numpy()})[0]

    return encode
