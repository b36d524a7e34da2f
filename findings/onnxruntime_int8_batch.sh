#!/usr/bin/env bash
# onnxruntime: in a dynamically quantized model the vector of a text depends on what else is in the batch.
# Guess, before running: a row's output does not depend on other rows, up to rounding.
# Seen (onnxruntime 1.32.0): beside a row eight times as large, a row's output moves four times as far as the whole
# rounding error alone was: the scale of the activations is taken over the whole batch.
# For us: int8 text towers give other vectors in other batches; encode one text at a time, or quantize weights only.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

rng = np.random.default_rng(0)
weight = rng.standard_normal((16, 8)).astype(np.float32)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])], "tower",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 16])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 8])],
    [numpy_helper.from_array(weight, "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 10
onnx.save(model, "float.onnx")
quantize_dynamic("float.onnx", "int8.onnx", weight_type=QuantType.QInt8)
session = onnxruntime.InferenceSession("int8.onnx", providers=["CPUExecutionProvider"])
x = rng.standard_normal((2, 16)).astype(np.float32)
x[1] *= 8
alone, beside = session.run(None, {"x": x[:1]})[0][0], session.run(None, {"x": x})[0][0]
error, moved = np.abs(alone - x[0] @ weight).max(), np.abs(alone - beside).max()
print(f"off by {error:.4f} alone; moved by {moved:.4f} beside a large row")
assert moved > 2 * error
PY
