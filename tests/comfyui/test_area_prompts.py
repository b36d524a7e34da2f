"""References with masks beside regional prompts: core hands the model a part of the latent for each area."""

from __future__ import annotations

import pytest
import torch
from controls_world import WAYS, execute, retrieved
from injection_world import conditioning

LATENT = (1, 16, 6, 8)
LEFT = torch.tensor([[1.0, 0.0]])
by_way = pytest.mark.parametrize("way", WAYS)


def halves(two=conditioning):
    """Prompt 0 on the left half of the picture, prompt 2 on the right, as core's node sets areas."""
    from nodes import ConditioningSetArea

    areas = ((conditioning(0), 0), (two(2), 32))
    return [entry for prompt, x in areas for entry in ConditioningSetArea().append(prompt, 32, 48, x, 0, 1.0)[0]]


def step(model, positive, steps=1):
    import comfy.sample

    noise = torch.randn(LATENT, generator=torch.Generator().manual_seed(1))
    return comfy.sample.sample(
        model, noise, steps, 1.0, "euler", "simple", positive, conditioning(1), torch.zeros(LATENT), denoise=1.0,
        disable_pbar=True, seed=1,
    )  # fmt: skip


def steered(world, way, mask=None):
    found = retrieved(world, 1)
    if mask is not None:
        found = world.plugin("realrag.injection.reference_settings").edit(found, 1, masks=mask[None])
    return execute(world, way, found, text_rows=False).result[
        0
    ]  # the prompt's rows never see a masked reference anyway


@by_way
def test_a_mask_keeps_its_place_in_the_picture_under_area_prompts(world, way):
    """The reference is masked to the left half: the prompt there sees it all over its area, that on the right nowhere."""
    plain = step(world.models[WAYS[way][0]], halves())
    everywhere = step(steered(world, way), halves())
    left = step(steered(world, way, LEFT), halves())
    assert (everywhere - plain)[..., 4:].abs().amax() > 1e-4  # without a mask both areas see it
    torch.testing.assert_close(left[..., :4], everywhere[..., :4], rtol=1e-5, atol=1e-5)
    assert torch.equal(left[..., 4:], plain[..., 4:])


@by_way
def test_areas_in_one_model_call_each_have_their_own_part_of_the_mask(world, way):
    """Two areas of one size go into one call; a soft edge right of the middle lies in the second area only."""
    mask = torch.tensor([[0.0] * 6 + [1.0] * 2])
    plain = step(world.models[WAYS[way][0]], halves())
    found = step(steered(world, way, mask), halves())
    assert torch.equal(found[..., :4], plain[..., :4])
    assert (found - plain)[..., 6:].abs().amax() > 1e-4


def test_the_models_options_stay_as_they_are(world):
    model = steered(world, "flux xlabs", LEFT)
    before = repr(sorted(model.model_options["transformer_options"]))
    step(model, halves())
    assert repr(sorted(model.model_options["transformer_options"])) == before
