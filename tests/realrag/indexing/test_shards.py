"""Shards: what encoding leaves behind in this process."""

from made_photos import photo_bytes
from PIL import Image

from realrag.bundle.bundle import Bundle
from realrag.indexing.build import build


def test_pillow_keeps_no_memory_once_the_photos_are_encoded(tmp_path, encoder):
    (tmp_path / "photos").mkdir()
    for number in range(5):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photo_bytes(number))
    before = Image.core.get_blocks_max()
    build(tmp_path / "photos", tmp_path / "b", encoder)
    assert Image.core.get_blocks_max() == before
    assert Image.core.get_stats()["blocks_cached"] <= before
    assert Bundle(tmp_path / "b").manifest.count == 5
