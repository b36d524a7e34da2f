"""Edit References: weight, mask, window and side of one reference or of all, kept with them for Inject References."""

from __future__ import annotations

from comfy_api.latest import io

from ...realrag.injection.reference_settings import edit
from ..sockets import ReferencesSocket


class EditReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        percent = dict(min=0.0, max=1.0, step=0.01)
        return io.Schema(
            node_id="RealRAG_EditReferences",
            display_name="Edit References",
            category="RealRAG",
            description="Sets how much, where and when one retrieved photo counts, or all of them. Chain several of "
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
                io.Float.Input(
                    "start_percent", default=0.0, **percent, tooltip="When in the sampling this photo comes in."
                ),
                io.Float.Input("end_percent", default=1.0, **percent, tooltip="When it leaves again."),
                io.Boolean.Input(
                    "negative",
                    default=False,
                    tooltip="Show it to the negative prompt instead: the picture moves away from it. "
                    "Works where CFG is above 1.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where in the new picture it counts; white is full. For all photos a batch of masks gives "
                    "each its own, in order of rank.",
                ),
                io.String.Input(
                    "object",
                    optional=True,
                    default="",
                    tooltip="Only the photos of this object, where the prompt names several: lemon. Ranks then count within "
                    "it, so a mask can say where the lemon goes. Empty: the photos of all objects.",
                ),
            ],
            outputs=[
                ReferencesSocket.Output(display_name="references", tooltip="For Inject References."),
                io.String.Output(display_name="settings", tooltip="What is now set for each photo."),
            ],
        )

    @classmethod
    def execute(
        cls,
        references,
        rank: int,
        weight: float,
        start_percent: float,
        end_percent: float,
        negative: bool,
        mask=None,
        object: str = "",
    ) -> io.NodeOutput:
        if not references.items:  # nothing was found: the note of why travels on
            return io.NodeOutput(references, references.note or "There are no references.")
        if mask is not None and mask.ndim == 2:
            mask = mask[None]
        edited = edit(
            references, rank, mask, object, weight=weight, start=start_percent, end=end_percent, negative=negative
        )
        lines = [
            f"{number}. {item.settings.describe() or 'plain'}  {item.caption or item.id}"
            for number, item in enumerate(edited.items, 1)
        ]
        return io.NodeOutput(edited, "\n".join(lines))
