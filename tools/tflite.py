"""Reads the convolutions of a TFLite file, a FlatBuffer (tensorflow/lite/schema/schema.fbs), without TensorFlow."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

CONV_2D, DEPTHWISE_CONV_2D = 3, 4  # BuiltinOperator
SAME, RELU6 = 0, 3  # Padding, ActivationFunctionType
NUMPY_TYPES = {2: np.int32, 3: np.uint8, 9: np.int8, 0: np.float32}  # TensorType


class Table:
    """A FlatBuffer table: fields by their number in the schema. Absent fields give the default."""

    def __init__(self, data: bytes, position: int):
        self.data, self.position = data, position
        self.vtable = position - struct.unpack_from("<i", data, position)[0]
        self.vtable_size = struct.unpack_from("<H", data, self.vtable)[0]

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _at(self, field: int) -> int | None:
        slot = 4 + 2 * field
        offset = struct.unpack_from("<H", self.data, self.vtable + slot)[0] if slot < self.vtable_size else 0
        return self.position + offset if offset else None

    def _follow(self, field: int) -> int | None:
        at = self._at(field)
        return None if at is None else at + struct.unpack_from("<I", self.data, at)[0]

    def scalar(self, field: int, kind: str, default: Any = 0) -> Any:
        """`kind` is a struct letter: b/B 8, i/I 32 bits."""
        at = self._at(field)
        return default if at is None else struct.unpack_from("<" + kind, self.data, at)[0]

    def array(self, field: int, dtype: Any) -> np.ndarray:
        at = self._follow(field)
        if at is None:
            return np.empty(0, dtype)
        return np.frombuffer(
            self.data, np.dtype(dtype).newbyteorder("<"), struct.unpack_from("<I", self.data, at)[0], at + 4
        )

    def table(self, field: int) -> Table | None:
        at = self._follow(field)
        return None if at is None else Table(self.data, at)

    def tables(self, field: int) -> list[Table]:
        at = self._follow(field)
        if at is None:
            return []
        places = [at + 4 + 4 * i for i in range(struct.unpack_from("<I", self.data, at)[0])]
        return [Table(self.data, place + struct.unpack_from("<I", self.data, place)[0]) for place in places]


@dataclass(frozen=True)
class Convolution:
    """One layer in torch's layout: weight (out, in / groups, kH, kW) and bias (out,), float32."""

    depthwise: bool
    weight: np.ndarray
    bias: np.ndarray
    stride: int


def read_convolutions(data: bytes) -> tuple[list[Convolution], tuple[float, int]]:
    """All convolutions of the first graph in running order, dequantized, and (scale, zero point) of its input.

    Raises ValueError where a layer is not of MobileNet V1's kind (SAME padding, ReLU6, square strides)."""
    if data[4:8] != b"TFL3":
        raise ValueError(f"not a TFLite file: its identifier is {data[4:8]!r}, not b'TFL3'")
    model = Table.root(data)
    # Field 0 is the one-byte code of old files, field 3 its wider successor; the larger of the two counts.
    codes = [max(code.scalar(0, "b"), code.scalar(3, "i")) for code in model.tables(1)]
    buffers, graph = model.tables(4), model.tables(2)[0]
    tensors = graph.tables(0)

    def quantization(tensor: Table) -> tuple[np.ndarray, np.ndarray]:
        table = tensor.table(4)
        scale, zero = (table.array(2, np.float32), table.array(3, np.int64)) if table else (np.empty(0), np.empty(0))
        return (scale, zero) if scale.size else (np.ones(1), np.zeros(1))

    def values(index: int, axis: int) -> np.ndarray:
        tensor = tensors[index]
        raw = buffers[tensor.scalar(2, "I")].array(0, np.uint8).tobytes()
        array = (
            np.frombuffer(raw, NUMPY_TYPES[tensor.scalar(1, "b")]).reshape(tensor.array(0, np.int32)).astype(np.float64)
        )
        along = [-1 if i == axis else 1 for i in range(array.ndim)]  # one scale for all, or one for each output channel
        scale, zero = quantization(tensor)
        return (scale.reshape(along) * (array - zero.reshape(along))).astype(np.float32)

    layers = []
    for operator in graph.tables(3):
        code = codes[operator.scalar(0, "I")]
        if code not in (CONV_2D, DEPTHWISE_CONV_2D):
            continue
        depthwise, options = code == DEPTHWISE_CONV_2D, operator.table(4)
        stride, activation = options.scalar(1, "i"), options.scalar(4 if depthwise else 3, "b")
        if (options.scalar(0, "b"), options.scalar(2, "i"), activation) != (SAME, stride, RELU6):
            raise ValueError(f"layer {len(layers)}: MobileNet V1 has SAME padding, square strides and ReLU6 only")
        _, weight, bias = operator.array(1, np.int32)
        kernel = values(weight, 3 if depthwise else 0)  # (1, kH, kW, out) or (out, kH, kW, in)
        order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
        layers.append(Convolution(depthwise, np.ascontiguousarray(kernel.transpose(order)), values(bias, 0), stride))
    scale, zero = quantization(tensors[graph.array(1, np.int32)[0]])
    return layers, (float(scale[0]), int(zero[0]))
