"""The general encoder: its two networks against those of other libraries, its files, and what it refuses."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_encoders import tiny_general, write_tiny_general

from realrag import artifact
from realrag.encoders.efficientnet_lite import CUT, Tail, Trunk
from realrag.encoders.general import GeneralEncoder
from realrag.encoders.general_net import IMAGE_FORMAT, SCALE, TEXT_FORMAT, VERSION, dequantize, quantize
from realrag.encoders.load import load_encoder
from realrag.encoders.minilm import MiniLM
from realrag.encoders.word_pieces import WordPieces
from realrag.errors import EncoderError

IMAGE, TEXT = GeneralEncoder.IMAGE, GeneralEncoder.TEXT


@pytest.fixture
def folder(tmp_path):
    return write_tiny_general(tmp_path / "general")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> GeneralEncoder:
    return load_encoder(str(write_tiny_general(tmp_path_factory.mktemp("general"))))


# The networks


def test_trunk_and_tail_are_timms_efficientnet_lite0():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, 0.0, 0.5)
    layers = _convolutions(theirs)
    trunk, tail = Trunk().eval(), Tail().eval()
    ours = [module for net in (trunk, tail) for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(ours) == len(layers) and len(trunk.blocks) == CUT
    for mine, (conv, norm) in zip(ours, layers, strict=True):
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        mine.weight.data, mine.bias.data = conv.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain
    pixels = torch.randn(5, 3, 97, 64)
    with torch.inference_mode():
        wanted, found = theirs.forward_features(pixels), tail(trunk(pixels))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert wanted.std() > 0.05
    torch.testing.assert_close(
        tail(trunk(pixels)).detach(), found, rtol=1e-3, atol=1e-4
    )  # with gradients: nothing in place


def _convolutions(model) -> list:
    modules = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d)]
    return list(zip(modules[::2], modules[1::2], strict=True))


def test_minilm_is_transformers_bert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
            max_position_embeddings=16,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for weight in theirs.parameters():
            weight += 0.2 * torch.randn_like(weight)
    state = theirs.state_dict()
    ours = MiniLM(50, 24, 2, 3, 40, 16)
    names = {
        "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
        "out": "attention.output.dense", "attended": "attention.output.LayerNorm", "up": "intermediate.dense",
        "down": "output.dense", "done": "output.LayerNorm",
    }  # fmt: skip
    kind = state["embeddings.token_type_embeddings.weight"][0]
    mine = {
        "tokens.weight": state["embeddings.word_embeddings.weight"],
        "positions.weight": state["embeddings.position_embeddings.weight"] + kind,
    }
    for part in ("weight", "bias"):
        mine[f"start.{part}"] = state[f"embeddings.LayerNorm.{part}"]
        for layer in range(2):
            for name, other in names.items():
                mine[f"layers.{layer}.{name}.{part}"] = state[f"encoder.layer.{layer}.{other}.{part}"]
    ours.load_state_dict(mine)
    ids, real = torch.randint(0, 50, (3, 9)), torch.ones(3, 9, dtype=torch.bool)
    real[1, 4:] = False
    with torch.inference_mode():
        hidden = theirs(input_ids=ids, attention_mask=real.long()).last_hidden_state
        mean = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        torch.testing.assert_close(ours(ids, real), F.normalize(mean, dim=1), rtol=1e-5, atol=1e-5)


def test_word_pieces_are_those_of_transformers_bert(tmp_path):
    transformers = pytest.importorskip("transformers")
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "creme",
        "gran",
        "##ny",
        "smith",
        "apple",
        "##s",
        ",",
        "!",
        "a",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    theirs = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"), do_lower_case=True)
    texts = ["Crème, GRANNY Smith apples!", "a", "", "unknown  apple\ta", "a " * 40]
    ids, real = WordPieces(pieces, len(pieces), 16)(texts)
    wanted = theirs(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
    assert torch.equal(ids, wanted["input_ids"]) and torch.equal(real, wanted["attention_mask"].bool())


def test_photos_have_two_parts_of_fixed_length(tiny):
    pixels = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    vectors = tiny.encode_images(pixels)
    assert vectors.shape == (6, tiny.dim) and tiny.preprocess.size == 64
    torch.testing.assert_close(vectors[:, :12].norm(dim=1), torch.ones(6))
    torch.testing.assert_close(vectors[:, 12:].norm(dim=1), torch.full((6,), 0.5))
    torch.testing.assert_close(tiny.encode_images(pixels[3:4])[0], vectors[3], rtol=1e-4, atol=1e-5)
    assert (vectors[0] - vectors[1]).norm() > 1e-3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=4))
@pytest.mark.slow
def test_any_text_has_a_vector_whatever_stands_beside_it(texts):
    encoder = _encoder()
    vectors = encoder.encode_texts(texts)
    assert vectors.shape == (len(texts), encoder.dim) and torch.isfinite(vectors).all()
    torch.testing.assert_close(encoder.encode_texts(texts[:1])[0], vectors[0], rtol=1e-4, atol=1e-5)


_made: list[GeneralEncoder] = []


def _encoder() -> GeneralEncoder:
    if not _made:
        encoder = GeneralEncoder.__new__(GeneralEncoder)
        torch.nn.Module.__init__(encoder)
        encoder.towers = tiny_general().eval()
        encoder.dim = 20
        _made.append(encoder)
    return _made[0]


def test_it_says_which_words_it_cannot_read_and_how_far_it_reads(tiny):
    assert tiny.coverage("a red apple") == (3, 3, ())
    assert tiny.coverage("a red 苹果 apple").unknown == ("苹", "果")
    long = tiny.coverage("apple " * 40)  # 12 places, two of them for the ends
    assert (long.words, long.read) == (40, 10)
    assert tiny.coverage("red \ud800 apple").words == 3


# The files


def test_what_is_saved_is_the_same_encoder(tiny, tmp_path):
    paths = tiny.save_pretrained(tmp_path / "again")
    again = load_encoder(str(tmp_path / "again"))
    assert {path.name for path in paths} == {IMAGE, TEXT, GeneralEncoder.NAMES}
    assert again.fingerprint == tiny.fingerprint and again.image_fingerprint == tiny.image_fingerprint
    assert again.kind == "general" and not again.portable
    texts = ["a red apple", "dogs"]
    assert torch.equal(again.encode_texts(texts), tiny.encode_texts(texts))


def test_the_vocabulary_is_part_of_the_identity(folder, tiny):
    state, metadata = load_file(folder / TEXT), artifact.read_header(folder / TEXT, "", "").metadata
    text = bytes(state["vocabulary"].numpy()).replace(b"cat", b"dab")
    state["vocabulary"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    save_file(state, folder / TEXT, metadata)
    changed = load_encoder(str(folder))
    assert changed.fingerprint != tiny.fingerprint and changed.image_fingerprint == tiny.image_fingerprint


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_int8_is_near_and_gives_the_same_numbers_again(seed):
    weight = torch.randn(5, 33, generator=torch.Generator().manual_seed(seed)) * 10 ** (seed % 5 - 3)
    weight[2] = 0
    numbers, scale = quantize(weight)
    back = dequantize(numbers, scale)
    assert (back - weight).abs().amax(1).le(weight.abs().amax(1) / 127 * 0.51 + 1e-7).all()
    assert torch.equal(quantize(back)[0], numbers) and torch.equal(dequantize(*quantize(back)), back)


def test_another_device_dtype_rounds_and_nothing_else(tiny, tmp_path):
    half = load_encoder(str(write_tiny_general(tmp_path / "half"))).to(torch.bfloat16)
    texts = half.encode_texts(["a red apple"])
    assert F.cosine_similarity(texts, tiny.encode_texts(["a red apple"])) > 0.99
    assert half.encode_images(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).dtype == torch.float32


def rewrite(path, format, **changed):
    state, metadata = load_file(path), artifact.read_header(path, "", "").metadata
    config = {**json.loads(metadata["config"]), **changed}
    save_file(state, path, {"format": format, "version": VERSION, "config": json.dumps(config)})


REFUSED = [
    ("dim", 10**9), ("dim", "20"), ("dim", 8), ("taught_dim", True), ("side", 2.0), ("side", None), ("width", 1e9), ("layers", 0),
    ("heads", 3), ("heads", 0), ("wide", 1 << 30), ("positions", 1), ("vocabulary", 10**12), ("vocabulary_bytes", 1 << 40),
    ("hidden", -1), ("preprocess", {"size": 10**6}), ("preprocess", {"size": 64, "loader": "x"}), ("trust_remote_code", True),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_is_not_allowed_is_refused_by_its_key(folder, key, value):
    rewrite(folder / IMAGE, IMAGE_FORMAT, **{key: value})
    rewrite(folder / TEXT, TEXT_FORMAT, **{key: value})
    with pytest.raises(EncoderError):
        load_encoder("carried", folder=folder, offline=True)


def test_files_of_two_encoders_and_damaged_ones_are_refused_in_words(folder, tmp_path):
    rewrite(folder / TEXT, TEXT_FORMAT, hidden=23)
    with pytest.raises(EncoderError, match="two encoders"):
        load_encoder(str(folder))
    shutil.copy(folder / IMAGE, folder / TEXT)
    with pytest.raises(EncoderError, match="not a general encoder"):
        load_encoder(str(folder))
    (folder / TEXT).unlink()
    with pytest.raises(EncoderError, match=TEXT):
        load_encoder(str(folder))


def without_scale(state):
    del state["language.tokens.weight" + SCALE]


def with_floats(state):
    state["language.tokens.weight"] = state["language.tokens.weight"].float()


def with_too_few_pieces(state):
    state["vocabulary"][:] = ord("x")


def with_no_text(state):
    state["vocabulary"][:] = 0xFF


@pytest.mark.slow
@pytest.mark.parametrize("change", [without_scale, with_floats, with_too_few_pieces, with_no_text])
def test_weights_that_do_not_belong_together_are_refused(folder, change):
    state, metadata = load_file(folder / TEXT), artifact.read_header(folder / TEXT, "", "").metadata
    change(state)
    save_file(state, folder / TEXT, metadata)
    with pytest.raises(EncoderError):
        load_encoder(str(folder))


def test_photos_are_prepared_whole_and_square(tiny):
    assert tiny.prepare(Image.new("RGB", (300, 90), (10, 200, 30))).shape == (3, 64, 64)
