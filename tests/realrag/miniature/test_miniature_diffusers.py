"""The miniature models against diffusers, an implementation that shares no line with ours or ComfyUI's."""

import pytest
import torch
from tiny_miniature import filled, inputs

from realrag.miniature.flux import Flux, FluxConfig
from realrag.miniature.sd3 import SD3, SD3Config


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


def swapped(x):
    """diffusers' last modulation says scale before shift."""
    return torch.cat(x.chunk(2)[::-1])


def split(state, old, *new):
    """One fused projection as several; what is asked for is taken out of `state`."""
    return {
        f"{name}.{part}": value
        for part in ("weight", "bias")
        for name, value in zip(new, state.pop(f"{old}.{part}").chunk(len(new)), strict=True)
    }


def renamed(state, pairs):
    return {f"{new}.{part}": state.pop(f"{old}.{part}") for old, new in pairs.items() for part in ("weight", "bias")}


def as_sd3(model):
    state, last = dict(model.state_dict()), model.config.depth - 1
    out = {"pos_embed.pos_embed": state.pop("pos_embed")}
    out |= renamed(state, {
        "x_embedder.proj": "pos_embed.proj", "context_embedder": "context_embedder", "final_layer.linear": "proj_out",
        **{f"{ours}_embedder.mlp.{at}": f"time_text_embed.{theirs}_embedder.linear_{n}"
           for ours, theirs in (("t", "timestep"), ("y", "text")) for at, n in ((0, 1), (2, 2))},
    })  # fmt: skip
    out |= {
        f"norm_out.linear.{part}": swapped(state.pop(f"final_layer.adaLN_modulation.1.{part}"))
        for part in ("weight", "bias")
    }
    for i in range(last + 1):
        for ours, to, add, norm, ff in (
            ("x_block", "to_{}", "", "", "ff"),
            ("context_block", "add_{}_proj", "_context", "added_", "ff_context"),
        ):
            a, b = f"joint_blocks.{i}.{ours}", f"transformer_blocks.{i}"
            out |= split(state, f"{a}.attn.qkv", *(f"{b}.attn.{to.format(x)}" for x in "qkv"))
            out |= {f"{b}.attn.norm_{norm}{x}.weight": state.pop(f"{a}.attn.ln_{x}.weight") for x in "qk"}
            more = renamed(state, {f"{a}.adaLN_modulation.1": f"{b}.norm1{add}.linear"})
            if i == last and add:
                out |= {name: swapped(value) for name, value in more.items()}
                continue
            proj = f"{b}.attn.to_add_out" if add else f"{b}.attn.to_out.0"
            out |= more | renamed(
                state,
                {f"{a}.attn.proj": proj, f"{a}.mlp.fc1": f"{b}.{ff}.net.0.proj", f"{a}.mlp.fc2": f"{b}.{ff}.net.2"},
            )
    assert not state
    return out


def as_flux(model):
    state = dict(model.state_dict())
    out = renamed(state, {
        "img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out",
        **{f"{ours}_in.{layer}_layer": f"time_text_embed.{theirs}_embedder.linear_{n}"
           for ours, theirs in (("time", "timestep"), ("vector", "text")) for layer, n in (("in", 1), ("out", 2))},
    })  # fmt: skip
    out |= {
        f"norm_out.linear.{part}": swapped(state.pop(f"final_layer.adaLN_modulation.1.{part}"))
        for part in ("weight", "bias")
    }
    for i in range(model.config.double):
        for ours, to, add, norm, proj in (
            ("img", "to_{}", "", "", "to_out.0"),
            ("txt", "add_{}_proj", "_context", "added_", "to_add_out"),
        ):
            a, b = f"double_blocks.{i}.{ours}", f"transformer_blocks.{i}"
            out |= split(state, f"{a}_attn.qkv", *(f"{b}.attn.{to.format(x)}" for x in "qkv"))
            out |= {
                f"{b}.attn.norm_{norm}{x[0]}.weight": state.pop(f"{a}_attn.norm.{x}_norm.scale")
                for x in ("query", "key")
            }
            out |= renamed(state, {f"{a}_mod.lin": f"{b}.norm1{add}.linear", f"{a}_attn.proj": f"{b}.attn.{proj}",
                                   f"{a}_mlp.0": f"{b}.ff{add}.net.0.proj", f"{a}_mlp.2": f"{b}.ff{add}.net.2"})  # fmt: skip
    for i in range(model.config.single):
        a, b, width = f"single_blocks.{i}", f"single_transformer_blocks.{i}", model.config.width
        for part in ("weight", "bias"):
            *qkv, inner = state.pop(f"{a}.linear1.{part}").split([width, width, width, 4 * width])
            out |= {f"{b}.attn.to_{x}.{part}": value for x, value in zip("qkv", qkv, strict=True)} | {
                f"{b}.proj_mlp.{part}": inner
            }
        out |= {f"{b}.attn.norm_{x[0]}.weight": state.pop(f"{a}.norm.{x}_norm.scale") for x in ("query", "key")}
        out |= renamed(state, {f"{a}.linear2": f"{b}.proj_out", f"{a}.modulation.lin": f"{b}.norm.linear"})
    assert not state
    return out


def near(found, wanted):
    assert found.shape == wanted.shape and wanted.std() > 1e-2
    assert (found - wanted).norm() / wanted.norm() < 1e-5


@pytest.mark.slow
def test_sd3_is_diffusers_sd3(diffusers):
    ours = filled(SD3(SD3Config(depth=2, context=24, pooled=20, grid=12)))
    theirs = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=64, num_attention_heads=2,
        joint_attention_dim=24, caption_projection_dim=128, pooled_projection_dim=20, out_channels=16, pos_embed_max_size=12,
        qk_norm="rms_norm",
    ).eval()  # fmt: skip
    theirs.load_state_dict(as_sd3(ours))
    x, t, states, pooled = inputs(height=12, width=8)
    with torch.no_grad():
        near(ours(x, t, states, pooled), theirs(x, states, pooled, 1000 * t, return_dict=False)[0])


def test_flux_is_diffusers_flux(diffusers):
    ours = filled(Flux(FluxConfig(double=1, single=2, context=24, pooled=20)))
    theirs = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=2, attention_head_dim=128, num_attention_heads=2,
        joint_attention_dim=24, pooled_projection_dim=20, guidance_embeds=False, axes_dims_rope=(16, 56, 56),
    ).eval()  # fmt: skip
    theirs.load_state_dict(as_flux(ours))
    x, t, states, pooled = inputs(height=12, width=8)
    packed = x.view(2, 16, 6, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(2, 24, 64)
    ids = torch.zeros(6, 4, 3)
    ids[..., 1], ids[..., 2] = torch.arange(6)[:, None], torch.arange(4)[None]
    with torch.no_grad():
        found = theirs(packed, states, pooled, t, ids.reshape(24, 3), torch.zeros(5, 3), return_dict=False)[0]
    unpacked = found.view(2, 6, 4, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(2, 16, 12, 8)
    near(ours(x, t, states, pooled), unpacked)
