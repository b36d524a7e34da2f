"""One command of `realrag` in a process of its own, and what importing our modules drags in."""

import importlib
import sys
from subprocess import CompletedProcess

from child import Child

OPEN_CLIP = {"open_clip", "timm", "torchvision"}  # what it imports with itself
HEAVY = OPEN_CLIP | {"faiss", "huggingface_hub", "transformers"}


def run_command(*arguments, encoding="utf-8", **environment) -> CompletedProcess[bytes]:
    """The command's exit status, and the bytes that it wrote in `encoding`."""
    return _ended(Child(_command, list(map(str, arguments)), encoding=encoding, **environment))


def import_modules(*modules) -> CompletedProcess[bytes]:
    """Imports the modules and prints which heavy packages are loaded then."""
    return _ended(Child(_imports, modules))


def ask_for_missing_weights(name) -> CompletedProcess[bytes]:
    """Loads an encoder that is not here, offline; prints the error's class and text, and what is loaded of open_clip."""
    return _ended(Child(_missing_weights, name))


def _ended(child: Child) -> CompletedProcess[bytes]:
    stdout, stderr = child.communicate()
    return CompletedProcess((), child.returncode, stdout, stderr)


def _command(arguments):
    from realrag.commands.main import main

    return main(arguments)


def _imports(modules):
    for module in modules:
        importlib.import_module(module)
    print(sorted(HEAVY & set(sys.modules)))


def _missing_weights(name):
    from realrag.encoders.load import load_encoder

    try:
        load_encoder(name, offline=True)
    except Exception as error:
        print(type(error).__name__, error)
    print(sorted(OPEN_CLIP & set(sys.modules)))
