"""Retrieve Real References: a prompt, a picture or both -> ranked real photos, shown in the node."""

from __future__ import annotations

import numpy as np
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ...realrag.bundle.head_entries import AUTO
from ...realrag.bundle.records import Filters
from ...realrag.search.hybrid import BOTH, LOOK, NAME
from ..compat import supported_keywords
from ..images import rgb
from ..sockets import ReferencesSocket, RetrieverSocket
from .load_retriever import ManagedRetriever
from .preview import labelled, shown_in_node

LEAVE_OUT, KEEP = "leave out", "keep"


def words(text: str) -> tuple[str, ...]:
    """A list as artists write it, by commas or lines -> its items."""
    return tuple(item.strip() for line in text.splitlines() for item in line.split(",") if item.strip())


def to_pil(image: Tensor) -> Image.Image:
    """The first picture of an IMAGE (B, H, W, C) in 0..1 -> RGB."""
    pixels = (rgb(image[0]).clamp(0, 1) * 255).round().to("cpu").numpy().astype(np.uint8)
    return Image.fromarray(pixels)


class RetrieveRealReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        rare = supported_keywords(io.String.Input, advanced=True)
        return io.Schema(
            node_id="RealRAG_RetrieveReferences",
            display_name="Retrieve Real References",
            category="RealRAG",
            description="Finds the real photos in the library that fit your prompt best, and shows them ranked, "
            "best first. Finding none is fine: the picture is then made without references.",
            inputs=[
                RetrieverSocket.Input("retriever", tooltip="A photo library from Load Reflective Retriever."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    placeholder="what the photos should show",
                    tooltip="What the photos should show, in plain words: your image prompt, or just its subject. "
                    "May stay empty when a picture is connected.",
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
                    tooltip="Leave out photos that score less than this. 0 leaves the choice to the library's own measured "
                    "score, see doubt. Scores differ between libraries: look at those under the photos.",
                ),
                io.Float.Input(
                    "diversity",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0 takes the best matches however alike they are. Higher values prefer photos that differ "
                    "from each other.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture to search with, alone or together with the prompt. The first of a batch counts.",
                ),
                io.String.Input(
                    "class_filter",
                    optional=True,
                    default="",
                    **rare,
                    tooltip="Only photos of these classes, separated by commas. Empty: all classes.",
                ),
                io.String.Input(
                    "licence_filter",
                    optional=True,
                    default="",
                    **rare,
                    tooltip="Only photos under these licences, separated by commas, such as: CC0-1.0, MIT. Empty: all.",
                ),
                io.String.Input(
                    "include_ids",
                    optional=True,
                    default="",
                    **rare,
                    tooltip="Only these photos, by their ids in the scores text, separated by commas: "
                    "pins what you have chosen.",
                ),
                io.String.Input(
                    "exclude_ids",
                    optional=True,
                    default="",
                    **rare,
                    tooltip="Never these photos, by their ids in the scores text, separated by commas.",
                ),
                io.String.Input(
                    "look_for",
                    optional=True,
                    multiline=True,
                    default="",
                    placeholder="look for (empty: the prompt)",
                    tooltip="What to look for, where that is not the whole prompt: just the subject, one object a line. "
                    'Empty: the prompt, without weights, tags and quality words. "without bananas" leaves those out.',
                ),
                io.Combo.Input(
                    "find_by",
                    options=[BOTH, NAME, LOOK],
                    default=BOTH,
                    optional=True,
                    tooltip="both: photos of a class that the prompt names come first, then those that fit by caption and by "
                    "look. name: names and captions only. look: only how the photos look, as older versions did.",
                ),
                io.Combo.Input(
                    "doubt",
                    options=[LEAVE_OUT, KEEP],
                    default=LEAVE_OUT,
                    optional=True,
                    tooltip="What to do with photos that fit no better than unrelated things would: the library has a score "
                    "measured for that. It counts while min_score is 0 and for photos found by look alone.",
                ),
            ],
            outputs=[
                ReferencesSocket.Output(
                    display_name="references",
                    tooltip="The photos with their scores and credits, for Inject References.",
                ),
                io.Image.Output(
                    display_name="images",
                    tooltip="The photos as one batch, with grey borders to a common size, for any other node.",
                ),
                io.String.Output(
                    display_name="scores",
                    tooltip="Rank, score, id and caption of each photo, and how it was found; then what there is to say.",
                ),
                io.String.Output(
                    display_name="credits",
                    tooltip="Whose photos these are and under which licence. Keep it with pictures that you publish.",
                ),
            ],
            # the photos stay in the node when a run takes them from the cache
            **supported_keywords(
                io.Schema, has_intermediate_output=True, search_aliases=["reference photos", "real images", "rag"]
            ),
        )

    @classmethod
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
        find_by: str = BOTH,
        doubt: str = LEAVE_OUT,
    ) -> io.NodeOutput:
        references = retriever.search(
            look_for if look_for.strip() else prompt,
            image=None if image is None else to_pil(image),
            k=top_k,
            min_score=min_score or (AUTO if doubt == LEAVE_OUT else None),
            find_by=find_by,
            diversity=diversity,
            filters=Filters(words(class_filter), words(licence_filter), words(include_ids), words(exclude_ids)),
        )
        return io.NodeOutput(
            references,
            references.batch(),
            references.scores_text(),
            references.credits_text(),
            ui=shown_in_node(labelled(references)),
        )
