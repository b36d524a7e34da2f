"""What a report tells somebody to ask, by what lies in the folder."""

import pytest
from fake_encoder import ColorEncoder
from made_photos import photo_bytes

from realrag.indexing.build import build
from realrag.indexing.options import Report
from realrag.indexing.report_text import counts_of, license_note, what_to_ask
from realrag.photos.scan import Rejected


@pytest.fixture
def told(tmp_path):
    def run(files):
        for number, file in enumerate(files):
            path = tmp_path / "photos" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo_bytes((200, 20, 20), number, cells=6))
            if path.stem == "captioned":
                path.with_suffix(".txt").write_text("a barn in the snow")
        return what_to_ask(build(tmp_path / "photos", tmp_path / "b", ColorEncoder()))

    return run


def test_classes_are_named(told):
    said = told(["Mimi/IMG_1.jpg", "Bello/IMG_2.jpg"])
    assert said.startswith("Ask it by name for its 2 classes: Bello, Mimi. By look, ")
    assert "captions" not in said


def test_of_many_classes_the_first_are_named(told):
    assert "its 15 classes: c10, c11, " in (said := told([f"c{n}/IMG_1.jpg" for n in range(10, 25)]))
    assert "c21 and 3 more. " in said and "c22" not in said


def test_a_flat_folder_of_a_camera_is_told_how_to_get_names(told):
    said = told([f"IMG_{n}.jpg" for n in range(24)])
    assert "no names and no captions, so only their look is searched" in said and "sub-folder" in said
    assert "Ask it by" not in said and "knows little" not in said


def test_captions_without_classes_are_what_to_ask(told):
    said = told(["captioned.jpg", "IMG_2.jpg"])
    assert said.startswith("Ask it by the words of its captions and file names.")


def test_captions_beside_classes_are_said(told):
    assert "its 1 class: Mimi. Its captions are searched too." in told(["Mimi/captioned.jpg", "Mimi/IMG_2.jpg"])


def report(**fields) -> Report:
    return Report(**{"found": 3, "indexed": 3, "total": 3, **fields})


def test_what_did_not_happen_is_not_counted():
    assert counts_of(report(encoded=3)) == ["3 photos found, all usable; 3 encoded now."]
    assert counts_of(report()) == ["3 photos found, all usable; nothing new."]
    bad = Rejected("c.jpg", "blank", "c.jpg: shows nothing")
    mixed = report(indexed=1, duplicates=[("Zoe/b.jpg", "Bello/b.jpg")], rejected=[bad], encoded=1, removed=2)
    assert counts_of(mixed) == [
        "3 photos found: 1 usable, 1 the same as another (first: Zoe/b.jpg is Bello/b.jpg), 1 left out; "
        "1 encoded now, 2 taken out of the library."
    ]


def test_that_no_photo_states_a_license_is_said_once(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photo_bytes((200, 20, 20), number, cells=6))
    own = build(tmp_path / "photos", tmp_path / "b", ColorEncoder())
    assert own.unlicensed == 2 and len(license_note(own)) == 1 and "Your own need none" in license_note(own)[0]
    (tmp_path / "photos" / "captions.csv").write_text("file,license\n0.jpg,CC0-1.0\n")
    some = build(tmp_path / "photos", tmp_path / "b", ColorEncoder())
    assert some.unlicensed == 1 and license_note(some) == []


def test_folders_of_dates_and_cameras_are_no_names_to_ask_for(told):
    said = told(["2023/08/IMG_1.jpg", "2023/07 Baltic Sea/IMG_2.jpg", "100CANON/IMG_3.jpg", "10_zoecat cat/4.jpg"])
    assert said.startswith("Ask it by name for its 2 classes: Baltic Sea, zoecat cat. ")
