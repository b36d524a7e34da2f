"""Where references have no effect, one warning names the likely cause and the cure; where they have, none comes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from controls_world import edited, retrieved, steered
from injection_world import ALL, conditioning


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("way", ["adapter", "shared"])
def test_references_at_work_cause_no_warning(world, caplog, kind, way):
    world.sample(world.steered(kind, way))
    assert not warnings(caplog)


def test_a_node_that_replaces_whole_blocks_is_named_once(world, caplog):
    steered = world.steered("flux", "adapter")
    for i in range(2):
        steered.set_model_patch_replace(
            lambda args, extra: {"img": args["img"], "txt": args["txt"]}, "dit", "double_block", i
        )
    for _ in range(2):
        world.call(steered)
    (said,) = warnings(caplog)
    assert __name__ in said and "Bypass that node" in said and "Redux" in said


def test_another_nodes_hook_that_lets_the_attention_by_causes_no_warning(world, caplog):
    steered = world.steered("flux", "adapter")
    steered.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "double_block", 0)
    world.call(steered)
    assert not warnings(caplog)


def test_a_cache_that_skips_the_blocks_is_suspected(world, caplog, monkeypatch):
    steered = world.steered("flux", "adapter")
    net = steered.model.diffusion_model
    monkeypatch.setattr(type(net), "forward_orig", lambda self, img, *args, **kwargs: img)
    world.call(steered)
    (said,) = warnings(caplog)
    assert "test_watchdog_inprocess" in said and "cache" in said and "Bypass that node" in said


def test_a_kernel_without_hooks_is_suspected(world, caplog, monkeypatch):
    import comfy.ldm.flux.layers as layers

    monkeypatch.setattr(layers, "attention", lambda q, k, v, *args, **kwargs: v.transpose(1, 2).flatten(2))
    world.call(world.steered("flux", "adapter"))
    (said,) = warnings(caplog)
    assert "attention kernel" in said


def test_a_foreign_network_is_named(world):
    watchdog = world.plugin("nodes.injection.model.watchdog")
    net = type("Foreign", (torch.nn.Module,), {"__module__": "nunchaku.models.transformer"})()
    said = watchdog.cause(SimpleNamespace(net=net, replacements=[], entered=0, obstacle=""))
    assert "nunchaku.models.transformer" in said and "own loader" in said


def test_exchanged_parts_of_a_network_are_named(world):
    watchdog = world.plugin("nodes.injection.model.watchdog")
    part = type("Part", (torch.nn.Module,), {"__module__": "fast_blocks"})()
    said = watchdog.cause(SimpleNamespace(net=torch.nn.Sequential(part), replacements=[], entered=2, obstacle=""))
    assert "fast_blocks" in said


def test_windows_of_single_references_that_no_step_meets_are_named_too(world, caplog):
    references = edited(world, retrieved(world, 1, 2), 0, start_percent=0.99)
    world.sample(steered(world, "flux xlabs", references), steps=2)
    (said,) = warnings(caplog)
    assert "Edit References" in said
    world.sample(steered(world, "flux xlabs", edited(world, references, 2)), steps=2)
    assert len(warnings(caplog)) == 1


def test_a_window_that_no_step_meets_is_named_with_its_limits(world, caplog):
    steered = world.steered("flux", "adapter", start_percent=0.99, end_percent=1.0)
    world.sample(steered, steps=2)
    world.sample(steered, steps=2)
    (said,) = warnings(caplog)
    assert "2 steps" in said and "99% to 100%" in said and "Widen" in said


def test_a_cache_that_skips_the_blocks_and_cannot_be_named_is_suspected(world):
    watchdog = world.plugin("nodes.injection.model.watchdog")
    said = watchdog.cause(SimpleNamespace(net=torch.nn.Sequential(), replacements=[], entered=0, obstacle=""))
    assert "cache or a compiler" in said and "Bypass it" in said


def test_the_first_of_two_stages_gives_no_false_alarm(world, caplog):
    """The window begins at 60 %: the first stage stops there with noise left over, the second one goes on."""
    from nodes import KSamplerAdvanced

    def stage(model, latent, start, end, first):
        add, left = ("enable", "enable") if first else ("disable", "disable")
        prompts = conditioning(0), conditioning(1)
        made = KSamplerAdvanced().sample(
            model, add, 3, 5, 2.0, "euler", "simple", *prompts, latent, start, end, left, denoise=1.0
        )
        return made[0]

    empty = {"samples": torch.zeros(1, 16, 5, 9)}
    steered, plain = world.steered("flux", "adapter", start_percent=0.6), world.models["flux"]
    half = stage(steered, empty, 0, 2, True)
    assert torch.equal(half["samples"], stage(plain, empty, 0, 2, True)["samples"])
    assert not torch.equal(
        stage(steered, half, 2, 10000, False)["samples"], stage(plain, half, 2, 10000, False)["samples"]
    )
    assert not warnings(caplog)


class Exchanged(torch.nn.Module):
    """A pack's own block in the place of SD3's: the same work, its parts kept elsewhere."""

    __module__ = "fast_sd3"

    def __init__(self, block):
        super().__init__()
        self.__dict__["inner"] = block

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


def test_exchanged_blocks_of_sd35_give_the_plain_picture_and_one_warning_with_the_cause(world, caplog, monkeypatch):
    net = world.models["sd35"].model.diffusion_model
    plain = world.sample(world.models["sd35"])
    steered = world.steered("sd35", "adapter")
    blocks = torch.nn.ModuleList([Exchanged(block) for block in net.joint_blocks])
    monkeypatch.setitem(net._modules, "joint_blocks", blocks)
    assert torch.equal(world.sample(steered), plain)
    (said,) = warnings(caplog)
    assert "fast_sd3" in said and "Bypass that node" in said


def with_fewer_arguments(name):
    """A pack's forward that calls the hooks of blocks without what it does not know."""

    def outer(original):
        def forward(self, *args, **kwargs):
            options = kwargs.get("transformer_options") or next((a for a in args if isinstance(a, dict)), {})
            hooks = options.get("patches_replace", {}).get("dit", {})

            def fewer(hook):
                def run(given, extra):
                    def whole(some):
                        return extra["original_block"]({**given, **some})

                    return hook(
                        {key: given[key] for key in ("img", "txt", "vec") if key in given}, {"original_block": whole}
                    )

                return run

            hooks.update({where: fewer(hook) for where, hook in hooks.items()})
            return original(self, *args, **kwargs)

        forward.__module__ = name
        return forward

    return outer


