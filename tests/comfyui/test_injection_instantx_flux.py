"""Flux InstantX in the real ComfyUI: what is added in double and single blocks, against a slow twin in fp64."""

from __future__ import annotations

import pytest
import torch
from injection_world import DIALS, Vision, photo, synthetic
from safetensors.torch import save_file
from test_injection_formulas import FLUX_EXACT, N_IMAGE, N_TEXT, Spy, Watch, error, merged, softmax_attention

WEIGHTS = synthetic.instantx_flux(width=256, context=48, blocks=4, encoder=24, tokens=5)
HEAD = {key.removeprefix("vision_model.head."): t for key, t in synthetic.map_head(width=24).items()}


def steered(world, model=None, images=None, legacy=False, **settings):
    head = world.plugin("realrag.adapters.siglip_pooling_head").MapHead(HEAD)
    adapter = world.plugin("nodes.injection.load_adapter").ManagedAdapter.of(
        world.plugin("realrag.adapters").build_adapter(WEIGHTS), head, legacy
    )
    out = world.inject.InjectReferences.execute(
        model or world.models["flux"], image=photo(1) if images is None else images, adapter=adapter,
        clip_vision=Vision(), **{**DIALS, **settings},
    )  # fmt: skip
    return out.result[0]


def twin(world, q, block, photos=(1,), legacy=False):
    """softmax(q rms(k)^T / sqrt(D)) v for the tokens of all photos; the pooling head has its own parity test."""
    w = {key.split(".", 1)[1]: tensor.double() for key, tensor in WEIGHTS.items()}
    head = world.plugin("realrag.adapters.siglip_pooling_head").MapHead(HEAD)
    pooled = torch.cat([head(Vision().encode_image(photo(i)).last_hidden_state) for i in photos]).double()
    hidden = torch.nn.functional.gelu(pooled @ w["proj.0.weight"].T + w["proj.0.bias"])
    tokens = (hidden @ w["proj.2.weight"].T + w["proj.2.bias"]).reshape(1, 5 * len(photos), 48)
    tokens = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    tokens = tokens * w["norm.weight"] + w["norm.bias"]
    k, v = (torch.stack((tokens @ w[f"{block}.to_{n}_ip.weight"].T).split(128, -1), 1) for n in "kv")
    k = k / (k.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    if legacy:
        v = v / (v.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return merged(softmax_attention(q, *(t.expand(len(q), -1, -1, -1) for t in (k, v))))


def added(world, model, block, **call):
    """What came to the attention of block 0-1 (double: image rows) or 2-3 (single: all rows), and the queries."""
    net, spy = model.model.diffusion_model, Spy()
    with Watch() as watch:
        if block < 2:
            watch.output("q", net.double_blocks[block].img_attn.norm.query_norm)
            watch.input("attention", net.double_blocks[block].img_attn.proj)
        else:
            watch.output("q", net.single_blocks[block - 2].norm.query_norm)
            watch.input("attention", net.single_blocks[block - 2].linear2)
        world.call(model, override=spy, **call)
    plain = merged(softmax_attention(*spy.calls[block]))
    found = watch.seen["attention"][0][..., :256]
    return found - plain[:, -found.shape[1] :], watch.seen["q"][0]


@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("legacy", [False, True])
def test_flux_instantx_adds_the_published_formula_in_every_block(world, block, legacy):
    """Double blocks: the image's rows. Single blocks: the text's rows too."""
    delta, q = added(world, steered(world, strength=0.6, legacy=legacy), block)
    assert delta.shape == (1, N_IMAGE + (N_TEXT if block >= 2 else 0), 256)
    assert error(delta, 0.6 * twin(world, q, block, legacy=legacy)) < FLUX_EXACT


def test_every_reference_counts_not_only_the_first(world):
    delta, q = added(world, steered(world, images=torch.cat((photo(1), photo(2)))), 3)
    assert error(delta, twin(world, q, 3, photos=(1, 2))) < FLUX_EXACT


@pytest.mark.parametrize("block", [0, 2])
def test_negative_rows_and_kontext_tokens_stay_as_they_are(world, block):
    kontext = [torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(9)).expand(4, -1, -1, -1)]
    delta, q = added(world, steered(world), block, kinds=(1, 0), batch=2, ref_latents=kontext)
    seen = delta.shape[1] - 6
    assert delta[:2].abs().max() < 1e-4 and delta[:, seen:].abs().max() < 1e-4
    assert error(delta[2:, :seen], twin(world, q[2:, :, :seen], block)) < FLUX_EXACT


def test_strength_zero_is_the_same_model_and_the_base_stays_bit_exact(world):
    before = world.sample(world.models["flux"])
    assert steered(world, strength=0.0) is world.models["flux"]
    changed, again = world.sample(steered(world)), world.sample(steered(world))
    assert torch.equal(changed, again) and torch.isfinite(changed).all() and not torch.equal(changed, before)
    assert torch.equal(world.sample(world.models["flux"]), before)


def test_it_adds_up_with_an_xlabs_adapter(world):
    both = steered(world, model=world.steered("flux", "adapter"))
    delta, q = added(world, both, 1)
    assert error(delta, twin(world, q, 1)) < FLUX_EXACT
    assert not torch.equal(world.call(both), world.call(steered(world)))


def test_the_adapter_need_not_stay_loaded_while_sampling(world):
    assert steered(world).get_nested_additional_models() == []


def test_the_loader_finds_the_pooling_head_among_the_vision_files(world, tmp_path, monkeypatch):
    import folder_paths

    folders = {"realrag_adapters": tmp_path / "adapters", "clip_vision": tmp_path / "vision"}
    for name, folder in folders.items():
        folder.mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(folder)], {".safetensors"}))
        folder_paths.filename_list_cache.pop(name, None)
    save_file(WEIGHTS, folders["realrag_adapters"] / "a.safetensors")
    node, refused = world.plugin("nodes.injection.load_adapter").LoadReferenceAdapter, world.adapter_error
    with pytest.raises(refused, match=r"needs the pooling head of .* no .safetensors file in models/clip_vision"):
        node.execute("a.safetensors")
    save_file({"vision_model.post_layernorm.weight": torch.ones(24)}, folders["clip_vision"] / "a plain.safetensors")
    save_file(synthetic.map_head(width=32), folders["clip_vision"] / "b wide.safetensors")
    save_file(synthetic.map_head(width=24), folders["clip_vision"] / "c right.safetensors")
    folder_paths.filename_list_cache.pop("clip_vision", None)
    loaded = node.execute("a.safetensors").result[0]
    assert loaded.head.width == 24 and not loaded.legacy
    assert node.execute("a.safetensors", "c right.safetensors", True).result[0].legacy
    with pytest.raises(refused, match=r"b wide.safetensors has a pooling head of width 32"):
        node.execute("a.safetensors", "b wide.safetensors")
    with pytest.raises(refused, match=r"a plain.safetensors holds no pooling head"):
        node.execute("a.safetensors", "a plain.safetensors")
    assert node.validate_inputs("a.safetensors") is True
    error = world.plugin("realrag.errors").RealRAGError
    with pytest.raises(
        error, match=r"No file named '\.\./adapters/a\.safetensors' in models/clip_vision\. There are: a plain"
    ):
        node.execute("a.safetensors", "../adapters/a.safetensors")


def test_the_wrong_encoder_is_refused_before_sampling(world):
    vision = Vision()
    vision.width = 32
    adapter = world.plugin("nodes.injection.load_adapter").ManagedAdapter.of(
        world.plugin("realrag.adapters").build_adapter(WEIGHTS),
        world.plugin("realrag.adapters.siglip_pooling_head").MapHead(HEAD),
    )
    with pytest.raises(world.adapter_error, match=r"pooled output .* gives width 32"):
        world.inject.InjectReferences.execute(
            world.models["flux"], image=photo(1), adapter=adapter, clip_vision=vision, **DIALS
        )
