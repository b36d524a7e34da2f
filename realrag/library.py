"""A bundle, opened for questions: its encoder, its vectors through a reflective head, and its level of doubt."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import SHIPPED_ENCODERS
from .bundle.bundle import Bundle, matrix_header, open_matrix, unit_rows
from .bundle.head_entries import AUTO, PLAIN
from .doubt import MOST_KNOWN, Level, measure_level
from .encoders.base import Encoder, weights_sha256
from .encoders.load import load_encoder
from .encoders.reflective_head import ReflectiveHead
from .errors import EncoderError, QueryError
from .files import Verdicts, canonical_json, read_bounded, sha256_bytes, write_atomic, write_json
from .prompts.words import names_something, words
from .search.index import EXACT_LIMIT, Index, open_index
from .search.lexicon import Lexicon
from .stores.fill import Source, open_store_index
from .stores.index import Columns
from .validation import strict_json

if TYPE_CHECKING:
    from typing_extensions import Self

    from .photos.scan import Progress

MAX_LEVEL = 1 << 16  # bytes of a remembered level
ROWS = 8192


def shipped_bundle() -> Path:
    """The bundle that comes with the plugin: a few hundred photos of groceries, clothes and things."""
    return Path(__file__).parent / "assets" / "sample"


class Library:
    """One bundle with its encoder, the vectors that are searched, and their index. Build it with `open`.

    The encoder is a torch Module of its own, so a host such as ComfyUI can move it; everything else stays on the CPU.
    `head`: the reflective head that the photos go through, and `head_name`; None and "" for the plain encoder.
    """

    def __init__(
        self, bundle: Bundle, encoder: Encoder, head: ReflectiveHead | None = None, head_name: str = "", kind: str = "auto",
        progress: Progress | None = None, address: str | None = None,
    ):  # fmt: skip
        if head is not None and not encoder.is_encoder_of(bundle.manifest.encoder):
            raise EncoderError(
                f"The head {head_name!r} of {bundle.folder} was trained for the text tower of "
                f"{bundle.manifest.encoder['name']}, loaded is {encoder.name}. Ask without a head (--head none), or fit one to "
                "this encoder."
            )
        self.bundle, self.encoder, self.head, self.head_name = bundle, encoder, head, head_name
        self.bundle_id, self._kind, self._progress, self._address = bundle.id, kind, progress, address
        self.vectors = unit_vectors(bundle, head)
        self.index: Index
        if address is not None:
            self.index = open_store_index(address, store_source(bundle, head), self.vectors, store_columns(bundle))
        else:
            self.index = open_index(self.vectors, bundle.cache, vectors_key(head), kind=kind, progress=progress)

    def with_head(self, name: str | None, progress: Progress | None = None) -> Self:
        """The same library and encoder, asked through another of its heads. Raises BundleError, EncoderError."""
        chosen = self.bundle.manifest.head(name)
        head, head_name = self.bundle.head(name), chosen.name if chosen else ""
        return type(self)(self.bundle, self.encoder, head, head_name, self._kind, progress, self._address)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        encoder: Encoder | None = None,
        head: str | None = AUTO,
        cache: Path | None = None,
        device: str | torch.device = "cpu",
        kind: str = "auto",
        progress: Progress | None = None,
        index: str | None = None,
    ) -> Self:
        """Open a bundle for questions. `encoder` must be the one the bundle was made with; None loads it, never from
        the network. head: the name of one of its reflective heads; "auto" for its first, or the plain encoder where it
        has none; None or "none" for the plain encoder. cache: folder for derived files, None keeps none. kind: "auto",
        "exact" or "ivf" search. device: where the encoder is loaded; search is on
        the CPU. index: the address of a collection that `realrag serve-index` filled from this bundle and head, which is
        asked in place of an index here; it must come from whoever runs the program, never from a file of somebody else's.
        Raises BundleError, EncoderError, StoreError.
        """
        bundle = Bundle(path, cache, progress)
        chosen = bundle.manifest.head(head)
        head_name = chosen.name if chosen else ""
        encoder = encoder or own_encoder(bundle, device)
        made_with = bundle.manifest.encoder
        if not encoder.accepts_vectors_of(made_with):
            raise EncoderError(
                f"{path} was made with the encoder {made_with['name']} ({made_with['fingerprint'][:12]}), loaded is "
                f"{encoder.name} ({encoder.fingerprint[:12]}): the answers would be noise. "
                f"{encoder.difference(made_with)}"
            )
        return cls(bundle, encoder, bundle.head(head), head_name, kind, progress, index)

    def query(self, texts: list[str], image=None, image_weight: float = 0.5) -> np.ndarray:
        """(B, D) float32 unit query vectors: of the text, of the picture (through the head, like the photos), or of
        both as the unit vector of (1 - w) text + w picture."""
        if not 0 <= image_weight <= 1:
            raise QueryError(f"image_weight is {image_weight}; it goes from 0 (text only) to 1 (picture only).")
        seen: np.ndarray | None = None
        if image is not None:
            pixels = self.encoder.prepare(image.convert("RGB"))[None]
            seen = unit_rows(self.encoder.encode_images(pixels).numpy())
            seen = through_head(self.head, seen)
        if seen is not None and not self.encoder.has_text_tower:
            return np.repeat(seen, len(texts), axis=0)
        if image is None and not all(text.strip() for text in texts):
            raise QueryError(
                "Nothing is asked: the prompt is empty and there is no picture. Write what you want to see."
            )
        if seen is not None and not any(text.strip() for text in texts):
            return np.repeat(seen, len(texts), axis=0)
        said = unit_rows(self.encoder.encode_texts(texts).numpy())
        if seen is None:
            return said
        blank = np.array([not text.strip() for text in texts])[:, None]
        return unit_rows(np.where(blank, seen, (1 - image_weight) * said + image_weight * seen))

    @cached_property
    def lexicon(self) -> Lexicon:
        """The names and captions beside the photos, made ready at the first question and kept in the bundle's cache."""
        records = self.bundle.records
        (file,) = self.bundle.manifest.of("records")
        return Lexicon(
            records.classes, records.class_codes, records.words_beside, file.sha256, self.bundle.cache,
            self.bundle.other_names(), self._progress,
        )  # fmt: skip

    @cached_property
    def level(self) -> Level:
        """The score below which a photo found by look is doubtful: the manifest's, the cache's, or measured now."""
        key = vectors_key(self.head)
        written = self.bundle.manifest.levels.get(key)
        if self.encoder.fingerprint == self.bundle.manifest.encoder["fingerprint"] and written and written.up_to_date:
            return written
        return kept_level(self.bundle, self.encoder, key, self._measure)

    def _measure(self) -> Level:
        records = self.bundle.records
        return measure_level(
            lambda texts: unit_rows(self.encoder.encode_texts(texts).numpy()), self.vectors, records.classes,
            records.class_codes, captions_to_ask(records), self.lexicon.knows, self._progress,
        )  # fmt: skip

    def ranked_by(self) -> str:
        """Which head ranked, where the library has heads to choose from."""
        if not (heads := self.bundle.manifest.heads):
            return ""
        if self.head:
            return f"Ranked through the head {self.head_name!r}." if self.head_name else ""
        return f"Ranked by the plain encoder, through none of the heads ({', '.join(head.name for head in heads)})."