@pytest.mark.parametrize("way", ["adapter", "shared"])
@pytest.mark.parametrize("kind", ["flux", "sd35"])
def test_hooks_called_with_fewer_arguments_give_the_plain_picture_and_one_warning(
    world, caplog, monkeypatch, kind, way
):
    plain = world.sample(world.models[kind])
    steered = world.steered(kind, way)
    net = type(world.models[kind].model.diffusion_model)
    name = "forward_orig" if kind == "flux" else "forward"
    owner = next(one for one in net.__mro__ if name in vars(one))
    monkeypatch.setattr(owner, name, with_fewer_arguments("old_pack")(vars(owner)[name]))
    assert torch.equal(world.sample(steered), plain)
    (said,) = warnings(caplog)
    assert "old_pack" in said and "Bypass that node" in said


def test_a_hook_called_without_the_block_itself_is_an_error_in_words(world, caplog, monkeypatch):
    errors = world.plugin("realrag.errors")
    steered = world.steered("flux", "adapter")
    net = type(world.models["flux"].model.diffusion_model)

    def forward_orig(self, img, *args, **kwargs):
        options = kwargs.get("transformer_options") or next(a for a in args if isinstance(a, dict))
        return options["patches_replace"]["dit"][("double_block", 0)]({"img": img})["img"]

    forward_orig.__module__ = "older_pack"
    monkeypatch.setattr(net, "forward_orig", forward_orig)
    with pytest.raises(errors.AdapterError, match="older_pack"):
        world.call(steered)
