"""Encoder + head + bundle + index: a prompt, a picture or both -> real photos, ranked."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from . import DEFAULT_ENCODER
from .bundle.bundle import Bundle, matrix_header, open_matrix, unit_rows
from .bundle.head_entries import AUTO, PLAIN
from .bundle.records import Filters
from .encoders.base import Encoder, weights_sha256
from .encoders.load import load_encoder
from .encoders.reflective_head import ReflectiveHead
from .errors import EncoderError, QueryError
from .files import Verdicts, write_atomic
from .photos.scan import Progress
from .references import Reference, References
from .search.diversity import drop_near_duplicates, mmr
from .search.index import EXACT_LIMIT, open_index

MAX_K = 1000
# Pictures this close are the same shot saved twice. What this means depends on the encoder, so such pictures are not
# thrown away: they go behind all others.
NEAR_DUPLICATE = 0.995
DEEPEST = 16  # how many times the first look is widened, at most, to find enough different pictures
ROWS = 8192


def shipped_bundle() -> Path:
    """The bundle that comes with the plugin: a few hundred photos of groceries, clothes and things."""
    return Path(__file__).parent / "assets" / "sample"


class Retriever:
    """Answers questions about one bundle. Build it with `Retriever.open`.

    The encoder is a torch Module of its own, so a host such as ComfyUI can move it; everything else stays on the CPU.
    `head`: the reflective head that the photos go through, and `head_name`; None and "" for the plain encoder.
    """

    def __init__(
        self, bundle: Bundle, encoder: Encoder, head: ReflectiveHead | None = None, head_name: str = "", kind: str = "auto",
        device: str | torch.device = "cpu", progress: Progress | None = None,
    ):  # fmt: skip
        if head is not None and not encoder.is_encoder_of(bundle.manifest.encoder):
            raise EncoderError(
                f"The head {head_name!r} of {bundle.folder} was trained for the text tower of "
                f"{bundle.manifest.encoder['name']}, loaded is {encoder.name}. Ask without a head (--head none), or fit one to "
                "this encoder."
            )
        self.bundle, self.encoder, self.head, self.head_name = bundle, encoder, head, head_name
        self.bundle_id, self._kind, self._device = bundle.id, kind, device
        self._vectors = unit_vectors(bundle, head)
        self.index = open_index(
            self._vectors, bundle.cache, vectors_key(head), kind=kind, device=device, progress=progress
        )

    def with_head(self, name: str | None, progress: Progress | None = None) -> Retriever:
        """The same library and encoder, asked through another of its heads. Raises BundleError, EncoderError."""
        chosen = self.bundle.manifest.head(name)
        head, head_name = self.bundle.head(name), chosen.name if chosen else ""
        return Retriever(self.bundle, self.encoder, head, head_name, self._kind, self._device, progress)

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
    ) -> Retriever:
        """Open a bundle for questions. `encoder` must be the one the bundle was made with; None loads it, never from
        the network. head: the name of one of its reflective heads; "auto" for its first, or the plain encoder where it
        has none; None or "none" for the plain encoder. cache: folder for derived files, None keeps none. kind: "auto",
        "exact" or "ivf" search. device: where the encoder is loaded and a large library's index is built; search is on
        the CPU. Raises BundleError, EncoderError.
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
        return cls(bundle, encoder, bundle.head(head), head_name, kind, device, progress)

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

    def search(self, text: str = "", **options) -> References:
        """The best references for one text and/or picture; the options are those of `search_batch`."""
        return self.search_batch([text], **options)[0]

    def search_batch(
        self,
        texts: list[str],
        *,
        image=None,
        k: int = 4,
        min_score: float | None = None,
        diversity: float = 0.0,
        filters: Filters = Filters(),
        image_weight: float = 0.5,
    ) -> list[References]:
        """For each text the k best photos, best first.

        image: PIL picture that joins every text. min_score: cosine below which a photo is no answer, -1..1. diversity:
        0 ranks by score alone, up to 1 prefers photos unlike those already chosen (MMR). Near-duplicates of a better
        answer come only when there is nothing else. Fewer than k is no error; the answer's `note` says why. Raises
        QueryError.
        """
        if not isinstance(k, int) or not 1 <= k <= MAX_K:
            raise QueryError(f"{k!r} references are asked for; the number goes from 1 to {MAX_K}.")
        if min_score is not None and not -1 <= min_score <= 1:
            raise QueryError(
                f"min_score is {min_score}; scores go from -1 to 1, useful bounds lie between 0.1 and 0.5."
            )
        if not 0 <= diversity <= 1:
            raise QueryError(f"diversity is {diversity}; it goes from 0 (best matches) to 1 (most different).")
        if not texts:
            return []
        allowed, note = self.bundle.records.mask(filters)
        open_rows = len(self.bundle.records) if allowed is None else int(allowed.sum())
        queries = self.query(texts, image, image_weight)
        if not open_rows:
            none = f"{note} No photo passes the filters.".strip()
            return [References(text, self.bundle_id, (), none, self._by()) for text in texts]
        pool = min(open_rows, 4 * k + 16)
        scores, rows = self.index.search(queries, pool, allowed)
        answers = []
        for number, text in enumerate(texts):
            chosen, best = self._choose(
                queries[number], scores[number], rows[number], allowed, open_rows, k, min_score, diversity
            )
            answers.append(self._references(text, chosen, best, k, min_score, note))
        return answers

    def _choose(
        self, query, scores, rows, allowed, open_rows, k, min_score, diversity
    ) -> tuple[list[tuple[float, int]], float]:
        """[(score, row)] of the answer, and the best score there was. Looks deeper while near-duplicates fill the pool."""
        deepest = min(open_rows, DEEPEST * len(rows))
        while True:
            best = float(scores[0]) if len(scores) else -1.0
            passed = scores >= (-math.inf if min_score is None else min_score)
            good_scores, good_rows = scores[passed], rows[passed]
            vectors = np.asarray(self._vectors[good_rows], np.float32)
            different = drop_near_duplicates(vectors, NEAR_DUPLICATE)
            if len(different) >= k or not passed.all() or len(rows) >= deepest:
                break
            scores, rows = (found[0] for found in self.index.search(query[None], min(deepest, 4 * len(rows)), allowed))
        order = list(different[mmr(good_scores[different], vectors[different], k, diversity)])
        repeats = np.setdiff1d(np.arange(len(good_rows)), different)[: k - len(order)]
        return [(float(good_scores[at]), int(good_rows[at])) for at in [*order, *repeats]], best

    def _references(self, text, chosen, best, k, min_score, note) -> References:
        items = []
        for score, row in chosen:
            record = self.bundle.records[row]
            items.append(
                Reference(
                    record.id, score, record.caption, record.class_name, record.licence, record.author, record.source,
                    record.file, record.width, record.height, self.bundle.image(record),
                )
            )  # fmt: skip
        if len(items) < k:
            if min_score is not None and (not items or best >= min_score):
                why = f"{len(items)} of {k}: no other photo scores {min_score} or more (the best has {best:.3f})."
            else:
                why = f"{len(items)} of {k}: there are no more photos to choose from."
            note = f"{note} {why}".strip()
        return References(text, self.bundle_id, tuple(items), note, self._by())

    def _by(self) -> str:
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
    if name != DEFAULT_ENCODER and (
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
