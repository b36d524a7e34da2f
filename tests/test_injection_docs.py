"""docs/injection.md names tests as proof: each of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_test_that_the_page_names_is_there():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "injection.md").read_text()))
    there = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE))
    assert len(named) > 20 and not named - there
