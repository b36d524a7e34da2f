import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from realrag.credits.read import read_credits
from realrag.credits.record import KEY, CreditedPhoto, PictureCredit, add, pixel_hash
from realrag.errors import PhotoError

PHOTO = CreditedPhoto("a lemon", "Ann", "CC-BY-4.0", "https://example.org/lemon", "0" * 16)


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))


def metadata(picture: Image.Image | None = None, title: str = "a lemon") -> dict:
    made: dict = {"workflow": {"nodes": [], "links": []}}
    hashes = (pixel_hash(np.asarray(picture)),) if picture else ()
    add(made, PictureCredit((CreditedPhoto(title, *list(vars(PHOTO).values())[1:]),), "ab" * 32, hashes))
    return made


def as_png(picture, made: dict, path):
    """As core's Save Image writes it."""
    texts = PngInfo()
    texts.add_text("prompt", json.dumps({"1": {"class_type": "KSampler", "inputs": {}}}))
    for key, value in made.items():
        texts.add_text(key, json.dumps(value))
    picture.save(path, pnginfo=texts, compress_level=4)
    return path


def as_webp(picture, made: dict, path, **options):
    """As core's saving of animated WebP writes it."""
    exif, tag = picture.getexif(), 0x010F
    exif[0x0110] = "prompt:{}"
    for key, value in made.items():
        exif[tag] = f"{key}:{json.dumps(value)}"
        tag -= 1
    picture.save(path, exif=exif, **options)
    return path


def test_a_png_says_which_photos_steered_these_pixels(picture, tmp_path):
    found = read_credits(as_png(picture, metadata(picture), tmp_path / "a.png"))
    assert found.sure
    assert found.photos() == [PHOTO]
    assert found.text() == "1. a lemon, by Ann, CC-BY-4.0, https://example.org/lemon"
    assert found.as_json()["credits"][0]["bundle"] == "ab" * 32


def test_of_two_pictures_of_a_run_each_finds_its_own(picture, tmp_path):
    other = Image.fromarray(255 - np.asarray(picture))
    made = metadata(picture)
    add(made, PictureCredit((CreditedPhoto("a lime"),), "", (pixel_hash(np.asarray(other)),)))
    titles = [
        [photo.title for photo in read_credits(as_png(one, made, tmp_path / "a.png")).photos()]
        for one in (picture, other)
    ]
    assert titles == [["a lemon"], ["a lime"]]


def test_a_picture_that_was_not_credited_itself_is_not_sure(picture, tmp_path):
    plain = Image.fromarray(255 - np.asarray(picture))
    found = read_credits(as_png(plain, metadata(picture), tmp_path / "a.png"))
    assert not found.sure
    assert found.photos() == [PHOTO]


@pytest.mark.parametrize("kind", ["webp", "jpg"])
def test_exif_of_webp_and_jpeg_is_read(picture, tmp_path, kind):
    found = read_credits(as_webp(picture, metadata(picture), tmp_path / f"a.{kind}"))
    assert found.photos() == [PHOTO]
    assert not found.sure


def test_an_animated_png_is_read_from_the_chunk_where_comfyui_puts_it(picture, tmp_path):
    texts = PngInfo()
    for key, value in metadata().items():
        texts.add(b"comf", key.encode() + b"\0" + json.dumps(value).encode(), after_idat=True)
    picture.save(tmp_path / "a.png", pnginfo=texts, save_all=True, append_images=[picture.rotate(90)])
    assert read_credits(tmp_path / "a.png").photos() == [PHOTO]


def test_a_picture_of_somebody_elses_carries_none(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "a.webp")
    assert read_credits(tmp_path / "a.png").credits == ()
    assert read_credits(tmp_path / "a.webp").credits == ()


def test_a_picture_with_damaged_pixels_still_says_whom_to_credit(picture, tmp_path):
    data = as_png(picture, metadata(picture), tmp_path / "a.png").read_bytes()
    at = data.index(b"IDAT") + 4
    size = struct.unpack(">I", data[at - 8 : at - 4])[0]
    body = bytes(size)
    chunk = struct.pack(">I", size) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    (tmp_path / "b.png").write_bytes(data[: at - 8] + chunk + data[at + size + 4 :])
    found = read_credits(tmp_path / "b.png")
    assert found.photos() == [PHOTO]
    assert not found.sure


@pytest.mark.parametrize("text", ['{"format": "realrag-credits"}', "[]", "[" * 50_000, "\0"])
def test_hostile_texts_under_our_key_are_refused_in_a_sentence(picture, tmp_path, text):
    texts = PngInfo()
    texts.add_text(KEY, text)
    picture.save(tmp_path / "a.png", pnginfo=texts)
    with pytest.raises(PhotoError, match="its credits cannot be read"):
        read_credits(tmp_path / "a.png")


def test_a_compressed_text_that_unpacks_to_a_flood_is_not_unpacked(picture, tmp_path):
    texts = PngInfo()
    flood = KEY.encode() + b"\0\0" + zlib.compress(b"[" * (64 << 20), 9)
    texts.add(b"zTXt", flood)
    picture.save(tmp_path / "a.png", pnginfo=texts)
    assert read_credits(tmp_path / "a.png").credits == ()


@pytest.mark.parametrize("cut", [0, 4, 40, 300, 700])
def test_a_cut_file_is_read_or_refused_in_a_sentence(picture, tmp_path, cut):
    data = as_png(picture, metadata(picture), tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[:cut])
    try:
        read_credits(tmp_path / "b.png")
    except PhotoError as error:
        assert str(error).startswith("b.png: ")


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(PhotoError, match=r"a\.txt: not a picture"):
        read_credits(tmp_path / "a.txt")
    with pytest.raises(PhotoError, match="cannot be read"):
        read_credits(tmp_path / "missing.png")
