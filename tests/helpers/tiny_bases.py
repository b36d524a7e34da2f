"""Tiny random diffusers transformers as bases of adapters, and inputs for them."""

import torch

PLACES, ENCODER = 5, 24


def tiny(kind, norms=True):
    """ "sd3" or "flux", two double blocks of two heads."""
    import diffusers

    from realrag_train.adapter.bases import DiffusersFlux, DiffusersSD3, frozen

    torch.manual_seed(0)
    if kind == "sd3":
        net = diffusers.SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=64, num_attention_heads=2,
            joint_attention_dim=32, caption_projection_dim=128, pooled_projection_dim=16, out_channels=16,
            pos_embed_max_size=8, qk_norm="rms_norm" if norms else None,
        )  # fmt: skip
    else:
        net = diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=64, num_layers=2, num_single_layers=1, attention_head_dim=32, num_attention_heads=2,
            joint_attention_dim=32, pooled_projection_dim=16, axes_dims_rope=(8, 12, 12), guidance_embeds=True,
        )  # fmt: skip
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a fresh model's last layer is zero, so its output would not depend on the rest
        for weight in net.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=rng) * 0.6 * weight[0].numel() ** -0.5)
    wrap = DiffusersSD3 if kind == "sd3" else DiffusersFlux
    return frozen(wrap(net, f"a tiny {kind}"), "fp32", False)


def inputs(rows=2, seed=2):
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=rng)

    sigma = torch.tensor([0.7, 0.3, 0.9, 0.5])[:rows]
    parts = dict(x=draw(rows, 16, 6, 8), sigma=sigma, states=draw(rows, 7, 32), pooled=draw(rows, 16))
    return parts, draw(rows, PLACES, ENCODER)
