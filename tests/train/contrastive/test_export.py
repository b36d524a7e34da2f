"""Tuned encoders for other programs give the same vectors there."""

import pytest
import torch
from tiny_encoders import write_tiny_clip, write_tiny_small, write_tiny_vit

from realrag.encoders.load import load_encoder
from realrag_train.__main__ import main

PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def exported(source, kind, out):
    assert main(["export", str(source), "--format", kind, "--out", str(out)]) == 0
    return out


def test_an_open_clip_encoder_is_read_by_open_clip(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    encoder = load_encoder(str(write_tiny_clip(tmp_path / "tiny")))
    model = open_clip.create_model(f"local-dir:{exported(tmp_path / 'tiny', 'open_clip', tmp_path / 'out')}").eval()
    tokens = encoder._tokenizer(["a red mug", "two owls at night"])
    with torch.inference_mode():
        torch.testing.assert_close(model.encode_image(PIXELS), encoder._images(PIXELS))
        torch.testing.assert_close(model.encode_text(tokens), encoder._texts(["a red mug", "two owls at night"]))


def test_an_open_clip_encoder_is_written_for_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    encoder = load_encoder(str(write_tiny_clip(tmp_path / "tiny")))
    model = transformers.CLIPModel.from_pretrained(exported(tmp_path / "tiny", "transformers", tmp_path / "out")).eval()
    texts = ["a red mug", "two owls at night"]
    with torch.inference_mode():
        images = model.visual_projection(model.vision_model(pixel_values=PIXELS).pooler_output)
        tokens = encoder._tokenizer(texts)
        words = model.text_projection(model.text_model(input_ids=tokens).pooler_output)
        torch.testing.assert_close(images, encoder._images(PIXELS), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(words, encoder._texts(texts), rtol=1e-4, atol=1e-5)


def test_a_transformers_encoder_stays_one(tmp_path):
    pytest.importorskip("transformers")
    write_tiny_vit(tmp_path / "tiny")
    encoder = load_encoder(str(tmp_path / "tiny"))
    again = load_encoder(str(exported(tmp_path / "tiny", "transformers", tmp_path / "out")))
    with torch.inference_mode():
        torch.testing.assert_close(again._images(PIXELS), encoder._images(PIXELS))


def test_what_has_no_place_elsewhere_is_refused(tmp_path, capsys):
    write_tiny_small(tmp_path / "tiny")
    for kind in ("open_clip", "transformers"):
        assert main(["export", str(tmp_path / "tiny"), "--format", kind, "--out", str(tmp_path / "out")]) == 1
        assert f"can be written for {kind}. It can be written for: neither" in capsys.readouterr().err
    write_tiny_clip(tmp_path / "clip")
    (tmp_path / "out").mkdir()
    assert main(["export", str(tmp_path / "clip"), "--format", "open_clip", "--out", str(tmp_path / "out")]) == 1
    assert "is there. Give --out a new folder" in capsys.readouterr().err
