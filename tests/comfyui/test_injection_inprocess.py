"""Inject References in the real ComfyUI, in this process, on tiny Flux, SD3 and SD3.5 models: what an artist sees."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from injection_world import ALL, DIALS, Vae, Vision, photo

both_ways = pytest.mark.parametrize("way", ["adapter", "shared"])
all_kinds = pytest.mark.parametrize("kind", ALL)


@all_kinds
@both_ways
def test_references_change_the_picture_and_repeat_exactly(world, kind, way):
    plain = world.sample(world.models[kind])
    first, again = world.sample(world.steered(kind, way)), world.sample(world.steered(kind, way))
    other = world.sample(world.steered(kind, way, image=photo(2)))
    together = world.sample(world.steered(kind, way, image=torch.cat((photo(1), photo(2)))))
    assert torch.isfinite(first).all() and torch.equal(first, again)
    for one, another in ((plain, first), (first, other), (first, together), (other, together)):
        assert not torch.equal(one, another)


@all_kinds
@both_ways
def test_the_incoming_model_stays_bit_exact_and_clean(world, kind, way):
    model = world.models[kind]
    before = world.sample(model)
    options = copy.deepcopy(model.model_options)
    world.sample(world.steered(kind, way))
    assert torch.equal(world.sample(model), before)
    assert model.model_options == options and not model.wrappers


@both_ways
@pytest.mark.parametrize("settings", [dict(strength=0.0), dict(start_percent=0.5, end_percent=0.5)])
def test_nothing_to_do_hands_on_the_very_same_model(world, way, settings):
    assert world.steered("flux", way, **settings) is world.models["flux"]
    empty = SimpleNamespace(images=lambda: [], note="Nothing scored 0.9 or more.")
    out = world.inject.InjectReferences.execute(world.models["flux"], references=empty, **DIALS)
    assert out.result[0] is world.models["flux"] and "no references.\nNothing scored" in out.result[1]


@all_kinds
@both_ways
def test_outside_the_window_a_call_is_bit_exact(world, kind, way):
    model = world.models[kind]
    late = world.steered(kind, way, start_percent=0.5)
    border = float(model.get_model_object("model_sampling").percent_to_sigma(0.5))
    assert torch.equal(world.call(late, sigma=border + 0.01), world.call(model, sigma=border + 0.01))
    assert not torch.equal(world.call(late, sigma=border - 0.01), world.call(model, sigma=border - 0.01))


@all_kinds
@both_ways
def test_clones_and_deep_copies_keep_the_references(world, kind, way):
    steered = world.steered(kind, way)
    expected = world.call(steered, kinds=(1, 0))
    cloned = steered.clone().clone()
    copied = steered.clone()
    copied.model_options = copy.deepcopy(copied.model_options)
    assert torch.equal(world.call(cloned, kinds=(1, 0)), expected)
    assert torch.equal(world.call(copied, kinds=(1, 0)), expected)


class Counting:
    """Another plugin: an attention override and a block replacement that change what passes, and count."""

    def __init__(self):
        self.attention, self.blocks = 0, 0

    def __deepcopy__(self, memo):  # 0.3.64 deep-copies a model's options with every clone
        return self

    def override(self, func, *args, **kwargs):
        self.attention += 1
        return func(*args, **kwargs) * 1.05

    def block(self, args, extra):
        self.blocks += 1
        out = extra["original_block"](args)
        return {**out, "img": out["img"] * 0.9}

    def on(self, model):
        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = self.override
        model.set_model_patch_replace(self.block, "dit", "double_block", 1)
        return model


@all_kinds
def test_another_plugins_hooks_are_kept_whichever_node_comes_first(world, kind):
    other = Counting()
    alone = world.call(other.on(world.models[kind]))
    counts = other.attention, other.blocks
    before = world.call(world.steered(kind, "adapter", model=other.on(world.models[kind])))
    assert (other.attention, other.blocks) == tuple(2 * count for count in counts)
    after = world.call(other.on(world.steered(kind, "adapter")))
    assert (other.attention, other.blocks) == tuple(3 * count for count in counts)
    assert torch.equal(before, after)
    assert not torch.equal(before, alone)
    assert not torch.equal(before, world.call(world.steered(kind, "adapter")))


@all_kinds
def test_another_plugins_hooks_are_kept_beside_shared_attention(world, kind):
    other = Counting()
    alone = world.call(other.on(world.models[kind]))
    counts = other.attention, other.blocks
    steered = world.call(world.steered(kind, "shared", model=other.on(world.models[kind])))
    assert (other.attention, other.blocks) == tuple(2 * count for count in counts)
    assert not torch.equal(steered, alone)


def test_the_negative_prompt_of_flux_never_sees_the_references(world):
    for way in ("adapter", "shared"):
        steered = world.steered("flux", way)
        assert torch.equal(world.call(steered, kinds=(1,)), world.call(world.models["flux"], kinds=(1,)))


@all_kinds
@both_ways
@pytest.mark.parametrize("order", [(1, 0), (0, 1), (0, 0, 1)])
def test_batches_and_prompts_in_one_call_do_not_mix(world, kind, way, order):
    """Every row is what it is when it runs alone, up to the rounding of batched matrix products."""
    steered = world.steered(kind, way, image=torch.cat((photo(1), photo(2))))
    together = world.call(steered, kinds=order, batch=2).split(2)
    for side, rows in zip(order, together, strict=True):
        torch.testing.assert_close(rows, world.call(steered, kinds=(side,), batch=2), rtol=1e-4, atol=1e-4)
    plain = world.call(world.models[kind], kinds=order, batch=2)
    assert not torch.allclose(torch.cat(together), plain, atol=1e-3)


@both_ways
def test_strength_grows_from_nothing(world, way):
    plain = world.call(world.models["sd35"])
    effects = [(world.call(world.steered("sd35", way, strength=s)) - plain).norm() for s in (1e-4, 0.2, 1.0)]
    assert effects[0] < 0.02 * effects[2] and effects[0] < effects[1] < effects[2]


def test_pictures_reach_the_encoder_as_the_adapter_was_trained(world):
    for kind, crop in (("flux", True), ("sd35", False)):
        vision = Vision()
        world.inject.InjectReferences.execute(
            world.models[kind],
            image=torch.cat((photo(1), photo(2))),
            adapter=world.adapter(kind),
            clip_vision=vision,
            **DIALS,
        )
        assert vision.crops == [crop, crop]


def test_retrieved_photos_and_own_pictures_are_used_together(world):
    references = SimpleNamespace(images=lambda: [photo(1)[0], photo(2, 40, 80)[0]])
    out = world.inject.InjectReferences.execute(
        world.models["flux"], references=references, image=photo(3), vae=Vae(), **DIALS
    )
    assert "3 references" in out.result[1] and "experimental" in out.result[1]


def test_the_adapter_is_loaded_with_the_model_where_time_matters(world):
    assert world.steered("flux", "adapter").get_nested_additional_models() == []
    (patcher,) = world.steered("sd35", "adapter").get_nested_additional_models()
    assert patcher.model.spec.family == "sd35-instantx"


def test_tensors_are_copied_to_the_device_once_a_sampling_and_keep_their_precision(world):
    tensors = world.plugin("nodes.injection.model.injection").DeviceTensors([torch.ones(2)])
    assert tensors.on(torch.device("cpu")) is tensors.tensors
    copies = tensors.on(torch.device("meta"))
    assert copies[0].is_meta and copies[0].dtype == torch.float32 and tensors.on(torch.device("meta")) is copies
    tensors.release()
    assert tensors.on(torch.device("meta")) is not copies and not tensors.tensors[0].is_meta


def test_what_does_not_fit_is_refused_with_the_cure(world):
    execute, vision = world.inject.InjectReferences.execute, Vision()
    with pytest.raises(world.adapter_error, match=r"neither an adapter nor a VAE.*Connect"):
        execute(world.models["flux"], image=photo(1), **DIALS)
    with pytest.raises(world.adapter_error, match="connect it to clip_vision"):
        execute(world.models["flux"], image=photo(1), adapter=world.adapter("flux"), **DIALS)
    with pytest.raises(world.adapter_error, match=r"made for FLUX.1 .* but the model is SD3"):
        execute(world.models["sd3"], image=photo(1), adapter=world.adapter("flux"), clip_vision=vision, **DIALS)
    with pytest.raises(world.adapter_error, match="but the model is Flux"):
        execute(world.models["flux"], image=photo(1), adapter=world.adapter("sd35"), clip_vision=vision, **DIALS)
    vision.width = 32
    with pytest.raises(world.adapter_error, match=r"width 24 .* gives width 32"):
        execute(world.models["flux"], image=photo(1), adapter=world.adapter("flux"), clip_vision=vision, **DIALS)
    controls = world.plugin("nodes.injection.inputs.controls").Controls
    base = replace(world.plugin("nodes.injection.inputs.base_model").base_of(world.models["flux"]), inputs=64)
    with pytest.raises(world.adapter_error, match="more than a plain latent"):
        world.inject.without_adapter(world.models["flux"], base, controls(), [photo(1)[0]], Vae())
    four_channels = SimpleNamespace(encode=lambda pixels: Vae().encode(pixels)[:, :4])
    with pytest.raises(world.adapter_error, match="needs 16 channels"):
        execute(world.models["flux"], image=photo(1), vae=four_channels, **DIALS)


def test_only_listed_adapter_files_can_be_loaded(world, tmp_path, monkeypatch):
    import folder_paths
    from injection_world import synthetic
    from safetensors.torch import save_file

    (tmp_path / "inside").mkdir()
    save_file(synthetic.xlabs(), tmp_path / "inside" / "mine.safetensors")
    save_file(synthetic.xlabs(), tmp_path / "outside.safetensors")
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "realrag_adapters", ([str(tmp_path / "inside")], {".safetensors"})
    )
    folder_paths.filename_list_cache.pop("realrag_adapters", None)
    node = world.plugin("nodes.injection.load_adapter").LoadReferenceAdapter
    options = node.define_schema().inputs[0].options
    assert [name for name in options if not name.endswith("(shipped)")] == ["mine.safetensors"]
    assert node.execute("mine.safetensors").result[0].adapter.spec.label == "Flux XLabs v1"
    assert node.fingerprint_inputs("mine.safetensors") == node.fingerprint_inputs("mine.safetensors")
    with pytest.raises(Exception, match=r"No file named .../outside.safetensors. in models/realrag_adapters"):
        node.execute("../outside.safetensors")


@pytest.mark.parametrize(
    "kind, config",
    [
        ("flux", dict(model_type="clip_vision_model", hidden_act="quick_gelu", projection_dim=24)),
        ("sd35", dict(model_type="siglip_vision_model", hidden_act="gelu_pytorch_tanh", hidden_size=24)),
    ],
)
def test_comfyuis_own_image_encoders_give_what_the_adapters_read(world, kind, config, tmp_path):
    import comfy.clip_vision

    sizes = dict(
        hidden_size=32, image_size=28, intermediate_size=48, num_attention_heads=2, num_channels=3,
        num_hidden_layers=3, patch_size=14, layer_norm_eps=1e-5,
    )  # fmt: skip
    (tmp_path / "vision.json").write_text(json.dumps({**sizes, **config}))
    vision = comfy.clip_vision.ClipVisionModel(str(tmp_path / "vision.json"))
    for number, weight in enumerate(vision.model.parameters()):
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    out = world.inject.InjectReferences.execute(
        world.models[kind], image=photo(1, 40, 90), adapter=world.adapter(kind), clip_vision=vision, **DIALS
    )
    assert torch.isfinite(world.call(out.result[0])).all()
    assert not torch.equal(world.call(out.result[0]), world.call(world.models[kind]))
    # Center crop does not see the photo's ends; squashing does.
    ends = photo(1, 40, 90)
    ends[:, :, :10] = 0
    again = world.inject.InjectReferences.execute(
        world.models[kind], image=ends, adapter=world.adapter(kind), clip_vision=vision, **DIALS
    )
    same = torch.equal(world.call(again.result[0]), world.call(out.result[0]))
    assert same == (kind == "flux")
