import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrag.errors import RealRAGError
from realrag.photos.tables import MAX_LINE, read_table

KNOWN = ("file", "caption", "filepath", "title", "image_name", "comment")


def rows_of(data, name="t.csv"):
    data = data if isinstance(data, bytes) else data.encode()
    return [tuple(row.values()) for _, row in read_table(data, name, KNOWN).rows]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,caption\na.jpg,red\n", ""),
        ("file;caption\na.jpg;red\n", "semicolons"),
        ("file\tcaption\na.jpg\tred\n", "tabs"),
        ("file|caption\na.jpg|red\n", "vertical bars"),
        ("image_name| comment\na.jpg| red\n", "vertical bars"),
        ("sep=;\nfile;caption\na.jpg;red\n", "semicolons"),
        ("sep=|\r\nfile|caption\r\na.jpg|red\r\n", "vertical bars"),
        ("file,caption\ra.jpg,red\r", ""),
        ("\n\nfile,caption\n\na.jpg,red\n\n", ""),
        ('"file","caption"\n"a.jpg","red"\n', ""),
    ],
)
def test_the_delimiter_is_recognized_and_said(text, said):
    table = read_table(text.encode(), "t.csv", KNOWN)
    assert [tuple(row.values()) for _, row in table.rows] == [("a.jpg", "red")]
    assert said in "".join(table.notes)
    assert bool(said) == bool(table.notes)


def test_a_comma_in_the_caption_does_not_make_a_semicolon_table_one_of_commas():
    text = "file;caption\na.jpg;red, round, on a table\nb.jpg;green, round, on a table\n"
    assert rows_of(text)[0] == ("a.jpg", "red, round, on a table")


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("cp1252", "Windows-1252"),
    ],
)
def test_the_encoding_is_recognized_and_said(encoding, said):
    table = read_table("file,caption\nBäume.jpg,Bäume am Fluß\n".encode(encoding), "t.csv", KNOWN)
    assert [tuple(row.values()) for _, row in table.rows] == [("Bäume.jpg", "Bäume am Fluß")]
    assert said in "".join(table.notes)
    assert bool(said) == bool(table.notes)


@pytest.mark.parametrize("inside", ["\n", "\r\n", "\u2028", "\x85", "\x0b", "\x0c", '""', ","])
def test_what_ends_a_line_elsewhere_stays_inside_its_cell(inside):
    text = f'file,caption,author\na.jpg,"red apple{inside}on a table",Ann\nb.jpg,pear,Bob\n'
    expected = f"red apple{inside.replace(chr(34) * 2, chr(34))}on a table"
    assert rows_of(text) == [("a.jpg", expected, "Ann"), ("b.jpg", "pear", "Bob")]


def test_a_row_has_the_number_of_the_line_it_begins_on():
    text = 'file,caption\na.jpg,"two\nlines"\nb.jpg,pear\n'
    assert [number for number, _ in read_table(text.encode(), "t.csv").rows] == [2, 4]
    assert [number for number, _ in read_table(b"sep=,\n" + text.encode(), "t.csv").rows] == [3, 5]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "file,caption\na.jpg,red, round\n", "line 2: 3 cells in a table of 2 columns"),
        ("a.csv", 'file,caption\na.jpg,"red" round\n', "line 2: not a readable CSV"),
        ("a.csv", 'file,caption\na.jpg,red\nb.jpg,"never closed\n', "line 3: not a readable CSV"),
        ("a.csv", b"\xff\xfe\x00", "is not text"),
        ("a.csv", b"file,caption\na.jpg,\x00\x81\xff", "is not text"),
        ("a.jsonl", '{"file": "a.jpg"}\nnot json\n', "line 2"),
        ("a.jsonl", "[1]\n", "line 1"),
        ("a.jsonl", json.dumps({"file": "a.jpg", "caption": "x" * MAX_LINE}), "line 1"),
        ("a.jsonl", "[" * 100_000, "line 1"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.json", "3", "neither a list"),
        ("a.parquet", b"PAR1", "Parquet"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_with_its_line_and_the_cure(name, text, message):
    with pytest.raises(RealRAGError, match=message):
        read_table(text if isinstance(text, bytes) else text.encode(), name, KNOWN)


def test_json_tables_of_kohya_and_coco():
    assert rows_of(json.dumps({"a": {"tags": "red", "caption": "an apple"}}), "meta_cap.json") == [
        ("a", "red", "an apple")
    ]
    assert rows_of(json.dumps({"a.jpg": "an apple"}), "captions.json") == [("a.jpg", "an apple")]
    coco = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 8, "caption": "pear"}, {"image_id": 9, "caption": "none"}, {"image_id": 7}],
    }
    assert rows_of(json.dumps(coco), "captions.json") == [("b.jpg", "pear")]


def test_flickr8k_as_its_authors_published_it():
    text = 'a.jpg#0\tA child in a pink dress , "red" .\na.jpg#1\tA girl .\n'
    table = read_table(text.encode(), "Flickr8k.token.txt", KNOWN)
    assert [(number, *row.values()) for number, row in table.rows] == [
        (1, "a.jpg#0", 'A child in a pink dress , "red" .'),
        (2, "a.jpg#1", "A girl ."),
    ]


def test_parquet_gives_texts_and_the_path_of_a_picture_that_lies_in_the_table(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    table = pyarrow.table(
        {
            "image": [{"bytes": b"\xff\xd8", "path": "a.jpg"}, None],
            "caption": ["red", None],
            "raw": [b"\0", b"\1"],
            "boxes": [[1, 2], []],
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    assert [row for _, row in read_table(tmp_path / "t.parquet").rows] == [
        {"caption": "red", "image": "a.jpg"},
        {"caption": None, "image": None},
    ]


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(RealRAGError, match=r"nowhere\.csv"):
        read_table(tmp_path / "nowhere.csv")


@given(st.binary(max_size=300), st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.json"]))
def test_any_bytes_are_a_table_or_one_sentence(data, name):
    try:
        read_table(data, name, KNOWN)
    except RealRAGError as error:
        assert str(error).startswith(name)


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=5))
def test_what_a_csv_writer_wrote_is_read_back(pairs):
    import csv
    import io

    pairs = [(a.strip() or "x", b.strip()) for a, b in pairs]
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("file", "caption"), *pairs])
    try:
        data = file.getvalue().encode()
    except UnicodeEncodeError:
        return  # a lone surrogate cannot be in a file
    if data[:4096].count(0) < len(data[:4096]) // 4:  # else it looks like UTF-16
        assert rows_of(data) == pairs
