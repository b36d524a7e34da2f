"""Which encoder a library is made and asked with: one that comes along, or a file of models/clip_vision, by name."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..realrag import DEFAULT_ENCODER, SHIPPED_ENCODERS
from ..realrag.bundle.bundle import Manifest
from ..realrag.encoders import Encoder, load_encoder
from ..realrag.errors import EncoderError
from .folders import listed_file

FOLDER = "clip_vision"
AUTOMATIC = "automatic"
FOUND_AGAIN = "transformers"  # the kind of encoders whose file a library names and does not carry
_SHIPPED = {f"{name} (shipped)": name for name in SHIPPED_ENCODERS}


def encoder_choices() -> list[str]:
    """What the list in a node shows: automatic, those that come along, then the files of models/clip_vision."""
    files = [name for name in folder_paths.get_filename_list(FOLDER) if name.lower().endswith(".safetensors")]
    return [AUTOMATIC, *_SHIPPED, *files]


def load_chosen(choice: str) -> Encoder:
    """The encoder of one of `encoder_choices`, on the CPU. Raises RealRAGError."""
    if choice == AUTOMATIC:
        return load_encoder(DEFAULT_ENCODER, offline=True)
    if choice in _SHIPPED:
        return load_encoder(_SHIPPED[choice], offline=True)
    return _of_file(choice)


def _of_file(name: str) -> Encoder:
    encoder = load_encoder(str(listed_file(FOLDER, name, f"models/{FOLDER}")), offline=True)
    # The file is there and `encoder_of` finds it again, so a library need not carry another 1.7 GB of it.
    encoder.portable = encoder.portable or encoder.kind == FOUND_AGAIN
    return encoder


def encoder_of(manifest: Manifest) -> Encoder | None:
    """The encoder of a library that was made with a file of models/clip_vision and does not carry it; None for others.

    The file is found by its name and known by its content. EncoderError where none is the one.
    """
    made_with = manifest.encoder
    if made_with["kind"] != FOUND_AGAIN or manifest.of("encoder"):
        return None
    name = made_with["name"]
    there = [file for file in folder_paths.get_filename_list(FOLDER) if Path(file).stem == name]
    for file in there:
        encoder = _of_file(file)
        if encoder.accepts_vectors_of(made_with):
            return encoder
    found = "the file of that name there is another model" if there else "there is no such file"
    raise EncoderError(
        f"This library was made with {name}.safetensors from models/{FOLDER}; {found}. Put the file back (with its config.json, "
        "if it had one beside it), then press R."
    )
