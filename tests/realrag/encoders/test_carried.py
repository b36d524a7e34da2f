"""A carried encoder is data: each key that is not on the list is refused by name, and no size is believed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed import CONFIGS, SIZES
from safetensors.torch import save_file
from tiny_encoders import SMALL as TINY_SMALL
from tiny_encoders import write_tiny_small

from realrag import artifact
from realrag.bundle.bundle import ENCODER_FILES
from realrag.encoders import carried
from realrag.encoders.load import load_encoder
from realrag.encoders.small_net import FORMAT, VERSION
from realrag.errors import EncoderError

CONFIG = "open_clip_config.json"


@pytest.fixture
def folder(tiny_clip, tmp_path):
    return Path(shutil.copytree(tiny_clip, tmp_path / "carried"))


def change(folder: Path, part: str, **fields) -> None:
    content = json.loads((folder / CONFIG).read_bytes())
    place = content
    for key in part.split("/") if part else ():
        place = place.setdefault(key, {})
    place.update(fields)
    (folder / CONFIG).write_text(json.dumps(content))


def load(folder: Path):
    return load_encoder("carried", folder=folder, offline=True)


@pytest.mark.parametrize(("part", "key", "value"), CONFIGS)
def test_what_is_not_on_the_list_is_refused_by_its_key(folder, part, key, value):
    change(folder, part, **{key: value})
    with pytest.raises(EncoderError, match=rf"(?s)open_clip_config\.json.*{key}"):
        load(folder)


def test_what_is_on_the_list_loads(folder):
    change(folder, "model_cfg/text_cfg", tokenizer_kwargs={"clean": "lower"}, act_kwargs=None, pool_type="argmax")
    change(folder, "model_cfg", quick_gelu=True)
    assert load(folder).dim == 24


@pytest.mark.parametrize("missing", ["model_cfg", "vision_cfg", "text_cfg", "embed_dim"])
def test_a_missing_part_is_named(folder, missing):
    content = json.loads((folder / CONFIG).read_bytes())
    content.pop(missing, None)
    content.get("model_cfg", {}).pop(missing, None)
    (folder / CONFIG).write_text(json.dumps(content))
    with pytest.raises(EncoderError, match=f"lacks the key '{missing}'"):
        load(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "fields"), SIZES)
def test_a_size_that_the_weights_do_not_have_allocates_nothing(folder, part, fields, monkeypatch):
    """Allocations are counted where all of torch's modules make their weights: on the meta device they take no memory."""
    change(folder, part, **fields)
    real, largest = torch.empty, [0]

    def counted(*given, **named):
        made = real(*given, **named)
        if made.device.type != "meta":
            largest[0] = max(largest[0], made.numel())
        return made

    monkeypatch.setattr(torch, "empty", counted)
    with pytest.raises(EncoderError, match="does not hold the weights that its configuration describes"):
        load(folder)
    assert largest[0] < 1 << 20


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{", b"[" * 90_000, b'{"model_cfg": 1' + b"0" * 500 + b"}", b"\xff\xfe{}"]
)
def test_a_configuration_that_is_none_is_a_sentence(folder, data):
    (folder / CONFIG).write_bytes(data)
    with pytest.raises(EncoderError, match=r"open_clip_config\.json"):
        load(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.sampled_from([("vision_cfg", carried.VISION), ("text_cfg", carried.TEXT)]), data=st.data(),
)  # fmt: skip
@pytest.mark.slow
def test_any_value_of_any_key_is_a_sentence_or_an_encoder(folder, tiny_clip, place, data):
    part, checks = place
    key = data.draw(st.sampled_from(sorted(checks)))
    shutil.copy(tiny_clip / CONFIG, folder / CONFIG)
    change(folder, f"model_cfg/{part}", **{key: data.draw(JSON | st.integers(0, 64) | st.booleans())})
    try:
        assert load(folder).dim == 24
    except EncoderError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dim", 0), ("dim", "12"), ("dim", 1 << 40), ("width", 1e9), ("width", "1"), ("buckets", 1), ("buckets", 1 << 40),
        ("text_width", None), ("preprocess", []), ("code", "x"), ("preprocess", {"size": 32, "mode": "other"}),
        ("preprocess", {"size": 10**7}), ("preprocess", {"size": 32, "path": "x"}), ("dim", 13), ("width", 0.5),
    ],
)  # fmt: skip
def test_a_small_encoder_whose_config_asks_for_more_is_refused(tmp_path, key, value):
    path = write_tiny_small(tmp_path) / "small_encoder.safetensors"
    tensors, _ = artifact.read(path, FORMAT, VERSION, "", "")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    config = json.dumps({**TINY_SMALL, key: value})
    save_file(tensors, path, {"format": FORMAT, "version": VERSION, "config": config})
    with pytest.raises(EncoderError, match=r"small_encoder\.safetensors") as refused:
        load_encoder("carried", folder=tmp_path)
    assert "\n" not in str(refused.value)


@pytest.fixture
def with_tokenizer(folder):
    """The tiny CLIP with a tokenizer of Hugging Face's kind, as transformers saves it."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = ["<pad>", "</s>", "<unk>", "a", "cat", "red", "car"]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: at for at, word in enumerate(words)}, "<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    change(
        folder, "model_cfg/text_cfg", hf_tokenizer_name="somebody/something", tokenizer_kwargs={"clean": "canonicalize"}
    )
    return folder


def test_a_carried_tokenizer_is_read_from_its_data(with_tokenizer):
    encoder = load(with_tokenizer)
    tokens = encoder._tokenizer(["A red, CAR!", "zebra"])
    assert tokens.shape == (2, 77)
    assert tokens[:, :5].tolist() == [[3, 5, 6, 1, 0], [2, 1, 0, 0, 0]]
    again = with_tokenizer.parent / "again"
    encoder.save_pretrained(again)
    assert {f"encoder/{path.name}" for path in again.iterdir()} <= ENCODER_FILES
    assert torch.equal(load(again)._tokenizer(["a cat"]), encoder._tokenizer(["a cat"]))


@pytest.mark.parametrize(
    "key", ["auto_map", "tokenizer_class", "name_or_path", "vocab_file", "tokenizer_file", "extra"]
)
def test_names_in_a_tokenizers_configuration_are_not_followed(with_tokenizer, key):
    path = with_tokenizer / "tokenizer_config.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, key: "no-such-name"}))
    assert load(with_tokenizer)._tokenizer(["a cat"])[0, :3].tolist() == [3, 4, 1]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_without_its_data_is_refused(with_tokenizer, name):
    (with_tokenizer / name).unlink()
    with pytest.raises(EncoderError, match=name):
        load(with_tokenizer)


def test_all_plain_models_of_open_clip_pass():
    import open_clip

    allowed = 0
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if "multimodal_cfg" in config or "hf_model_name" in config["text_cfg"]:
            continue
        carried.check_keys(config["vision_cfg"], carried.VISION, name)
        carried.check_keys(config["text_cfg"], carried.TEXT, name)
        allowed += 1
    assert allowed > 100


@pytest.mark.slow
def test_the_shapes_of_the_shipped_encoder_are_built_without_torchs_compiler():
    """Drawing values for tensors that have none imported it, and its algebra: two seconds before the first photo."""
    code = (
        "import sys; from realrag.encoders.load import load_encoder; load_encoder('realrag-small'); "
        "sys.exit(bool({'torch._dynamo', 'sympy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
