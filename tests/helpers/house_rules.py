"""The imports of our own code, for the tests of the house."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("realrag", "nodes", "train") for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def import_statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))]


@cache
def import_graph() -> dict[str, set[str]]:
    """Module -> our modules that it imports, including imports inside functions."""
    modules = {module_name(path): path for path in FILES}
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        if name == "realrag":  # imports its public names lazily
            continue
        for node in import_statements(path):
            if isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                source = ".".join([*above, *([node.module] if node.module else [])])
                for imported in node.names:
                    full = f"{source}.{imported.name}"
                    graph[name] |= {full if full in modules else source} & modules.keys() - {name}
            else:
                graph[name] |= {imported.name for imported in node.names} & modules.keys() - {name}
    return graph
