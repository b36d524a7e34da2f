"""What the injection tests share: tiny models, stand-ins for the encoders, sampling, and single model calls."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import tiny_models
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
import synthetic_adapters as synthetic

ALL = ("flux", "sd3", "sd35", "sd35m")
LATENT = (1, 16, 5, 9)  # odd sides: padded to 3 x 5 tokens
DIALS = dict(strength=1.0, start_percent=0.0, end_percent=1.0)


class Vision:
    """Stands for CLIP Vision: an output that depends on the picture; notes what crop was asked for."""

    width = 24

    def __init__(self):
        self.crops = []

    def encode_image(self, image, crop=True):
        self.crops.append(crop)
        seed = int(image.double().sum() * 1000) % 2**31
        hidden = torch.randn(1, 9, self.width, generator=torch.Generator().manual_seed(seed))
        return SimpleNamespace(image_embeds=hidden[:, 0], penultimate_hidden_states=hidden, last_hidden_state=hidden)


class Vae:
    """Stands for the VAE: 8x8 pixels to one, 16 channels."""

    def encode(self, pixels):
        small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
        return torch.cat([small * (i - 7) / 4 for i in range(6)], 1)[:, :16]


def photo(seed, height=48, width=64):
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


class World:
    def __init__(self, plugin, models):
        self.plugin, self.models = plugin, models
        self.inject = plugin("nodes.injection.inject")
        self.adapter_error = plugin("realrag.errors").AdapterError

    def adapter(self, kind, seed=0):
        if kind == "flux":
            weights = synthetic.xlabs(width=256, context=48, blocks=2, encoder=24, tokens=4, seed=seed)
        else:
            weights = synthetic.instantx(width=128, blocks=2, encoder=24, tokens=6, depth=2, seed=seed)
        return self.plugin("nodes.injection.load_adapter").ManagedAdapter.of(
            self.plugin("realrag.adapters").build_adapter(weights)
        )

    def steered(self, kind, way, model=None, image=None, seed=0, **settings):
        """The model of this kind with references by this way: "adapter" or "shared"."""
        model = self.models[kind] if model is None else model
        image = photo(1) if image is None else image
        how = dict(adapter=None, clip_vision=None, vae=None)
        how |= dict(adapter=self.adapter(kind, seed), clip_vision=Vision()) if way == "adapter" else dict(vae=Vae())
        out = self.inject.InjectReferences.execute(model, image=image, **how, **{**DIALS, **settings})
        return out.result[0]

    def sample(self, model, steps=2, cfg=2.0, batch=1, seed=3, latent=LATENT):
        import comfy.sample

        latent = torch.zeros((batch, *latent[1:]))
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
        conds = [conditioning(0), conditioning(1)]
        return comfy.sample.sample(
            model, noise, steps, cfg, "euler", "simple", *conds, latent, denoise=1.0, disable_pbar=True, seed=seed
        )

    def call(self, model, sigma=0.7, kinds=(0,), batch=1, seed=5, x=None, override=None, **kwargs):
        """One model call as ComfyUI's sampler makes it, with the MODEL's own options and wrappers.

        kinds: 0 positive, 1 negative, as in cond_or_uncond.
        """
        import comfy.model_management as management
        import comfy.patcher_extension

        management.load_models_gpu([model])
        rows = len(kinds) * batch
        if x is None:
            one = torch.randn((batch, *LATENT[1:]), generator=torch.Generator().manual_seed(seed))
            x = torch.cat([one] * len(kinds))
        parts = [conditioning(kind)[0] for kind in kinds for _ in range(batch)]
        context = torch.cat([c for c, _ in parts])
        pooled = torch.cat([extra["pooled_output"] for _, extra in parts])
        to = comfy.patcher_extension.copy_nested_dicts(model.model_options["transformer_options"])
        to |= dict(cond_or_uncond=list(kinds), sigmas=torch.tensor([sigma]), wrappers=model.wrappers)
        if override is not None:
            to["optimized_attention_override"] = override
        guidance = {"guidance": torch.full((rows,), 3.5)} if "Flux" in type(model.model).__name__ else {}
        return model.model.apply_model(
            x, torch.full((rows,), sigma), c_crossattn=context, transformer_options=to, y=pooled, **guidance, **kwargs
        )


def conditioning(seed):
    generator = torch.Generator().manual_seed(100 + seed)
    context = torch.randn(1, 7, tiny_models.TEXT_WIDTH, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, tiny_models.POOLED_WIDTH, generator=generator)}]]
