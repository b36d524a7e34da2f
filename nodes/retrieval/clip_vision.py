"""An image encoder of ours, a retriever's or a shipped one, as a CLIP_VISION, for adapters that were trained on it."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.model_management as management
import torch
from PIL import Image
from torch import Tensor

from ..compat import managed_patcher
from ..images import rgb


class ShippedEncoder:
    """An encoder that comes with RealRAG, in ComfyUI's care, without a library: for adapters that were trained on it."""

    def __init__(self, encoder):
        self.encoder, self.retriever = encoder, self
        device = management.text_encoder_device()
        self.patcher = managed_patcher(encoder, device, management.text_encoder_offload_device())

    def load(self):
        management.load_models_gpu([self.patcher])
        return self.encoder


class RetrieverVision:
    """Stands where a CLIP Vision model goes. Pictures are always prepared as the retriever's encoder was trained."""

    def __init__(self, managed):
        self.managed = managed

    @property
    def weights_sha256(self) -> str:
        """How an adapter names the encoder that it was trained on."""
        return self.managed.retriever.encoder.adapter_sha256

    @property
    def plain_sha256(self) -> str:
        """How adapters of earlier versions named it: by its weights alone."""
        return self.managed.retriever.encoder.weights_sha256

    def encode_image(self, image: Tensor, crop: bool = True) -> SimpleNamespace:
        """(B, H, W, 3) in 0..1 -> image_embeds (B, D), as the encoder gives them (not of unit length), and the hidden
        states (B, L, E) behind its last block but one and its last, where it has them."""
        encoder = self.managed.load()
        management.throw_exception_if_processing_interrupted()
        pictures = (rgb(image).clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()
        seen = encoder.encode_features(torch.stack([encoder.prepare(Image.fromarray(picture)) for picture in pictures]))
        return SimpleNamespace(
            image_embeds=seen.embeds, penultimate_hidden_states=seen.penultimate, last_hidden_state=seen.last
        )
