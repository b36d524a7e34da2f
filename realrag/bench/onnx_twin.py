"""The image tower of an encoder that ships as an ONNX graph in onnxruntime, with the same weights, for comparing speeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.base import Encoder
from ..encoders.efficientnet_lite import MobileBlock, Tail
from ..encoders.general import GeneralEncoder
from ..encoders.small import SmallEncoder


class Graph:
    """An ONNX graph in the making; every method returns the name of what it computes."""

    def __init__(self, onnx, size: int):
        self.onnx, self.size = onnx, size
        self.nodes: list[Any] = []
        self.values: list[Any] = []
        self.sides = {"pixels": size}  # of feature maps
        self.constant("zero", np.float32(0))
        self.constant("six", np.float32(6))

    def constant(self, name: str, array) -> str:
        self.values.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, inputs: list[str], **attributes) -> str:
        name = f"{kind}.{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def convolve(self, x: str, layer: nn.Conv2d, relu6: bool = True) -> str:
        """With TensorFlow's SAME padding."""
        stride, kernel, side = layer.stride[0], layer.kernel_size[0], self.sides[x]
        after = -(-side // stride)
        total = max((after - 1) * stride + kernel - side, 0)
        pads = [total // 2, total // 2, total - total // 2, total - total // 2]
        parts = [
            self.constant(f"{len(self.nodes)}.{key}", value.detach().numpy()) for key, value in layer.named_parameters()
        ]
        x = self.node(
            "Conv", [x, *parts], strides=[stride] * 2, pads=pads, group=layer.groups, kernel_shape=[kernel] * 2
        )
        x = self.node("Clip", [x, "zero", "six"]) if relu6 else x
        self.sides[x] = after
        return x

    def mobile_block(self, x: str, block: MobileBlock) -> str:
        wide = self.convolve(x, block.expand) if isinstance(block.expand, nn.Conv2d) else x
        out = self.convolve(self.convolve(wide, block.depthwise), block.project, relu6=False)
        if not block.adds:
            return out
        added = self.node("Add", [out, x])
        self.sides[added] = self.sides[out]
        return added

    def linear(self, x: str, layer: nn.Linear) -> str:
        bias = layer.bias if layer.bias is not None else torch.zeros(layer.out_features)
        parts = [
            self.constant(f"{len(self.nodes)}.{key}", value.detach().numpy())
            for key, value in (("w", layer.weight), ("b", bias))
        ]
        return self.node("Gemm", [x, *parts], transB=1)


def small_tower(graph: Graph, encoder: SmallEncoder) -> str:
    net = encoder.towers.mobilenet
    x = graph.convolve("pixels", net.stem)
    for block in net.blocks:
        x = graph.convolve(graph.convolve(x, block.depthwise), block.pointwise)  # type: ignore[arg-type]
    x = graph.node("ReduceMean", [x, graph.constant("axes", np.array([2, 3]))], keepdims=0)
    return graph.linear(x, encoder.towers.projection)


def general_tower(graph: Graph, encoder: GeneralEncoder) -> str:
    image = encoder.towers.image
    x = graph.convolve("pixels", image.trunk.stem)
    for block in image.trunk.blocks:
        x = graph.mobile_block(x, block)  # type: ignore[arg-type]
    window = (image.window[:, None] * image.window).numpy()
    weights, axes = graph.constant("window", window), graph.constant("axes", np.array([2, 3]))

    def part(tail: Tail, projection: nn.Linear) -> str:
        y = x
        for block in tail.blocks:
            y = graph.mobile_block(y, block)  # type: ignore[arg-type]
        y = graph.node("Mul", [graph.convolve(y, tail.head), weights])
        y = graph.linear(graph.node("ReduceSum", [y, axes], keepdims=0), projection)
        return graph.node("LpNormalization", [y], axis=1, p=2)

    general, taught = part(image.tail, image.projection), part(image.taught_tail, image.taught_projection)
    taught = graph.node("Mul", [taught, graph.constant("side", np.float32(image.side))])
    return graph.node("Concat", [general, taught], axis=1)


def image_tower(encoder: Encoder, threads: int) -> Callable[[Tensor], np.ndarray] | None:
    """(B, 3, S, S) uint8 -> (B, D) by onnxruntime with `threads` threads; None where onnx or onnxruntime is missing, or for
    an encoder that does not ship."""
    try:
        import onnx
        import onnxruntime
    except Exception:  # a broken wheel fails in many ways; the comparison is left out
        return None
    graph = Graph(onnx, encoder.preprocess.size)
    if isinstance(encoder, SmallEncoder):
        embeds = small_tower(graph, encoder)
    elif isinstance(encoder, GeneralEncoder):
        embeds = general_tower(graph, encoder)
    else:
        return None
    given = onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["B", 3, graph.size, graph.size])
    made = onnx.helper.make_tensor_value_info(embeds, onnx.TensorProto.FLOAT, ["B", encoder.dim])
    content = onnx.helper.make_graph(graph.nodes, "tower", [given], [made], graph.values)
    model = onnx.helper.make_model(content, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def encode(pixels: Tensor) -> np.ndarray:
        return session.run(None, {"pixels": encoder.preprocess.normalize(pixels, torch.float32).numpy()})[0]

    return encode
