"""Load Miniature: the small generators that come with RealRAG, as MODEL, CLIP and VAE for ComfyUI's own nodes."""

from __future__ import annotations

from comfy_api.latest import io

from ...realrag.encoders.load import load_encoder
from ...realrag.encoders.small import SMALL
from ...realrag.errors import RealRAGError
from ...realrag.miniature.files import NAMES, autoencoder_file, check_there, families_there, generator_file
from ..compat import supported_keywords
from ..folders import file_stamp
from ..input_check import checked
from ..retrieval.clip_vision import RetrieverVision, ShippedEncoder
from .clip import clip
from .model import autoencoder, generator


class LoadMiniature(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_LoadMiniature",
            display_name="Load Miniature",
            category="RealRAG",
            description="Loads a miniature SD3 or Flux that comes with RealRAG, so that the whole way from prompt to "
            "picture works with no download. It paints groceries and a few other things at 128 x 128 pixels.",
            inputs=[
                io.Combo.Input(
                    "family",
                    options=families_there(),
                    tooltip="Both are built like the real ones, at a thousandth of their size: the same graph "
                    "works with the real ones.",
                )
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The generator, for Inject References or a sampler."),
                io.Clip.Output(display_name="clip", tooltip="The text encoder, for CLIP Text Encode."),
                io.Vae.Output(display_name="vae", tooltip="The autoencoder of this family, for VAE Decode."),
                io.ClipVision.Output(
                    display_name="clip_vision",
                    tooltip="The image encoder that the miniatures' adapters see through, for Inject References, whatever "
                    "encoder your library was made with.",
                ),
            ],
            **supported_keywords(
                io.Schema, search_aliases=["demo model", "tiny sd3", "tiny flux", "small model", "no download"]
            ),
        )

    @classmethod
    def validate_inputs(cls, family: str | None = None) -> bool | str:
        """Refuse an unknown name, or one whose files are missing, before anything runs. None: another node gives it."""
        if family is None:
            return True
        if family not in NAMES:
            return f"No miniature is called {family!r}; there are {' and '.join(NAMES)}."
        try:
            return bool(check_there(generator_file(NAMES[family])) and check_there(autoencoder_file()))
        except RealRAGError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, family: str | None = None) -> list[tuple]:
        """Load again when a file has changed."""
        return [file_stamp(lambda: generator_file(NAMES[family])), file_stamp(autoencoder_file)]

    @classmethod
    @checked
    def execute(cls, family: str) -> io.NodeOutput:
        if family not in NAMES:
            raise RealRAGError(f"No miniature is called {family!r}; there are {' and '.join(NAMES)}.")
        model = generator(check_there(generator_file(NAMES[family])))
        vae = autoencoder(check_there(autoencoder_file()), model.model.latent_format)
        return io.NodeOutput(model, clip(), vae, RetrieverVision(ShippedEncoder(load_encoder(SMALL))))
