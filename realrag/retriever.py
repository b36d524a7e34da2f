"""Encoder + head + bundle + index: a prompt, a picture or both -> real photos, ranked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from . import DEFAULT_ENCODER
from .bundle.bundle import Bundle, matrix_header, open_matrix, unit_rows
from .bundle.head_entries import AUTO, PLAIN
from .bundle.records import Filters
from .doubt import MOST_KNOWN, Level, measure_level
from .encoders.base import Encoder, weights_sha256
from .encoders.load import load_encoder
from .encoders.reflective_head import ReflectiveHead
from .errors import EncoderError, QueryError
from .files import Verdicts, canonical_json, read_bounded, sha256_bytes, write_atomic, write_json
from .photos.scan import Progress
from .prompts.words import function_words, words
from .question import read_question
from .references import Reference, References
from .search.diversity import drop_near_duplicates, mmr
from .search.hybrid import BOTH, BY_CAPTION, BY_LOOK, BY_NAME, CERTAIN, LOOK, NAME, Ranking, rank
from .search.index import EXACT_LIMIT, open_index
from .search.lexicon import Lexicon
from .validation import strict_json

MAX_K = 1000
MAX_LEVEL = 1 << 16  # bytes of a remembered level
# Pictures this close are the same shot saved twice. What this means depends on the encoder, so such pictures are not
# thrown away: they go behind all others.
NEAR_DUPLICATE = 0.995
DEEPEST = 16  # how many times the first look is widened, at most, to find enough different pictures
ROWS = 8192


def shipped_bundle() -> Path:
    """The bundle that comes with the plugin: a few hundred photos of groceries, clothes and things."""
    return Path(__file__).parent / "assets" / "sample"


class Asking(NamedTuple):
    """One question's settings, checked. allowed: (N,) bool of the rows that may answer, None for all."""

    image: object
    k: int
    min_score: float | str | None
    diversity: float
    image_weight: float
    find_by: str
    allowed: np.ndarray | None
    note: str


NO_WORDS = "This library's encoder reads no words: photos are found by name and caption, or with a picture."


class Chosen(NamedTuple):
    """A row of the answer: its cosine, how it was found, and for which object of the prompt."""

    score: float
    row: int
    found: str
    object: str = ""


