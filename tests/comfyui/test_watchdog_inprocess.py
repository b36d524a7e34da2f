"""Where references have no effect, one warning names the likely cause and the cure; where they have, none comes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from controls_world import edited, retrieved, steered
from injection_world import ALL


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("way", ["adapter", "shared"])
def test_references_at_work_cause_no_warning(world, caplog, kind, way):
    world.sample(world.steered(kind, way))
    assert not warnings(caplog)


def test_a_node_that_replaces_whole_blocks_is_named_once(world, caplog):
    steered = world.steered("flux", "adapter")
    for i in range(2):
        steered.set_model_patch_replace(
            lambda args, extra: {"img": args["img"], "txt": args["txt"]}, "dit", "double_block", i
        )
    for _ in range(2):
        world.call(steered)
    (said,) = warnings(caplog)
    assert __name__ in said and "Bypass that node" in said and "Redux" in said


def test_another_nodes_hook_that_lets_the_attention_by_causes_no_warning(world, caplog):
    steered = world.steered("flux", "adapter")
    steered.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "double_block", 0)
    world.call(steered)
    assert not warnings(caplog)


def test_a_cache_that_skips_the_blocks_is_suspected(world, caplog, monkeypatch):
    steered = world.steered("flux", "adapter")
    net = steered.model.diffusion_model
    monkeypatch.setattr(type(net), "forward_orig", lambda self, img, *args, **kwargs: img)
    world.call(steered)
    (said,) = warnings(caplog)
    assert "cache or a compiler" in said and "Bypass it" in said


def test_a_kernel_without_hooks_is_suspected(world, caplog, monkeypatch):
    import comfy.ldm.flux.layers as layers

    monkeypatch.setattr(layers, "attention", lambda q, k, v, *args, **kwargs: v.transpose(1, 2).flatten(2))
    world.call(world.steered("flux", "adapter"))
    (said,) = warnings(caplog)
    assert "attention kernel" in said


def test_a_foreign_network_is_named(world):
    watchdog = world.plugin("nodes.injection.model.watchdog")
    net = type("Foreign", (torch.nn.Module,), {"__module__": "nunchaku.models.transformer"})()
    said = watchdog.cause(SimpleNamespace(net=net, replacements=[], entered=0))
    assert "nunchaku.models.transformer" in said and "own loader" in said


def test_exchanged_parts_of_a_network_are_named(world):
    watchdog = world.plugin("nodes.injection.model.watchdog")
    part = type("Part", (torch.nn.Module,), {"__module__": "fast_blocks"})()
    said = watchdog.cause(SimpleNamespace(net=torch.nn.Sequential(part), replacements=[], entered=2))
    assert "fast_blocks" in said


def test_windows_of_single_references_that_no_step_meets_are_named_too(world, caplog):
    references = edited(world, retrieved(world, 1, 2), 0, start_percent=0.99)
    world.sample(steered(world, "flux xlabs", references), steps=2)
    (said,) = warnings(caplog)
    assert "Edit References" in said
    world.sample(steered(world, "flux xlabs", edited(world, references, 2)), steps=2)
    assert len(warnings(caplog)) == 1


def test_a_window_that_no_step_meets_is_named_with_its_limits(world, caplog):
    steered = world.steered("flux", "adapter", start_percent=0.99, end_percent=1.0)
    world.sample(steered, steps=2)
    world.sample(steered, steps=2)
    (said,) = warnings(caplog)
    assert "2 steps" in said and "99% to 100%" in said and "Widen" in said
