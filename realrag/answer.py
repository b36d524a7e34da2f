"""A question and its answer: which photos of an opened library fit, in which order, and what there is to say of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .bundle.head_entries import AUTO
from .choosing import MAX_K, Chooser, Chosen, Wanted, count_open, without_rows
from .doubt import Level
from .library import Library
from .prompts.words import function_words, names_something, words
from .question import read_question
from .references import Reference, References
from .search.hybrid import BY_LOOK, CERTAIN, LOOK, NAME, PINNED, Ranking, rank
from .search.index import EXACT_LIMIT

# The name of a file: "IMG_2034", "DSC_0412.jpg", "red vase.png".
_FILE = re.compile(
    r"[^\s/\\]{0,200}\d{3}[^\s/\\]{0,50}|[^/\\\n]{1,200}\.(?:jpe?g|png|webp|heic|avif|tiff?|gif|bmp)", re.IGNORECASE
)
MOST_TRIED = 50  # words of a question that found nothing which are tried alone


@dataclass(frozen=True)
class Asking:
    """One question's settings, checked, beside the library that answers. allowed: (N,) bool of the rows that may answer,
    None for all. note: what the filters left out."""

    library: Library
    image: object
    image_weight: float
    find_by: str
    allowed: np.ndarray | None
    note: str
    chooser: Chooser

    def by_look(self, texts: list[str]) -> list[References]:
        """Texts as they stand, compared with the photos in one go."""
        if not texts:
            return []
        queries, count = self.library.query(texts, self.image, self.image_weight), len(self.library.vectors)
        if not count_open(self.allowed, count):
            return [self._nothing_allowed(text, self.note) for text in texts]

        def wanted(query: np.ndarray) -> Wanted:
            def look(size: int, free: np.ndarray | None) -> Ranking:
                return _by_look(*(found[0] for found in self.library.index.search(query[None], size, free)))

            return Wanted(query, look)

        free = without_rows(self.allowed, self.chooser.pinned[: self.chooser.k], count)
        size = self.chooser.size(max(1, count_open(free, count)))
        scores, rows = self.library.index.search(queries, size, free)
        answers = []
        for number, text in enumerate(texts):
            level = self._level() if text.strip() else None
            one = replace(wanted(queries[number]), first=_by_look(scores[number], rows[number]))
            answers.append(self._references(text, *self.chooser.answer([one], self.allowed, level), level, [self.note]))
        return answers

    def answer(self, text: str) -> References:
        """One prompt, by names, captions and look: each of its objects gets its own photos."""
        level, lexicon, k = self._level(), self.library.lexicon, self.chooser.k
        question = read_question(text, lexicon, lambda parts: self._sure_by_look(parts, level))
        allowed, notes = self._without(question.left_out, self.allowed, level)
        notes = [self.note, *question.notes, *notes]
        if not count_open(allowed, len(self.library.vectors)) and not self.chooser.pinned:
            return self._nothing_allowed(text, " ".join(filter(None, notes)))
        objects = question.objects or ("",)
        if len(objects) > k:
            notes.append(f"{len(objects)} objects are asked for and {k} photos: raise top_k to see all.")
        queries = self._queries([part or question.text for part in objects])

        def wanted(part: str, query: np.ndarray) -> Wanted:
            def look(size: int, free: np.ndarray | None) -> Ranking:
                return rank(
                    self.library.index, self.library.vectors, lexicon, query, part, size, free, self.find_by, called
                )

            def named(rows: np.ndarray) -> np.ndarray:
                return np.isin(rows, np.concatenate([[-1], *map(lexicon.rows_of, lexicon.named(part))]))

            return Wanted(query, look, part, named) if len(objects) > 1 else Wanted(query, look)

        called = self.library.bundle.records.rows_of_file(text.strip()) if _FILE.fullmatch(text.strip()) else ()
        each = [wanted(part, query) for part, query in zip(objects[:k], queries[:k], strict=True)]
        answer = self.chooser.answer(each, allowed, level)
        if self.find_by != NAME:
            notes += self._not_taken_in(question.text)
        return self._references(text, *answer, level, notes, " ".join(question.objects))

    def _open(self) -> int:
        """How many photos the filters let through."""
        return count_open(self.allowed, len(self.library.vectors))

    def _level(self) -> Level | None:
        """The level, where it says something: of a text alone, and not where nothing but a fixed bound was asked for."""
        plain = self.find_by == LOOK and self.chooser.min_score != AUTO
        if self.image is not None or plain or not self.library.encoder.has_text_tower:
            return None
        return self.library.level

    def _queries(self, parts: list[str]) -> np.ndarray:
        """(P, D): zeros where there is no picture and the encoder reads no words, so that names and captions decide."""
        if self.image is None and not self.library.encoder.has_text_tower:
            return np.zeros((len(parts), self.library.vectors.shape[1]), np.float32)
        return self.library.query(parts, self.image, self.image_weight)

    def _sure_by_look(self, parts: list[str], level: Level | None) -> list[bool]:
        """Which texts alone find a photo above the level. Not asked of large libraries, where each costs a search."""
        if level is None or not level.tells or len(self.library.vectors) > EXACT_LIMIT or not parts:
            return [False] * len(parts)
        scores, _ = self.library.index.search(self.library.query(parts), 1)
        return [bool(row[0] >= level.score) for row in scores]

    def _without(self, things: Sequence[str], allowed, level: Level | None) -> tuple[np.ndarray | None, list[str]]:
        """(N,) bool without the photos of what is left out, by name, by caption and, where the encoder tells, by look."""
        notes = []
        for thing in things:
            rows = [self.library.lexicon.rows_of(codes) for codes in self.library.lexicon.named(thing)]
            hits = self.library.lexicon.ask(thing).hits()
            rows.append(hits.rows[hits.matched >= CERTAIN])
            if level is not None and level.tells and len(self.library.vectors) <= EXACT_LIMIT:
                scores, near = self.library.index.search(
                    self.library.query([thing]), min(len(self.library.vectors), MAX_K)
                )
                rows.append(near[0][scores[0] >= level.score])
            gone = np.unique(np.concatenate(rows))
            if len(gone):
                allowed = without_rows(allowed, gone, len(self.library.bundle.records))
                notes.append(f"Without {thing}: {len(gone)} photo{'s' * (len(gone) != 1)} left out.")
            else:
                notes.append(f"Without {thing}: no photo here shows it.")
        return allowed, notes

    def _not_taken_in(self, text: str) -> list[str]:
        """What the library's encoder does not know, or cuts off, in words."""
        coverage, notes = self.library.encoder.coverage(text), []
        if coverage.read < coverage.words:
            notes.append(f"Only the first {coverage.read} of {coverage.words} words were read by look.")
        unknown = [word for word in coverage.unknown if word not in function_words()]
        if unknown:
            shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            telling = [word for word in dict.fromkeys(words(text)) if word not in function_words()]
            notes.append(f"Unknown to this library's encoder: {shown} ({len(unknown)} of {_words(len(telling))}).")
        return notes

    def _stands_here(self, text: str) -> list[str]:
        """Which words of a question that found nothing stand beside photos: asked for alone, they would find them."""
        telling = [
            word for word in dict.fromkeys(words(text)) if word not in function_words() and names_something(word)
        ]
        ask = self.library.lexicon.ask
        found = [word for word in telling[:MOST_TRIED] if len(ask(word).best(1, self.allowed).rows)]
        if not found or len(telling) == 1:
            return []
        listed = " or ".join(repr(word) for word in found[:3])
        return [
            f"Names or captions here have {listed}. To find those photos, ask for that alone, for example in look_for."
        ]

    def _nothing_allowed(self, text: str, note: str) -> References:
        return References(
            text, self.library.bundle_id, (), f"{note} No photo passes the filters.".strip(), self.library.ranked_by()
        )

    def _references(
        self,
        text: str,
        chosen: list[Chosen],
        best: float,
        last: int,
        level: Level | None,
        notes: list[str],
        asked: str = "",
    ) -> References:
        """asked: what names and captions were searched for."""
        items = []
        for each in chosen:
            record = self.library.bundle.records[each.row]
            items.append(
                Reference(
                    record.id, each.score, record.caption, record.class_name, record.licence, record.author,
                    record.source, record.file, record.width, record.height, self.library.bundle.image(record), found=each.found,
                    object=each.object,
                )
            )  # fmt: skip
        bound, k, min_score = level.score if level is not None else None, self.chooser.k, self.chooser.min_score
        free = [item for item in items if item.found != PINNED]
        doubtful = (
            self.find_by != NAME and bound is not None and best < bound and all(item.found == BY_LOOK for item in free)
            and (bool(free) or not items)
        )  # fmt: skip
        notes = list(filter(None, notes))
        if self.chooser.page > 1 and items and not free and len(items) == k:
            notes.append(f"All {k} photos are pinned, so there is no page {self.chooser.page}.")
        elif 0 < last < self.chooser.page:
            notes.append(f"Page {self.chooser.page} is empty: page {last} is the last one.")
        elif doubtful and not items:
            needed = f"{bound:.2f}" if min_score is None or isinstance(min_score, str) else min_score
            notes.insert(0, f"Nothing here fits: best {best:.2f}, and a photo that fits scores {needed} or more.")
            notes += self._stands_here(asked)
        elif doubtful:
            notes.insert(0, f"Doubtful: best {best:.2f}, and a photo that fits scores {bound:.2f} or more.")
        elif len(items) < k:
            if min_score == AUTO and bound is not None and best < bound and self.find_by != NAME:
                why = f"no other photo is found by name or caption, or scores {bound:.2f} or more by look"
                notes.append(f"{len(items)} of {k}: {why} (the best has {max(best, -1):.2f}).")
            elif isinstance(min_score, (int, float)) and (not items or best >= min_score):
                notes.append(
                    f"{len(items)} of {k}: no other photo scores {min_score} or more (the best has {best:.3f})."
                )
            elif self.find_by == NAME:
                notes.append(f"{len(items)} of {k}: nothing else here is called so.")
            elif min_score == AUTO and bound is not None and len(items) < self._open():
                notes.append(f"{len(items)} of {k}: no other photo scores {bound:.2f} or more.")
            else:
                notes.append(f"{len(items)} of {k}: there are no more photos to choose from.")
        return References(
            text, self.library.bundle_id, tuple(items), " ".join(notes), self.library.ranked_by(), doubtful, best, bound
        )


def _words(count: int) -> str:
    return f"{count} word" + "s" * (count != 1)


def _by_look(scores: np.ndarray, rows: np.ndarray) -> Ranking:
    return Ranking(rows, scores, np.full(len(rows), BY_LOOK, object))
