"""`python -m train COMMAND`: trains retrievers, encoders, adapters and miniatures, and measures them."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from importlib import import_module
from types import ModuleType

from realrag.errors import RealRAGError
from realrag.interrupts import interrupts_heard

from .loop.ranks import sigterm_as_ctrl_c
from .loop.stages import RESUME, STOPPED, Stopped
from .maintainer_tools import tool

# Name -> (module, what it does). A module is imported when its command is called, so that `--help` needs no torch and a
# missing optional package concerns its own command only. A name "a-b" may also be written as two words, "a b".
COMMANDS = {
    "run": ("retriever.command", "from your photos and your generator to a retriever and a verdict, in one command"),
    "start": ("retriever.command", "only this stage of a recipe: split the photos and train a starting encoder"),
    "embed": ("retriever.command", "only this stage of a recipe: index library and test photos, without a head"),
    "imagine": ("retriever.command", "only this stage of a recipe: let the generator draw every prompt"),
    "mine": ("contrastive.mine", "mine the reflective negatives: the real photos most like the generator's drawings"),
    "fit": ("contrastive.fit", "train a reflective head, or a tower of the encoder, for a generator"),
    "index": ("retriever.command", "only this stage of a recipe: put the trained heads into a bundle"),
    "evaluate": ("retriever.command", "only this stage of a recipe: measure retrieval and write the report"),
    "mix": ("contrastive.tuned_encoder", "average a tuned encoder with the one it was trained from (WiSE-FT)"),
    "export": ("contrastive.export", "write a tuned encoder in open_clip's or transformers' format"),
    "choose": ("pictures.choose_references", "choose the references that each arm shows the generator"),
    "paint": ("pictures.paint", "paint the pictures of every arm with your ComfyUI workflow"),
    "judge": ("judge.command", "measure painted pictures by arm: CLIP-I, CLIP-T, FID, KID, class, copying, variety"),
    "votes": ("votes.command", "collect and analyze votes of people on painted pictures"),
    "encoder": ("small_encoder.command", "train the small dual encoder on captioned photos"),
    "general-encoder": ("general_encoder.command", "train realrag-general's own layers on names and photos"),
    "split": ("small_encoder.split", "split captioned photos by class into library, validation and gallery"),
    "reproduce": ("reproduce.command", "repeat the registered experiment"),
    "adapter": ("adapter.command", "train a reference adapter for a generator (miniature, or diffusers' SD3 and Flux)"),
    "miniature-autoencoder": ("miniature.autoencoder", "train the autoencoder of the miniature models"),
    "miniature-generator": ("miniature.generator", "train a miniature SD3 or Flux"),
    "miniature-judge": ("miniature.classifier", "train the classifier that judges the miniatures' pictures"),
    "miniature-measure": ("miniature.measure", "measure the miniature autoencoder, generators and adapters"),
    "bench-fit": ("tools.bench_fit", "measure how fast `fit` trains on this machine (from a checkout)"),
    "convert-mobilenet": ("tools.convert_mobilenet", "convert MobileNet V1 from TFLite (from a checkout)"),
    "convert-general": ("tools.convert_general", "convert what realrag-general starts from (from a checkout)"),
    "general-card": ("tools.general_card", "measure realrag-general and write its model card (from a checkout)"),
    "model-card": ("tools.model_card", "measure the small encoder and write its model card (from a checkout)"),
}
STAGES = ("start", "embed", "imagine", "index", "evaluate")  # `mine` and `fit` also work without a recipe


def load(command: str) -> ModuleType:
    """The module of a command. RealRAGError where a package that it needs is not installed."""
    name = COMMANDS[command][0]
    try:
        return (
            tool(name.removeprefix("tools.")) if name.startswith("tools.") else import_module(f".{name}", __package__)
        )
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in (__package__, "realrag"):
            raise
        raise RealRAGError(
            f"`{command}` needs the package {error.name}. Install it with `pip install realrag[train]`."
        ) from None


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments of the command that `argv` names, with its function as `run`."""
    if len(argv) > 1 and f"{argv[0]}-{argv[1]}" in COMMANDS:
        argv = [f"{argv[0]}-{argv[1]}", *argv[2:]]
    if not argv or argv[0] not in COMMANDS:
        parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        for name, (_, text) in COMMANDS.items():
            commands.add_parser(name, help=text)
        parser.parse_args(argv)  # prints the help, or the known names, and exits
        parser.error("name a COMMAND first")
    module = load(argv[0])
    parser = argparse.ArgumentParser(prog=f"python -m train {argv[0]}", description=module.__doc__)
    module.add_arguments(parser)
    parser.set_defaults(run=partial(module.run, only=argv[0]) if argv[0] in STAGES else module.run)
    return parser.parse_args(argv[1:])


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong arguments, STOPPED (75) when stopped and the same command resumes."""
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        with sigterm_as_ctrl_c(), interrupts_heard():  # one way to stop, in every command
            arguments.run(arguments)
    except Stopped as stopped:
        print(stopped, flush=True)
        return STOPPED
    except KeyboardInterrupt:
        print(f"Stopped. {RESUME}", flush=True)
        return STOPPED
    except RealRAGError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
