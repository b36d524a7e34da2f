"""docs/architecture.md is the map: its rooms are those of the tree, and imports go down its floors."""

import re
from pathlib import Path

from house_rules import import_graph

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_room_has_its_line_and_every_line_its_room():
    section = PAGE.split("## The rooms", 1)[1].split("\n## ", 1)[0]
    listed = re.findall(r"^\| `([\w/]+)/` \| \S", section, re.MULTILINE)
    there = [path.parent.relative_to(ROOT).as_posix() for ring in ("realrag", "nodes", "train")
             for path in (ROOT / ring).rglob("__init__.py")]  # fmt: skip
    assert sorted(listed) == sorted(there), "give each room its line in the table of docs/architecture.md"


def floors() -> dict[str, int]:
    """Room, or file on top of `realrag` -> floor."""
    lines = re.findall(r"^floor (\d+) +(.+)$", PAGE, re.MULTILINE)
    return {name.removesuffix(".py"): int(floor) for floor, names in lines for name in names.split()}


def test_imports_in_realrag_only_go_down_the_floors():
    floor = floors()
    there = {path.name.removesuffix(".py") for path in (ROOT / "realrag").iterdir()
             if path.suffix == ".py" or (path / "__init__.py").is_file()} - {"__init__", "__main__"}  # fmt: skip
    assert floor.keys() == there, "name each room and top file on a floor of docs/architecture.md"
    for module, used in import_graph().items():
        ring, _, rest = module.partition(".")
        room = rest.split(".")[0]
        if ring != "realrag" or room not in floor:
            continue
        for other in used:
            below = other.split(".")[1] if "." in other else ""
            assert below in ("", room) or floor[below] < floor[room], f"{module} imports {other}"
