"""Weights, masks, windows, sides, batches, profiles and balance in the real ComfyUI, for every way references go in."""

from __future__ import annotations

import copy

import pytest
import torch
from controls_world import ADAPTERS, WAYS, added, close, edited, execute, retrieved, steered
from injection_world import LATENT

every_way = pytest.mark.parametrize("way", WAYS)
every_adapter = pytest.mark.parametrize("way", ADAPTERS)
LEFT = torch.zeros(1, 10, 18)  # the left 4 of LATENT's 9 columns: tokens of columns 0 and 1 of 5
LEFT[:, :, :8] = 1
INSIDE = torch.tensor([True, True, False, False, False] * 3)


@every_way
def test_weight_2_equals_the_picture_twice(world, way):
    heavy = edited(world, retrieved(world, 1, 2), 1, weight=2.0)
    close(
        added(world, way, steered(world, way, heavy)), added(world, way, steered(world, way, retrieved(world, 1, 1, 2)))
    )


@every_way
def test_weight_0_leaves_a_picture_out(world, way):
    without = edited(world, retrieved(world, 1, 2), 2, weight=0.0)
    one = steered(world, way, retrieved(world, 1))
    close(added(world, way, steered(world, way, without)), added(world, way, one))
    none = execute(world, way, edited(world, without, 0, weight=0.0)).result
    assert none[0] is world.models[WAYS[way][0]] and "weight 0" in none[1]


@every_way
def test_rows_outside_a_mask_are_unchanged_in_that_block_and_rows_inside_are_as_without(world, way):
    masked = steered(world, way, edited(world, retrieved(world, 1), 1, mask=LEFT))
    inside, plain = added(world, way, masked), added(world, way, steered(world, way, retrieved(world, 1)))
    assert not inside[:, ~INSIDE].any()
    close(inside[:, INSIDE], plain[:, INSIDE])
    assert plain[:, ~INSIDE].any()


@every_way
def test_a_half_mask_is_half_the_effect(world, way):
    half = steered(world, way, edited(world, retrieved(world, 1), 1, mask=torch.full((1, 7, 3), 0.5)))
    close(added(world, way, half), 0.5 * added(world, way, steered(world, way, retrieved(world, 1))))


@every_way
def test_two_objects_with_a_mask_each_do_not_mix(world, way):
    combine = "concat" if way in ADAPTERS else "sum"
    two = edited(world, edited(world, retrieved(world, 1, 2), 1, mask=LEFT), 2, mask=1 - LEFT)
    both = added(world, way, steered(world, way, two, combine=combine))
    first, second = (added(world, way, steered(world, way, retrieved(world, seed))) for seed in (1, 2))
    close(both[:, INSIDE], first[:, INSIDE])
    close(both[:, ~INSIDE], second[:, ~INSIDE])


@every_way
def test_each_reference_keeps_to_its_own_window(world, way):
    references = edited(world, retrieved(world, 1, 2), 2, start_percent=0.5)
    model = steered(world, way, references)
    border = float(model.get_model_object("model_sampling").percent_to_sigma(0.5))
    early, late = (added(world, way, model, sigma=border + d) for d in (0.01, -0.01))
    close(early, added(world, way, steered(world, way, retrieved(world, 1)), sigma=border + 0.01))
    close(late, added(world, way, steered(world, way, retrieved(world, 1, 2)), sigma=border - 0.01))


@every_way
def test_when_every_window_is_closed_a_call_is_bit_exact(world, way):
    model = steered(world, way, edited(world, retrieved(world, 1, 2), 0, end_percent=0.2))
    sigma = float(model.get_model_object("model_sampling").percent_to_sigma(0.6))
    plain = world.models[WAYS[way][0]]
    assert torch.equal(world.call(model, sigma=sigma, kinds=(1, 0)), world.call(plain, sigma=sigma, kinds=(1, 0)))


