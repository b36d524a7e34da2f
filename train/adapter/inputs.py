"""The inputs of a generator beside noise: latents of pictures and states of sentences, from frozen networks."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from realrag.encoders.base import Encoder
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes
from realrag.native_bf16 import bf16_autocast

from ..miniature.features import weights_key
from .bases import PRECISIONS


class Inputs(Protocol):
    key: str  # equal keys, equal latents
    words_key: str  # equal keys, equal states

    def latents(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) in 0..1 -> (B, C, S/8, S/8) in the generator's latent space."""

    def texts(self, sentences: list[str]) -> tuple[Tensor, Tensor]:
        """B sentences -> states (B, T, D) and pooled (B, P); the empty sentence is the unconditional input."""


class MiniatureInputs:
    def __init__(self, autoencoder: nn.Module, encoder: Encoder):
        self.autoencoder, self.encoder = autoencoder, encoder
        self.key, self.words_key = weights_key(autoencoder.taesd_encoder), encoder.weights_sha256[:12]

    @torch.no_grad()
    def latents(self, pixels: Tensor) -> Tensor:
        with bf16_autocast("cpu"):  # the precision of the latents that the generator was trained on
            return self.autoencoder.encode(pixels).float()

    def texts(self, sentences: list[str]) -> tuple[Tensor, Tensor]:
        from realrag.miniature.text import encode_prompts

        return encode_prompts(self.encoder.towers.text, sentences)


class DiffusersInputs:
    """The other parts of a saved pipeline. Sentences are encoded once, so its text encoders are needed for minutes only."""

    def __init__(self, pipeline, key: str, words_key: str):
        self.pipeline, self.key, self.words_key = pipeline, key, words_key

    @classmethod
    def load(cls, path: Path, precision: str, device: str) -> DiffusersInputs:
        try:
            from diffusers import DiffusionPipeline
        except ImportError:
            raise RealRAGError("This base needs diffusers: pip install realrag[generate].") from None
        pipeline = DiffusionPipeline.from_pretrained(
            str(path), transformer=None, torch_dtype=PRECISIONS[precision], local_files_only=True
        )
        pipeline.vae.to(torch.float32)
        # Text encoders have gigabytes, so the names and sizes of their files identify them.
        files = [file for part in ("text_encoder*", "tokenizer*") for file in sorted(Path(path).glob(f"{part}/*"))]
        words = [[file.parent.name, file.name, file.stat().st_size] for file in files]
        return cls(pipeline.to(device), weights_key(pipeline.vae), sha256_bytes(canonical_json(words))[:12])

    @torch.no_grad()
    def latents(self, pixels: Tensor) -> Tensor:
        vae = self.pipeline.vae
        found = vae.encode(2 * pixels.to(vae.device) - 1).latent_dist.mode()
        return ((found - vae.config.shift_factor) * vae.config.scaling_factor).cpu()

    @torch.no_grad()
    def texts(self, sentences: list[str]) -> tuple[Tensor, Tensor]:
        if hasattr(self.pipeline, "text_encoder_3"):  # SD3
            states, _, pooled, _ = self.pipeline.encode_prompt(sentences, None, None, do_classifier_free_guidance=False)
        else:
            states, pooled, _ = self.pipeline.encode_prompt(sentences, None)
        return states.float().cpu(), pooled.float().cpu()
