"""Encoder + head + bundle + index: a prompt, a picture or both -> real photos, ranked."""

from __future__ import annotations

from collections.abc import Sequence

from .answer import Asking
from .bundle.head_entries import AUTO
from .bundle.records import Filters
from .choosing import MAX_K, MAX_PAGE, Chooser, pinned_rows
from .errors import QueryError
from .library import Library, own_encoder, shipped_bundle
from .references import References
from .search.hybrid import BOTH, LOOK, NAME

__all__ = ["Retriever", "own_encoder", "shipped_bundle"]

NO_WORDS = "This library's encoder reads no words: photos are found by name and caption, or with a picture."


class Retriever(Library):
    """Answers questions about one bundle. Build it with `Retriever.open`."""

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
        pinned: Sequence[str] = (),
        page: int = 1,
    ) -> list[References]:
        """For each text the k best photos, best first.

        find_by: "both" ranks photos of a class that the text names first, then captions and look together; "name" takes
        what names and captions find; "look" compares the text as it stands with the photos, and nothing else.
        image: PIL picture that joins every text. min_score: cosine below which a photo is no answer, -1..1, or None; "auto"
        leaves out photos found by look below the library's own `level`. diversity: 0 ranks by score alone, up to 1
        prefers photos unlike those already chosen (MMR). Near-duplicates of a better answer come only when there is
        nothing else. pinned: ids of photos that come first whatever they score, unless a filter leaves them out; `page` 2
        fills the other places with the photos after those of page 1, and so on. Fewer than k is no error; the answer's
        `note` says why. Raises QueryError.
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
        if isinstance(page, bool) or not isinstance(page, int) or not 1 <= page <= MAX_PAGE:
            raise QueryError(f"page is {page!r}; it goes from 1, the best photos, to {MAX_PAGE}.")
        allowed, note = self.bundle.records.mask(filters)
        rows, not_there = pinned_rows(self.bundle.records, pinned, allowed, k)
        note = f"{note} {not_there}".strip()
        if not self.encoder.has_text_tower and find_by == BOTH and any(text.strip() for text in texts):
            note = f"{note} {NO_WORDS}".strip()
            find_by = NAME if image is None else BOTH
        if filters.include_ids and min_score == AUTO:
            min_score = None  # photos that somebody has chosen are beyond doubt
        chooser = Chooser(self.vectors, k, min_score, diversity, rows, page)
        asking = Asking(self, image, image_weight, find_by, allowed, note, chooser)
        if find_by == LOOK or not any(text.strip() for text in texts):
            return asking.by_look(texts)
        return [asking.answer(text) if text.strip() else asking.by_look([text])[0] for text in texts]
