"""The paper's own way for diffusion models, a ControlNet on the retrieved photo, by core's own networks and nodes,
alone and beside references. Tiny random weights: they show that both count and neither spoils the other, not how it
looks."""

from __future__ import annotations

import pytest
import torch
from controls_world import retrieved
from injection_world import Vae, conditioning
from tiny_parts import controlnet

KINDS = pytest.mark.parametrize("kind", ["flux", "sd3", "sd35"])
LATENT = (1, 16, 6, 8)


class VaeForControl(Vae):
    """What core asks of a VAE where the hint goes through it."""

    def spacial_compression_encode(self):
        return 8


def hinted(kind, references, strength=0.6):
    """Prompts with the outlines of the best reference, by the nodes of the example graph."""
    from comfy_extras.nodes_canny import Canny

    from nodes import ControlNetApplyAdvanced

    [picture] = references.images()[:1]
    canny = Canny()
    outlines = (canny.execute if hasattr(canny, "execute") else canny.detect_edge)(picture[None], 0.1, 0.3)
    outlines = outlines.result[0] if hasattr(outlines, "result") else outlines[0]
    assert 0 < outlines.mean() < 1
    vae = None if kind == "flux" else VaeForControl()
    return ControlNetApplyAdvanced().apply_controlnet(
        conditioning(0), conditioning(1), controlnet(kind), outlines, strength, 0.0, 1.0, vae=vae
    )


def sampled(model, prompts, steps=2):
    import comfy.sample

    noise = torch.randn(LATENT, generator=torch.Generator().manual_seed(3))
    return comfy.sample.sample(
        model,
        noise,
        steps,
        2.0,
        "euler",
        "simple",
        *prompts,
        torch.zeros(LATENT),
        denoise=1.0,
        disable_pbar=True,
        seed=3,
    )


def differ(one, another):
    assert torch.isfinite(one).all() and (one - another).norm() > 1e-3 * another.norm()


@KINDS
@pytest.mark.parametrize("way", ["adapter", "shared"])
def test_a_controlnet_on_the_retrieved_photo_and_references_both_count(world, kind, way):
    plain, steered = world.models[kind], world.steered(kind, way)
    bare = [conditioning(0), conditioning(1)]
    prompts = hinted(kind, retrieved(world, 1))
    alone, both = sampled(plain, prompts), sampled(steered, prompts)
    differ(alone, sampled(plain, bare))  # the ControlNet alone, as in the example graphs
    differ(both, alone)  # the references beside it
    differ(both, sampled(steered, bare))
    assert torch.equal(both, sampled(steered, prompts))
    nothing = hinted(kind, retrieved(world, 1), strength=0.0)
    assert torch.equal(sampled(steered, nothing), sampled(steered, bare))
    assert torch.equal(sampled(world.models[kind], prompts), alone)  # nothing of the references stays behind
