"""The kept picture: letters and thin lines stay what they are, panoramas keep their height."""

import io
import tarfile

import numpy as np
import pytest
from made_photos import photo_bytes
from PIL import Image, ImageDraw

from realrag.bundle.bundle import Bundle, BundleError, manifest_bytes
from realrag.indexing.build import build
from realrag.indexing.shards import Sizes
from realrag.photos.decode import decode
from realrag.photos.keep import encode_jpeg, encode_kept, resized, shrink, shrink_to_area, suffix_of

RED, BLUE = (230, 20, 20), (20, 20, 220)


def sign(noise=0):
    """Red letters and a red line of one pixel on blue, of a sensor's noise."""
    image = Image.new("RGB", (400, 300), BLUE)
    draw = ImageDraw.Draw(image)
    draw.text((20, 40), "Granny Smith", fill=RED, font_size=50)
    draw.line((0, 200, 400, 200), fill=RED)
    pixels = np.asarray(image).astype(int) + np.random.default_rng(0).integers(-noise, noise + 1, (300, 400, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def off(image, data: bytes) -> np.ndarray:
    return np.abs(np.asarray(decode(data)).astype(int) - np.asarray(image).astype(int))


def test_a_flat_picture_is_kept_without_loss_where_that_is_smaller():
    data = encode_kept(sign())
    assert suffix_of(data) == ".webp"
    assert off(sign(), data).max() == 0
    assert len(data) < len(encode_jpeg(sign()))


def test_a_photographed_sign_keeps_the_colors_of_its_letters():
    image = sign(noise=12)
    data = encode_kept(image)
    assert suffix_of(data) == ".jpg"
    thin = off(image, data)[200]
    assert thin.mean() < off(image, encode_jpeg(image))[200].mean() / 4


def test_a_photo_stays_a_jpeg():
    assert suffix_of(encode_kept(Image.open(io.BytesIO(photo_bytes(RED, 1, (640, 480)))))) == ".jpg"


@pytest.mark.parametrize("side", [388, 292, 120, 40])
def test_a_smaller_picture_is_pillows_bicubic_within_two_levels(side):
    image = sign(noise=12)
    size = side, side * 3 // 4
    pillow = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    ours = shrink(image, side)
    assert ours.mode == "RGB" and ours.size == pillow.size
    away = np.abs(np.asarray(ours).astype(int) - np.asarray(pillow).astype(int))
    assert away.max() <= 2 and away.mean() < 0.02


@pytest.mark.parametrize("size", [(384, 288), (900, 300), (130, 97)])
def test_a_small_view_is_pillows_bilinear_within_a_level_enlarged_or_made_smaller(size):
    image = sign(noise=12).resize((256, 192))
    pillow = image.resize(size, Image.Resampling.BILINEAR)
    ours = resized(image, size, 1, "bilinear")
    assert ours.mode == "RGB" and ours.size == size
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(pillow).astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("size", "kept"),
    [((20_000, 2_000), (2428, 242)), ((4000, 3000), (886, 665)), ((768, 768), (768, 768)), ((700, 800), (700, 800)), ((1, 2_000_000), (1, 589824))],
)  # fmt: skip
def test_the_bound_lies_on_the_area(size, kept):
    assert shrink_to_area(Image.new("L", size), 768 * 768).size == kept


@pytest.mark.parametrize("side", [96, 128])
def test_new_bundles_are_bound_by_area_and_say_so(tmp_path, encoder, side):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "wide.jpg").write_bytes(photo_bytes(RED, 1, (1200, 120)))
    sign().save(folder / "sign.png")
    build(folder, tmp_path / "b", encoder, sizes=Sizes(side, 64, bound="area"))
    bundle = Bundle(tmp_path / "b")
    assert (bundle.manifest.picture_longest, bundle.manifest.picture_bound) == (side, "area")
    for record in bundle.records:
        width, height = bundle.image(record).size
        assert 0.9 * side * side < width * height <= side * side
    bundle.verify()
    (pack,) = (tmp_path / "b").glob("pictures-*.tar")
    with tarfile.open(pack) as tar:
        names = {name.partition(".")[2] for name in tar.getnames()}
        for record in bundle.records:
            (name,) = [name for name in tar.getnames() if name.startswith(record.id)]
            assert tar.extractfile(name).read() == bundle.jpeg(record)
    assert "jpg" in names


def test_a_bundle_of_before_goes_on_as_it_was_made(tmp_path, encoder):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photo_bytes(RED, 1, (1200, 120)))
    build(folder, tmp_path / "b", encoder, sizes=Sizes(96, 64))
    assert b"picture_bound" not in (tmp_path / "b" / "manifest.json").read_bytes()
    (folder / "b.jpg").write_bytes(photo_bytes(RED, 2, (1200, 120)))
    build(folder, tmp_path / "b", encoder)
    bundle = Bundle(tmp_path / "b")
    assert [bundle.image(record).size for record in bundle.records] == [(96, 10), (96, 10)]
    with pytest.raises(BundleError, match="at most 96 px on the longest side"):
        build(folder, tmp_path / "b", encoder, sizes=Sizes(128, 64, bound="area"))


@pytest.mark.slow
def test_nobody_asked_means_by_area(tmp_path, encoder):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "wide.jpg").write_bytes(photo_bytes(RED, 1, (4000, 400)))
    build(tmp_path / "photos", tmp_path / "b", encoder)
    bundle = Bundle(tmp_path / "b")
    assert (bundle.manifest.picture_longest, bundle.manifest.picture_bound) == (768, "area")
    assert bundle.image(bundle.records[0]).size == (2428, 242)


def test_a_bound_of_a_later_version_is_refused(tmp_path, encoder):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(photo_bytes(RED))
    build(tmp_path / "photos", tmp_path / "b", encoder)
    import json

    path = tmp_path / "b" / "manifest.json"
    content = json.loads(path.read_bytes())
    content.pop("format")
    path.write_bytes(manifest_bytes({**content, "picture_bound": "volume"}))
    with pytest.raises(BundleError, match="picture_bound"):
        Bundle(tmp_path / "b")
