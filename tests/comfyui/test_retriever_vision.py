"""A retriever's own image encoder in the place of a CLIP Vision model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from injection_world import DIALS, photo, synthetic


class Encoder(torch.nn.Module):
    """24 numbers off a picture of 8 x 8."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(24, 192, generator=torch.Generator().manual_seed(1)))

    def prepare(self, image):
        import numpy

        return torch.from_numpy(numpy.array(image.resize((8, 8)))).permute(2, 0, 1)

    def encode_features(self, pixels):
        embeds = pixels.flatten(1).float() @ self.weight.T / 2550
        return SimpleNamespace(embeds=embeds, penultimate=None, last=None)


@pytest.fixture
def vision(world):
    import comfy.model_management as management
    from comfy.model_patcher import ModelPatcher

    load = world.plugin("nodes.retrieval.load_retriever")
    managed = load.ManagedRetriever.__new__(load.ManagedRetriever)
    managed.retriever = type("Retriever", (), {"encoder": Encoder()})()
    managed.patcher = ModelPatcher(
        managed.retriever.encoder, management.get_torch_device(), management.unet_offload_device()
    )
    return world.plugin("nodes.retrieval.clip_vision").RetrieverVision(managed)


def test_an_adapter_sees_through_the_retrievers_encoder(world, vision):
    import comfy.model_management as management

    flux, adapter = world.models["flux"], world.adapter("flux")
    pictures = [
        world.call(
            world.inject.InjectReferences.execute(
                flux, image=photo(seed), adapter=adapter, clip_vision=vision, **DIALS
            ).result[0]
        )
        for seed in (1, 2, 1)
    ]
    assert torch.equal(pictures[0], pictures[2]) and not torch.equal(pictures[0], pictures[1])
    assert vision.managed.patcher in [loaded.model for loaded in management.current_loaded_models]


def test_its_embedding_is_that_of_the_encoder_for_pictures_with_and_without_alpha(vision):
    image = (photo(1) * 255).round() / 255
    seen = vision.encode_image(torch.cat((image, torch.zeros(1, 48, 64, 1)), -1)).image_embeds
    assert seen.shape == (1, 24) and torch.equal(seen, vision.encode_image(image, crop=False).image_embeds)


def test_an_adapter_that_reads_hidden_states_says_what_to_load(world, vision):
    for kind, words in (("sd35", "penultimate_hidden_states, which this retriever's image encoder"),):
        with pytest.raises(world.adapter_error, match=words):
            world.inject.InjectReferences.execute(
                world.models[kind], image=photo(1), adapter=world.adapter(kind), clip_vision=vision, **DIALS
            )
    adapter = world.plugin("realrag.adapters").build_adapter(synthetic.instantx_flux())
    head = world.plugin("realrag.adapters.siglip_pooling_head").MapHead(
        {key.removeprefix("vision_model.head."): t for key, t in synthetic.map_head().items()}
    )
    managed = world.plugin("nodes.injection.load_adapter").ManagedAdapter.of(adapter, head)
    with pytest.raises(world.adapter_error, match="reads the pooled output"):
        world.inject.InjectReferences.execute(
            world.models["flux"], image=photo(1), adapter=managed, clip_vision=vision, **DIALS
        )