class Retriever:
    """Answers questions about one bundle. Build it with `Retriever.open`.

    The encoder is a torch Module of its own, so a host such as ComfyUI can move it; everything else stays on the CPU.
    `head`: the reflective head that the photos go through, and `head_name`; None and "" for the plain encoder.
    """

    def __init__(
        self, bundle: Bundle, encoder: Encoder, head: ReflectiveHead | None = None, head_name: str = "", kind: str = "auto",
        progress: Progress | None = None,
    ):  # fmt: skip
        if head is not None and not encoder.is_encoder_of(bundle.manifest.encoder):
            raise EncoderError(
                f"The head {head_name!r} of {bundle.folder} was trained for the text tower of "
                f"{bundle.manifest.encoder['name']}, loaded is {encoder.name}. Ask without a head (--head none), or fit one to "
                "this encoder."
            )
        self.bundle, self.encoder, self.head, self.head_name = bundle, encoder, head, head_name
        self.bundle_id, self._kind, self._progress = bundle.id, kind, progress
        self._vectors = unit_vectors(bundle, head)
        self.index = open_index(self._vectors, bundle.cache, vectors_key(head), kind=kind, progress=progress)

    def with_head(self, name: str | None, progress: Progress | None = None) -> Retriever:
        """The same library and encoder, asked through another of its heads. Raises BundleError, EncoderError."""
        chosen = self.bundle.manifest.head(name)
        head, head_name = self.bundle.head(name), chosen.name if chosen else ""
        return Retriever(self.bundle, self.encoder, head, head_name, self._kind, progress)

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
        "exact" or "ivf" search. device: where the encoder is loaded; search is on
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
        return cls(bundle, encoder, bundle.head(head), head_name, kind, progress)

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
        if (
            self.encoder.fingerprint == self.bundle.manifest.encoder["fingerprint"]
            and key in self.bundle.manifest.levels
        ):
            return self.bundle.manifest.levels[key]
        return kept_level(self.bundle, self.encoder, key, self._measure)

    def _measure(self) -> Level:
        records = self.bundle.records
        return measure_level(
            lambda texts: unit_rows(self.encoder.encode_texts(texts).numpy()), self._vectors, records.classes,
            records.class_codes, captions_to_ask(records), self.lexicon.knows, self._progress,
        )  # fmt: skip

    def search(self, text: str = "", **options) -> References:
        """The best references for one text and/or picture; the options are those of `search_batch`."""
        return self.search_batch([text], **options)[0]

    def search_batch(
        self,
        texts: list[str],
        *,
        image=None,
        k: int = 4,
        min_score: float | str | None = AUTO,
        diversity: float = 0.0,
        filters: Filters = Filters(),
        image_weight: float = 0.5,
        find_by: str = BOTH,
    ) -> list[References]:
        """For each text the k best photos, best first.

        find_by: "both" ranks photos of a class that the text names first, then captions and look together; "name" takes
        what names and captions find; "look" compares the text as it stands with the photos, and nothing else.
        image: PIL picture that joins every text. min_score: cosine below which a photo is no answer, -1..1, or None; "auto"
        leaves out photos found by look below the library's own `level`. diversity: 0 ranks by score alone, up to 1
        prefers photos unlike those already chosen (MMR). Near-duplicates of a better answer come only when there is
        nothing else. Fewer than k is no error; the answer's `note` says why. Raises QueryError.
        """
        if not isinstance(k, int) or not 1 <= k <= MAX_K:
            raise QueryError(f"{k!r} references are asked for; the number goes from 1 to {MAX_K}.")
        if isinstance(min_score, str) and min_score != AUTO:
            raise QueryError(f"min_score is {min_score!r}; give a number from -1 to 1, {AUTO!r}, or None for no bound.")
        if isinstance(min_score, (int, float)) and not -1 <= min_score <= 1:
            raise QueryError(
                f"min_score is {min_score}; scores go from -1 to 1, useful bounds lie between 0.1 and 0.5."
            )
        if not 0 <= diversity <= 1:
            raise QueryError(f"diversity is {diversity}; it goes from 0 (best matches) to 1 (most different).")
        if find_by not in (BOTH, LOOK, NAME):
            raise QueryError(f"find_by is {find_by!r}; choose {BOTH!r}, {NAME!r} or {LOOK!r}.")
        allowed, note = self.bundle.records.mask(filters)
        if not self.encoder.has_text_tower and find_by == BOTH and any(text.strip() for text in texts):
            note = f"{note} {NO_WORDS}".strip()
            find_by = NAME if image is None else BOTH
        if filters.include_ids and min_score == AUTO:
            min_score = None  # photos that somebody pinned are beyond doubt
        asking = Asking(image, k, min_score, diversity, image_weight, find_by, allowed, note)
        if find_by == LOOK or not any(text.strip() for text in texts):
            return self._by_look(texts, asking)
        return [self._answer(text, asking) if text.strip() else self._by_look([text], asking)[0] for text in texts]

    def _by_look(self, texts: list[str], asking: Asking) -> list[References]:
        """Texts as they stand, compared with the photos in one go."""
        if not texts:
            return []
        queries = self.query(texts, asking.image, asking.image_weight)
        count = self._open_rows(asking.allowed)
        if not count:
            return [self._nothing_allowed(text, asking.note) for text in texts]
        scores, rows = self.index.search(queries, min(count, 4 * asking.k + 16), asking.allowed)
        answers = []
        for number, text in enumerate(texts):
            deeper = self._deeper(queries[number], asking.allowed)
            ranking = Ranking(rows[number], scores[number], np.full(len(rows[number]), BY_LOOK, object))
            level = self._level_for(asking) if text.strip() else None
            chosen, best = self._choose(ranking, deeper, count, asking.k, asking, level)
            answers.append(self._references(text, chosen, best, asking.k, asking, level, [asking.note]))
        return answers

    def _answer(self, text: str, asking: Asking) -> References:
        """One prompt, by names, captions and look: each of its objects gets its own photos."""
        level = self._level_for(asking)
        question = read_question(text, self.lexicon, lambda parts: self._sure_by_look(parts, level))
        allowed, notes = self._without(question.left_out, asking.allowed, level)
        notes = [asking.note, *question.notes, *notes]
        count = self._open_rows(allowed)
        if not count:
            return self._nothing_allowed(text, " ".join(filter(None, notes)))
        objects = question.objects or ("",)
        if len(objects) > asking.k:
            notes.append(f"{len(objects)} objects are asked for and {asking.k} photos: raise top_k to see all.")
        queries = self._queries([part or question.text for part in objects], asking)
        chosen: list[Chosen] = []
        best, pool = -1.0, min(count, 4 * asking.k + 16)
        for number, part in enumerate(objects[: asking.k]):
            wanted = -(-(asking.k - len(chosen)) // (min(len(objects), asking.k) - number))
            free = (
                _without_rows(allowed, [each.row for each in chosen], len(self.bundle.records)) if chosen else allowed
            )
            query = queries[number]

            def look(size: int, query=query, part=part, free=free) -> Ranking:
                return rank(self.index, self._vectors, self.lexicon, query, part, size, free, asking.find_by)

            mine, top = self._choose(look(pool), look, count, wanted, asking, level)
            label = part if len(objects) > 1 else ""
            chosen += [each._replace(object=label) for each in mine]
            best = max(best, top)
        if asking.find_by != NAME:
            notes += self._not_taken_in(question.text)
        return self._references(text, chosen, best, asking.k, asking, level, notes)

    def _level_for(self, asking: Asking) -> Level | None:
        """The level, where it says something: of a text alone, and not where nothing but a fixed bound was asked for."""
        plain = asking.find_by == LOOK and asking.min_score != AUTO
        return None if asking.image is not None or plain or not self.encoder.has_text_tower else self.level

    def _queries(self, parts: list[str], asking: Asking) -> np.ndarray:
        """(P, D): zeros where there is no picture and the encoder reads no words, so that names and captions decide."""
        if asking.image is None and not self.encoder.has_text_tower:
            return np.zeros((len(parts), self._vectors.shape[1]), np.float32)
        return self.query(parts, asking.image, asking.image_weight)

    def _sure_by_look(self, parts: list[str], level: Level | None) -> list[bool]:
        """Which texts alone find a photo above the level. Not asked of large libraries, where each costs a search."""
        if level is None or not level.tells or len(self._vectors) > EXACT_LIMIT or not parts:
            return [False] * len(parts)
        scores, _ = self.index.search(self.query(parts), 1)
        return [bool(row[0] >= level.score) for row in scores]

    def _without(self, things: Sequence[str], allowed, level: Level | None) -> tuple[np.ndarray | None, list[str]]:
        """(N,) bool without the photos of what is left out, by name, by caption and, where the encoder tells, by look."""
        notes = []
        for thing in things:
            rows = [self.lexicon.rows_of(codes) for codes in self.lexicon.named(thing)]
            hits = self.lexicon.ask(thing).hits()
            rows.append(hits.rows[hits.matched >= CERTAIN])
            if level is not None and level.tells and len(self._vectors) <= EXACT_LIMIT:
                scores, near = self.index.search(self.query([thing]), min(len(self._vectors), MAX_K))
                rows.append(near[0][scores[0] >= level.score])
            gone = np.unique(np.concatenate(rows))
            if len(gone):
                allowed = _without_rows(allowed, gone, len(self.bundle.records))
                notes.append(f"Without {thing}: {len(gone)} photo{'s' * (len(gone) != 1)} left out.")
            else:
                notes.append(f"Without {thing}: no photo here shows it.")
        return allowed, notes

    def _not_taken_in(self, text: str) -> list[str]:
        """What the library's encoder does not know, or cuts off, in words."""
        coverage, notes = self.encoder.coverage(text), []
        if coverage.read < coverage.words:
            notes.append(f"Only the first {coverage.read} of {coverage.words} words were read by look.")
        unknown = [word for word in coverage.unknown if word not in function_words()]
        if unknown:
            shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            telling = [word for word in dict.fromkeys(words(text)) if word not in function_words()]
            notes.append(f"Unknown to this library's encoder: {shown} ({len(unknown)} of {_words(len(telling))}).")
        return notes

    def _open_rows(self, allowed: np.ndarray | None) -> int:
        return len(self.bundle.records) if allowed is None else int(allowed.sum())

    def _nothing_allowed(self, text: str, note: str) -> References:
        return References(text, self.bundle_id, (), f"{note} No photo passes the filters.".strip(), self._by())

    def _deeper(self, query: np.ndarray, allowed: np.ndarray | None) -> Callable[[int], Ranking]:
        def look(size: int) -> Ranking:
            scores, rows = (found[0] for found in self.index.search(query[None], size, allowed))
            return Ranking(rows, scores, np.full(len(rows), BY_LOOK, object))

        return look

    def _choose(
        self, ranking: Ranking, look, open_rows: int, k: int, asking: Asking, level: Level | None
    ) -> tuple[list[Chosen], float]:
        """The answer, and the best score there was by look. Looks deeper while near-duplicates fill the candidates.
        look(size): a ranking of about so many candidates of each kind."""
        size = min(open_rows, 4 * asking.k + 16)
        deepest = min(open_rows, DEEPEST * size)
        bound = -math.inf if asking.min_score in (None, AUTO) else asking.min_score
        while True:
            passed = ranking.scores >= bound
            if asking.min_score == AUTO and level is not None and level.score is not None:
                passed &= (ranking.found != BY_LOOK) | (ranking.scores >= level.score)
            rows, scores, found = (part[passed] for part in ranking)
            vectors = np.asarray(self._vectors[rows], np.float32)
            different = drop_near_duplicates(vectors, NEAR_DUPLICATE)
            if len(different) >= k or not passed.all() or size >= deepest:
                break
            size = min(deepest, 4 * size)
            ranking = look(size)
        by_look = ranking.scores[ranking.found == BY_LOOK]
        best = float(by_look.max()) if len(by_look) else -1.0
        order: list[int] = []
        for tier in (BY_NAME,), (BY_CAPTION, BY_LOOK):
            mine = different[np.isin(found[different].astype(str), tier)]
            if asking.diversity == 0:  # the ranking's own order, in which captions count as well as scores
                order += mine[: k - len(order)].tolist()
            elif len(mine):
                relevance = scores[mine].copy()
                relevance[0] = relevance.max()  # the ranking's best stays the best
                order += mine[mmr(relevance, vectors[mine], k - len(order), asking.diversity)].tolist()
        order += np.setdiff1d(np.arange(len(rows)), different)[: k - len(order)].tolist()
        return [Chosen(float(scores[at]), int(rows[at]), str(found[at])) for at in order], best

    def _references(
        self,
        text: str,
        chosen: list[Chosen],
        best: float,
        k: int,
        asking: Asking,
        level: Level | None,
        notes: list[str],
    ) -> References:
        items = []
        for each in chosen:
            record = self.bundle.records[each.row]
            items.append(
                Reference(
                    record.id, each.score, record.caption, record.class_name, record.licence, record.author,
                    record.source, record.file, record.width, record.height, self.bundle.image(record), found=each.found,
                    object=each.object,
                )
            )  # fmt: skip
        bound = level.score if level is not None else None
        doubtful = (
            asking.find_by != NAME
            and bound is not None
            and best < bound
            and all(item.found == BY_LOOK for item in items)
        )
        notes = list(filter(None, notes))
        if doubtful and not items:
            notes.insert(0, f"Nothing here fits: best {best:.2f}, and a photo that fits scores {bound:.2f} or more.")
        elif doubtful:
            notes.insert(0, f"Doubtful: best {best:.2f}, and a photo that fits scores {bound:.2f} or more.")
        elif len(items) < k:
            if asking.min_score == AUTO and bound is not None and best < bound and asking.find_by != NAME:
                why = f"no other photo is found by name or caption, or scores {bound:.2f} or more by look"
                notes.append(f"{len(items)} of {k}: {why} (the best has {max(best, -1):.2f}).")
            elif isinstance(asking.min_score, (int, float)) and (not items or best >= asking.min_score):
                notes.append(
                    f"{len(items)} of {k}: no other photo scores {asking.min_score} or more (the best has {best:.3f})."
                )
            elif asking.find_by == NAME:
                notes.append(f"{len(items)} of {k}: nothing else here is called so.")
            else:
                notes.append(f"{len(items)} of {k}: there are no more photos to choose from.")
        return References(text, self.bundle_id, tuple(items), " ".join(notes), self._by(), doubtful, best, bound)

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


def captions_to_ask(records) -> list[tuple[int, str]]:
    """(row, caption) of evenly spread photos whose caption says more than their class, to measure a level with."""
    rows = np.linspace(0, len(records) - 1, min(len(records), 4 * MOST_KNOWN)).astype(np.int64)
    found = []
    for row in np.unique(rows):
        record = records[int(row)]
        if record.caption and words(record.caption) != words(record.class_name):
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


def _words(count: int) -> str:
    return f"{count} word" + "s" * (count != 1)


def _without_rows(allowed: np.ndarray | None, rows, count: int) -> np.ndarray:
    left = np.ones(count, bool) if allowed is None else allowed.copy()
    left[np.asarray(rows, np.int64)] = False
    return left
