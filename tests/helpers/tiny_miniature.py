"""Files of a tiny miniature with random weights: generator and autoencoder, as the trainer and the plugin load them."""

import torch
from safetensors.torch import save_file

from realrag.miniature.autoencoder import FORMAT, VERSION, Autoencoder
from realrag.miniature.flux import Flux, FluxConfig
from realrag.miniature.generator import save_generator
from realrag.miniature.sd3 import SD3, SD3Config


def write(folder, kind):
    """folder/{generator,autoencoder}.safetensors; the generator has one or two double blocks of width 128."""
    torch.manual_seed(0)
    net = SD3(SD3Config(depth=2)) if kind == "sd3" else Flux(FluxConfig(width=128, double=2, single=1))
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a fresh model's last layer is zero, so its output would not depend on the rest
        for weight in net.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=rng) * 0.6 * weight[0].numel() ** -0.5)
    save_generator(folder / "generator.safetensors", net, net.state_dict(), {})
    state = {name: value.half().contiguous() for name, value in Autoencoder().state_dict().items()}
    save_file(state, folder / "autoencoder.safetensors", {"format": FORMAT, "version": VERSION})
    return {"path": str(folder / "generator.safetensors"), "autoencoder": str(folder / "autoencoder.safetensors")}


def inputs(rows=2, height=8, width=8, seed=1):
    rng = torch.Generator().manual_seed(seed)
    sizes = (rows, 16, height, width), (rows, 5, 24), (rows, 20)
    x, states, pooled = (torch.randn(size, generator=rng) for size in sizes)
    return x, torch.linspace(0.9, 0.2, rows), states, pooled


def filled(model):
    """No layer stays zero, and no norm's weight stays one."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        spread = torch.randn_like(weight)
        norm = weight.ndim == 1 and name.endswith(("scale", "ln_q.weight", "ln_k.weight"))
        weight.data = 1 + 0.3 * spread if norm else 0.08 * spread
    return model.eval().requires_grad_(False)
