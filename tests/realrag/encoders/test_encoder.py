import json

import numpy as np
import pytest
import torch
from fake_encoder import ColorEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from made_photos import photo_bytes
from PIL import Image
from tiny_encoders import MEAN, STD, TINY, add_architecture

from realrag.encoders.load import load_encoder
from realrag.encoders.open_clip import OpenClipEncoder
from realrag.encoders.preprocess import Preprocess
from realrag.errors import EncoderError
from realrag.photos.decode import decode


def picture(width, height, seed=0):
    return decode(photo_bytes((90, 140, 30), seed, (width, height)))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(5, 300), st.integers(5, 300), st.sampled_from([1, 7, 32, 33, 224]),
    st.sampled_from([("crop", "shortest"), ("squash", "squash")]), st.sampled_from(["bicubic", "bilinear"]),
)  # fmt: skip
def test_pixels_are_those_of_open_clips_own_transform(width, height, size, modes, interpolation):
    from open_clip.transform import image_transform

    image = Image.fromarray(
        np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8).astype(np.uint8)
    )
    mode, theirs = modes
    ours = Preprocess(size, mode, interpolation, MEAN, STD)
    transform = image_transform(size, False, tuple(MEAN), tuple(STD), resize_mode=theirs, interpolation=interpolation)
    expected = transform(image)
    found = ours.normalize(ours.pixels(image)[None], torch.float32)[0]
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000), (20000, 3)])
@pytest.mark.parametrize("mode", ["crop", "squash", "pad"])
def test_a_hair_thin_picture_costs_no_memory_and_keeps_its_middle(size, mode):
    image = Image.new("RGB", size, (0, 0, 0))
    middle = [max(0, side // 2 - 2000) for side in size]
    image.paste((200, 100, 50), (*middle, *(min(side, side // 2 + 2000) or 1 for side in size)))
    pixels = Preprocess(224, mode).pixels(image)
    assert pixels.shape == (3, 224, 224)
    if mode == "crop":
        assert pixels.float().mean((1, 2)).round().tolist() == [200, 100, 50]


def test_padding_keeps_the_whole_picture():
    pixels = Preprocess(64, "pad").pixels(Image.new("RGB", (128, 32), (255, 255, 255)))
    assert pixels.shape == (3, 64, 64) and pixels[:, 24:40].min() == 255 and pixels[:, :24].max() == 0


@pytest.mark.parametrize(
    "fault", [{"mode": "stretch"}, {"size": 0}, {"std": (0, 1, 1)}, {"interpolation": "nearest"}, {"mean": (1,)}]
)
def test_unusable_preprocessing_is_refused(fault):
    with pytest.raises(EncoderError):
        Preprocess(**{"size": 32, **fault})


def test_an_open_clip_folder_gives_open_clips_own_vectors(tiny_clip):
    import open_clip

    encoder = load_encoder(str(tiny_clip))
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tiny_clip}")
    image, texts = picture(50, 40), ["a red apple", "a photo of a 1994 Audi 100"]
    with torch.inference_mode():
        images, words = model.eval().encode_image(transform(image)[None]), model.encode_text(tokenizer(texts))
    assert encoder.dim == 24 and encoder.preprocess.size == 32
    assert torch.allclose(encoder.encode_images(encoder.prepare(image)[None]), images, atol=1e-5)
    assert torch.allclose(encoder.encode_texts(texts), words, atol=1e-5)


def test_a_saved_encoder_comes_back_with_the_same_fingerprint(tiny_clip, tmp_path):
    encoder = load_encoder(str(tiny_clip))
    files = encoder.save_pretrained(tmp_path / "encoder")
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    again = load_encoder(encoder.name, folder=tmp_path / "encoder", offline=True)
    assert again.fingerprint == encoder.fingerprint and again.name == encoder.name


def test_fingerprints_tell_weights_and_preprocessing_apart():
    prints = {ColorEncoder().fingerprint, ColorEncoder(scale=2).fingerprint, ColorEncoder(size=8).fingerprint}
    assert len(prints) == 3 and ColorEncoder().fingerprint in prints


def test_weights_of_an_architecture_come_from_a_file(tmp_path, monkeypatch):
    import open_clip
    from safetensors.torch import save_file

    config = tmp_path / "models" / "realrag-test-tiny.json"
    config.parent.mkdir()
    config.write_text(json.dumps(TINY))
    add_architecture(monkeypatch, config)
    model = open_clip.create_model("realrag-test-tiny")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "mine.safetensors")
    encoder = load_encoder(f"realrag-test-tiny:{tmp_path / 'mine.safetensors'}")
    assert encoder.name == "realrag-test-tiny:mine" and not encoder.portable, "a private path stays out of the name"
    with torch.inference_mode():
        expected = model.eval().encode_text(open_clip.get_tokenizer("realrag-test-tiny")(["a cat"]))
    assert torch.allclose(encoder.encode_texts(["a cat"]), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoSuchModel:openai", "knows no model 'NoSuchModel'"),
        ("ViT-B-32", "names no weights.*openai"),
        ("ViT-B-32:nosuchtag", "Known tags.*openai"),
        ("ViT-B-32:openai", "not on this machine.*--with-encoder"),
    ],
)
def test_an_encoder_that_is_not_here_says_what_to_do(name, message, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)
    with pytest.raises(EncoderError, match=message):
        load_encoder(name, offline=True)


def test_an_open_clip_that_does_not_import_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(EncoderError, match="pip install open_clip_torch"):
        OpenClipEncoder("ViT-B-32:openai")


def test_weights_of_another_model_are_refused(tiny_clip, tmp_path):
    import shutil

    folder = tmp_path / "wrong"
    shutil.copytree(tiny_clip, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 25
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="text_projection"):
        load_encoder(str(folder))


def test_offline_means_no_connection_at_all(tmp_path, monkeypatch):
    """SigLIP's tokenizer lives on a hub: offline, its weights and tokenizer come from local copies or not at all."""
    import socket

    def connect(*args, **kwargs):
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(EncoderError, match="not on this machine"):
        load_encoder("ViT-B-16-SigLIP:webli", offline=True)


def test_a_text_model_from_the_network_is_refused_offline(tiny_clip, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_clip, tmp_path / "stranger")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "stranger/model"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="hf_model_name"):
        load_encoder("x:y", folder=folder, offline=True)
