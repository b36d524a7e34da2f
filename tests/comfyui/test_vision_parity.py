"""What adapters are shown, down to the picture's preparation: ComfyUI's CLIP Vision against transformers, same weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from controls_world import retrieved
from injection_world import photo

transformers = pytest.importorskip("transformers")
TIGHT = 1e-5
SMALL = dict(
    hidden_size=128, intermediate_size=96, num_attention_heads=2, num_hidden_layers=4, image_size=28, patch_size=7,
    num_channels=3,
)  # fmt: skip
CLIP = dict(
    mean=[0.48145466, 0.4578275, 0.40821073], std=[0.26862954, 0.26130258, 0.27577711]
)  # as in CLIP's own files
SIGLIP = dict(mean=[0.5] * 3, std=[0.5] * 3)


def ours(tmp_path, reference, numbers, prepared, **config):
    """ComfyUI's own CLIP Vision with the weights of the transformers model."""
    import comfy.clip_vision

    path = tmp_path / "vision.json"
    path.write_text(json.dumps({**numbers, **{f"image_{k}": v for k, v in prepared.items()}, **config}))
    vision = comfy.clip_vision.ClipVisionModel(str(path))
    vision.model.float()
    missing, _ = vision.load_sd({key: tensor.clone() for key, tensor in reference.state_dict().items()})
    assert not missing
    return vision


def random(model):
    torch.manual_seed(3)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model.float().eval()


def pixels(image, prepared):
    """(1, H, W, 3) of the encoder's own size: nothing is resized, so this is the whole preparation."""
    mean, std = (torch.tensor(prepared[key])[None, :, None, None] for key in ("mean", "std"))
    return ((image.movedim(-1, 1) * 255).round() / 255 - mean) / std


def near(found, wanted):
    assert found.shape == wanted.shape and (found - wanted).norm() / wanted.norm() < TIGHT


@pytest.fixture
def clip(world):
    from transformers.models.clip import modeling_clip

    config = modeling_clip.CLIPVisionConfig(**SMALL, projection_dim=24, hidden_act="quick_gelu")
    return random(modeling_clip.CLIPVisionModelWithProjection(config))


def test_clip_image_embeds_are_those_of_transformers(world, tmp_path, clip):
    """What Flux XLabs reads."""
    kind = dict(model_type="clip_vision_model", projection_dim=24, hidden_act="quick_gelu")
    vision, image = ours(tmp_path, clip, SMALL, CLIP, **kind), photo(1, 28, 28)
    found, wanted = vision.encode_image(image, crop=True), clip(pixels(image, CLIP), output_hidden_states=True)
    near(found.image_embeds, wanted.image_embeds)
    near(found.penultimate_hidden_states, wanted.hidden_states[-2])


def test_clip_sees_the_middle_of_a_wide_photo(world, tmp_path, clip):
    """CLIP's own preparation: shorter side to 28 pixels, middle cut out. Resized by Pillow there, by torch here."""
    kind = dict(model_type="clip_vision_model", projection_dim=24, hidden_act="quick_gelu")
    vision = ours(tmp_path, clip, SMALL, CLIP, **kind)
    [item] = retrieved(world, 5).items
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_mean=CLIP["mean"],
        image_std=CLIP["std"],
    )
    wanted = clip(torch.from_numpy(np.stack(processor(item.image)["pixel_values"]))).image_embeds
    image = torch.from_numpy(np.asarray(item.image).copy())[None] / 255
    cosine = torch.cosine_similarity(vision.encode_image(image, crop=True).image_embeds, wanted)
    squashed = torch.cosine_similarity(vision.encode_image(image, crop=False).image_embeds, wanted)
    assert cosine > 0.999 and squashed < cosine


def test_siglip_hidden_states_and_pooled_output_are_those_of_transformers(world, tmp_path):
    """What SD3.5 InstantX (the last but one), Redux (the last) and Flux InstantX (pooled) read."""
    from transformers.models.siglip import modeling_siglip

    config = modeling_siglip.SiglipVisionConfig(**SMALL, hidden_act="gelu_pytorch_tanh")
    reference = random(modeling_siglip.SiglipVisionModel(config))
    weights = {
        key if key.startswith("vision_model.") else f"vision_model.{key}": t
        for key, t in reference.state_dict().items()
    }
    named = torch.nn.Module()
    named.state_dict = lambda: weights
    vision = ours(tmp_path, named, SMALL, SIGLIP, model_type="siglip_vision_model", hidden_act="gelu_pytorch_tanh")
    image = photo(2, 28, 28)
    found = vision.encode_image(image, crop=False)
    wanted = reference(pixels(image, SIGLIP), output_hidden_states=True)
    near(found.penultimate_hidden_states, wanted.hidden_states[-2])
    near(found.last_hidden_state, wanted.last_hidden_state)
    module = world.plugin("realrag.adapters.siglip_pooling_head")
    head = module.MapHead({k.removeprefix(module.HEAD): t for k, t in weights.items() if k.startswith(module.HEAD)})
    near(head(found.last_hidden_state), wanted.pooler_output)
