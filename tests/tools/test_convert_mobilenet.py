"""The TFLite reader, on files written by hand, and the converted MobileNet."""

import struct

import numpy as np
import pytest

from realrag.encoders.small_net import BLOCKS, MobileNet
from realrag.errors import RealRAGError
from realrag_train.maintainer_tools import tool
from realrag_train.small_encoder.mobilenet import load_mobilenet

read_convolutions, convert = tool("tflite").read_convolutions, tool("convert_mobilenet").convert

# A FlatBuffer writer for the few things a TFLite file needs. A field is (kind, value): a struct letter and a number,
# "array" and a numpy array, "table" and a dict of fields, or "tables" and a list of such dicts.


def write_table(data: bytearray, fields: dict) -> int:
    slots = max(fields, default=-1) + 1
    vtable = len(data)
    data += struct.pack("<HH", 4 + 2 * slots, 4 + 8 * len(fields))
    places = {field: 4 + 8 * i for i, field in enumerate(sorted(fields))}
    data += b"".join(struct.pack("<H", places.get(slot, 0)) for slot in range(slots))
    start = len(data)
    data += struct.pack("<i", start - vtable) + bytes(8 * len(fields))
    for field, (kind, value) in fields.items():
        at = start + places[field]
        if kind in ("array", "table", "tables"):
            struct.pack_into("<I", data, at, len(data) - at) if kind != "table" else None
            if kind == "array":
                data += struct.pack("<I", len(value)) + value.tobytes()
            elif kind == "table":
                struct.pack_into("<I", data, at, write_table(data, value) - at)
            else:
                vector = len(data)
                data += struct.pack("<I", len(value)) + bytes(4 * len(value))
                for i, child in enumerate(value):
                    slot = vector + 4 + 4 * i
                    struct.pack_into("<I", data, slot, write_table(data, child) - slot)
        else:
            struct.pack_into("<" + kind, data, at, value)
    return start


def tflite_bytes(layers: list[dict]) -> bytes:
    """`layers`: depthwise, kernel (uint8 in TFLite's layout), bias (int32), scale, zero, stride, padding."""

    def quantised(scale, zero):
        return ("table", {2: ("array", np.float32([scale])), 3: ("array", np.int64([zero]))})

    tensors = [{0: ("array", np.int32([1, 8, 8, 3])), 1: ("b", 3), 4: quantised(0.0078125, 128)}]
    buffers, operators = [{}], []
    for layer in layers:
        for values, kind, zero in ((layer["kernel"], 3, layer["zero"]), (layer["bias"], 2, 0)):
            buffers.append({0: ("array", np.frombuffer(values.tobytes(), np.uint8))})
            fields = {0: ("array", np.int32(values.shape)), 1: ("b", kind), 2: ("I", len(buffers) - 1)}
            tensors.append(fields | {4: quantised(layer["scale"], zero)})
        options = {0: ("b", layer.get("padding", 0)), 1: ("i", layer["stride"]), 2: ("i", layer["stride"])}
        options[4 if layer["depthwise"] else 3] = ("b", 3)
        inputs = np.int32([0, len(tensors) - 2, len(tensors) - 1])
        operators.append({0: ("I", int(layer["depthwise"])), 1: ("array", inputs), 4: ("table", options)})
    graph = {0: ("tables", tensors), 1: ("array", np.int32([0])), 3: ("tables", operators)}
    codes = [{0: ("b", 3)}, {0: ("b", 4), 3: ("i", 4)}]  # as old files say it, and as new ones do
    data = bytearray(b"\0\0\0\0TFL3")
    root = write_table(data, {1: ("tables", codes), 2: ("tables", [graph]), 4: ("tables", buffers)})
    struct.pack_into("<I", data, 0, root)
    return bytes(data)


def random_layer(depthwise: bool, shape: tuple[int, ...], stride: int, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    out = shape[3] if depthwise else shape[0]
    bias = rng.integers(-99, 99, out, dtype=np.int32)
    return dict(
        depthwise=depthwise,
        kernel=rng.integers(0, 256, shape, dtype=np.uint8),
        bias=bias,
        scale=0.02,
        zero=120,
        stride=stride,
    )


def test_the_reader_gives_back_what_a_tflite_file_holds():
    wide, deep = random_layer(False, (4, 3, 3, 2), 2, 0), random_layer(True, (1, 3, 3, 4), 1, 1)
    (first, second), (scale, zero) = read_convolutions(tflite_bytes([wide, deep]))
    assert (scale, zero) == (0.0078125, 128)
    assert (first.depthwise, first.stride, second.depthwise, second.stride) == (False, 2, True, 1)
    assert first.weight.shape == (4, 2, 3, 3) and second.weight.shape == (4, 1, 3, 3)
    assert first.weight[3, 1, 2, 0] == pytest.approx(0.02 * (int(wide["kernel"][3, 2, 0, 1]) - 120))
    assert second.weight[3, 0, 2, 0] == pytest.approx(0.02 * (int(deep["kernel"][0, 2, 0, 3]) - 120))
    np.testing.assert_allclose(second.bias, 0.02 * deep["bias"], rtol=1e-6)


def test_the_reader_refuses_other_files_and_other_networks():
    with pytest.raises(ValueError, match="TFL3"):
        read_convolutions(b"PK\x03\x04 this is a zip")
    with pytest.raises(ValueError, match="layer 0"):
        read_convolutions(tflite_bytes([random_layer(False, (4, 3, 3, 2), 2, 0) | {"padding": 1}]))


def test_a_converted_mobilenet_loads_into_the_tower(tmp_path):
    channels = MobileNet(0.25).channels
    layers = [random_layer(False, (channels[0], 3, 3, 3), 2, 0)]
    for i, (_, stride) in enumerate(BLOCKS):
        layers.append(random_layer(True, (1, 3, 3, channels[i]), stride, 2 * i + 1))
        layers.append(random_layer(False, (channels[i + 1], 1, 1, channels[i]), 1, 2 * i + 2))
    (tmp_path / "m.tflite").write_bytes(tflite_bytes(layers))
    convert(tmp_path / "m.tflite", tmp_path / "m.safetensors", width=0.25)
    state, about = load_mobilenet(tmp_path / "m.safetensors")
    MobileNet(0.25).load_state_dict(state)
    assert about["mean"] * 255 == pytest.approx(128) and about["std"] * 255 == pytest.approx(128)
    np.testing.assert_allclose(
        state["blocks.12.pointwise.weight"][:, :, 0, 0], 0.02 * (layers[-1]["kernel"][:, 0, 0] - 120.0), rtol=1e-5
    )


def test_a_file_of_another_kind_is_refused_with_the_cure(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(RealRAGError, match="convert-mobilenet"):
        load_mobilenet(tmp_path / "other.safetensors")
