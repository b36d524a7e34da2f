"""Each adapter's maths against an independent implementation: the classes of diffusers, in fp32 on random weights."""

import pytest
import synthetic_adapters as synthetic
import torch

from realrag.adapters import build_adapter, instantx_sd3, xlabs
from realrag.adapters.attention import merge_heads, split_heads, unrotate
from realrag.adapters.instantx_flux import branch as instantx_flux_branch
from realrag.adapters.siglip_pooling_head import HEAD, MapHead

TIGHT = 1e-5


@pytest.fixture(autouse=True, scope="module")
def independent():
    pytest.importorskip("diffusers", reason="diffusers is the independent implementation")


def error(ours, reference):
    return ((ours - reference).norm() / reference.norm()).item()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


def test_the_xlabs_projector_and_keys_are_those_of_diffusers(generator):
    from diffusers.models.embeddings import ImageProjection

    weights = synthetic.xlabs(width=256, context=48, encoder=24, tokens=4)
    adapter = build_adapter(weights)
    reference = ImageProjection(image_embed_dim=24, cross_attention_dim=48, num_image_text_embeds=4)
    prefix = "ip_adapter_proj_model."
    reference.load_state_dict(
        {
            key[len(prefix) :].replace("proj.", "image_embeds."): t
            for key, t in weights.items()
            if key.startswith(prefix)
        }
    )
    embeds = torch.randn(3, 24, generator=generator)
    tokens = adapter.tokens(embeds)
    assert error(tokens, reference(embeds)) < TIGHT
    k, v = adapter.keys_values(tokens, 1, heads=2)
    for name, ours in (("k", k), ("v", v)):
        layer = f"double_blocks.1.processor.ip_adapter_double_stream_{name}_proj"
        theirs = torch.nn.functional.linear(tokens, weights[f"{layer}.weight"], weights[f"{layer}.bias"])
        assert error(merge_heads(ours), theirs.reshape(1, -1, 256)) < TIGHT


@pytest.mark.slow
def test_a_flux_block_with_an_xlabs_adapter_is_that_of_diffusers(generator):
    """Block output with the adapter minus without, against our branch on the same block's queries."""
    from diffusers.models.transformers.transformer_flux import (
        FluxIPAdapterAttnProcessor,
        FluxPosEmbed,
        FluxTransformerBlock,
    )

    torch.manual_seed(0)
    weights = synthetic.xlabs(width=64, context=48, encoder=24, tokens=4)
    adapter = build_adapter(weights)
    block = FluxTransformerBlock(dim=64, num_attention_heads=2, attention_head_dim=32)
    processor = FluxIPAdapterAttnProcessor(hidden_size=64, cross_attention_dim=48, num_tokens=[4], scale=0.7)
    processor.load_state_dict(
        {
            f"to_{name}_ip.0.{part}": weights[f"double_blocks.0.processor.ip_adapter_double_stream_{name}_proj.{part}"]
            for name in ("k", "v")
            for part in ("weight", "bias")
        }
    )
    image, text = torch.randn(2, 12, 64, generator=generator), torch.randn(2, 5, 64, generator=generator)
    temb = torch.randn(2, 64, generator=generator)
    ids = torch.stack(torch.meshgrid(torch.zeros(1), torch.arange(3.0), torch.arange(4.0), indexing="ij"), -1).reshape(
        -1, 3
    )
    rotary = FluxPosEmbed(theta=10000, axes_dim=[8, 12, 12])(torch.cat((torch.zeros(5, 3), ids)))
    _, plain = block(image, text, temb, rotary)
    tokens = adapter.tokens(torch.randn(1, 24, generator=generator))
    block.attn.set_processor(processor)
    _, steered = block(image, text, temb, rotary, {"ip_hidden_states": [tokens.expand(2, -1, -1)]})
    normed = block.norm1(image, emb=temb)[0]
    q = block.attn.norm_q(block.attn.to_q(normed).unflatten(-1, (2, 32))).transpose(1, 2)
    ours = plain + 0.7 * xlabs.branch(q, *adapter.keys_values(tokens, 0, heads=2))
    assert error(ours, steered) < TIGHT
    assert error(ours - plain, steered - plain) < TIGHT


def diffusers_resampler(weights, **sizes):
    """Published names -> IPAdapterTimeImageProjection, by diffusers' own conversion table."""
    from diffusers.loaders.transformer_sd3 import SD3Transformer2DLoadersMixin

    state = {key.removeprefix("image_proj."): t for key, t in weights.items() if key.startswith("image_proj.")}
    return SD3Transformer2DLoadersMixin()._convert_ip_adapter_image_proj_to_diffusers(state, low_cpu_mem_usage=False)


@pytest.mark.parametrize("sigma", [1.0, 0.37, 0.0])
def test_the_instantx_resampler_is_that_of_diffusers(generator, sigma):
    # diffusers fixes depth at 4.
    weights = synthetic.instantx(hidden=128, heads=2, depth=4, tokens=6)
    adapter, reference = build_adapter(weights), diffusers_resampler(weights)
    features = torch.randn(2, 9, 24, generator=generator)
    timestep = torch.full((2,), 1000 * sigma)
    with torch.no_grad():
        tokens, time = reference(features, timestep)
        ours, our_time = adapter.tokens(features, timestep)
    assert error(our_time, time) < TIGHT
    assert error(ours, tokens) < TIGHT


