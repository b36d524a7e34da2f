"""Content credentials of a finished picture: the photos are its ingredients, by their words and without their pixels."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from signed_photos import credentials

from realrag.commands.main import main
from realrag.credits.read import read_credits
from realrag.credits.record import KEY, CreditedPhoto, PictureCredit, add
from realrag.credits.sign import sign_picture
from realrag.errors import RealRAGError
from realrag.photos.c2pa import words_of_manifest

c2pa = pytest.importorskip("c2pa")
PHOTOS = (
    CreditedPhoto("Granny Smith", "Ann Example", "CC-BY-4.0", "https://example.org/1", "0123456789abcdef"),
    CreditedPhoto("pear", "", "CC0-1.0", "an album of ours"),
)
WORKFLOW = '{"nodes": []}'


@pytest.fixture
def picture(tmp_path):
    """As Save Image writes it, with a graph and credits."""
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    metadata: dict = {}
    add(metadata, PictureCredit(PHOTOS, "a" * 64))
    texts = PngInfo()
    texts.add_text("workflow", WORKFLOW)
    texts.add_text(KEY, json.dumps(metadata[KEY]))
    Image.fromarray(pixels).save(tmp_path / "painted.png", pnginfo=texts)
    return tmp_path / "painted.png"


@pytest.fixture
def pems(tmp_path):
    paths = tmp_path / "chain.pem", tmp_path / "key.pem"
    for path, data in zip(paths, credentials(), strict=True):
        path.write_bytes(data)
    return paths


def manifest_of(path) -> dict:
    with c2pa.Reader("image/png", io.BytesIO(path.read_bytes())) as reader:
        store = json.loads(reader.json())
    assert store["validation_state"] == "Valid"  # "Trusted" would need a certificate that somebody trusts
    return store["manifests"][store["active_manifest"]]


def test_the_photos_are_ingredients_of_words_alone_and_the_picture_stays_what_it_is(picture, pems, tmp_path, capsys):
    out = tmp_path / "signed.png"
    command = ["credits", str(picture), "--sign", str(out), "--certificate", str(pems[0]), "--key", str(pems[1])]
    assert main(command) == 0
    assert "2 photos as ingredients" in capsys.readouterr().out
    manifest = manifest_of(out)
    first, second = manifest["ingredients"]
    assert first["title"] == "Granny Smith" and first["description"] == "by Ann Example, CC-BY-4.0"
    assert first["informational_URI"] == "https://example.org/1" and first["relationship"] == "inputTo"
    assert second["title"] == "pear" and "informational_URI" not in second
    assert not any("thumbnail" in text for text in (json.dumps(manifest).lower(),))
    assert len(out.read_bytes()) - len(picture.read_bytes()) < 8_000
    assert out.read_bytes().count(b"\xff\xd8\xff") == picture.read_bytes().count(b"\xff\xd8\xff")
    with Image.open(picture) as before, Image.open(out) as after:
        assert (
            after.text == before.text and after.text["workflow"] == WORKFLOW
        )  # dropped on the page, it opens the graph
        assert after.tobytes() == before.tobytes()
    assert read_credits(out).photos() == read_credits(picture).photos()
    assert words_of_manifest(out.read_bytes(), "PNG")[1]  # an index of photos tells it from a real one


def test_what_cannot_be_signed_is_refused_with_its_cure_and_nothing_is_written(picture, pems, tmp_path):
    out = tmp_path / "signed.png"
    plain, twice = tmp_path / "plain.png", tmp_path / "twice.png"
    with Image.open(picture) as image:
        Image.fromarray(np.asarray(image)).save(plain)
    sign_picture(picture, twice, *pems)
    (tmp_path / "words.pem").write_text("no key")
    for arguments, cure in [
        ((plain, out, *pems), "Put Add Credits before Save Image"),
        ((twice, out, *pems), "Sign the picture as ComfyUI saved it"),
        ((picture, tmp_path / "signed.jpg", *pems), "ends in .png"),
        ((picture, out, pems[0], tmp_path / "words.pem"), "Export it as PEM"),
        ((picture, out, pems[1], pems[0]), "Export it as PEM"),
        ((picture, out, *pems, "es384"), "Give --algorithm"),
    ]:
        with pytest.raises(RealRAGError) as refused:
            sign_picture(*arguments)
        assert cure in str(refused.value)
    assert not out.exists() and not (tmp_path / "signed.jpg").exists()


def test_a_key_that_is_not_the_certificates_signs_nothing(picture, pems, tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.generate_private_key(ec.SECP256R1())
    pems[1].write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(RealRAGError, match="Check certificate and key"):
        sign_picture(picture, tmp_path / "signed.png", *pems)
    assert not (tmp_path / "signed.png").exists()


def test_a_photo_of_a_pack_has_a_title_alone(picture, pems, tmp_path):
    metadata: dict = {}
    add(
        metadata,
        PictureCredit((replace(PHOTOS[0], title="Red beet, by Ben", author="", license="", source="", id=""),)),
    )
    texts = PngInfo()
    texts.add_text(KEY, json.dumps(metadata[KEY]))
    with Image.open(picture) as image:
        image.save(picture, pnginfo=texts)
    assert sign_picture(picture, tmp_path / "signed.png", *pems) == 1
    (ingredient,) = manifest_of(tmp_path / "signed.png")["ingredients"]
    assert ingredient["title"] == "Red beet, by Ben" and not ingredient.get("description")


def test_one_picture_with_its_two_files(picture, capsys):
    assert main(["credits", str(picture), "--sign", "out.png"]) == 1
    assert "--certificate FILE and --key FILE" in capsys.readouterr().err


def test_jpeg_and_webp_are_signed_too(pems, tmp_path, picture):
    metadata: dict = {}
    add(metadata, PictureCredit(PHOTOS))
    for suffix in (".jpg", ".webp"):
        path, out = tmp_path / f"painted{suffix}", tmp_path / f"signed{suffix}"
        with Image.open(picture) as image:
            exif = Image.Exif()
            exif[0x010F] = f"{KEY}:{json.dumps(metadata[KEY])}"
            image.save(path, exif=exif)
        assert sign_picture(path, out, *pems) == 2
        assert read_credits(out).photos() == list(PHOTOS)


def test_another_kind_of_picture_is_refused_by_name(picture, pems, tmp_path):
    metadata: dict = {}
    add(metadata, PictureCredit(PHOTOS))
    path, out = tmp_path / "painted.avif", tmp_path / "signed.avif"
    with Image.open(picture) as image:
        exif = Image.Exif()
        exif[0x010F] = f"{KEY}:{json.dumps(metadata[KEY])}"
        image.save(path, exif=exif)
    with pytest.raises(RealRAGError, match="AVIF file; PNG, JPEG and WebP are signed"):
        sign_picture(path, out, *pems)
    assert not out.exists()
