"""Adapters of our own in the real ComfyUI: seen through the retriever's encoder, injected by their formula."""

from __future__ import annotations

import pytest
import torch
from injection_world import DIALS, Vision, photo, synthetic
from test_injection_formulas import (
    FLUX_EXACT,
    SD3_EXACT,
    error,
    flux_delta,
    merged,
    sd3_attention,
    softmax_attention,
)  # fmt: skip

TOKENS = 36  # 192 pixels at 32 to a place


@pytest.fixture(scope="module")
def encoder(plugin):
    return plugin("realrag.encoders.load").load_encoder()


@pytest.fixture
def vision(world, encoder):
    """What Load Reflective Retriever puts out as clip_vision, with the shipped encoder behind it."""
    load = world.plugin("nodes.retrieval.load_retriever")
    managed = load.ManagedRetriever(type("Retriever", (), {"encoder": encoder})())
    return world.plugin("nodes.retrieval.clip_vision").RetrieverVision(managed)


def own(kind, seed=0):
    if kind == "flux":
        return synthetic.xlabs(width=256, context=48, encoder=1024, tokens=TOKENS, spatial=True, seed=seed)
    return synthetic.instantx(width=128, encoder=1024, tokens=18, own_keys=False, seed=seed)


def steered(world, vision, kind, tmp_path, sha256, strength=0.7, seed=0):
    """Through a file on the disk, as our trainer writes it, and the nodes."""
    from safetensors.torch import save_file

    reading = world.plugin("realrag.adapters.reading")
    about = dict(format=reading.FORMAT, version=reading.VERSION, base="a tiny model", encoder="realrag-small")
    about |= dict(encoder_sha256=sha256, family="flux-xlabs" if kind == "flux" else "sd35-instantx")
    save_file(own(kind, seed), tmp_path / "own.safetensors", about)
    adapter = world.plugin("realrag.adapters").load_adapter(tmp_path / "own.safetensors")
    return world.inject.InjectReferences.execute(
        world.models[kind], image=photo(1), adapter=world.plugin("nodes.injection.load_adapter").ManagedAdapter.of(adapter),
        clip_vision=vision, **{**DIALS, "strength": strength},
    )  # fmt: skip


def hidden_of(encoder):
    from PIL import Image

    pixels = (photo(1)[0] * 255).round().to(torch.uint8).numpy()
    return encoder.encode_features(encoder.prepare(Image.fromarray(pixels))[None]).penultimate.double()


def test_spatial_xlabs_tokens_of_the_retrievers_encoder_add_the_formula(world, vision, encoder, tmp_path):
    out = steered(world, vision, "flux", tmp_path, encoder.weights_sha256)
    assert "36 spatial tokens, for a tiny model" in out.result[1]
    delta, q = flux_delta(world, out.result[0])
    w = {key.removeprefix("ip_adapter_proj_model."): t.double() for key, t in own("flux").items()}
    tokens = hidden_of(encoder) @ w["proj.weight"].T + w["proj.bias"] + w["position"]
    tokens = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    tokens = tokens * w["norm.weight"] + w["norm.bias"]
    layer = "double_blocks.0.processor.ip_adapter_double_stream_"
    k, v = (tokens @ w[f"{layer}{n}_proj.weight"].T + w[f"{layer}{n}_proj.bias"] for n in "kv")
    assert k.shape == (1, TOKENS, 256)
    expected = 0.7 * merged(softmax_attention(q, *(torch.stack(t.split(128, -1), 1) for t in (k, v))))
    assert error(delta, expected) < FLUX_EXACT


@pytest.mark.parametrize("kind", ["sd3", "sd35"])
@pytest.mark.parametrize("side", [0, 1])
def test_instantx_without_own_keys_adds_the_formula_before_the_projection(world, vision, encoder, kind, side, tmp_path):
    """The positive prompt sees the photo; the negative one sees hidden states of zeros."""
    call = dict(sigma=0.6, kinds=(side,), batch=2)
    model = steered(world, vision, kind, tmp_path, encoder.weights_sha256).result[0]
    attention, q, *_ = sd3_attention(world, model, **call)
    plain, *_ = sd3_attention(world, world.models[kind], **call)
    hidden = hidden_of(encoder).float()
    adapter = world.plugin("realrag.adapters").build_adapter(own(kind))
    tokens, time = adapter.tokens(torch.zeros_like(hidden) if side else hidden, torch.tensor([600.0]))
    w = {k.removeprefix("ip_adapter.0."): t.double() for k, t in own(kind).items() if k.startswith("ip_adapter.0.")}
    tokens, time = tokens.double(), time.double()
    shift, scale = ((time * time.sigmoid()) @ w["norm_ip.linear.weight"].T + w["norm_ip.linear.bias"])[:, None].chunk(
        2, -1
    )
    e = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    e = e * (1 + scale) + shift
    k, v = (torch.stack((e @ w[f"to_{n}_ip.weight"].T).split(64, -1), 1).expand(2, -1, -1, -1) for n in "kv")

    def rms(x, name):
        return x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]

    expected = 0.7 * merged(softmax_attention(rms(q, "norm_q"), rms(k, "norm_ip_k"), v))
    assert k.shape[2] == 18 and error(attention - plain, expected) < SD3_EXACT


