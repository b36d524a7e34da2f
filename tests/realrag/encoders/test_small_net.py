"""The shipped small dual encoder: its tokenizer, its padding, its file and, on plain colors, its common sense."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_encoders import SMALL as CONFIG

from realrag.encoders.load import load_encoder
from realrag.encoders.small_net import (
    MOST_TOKENS,
    MobileNet,
    SmallDualEncoder,
    load_small_encoder,
    pieces,
    save_small_encoder,
    words,
)
from realrag.errors import EncoderError

SHIPPED = Path(__file__).parents[3] / "realrag" / "assets" / "small_encoder.safetensors"


@pytest.fixture(scope="module")
def tiny() -> SmallDualEncoder:
    torch.manual_seed(0)
    return SmallDualEncoder(CONFIG).eval()


# Sentences


def test_punctuation_case_hyphens_and_accents_do_not_matter():
    assert words("Crème-Fraîche, GRANNY_SMITH!") == ["creme", "fraiche", "granny", "smith"]


def test_a_word_is_cut_into_itself_and_its_letter_groups():
    assert pieces("fig") == ["<fig>", "<fi", "fig", "ig>", "<fig", "fig>"]


@given(st.lists(st.text(), max_size=4))
def test_any_text_gives_valid_tokens_and_always_the_same(texts):
    model = SmallDualEncoder.__new__(SmallDualEncoder)  # the tokenizer needs the config alone
    torch.nn.Module.__init__(model)
    model.config = CONFIG
    tokens = model.tokenize(texts)
    assert tokens.dtype == torch.int64 and tokens.shape[0] == len(texts) and 1 <= tokens.shape[1] <= MOST_TOKENS
    assert ((tokens >= 0) & (tokens < CONFIG["buckets"])).all()
    assert torch.equal(tokens, model.tokenize(texts))
    for text, row in zip(texts, tokens, strict=True):  # the company a sentence is in changes only its padding
        alone = model.tokenize([text])[0]
        assert torch.equal(row[: len(alone)], alone) and not row[len(alone) :].any()


def test_padding_does_not_change_an_embedding(tiny):
    texts = ["figs", "a photo of granny smith apples on a table", ""]
    together = tiny.text_tower(tiny.tokenize(texts))
    alone = torch.cat([tiny.text_tower(tiny.tokenize([text])) for text in texts])
    torch.testing.assert_close(together, alone)
    assert together.isfinite().all()


def test_the_text_tower_equals_its_formula_written_out(tiny):
    (tokens,) = tiny.tokenize(["ripe red figs"])
    weights = [tiny.text.salience.weight[t].exp() for t in tokens]
    mean = sum(w * tiny.text.embedding.weight[t] for w, t in zip(weights, tokens, strict=True)) / sum(weights)
    torch.testing.assert_close(tiny.text_tower(tokens[None])[0], tiny.text.mlp(mean))


# Photos


def test_front_and_back_together_are_the_tower_at_every_cut():
    torch.manual_seed(0)
    tower, x = MobileNet(0.25).eval(), torch.randn(2, 3, 64, 64)
    assert tower(x).shape == (2, 256, 2, 2)
    for cut in range(14):
        torch.testing.assert_close(tower.back(tower.front(x, cut), cut), tower(x))


@pytest.mark.parametrize(("size", "number"), [(64, 1), (64, 9), (57, 5)])
def test_encoding_and_training_compute_the_same(size, number):
    torch.manual_seed(0)
    tower = MobileNet(0.25).eval().to(memory_format=torch.channels_last)
    for weight in tower.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    x = torch.randn(number, 3, size, size)
    given = x.clone()
    with torch.inference_mode():
        found = tower(x)
    expected = tower(x.requires_grad_())
    assert torch.equal(x.detach(), given), "the caller's pictures are left as they are"
    assert expected.requires_grad and 0 < expected.mean() < 6
    # 27 layers of sums in another order: 1.2e-5 with oneDNN held to AVX2. A wrong padding is off by tenths.
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)


# The file


def test_a_saved_encoder_comes_back_with_its_config_in_half_precision(tiny, tmp_path):
    save_small_encoder(tiny, tmp_path / "e.safetensors", {"seed": 3})
    assert all(value.dtype == torch.float16 for value in load_file(tmp_path / "e.safetensors").values())
    back = load_small_encoder(tmp_path / "e.safetensors")
    assert back.config == CONFIG and not back.training
    for name, value in tiny.state_dict().items():
        assert torch.equal(back.state_dict()[name], value.half().float()), name


def test_the_same_encoder_makes_the_same_file(tiny, tmp_path):
    for name in "abc":
        save_small_encoder(tiny, tmp_path / name, {"seed": 3})
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


def _metadata(**other):
    return {"format": "realrag-small-encoder", "version": "1", "config": json.dumps(CONFIG)} | other


@pytest.mark.parametrize(
    ("metadata", "word"),
    [(None, "format"), (_metadata(version="2"), "'2'")]
    + [(_metadata(config=config), "config") for config in ("{", "[]", "{}", json.dumps(CONFIG))],
)
def test_another_file_is_refused_in_a_sentence(metadata, word, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "e.safetensors", metadata)
    with pytest.raises(EncoderError, match=word) as caught:
        load_small_encoder(tmp_path / "e.safetensors")
    assert len(str(caught.value)) < 600 + len(str(tmp_path)), "torch's list of keys is not passed through"


def test_a_broken_or_absent_file_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "e.safetensors").write_bytes(b"\x80\x04not safetensors")
    for name in ("e.safetensors", "none.safetensors"):
        with pytest.raises(EncoderError, match=name):
            load_small_encoder(tmp_path / name)


# What ships


@pytest.fixture(scope="module")
def shipped() -> SmallDualEncoder:
    return load_small_encoder(SHIPPED)


def test_the_shipped_weights_are_small_and_say_how_they_were_made(shipped):
    from safetensors import safe_open

    assert SHIPPED.stat().st_size <= 25e6
    assert shipped.config["preprocess"]["size"] % 32 == 0
    with safe_open(SHIPPED, "pt") as file:
        training = json.loads(file.metadata()["training"])
    assert training["config"]["left_out"] == 0 and training["left_out"] == []
    assert all(weight.isfinite().all() for weight in shipped.parameters())


def test_the_shipped_encoder_knows_its_words_in_any_dress(shipped):
    def texts(*sentences):
        return F.normalize(shipped.text_tower(shipped.tokenize(list(sentences))), dim=1)

    plain, dressed, other = texts(
        "granny smith", "A photo of some Granny-Smith apples on a table!", "a photo of oat milk"
    )
    assert plain @ dressed > plain @ other + 0.3


def test_the_shipped_encoder_prefers_a_photo_over_a_flat_colour(shipped):
    pixels = torch.stack([torch.zeros(3, 64, 64), torch.randn(3, 64, 64)])
    with torch.no_grad():
        answers = shipped.image_tower(pixels)
    assert answers.shape == (2, shipped.config["dim"]) and answers.isfinite().all() and not torch.allclose(*answers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sentence", "right"),
    [
        ("ripe bananas", "Banana"),
        ("A pineapple on the beach, cinematic", "Pineapple"),
        ("aubergine", "Aubergine"),
        ("a glass of orange juice", "Bravo-Orange-Juice"),
        ("a photo of a dress", "dress"),
        ("two pairs of shoes", "shoes"),
        ("a dog in the snow", "dog3"),
    ],
)
def test_the_shipped_encoder_finds_the_obvious(sentence, right, shelf):
    encoder, names, photos = shelf
    query = F.normalize(encoder.encode_texts([sentence]), dim=1)[0]
    assert names[int((photos @ query).argmax())] == right


@pytest.fixture(scope="module")
def shelf():
    """The shipped encoder, and two photos each of a few classes with their unit vectors."""
    root = SHIPPED.parent / "photos"
    folders = [
        root / "grocery" / name
        for name in ("Banana", "Pineapple", "Aubergine", "Bravo-Orange-Juice", "Garlic", "Zucchini")
    ]
    folders += [
        root / "clothing" / "dress",
        root / "clothing" / "shoes",
        root / "clothing" / "hat",
        root / "things" / "dog3",
    ]
    files = [file for folder in folders for file in sorted(folder.glob("*.jpg"))[:2]]
    encoder = load_encoder()
    photos = encoder.encode_images(torch.stack([encoder.prepare(Image.open(file)) for file in files]))
    return encoder, [file.parent.name for file in files], F.normalize(photos, dim=1)