@every_way
@pytest.mark.parametrize("combine", ["sum", "average", "norm average", "subtract"])
def test_the_branches_add_up_as_the_mode_says(world, way, combine):
    references = edited(world, retrieved(world, 1, 2), 2, weight=0.5)
    found = added(world, way, steered(world, way, references, combine=combine))
    a, b = (added(world, way, steered(world, way, retrieved(world, seed))) for seed in (1, 2))
    if combine == "norm average":
        sizes = [x.square().mean(-1, keepdim=True).sqrt() for x in (a, b)]
        size = (2 * sizes[0] + sizes[1]) / 3
        a, b = (x * size / own for x, own in zip((a, b), sizes, strict=True))
    expected = {"sum": a + b / 2, "subtract": a - b / 2}.get(combine, (2 * a + b) / 3)
    close(found, expected)


@every_way
def test_a_negative_reference_reaches_the_negative_prompt_alone(world, way):
    references = edited(world, retrieved(world, 1, 2), 2, negative=True)
    model = steered(world, way, references)
    rows = added(world, way, model, kinds=(1, 0), batch=2)
    one = steered(world, way, retrieved(world, 1))
    close(rows[2:], added(world, way, one, kinds=(1, 0), batch=2)[2:])
    alone = steered(world, way, retrieved(world, 2), apply_to="both")
    close(rows[:2], added(world, way, alone, kinds=(1, 0), batch=2)[:2])
    assert rows[:2].any()


@every_way
def test_both_sides_see_the_references_if_asked(world, way):
    rows = added(world, way, steered(world, way, retrieved(world, 1), apply_to="both"), kinds=(0, 1))
    positive = added(world, way, steered(world, way, retrieved(world, 1)), kinds=(0, 1))
    close(rows[:1], positive[:1])
    assert rows[1:].any() and not torch.allclose(rows[1:], positive[1:])


@every_way
@pytest.mark.parametrize("batch, shown", [("one per latent", (1, 2, None)), ("cycle", (1, 2, 1))])
def test_each_latent_of_a_batch_can_have_its_own_reference(world, way, batch, shown):
    noise = torch.randn((3, *LATENT[1:]), generator=torch.Generator().manual_seed(8))
    model = steered(world, way, retrieved(world, 1, 2), batch=batch)
    rows = added(world, way, model, x=noise, batch=3)
    for n, seed in enumerate(shown):
        if seed is None:
            assert not rows[n].any()
        else:
            alone = added(world, way, steered(world, way, retrieved(world, seed)), x=noise, batch=3)
            close(rows[n], alone[n])


@every_adapter
def test_a_profile_scales_each_block_and_leaves_out_those_at_0(world, way):
    count = 4 if way == "flux instantx" else 2
    custom = dict(profile="custom", custom_profile=" ".join(["0.5", "0", "1", "1"][:count]))
    scaled, plain = (steered(world, way, retrieved(world, 1), **more) for more in (custom, {}))
    close(added(world, way, scaled), 0.5 * added(world, way, plain))
    if way == "flux xlabs":
        assert not added(world, way, scaled, block=1).any() and added(world, way, plain, block=1).any()
    nothing = steered(world, way, retrieved(world, 1), profile="second half")
    assert not added(world, way, nothing).any()
    assert not torch.equal(world.call(nothing), world.call(world.models[WAYS[way][0]]))


def test_a_profile_that_leaves_no_block_is_refused(world):
    for way in ("flux xlabs", "sd35 instantx", "sd35 shared"):
        with pytest.raises(world.adapter_error, match="leaves no block"):
            steered(world, way, retrieved(world, 1), profile="single only")


@every_way
def test_balance_caps_what_is_added_against_the_blocks_own_attention(world, way):
    if way == "flux xlabs":
        loud, capped = (
            added(world, way, steered(world, way, retrieved(world, 1), strength=2.0, balance=b)) for b in (0.0, 0.01)
        )
        assert capped.norm() < 0.5 * loud.norm()
        torch.testing.assert_close(capped / capped.norm(), loud / loud.norm(), rtol=1e-3, atol=1e-5)
        return
    from controls_world import watching

    plain = world.models[WAYS[way][0]]
    with watching(plain.model.diffusion_model, way, 0) as watch:
        world.call(plain)
    own = watch.seen["attention"][0].square().mean().sqrt()
    found = added(world, way, steered(world, way, retrieved(world, 1), strength=2.0, balance=0.05))
    torch.testing.assert_close(found.square().mean().sqrt(), 0.05 * own, rtol=1e-2, atol=0)
    unbound = added(world, way, steered(world, way, retrieved(world, 1), balance=1000.0))
    close(unbound, added(world, way, steered(world, way, retrieved(world, 1))))


