"""Masks, windows and the negative side of single references that go in through the prompt, against core's own nodes."""

from __future__ import annotations

import pytest
import torch
from injection_world import DIALS, Vae, conditioning, photo
from test_injection_prompt import cores_latents, cores_redux, painted, redux_parts, references, same

LEFT = torch.tensor([[1.0, 1, 0, 0]] * 3)


def inject(world, shown, **inputs):
    """InjectReferences with Redux into prompt 0 against prompt 1: (positive, report, negative)."""
    given = dict(conditioning=conditioning(0), negative=conditioning(1), downsampling=1, **redux_parts(world), **DIALS)
    out = world.inject.InjectReferences.execute(world.models["flux"], references=shown, **{**given, **inputs}).result
    return out[2], out[1], out[4]


@pytest.fixture
def own(world):
    return world.plugin("realrag.injection.reference_settings").ReferenceSettings


def under(prompt, mask, strength=1.0):
    from nodes import ConditioningSetMask

    return ConditioningSetMask().append(prompt, mask, "default", strength)[0]


def during(prompt, start, end):
    from nodes import ConditioningSetTimestepRange

    return ConditioningSetTimestepRange().set_range(prompt, start, end)[0]


def test_a_masked_reference_paints_as_two_prompts_under_cores_masks(world, own):
    """A soft mask: where it says 0.25, the prompt with the reference has a quarter of the say."""
    soft = torch.tensor([[1.0, 0.25, 0, 0]] * 3)
    ours, report, negative = inject(world, references(own(mask=soft), own()))
    everywhere = cores_redux(conditioning(0), photo(2))
    there = cores_redux(cores_redux(conditioning(0), photo(1)), photo(2))
    theirs = under(there, soft) + under(everywhere, 1 - soft)
    one, other = (
        painted(world, ours, negative, steps=3, cfg=2.0),
        painted(world, theirs, conditioning(1), steps=3, cfg=2.0),
    )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(one, painted(world, everywhere, negative, steps=3, cfg=2.0), atol=1e-3)
    assert "masked" in report and "no say" not in report


def test_outside_a_mask_the_step_is_that_of_the_bare_prompt(world, own):
    """The mask is as large as the latent, so no resizing smears its edge."""
    mask = torch.zeros(6, 8)
    mask[:, :4] = 1
    ours = painted(world, inject(world, references(own(mask=mask)))[0], conditioning(1), steps=1)
    plain = painted(world, conditioning(0), conditioning(1), steps=1)
    torch.testing.assert_close(ours[..., 4:], plain[..., 4:], rtol=0, atol=1e-6)
    assert (ours[..., :4] - plain[..., :4]).abs().amax() > 1e-2


def test_two_things_under_two_masks_each_have_their_own_reference(world, own):
    ours, _, _ = inject(world, references(own(mask=LEFT), own(mask=1 - LEFT)))
    assert len(ours) == 2  # the parts that no or both references cover are empty, and cost no run of the model
    theirs = under(cores_redux(conditioning(0), photo(1)), LEFT) + under(
        cores_redux(conditioning(0), photo(2)), 1 - LEFT
    )
    torch.testing.assert_close(
        painted(world, ours, conditioning(1)), painted(world, theirs, conditioning(1)), rtol=1e-5, atol=1e-5
    )


