import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrag import artifact
from realrag.bundle.records import MAX_LINE, Filters, Record, RecordTable, parse_record, record_id
from realrag.errors import BundleError
from realrag.photos.credit import clean

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=50)


def record(number: int, class_name="apple", licence="MIT", caption="x") -> Record:
    sha = hashlib.sha256(str(number).encode()).hexdigest()
    return Record(
        record_id(sha), sha, caption, class_name, licence, "Ann", "", f"{number}.jpg", 4, 3, (0, 512, 9), None
    )


@pytest.fixture
def rows():
    return [record(n, ("Granny-Smith", "pear", "")[n % 3], ("MIT", "CC0-1.0")[n % 2]) for n in range(30)]


@pytest.fixture
def table(rows, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"".join(row.line() for row in rows))
    return RecordTable(path, 30, tmp_path / "cache")


@given(texts, texts, texts)
def test_a_record_is_read_back_as_it_was_written(caption, class_name, licence):
    row = record(1, class_name, licence, caption)
    line = row.line()
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    read = parse_record(line[:-1], 1)
    for name in ("caption", "class_name", "licence"):
        text = getattr(row, name)
        assert getattr(read, name) == (text if text.isprintable() else clean(text))


@pytest.mark.parametrize("field", ["caption", "class", "licence", "author", "source", "file"])
def test_control_characters_and_halves_of_characters_are_cleaned_as_when_indexing(field):
    fields = json.loads(record(1).line())
    fields[field] = "\x1b[31mred\nSTOP\u2028\ud800 x\x00"
    read = parse_record(json.dumps(fields).encode(), 1)
    assert getattr(read, "class_name" if field == "class" else field) == "[31mred STOP x"


@pytest.mark.parametrize("number", [b"1" + b"0" * 400, b"1e999", b"18446744073709551616"])
def test_a_number_beyond_64_bits_is_a_sentence(number):
    line = record(1).line().replace(b'"width":4', b'"width":' + number)
    with pytest.raises(BundleError, match="line 3"):
        parse_record(line[:-1], 3)


@given(st.binary(max_size=200))
def test_no_line_crashes_the_parser(line):
    with pytest.raises(BundleError, match="line 7"):
        parse_record(line, 7)


def test_rows_are_found_by_number_and_id(table, rows):
    assert [table[n] for n in range(30)] == rows == list(table)
    assert [table.row_of(row.id) for row in rows] == list(range(30))
    assert table.row_of(rows[3].sha256) == 3
    assert table.row_of("f" * 16) is None and table.row_of("red") is None
    with pytest.raises(IndexError):
        table[30]


def test_kept_columns_give_the_same_table_and_are_really_used(table, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(RecordTable, "_parse", lambda self: pytest.fail("parsed again"))
    again = RecordTable(tmp_path / "records.jsonl", 30, tmp_path / "cache")
    assert list(again) == rows and again.classes == table.classes


def test_broken_kept_columns_are_made_anew(table, rows, tmp_path):
    (tmp_path / "cache" / "rows.safetensors").write_bytes(b"nonsense")
    assert list(RecordTable(tmp_path / "records.jsonl", 30, tmp_path / "cache")) == rows


@pytest.mark.parametrize(
    ("filters", "allow"),
    [
        (Filters(classes=("granny smith",)), lambda r: r.class_name == "Granny-Smith"),
        (Filters(classes=("PEAR", "Granny_Smith")), lambda r: r.class_name),
        (Filters(licences=("cc0-1.0",)), lambda r: r.licence == "CC0-1.0"),
        (Filters(classes=("pear",), licences=("MIT",)), lambda r: r.class_name == "pear" and r.licence == "MIT"),
        (Filters(include_ids=(record(4).id, record(9).id)), lambda r: r.file in ("4.jpg", "9.jpg")),
        (Filters(exclude_ids=(record(4).id,)), lambda r: r.file != "4.jpg"),
        (Filters(include_ids=(record(4).id,), exclude_ids=(record(4).id,)), lambda r: False),
    ],
)
def test_filters_allow_what_they_say(table, rows, filters, allow):
    mask, note = table.mask(filters)
    assert np.array_equal(mask, [bool(allow(row)) for row in rows]) and note == ""


def test_no_filter_is_no_mask_and_unknown_names_are_named(table):
    assert table.mask(Filters()) == (None, "")
    mask, note = table.mask(Filters(classes=("banana",), exclude_ids=("0123",)))
    assert not mask.any() and "banana" in note and "0123" in note


def test_counts_by_licence_and_class(table):
    assert table.licence_counts() == {"MIT": 15, "CC0-1.0": 15}
    assert table.class_counts() == {"Granny-Smith": 10, "pear": 10, "not stated": 10}


def test_a_line_too_long_is_refused(tmp_path):
    (tmp_path / "r").write_bytes(b" " * (MAX_LINE + 2) + b"\n")
    with pytest.raises(BundleError, match="too long"):
        RecordTable(tmp_path / "r", 1)


@pytest.mark.parametrize("flip", [1, 4, 128])
@pytest.mark.slow
def test_damaged_columns_are_made_again_and_never_believed(rows, table, tmp_path, flip):
    path = tmp_path / "cache" / "rows.safetensors"
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= flip
        path.write_bytes(data)
        again = RecordTable(tmp_path / "records.jsonl", 30, tmp_path / "cache")
        assert again.classes == table.classes
        assert again.class_counts() == table.class_counts()
        assert [again[row] for row in (0, 7, 29)] == [rows[row] for row in (0, 7, 29)]


def test_columns_of_an_earlier_version_are_made_again(rows, table, tmp_path):
    path = tmp_path / "cache" / "rows.safetensors"
    arrays, metadata = artifact.read_arrays(path)
    arrays["classes"][:] = 0  # they had no hash, so nobody would see this
    artifact.write(path, arrays, {"words": metadata["words"]})
    assert RecordTable(tmp_path / "records.jsonl", 30, tmp_path / "cache").class_counts() == table.class_counts()