@pytest.mark.parametrize("kind", ["flux", "sd35"])
def test_values_of_zero_leave_the_picture_as_it_is(world, vision, encoder, kind, tmp_path, monkeypatch):
    weights = own(kind)
    zeroed = {k: t * 0 if "_v_proj" in k or "to_v_ip" in k else t for k, t in weights.items()}
    moved, plain = [], world.call(world.models[kind])
    for content in (weights, zeroed):
        monkeypatch.setitem(globals(), "own", lambda *args, content=content: content)
        moved.append(world.call(steered(world, vision, kind, tmp_path, encoder.weights_sha256).result[0]))
    assert torch.equal(moved[1], plain) and not torch.allclose(moved[0], plain, atol=1e-3)


@pytest.mark.parametrize("kind", ["flux", "sd35"])
def test_another_image_encoder_is_refused_by_its_hash(world, vision, encoder, kind, tmp_path):
    assert vision.weights_sha256 == encoder.weights_sha256
    with pytest.raises(world.adapter_error, match=r"trained on the image encoder realrag-small .*it would see noise"):
        steered(world, vision, kind, tmp_path, "0" * 64)
    with pytest.raises(world.adapter_error, match="of unknown weights"):
        steered(world, Vision(), kind, tmp_path, encoder.weights_sha256)
    with pytest.raises(world.adapter_error, match=r"through realrag-small. Connect clip_vision of Load Refl"):
        steered(world, None, kind, tmp_path, encoder.weights_sha256)


def test_a_pack_of_an_adapter_of_our_own_gives_the_same_picture(world, vision, encoder, tmp_path):
    out = steered(world, vision, "sd35", tmp_path, encoder.weights_sha256)
    adapter = world.plugin("realrag.adapters").load_adapter(tmp_path / "own.safetensors")
    managed = world.plugin("nodes.injection.load_adapter").ManagedAdapter.of(adapter)
    packs, base = (
        world.plugin("nodes.injection.bake_pack"),
        world.plugin("nodes.injection.inputs.base_model").base_of(world.models["sd35"]),
    )
    pack = packs.make_pack(base, managed, [photo(1)[0]], vision, None, half=False)
    packed = world.inject.InjectReferences.execute(
        world.models["sd35"], pack=pack, adapter=managed, **{**DIALS, "strength": 0.7}
    )
    assert torch.equal(world.call(packed.result[0]), world.call(out.result[0]))


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_a_miniature_in_comfyui_is_steered_as_in_training(world, vision, encoder, kind, tmp_path):
    """The whole network, positive and negative prompt in one call: what was trained is what is painted."""
    pytest.importorskip("realrag_train")
    from test_miniature_parity import SMALL, TIGHT, comfyui_model, filled

    from realrag.adapters import load_adapter
    from realrag.adapters.hooks import Steered
    from realrag.miniature.painting import Miniature

    ours = filled(SMALL[kind]())
    theirs = comfyui_model(ours)
    sizes = dict(width=256, context=64, blocks=1, tokens=TOKENS, spatial=True) if kind == "flux" else dict(
        width=128, blocks=2, tokens=18, own_keys=False
    )  # fmt: skip
    make = synthetic.xlabs if kind == "flux" else synthetic.instantx
    from safetensors.torch import save_file

    reading = world.plugin("realrag.adapters.reading")
    about = dict(format=reading.FORMAT, version=reading.VERSION, base="a miniature", encoder="realrag-small")
    about |= dict(encoder_sha256=encoder.weights_sha256, family="flux-xlabs" if kind == "flux" else "sd35-instantx")
    save_file(make(encoder=1024, **sizes), tmp_path / "own.safetensors", about)
    loaded = world.plugin("realrag.adapters").load_adapter(tmp_path / "own.safetensors")
    injected = world.inject.InjectReferences.execute(
        theirs,
        image=photo(1),
        adapter=world.plugin("nodes.injection.load_adapter").ManagedAdapter.of(loaded),
        clip_vision=vision,
        **DIALS,
    ).result[0]
    rng = torch.Generator().manual_seed(4)
    x, states, pooled = (torch.randn(*shape, generator=rng) for shape in ((2, 16, 8, 12), (2, 5, 24), (2, 20)))
    sigma = torch.tensor([0.6, 0.6])
    import comfy.model_management as management
    import comfy.patcher_extension

    management.load_models_gpu([injected])
    options = comfy.patcher_extension.copy_nested_dicts(injected.model_options["transformer_options"])
    options |= dict(cond_or_uncond=[0, 1], sigmas=sigma[:1], wrappers=injected.wrappers)
    denoised = injected.model.apply_model(x, sigma, c_crossattn=states, y=pooled, transformer_options=options)
    found = (x - denoised) / sigma[:, None, None, None]
    steered = Steered(Miniature(ours), load_adapter(tmp_path / "own.safetensors"))
    features = hidden_of(encoder).float().expand(2, -1, -1)
    wanted = steered.velocity(x, sigma, states, pooled, features, torch.tensor([True, False]))
    plain = steered.velocity(x, sigma, states, pooled)
    assert (found - wanted).norm() < 5 * TIGHT * wanted.norm()
    assert (found - wanted).norm() < 1e-3 * (wanted - plain).norm()
