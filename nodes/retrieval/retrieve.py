"""Retrieve Real References: a prompt, a picture or both -> ranked real photos, shown in the node."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ...realrag.bundle.head_entries import AUTO
from ...realrag.bundle.records import Filters
from ...realrag.choosing import MAX_PAGE
from ...realrag.errors import QueryError
from ...realrag.injection.drawn_masks import read_masks, with_masks
from ...realrag.search.hybrid import BOTH, LOOK, NAME
from ..compat import folded, supported_keywords
from ..images import to_pil
from ..input_check import checked
from ..sockets import ReferencesSocket, RetrieverSocket
from .load_retriever import ManagedRetriever
from .preview import shown

LEAVE_OUT, KEEP = "leave out", "keep"


def words(text: str) -> tuple[str, ...]:
    """A list as artists write it, by commas or lines -> its items."""
    return tuple(item.strip() for line in text.splitlines() for item in line.split(",") if item.strip())


def text_of(name: str, value: str | None) -> str:
    """A text widget's value. Another node may be linked to it and give anything: None counts as empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise QueryError(f"{name} is {str(value)[:80]!r}, a {type(value).__name__}; connect a text.")
    return value


def score_bound(min_score: float, doubt: str | None) -> float | str | None:
    """min_score as `Retriever.search` takes it: a number counts, and 0 leaves the choice to the widget `doubt`."""
    if doubt not in (LEAVE_OUT, KEEP, None):
        raise QueryError(f"doubt is {str(doubt)[:80]!r}; choose {LEAVE_OUT!r} or {KEEP!r}.")
    return min_score or (None if doubt == KEEP else AUTO)


class RetrieveRealReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_RetrieveReferences",
            display_name="Retrieve Real References",
            category="RealRAG",
            description="Finds the real photos in the library that match your prompt best, and shows them ranked, "
            "best first. If nothing fits, the picture is made without references.",
            inputs=[
                RetrieverSocket.Input("retriever", tooltip="A photo library from Load Reflective Retriever."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    placeholder="what the photos should show",
                    tooltip="Your image prompt, or just its subject, in plain words. The search uses it when look_for is "
                    "empty. It may stay empty when a picture is connected.",
                ),
                io.Int.Input(
                    "top_k", default=4, min=1, max=64, tooltip="How many photos to return at most. 1 to 4 works well."
                ),
                io.Float.Input(
                    "min_score",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Leaves out photos that score less than this. At 0, doubt decides instead. "
                    "Scores differ between libraries: compare those under the photos.",
                ),
                io.Float.Input(
                    "diversity",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0 takes the best matches, even if they look alike. Higher values prefer photos that differ "
                    "from each other.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture to search with, alone or together with the prompt. The first of a batch counts.",
                ),
                *folded(
                    io.String.Input(
                        "class_filter",
                        optional=True,
                        default="",
                        tooltip="Only photos of these classes, separated by commas. Empty: all classes.",
                    ),
                    io.String.Input(
                        "licence_filter",
                        optional=True,
                        default="",
                        tooltip="Only photos under these licenses, separated by commas, such as: CC0-1.0, MIT. Empty: all.",
                    ),
                    io.String.Input(
                        "include_ids",
                        optional=True,
                        default="",
                        tooltip="Only these photos, by their ids in the scores text, separated by commas. "
                        "To have photos first and others after them, use pinned.",
                    ),
                    io.String.Input(
                        "exclude_ids",
                        optional=True,
                        default="",
                        tooltip="Never these photos, by their ids in the scores text, separated by commas.",
                    ),
                ),
                io.String.Input(
                    "look_for",
                    optional=True,
                    multiline=True,
                    default="",
                    placeholder="look for (empty: the prompt)",
                    tooltip="Searches for this text instead of the prompt: write the subject alone, one object per line. "
                    'Empty: the prompt, without weights, tags and quality words. "without bananas" excludes bananas.',
                ),
                io.Combo.Input(
                    "find_by",
                    options=[BOTH, NAME, LOOK],
                    default=BOTH,
                    optional=True,
                    tooltip="both: photos of a class that the prompt names come first, then the best matches by caption and "
                    "by look. name: class names and captions only. look: the picture content only, as in older versions.",
                ),
                io.Combo.Input(
                    "doubt",
                    options=[LEAVE_OUT, KEEP],
                    default=LEAVE_OUT,
                    optional=True,
                    tooltip="leave out: drops photos that match no better than unrelated text does, so an absent subject "
                    "gives no photos. keep: shows them anyway. Applies to photos found by look, while min_score is 0.",
                ),
                *folded(
                    io.String.Input(
                        "pinned",
                        optional=True,
                        default="",
                        tooltip="These photos come first whatever they score, by their ids, separated by commas. "
                        "The pin on a card writes here; the ban writes to exclude_ids.",
                    ),
                    io.Int.Input(
                        "page",
                        optional=True,
                        default=1,
                        min=1,
                        max=MAX_PAGE,
                        tooltip="1 takes the best photos, 2 those after them, and so on. Pinned photos stay on every page.",
                    ),
                    io.String.Input(
                        "masks",
                        optional=True,
                        default="",
                        tooltip="Where in the new picture single photos count, as drawn with Mask on their cards.",
                    ),
                ),
            ],
            outputs=[
                ReferencesSocket.Output(
                    display_name="references",
                    tooltip="The photos with their scores and credits, for Inject References.",
                ),
                io.Image.Output(
                    display_name="images",
                    tooltip="The photos as one batch, with gray borders to a common size, for any other node.",
                ),
                io.String.Output(
                    display_name="scores",
                    tooltip="Rank, score, id and caption of each photo, how it was found, and for which object; "
                    "then notes, such as unknown words.",
                ),
                io.String.Output(
                    display_name="credits",
                    tooltip="The author and license of each photo. Keep it with pictures that you publish.",
                ),
                io.Boolean.Output(
                    display_name="found",
                    tooltip="True if there are references, for a switch: Inject References passes the model through without.",
                ),
                io.Float.Output(
                    display_name="best_score",
                    tooltip="The best score, also of photos that were left out; -1 without any.",
                ),
            ],
            is_output_node=True,  # it shows photos, also with nothing behind it: to look before a picture is made
            # the photos stay in the node when a run takes them from the cache
            **supported_keywords(
                io.Schema,
                has_intermediate_output=True,
                search_aliases=["real photo", "reference photos", "real images", "image search", "photo search", "rag"],
            ),
        )

    @classmethod
    @checked
    def execute(
        cls,
        retriever: ManagedRetriever,
        prompt: str,
        top_k: int,
        min_score: float,
        diversity: float,
        image: Tensor | None = None,
        class_filter: str = "",
        licence_filter: str = "",
        include_ids: str = "",
        exclude_ids: str = "",
        look_for: str = "",
        find_by: str | None = BOTH,
        doubt: str | None = LEAVE_OUT,
        pinned: str = "",
        page: int = 1,
        masks: str = "",
    ) -> io.NodeOutput:
        subject, drawn = text_of("look_for", look_for), read_masks(text_of("masks", masks))
        references = retriever.search(
            subject if subject.strip() else text_of("prompt", prompt),
            image=None if image is None else to_pil(image),
            k=top_k,
            min_score=score_bound(min_score, doubt),
            find_by=BOTH if find_by is None else find_by,
            diversity=diversity,
            filters=Filters(
                words(text_of("class_filter", class_filter)),
                words(text_of("licence_filter", licence_filter)),
                words(text_of("include_ids", include_ids)),
                words(text_of("exclude_ids", exclude_ids)),
            ),
            pinned=words(text_of("pinned", pinned)),
            page=page,
        )
        references = with_masks(references, drawn)
        return io.NodeOutput(
            references,
            references.batch(),
            references.scores_text(),
            references.credits_text(),
            bool(references.items),
            max([references.best, *(item.score for item in references.items)]),
            ui=shown(references),
        )
