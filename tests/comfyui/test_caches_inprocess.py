"""Core's caches beside references: a step that is skipped costs nothing of ours."""

from __future__ import annotations

import pytest
from injection_world import ALL


def counted(world, model, monkeypatch):
    """The picture, and how often the network's first block ran."""
    net, count = model.model.diffusion_model, []
    block = net.double_blocks[0] if hasattr(net, "double_blocks") else net.joint_blocks[0]
    handle = block.register_forward_pre_hook(lambda *_: count.append(1))
    try:
        return world.sample(model, steps=10, cfg=1.0), len(count)
    finally:
        handle.remove()


def cached(model, threshold=1e9):
    from comfy_extras.nodes_easycache import EasyCacheNode

    return EasyCacheNode.execute(model, threshold, 0.15, 0.95, False).result[0]


def test_easycache_skips_the_pass_over_the_references_too(world, monkeypatch):
    plain = world.models["flux"]
    steps = counted(world, cached(plain), monkeypatch)[1]
    assert steps < 10, "it skips some"
    for model in (cached(world.steered("flux", "shared")), world.steered("flux", "shared", model=cached(plain))):
        assert counted(world, model, monkeypatch)[1] == 2 * steps
    assert counted(world, world.steered("flux", "shared"), monkeypatch)[1] == 20


@pytest.mark.parametrize("kind", ALL)
def test_nothing_stays_on_the_device_after_a_sampling(world, kind):
    """Copies on the device last as long as the sampling; what is cached for the next picture goes with the model."""
    patch = world.plugin("nodes.injection.model.patch")
    for way in ("adapter", "shared"):
        steered = world.steered(kind, way)
        world.sample(steered)
        (injection,) = patch.injections_of(steered)
        held = getattr(injection, "baked", None) or getattr(injection, "latents", None)
        assert held is None or not held._copies
        assert not injection._grids
        steered.detach()
        assert not hasattr(injection, "cache") or injection.cache.size == 0
