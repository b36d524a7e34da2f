"""Core's TorchCompileModel beside references: right pictures in any order, and no trace once they are gone.

It compiles without the guards on a call's options, so what one call's options held is taken to be there in the next.
"""

from __future__ import annotations

import shutil

import pytest
import torch
from injection_world import photo

WAYS = [("flux", "adapter"), ("flux", "shared"), ("sd35", "adapter"), ("sd35", "shared")]


def compiled(model, backend="eager"):
    """The MODEL of core's node; its wrapper, not its list of back ends."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras import nodes_torch_compile

    # older versions keep every guard
    skip = getattr(nodes_torch_compile, "skip_torch_compile_dict", None)
    model = model.clone()
    set_torch_compile_wrapper(model=model, backend=backend, options={"guard_filter_fn": skip} if skip else None)
    return model


@pytest.fixture(autouse=True)
def fresh():
    import torch._dynamo

    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def check(world, *models, steps=3):
    """Each model in turn gives the same picture compiled as not compiled."""
    for number, model in enumerate(models):
        plain = world.sample(model, steps=steps)
        torch.testing.assert_close(
            world.sample(compiled(model), steps=steps), plain, rtol=1e-4, atol=1e-4, msg=str(number)
        )


@pytest.mark.parametrize("kind, way", [("flux", "adapter"), ("sd35", "shared")])
def test_references_then_none_then_references_again(world, kind, way):
    plain, late = world.models[kind], world.steered(kind, way, image=photo(9), start_percent=0.5)
    check(world, world.steered(kind, way), plain, late, plain)


@pytest.mark.parametrize("kind, way", [("flux", "shared"), ("sd35", "adapter")])
def test_none_then_references_that_leave_within_the_sampling(world, kind, way):
    check(world, world.models[kind], world.steered(kind, way, end_percent=0.5), world.models[kind])


@pytest.mark.parametrize("kind, way", WAYS)
def test_every_call_of_a_sampling_has_the_same_keys(world, kind, way):
    """In and out of the window; and a call without references has none of ours."""
    seen = []

    def note(executor, *args, **kwargs):
        options = next(arg for arg in (*args, *kwargs.values()) if isinstance(arg, dict) and "sigmas" in arg)
        seen.append((sorted(options), sorted(options.get("patches_replace", {}).get("dit", {})), "patches" in options))
        return executor(*args, **kwargs)

    def noted(model):
        model = model.clone()
        model.add_wrapper_with_key("apply_model", "test", note)
        return model

    world.sample(noted(world.models[kind]), steps=4)
    bare = seen[:]
    seen.clear()
    world.sample(noted(world.steered(kind, way, start_percent=0.3, end_percent=0.6)), steps=4)
    assert len(seen) >= 4 and all(one == seen[0] for one in seen)
    assert seen[0][1] and not seen[0][2], "blocks of ours in every call, and nothing in the table of patches"
    assert all("realrag" not in keys for keys, _, _ in bare)
    seen.clear()
    world.sample(noted(world.steered(kind, way, strength=0.0)), steps=4)
    assert seen == bare


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("kind, way", [("flux", "adapter"), ("sd35", "adapter")])
def test_cores_node_with_inductor_paints_what_the_plain_model_paints(world, kind, way, tmp_path, monkeypatch):
    """In and out of a window, then without references: one compiled network sees all kinds of calls."""
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    pictures = []
    for model in (world.steered(kind, way, end_percent=0.5), world.models[kind]):
        plain = world.sample(model, steps=3)
        fast = world.sample(TorchCompileModel.execute(model, "inductor").result[0], steps=3)
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-3)
        pictures.append(fast)
    assert (pictures[0] - pictures[1]).abs().max() > 0.01, "references count"
