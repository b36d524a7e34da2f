"""Build Reference Library: photos of the artist's own -> a library, made, added to or brought up to date in ComfyUI."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as management
import folder_paths
from comfy_api.latest import io, ui
from torch import Tensor

from ...realrag.bundle.bundle import MANIFEST, Bundle, read_manifest
from ...realrag.encoders import Encoder
from ...realrag.errors import EncoderError, RealRAGError, TooManyError
from ...realrag.library import own_encoder
from ...realrag.photos.credit import Credit, clean
from ...realrag.retriever import NO_WORDS
from ..compat import folded, managed_encoder, supported_keywords
from ..encoder_files import AUTOMATIC, encoder_choices, encoder_of, load_chosen
from ..images import pixels, png
from ..input_check import checked
from ..progress import show_text, timed_progress
from ..retrieval.clip_vision import RetrieverVision
from ..retrieval.load_retriever import ENCODE_MEMORY, already_open, open_retriever
from ..sockets import RetrieverSocket
from .names import library_folder, writable
from .photo_folders import NONE, folder_named, folder_state, photo_folders

if TYPE_CHECKING:  # what makes a library is imported when one is made, not when ComfyUI starts
    from ...realrag.indexing.options import IndexOptions, Report

ADD, SYNC, REMOVE = "add these photos", "match the folder", "take these photos out"
MODES = {ADD: "add", SYNC: "sync", REMOVE: "remove"}
KEEP = ("768", "1024", "1536")
BETTER = "a CLIP of models/clip_vision that has a text tower"
MOST_NAMED = 10  # photos left out that the report names


class BuildReferenceLibrary(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_BuildLibrary",
            display_name="Build Reference Library",
            category="RealRAG",
            description="Makes a library of your own photos, which Load Reflective Retriever then lists. Put a folder of "
            "photos into ComfyUI/input, with one sub-folder for each thing they show; its name is what you ask for.",
            inputs=[
                io.Combo.Input(
                    "photos",
                    options=[NONE, *photo_folders()],
                    default=NONE,
                    tooltip="A folder or .zip file in ComfyUI/input. Sub-folders are classes: photos in input/cars/audi "
                    "are found as audi. Drop a .zip file or pictures on this node to bring them there. Press R for new ones.",
                ),
                io.String.Input(
                    "name",
                    default="my photos",
                    tooltip="What the library is called. One that exists is added to; its photos stay.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=ADD,
                    tooltip="add these photos: makes the library, or adds to it. match the folder: also takes out photos "
                    "that are no longer in the folder. take these photos out: removes what the folder holds.",
                ),
                io.Combo.Input(
                    "encoder",
                    options=encoder_choices(),
                    default=AUTOMATIC,
                    tooltip="What the photos are compared by. automatic: the library's own, or the one that comes along. For a "
                    "large library, a CLIP or SigLIP file of models/clip_vision with both towers finds more by look. "
                    "Classes and captions are found by name with any of them.",
                ),
                io.Image.Input("images", optional=True, tooltip="Pictures to add in place of a folder, or besides it."),
                *folded(
                    io.String.Input(
                        "captions",
                        optional=True,
                        default="",
                        multiline=True,
                        tooltip="What the connected images show, one line for each. One line alone holds for all of them.",
                    ),
                    io.String.Input(
                        "class_name",
                        optional=True,
                        default="",
                        tooltip="The class of the connected images, such as my cat: the name that you will ask for.",
                    ),
                    io.Combo.Input(
                        "keep",
                        options=list(KEEP),
                        default=KEEP[0],
                        optional=True,
                        tooltip="How large the photos are kept, as the side of a square of as many pixels. 1024 suits reference "
                        "latents. A library that exists keeps its size.",
                    ),
                    io.Int.Input(
                        "max_removed",
                        default=25,
                        min=0,
                        max=100,
                        optional=True,
                        tooltip="match the folder changes nothing if more than this percentage of the library's photos would go, "
                        "as when a disk is missing.",
                    ),
                    io.String.Input(
                        "author",
                        optional=True,
                        default="",
                        tooltip="Author of photos that name none, for the credits.",
                    ),
                    io.String.Input(
                        "license",
                        optional=True,
                        default="",
                        tooltip="License of photos that name none, such as CC-BY-4.0.",
                    ),
                ),
            ],
            outputs=[
                RetrieverSocket.Output(display_name="retriever", tooltip="The library, for Retrieve Real References."),
                io.ClipVision.Output(
                    display_name="clip_vision",
                    tooltip="The library's own image encoder, for adapters that were trained on it.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="How many photos were taken in, what was left out and why, and what to ask.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **supported_keywords(
                io.Schema,
                search_aliases=["index photos", "own photos", "train on my photos", "photo library", "dataset"],
            ),
        )

    @classmethod
    def validate_inputs(cls, photos=None) -> bool | str:
        """Refuse an unlisted folder before anything runs. None: another node gives it.

        Of `photos` alone: ComfyUI shows the answer once for each input that is named here. It looks the encoder up in its list
        itself, and running begins with the name.
        """
        try:
            return photos in (None, NONE) or bool(folder_named(photos))
        except RealRAGError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, photos=None, **others) -> str:
        """Run again when a photo has come, changed or gone, or has another name. A fingerprint never raises."""
        try:
            return folder_state(folder_named(photos))
        except (RealRAGError, TypeError):
            return ""

    @classmethod
    @checked
    def execute(
        cls,
        photos: str,
        name: str,
        mode: str,
        encoder: str,
        images: Tensor | None = None,
        captions: str = "",
        class_name: str = "",
        keep: str = KEEP[0],
        max_removed: int = 25,
        author: str = "",
        license: str = "",
    ) -> io.NodeOutput:
        if mode not in MODES or keep not in KEEP:
            raise RealRAGError(
                f"mode is {mode[:40]!r} and keep is {keep[:40]!r}; choose {', '.join(MODES)}, and {', '.join(KEEP)}."
            )
        if photos == NONE and images is None:
            raise RealRAGError(
                "There are no photos to take in. Choose a folder of ComfyUI/input, drop a .zip file or pictures on this node, or "
                "connect images."
            )
        if images is not None and mode == SYNC:
            raise RealRAGError(
                "Connected images are no folder to match. Choose 'add these photos', or disconnect them."
            )
        folder = library_folder(name)
        writable(folder)
        made, patcher = loaded_for(folder, encoder)
        from ...realrag.indexing.options import IndexOptions
        from ...realrag.indexing.shards import Sizes

        default = Credit(author=text_in(author), licence=text_in(license))
        options = IndexOptions(
            mode=MODES[mode],  # type: ignore[arg-type]
            default=default,
            sizes=None if (folder / MANIFEST).is_file() else Sizes(int(keep), bound="area"),
            max_removed=max_removed,
        )
        reports = []
        if photos != NONE:
            chosen = folder_named(photos)
            # A sub-folder that is chosen alone is the class that it is among the others.
            called = replace(default, class_name=chosen.name if "/" in photos and chosen.is_dir() else "")
            reports.append(_build(chosen, folder, made, replace(options, default=called), cls.hidden))
        if images is not None:
            with as_folder(images, captions, class_name) as temporary:
                reports.append(_build(temporary, folder, made, options, cls.hidden))
        text = report_of(name.strip(), made, reports)
        managed = open_retriever(folder, encoder=made, patcher=patcher)
        show_text(text, cls.hidden)
        return io.NodeOutput(managed, RetrieverVision(managed), text, ui=ui.PreviewText(text))


def loaded_for(folder: Path, choice: str) -> tuple[Encoder, Any]:
    """The encoder to build with, loaded, and the patcher by which ComfyUI manages it. EncoderError where the library has
    another one."""
    there = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    managed = already_open(there.id) if there and choice == AUTOMATIC else None
    if managed:
        return managed.load(), managed.patcher
    if there and choice == AUTOMATIC:
        encoder = encoder_of(there) or own_encoder(Bundle(folder), "cpu")
    else:
        encoder = load_chosen(choice)
    if there and not encoder.is_encoder_of(there.encoder):
        raise EncoderError(
            f"The library {folder.name!r} was made with the encoder {there.encoder['name']}, and vectors of two encoders cannot "
            f"be compared. Choose {AUTOMATIC!r}, or give the library a new name."
        )
    patcher = managed_encoder(encoder)
    management.load_models_gpu([patcher], memory_required=ENCODE_MEMORY, force_full_load=True)
    return encoder, patcher


def _build(photos: Path, folder: Path, encoder: Encoder, options: IndexOptions, hidden) -> Report:
    from ...realrag.indexing.build import build

    reading, encoding = (timed_progress(what, hidden) for what in ("reading", "encoding"))
    try:
        return build(photos, folder, encoder, options, on_scan=reading, progress=encoding)
    except TooManyError as error:
        raise RealRAGError(str(error).replace("--max-removed", "max_removed")) from None


def text_in(value: str) -> str:
    """A text as a library takes it: cleaned, and without halves of characters, which no file can hold."""
    return clean(value.encode("utf-8", "replace").decode())


@contextmanager
def as_folder(images: Tensor, captions: str, class_name: str) -> Iterator[Path]:
    """A folder with the pictures (B, H, W, C) in 0..1, in a sub-folder named by their class, each with its caption."""
    lines = [text_in(line) for line in captions.splitlines() if line.strip()]
    if len(lines) > 1 and len(lines) != len(images):
        raise RealRAGError(
            f"There are {len(lines)} captions for {len(images)} images. Give one line for each image, or one for all of them."
        )
    root = Path(folder_paths.get_temp_directory())
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="realrag_images_", dir=root))
    try:
        words = "".join(char if char.isalnum() or char in " -_" else " " for char in class_name)
        inside = folder / " ".join(words.split())[:64]
        inside.mkdir(exist_ok=True)
        for number, image in enumerate(images):
            data = png(pixels(image))
            stem = hashlib.sha256(data).hexdigest()[:24]
            (inside / f"{stem}.png").write_bytes(data)
            if lines:
                (inside / f"{stem}.txt").write_text(lines[number if len(lines) > 1 else 0], encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def report_of(name: str, encoder: Encoder, reports: list[Report]) -> str:
    """What became of the photos, and what the library can be asked."""
    from ...realrag.indexing.report_text import counts_of, left_out, license_note, what_to_ask

    last = reports[-1]
    lines = [f"{name}: {last.total} photo{'s' * (last.total != 1)}, encoder {encoder.name}."]
    lines.append(what_to_ask(last, BETTER))
    if not encoder.has_text_tower:
        lines.append(NO_WORDS)
    for report in reports:
        lines += [*counts_of(report), *left_out(report, MOST_NAMED), *report.notes]
    return "\n".join(lines + license_note(last))