@pytest.mark.parametrize("recovered", [False, True])
def test_the_instantx_branch_is_that_of_diffusers(generator, recovered):
    """Once on raw q and k, once on q and k recovered from behind the generator's own RMS norm (as in ComfyUI)."""
    from diffusers.models.attention_processor import Attention, SD3IPAdapterJointAttnProcessor2_0

    torch.manual_seed(0)
    weights = synthetic.instantx(width=128, hidden=128)
    adapter = build_adapter(weights)
    processor = SD3IPAdapterJointAttnProcessor2_0(128, 128, 64, timesteps_emb_dim=128, scale=0.5)
    prefix = "ip_adapter.1."
    processor.load_state_dict({key[len(prefix) :]: t for key, t in weights.items() if key.startswith(prefix)})
    attention = Attention(
        query_dim=128, dim_head=64, heads=2, out_dim=128, added_kv_proj_dim=128, context_pre_only=False, bias=True,
        qk_norm="rms_norm", eps=1e-6, processor=processor,
    )  # fmt: skip
    for norm in (attention.norm_q, attention.norm_k):
        norm.weight.data = torch.randn(64, generator=generator) * 0.5 + 1
    attention.to_out[0].weight.data, attention.to_out[0].bias.data = torch.eye(128), torch.zeros(128)
    image, text = torch.randn(2, 12, 128, generator=generator), torch.randn(2, 5, 128, generator=generator)
    tokens, time = torch.randn(2, 6, 128, generator=generator), torch.randn(2, 128, generator=generator)
    with torch.no_grad():
        steered, _ = attention(image, text, ip_hidden_states=tokens, temb=time)
        plain, _ = attention(image, text)
        q, k, v = (split_heads(layer(image), 2) for layer in (attention.to_q, attention.to_k, attention.to_v))
        if recovered:
            q = instantx_sd3.raw(attention.norm_q(q), attention.norm_q.weight)
            k = instantx_sd3.raw(attention.norm_k(k), attention.norm_k.weight)
        ours = 0.5 * adapter.branch(1, q, k, v, *adapter.keys_values(tokens, time, 1))
    assert error(plain + ours, steered) < TIGHT
    assert error(ours, steered - plain) < (5e-5 if recovered else TIGHT)


@pytest.mark.parametrize("legacy", [False, True])
def test_flux_instantx_is_the_published_formula_written_out_slowly(generator, legacy):
    """Loops over tokens and heads in fp64: LayerNorm of a two-layer MLP, keys RMS-normed per head, values raw."""
    weights = synthetic.instantx_flux(width=64, context=24, encoder=12, tokens=3, hidden=20)
    w = {key.split(".", 1)[1]: tensor.double() for key, tensor in weights.items()}
    adapter, heads, size = build_adapter(weights), 2, 32
    pooled, q = torch.randn(2, 12, generator=generator), torch.randn(2, heads, 7, size, generator=generator)
    tokens = []
    for row in pooled.double():
        hidden = w["proj.0.weight"] @ row + w["proj.0.bias"]
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
        for token in (w["proj.2.weight"] @ hidden + w["proj.2.bias"]).split(24):
            token = (token - token.mean()) / (token.var(correction=0) + 1e-5).sqrt()
            tokens.append(token * w["norm.weight"] + w["norm.bias"])
    ours = adapter.tokens(pooled)
    assert error(ours.flatten(0, 1).double(), torch.stack(tokens)) < TIGHT
    expected = torch.zeros(2, 7, 64, dtype=torch.float64)
    for head in range(heads):
        span = slice(head * size, (head + 1) * size)
        keys, values = ([(w[f"2.to_{n}_ip.weight"] @ token)[span] for token in tokens] for n in "kv")
        keys = [key / (key.square().mean() + 1e-5).sqrt() for key in keys]
        if legacy:
            values = [value / (value.square().mean() + 1e-5).sqrt() for value in values]
        for row in range(2):
            for place in range(7):
                scores = torch.stack([q[row, head, place].double() @ key / size**0.5 for key in keys]).exp()
                expected[row, place, span] = sum(s * v for s, v in zip(scores / scores.sum(), values, strict=True))
    found = instantx_flux_branch(q, *adapter.keys_values(ours, 2, heads, legacy))
    assert error(found.double(), expected) < TIGHT


@pytest.mark.parametrize("width, heads", [(128, 2), (1152, 16)])
def test_the_pooling_head_is_that_of_transformers(generator, width, heads):
    siglip = pytest.importorskip("transformers.models.siglip.modeling_siglip")
    config = siglip.SiglipVisionConfig(hidden_size=width, intermediate_size=200, num_attention_heads=heads)
    config._attn_implementation = "eager"
    reference = siglip.SiglipMultiheadAttentionPoolingHead(config)
    weights = {key.removeprefix(HEAD): tensor for key, tensor in synthetic.map_head(width=width, inner=200).items()}
    reference.load_state_dict(weights)
    hidden = torch.randn(3, 9, width, generator=generator)
    with torch.no_grad():
        assert error(MapHead(weights)(hidden), reference(hidden)) < TIGHT


def test_unrotate_undoes_the_rotation_pair_by_pair(generator):
    angles = torch.rand(1, 1, 5, 4, generator=generator) * 6
    pe = torch.stack((angles.cos(), -angles.sin(), angles.sin(), angles.cos()), -1).unflatten(-1, (2, 2))
    x = torch.randn(2, 3, 5, 8, generator=generator)
    rotated = torch.empty_like(x)
    for row, head, place, pair in torch.cartesian_prod(*map(torch.arange, (2, 3, 5, 4))).tolist():
        span = slice(2 * pair, 2 * pair + 2)
        rotated[row, head, place, span] = pe[0, 0, place, pair] @ x[row, head, place, span]
    assert error(unrotate(rotated, pe), x) < 1e-6
    assert unrotate(rotated, None) is rotated
