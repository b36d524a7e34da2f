"""Add Credits: the authors and licenses of the references travel in the metadata of the picture that is saved next."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
from comfy_api.latest import io
from torch import Tensor

from ...realrag.credits.record import PictureCredit, add, of_references, of_titles, pixel_hash, text_of
from ...realrag.injection.reference_pack import ReferencePack
from ...realrag.references import References
from ..compat import supported_keywords
from ..input_check import checked
from ..sockets import PackSocket, ReferencesSocket
from .prompt_metadata import NODE


class AddCredits(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=NODE,
            display_name="Add Credits",
            category="RealRAG",
            description="Put it between VAE Decode and Save Image. The saved file then names the photos that steered it, with "
            "authors, licenses and sources. The picture itself passes through unchanged.",
            inputs=[
                io.Image.Input("images", tooltip="The finished pictures, from VAE Decode."),
                ReferencesSocket.Input(
                    "references",
                    optional=True,
                    tooltip="The references that went into Inject References. For a second set, chain another Add Credits.",
                ),
                PackSocket.Input("pack", optional=True, tooltip="The pack that went into Inject References, if you use one."),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The same pictures, for Save Image or any other saving node."),
                io.String.Output(display_name="credits", tooltip="The credits as text: one line for each photo."),
            ],
            hidden=[io.Hidden.extra_pnginfo],
            **supported_keywords(
                io.Schema, search_aliases=["credits", "attribution", "license", "metadata", "author", "save image"]
            ),
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **_inputs) -> str:
        """Run in every prompt: each has metadata of its own, and a cached node could write nothing into it."""
        return uuid4().hex  # a text, as ComfyUI saves it with the prompt, where JSON has no NaN

    @classmethod
    @checked
    def execute(
        cls, images: Tensor, references: References | None = None, pack: ReferencePack | None = None
    ) -> io.NodeOutput:
        metadata = getattr(cls.hidden, "extra_pnginfo", None)
        credits = [of_references(references)] if references is not None else []
        if pack is not None:
            credits.append(of_titles(item.title for item in pack.items if item.settings.weight))
        credits = [credit for credit in credits if credit.references]
        if isinstance(metadata, dict) and credits:
            hashes = pixel_hashes(images)
            for credit in credits:
                add(metadata, PictureCredit(credit.references, credit.bundle, hashes))
        text = text_of([photo for credit in credits for photo in credit.references])
        return io.NodeOutput(images, text or getattr(references, "note", "") or "There are no references to credit.")


def pixel_hashes(images: Tensor) -> tuple[str, ...]:
    """Of each RGB picture (B, H, W, 3), as core's Save Image rounds it to 8 bits."""
    if images.shape[-1] != 3:
        return ()
    return tuple(pixel_hash(np.clip(255.0 * image.cpu().numpy(), 0, 255).astype(np.uint8)) for image in images)
