"""Only a newline ends a line of a JSON Lines or CSV file."""

import pytest

from realrag_train.dataset import Prompt, read_prompts
from realrag_train.tables import read_csv, read_lines, write_csv

ODD = "a red\u2028kettle\u0085on\x0b a\x1c stove"  # str.splitlines would cut this in five


def test_a_line_separator_inside_a_prompt_is_text(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes('{"prompt": "one\u2028kettle", "class": "kettle"}\r\n{"prompt": "pan", "class": "pan"}\n'.encode())
    assert read_prompts(file) == [Prompt("one\u2028kettle", "kettle"), Prompt("pan", "pan")]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_lines_come_without_their_ends_and_without_a_byte_order_mark(tmp_path, end):
    file = tmp_path / "lines"
    file.write_bytes(f"\ufeff{ODD}\nsecond{end}".encode())
    assert read_lines(file) == [ODD, "second"]


def test_an_empty_file_has_no_lines(tmp_path):
    (tmp_path / "lines").write_bytes(b"")
    assert read_lines(tmp_path / "lines") == []


def test_a_csv_gives_back_what_was_written(tmp_path):
    rows = [{"file": "a.jpg", "caption": ODD}, {"file": 'b "2".jpg', "caption": "two\nlines, and a comma"}]
    write_csv(tmp_path / "table.csv", rows, ("file", "caption"))
    assert read_csv(tmp_path / "table.csv") == rows


def test_a_value_that_a_row_lacks_stays_empty(tmp_path):
    write_csv(tmp_path / "table.csv", [{"step": 1}, {"step": 2, "loss": 0.5}], ("step", "loss"))
    assert read_csv(tmp_path / "table.csv") == [{"step": "1", "loss": ""}, {"step": "2", "loss": "0.5"}]
