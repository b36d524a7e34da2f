"""`python -m train COMMAND`: one sub-command a module."""

from __future__ import annotations

import argparse
from importlib import import_module

COMMANDS = {"encoder": "encoder", "convert-mobilenet": "convert_mobilenet", "model-card": "model_card",
            "mine": "mine"}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module_name in COMMANDS.items():
        module = import_module(f".{module_name}", __package__)
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    arguments.run(arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
