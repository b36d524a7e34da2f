"""What references hold is given back: to ComfyUI when it unloads, and for good when the last node output goes."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from injection_world import ALL

both_ways = pytest.mark.parametrize("way", ["adapter", "shared"])


@pytest.mark.parametrize("kind", ALL)
@both_ways
def test_memory_comes_back_after_unload_and_nothing_outlives_the_patched_model(world, kind, way):
    import comfy.model_management as management

    plain = world.sample(world.models[kind])
    steered = world.steered(kind, way)
    first = world.sample(steered)
    held = [weakref.ref(injection) for injection in world.plugin("nodes.injection.model.patch").injections_of(steered)]
    held += [weakref.ref(patcher) for reference in held for patcher in reference().models()]
    management.unload_all_models()
    assert not management.current_loaded_models
    assert torch.equal(world.sample(steered), first), "loaded again, it gives the same picture"
    management.unload_all_models()
    del steered
    gc.collect()
    assert held and not any(reference() for reference in held)
    assert torch.equal(world.sample(world.models[kind]), plain)
