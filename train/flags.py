"""Command-line flags of a settings dataclass: one --flag per field, with its default in the help text."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

Config = TypeVar("Config")


class _OnOff(argparse.BooleanOptionalAction):
    """--flag and --no-flag; also --flag 0 and --flag 1."""

    def __init__(self, option_strings: list[str], dest: str, **settings: Any):
        super().__init__(option_strings, dest, **settings)
        self.nargs = "?"

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if values not in (None, "0", "1"):
            parser.error(f"argument {option_string}: {values!r} is not 0 or 1")
        on = not (option_string or "").startswith("--no-")
        setattr(namespace, self.dest, on if values in (None, "1") else not on)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_flags(
    parser: argparse.ArgumentParser, config: type, *, skip: tuple[str, ...] = (), aliases: Mapping[str, str] | None = None,
    from_recipe: bool = False, numeric: bool = False,
) -> None:  # fmt: skip
    """Add a flag for each field of the dataclass `config` but those of `skip`. aliases: field -> an older name.

    from_recipe: a flag that is not given leaves the recipe's value (see `chosen`). numeric: booleans also take 0 and 1,
    which only a command without positional arguments can offer."""
    for field in fields(config):
        if field.name in skip:
            continue
        names = [flag(field.name), *([flag(aliases[field.name])] if aliases and field.name in aliases else [])]
        default = field.default
        kind: dict[str, Any] = {"type": type(default)}
        if isinstance(default, bool):
            kind = {"action": _OnOff if numeric else argparse.BooleanOptionalAction}
        told = f"default {default}" + (", or the recipe's" if from_recipe else "")
        parser.add_argument(*names, dest=field.name, default=None if from_recipe else default, help=told, **kind)


def chosen(arguments: argparse.Namespace, config: Config) -> Config:
    """`config` (an instance) with the flags that were given in place of its values."""
    given = {field.name: getattr(arguments, field.name, None) for field in fields(config)}  # type: ignore[arg-type]
    return replace(config, **{name: value for name, value in given.items() if value is not None})  # type: ignore[type-var]


def recorded(config: Any, added: Sequence[str]) -> dict[str, Any]:
    """asdict(config) without those of the fields `added` since an earlier version that have their defaults: what that
    version began, or finished, is still known by its settings."""
    defaults = {field.name: field.default for field in fields(config)}
    return {name: value for name, value in asdict(config).items() if name not in added or value != defaults[name]}
