"""Edit References: weight, mask, window and side of one reference or of all, kept with them for Inject References."""

from __future__ import annotations

from comfy_api.latest import io

from ...realrag.injection.reference_settings import edit
from ..compat import folded, supported_keywords
from ..input_check import checked
from ..sockets import ReferencesSocket
from .retrieve import text_of


class EditReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        percent = dict(min=0.0, max=1.0, step=0.01)
        return io.Schema(
            node_id="RealRAG_EditReferences",
            display_name="Edit References",
            category="RealRAG",
            description="Sets the weight, place and time range of one retrieved photo, or of all. Chain several of "
            "these nodes to set photos one by one.",
            inputs=[
                ReferencesSocket.Input("references", tooltip="From Retrieve Real References, or Edit References."),
                io.Int.Input(
                    "rank", default=1, min=0, max=64, tooltip="Which photo: 1 is the best match, 0 means all of them."
                ),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="1 is plain, 2 counts as if the photo were there twice, 0 leaves it out.",
                ),
                *folded(
                    io.Float.Input(
                        "start_percent",
                        default=0.0,
                        **percent,
                        tooltip="The point in sampling at which this photo starts.",
                    ),
                    io.Float.Input(
                        "end_percent", default=1.0, **percent, tooltip="The point in sampling at which it ends."
                    ),
                ),
                io.Boolean.Input(
                    "negative",
                    default=False,
                    tooltip="Show it to the negative prompt instead: the picture moves away from it. "
                    "Works where CFG is above 1.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The part of the new picture in which it counts; white is full weight. With rank 0, a batch of "
                    "masks gives each photo its own, in order of rank.",
                ),
                io.String.Input(
                    "object",
                    optional=True,
                    default="",
                    tooltip="If the prompt names several objects: edits only the photos of this one, such as lemon. "
                    "rank then counts within it. Add a mask to place the lemon. Empty: the photos of all objects.",
                ),
            ],
            outputs=[
                ReferencesSocket.Output(display_name="references", tooltip="For Inject References."),
                io.String.Output(display_name="settings", tooltip="The settings of each photo."),
            ],
            **supported_keywords(
                io.Schema, search_aliases=["reference weight", "reference mask", "regional reference", "ipadapter mask"]
            ),
        )

    @classmethod
    @checked
    def execute(
        cls,
        references,
        rank: int,
        weight: float,
        start_percent: float,
        end_percent: float,
        negative: bool,
        mask=None,
        object: str | None = "",
    ) -> io.NodeOutput:
        if not references.items:  # nothing was found: the note of why travels on
            return io.NodeOutput(references, references.note or "There are no references.")
        if mask is not None and mask.ndim == 2:
            mask = mask[None]
        edited = edit(
            references,
            rank,
            mask,
            text_of("object", object),
            weight=weight,
            start=start_percent,
            end=end_percent,
            negative=negative,
        )
        lines = [
            f"{number}. {item.settings.describe() or 'plain'}  {item.caption or item.id}"
            + (f"  [{item.object}]" if item.object else "")
            for number, item in enumerate(edited.items, 1)
        ]
        return io.NodeOutput(edited, "\n".join(lines))
