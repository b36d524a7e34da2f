"""docs/photos.md: each row of its tables names its test."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "photos.md"


def test_every_test_that_the_page_names_is_there():
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (HERE / file).read_text(), f"{file}::{test}"


def test_every_row_of_a_table_names_its_test():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("|---")]
    for row in rows:
        last = row.rstrip(" |").rpartition(" | ")[2]
        assert "::test_" in last or last in ("test", "the same"), row


def test_the_number_of_made_pictures_is_the_one_that_is_compared():
    import ast

    source = (HERE / "test_color.py").read_text()
    assert "TABLE = [" in source
    rows = re.search(r"format, (\d+) rows\)", PAGE.read_text())
    tree = ast.parse(source)
    table = next(node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "TABLE")
    profiles = next(node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "RGB_PROFILES")
    count = 0
    for part in table.value.elts:
        size = 1
        for loop in part.value.generators:
            values = profiles.value if isinstance(loop.iter, ast.Name) else loop.iter
            size *= len(values.elts)
        count += size
    assert int(rows[1]) == count
