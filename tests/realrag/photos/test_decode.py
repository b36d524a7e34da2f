import io
import struct
import zlib

import numpy as np
import pytest
from made_photos import photo_bytes
from PIL import Image

from realrag.errors import PhotoError
from realrag.photos.decode import MAX_PIXELS, decode, inspect
from realrag.photos.keep import encode_jpeg, shrink

RED = (230, 20, 20)


def saved(image, format="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"hello, I am not a photo", "not_a_photo"),
        ("svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        ("bomb.png", png_that_claims(30_000, 30_000), "too_many_pixels"),
        ("just_over.png", png_that_claims(MAX_PIXELS // 1000 + 1, 1000), "too_many_pixels"),
        ("scan.psd", b"8BPS\0\1" + bytes(60), "unsupported_format"),
    ],
)
def test_what_is_no_usable_photo_is_refused_with_a_reason_and_its_name(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PhotoError, match=name) as error:
        inspect(tmp_path / name)
    assert error.value.reason == reason


def test_a_truncated_photo_is_refused_when_decoded():
    data = photo_bytes(RED, size=(200, 200))
    with pytest.raises(PhotoError) as error:
        decode(data[: len(data) // 2])
    assert error.value.reason == "damaged"


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, turn):
    upright = Image.new("RGB", (64, 32))
    upright.paste((255, 0, 0), (0, 0, 32, 16))  # a red corner at the top left
    undo = {
        1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4
    }[turn]  # fmt: skip
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / "a.jpg"
    stored.save(path, quality=95, exif=exif)
    found = inspect(path)
    image = decode(path.read_bytes())
    assert image.size == (found.width, found.height) == (64, 32)
    corner, rest = np.asarray(image)[:12, :28].mean((0, 1)), np.asarray(image)[20:, 36:].mean((0, 1))
    assert corner[0] > 200 and rest[0] < 40


def test_private_metadata_does_not_survive():
    exif = Image.Exif()
    exif[0x010F], exif[0xA431], exif[0xA430] = "SecretMaker", "SERIAL-123", "Owner Name"
    exif.get_ifd(0x8825)[1] = "N"
    data = saved(Image.new("RGB", (32, 32), RED), "JPEG", exif=exif, comment=b"private comment")
    assert b"SecretMaker" in data
    image = decode(data)
    out = encode_jpeg(image)
    assert not image.info and not any(word in out for word in (b"Secret", b"SERIAL", b"Owner", b"private", b"Exif"))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "I;16"])
def test_every_mode_becomes_plain_rgb(mode):
    source = Image.new("RGB", (16, 16), (200, 200, 200))
    if mode == "I;16":
        source = Image.fromarray(np.full((16, 16), 200 * 256, np.uint16))
    else:
        source = source.convert(mode)
    image = decode(saved(source, "PNG"))
    assert image.mode == "RGB"
    expected = 255 if mode == "1" else 200
    assert abs(np.asarray(image).mean() - expected) < 56 if mode == "1" else abs(np.asarray(image).mean() - 200) < 3


def test_transparency_lies_on_white():
    image = decode(saved(Image.new("RGBA", (8, 8), (0, 0, 0, 0))))
    assert np.asarray(image).min() == 255


@pytest.mark.slow
def test_a_large_jpeg_is_decoded_small_but_never_smaller_than_asked():
    data = photo_bytes(RED, size=(1600, 1200))
    image = decode(data, longest=300)
    assert 300 <= max(image.size) < 1600
    assert shrink(image, 300).size == (300, 225)


def test_shrinking_keeps_a_thin_picture_and_never_enlarges():
    assert shrink(Image.new("RGB", (4000, 1)), 100).size == (100, 1)
    assert shrink(Image.new("RGB", (10, 20)), 100).size == (10, 20)