def own_encoder(bundle: Bundle, device) -> Encoder:
    """The encoder a bundle asks for: its own weights, the shipped one, or a known open_clip tag. The name comes from a
    stranger, so a path in it is never followed."""
    name, folder = bundle.manifest.encoder["name"], bundle.encoder_folder
    if folder is not None:
        return load_encoder(name, folder=folder, device=device, offline=True, made_with=bundle.manifest.encoder)
    if name not in SHIPPED_ENCODERS and (
        name.partition(":")[2] == "" or any(sign in name for sign in "/\\") or Path(name).exists()
    ):
        raise EncoderError(
            f"The bundle {bundle.folder} was made with {name!r} and does not carry its weights. Ask its author for one made "
            "with --with-encoder, or give the encoder yourself."
        )
    return load_encoder(name, device=device, offline=True, made_with=bundle.manifest.encoder)


def through_head(head, rows: np.ndarray) -> np.ndarray:
    """(N, D) unit vectors -> (N, D) float32 unit vectors after the reflective head, if there is one."""
    if head is None:
        return rows
    with torch.inference_mode():
        return head(torch.from_numpy(rows)).numpy()


def vectors_key(head) -> str:
    """What the cached vectors and index of a bundle are called: each head has its own, and so has the plain encoder."""
    return PLAIN if head is None else weights_sha256(head)[:32]


