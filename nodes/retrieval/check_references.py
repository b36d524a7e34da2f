"""Check Against References: how like a picture is to the photos it was made with, and whether it is nearly a copy."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ...realrag.contact_sheet import Cell, Row, sheet
from ...realrag.likeness import likeness, report
from ..compat import supported_keywords
from ..images import to_pil
from ..input_check import checked
from ..progress import show_text
from ..sockets import ReferencesSocket, RetrieverSocket
from .load_retriever import ManagedRetriever

WARNING, PLAIN = (200, 60, 40), (210, 210, 205)


class CheckAgainstReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_CheckReferences",
            display_name="Check Against References",
            category="RealRAG",
            description="Compares a finished picture with the photos it was made with: how alike they look to the library's "
            "encoder, and whether the picture is nearly a copy of one.",
            inputs=[
                RetrieverSocket.Input("retriever", tooltip="The library that the references come from."),
                ReferencesSocket.Input("references", tooltip="The references that the picture was made with."),
                io.Image.Input("image", tooltip="The finished picture. The first of a batch counts."),
            ],
            outputs=[
                io.String.Output(
                    display_name="report",
                    tooltip="A line for each reference: likeness in look (cosine) and in layout (correlation). A warning where "
                    "the picture is nearly a copy.",
                ),
                io.Image.Output(display_name="sheet", tooltip="The picture beside its references."),
                io.Float.Output(
                    display_name="likeness", tooltip="The highest likeness in look; -1 without references."
                ),
                io.Boolean.Output(
                    display_name="near_copy", tooltip="True where the picture is nearly a copy of a reference."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **supported_keywords(io.Schema, search_aliases=["similarity", "compare", "copy check"]),
        )

    @classmethod
    @checked
    def execute(cls, retriever: ManagedRetriever, references, image: Tensor) -> io.NodeOutput:
        picture = to_pil(image)
        found = likeness(retriever.load(), picture, references.items)
        cells = [Cell(picture, "the picture")] + [
            Cell(
                each.reference.image,
                f"{rank}. looks {each.look:.2f}, layout {each.layout:.2f}\n{each.reference.credit()[:60]}",
                WARNING if each.nearly_copied else PLAIN,
            )
            for rank, each in enumerate(found, 1)
        ]
        pixels = np.asarray(sheet([Row(cells[at : at + 5]) for at in range(0, len(cells), 5)]), np.float32) / 255
        text = report(found)
        show_text(text, cls.hidden)
        return io.NodeOutput(
            text,
            torch.from_numpy(pixels)[None],
            max((each.look for each in found), default=-1.0),
            any(each.nearly_copied for each in found),
        )