def test_references_under_one_mask_share_it(world, own):
    ours, _, _ = inject(world, references(own(mask=LEFT), own(mask=LEFT.clone())))
    same(
        ours,
        under(cores_redux(conditioning(0), torch.cat((photo(1), photo(2)))), LEFT) + under(conditioning(0), 1 - LEFT),
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_parts_of_the_picture_add_up_to_all_of_it(world, seed):
    """Any masks of any sizes: what the parts give each reference is its mask, and together they are 1 everywhere."""
    parts = world.plugin("nodes.injection.prompt.conditioning")._parts
    rng = torch.Generator().manual_seed(seed)
    count = int(torch.randint(1, 4, (1,), generator=rng))
    masks = {i: torch.rand(6, 4, generator=rng).round(decimals=seed % 3) for i in range(count)}
    masks[9] = None
    found = parts(masks)
    torch.testing.assert_close(sum(mask for _, mask in found)[0], torch.ones(6, 4))
    for i, mask in masks.items():
        given = sum((part for numbers, part in found if i in numbers), torch.zeros(1, 6, 4))[0]
        torch.testing.assert_close(given, torch.ones(6, 4) if mask is None else mask)
    assert all(mask.any() for _, mask in found)


def test_too_many_overlapping_masks_are_refused_with_the_cure(world, own):
    rng = torch.Generator().manual_seed(1)
    shown = references(*(own(mask=torch.rand(4, 4, generator=rng)) for _ in range(4)))
    with pytest.raises(world.adapter_error, match=r"into 16 parts.*at most 8.*same mask"):
        inject(world, shown)


def test_a_mask_stays_within_the_prompts_own_mask(world, own):
    """Regional prompts: the entry's mask has its own size and strength, and keeps its say against other entries."""
    region = torch.zeros(1, 12, 16)
    region[..., 4:] = 0.5
    prompt = under(conditioning(0), region, 0.7) + conditioning(2)
    ours = world.inject.InjectReferences.execute(
        world.models["flux"], references=references(own(mask=LEFT)), conditioning=prompt, downsampling=1,
        **redux_parts(world), **DIALS,
    ).result[2]  # fmt: skip
    assert len(ours) == 4 and [table["mask_strength"] for _, table in ours] == [0.7, 1.0, 0.7, 1.0]
    first, third = (ours[i][1]["mask"] for i in (0, 2))
    torch.testing.assert_close(first + third, region)
    assert torch.equal(first[..., :6], region[..., :6]) and not first[..., 10:].any()
    assert "mask" not in prompt[1][1] and prompt[0][1]["mask"] is region


def test_references_come_and_go_in_their_own_windows(world, own):
    ours, _, negative = inject(world, references(own(end=0.5), own(start=0.25)), start_percent=0.1, end_percent=0.9)
    one, two = (cores_redux(conditioning(0), photo(i)) for i in (1, 2))
    both = cores_redux(one, photo(2))
    bare = conditioning(0)
    stretches = [(bare, 0, 0.1), (one, 0.1, 0.25), (both, 0.25, 0.5), (two, 0.5, 0.9), (bare, 0.9, 1)]
    same(ours, [entry for prompt, *span in stretches for entry in during(prompt, *span)])
    assert [(t["start_percent"], t["end_percent"]) for _, t in ours] == [tuple(map(float, s)) for _, *s in stretches]
    theirs = [entry for prompt, *span in stretches for entry in during(prompt, *span)]
    assert torch.equal(painted(world, ours, negative, steps=6), painted(world, theirs, negative, steps=6))


def test_a_negative_reference_goes_into_the_negative_prompt_alone(world, own):
    ours, report, negative = inject(world, references(own(), own(negative=True, weight=0.5)))
    same(ours, cores_redux(conditioning(0), photo(1)))
    same(negative, cores_redux(conditioning(1), photo(2), 0.5))
    assert "Use the negative output" in report
    _, _, negative = inject(world, references(own(), own(negative=True)), apply_to="both")
    same(negative, cores_redux(conditioning(1), torch.cat((photo(1), photo(2)))))
    only, report, negative = inject(world, references(own(negative=True)))
    same(only, conditioning(0))
    same(negative, cores_redux(conditioning(1), photo(1)))
    assert "1 reference, 9 tokens" in report


def test_without_a_negative_prompt_what_hangs_on_that_output_stops_with_a_sentence(world, own):
    _, report, negative = inject(world, references(own()), negative=None)
    assert "connect the negative prompt to negative" in negative.message and "stay out" not in report
    _, report, _ = inject(world, references(own(), own(negative=True)), negative=None)
    assert "Negative references stay out" in report
    prompt = conditioning(1)
    assert inject(world, references(own()), negative=prompt)[2] is prompt


def test_reference_latents_keep_to_masks_windows_and_sides_too(world, own):
    shown = references(own(mask=LEFT), own(negative=True), own(end=0.5))
    positive, _, negative = inject(world, shown, vae=Vae(), path="reference latents")
    one, two, three = ([Vae().encode(photo(i))] for i in (1, 2, 3))
    early = [(cores_latents(conditioning(0), one + three), LEFT), (cores_latents(conditioning(0), three), 1 - LEFT)]
    late = [(cores_latents(conditioning(0), one), LEFT), (conditioning(0), 1 - LEFT)]
    theirs = [e for prompt, mask in early for e in during(under(prompt, mask), 0.0, 0.5)]
    theirs += [e for prompt, mask in late for e in during(under(prompt, mask), 0.5, 1.0)]
    for (text, table), (their_text, their_table) in zip(positive, theirs, strict=True):
        assert torch.equal(text, their_text) and table.keys() == their_table.keys()
        assert torch.equal(table["mask"], their_table["mask"]) and table["end_percent"] == their_table["end_percent"]
        pairs = zip(table.get("reference_latents", []), their_table.get("reference_latents", []), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(negative[0][1]["reference_latents"][0], two[0]) and len(negative[0][1]["reference_latents"]) == 1


def test_dials_without_a_say_are_named(world, own):
    _, report, _ = inject(world, references(own()), combine="sum", balance=1.0)
    assert "This path ignores: combine, balance." in report
    assert "This path ignores" not in inject(world, references(own()))[1]