def unit_vectors(bundle: Bundle, head=None) -> np.ndarray:
    """(N, D) what the index searches: raw embeddings, made unit, through the head, made unit.

    In memory as float32 for a small library; for a large one fp16 in the cache, mapped, made once per bundle and head.
    """
    count, dim = bundle.embeddings.shape

    def chunks():
        for start in range(0, count, ROWS):
            yield start, through_head(head, unit_rows(bundle.embeddings[start : start + ROWS], start))

    if count <= EXACT_LIMIT or bundle.cache is None:
        vectors = np.empty((count, dim), np.float32)
        for start, rows in chunks():
            vectors[start : start + len(rows)] = rows
        return vectors
    folder = bundle.cache / vectors_key(head)
    path, kept = folder / "vectors.safetensors", folder / "vectors.sha256"
    verdicts = Verdicts(bundle.cache)
    if not (path.is_file() and kept.is_file() and kept.read_text() == verdicts.sha256(path)):
        folder.mkdir(parents=True, exist_ok=True)

        def write(file) -> None:
            file.write(matrix_header(count, dim))
            for _, rows in chunks():
                file.write(rows.astype(np.float16).tobytes())

        write_atomic(path, write)
        write_atomic(kept, verdicts.sha256(path).encode())
    return open_matrix(path, count, dim)


def store_source(bundle: Bundle, head=None) -> Source:
    """What a collection of this bundle's photos through this head is made of. Other heads, names and levels of the bundle
    change nothing in it."""
    (embeddings,), (records,) = bundle.manifest.of("embeddings"), bundle.manifest.of("records")
    vectors = sha256_bytes(canonical_json([bundle.manifest.encoder["fingerprint"], vectors_key(head)]))
    return Source(sha256_bytes(canonical_json([embeddings.sha256, records.sha256, vectors])), vectors, bundle.id)


def store_columns(bundle: Bundle) -> Columns:
    """What a collection knows of the photos beside their vectors."""
    records = bundle.records
    return Columns(
        records.ids.view(np.int64), records.class_codes, records.classes, records.licence_codes, records.licences
    )


def captions_to_ask(records) -> list[tuple[int, str]]:
    """(row, caption) of evenly spread photos whose caption says more than their class and than a camera's number, to
    measure a level with. A photo without words is captioned by its file's name: nobody asks for "IMG 1234"."""
    rows = np.linspace(0, len(records) - 1, min(len(records), 4 * MOST_KNOWN)).astype(np.int64)
    found = []
    for row in np.unique(rows):
        record = records[int(row)]
        if words(record.caption) != words(record.class_name) and names_something(record.caption):
            found.append((int(row), record.caption))
    return found


def kept_level(bundle: Bundle, encoder: Encoder, key: str, measure: Callable[[], Level]) -> Level:
    """The level in the bundle's cache for these vectors and this encoder; measured and kept where there is none."""
    path = None if bundle.cache is None else bundle.cache / key / "level.json"
    recipe = {"encoder": encoder.fingerprint, "bundle": bundle.id}
    try:
        content = strict_json(read_bounded(path, MAX_LEVEL)) if path else {}
        right = content.get("recipe") == recipe and content.get("sha256") == _level_sum(recipe, content.get("level"))
        if right and (level := Level.from_json(content["level"])):
            return level
    except (OSError, ValueError, AttributeError):
        pass
    level = measure()
    if path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = _level_sum(recipe, level.as_json())
            write_json(path, {"recipe": recipe, "level": level.as_json(), "sha256": digest})
        except OSError:
            pass  # a read-only cache only costs another measurement
    return level


def _level_sum(recipe: dict, level: object) -> str:
    return sha256_bytes(canonical_json([recipe, level]))
