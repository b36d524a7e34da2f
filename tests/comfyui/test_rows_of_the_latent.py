"""Which picture of a batch a row is, and which part of it: batch_index, tiles, context windows, masks."""

from __future__ import annotations

import pytest
import torch
from controls_world import WAYS, edited, execute, retrieved
from injection_world import conditioning, photo
from test_prompts_by_identity import tiled

by_way = pytest.mark.parametrize("way", WAYS)
RIGHT = torch.tensor([[[0.0, 1.0]]])


def ksampler(model, latent, steps=1):
    from nodes import KSampler

    made = KSampler().sample(
        model, 3, steps, 1.0, "euler", "simple", conditioning(0), conditioning(1), latent, denoise=1.0
    )
    return made[0]["samples"]


@by_way
def test_a_latent_taken_out_of_a_batch_keeps_its_number(world, way):
    """batch_index counts: the third picture of a batch, made alone, gets the third reference."""
    from nodes import LatentFromBatch

    model = execute(world, way, retrieved(world, 1, 2, 4), batch="one per latent").result[0]
    batch = {"samples": torch.zeros(3, 16, 4, 8)}
    together = ksampler(model, batch)
    for number in (2, 1):
        alone = ksampler(model, LatentFromBatch().frombatch(batch, number, 1)[0])
        torch.testing.assert_close(alone[0], together[number], rtol=1e-3, atol=1e-3)


@by_way
def test_noise_of_another_source_counts_from_the_first(world, way):
    model = execute(world, way, retrieved(world, 1, 2), batch="one per latent").result[0]
    first, second = (execute(world, way, retrieved(world, seed)).result[0] for seed in (1, 2))
    made = world.sample(model, steps=1, batch=2)
    torch.testing.assert_close(made[0], world.sample(first, steps=1, batch=2)[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(made[1], world.sample(second, steps=1, batch=2)[1], rtol=1e-3, atol=1e-3)


@by_way
def test_a_mask_is_cut_to_each_tile_of_a_batch_of_tiles(world, way):
    """The right half of the picture is masked in; the tiler runs the right tile first."""
    plain = tiled(world.models[WAYS[way][0]])
    references = retrieved(world, 1)
    everywhere = tiled(execute(world, way, references, text_rows=False).result[0])
    right = tiled(execute(world, way, edited(world, references, 1, mask=RIGHT)).result[0])
    latent = (1, 16, 4, 8)
    bare, full, found = (world.sample(model, steps=1, cfg=1.0, latent=latent) for model in (plain, everywhere, right))
    assert torch.equal(found[..., :4], bare[..., :4])
    assert not torch.equal(found[..., 4:], bare[..., 4:])
    torch.testing.assert_close(found[..., 4:], full[..., 4:], rtol=1e-4, atol=1e-4)


def windowed(model, dim, length, overlap=0):
    import comfy.context_windows as windows

    model = model.clone()
    model.model_options["context_handler"] = windows.IndexListContextHandler(
        context_schedule=windows.get_matching_context_schedule("standard_static"),
        fuse_method=windows.get_matching_fuse_method("flat"),
        context_length=length,
        context_overlap=overlap,
        dim=dim,
    )
    return model


@by_way
def test_a_mask_keeps_its_place_under_context_windows_over_the_width(world, way):
    plain = windowed(world.models[WAYS[way][0]], 3, 4)
    masked = windowed(execute(world, way, edited(world, retrieved(world, 1), 1, mask=RIGHT)).result[0], 3, 4)
    latent = (1, 16, 4, 8)
    bare, found = (world.sample(model, steps=1, cfg=1.0, latent=latent) for model in (plain, masked))
    assert torch.equal(found[..., :4], bare[..., :4])
    assert not torch.equal(found[..., 4:], bare[..., 4:])


@by_way
def test_context_windows_over_a_batch_keep_the_numbers_of_its_pictures(world, way):
    try:
        world.sample(windowed(world.models[WAYS[way][0]], 0, 2), steps=1, cfg=1.0, batch=4)
    except RuntimeError:
        pytest.skip("This ComfyUI cannot cut a batch of pictures into windows, with or without references")
    model = execute(world, way, retrieved(world, 1, 2, 4, 5), batch="one per latent").result[0]
    whole = world.sample(model, steps=1, cfg=1.0, batch=4)
    parts = world.sample(windowed(model, 0, 2), steps=1, cfg=1.0, batch=4)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-3)


def test_a_piece_is_found_where_it_was_cut_out_and_nowhere_else(world):
    locate = world.plugin("nodes.injection.model.rows").locate
    whole = torch.rand(2, 3, 5, 7)
    assert locate(whole, whole[1, :, 2:4, 3:7]) == (1, (2, 3))
    assert locate(whole, whole[0, :, 3:5, 5:7]) == (0, (3, 5))
    assert locate(whole, torch.rand(3, 2, 2)) == (None, None)
    assert locate(whole, torch.rand(3, 6, 2)) == (None, None)


def test_a_node_that_samples_piece_by_piece_is_told_what_becomes_of_masks_once(world, caplog):
    """A tiled upscaler samples tile after tile inside one run of its node, and nothing says which tile it is."""
    from comfy_execution.utils import CurrentNodeContext

    def warnings():
        return [r.getMessage() for r in caplog.records if "tiles" in r.getMessage()]

    masked = execute(world, "flux xlabs", edited(world, retrieved(world, 1), 1, mask=RIGHT)).result[0]
    plain = execute(world, "flux xlabs", retrieved(world, 1)).result[0]
    with CurrentNodeContext("run 1", "7"):
        world.sample(masked, steps=1)
    with CurrentNodeContext("run 2", "7"):
        world.sample(masked, steps=1)
        world.sample(masked, steps=1, latent=(1, 16, 4, 4))  # a second pass at another size
        assert not warnings()
    with CurrentNodeContext("run 3", "8"):
        for _ in range(4):
            world.sample(masked, steps=1)
            world.sample(plain, steps=1)
    (warning,) = warnings()
    assert "second Inject References" in warning


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_of_any_number_of_channels_are_shown_in_color(world, channels):
    execute = world.inject.InjectReferences.execute
    gray = photo(1)[..., :1]
    rest = torch.ones(1, 48, 64, 1)
    image = {1: gray, 2: torch.cat((gray, rest), -1), 4: torch.cat((gray, gray, gray, rest), -1)}[channels]
    from injection_world import DIALS, Vae, Vision

    for parts in (dict(vae=Vae()), dict(adapter=world.adapter("flux"), clip_vision=Vision())):
        made, expected = (
            world.call(execute(world.models["flux"], image=one, **parts, **DIALS).result[0])
            for one in (image, gray.expand(-1, -1, -1, 3))
        )
        assert torch.equal(made, expected)
