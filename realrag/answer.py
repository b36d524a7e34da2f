"""A question and its answer: which photos of an opened library fit, in which order, and what there is to say of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .bundle.head_entries import AUTO
from .doubt import Level
from .library import Library
from .prompts.words import function_words, words
from .question import read_question
from .references import Reference, References
from .search.diversity import drop_near_duplicates, mmr
from .search.hybrid import BY_CAPTION, BY_LOOK, BY_NAME, CERTAIN, LOOK, NAME, Ranking, rank
from .search.index import EXACT_LIMIT

MAX_K = 1000
# Pictures this close are the same shot saved twice. What this means depends on the encoder, so such pictures are not
# thrown away: they go behind all others.
NEAR_DUPLICATE = 0.995
DEEPEST = 16  # how many times the first look is widened, at most, to find enough different pictures


class Chosen(NamedTuple):
    """A row of the answer: its cosine, how it was found, and for which object of the prompt."""

    score: float
    row: int
    found: str
    object: str = ""


@dataclass(frozen=True)
class Asking:
    """One question's settings, checked, beside the library that answers. allowed: (N,) bool of the rows that may answer,
    None for all. note: what the filters left out."""

    library: Library
    image: object
    k: int
    min_score: float | str | None
    diversity: float
    image_weight: float
    find_by: str
    allowed: np.ndarray | None
    note: str

    def by_look(self, texts: list[str]) -> list[References]:
        """Texts as they stand, compared with the photos in one go."""
        if not texts:
            return []
        queries = self.library.query(texts, self.image, self.image_weight)
        count = self._open_rows(self.allowed)
        if not count:
            return [self._nothing_allowed(text, self.note) for text in texts]
        scores, rows = self.library.index.search(queries, min(count, 4 * self.k + 16), self.allowed)
        answers = []
        for number, text in enumerate(texts):
            deeper = self._deeper(queries[number], self.allowed)
            ranking = Ranking(rows[number], scores[number], np.full(len(rows[number]), BY_LOOK, object))
            level = self._level() if text.strip() else None
            chosen, best = self._choose(ranking, deeper, count, self.k, level)
            answers.append(self._references(text, chosen, best, level, [self.note]))
        return answers

    def answer(self, text: str) -> References:
        """One prompt, by names, captions and look: each of its objects gets its own photos."""
        level = self._level()
        question = read_question(text, self.library.lexicon, lambda parts: self._sure_by_look(parts, level))
        allowed, notes = self._without(question.left_out, self.allowed, level)
        notes = [self.note, *question.notes, *notes]
        count = self._open_rows(allowed)
        if not count:
            return self._nothing_allowed(text, " ".join(filter(None, notes)))
        objects = question.objects or ("",)
        if len(objects) > self.k:
            notes.append(f"{len(objects)} objects are asked for and {self.k} photos: raise top_k to see all.")
        queries = self._queries([part or question.text for part in objects])
        chosen: list[Chosen] = []
        best, pool = -1.0, min(count, 4 * self.k + 16)
        for number, part in enumerate(objects[: self.k]):
            wanted = -(-(self.k - len(chosen)) // (min(len(objects), self.k) - number))
            taken = [each.row for each in chosen]
            free = _without_rows(allowed, taken, len(self.library.bundle.records)) if taken else allowed
            query = queries[number]

            def look(size: int, query=query, part=part, free=free) -> Ranking:
                index, vectors, lexicon = self.library.index, self.library.vectors, self.library.lexicon
                return rank(index, vectors, lexicon, query, part, size, free, self.find_by)

            mine, top = self._choose(look(pool), look, count, wanted, level)
            label = part if len(objects) > 1 else ""
            chosen += [each._replace(object=label) for each in mine]
            best = max(best, top)
        if self.find_by != NAME:
            notes += self._not_taken_in(question.text)
        return self._references(text, chosen, best, level, notes)

    def _level(self) -> Level | None:
        """The level, where it says something: of a text alone, and not where nothing but a fixed bound was asked for."""
        plain = self.find_by == LOOK and self.min_score != AUTO
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
                allowed = _without_rows(allowed, gone, len(self.library.bundle.records))
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

    def _open_rows(self, allowed: np.ndarray | None) -> int:
        return len(self.library.bundle.records) if allowed is None else int(allowed.sum())

    def _nothing_allowed(self, text: str, note: str) -> References:
        return References(
            text, self.library.bundle_id, (), f"{note} No photo passes the filters.".strip(), self.library.ranked_by()
        )

    def _deeper(self, query: np.ndarray, allowed: np.ndarray | None) -> Callable[[int], Ranking]:
        def look(size: int) -> Ranking:
            scores, rows = (found[0] for found in self.library.index.search(query[None], size, allowed))
            return Ranking(rows, scores, np.full(len(rows), BY_LOOK, object))

        return look

    def _choose(
        self, ranking: Ranking, look, open_rows: int, k: int, level: Level | None
    ) -> tuple[list[Chosen], float]:
        """The answer, and the best score there was by look. Looks deeper while near-duplicates fill the candidates.
        look(size): a ranking of about so many candidates of each kind."""
        size = min(open_rows, 4 * self.k + 16)
        deepest = min(open_rows, DEEPEST * size)
        bound = -math.inf if self.min_score in (None, AUTO) else self.min_score
        while True:
            passed = ranking.scores >= bound
            if self.min_score == AUTO and level is not None and level.score is not None:
                passed &= (ranking.found != BY_LOOK) | (ranking.scores >= level.score)
            rows, scores, found = (part[passed] for part in ranking)
            vectors = np.asarray(self.library.vectors[rows], np.float32)
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
            if self.diversity == 0:  # the ranking's own order, in which captions count as well as scores
                order += mine[: k - len(order)].tolist()
            elif len(mine):
                relevance = scores[mine].copy()
                relevance[0] = relevance.max()  # the ranking's best stays the best
                order += mine[mmr(relevance, vectors[mine], k - len(order), self.diversity)].tolist()
        order += np.setdiff1d(np.arange(len(rows)), different)[: k - len(order)].tolist()
        return [Chosen(float(scores[at]), int(rows[at]), str(found[at])) for at in order], best

    def _references(
        self,
        text: str,
        chosen: list[Chosen],
        best: float,
        level: Level | None,
        notes: list[str],
    ) -> References:
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
        bound = level.score if level is not None else None
        doubtful = (
            self.find_by != NAME and bound is not None and best < bound and all(item.found == BY_LOOK for item in items)
        )
        notes = list(filter(None, notes))
        if doubtful and not items:
            notes.insert(0, f"Nothing here fits: best {best:.2f}, and a photo that fits scores {bound:.2f} or more.")
        elif doubtful:
            notes.insert(0, f"Doubtful: best {best:.2f}, and a photo that fits scores {bound:.2f} or more.")
        elif len(items) < self.k:
            if self.min_score == AUTO and bound is not None and best < bound and self.find_by != NAME:
                why = f"no other photo is found by name or caption, or scores {bound:.2f} or more by look"
                notes.append(f"{len(items)} of {self.k}: {why} (the best has {max(best, -1):.2f}).")
            elif isinstance(self.min_score, (int, float)) and (not items or best >= self.min_score):
                notes.append(
                    f"{len(items)} of {self.k}: no other photo scores {self.min_score} or more (the best has {best:.3f})."
                )
            elif self.find_by == NAME:
                notes.append(f"{len(items)} of {self.k}: nothing else here is called so.")
            else:
                notes.append(f"{len(items)} of {self.k}: there are no more photos to choose from.")
        return References(
            text, self.library.bundle_id, tuple(items), " ".join(notes), self.library.ranked_by(), doubtful, best, bound
        )


def _words(count: int) -> str:
    return f"{count} word" + "s" * (count != 1)


def _without_rows(allowed: np.ndarray | None, rows, count: int) -> np.ndarray:
    left = np.ones(count, bool) if allowed is None else allowed.copy()
    left[np.asarray(rows, np.int64)] = False
    return left