def test_text_rows_of_single_blocks_see_flux_instantx_only_if_wanted_and_not_through_a_mask(world):
    import test_injection_instantx_flux as flux_instantx

    def rows(references, **settings):
        return flux_instantx.added(world, steered(world, "flux instantx", references, **settings), 2)[0][:, :7]

    masked = edited(world, retrieved(world, 1), 1, mask=LEFT)
    assert rows(retrieved(world, 1)).norm() > 0.1
    for nothing in (rows(retrieved(world, 1), text_rows=False), rows(masked)):
        torch.testing.assert_close(nothing, torch.zeros_like(nothing), rtol=0, atol=1e-4)


def test_better_matches_count_more_once_a_temperature_is_set(world):
    references = retrieved(world, 1, 2, scores=(0.6, 0.3))
    equal = added(world, "flux xlabs", steered(world, "flux xlabs", references))
    sharp = added(world, "flux xlabs", steered(world, "flux xlabs", references, score_temperature=0.01))
    close(equal, added(world, "flux xlabs", steered(world, "flux xlabs", retrieved(world, 1, 2, scores=(0.5, 0.5)))))
    close(sharp, added(world, "flux xlabs", steered(world, "flux xlabs", retrieved(world, 1))))


def test_an_own_picture_is_plain_beside_edited_references(world):
    own = retrieved(world, 2).images()[0][None]
    out = execute(world, "flux xlabs", edited(world, retrieved(world, 1), 1, weight=3.0), image=own).result
    heavy = edited(world, retrieved(world, 1, 2), 1, weight=3.0)
    close(added(world, "flux xlabs", out[0]), added(world, "flux xlabs", steered(world, "flux xlabs", heavy)))
    assert "Reference 1: weight 3." in out[1]


def test_a_preset_takes_the_place_of_the_dials_and_the_report_says_so(world):
    model, report, *_ = execute(world, "flux xlabs", retrieved(world, 1), preset="balanced").result
    by_hand = steered(world, "flux xlabs", retrieved(world, 1), end_percent=0.9, profile="ramp 0.3 to 0.92")
    close(added(world, "flux xlabs", model), added(world, "flux xlabs", by_hand))
    assert "Strength 1, steps 0% to 90%" in report and "profile ramp 0.3 to 0.92" in report


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(combine="multiply"), "combine is 'multiply'; it must be one of concat"),
        (dict(batch="two"), "batch is 'two'"),
        (dict(apply_to="none"), "apply_to is 'none'"),
        (dict(balance=float("nan")), "balance is nan"),
        (dict(profile="zigzag"), "is not a layer profile"),
        (dict(preset="loud"), "is not a preset"),
    ],
)
def test_values_that_mean_nothing_are_refused_before_sampling(world, wrong, words):
    with pytest.raises(world.plugin("realrag.errors").RealRAGError, match=words):
        steered(world, "flux xlabs", retrieved(world, 1), **wrong)


def test_an_empty_mask_is_reported(world):
    report = execute(world, "flux xlabs", edited(world, retrieved(world, 1, 2), 2, mask=torch.zeros(1, 4, 4))).result[1]
    assert "mask of reference 2 is empty" in report


@every_way
def test_plain_settings_change_nothing_bit_for_bit(world, way):
    references = edited(world, retrieved(world, 1, 2), 0)
    usual = dict(preset="as set below", combine="concat", profile="linear", custom_profile="", apply_to="positive")
    more = dict(batch="all", text_rows=True, balance=0.0, score_temperature=0.0)
    explicit = world.call(steered(world, way, references, **usual, **more), kinds=(1, 0))
    assert torch.equal(explicit, world.call(steered(world, way, retrieved(world, 1, 2)), kinds=(1, 0)))


