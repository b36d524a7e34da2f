"""References beside a LoRA and beside a ControlNet, both put on by ComfyUI's own code, in any order of nodes."""

from __future__ import annotations

import pytest
import torch
from injection_world import conditioning

both_ways = pytest.mark.parametrize("way", ["adapter", "shared"])
KINDS = pytest.mark.parametrize("kind", ["flux", "sd3", "sd35"])
LAYERS = {"flux": "double_blocks.1.img_mlp.0", "sd3": "joint_blocks.1.x_block.attn.qkv"}


def with_lora(model, kind, strength=0.8):
    """As core's LoraLoader does it, with a file of one layer under its plain name."""
    import comfy.sd

    name = "diffusion_model." + LAYERS["flux" if kind == "flux" else "sd3"]
    rows, columns = model.model.state_dict()[f"{name}.weight"].shape
    generator = torch.Generator().manual_seed(4)
    lora = {
        f"{name}.lora_up.weight": torch.randn(rows, 2, generator=generator) * 0.3,
        f"{name}.lora_down.weight": torch.randn(2, columns, generator=generator) * 0.3,
    }
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, strength, 0.0)
    assert patched.patches
    return patched


def close(one, another):
    torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-5)


def differ(one, another):
    assert torch.isfinite(one).all() and (one - another).norm() > 1e-3 * another.norm()


@KINDS
@both_ways
def test_a_lora_before_or_after_the_references_gives_the_same_picture(world, kind, way):
    plain = world.models[kind]
    before = world.sample(world.steered(kind, way, model=with_lora(plain, kind)))
    after = world.sample(with_lora(world.steered(kind, way), kind))
    assert torch.equal(before, after)
    differ(before, world.sample(world.steered(kind, way)))  # the LoRA counts
    differ(before, world.sample(with_lora(plain, kind)))  # and so do the references


@KINDS
@both_ways
def test_with_a_lora_strength_0_is_exactly_the_lora_alone(world, kind, way):
    lora = with_lora(world.models[kind], kind)
    assert world.steered(kind, way, model=lora, strength=0.0) is lora
    assert torch.equal(
        world.sample(world.steered(kind, way, model=lora, start_percent=0.99)), world.sample(lora)
    )  # in the model, but in no step


def control_of(world, kind, amount):
    """A ControlNet as core's samplers know it: its residuals are merged and scaled by core's own code."""
    from comfy.controlnet import ControlBase

    class Control(ControlBase):
        asked = 0

        def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
            self.asked += 1
            net = world.models[kind].model.diffusion_model
            tokens = -(-x_noisy.shape[-2] // 2) * -(-x_noisy.shape[-1] // 2)
            generator = torch.Generator().manual_seed(9)
            shape, blocks = (1, tokens, net.hidden_size), 2
            made = [torch.randn(shape, generator=generator).repeat(len(x_noisy), 1, 1) for _ in range(blocks)]
            both = {"input": made, "output": [one.clone() for one in made[:1]]}  # of Flux; SD3 reads the output alone
            return self.control_merge(both if kind == "flux" else {"output": made}, None, x_noisy.dtype)

        def copy(self):
            return self

    control = Control()
    control.strength = amount
    return control


def sampled(world, model, control=None, steps=2):
    """As `World.sample`, with the ControlNet on both prompts, as core's Apply ControlNet puts it there."""
    import comfy.sample

    latent = torch.zeros(1, 16, 5, 9)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(3))
    prompts = [conditioning(0), conditioning(1)]
    if control is not None:
        put_on = {"control": control, "control_apply_to_uncond": False}
        prompts = [[[text, {**table, **put_on}]] for [[text, table]] in prompts]
    return comfy.sample.sample(
        model, noise, steps, 2.0, "euler", "simple", *prompts, latent, denoise=1.0, disable_pbar=True, seed=3
    )


@KINDS
@both_ways
def test_a_controlnet_and_references_both_count(world, kind, way):
    plain, steered = world.models[kind], world.steered(kind, way)
    control = control_of(world, kind, 0.5)
    both = sampled(world, steered, control)
    assert control.asked >= 2 and torch.equal(both, sampled(world, steered, control))
    differ(both, sampled(world, steered))  # the ControlNet counts
    differ(both, sampled(world, plain, control))  # and so do the references
    close(sampled(world, steered, control_of(world, kind, 0.0)), sampled(world, steered))


@KINDS
def test_what_references_add_in_the_first_block_is_the_same_with_a_controlnet(world, kind):
    """The residual comes in behind the block, so the adapter's own addition there is untouched."""
    steered, plain = world.steered(kind, "adapter"), world.models[kind]
    residual = [torch.ones(1, 15, plain.model.diffusion_model.hidden_size)]
    control = {"input": residual, "output": []} if kind == "flux" else {"output": residual}
    net = plain.model.diffusion_model
    follower = net.double_blocks[1] if kind == "flux" else net.joint_blocks[1]

    def entering(model, control):
        seen = []

        def note(module, args, kwargs):
            seen.append((kwargs["img"] if "img" in kwargs else args[1]).clone())

        handle = follower.register_forward_pre_hook(note, with_kwargs=True)
        try:
            world.call(model, control=control)
        finally:
            handle.remove()
        return seen[-1]

    alone = entering(steered, None) - entering(plain, None)
    beside = entering(steered, control) - entering(plain, control)
    assert alone.abs().max() > 0
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entering(steered, control) - entering(steered, None), torch.ones_like(alone))


class Packed(torch.Tensor):
    """Stands for a quantised weight (GGUF): notes whatever is done to it."""

    touched: set[str] = set()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", str(function))
        cls.touched.add(name)
        with torch._C.DisableTorchFunctionSubclass():
            found = function(*args, **(kwargs or {}))
            return found.as_subclass(cls) if name in ("detach", "requires_grad_") else found


@KINDS
@both_ways
def test_quantised_weights_are_only_touched_by_the_model_itself(world, kind, way):
    import tiny_models

    plain = tiny_models.model(kind)
    wanted = world.sample(world.steered(kind, way, model=plain))
    packed = tiny_models.model(kind)
    for module in packed.model.diffusion_model.modules():
        if isinstance(module, torch.nn.Linear):
            weight = module.weight.detach().as_subclass(Packed)
            module.weight = torch.nn.Parameter(weight, requires_grad=False)
    assert any(isinstance(weight, Packed) for weight in packed.model.diffusion_model.parameters())
    Packed.touched.clear()
    world.sample(packed)
    alone = set(Packed.touched)
    assert "linear" in alone
    Packed.touched.clear()
    steered = world.steered(kind, way, model=packed)
    assert not Packed.touched  # nothing is read, copied or moved when the node runs
    assert torch.equal(world.sample(steered.clone()), wanted)
    assert Packed.touched <= alone
