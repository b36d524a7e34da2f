"""What `realrag bench inject` runs inside ComfyUI: python bench.py JSON. Its last line is the answer as JSON."""

from __future__ import annotations

import importlib
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
POOLED = 768


def start(folder: str, device: str) -> None:
    """Put ComfyUI on the path and let it read its arguments."""
    sys.path.insert(0, folder)
    import comfy.options

    sys.argv = [sys.argv[0]] + (["--cpu"] if device == "cpu" else [])
    comfy.options.enable_args_parsing()
    import comfy.model_management  # noqa: F401  reads the arguments


def plugin(name: str):
    """A module of this pack, imported as ComfyUI imports it: by path, under a name of its own."""
    own = "realrag_bench_pack"
    if own not in sys.modules:
        spec = importlib.util.spec_from_file_location(own, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        module = sys.modules[own] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return importlib.import_module(f"{own}.{name}")


def flux(job: dict, dtype):
    """A Flux of the given size with random weights, as a ModelPatcher."""
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models
    import torch
    from comfy.ldm.flux.model import FluxParams

    config = dict(
        in_channels=16, out_channels=16, vec_in_dim=POOLED, context_in_dim=4096 if job["width"] > 1000 else 64,
        hidden_size=job["width"], mlp_ratio=4.0, num_heads=job["width"] // 128, depth=job["double"],
        depth_single_blocks=job["single"], axes_dim=[16, 56, 56], theta=10000, patch_size=2, qkv_bias=True,
        guidance_embed=True,
    )  # fmt: skip
    if "txt_ids_dims" in FluxParams.__dataclass_fields__:
        config["txt_ids_dims"] = []
    settings = comfy.supported_models.Flux({"image_model": "flux", **config})
    settings.set_inference_dtype(dtype, None)
    built = settings.get_model({}, "", device=management.get_torch_device())
    torch.manual_seed(0)
    for name, weight in built.diffusion_model.named_parameters():
        weight.normal_(1.0 if "norm" in name else 0.0, 0.02)
    return comfy.model_patcher.ModelPatcher(
        built, management.get_torch_device(), management.unet_offload_device()
    ), config["context_in_dim"]


def steered(model, job: dict):
    """The model with baked keys and values of the adapter's size; random ones cost what real ones cost."""
    import torch

    base = plugin("nodes.base_model").base_of(model)
    family = plugin("nodes.packs").BAKED[job["family"]]
    blocks = base.double + (base.single if family.uses_single else 0)
    shape = (1, base.heads, job["references"] * job["tokens"], base.width // base.heads)
    baked = [torch.randn(shape) for _ in range(2 * blocks)]
    injection = family(base, baked, job["references"], strength=0.7, start_percent=0.0, end_percent=1.0)
    return plugin("nodes.patch").attach(model, injection)


def main(job: dict) -> dict:
    start(job["comfyui"], job["device"])
    import comfy.model_management as management
    import comfy.patcher_extension
    import torch

    torch.set_num_threads(1 if job["device"] == "cpu" else torch.get_num_threads())
    dtype = torch.float32 if job["device"] == "cpu" else torch.bfloat16
    model, context_width = flux(job, dtype)
    ways = {"without_ms": model, "with_ms": steered(model, job)}
    device, rows = management.get_torch_device(), job["batch"]
    x = torch.randn(rows, 16, job["side"] // 8, job["side"] // 8, device=device, dtype=dtype)
    context = torch.randn(rows, job["text"], context_width, device=device, dtype=dtype)
    pooled, guidance = torch.randn(rows, POOLED, device=device, dtype=dtype), torch.full((rows,), 3.5, device=device)
    sigma = torch.full((rows,), 0.7, device=device)

    def step(way) -> float:
        options = comfy.patcher_extension.copy_nested_dicts(way.model_options["transformer_options"])
        options |= dict(cond_or_uncond=[0], sigmas=sigma[:1], wrappers=way.wrappers)
        started = time.perf_counter()
        out = way.model.apply_model(
            x, sigma, c_crossattn=context, transformer_options=options, y=pooled, guidance=guidance
        )
        out.flatten()[0].item()  # waits for the device
        return 1000 * (time.perf_counter() - started)

    times = {name: [] for name in ways}
    for number in range(job["rounds"] + 2):  # the first two warm up
        for name, way in ways.items():
            management.load_models_gpu([way])
            took = step(way)
            if number > 1:
                times[name].append(took)
    version = getattr(importlib.import_module("comfyui_version"), "__version__", "")
    found = {name: statistics.median(values) for name, values in times.items()}
    return {**found, "device": job["device"], "dtype": str(dtype).removeprefix("torch."), "comfyui": version}


if __name__ == "__main__":
    import torch

    with torch.inference_mode():
        print(json.dumps(main(json.loads(sys.argv[1]))))
