import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrag.errors import PhotoError, RealRAGError
from realrag.photos.captions import Captions, read_table
from realrag.photos.credit import MAX_FIELD, Credit, clean


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Granny-Smith").mkdir()
    (tmp_path / "Granny-Smith" / "a.jpg").touch()
    return tmp_path


def test_the_folder_name_is_the_class_and_the_caption(folder):
    assert Captions(folder).of("Granny-Smith/a.jpg") == Credit("Granny Smith", "Granny-Smith")


def test_a_photo_without_a_folder_is_called_by_its_file_name(folder):
    assert Captions(folder).of("my_red-car.jpg").caption == "my red car"


def test_table_then_sidecar_json_then_text_then_folder(folder):
    (folder / "Granny-Smith" / "a.txt").write_text("from the text file")
    assert Captions(folder).of("Granny-Smith/a.jpg").caption == "from the text file"
    (folder / "Granny-Smith" / "a.json").write_text(json.dumps({"caption": "from json", "license": "CC0-1.0"}))
    assert Captions(folder).of("Granny-Smith/a.jpg").caption == "from json"
    (folder / "captions.csv").write_text("path,text,photographer\nGranny-Smith/a.jpg,from the table,Ann\n")
    credit = Captions(folder).of("Granny-Smith/a.jpg")
    assert credit == Credit("from the table", "Granny-Smith", "Ann", "CC0-1.0", "")


def test_a_table_elsewhere_names_photos_from_where_it_lies(folder, tmp_path_factory):
    table = folder / "labels.csv"
    table.write_text("path,class\nGranny-Smith/a.jpg,Apple\n")
    assert Captions(folder / "Granny-Smith", table).of("a.jpg").class_name == "Apple"
    other = tmp_path_factory.mktemp("tables") / "labels.jsonl"
    other.write_text('{"file": "a.jpg", "class": "Apple"}\n')
    assert Captions(folder / "Granny-Smith", other).of("a.jpg").class_name == "Apple"


def test_keywords_of_the_photo_stand_behind_the_caption_beside_it(folder):
    (folder / "Granny-Smith" / "a.txt").write_text("a green apple on a table")
    inside = Credit("from the camera", keywords="Oma, Garten")
    assert Captions(folder).of("Granny-Smith/a.jpg", inside).caption == "a green apple on a table; Oma, Garten"


def test_a_class_that_holds_for_all_is_that_of_photos_without_a_folder(folder):
    captions = Captions(folder, default=Credit(class_name="apples"))
    assert captions.of("IMG_1.jpg") == Credit("apples", "apples")
    assert captions.of("Granny-Smith/a.jpg").class_name == "Granny-Smith"


def test_defaults_fill_only_what_is_not_said(folder):
    default = Credit(author="Me", licence="MIT")
    (folder / "credits.csv").write_text("file,licence\nGranny-Smith/a.jpg,CC0-1.0\n")
    credit = Captions(folder, default=default).of("Granny-Smith/a.jpg")
    assert (credit.author, credit.licence) == ("Me", "CC0-1.0")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"file": "a.jpg"}\nnot json\n', "line 2"),
        ("a.jsonl", "[1]\n", "line 1"),
        ("a.csv", "caption\nhello\n", "no column that names the photo"),
        ("a.csv", b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_a_broken_table_is_named_with_its_line(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RealRAGError, match=message):
        read_table(tmp_path / name)


def test_a_missing_table_and_a_broken_sidecar_are_named(folder):
    with pytest.raises(RealRAGError, match=r"nowhere.csv"):
        Captions(folder, folder / "nowhere.csv")
    (folder / "Granny-Smith" / "a.json").write_text("{")
    with pytest.raises(PhotoError, match=r"a.json is not JSON"):
        Captions(folder).of("Granny-Smith/a.jpg")


@given(st.text())
def test_cleaned_words_are_one_bounded_line(text):
    cleaned = clean(text)
    assert len(cleaned) <= MAX_FIELD and "\n" not in cleaned and "\0" not in cleaned
    cleaned.encode("utf-8")


def test_a_photo_in_a_folder_of_dates_is_called_by_its_own_name(tmp_path):
    captions = Captions(tmp_path)
    for file, caption in {
        "2023/08/IMG_2102.jpg": "IMG 2102",
        "2023-08-02/at the lake.jpg": "at the lake",
        "2023/07 Baltic Sea/IMG_2103.jpg": "07 Baltic Sea",
        "7/00012.png": "7",  # a class of a data set
        "7/seven.png": "seven",
        "Bello/at the lake.jpg": "Bello",
    }.items():
        assert captions.of(file).caption == caption
    assert captions.of("2023/08/IMG_2102.jpg").class_name == "08", "filters still know the folder"
