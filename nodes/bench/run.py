"""What `realrag bench inject` runs inside ComfyUI: python bench.py JSON. Its last line is the answer as JSON."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(folder: str, device: str) -> None:
    """Put ComfyUI on the path, in the place of this script's folder, and let it read its arguments."""
    sys.path[0] = folder
    import comfy.options

    sys.argv = [sys.argv[0]] + (["--cpu"] if device == "cpu" else [])
    comfy.options.enable_args_parsing()
    import comfy.model_management  # reads the arguments


def plugin(name: str):
    """A module of this pack, imported as ComfyUI imports it: by path, under a name of its own."""
    own = "realrag_bench_pack"
    if own not in sys.modules:
        spec = importlib.util.spec_from_file_location(own, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        module = sys.modules[own] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return importlib.import_module(f"{own}.{name}")


def steered(model, job: dict):
    """The model with references through an adapter of the family's published size."""
    import torch

    base = plugin("nodes.injection.inputs.base_model").base_of(model)
    inputs = plugin("nodes.injection.inputs.controls")
    controls = inputs.Controls(inputs.Strength(weight=0.7))
    if job["family"].endswith("shared"):
        shape = (1, 16, job["side"] // 8, job["side"] // 8)
        latents = [torch.randn(shape) for _ in range(job["references"])]
        shared = plugin("nodes.injection.model.shared_attention").SharedInjection
        injection = shared(base, controls, latents, list(range(job["references"])))
    elif job["family"].startswith("sd35"):
        dtype = next(model.model.diffusion_model.parameters()).dtype
        weights = plugin("nodes.bench.models").instantx_weights(base.width, base.double, dtype)
        managed = plugin("nodes.injection.load_adapter").ManagedAdapter.of(
            plugin("realrag.adapters").build_adapter(weights)
        )
        features = [torch.randn(1, 729, managed.adapter.spec.encoder_dim) for _ in range(job["references"])]
        injection = plugin("nodes.injection.model.instantx_sd3").InstantXInjection(base, controls, managed, features)
    else:
        family = plugin("nodes.injection.bake_pack").BAKED[job["family"]]
        blocks = base.double + (base.single if family.uses_single else 0)
        shape = (1, base.heads, job["references"] * job["tokens"], base.width // base.heads)
        baked = [torch.randn(shape) for _ in range(2 * blocks)]
        injection = family(base, controls, baked, job["references"])
    return plugin("nodes.injection.model.patch").attach(model, injection)


def alive(device) -> int:
    """Bytes of tensors that are alive: on the device, or, on a CPU, all that Python knows of."""
    import torch

    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    storages = {}
    for found in gc.get_objects():
        if issubclass(type(found), torch.Tensor) and found.device.type == "cpu":
            with contextlib.suppress(RuntimeError):  # a tensor of torch's compiler has a shape and no bytes
                storages[found.untyped_storage().data_ptr()] = found.untyped_storage().nbytes()
    return sum(storages.values())


def main(job: dict) -> dict:
    start(job["comfyui"], job["device"])
    import comfy.model_management as management
    import comfy.patcher_extension
    import torch

    torch.set_num_threads(1 if job["device"] == "cpu" else torch.get_num_threads())
    dtype = torch.float32 if job["device"] == "cpu" else torch.bfloat16
    model, text_width, pooled_width = plugin("nodes.bench.models").generator(job, dtype)
    # a CPU's own seconds, on one thread: other work on the machine does not count
    clock = time.process_time if job["device"] == "cpu" else time.perf_counter
    device, rows = management.get_torch_device(), job["batch"]
    x = torch.randn(rows, 16, job["side"] // 8, job["side"] // 8, device=device, dtype=dtype)
    given = dict(
        c_crossattn=torch.randn(rows, job["text"], text_width, device=device, dtype=dtype),
        y=torch.randn(rows, pooled_width, device=device, dtype=dtype),
    )
    if job["family"].startswith("flux"):
        given["guidance"] = torch.full((rows,), 3.5, device=device)
    sigma = torch.full((rows,), 0.7, device=device)

    def step(way) -> tuple[float, torch.Tensor]:
        """Milliseconds and what came out of one model call, made as ComfyUI's sampler makes it."""
        management.load_models_gpu([way, *way.get_nested_additional_models()])
        way.pre_run()
        options = comfy.patcher_extension.copy_nested_dicts(way.model_options["transformer_options"])
        options |= dict(cond_or_uncond=[0], sigmas=sigma[:1], wrappers=way.wrappers)
        sent = {**given, "transformer_options": options}
        wrapped = way.model_options.get("model_function_wrapper")
        started = clock()
        if wrapped is None:
            out = way.model.apply_model(x, sigma, **sent)
        else:
            out = wrapped(way.model.apply_model, {"input": x, "timestep": sigma, "c": sent, "cond_or_uncond": [0]})
        out.flatten()[0].item()  # waits for the device
        return 1000 * (clock() - started), out

    step(model)
    before, figures = alive(device), {}
    ways = {"without_ms": model, "with_ms": steered(model, job)}
    if job["other"] is not None:
        plain = step(model)[1]
        ways["other_ms"] = plugin("nodes.bench.other_packs").apply(job["other"], model.clone())
        figures["other_at_work"] = not torch.equal(step(ways["other_ms"])[1], plain)
        figures["other_leaves_model_clean"] = torch.equal(step(model)[1], plain)
    times = {name: [] for name in ways}
    for number in range(job["rounds"] + 2):  # the first two warm up
        for name in list(ways)[:: 1 - 2 * (number % 2)]:  # forth and back: who comes first pays for what wakes up
            took = step(ways[name])[0]
            if number > 1:
                times[name].append(took)
    if job["other"] is None:
        ways.pop("with_ms").detach()
        management.unload_all_models()
        step(model)
        figures["held_bytes"] = alive(device) - before
    version = getattr(importlib.import_module("comfyui_version"), "__version__", "")
    figures |= {name: statistics.median(values) for name, values in times.items()}
    figures["ratio"] = statistics.median(b / a for a, b in zip(times["without_ms"], times["with_ms"], strict=True))
    return {**figures, "device": job["device"], "dtype": str(dtype).removeprefix("torch."), "comfyui": version}


if __name__ == "__main__":
    import torch

    with torch.inference_mode():
        print(json.dumps(main(json.loads(sys.argv[1]))))
