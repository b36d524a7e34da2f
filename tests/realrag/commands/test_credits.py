import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from realrag.commands.main import main
from realrag.credits.record import CreditedPhoto, PictureCredit, add, pixel_hash


@pytest.fixture
def pictures(tmp_path) -> list[str]:
    """One with credits of its own, one with those of another picture, one without."""
    paths = [tmp_path / name for name in ("with.png", "changed.png", "without.png")]
    image = Image.new("RGB", (8, 8), "yellow")
    metadata: dict = {}
    photo = CreditedPhoto("a lemon", "Ann", "CC-BY-4.0", "", "0" * 16)
    add(metadata, PictureCredit((photo,), "ab" * 32, (pixel_hash(np.asarray(image)),)))
    texts = PngInfo()
    texts.add_text("realrag", json.dumps(metadata["realrag"]))
    image.save(paths[0], pnginfo=texts)
    Image.new("RGB", (8, 8), "red").save(paths[1], pnginfo=texts)
    image.save(paths[2])
    return [str(path) for path in paths]


def test_credits_are_shown_for_each_picture(pictures, capsys):
    assert main(["credits", *pictures]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "with.png: credits of real photos"
    assert lines[1] == "  1. a lemon, by Ann, CC-BY-4.0"
    assert lines[2] == "  library abababababab"
    assert "The picture was changed since" in lines[lines.index("changed.png: credits of real photos") + 3]
    assert lines[-1] == "without.png: no credits of RealRAG"


def test_credits_as_json_are_json_and_nothing_else(pictures, capsys):
    assert main(["credits", *pictures, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["sure"] for one in found] == [True, False, False]
    assert found[0]["credits"][0]["references"][0]["license"] == "CC-BY-4.0"
    assert found[2] == {"file": "without.png", "sure": False, "credits": []}


def test_a_text_file_holds_the_credits_of_those_that_have_some(pictures, tmp_path):
    assert main(["credits", *pictures, "--text", str(tmp_path / "credits.txt")]) == 0
    text = (tmp_path / "credits.txt").read_text()
    assert text.startswith("with.png\n1. a lemon, by Ann, CC-BY-4.0\n\nchanged.png\n")
    assert "without" not in text


def test_one_bad_file_stops_nothing_and_is_told_by_the_exit_code(pictures, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    assert main(["credits", str(tmp_path / "bad.png"), pictures[0]]) == 1
    out, error = capsys.readouterr()
    assert "bad.png: not a picture" in error
    assert "1. a lemon" in out
