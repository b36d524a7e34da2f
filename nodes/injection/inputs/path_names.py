"""The names of the paths that references can take into a model, as saved graphs hold them."""

from __future__ import annotations

AUTO, ADAPTER, LATENTS, EMBEDS, SHARED, INITIAL = (
    "auto",
    "adapter",
    "reference latents",
    "image embeddings",
    "shared attention",
    "initial latents",
)


PATHS = [AUTO, ADAPTER, LATENTS, EMBEDS, SHARED, INITIAL]