@every_way
def test_samples_with_every_control_at_once_repeat_and_stay_finite(world, way):
    references = edited(world, retrieved(world, 1, 2, 3), 1, mask=LEFT, weight=1.5, end_percent=0.8)
    references = edited(world, edited(world, references, 2, mask=1 - LEFT, weight=0.7), 3, negative=True)
    settings = dict(strength=0.8, combine="average", profile="ease in-out", apply_to="both", balance=1.0)
    model = steered(world, way, references, **settings, score_temperature=0.2)
    copied = model.clone()
    copied.model_options = copy.deepcopy(copied.model_options)
    first, again = world.sample(model, batch=2, steps=3), world.sample(copied, batch=2, steps=3)
    assert torch.isfinite(first).all() and torch.equal(first, again)


def test_inputs_of_the_first_version_are_there_and_all_others_are_optional(world):
    inputs = world.inject.InjectReferences.define_schema().inputs
    names = [one.id for one in inputs]
    first = "model references image adapter clip_vision vae strength start_percent end_percent".split()
    assert set(first) <= set(names)
    assert all(one.optional for one in inputs if one.id not in first)


def test_nothing_found_passes_through_the_edit_node(world):
    empty = world.plugin("realrag.references").References("query", "bundle", (), "Nothing scored 0.9 or more.")
    node = world.plugin("nodes.retrieval.edit_references").EditReferences
    out = node.execute(empty, 3, 1.0, 0.0, 1.0, False, torch.ones(2, 2)).result
    assert out[0] is empty and "Nothing scored" in out[1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("combine", ["concat", "norm average"])
def test_half_precision_moves_the_picture_the_same_way_with_masks_and_weights(world, way, combine):
    import tiny_models

    half = tiny_models.model(WAYS[way][0], torch.bfloat16)
    references = edited(world, retrieved(world, 1, 2), 1, weight=2.0, mask=LEFT)
    effects = []
    for model in (world.models[WAYS[way][0]], half):
        with_references = execute(world, way, references, model=model, combine=combine, balance=1.0).result[0]
        effects.append((world.call(with_references, sigma=0.6) - world.call(model, sigma=0.6)).flatten())
    assert all(torch.isfinite(effect).all() for effect in effects)
    assert torch.cosine_similarity(*effects, dim=0) > 0.8


@every_way
@pytest.mark.parametrize("region", ["area", "mask"])
def test_regional_prompts_and_masked_references_sample_together(world, way, region):
    import comfy.sample
    from injection_world import conditioning

    references = edited(world, retrieved(world, 1, 2), 1, mask=LEFT)
    where = {"area": dict(area=(4, 4, 0, 2), strength=1.0), "mask": dict(mask=LEFT, mask_strength=1.0)}[region]
    local, whole = conditioning(0), conditioning(2)
    local[0][1].update(where)
    noise = torch.randn(LATENT, generator=torch.Generator().manual_seed(3))

    def sampled(model):
        return comfy.sample.sample(
            model, noise, 2, 2.0, "euler", "simple", local + whole, conditioning(1), torch.zeros(LATENT),
            denoise=1.0, disable_pbar=True, seed=3,
        )  # fmt: skip

    plain, found = sampled(world.models[WAYS[way][0]]), sampled(steered(world, way, references))
    assert torch.isfinite(found).all() and not torch.equal(found, plain)


def test_a_misspelt_setting_is_found_when_it_is_made_not_when_the_picture_is(world):
    inputs = world.plugin("nodes.injection.inputs.controls")
    for made in (lambda: inputs.Strength(wieght=1.0), lambda: inputs.Controls(combin="sum")):
        with pytest.raises(TypeError, match="unexpected keyword"):
            made()
    with pytest.raises(TypeError, match="unexpected keyword"):
        execute(world, "flux xlabs", retrieved(world, 1), apply_two="both")
