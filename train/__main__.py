"""`python -m train COMMAND`: one sub-command a module."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from importlib import import_module

from realrag.errors import RealRAGError

COMMANDS = {
    "run": "retriever.run", "mine": "contrastive.mine",
    "fit": "contrastive.fit", "mix": "contrastive.tuned_encoder", "bench-fit": "contrastive.bench_fit",
    "choose": "pictures.choose_references", "judge": "judge.command", "votes": "votes.command",
    "encoder": "small_encoder.command", "split": "small_encoder.split",
    "reproduce": "reproduce.command",
    "convert-mobilenet": "small_encoder.convert_mobilenet", "model-card": "small_encoder.model_card",
    "miniature-autoencoder": "miniature.autoencoder", "miniature-generator": "miniature.generator",
    "miniature-judge": "miniature.classifier", "miniature-measure": "miniature.measure", "adapter": "adapter.command",
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module_name in COMMANDS.items():
        module = import_module(f".{module_name}", __package__)
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    stages = import_module(".retriever.run", __package__)
    for name in ("start", "embed", "imagine", "index", "evaluate"):  # mine and fit, above, also work without a recipe
        command = commands.add_parser(name, help=f"only this stage of a recipe: {getattr(stages.Run, name).__doc__}")
        stages.add_arguments(command)
        command.set_defaults(run=partial(stages.run, only=name))
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except RealRAGError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
