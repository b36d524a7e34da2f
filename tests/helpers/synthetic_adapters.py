"""Adapter state dicts with the exact published key names, any size, random values."""

import torch


def _filled(shapes, seed, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    if device == "meta":
        return {key: torch.empty(shape, device="meta", dtype=dtype) for key, shape in shapes.items()}
    return {
        key: (torch.randn(shape, generator=generator) * 0.3 + (1.0 if "norm" in key and len(shape) == 1 else 0)).to(
            dtype
        )
        for key, shape in shapes.items()
    }


def xlabs(width=256, context=48, blocks=2, encoder=24, tokens=4, seed=0, spatial=False, **kind):
    out = context if spatial else tokens * context
    shapes = {
        "ip_adapter_proj_model.proj.weight": (out, encoder),
        "ip_adapter_proj_model.proj.bias": (out,),
        "ip_adapter_proj_model.norm.weight": (context,),
        "ip_adapter_proj_model.norm.bias": (context,),
    }
    if spatial:
        shapes["ip_adapter_proj_model.position"] = (tokens, context)
    for i in range(blocks):
        for name in ("k", "v"):
            layer = f"double_blocks.{i}.processor.ip_adapter_double_stream_{name}_proj"
            shapes |= {f"{layer}.weight": (width, context), f"{layer}.bias": (width,)}
    return _filled(shapes, seed, **kind)


def instantx(
    width=128, hidden=128, heads=2, blocks=2, encoder=24, tokens=6, depth=2, time=32, head_dim=64, seed=0,
    own_keys=True, **kind
):  # fmt: skip
    """A flat dict; `nested` turns it into the dict of dicts of the published `.bin`. own_keys=False: our trainer's variant."""
    inner, norms = heads * 64, ("norm_q", "norm_k", "norm_ip_k") if own_keys else ("norm_q", "norm_ip_k")
    shapes = {
        "latents": (1, tokens, hidden),
        "proj_in.weight": (hidden, encoder),
        "proj_in.bias": (hidden,),
        "proj_out.weight": (width, hidden),
        "proj_out.bias": (width,),
        "norm_out.weight": (width,),
        "norm_out.bias": (width,),
        "time_embedding.linear_1.weight": (hidden, time),
        "time_embedding.linear_1.bias": (hidden,),
        "time_embedding.linear_2.weight": (hidden, hidden),
        "time_embedding.linear_2.bias": (hidden,),
    }
    for i in range(depth):
        shapes |= {
            f"layers.{i}.0.{norm}.{part}": (hidden,) for norm in ("norm1", "norm2") for part in ("weight", "bias")
        }
        shapes |= {
            f"layers.{i}.0.to_q.weight": (inner, hidden),
            f"layers.{i}.0.to_kv.weight": (2 * inner, hidden),
            f"layers.{i}.0.to_out.weight": (hidden, inner),
            f"layers.{i}.1.0.weight": (hidden,),
            f"layers.{i}.1.0.bias": (hidden,),
            f"layers.{i}.1.1.weight": (4 * hidden, hidden),
            f"layers.{i}.1.3.weight": (hidden, 4 * hidden),
            f"layers.{i}.2.1.weight": (4 * hidden, hidden),
            f"layers.{i}.2.1.bias": (4 * hidden,),
        }
    shapes = {f"image_proj.{key}": shape for key, shape in shapes.items()}
    for i in range(blocks):
        shapes |= {
            f"ip_adapter.{i}.norm_ip.linear.weight": (2 * width, hidden),
            f"ip_adapter.{i}.norm_ip.linear.bias": (2 * width,),
            f"ip_adapter.{i}.to_k_ip.weight": (width, width),
            f"ip_adapter.{i}.to_v_ip.weight": (width, width),
            **{f"ip_adapter.{i}.{norm}.weight": (head_dim,) for norm in norms},
        }
    return _filled(shapes, seed, **kind)


def instantx_flux(width=256, context=48, blocks=4, encoder=24, tokens=5, hidden=32, seed=0, **kind):
    """A flat dict; `nested` turns it into the dict of dicts of the published `.bin`. blocks: double, then single."""
    shapes = {
        "image_proj.proj.0.weight": (hidden, encoder),
        "image_proj.proj.0.bias": (hidden,),
        "image_proj.proj.2.weight": (tokens * context, hidden),
        "image_proj.proj.2.bias": (tokens * context,),
        "image_proj.norm.weight": (context,),
        "image_proj.norm.bias": (context,),
    }
    shapes |= {f"ip_adapter.{i}.to_{n}_ip.weight": (width, context) for i in range(blocks) for n in "kv"}
    return _filled(shapes, seed, **kind)


def redux(width=64, encoder=24, inner=96, seed=0, blocks=None, **kind):
    shapes = {
        "redux_up.weight": (inner, encoder),
        "redux_up.bias": (inner,),
        "redux_down.weight": (width, inner),
        "redux_down.bias": (width,),
    }
    return _filled(shapes, seed, **kind)


def map_head(width=24, inner=40, seed=0, **kind):
    """The pooling head with the keys of a SigLIP vision file."""
    shapes = {
        "probe": (1, 1, width),
        "attention.in_proj_weight": (3 * width, width),
        "attention.in_proj_bias": (3 * width,),
        "attention.out_proj.weight": (width, width),
        "attention.out_proj.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
        "mlp.fc1.weight": (inner, width),
        "mlp.fc1.bias": (inner,),
        "mlp.fc2.weight": (width, inner),
        "mlp.fc2.bias": (width,),
    }
    return _filled({f"vision_model.head.{key}": shape for key, shape in shapes.items()}, seed, **kind)


def nested(flat):
    parts = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in flat.items():
        part, inner = key.split(".", 1)
        parts[part][inner] = tensor
    return parts
