"""What the tests of the controls share: retrieved references with settings, every way in, and what block 0 receives."""

from __future__ import annotations

from contextlib import contextmanager

import test_injection_instantx_flux as instantx_flux
import torch
from injection_world import DIALS, Vae, Vision, photo
from test_injection_formulas import N_TEXT, Watch

WAYS = {  # name -> model, how
    "flux xlabs": ("flux", "xlabs"),
    "flux instantx": ("flux", "instantx"),
    "sd35 instantx": ("sd35", "instantx"),
    "flux shared": ("flux", "shared"),
    "sd35 shared": ("sd35", "shared"),
}
ADAPTERS = [way for way in WAYS if "shared" not in way]


def retrieved(world, *seeds, scores=None):
    """References to photos by seed, best first."""
    from PIL import Image

    module, items = world.plugin("realrag.references"), []
    for n, seed in enumerate(seeds):
        picture = Image.fromarray((photo(seed)[0] * 255).round().byte().numpy())
        score = scores[n] if scores else 0.9 - n / 10
        items.append(module.Reference(f"{n}", score, f"photo {seed}", "", "", "", "", "", 64, 48, picture))
    return module.References("query", "bundle", tuple(items), "")


def edited(world, references, rank, mask=None, **changes):
    """Through the node, as an artist would."""
    plain = dict(weight=1.0, start_percent=0.0, end_percent=1.0, negative=False)
    node = world.plugin("nodes.retrieval.edit_references").EditReferences
    return node.execute(references, rank, mask=mask, **{**plain, **changes}).result[0]


def parts_of(world, way):
    """The adapter and encoder, or the VAE, of one way."""
    kind, how = WAYS[way]
    if how == "shared":
        return dict(vae=Vae())
    if way == "flux instantx":
        head = world.plugin("realrag.adapters.siglip_pooling_head").MapHead(instantx_flux.HEAD)
        adapter = world.plugin("realrag.adapters").build_adapter(instantx_flux.WEIGHTS)
        managed = world.plugin("nodes.injection.load_adapter").ManagedAdapter.of(adapter, head)
        return dict(adapter=managed, clip_vision=Vision())
    return dict(adapter=world.adapter(kind), clip_vision=Vision())


def execute(world, way, references, model=None, **settings):
    return world.inject.InjectReferences.execute(
        model or world.models[WAYS[way][0]], references=references, **parts_of(world, way), **{**DIALS, **settings}
    )


def steered(world, way, references, **settings):
    return execute(world, way, references, **settings).result[0]


@contextmanager
def watching(net, way, block):
    """Where one double block hands over what its references changed."""
    with Watch() as watch:
        if way == "flux xlabs":
            watch.output("out", net.double_blocks[block])
            follower = [*net.double_blocks, net.single_blocks[0]][block + 1]
            watch.input("next", follower)
        elif way.startswith("flux"):
            watch.input("attention", net.double_blocks[block].img_attn.proj)
        else:
            watch.input("attention", net.joint_blocks[block].x_block.attn.proj)
        yield watch


def added(world, way, model, block=0, **call):
    """What came to the image rows in one block (block 0 has the same input with and without references)."""
    plain = world.models[WAYS[way][0]]
    seen = []
    for one in (model, plain):
        with watching(one.model.diffusion_model, way, block) as watch:
            world.call(one, **call)
        if way == "flux xlabs":
            after = watch.seen["next"]["img"] if "img" in watch.seen["next"] else watch.seen["next"][0][:, N_TEXT:]
            return after - watch.seen["out"][0]
        seen.append(watch.seen["attention"][0])
    return seen[0] - seen[1]


def close(one, another):
    torch.testing.assert_close(one, another, rtol=2e-4, atol=2e-5)
