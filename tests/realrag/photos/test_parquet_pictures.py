"""Parquet files of pictures, as data sets of Hugging Face store them: read in place, with words, classes and captions."""

import json
import sys

import pytest
from made_photos import COLORS, photo_bytes

from realrag.errors import RealRAGError
from realrag.photos import parquet
from realrag.photos.scan import scan

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
import pyarrow.parquet as tables

PICTURE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
NAMES = ["cat", "dog"]
FEATURES = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}}}


def write(path, rows, group=2, schema=(), features=FEATURES):
    """As `Dataset.to_parquet` writes them. rows: {image: (bytes, path) or None, ...}."""
    kinds = {
        "image": PICTURE,
        "label": pyarrow.int64(),
        "text": pyarrow.string(),
        "captions": pyarrow.list_(pyarrow.string()),
    }
    kinds |= dict(schema)
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    for name, values in columns.items():
        if kinds[name] == PICTURE:
            columns[name] = [value and dict(zip(("bytes", "path"), value, strict=True)) for value in values]
    table = pyarrow.table({name: pyarrow.array(values, kinds[name]) for name, values in columns.items()})
    tables.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path, row_group_size=group)
    return path


def picture(seed, format="JPEG"):
    return photo_bytes(list(COLORS.values())[seed % len(COLORS)], seed, format=format, cells=6)


def test_rows_are_photos_with_their_words_and_class_names(tmp_path):
    rows = [
        {"image": (picture(n), f"{n}.jpg" if n else None), "label": n % 2, "text": f"photo number {n}"}
        for n in range(5)
    ]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train-00000-of-00001.parquet", rows)
    library = scan(tmp_path, archives=True)
    assert [(c.file, c.credit.class_name, c.credit.caption) for c in library.candidates] == [
        (f"data/train-00000-of-00001.parquet/{n:08}.jpg", NAMES[n % 2], f"photo number {n}") for n in range(5)
    ]
    assert [c.source.read() for c in library.candidates] == [row["image"][0] for row in rows]
    assert [c.source.read() for c in library.candidates[::-1]] == [row["image"][0] for row in rows[::-1]]  # any order
    assert library.notes == [] and library.rejected == []
    alone = scan(tmp_path / "data" / "train-00000-of-00001.parquet", archives=True)
    assert [c.sha256 for c in alone.candidates] == [c.sha256 for c in library.candidates]


def test_a_row_without_a_picture_or_with_another_format_is_named(tmp_path):
    rows = [
        {"image": value, "text": "x"}
        for value in ((picture(0, "PNG"), None), None, (None, "2.jpg"), (b"no picture", "3.jpg"))
    ]
    write(tmp_path / "a.parquet", rows)
    library = scan(tmp_path, archives=True)
    assert [c.file for c in library.candidates] == ["a.parquet/00000000.png"]
    assert [(item.file, item.reason) for item in library.rejected] == [
        ("a.parquet/00000001.png", "empty"), ("a.parquet/00000002.jpg", "empty"), ("a.parquet/00000003.jpg", "not_a_photo"),
    ]  # fmt: skip


def test_labels_without_names_and_columns_of_no_words_do_no_harm(tmp_path):
    embedding = pyarrow.list_(pyarrow.float32())
    rows = [
        {"image": (picture(0), "0.jpg"), "label": 7, "text": None, "vector": [0.5, 1.5], "mask": (picture(1), None)}
    ]
    write(tmp_path / "a.parquet", rows, schema={"vector": embedding, "mask": PICTURE}, features={"info": [3]})
    (photo,) = scan(tmp_path, archives=True).candidates
    assert (photo.credit.class_name, photo.source.read()) == ("7", picture(0))


def test_a_table_of_words_stays_a_table(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(0))
    tables.write_table(pyarrow.table({"file_name": ["a.jpg"], "text": ["a red thing"]}), tmp_path / "metadata.parquet")
    assert scan(tmp_path, archives=True).candidates[0].credit.caption == "a red thing"


@pytest.mark.parametrize(
    "stated, named", [("x.jpg", ["a.parquet/00000002.jpg", "a.parquet/00000003.jpg"]), (None, ["a.parquet"])]
)
def test_damaged_rows_are_named_and_the_others_read(tmp_path, stated, named):
    file = write(tmp_path / "a.parquet", [{"image": (picture(n), stated), "text": "x"} for n in range(4)])
    chunk = tables.ParquetFile(file).metadata.row_group(1).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    whole = bytearray(file.read_bytes())
    whole[start : start + 20] = bytes(20)
    file.write_bytes(whole)
    library = scan(tmp_path, archives=True)
    assert [c.file for c in library.candidates] == ["a.parquet/00000000.jpg", "a.parquet/00000001.jpg"]
    assert [(item.file, item.reason) for item in library.rejected] == [(file, "damaged") for file in named]


def test_a_group_of_rows_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", [{"image": (picture(0), None)}])
    monkeypatch.setattr(parquet, "MAX_GROUP", 100)
    (found,) = scan(tmp_path, archives=True).rejected
    assert found.reason == "damaged" and "row_group_size" in found.message


def test_without_pyarrow_the_cure_is_said(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", [{"image": (picture(0), None)}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for given in (tmp_path, tmp_path / "a.parquet"):
        with pytest.raises(RealRAGError, match="pip install pyarrow"):
            scan(given, archives=True)


def test_another_parquet_file_is_no_library(tmp_path):
    tables.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(RealRAGError, match="column of pictures"):
        scan(tmp_path / "a.parquet", archives=True)
