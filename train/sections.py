"""Reads the sections of TOML recipes into settings dataclasses, with errors that name place, value and rule."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args, get_type_hints

from realrag.errors import RealRAGError
from realrag.files import read_bounded

MAX_RECIPE = 1 << 20  # bytes
LARGEST = 1e18  # of a number: larger ones overflow what computes with them
CONFIGS = Path(__file__).parent / "configs"


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that ships with the trainer ("tiny-cpu")."""
    path = Path(name)
    if path.is_file():
        return path
    known = sorted(file.stem for file in CONFIGS.glob("*.toml"))
    if path.stem in known and path.parent == Path("."):
        return CONFIGS / f"{path.stem}.toml"
    raise RealRAGError(f"No recipe {name}. Give a TOML file, or one of those that ship: {', '.join(known)}.")


def read_sections(
    path: Path, sections: dict[str, type], given: dict[str, dict] | None = None, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Section -> its dataclass, from a TOML file of what differs from the defaults; sections of `optional` only where they
    are in the file. given: by section, values that replace those of the file."""
    content = _read_toml(path)
    if strange := sorted(content.keys() - sections.keys()):
        raise RealRAGError(
            f"{path} has the section [{strange[0]}]; sections are {', '.join(f'[{s}]' for s in sections)}."
        )
    return {
        name: _section(path, name, kind, content.get(name, {}), (given or {}).get(name, {}))
        for name, kind in sections.items()
        if name not in optional or name in content
    }


def read_section(path: Path, name: str, kind: type) -> Any | None:
    """One section of a TOML file as its dataclass; None where the file lacks it. Other sections are ignored."""
    content = _read_toml(path)
    return _section(path, name, kind, content[name], {}) if name in content else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib
        except ImportError:
            raise RealRAGError("Reading a recipe needs Python 3.11, or `pip install realrag[train]`.") from None
    try:
        return tomllib.loads(read_bounded(Path(path), MAX_RECIPE).decode("utf-8"))
    except RecursionError:
        raise RealRAGError(f"The recipe {path} cannot be read: its values are nested too deeply.") from None
    except (OSError, ValueError) as error:
        raise RealRAGError(f"The recipe {path} cannot be read: {error}") from None


def _section(path: Path, name: str, kind: type, values: Any, given: dict[str, str]):
    defaults = asdict(kind())
    if not isinstance(values, dict) or (strange := sorted(values.keys() - defaults.keys())):
        unknown = strange[0] if isinstance(values, dict) else name
        raise RealRAGError(f"{path}, [{name}]: {unknown!r} is not known. Known are {', '.join(defaults)}.")
    chosen = {}
    for key, value in values.items():
        value = _value(f"{path}, [{name}]: {key}", defaults[key], value, kind, key)
        if key in getattr(kind, "paths", ()):
            many = isinstance(value, tuple)
            places = [_near(path, each, key) for each in (value if many else (value,))]
            value = tuple(places) if many else places[0]
        chosen[key] = value
    chosen |= {key: value for key, value in given.items() if value and key in defaults}
    return kind(**chosen)


def _value(where: str, default: Any, value: Any, kind: type, key: str) -> Any:
    """The value of a field, of the type of its default: a list as a tuple, a whole number where a float is wanted."""
    if isinstance(default, tuple) and isinstance(value, list):
        item = get_args(get_type_hints(kind)[key])[0]
        return tuple(_plain(where, item(), each) for each in value)
    return _plain(where, default, value)


def _plain(where: str, default: Any, value: Any) -> Any:
    number = type(value) in (int, float)
    if type(default) is float and number and abs(value) < LARGEST:
        return float(value)
    if type(value) is not type(default) or (number and not abs(value) < LARGEST):  # NaN is not below it either
        raise RealRAGError(f"{where} is {str(value)[:80]!r}; it must be like {default!r}.")
    return value


def _near(recipe: Path, value: str, key: str) -> str:
    """A path of a recipe, relative to the recipe's folder. `model` may be a hub name such as "someone/model": it is a path
    only if it exists."""
    near = Path(recipe).parent / value
    return str(near) if value and (key != "model" or os.path.exists(near)) else value
