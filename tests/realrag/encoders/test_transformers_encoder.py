"""CLIP and SigLIP files in transformers' format give transformers' own vectors, whole or in parts."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_photos import photo_bytes
from safetensors.torch import load_file, save_file
from tiny_encoders import write_tiny_transformers

from realrag.adapters.siglip_pooling_head import head_width, load_map_head
from realrag.encoders import transformers_layout as layouts
from realrag.encoders.load import load_encoder
from realrag.encoders.transformers_files import build
from realrag.encoders.transformers_layout import canonical, read_layout
from realrag.encoders.transformers_tokenizer import TextTokens
from realrag.errors import EncoderError
from realrag.photos.decode import decode

LAYOUTS = ["B", "L", "H", "g", "siglip"]
TEXTS = ["a red apple", "a photo of a 1994 audi on the table", "", "Dog, dog; CAT!"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """layout -> (folder, transformers' model), each made once; tests only read them."""
    found = {}

    def make(layout):
        if layout not in found:
            folder = tmp_path_factory.mktemp(f"tiny-{layout}")
            found[layout] = folder, write_tiny_transformers(folder, layout)
        return found[layout]

    return make


def pictures(encoder, number=3):
    photos = [decode(photo_bytes((200 - 60 * seed, 40 + 60 * seed, 90), seed, (50, 40))) for seed in range(number)]
    return torch.stack([encoder.prepare(photo) for photo in photos])


def theirs(model, encoder, pixels=None, tokens=None):
    with torch.inference_mode():
        if pixels is not None:
            out = model.get_image_features(pixel_values=encoder.preprocess.normalize(pixels, torch.float32))
        else:
            out = model.get_text_features(input_ids=tokens)
    return out if isinstance(out, torch.Tensor) else out.pooler_output


@pytest.mark.parametrize("form", ["folder", "file"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_towers_give_transformers_own_vectors(layout, form, made):
    folder, model = made(layout)
    encoder = load_encoder(str(folder if form == "folder" else folder / "model.safetensors"))
    assert encoder.kind == "transformers" and not encoder.portable and encoder.has_text_tower
    pixels = pictures(encoder)
    images, texts = encoder.encode_images(pixels), encoder.encode_texts(TEXTS)
    assert images.shape[1] == texts.shape[1] == encoder.dim
    assert torch.allclose(images, theirs(model, encoder, pixels=pixels), atol=1e-5, rtol=1e-5)
    assert torch.allclose(texts, theirs(model, encoder, tokens=encoder._tokens(TEXTS)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(images[0], images[1], atol=1e-3), "tiny pictures that come out alike show nothing"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_are_those_of_the_tokenizer_beside_the_weights(layout, made):
    from transformers import PreTrainedTokenizerFast

    folder, _ = made(layout)
    encoder = load_encoder(str(folder))
    plain = [text.translate(str.maketrans("", "", ",;!")).lower() for text in TEXTS] if layout == "siglip" else TEXTS
    library = PreTrainedTokenizerFast.from_pretrained(folder)
    expected = library(plain, padding="max_length", truncation=True, max_length=12, return_tensors="pt").input_ids
    assert torch.equal(encoder._tokens(TEXTS), expected)


@pytest.mark.parametrize("layout", ["B", "siglip"])
def test_pixels_are_those_of_transformers_own_processor(layout, made):
    import transformers

    encoder = load_encoder(str(made(layout)[0]))
    size = encoder.preprocess.size
    if layout == "B":
        processor = transformers.CLIPImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        )
    else:
        processor = transformers.SiglipImageProcessorPil(size={"height": size, "width": size}, resample=3)
    photo = decode(photo_bytes((90, 140, 30), 1, (61, 47)))
    expected = torch.as_tensor(processor(photo, return_tensors="pt").pixel_values)
    found = encoder.preprocess.normalize(encoder.prepare(photo)[None], torch.float32)
    assert torch.allclose(
        found, expected, atol=0.03
    )  # a resampled pixel may round to its neighbor, 1/255 of a range of 4
    assert (found - expected).abs().mean() < 2e-3


@pytest.mark.parametrize("layout", ["H", "siglip"])
def test_a_saved_one_comes_back_as_itself_and_transformers_reads_it(layout, made, tmp_path):
    import transformers

    encoder = load_encoder(str(made(layout)[0]))
    files = encoder.save_pretrained(tmp_path / "encoder")
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".model"}
    again = load_encoder(encoder.name, folder=tmp_path / "encoder", offline=True)
    assert (again.fingerprint, again.image_fingerprint) == (encoder.fingerprint, encoder.image_fingerprint)
    assert torch.equal(again.encode_texts(TEXTS), encoder.encode_texts(TEXTS))
    model = getattr(transformers, "SiglipModel" if layout == "siglip" else "CLIPModel").from_pretrained(
        tmp_path / "encoder"
    )
    pixels = pictures(encoder)
    assert torch.allclose(
        theirs(model.eval(), encoder, pixels=pixels), encoder.encode_images(pixels), atol=1e-5, rtol=1e-5
    )


# Part of a model


@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("layout", ["H", "siglip"])
def test_a_vision_tower_alone_makes_vectors_of_pictures_and_says_so(layout, prefixed, made, tmp_path, caplog):
    """transformers from 5.8 on saves a tower from a config without the prefix of the whole model."""
    folder, model = made(layout)
    kept = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if name.startswith("vis")}
    if not prefixed:
        kept = {name.removeprefix("vision_model."): tensor for name, tensor in kept.items()}
    save_file(kept, tmp_path / "vision.safetensors", {"format": "pt"})
    shutil.copy(folder / "config.json", tmp_path)
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(str(tmp_path / "vision.safetensors"))
    assert not encoder.has_text_tower and "searched by picture" in caplog.text
    pixels = pictures(encoder)
    assert torch.allclose(encoder.encode_images(pixels), theirs(model, encoder, pixels=pixels), atol=1e-5, rtol=1e-5)
    with pytest.raises(EncoderError, match=r"no text tower.*searched by picture"):
        encoder.encode_texts(["a cat"])


def test_a_tower_that_transformers_itself_saved_alone_is_read_and_so_is_its_pooling_head(tmp_path):
    import transformers

    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(hidden_size=128, num_hidden_layers=1, num_attention_heads=2, image_size=32,
                                             intermediate_size=80, patch_size=8)  # fmt: skip
    model = transformers.SiglipVisionModel(config).eval()
    model.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    pixels = pictures(encoder)
    with torch.inference_mode():
        out = model(pixel_values=encoder.preprocess.normalize(pixels, torch.float32))
    assert encoder.layout.vision.heads == 2
    assert torch.allclose(encoder.encode_images(pixels), out.pooler_output, atol=1e-5, rtol=1e-5)
    file = tmp_path / "model.safetensors"
    assert head_width(file) == 128
    assert torch.allclose(load_map_head(file)(out.last_hidden_state), out.pooler_output, atol=1e-5, rtol=1e-5)


def test_half_precision_stays_half_in_a_bundle_and_is_computed_in_full(made, tmp_path):
    folder = shutil.copytree(made("L")[0], tmp_path / "half")
    whole = load_file(folder / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in whole.items()}, folder / "model.safetensors")
    encoder = load_encoder(str(folder))
    assert encoder.place[1] == torch.float32
    encoder.save_pretrained(tmp_path / "saved")
    assert all(tensor.dtype == torch.float16 for tensor in load_file(tmp_path / "saved" / "model.safetensors").values())
    assert load_encoder("x", folder=tmp_path / "saved").fingerprint == encoder.fingerprint


def test_a_library_of_a_vision_tower_alone_is_built_carried_and_searched_by_picture(made, tmp_path):
    from PIL import Image

    from realrag.bundle.bundle import Bundle
    from realrag.indexing.build import build as index
    from realrag.retriever import Retriever

    folder, _ = made("siglip")
    kept = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if name.startswith("vis")}
    (tmp_path / "photos").mkdir()
    save_file(kept, tmp_path / "vision.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    for seed in range(3):
        (tmp_path / "photos" / f"{seed}.jpg").write_bytes(photo_bytes((40 + 80 * seed, 90, 30), seed, (40, 30)))
    index(tmp_path / "photos", tmp_path / "bundle", load_encoder(str(tmp_path / "vision.safetensors")))
    assert Bundle(tmp_path / "bundle").encoder_folder is not None
    retriever = Retriever.open(tmp_path / "bundle")
    best = retriever.search(image=Image.open(tmp_path / "photos" / "1.jpg"), k=1).items[0]
    assert best.file == "1.jpg"
    assert "reads no words" in retriever.search("a red apple").note
    with pytest.raises(EncoderError, match="no text tower"):
        retriever.search("a red apple", find_by="look")


# Without a config


def strip(folder, tmp_path):
    shutil.copy(folder / "model.safetensors", tmp_path / "alone.safetensors")
    return tmp_path / "alone.safetensors"


def test_without_a_config_a_width_that_nobody_published_is_not_guessed(made, tmp_path):
    with pytest.raises(EncoderError, match=r"64 channels wide.*config\.json"):
        load_encoder(str(strip(made("H")[0], tmp_path)))


def wide_tower(path, width):
    """A CLIP vision tower of a published width, one layer deep, and transformers' own vectors by activation."""
    import transformers

    torch.manual_seed(width)
    config = transformers.CLIPVisionConfig(hidden_size=width, num_hidden_layers=1, intermediate_size=64, projection_dim=16,
                                           num_attention_heads=16 if width == 1280 else width // 64, image_size=28,
                                           patch_size=14, hidden_act="gelu" if width == 1280 else "quick_gelu")  # fmt: skip
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    save_file({key: tensor for key, tensor in model.state_dict().items() if "position_ids" not in key}, path)
    return model


@pytest.mark.parametrize("width, words", [(768, "OpenAI's CLIP, with QuickGELU"), (1280, "LAION's CLIP, with GELU")])
def test_without_a_config_what_was_taken_from_the_table_is_right_and_said(width, words, tmp_path, caplog):
    model = wide_tower(tmp_path / "alone.safetensors", width)
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(str(tmp_path / "alone.safetensors"))
    assert f"taken for {words}, by its width of {width}" in caplog.text
    pixels = pictures(encoder)
    with torch.inference_mode():
        expected = model(encoder.preprocess.normalize(pixels, torch.float32)).image_embeds
    assert torch.allclose(encoder.encode_images(pixels), expected, atol=1e-5, rtol=1e-5)


def test_a_config_of_another_model_in_the_same_folder_does_not_count(made, tmp_path, caplog):
    wide_tower(tmp_path / "alone.safetensors", 1280)
    shutil.copy(made("B")[0] / "config.json", tmp_path)
    encoder = load_encoder(str(tmp_path / "alone.safetensors"))
    assert not encoder.layout.configured and encoder.layout.vision.activation == "gelu"
    assert "no config.json that fits it" in caplog.text


def test_a_file_that_is_known_by_its_hash_needs_no_warning(tmp_path, caplog, monkeypatch):
    from realrag.encoders import transformers_encoder
    from realrag.files import sha256_file

    path = tmp_path / "alone.safetensors"
    wide_tower(path, 768)
    monkeypatch.setattr(transformers_encoder, "OPENAI_FILES", {path.stat().st_size: sha256_file(path)})
    load_encoder(str(path))
    assert "taken for" not in caplog.text


def test_a_clip_without_tokenizer_reads_as_open_clip_does():
    import open_clip

    tower = layouts.Tower(512, 1, 8, 64, "gelu", 1e-5, 16)
    layout = layouts.Layout("clip", tower, 224, 32, True, tower, 49408, 77)
    assert torch.equal(TextTokens(layout, Path("nowhere"), False)(TEXTS), open_clip.get_tokenizer("ViT-B-32")(TEXTS))
    with pytest.raises(EncoderError, match="40 tokens, not the usual 49408"):
        TextTokens(replace(layout, vocabulary=40), Path("nowhere"), False)


def test_the_fingerprint_tells_the_same_weights_with_another_activation_apart(made, tmp_path):
    folder, _ = made("B")
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    for part in ("vision_config", "text_config"):
        config[part]["hidden_act"] = "gelu"
    (other / "config.json").write_text(json.dumps(config))
    one, two = load_encoder(str(folder)), load_encoder(str(other))
    assert one.weights_sha256 == two.weights_sha256
    assert len({one.fingerprint, two.fingerprint}) == len({one.adapter_sha256, two.adapter_sha256}) == 2


# Real shapes, without values

REAL = {
    "openai B/32": ("clip", dict(hidden_size=768, num_attention_heads=12, image_size=224, patch_size=32), 512, 8, 512, 12, "quick_gelu"),
    "openai B/16": ("clip", dict(hidden_size=768, num_attention_heads=12, image_size=224, patch_size=16), 512, 8, 512, 12, "quick_gelu"),
    "openai L/14": ("clip", dict(hidden_size=1024, num_attention_heads=16, num_hidden_layers=24, image_size=224, patch_size=14),
                    768, 12, 768, 12, "quick_gelu"),
    "openai L/14-336": ("clip", dict(hidden_size=1024, num_attention_heads=16, num_hidden_layers=24, image_size=336,
                                     patch_size=14), 768, 12, 768, 12, "quick_gelu"),
    "laion H/14": ("clip", dict(hidden_size=1280, num_attention_heads=16, num_hidden_layers=32, image_size=224, patch_size=14),
                   1024, 16, 1024, 24, "gelu"),
    "laion g/14": ("clip", dict(hidden_size=1408, num_attention_heads=16, num_hidden_layers=40, image_size=224, patch_size=14),
                   1024, 16, 1024, 24, "gelu"),
    "laion bigG/14": ("clip", dict(hidden_size=1664, num_attention_heads=16, num_hidden_layers=48, image_size=224,
                                   patch_size=14), 1280, 20, 1280, 32, "gelu"),
    "siglip base": ("siglip", dict(hidden_size=768, num_attention_heads=12, image_size=224, patch_size=16), 768, 12, 768, 12, ""),
    "siglip large": ("siglip", dict(hidden_size=1024, num_attention_heads=16, num_hidden_layers=24, image_size=256,
                                    patch_size=16), 1024, 16, 1024, 24, ""),
    "siglip so400m": ("siglip", dict(hidden_size=1152, num_attention_heads=16, num_hidden_layers=27, image_size=384,
                                     patch_size=14), 1152, 16, 1152, 27, ""),
    "siglip2 so400m": ("siglip2", dict(hidden_size=1152, num_attention_heads=16, num_hidden_layers=27, image_size=512,
                                       patch_size=16), 1152, 16, 1152, 27, ""),
    "siglip2 giant": ("siglip2", dict(hidden_size=1536, num_attention_heads=16, num_hidden_layers=40, image_size=256,
                                      patch_size=16), 1152, 16, 1536, 27, ""),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_published_shapes_alone_give_the_published_model(name):
    import transformers

    family, vision, width, heads, dim, layers, act = REAL[name]
    mlp = (
        4304
        if vision["hidden_size"] == 1152
        else 6144
        if vision["hidden_size"] in (1408, 1536)
        else 4 * vision["hidden_size"]
    )
    mlp = 8192 if vision["hidden_size"] == 1664 else mlp
    vision = {**vision, "intermediate_size": mlp}
    text = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers,
            "intermediate_size": 4304 if width == 1152 else 4 * width}  # fmt: skip
    with torch.device("meta"):
        if family == "clip":
            acts = {"hidden_act": act}
            model = transformers.CLIPModel(transformers.CLIPConfig(
                vision_config={**vision, **acts, "projection_dim": dim}, text_config={**text, **acts, "projection_dim": dim},
                projection_dim=dim))  # fmt: skip
        else:
            text |= {
                "projection_size": dim,
                "vocab_size": 256000 if family == "siglip2" else 32000,
                "max_position_embeddings": 64,
            }
            model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    shapes = {canonical(key): tuple(tensor.shape) for key, tensor in model.state_dict().items() if canonical(key)}
    layout = read_layout(shapes, None)
    assert (layout.image, layout.patch, layout.dim) == (vision["image_size"], vision["patch_size"], dim)
    assert (layout.vision.heads, layout.text.heads) == (vision["num_attention_heads"], heads)
    assert (layout.vision.activation, layout.text.activation) == ((act or "gelu_pytorch_tanh"),) * 2
    assert layout.tokenizer == {"clip": "clip", "siglip": "siglip", "siglip2": "gemma"}[family]
    towers = dict(zip(("vision", "text", "visual_projection", "text_projection"), build(layout), strict=True))
    built = {}
    for part, module in towers.items():
        prefix = {"vision": layouts.VISION, "text": layouts.TEXT}.get(part, f"{part}.")
        for key, tensor in module.state_dict().items():
            built[prefix + key.removeprefix(prefix)] = tuple(tensor.shape)
    assert built == shapes


# What is refused


@pytest.mark.parametrize("fault", ["gone", "shape", "more"])
def test_a_file_that_is_not_whole_is_refused_in_a_sentence(fault, made, tmp_path):
    folder = shutil.copytree(made("H")[0], tmp_path / "bad")
    tensors = load_file(folder / "model.safetensors")
    if fault == "gone":
        del tensors["vision_model.encoder.layers.1.mlp.fc2.bias"]
    if fault == "shape":
        tensors["vision_model.encoder.layers.1.mlp.fc2.bias"] = torch.zeros(3)
    if fault == "more":
        tensors |= {f"surprise.{number}": torch.zeros(1) for number in range(500)}
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(EncoderError, match="Download it again") as caught:
        load_encoder(str(folder))
    assert len(str(caught.value)) < 700


def test_a_naflex_siglip2_and_a_tower_without_its_pooling_head_are_named(made):
    with pytest.raises(EncoderError, match=r"NaFlex.*Use a fixed size"):
        read_layout({"vision_model.embeddings.patch_embedding.weight": (768, 768)}, None)
    shapes = {key: tuple(t.shape) for key, t in load_file(made("siglip")[0] / "model.safetensors").items()}
    with pytest.raises(EncoderError, match="without its pooling head"):
        read_layout({key: shape for key, shape in shapes.items() if ".head.p" not in key}, None)


def test_a_siglip_without_tokenizer_says_which_files_to_put_beside_it(made, tmp_path):
    with pytest.raises(EncoderError, match=r"no tokenizer beside it. Put tokenizer\.json or spiece\.model"):
        shutil.copy(made("siglip")[0] / "config.json", tmp_path)
        load_encoder(str(strip(made("siglip")[0], tmp_path)))


def test_a_tokenizer_of_another_model_is_refused(made, tmp_path):
    from tokenizers import Tokenizer

    folder = shutil.copytree(made("siglip")[0], tmp_path / "other")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"word{number}" for number in range(60)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(EncoderError, match="another model's"):
        load_encoder(str(folder))


@pytest.mark.parametrize("part", [{"num_attention_heads": 7}, {"hidden_act": "__import__"}, {"layer_norm_eps": "x"},
                                  {"num_attention_heads": True}])  # fmt: skip
def test_a_config_with_values_that_no_model_has_is_refused(part, made, tmp_path):
    folder = shutil.copytree(made("L")[0], tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= part
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=r"config\.json"):
        load_encoder(str(folder))


def test_an_architecture_and_a_file_of_transformers_is_refused_with_the_cure(made):
    file = made("B")[0] / "model.safetensors"
    with pytest.raises(EncoderError, match=r"transformers.*--encoder FILE") as caught:
        load_encoder(f"ViT-B-32:openai={file}")
    assert len(str(caught.value)) < 700


def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(EncoderError, match="names no safetensors files beside it"):
        load_encoder(str(tmp_path))


def test_shards_are_read_like_one_file(made, tmp_path):
    folder, _ = made("g")
    whole = load_encoder(str(folder))
    parts = shutil.copytree(folder, tmp_path / "parts")
    (parts / "model.safetensors").unlink()
    tensors = sorted(load_file(folder / "model.safetensors").items())
    names = {}
    for number, chunk in enumerate((tensors[:20], tensors[20:])):
        save_file(dict(chunk), parts / f"part-{number}.safetensors")
        names |= {name: f"part-{number}.safetensors" for name, _ in chunk}
    (parts / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert load_encoder(str(parts)).fingerprint == whole.fingerprint
