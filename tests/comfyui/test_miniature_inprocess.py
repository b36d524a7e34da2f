"""Load Miniature with files of random weights: what it hands on is what ComfyUI's own nodes expect, and what was
trained."""

from __future__ import annotations

import gc
import weakref

import miniature_files
import pytest
import torch
from comfy_server import ROOT
from injection_world import photo

FAMILIES = {"SD3 miniature": "sd3", "Flux miniature": "flux"}
each_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def folder(plugin, tmp_path_factory):
    """{sd3,flux,autoencoder}.safetensors where the pack looks for those that ship."""
    written = tmp_path_factory.mktemp("miniature")
    miniature_files.write(written)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin("realrag.miniature.files"), "FOLDER", written)
        yield written


@pytest.fixture
def load(plugin, folder):
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield lambda name: plugin("nodes.miniature.load_miniature").LoadMiniature.execute(name).result


def node(name: str, module: str = "nodes"):
    """One of ComfyUI's own nodes."""
    import importlib

    return getattr(importlib.import_module(module), name)


def prompt(clip, text: str) -> list:
    return node("CLIPTextEncode")().encode(clip, text)[0]


def sample(model, positive, negative, steps=2, cfg=2.0, seed=3, size=128):
    empty = {"samples": torch.zeros(1, 16, size // 8, size // 8)}
    return node("KSampler")().sample(model, seed, steps, cfg, "euler", "simple", positive, negative, empty)[0]


@each_family
def test_stock_nodes_encode_sample_and_decode_it(load, name):
    import comfy.model_base

    model, clip, vae, *_ = load(name)
    assert type(model.model) is {"sd3": comfy.model_base.SD3, "flux": comfy.model_base.Flux}[FAMILIES[name]]
    latent = sample(model, prompt(clip, "a granny smith apple"), prompt(clip, ""))
    other = sample(model, prompt(clip, "a carton of milk"), prompt(clip, ""))
    picture = node("VAEDecode")().decode(vae, latent)[0]
    assert picture.shape == (1, 128, 128, 3) and torch.isfinite(picture).all() and picture.std() > 0
    assert not torch.equal(latent["samples"], other["samples"])


@each_family
def test_every_weight_of_the_file_is_in_the_model_and_nothing_is_missing(load, folder, name):
    from safetensors.torch import load_file

    model, _, vae, *_ = load(name)
    weights = load_file(folder / f"{FAMILIES[name]}.safetensors")
    state = model.model.diffusion_model.state_dict()
    found = {key.replace("_norm.weight", "_norm.scale"): value for key, value in state.items()}
    assert set(found) == set(weights)
    assert all(torch.equal(found[key].float(), value.float()) for key, value in weights.items())
    kept = vae.first_stage_model.state_dict()
    for key, value in load_file(folder / "autoencoder.safetensors").items():
        assert torch.equal(kept[key].float(), value.float())


@each_family
def test_a_picture_is_the_one_that_plain_torch_samples_from_the_same_noise(plugin, load, folder, name):
    """So that a picture made while training or in the demo can be made again in ComfyUI."""
    import comfy.sample

    model, clip, vae, *_ = load(name)
    latent = sample(model, prompt(clip, "a (red:1.0) apple"), prompt(clip, "milk"), steps=4, cfg=3.0, seed=5)["samples"]
    noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 16, 16), 5)
    sampling = plugin("realrag.miniature.sampling")
    net = plugin("realrag.miniature.generator").load_generator(folder / f"{FAMILIES[name]}.safetensors")
    encode = plugin("realrag.miniature.text").encode_prompts
    tower = plugin("realrag.encoders.small_net").load_small_encoder(plugin("realrag.encoders.small").SMALL_FILE).text
    texts = (encode(tower, [text]) for text in ("a red apple", "milk"))
    ours = sampling.sample(net, noise, *texts, steps=4, cfg=3.0)
    family = sampling.FAMILIES[FAMILIES[name]]
    assert torch.allclose(latent, ours / family.latent_scale + family.latent_shift, atol=1e-4)
    decoded = plugin("realrag.miniature.autoencoder").load_autoencoder(folder / "autoencoder.safetensors").decode(ours)
    assert torch.allclose(vae.decode(latent), decoded.movedim(1, -1), atol=1e-3) and decoded.std() > 0.01


@each_family
def test_the_sampler_shifts_the_noise_as_the_family_does(load, name):
    sampling = load(name)[0].get_model_object("model_sampling")
    shift, t = {"sd3": 3.0, "flux": 1.0}[FAMILIES[name]], 0.5
    assert sampling.percent_to_sigma(1 - t) == pytest.approx(shift * t / (1 + (shift - 1) * t))


@each_family
def test_the_text_encoder_gives_what_the_miniatures_were_trained_on(plugin, load, name):
    clip = load(name)[1]
    encode = plugin("realrag.miniature.text").encode_prompts
    tower = plugin("realrag.encoders.small_net").load_small_encoder(plugin("realrag.encoders.small").SMALL_FILE).text
    for text in (
        "Conference pears, fresh!",
        "",
        "so many words " + " ".join(map(str, range(40))),
        "Crème fraîche 苹果",
    ):
        ((states, extra),) = prompt(clip, text)
        expected, pooled = encode(tower, [text])
        assert torch.equal(states, expected) and torch.equal(extra["pooled_output"], pooled)
        assert states.dtype == torch.float32


def test_a_weighted_word_counts_by_its_weight_and_its_number_is_no_word(load):
    clip = load("SD3 miniature")[1]
    (plain, pooled), (weighted, extra) = (prompt(clip, text)[0] for text in ("a red apple", "a (red:1.5) apple"))
    factors = (weighted[0, :4] / plain[0, :4]).mean(-1)
    assert torch.allclose(factors, torch.tensor([1.0, 1.0, 1.5, 1.0]))
    assert not weighted[0, 4:].any() and torch.equal(extra["pooled_output"], pooled["pooled_output"])
    assert torch.equal(prompt(clip, r"apple \(1.5\)")[0][0], prompt(clip, "apple 1.5")[0][0])


def test_the_prompt_nodes_of_sd3_and_flux_fill_states_and_pooled_vector_apart(load):
    clip = load("SD3 miniature")[1]
    (a, a_more), (b, _) = (prompt(clip, text)[0] for text in ("apples", "milk"))
    sd3 = node("CLIPTextEncodeSD3", "comfy_extras.nodes_sd3").execute
    flux = node("CLIPTextEncodeFlux", "comfy_extras.nodes_flux").execute
    (flux_states, flux_more), (both, both_more), (silent, silent_more), (nothing, _) = (
        made.result[0][0]
        for made in (
            flux(clip, "apples", "milk", 3.5), sd3(clip, "apples", "apples", "milk", "none"),
            sd3(clip, "apples", "apples", "", "none"), sd3(clip, "", "", "", "none"),
        )
    )  # fmt: skip
    assert torch.equal(flux_states, b) and torch.equal(flux_more["pooled_output"], a_more["pooled_output"])
    assert torch.equal(both, b) and torch.equal(both_more["pooled_output"], a_more["pooled_output"])
    assert torch.equal(silent, a) and torch.equal(silent_more["pooled_output"], a_more["pooled_output"])
    assert flux_more["guidance"] == 3.5 and not nothing.any()


@each_family
def test_loras_for_model_and_text_encoder_apply_and_leave_the_originals_alone(load, name):
    import comfy.sd

    model, clip, _, *_ = load(name)
    before = prompt(clip, "apples")
    plain = sample(model, before, before)["samples"]
    rank = {"up": torch.randn(256, 2), "down": torch.randn(2, 384)}
    block = {"sd3": "joint_blocks.0.x_block.attn.proj", "flux": "double_blocks.0.img_attn.proj"}[FAMILIES[name]]
    lora = {
        "text_encoders.text.mlp.2.lora_up.weight": rank["up"], "text_encoders.text.mlp.2.lora_down.weight": rank["down"],
        f"diffusion_model.{block}.lora_up.weight": rank["up"],
        f"diffusion_model.{block}.lora_down.weight": torch.randn(2, 256),
    }  # fmt: skip
    changed, changed_clip = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0)
    assert not torch.equal(sample(changed, before, before)["samples"], plain)
    after = prompt(changed_clip, "apples")
    assert not torch.allclose(after[0][1]["pooled_output"], before[0][1]["pooled_output"])
    again = prompt(clip, "apples")
    assert torch.equal(again[0][1]["pooled_output"], before[0][1]["pooled_output"])
    assert torch.equal(sample(model, again, again)["samples"], plain)
    skipped = node("CLIPSetLastLayer")().set_last_layer(clip, -2)[0]
    assert torch.equal(prompt(skipped, "apples")[0][0], before[0][0])


@each_family
def test_the_vae_and_the_sampler_cancel_so_that_the_generator_sees_the_autoencoders_own_latents(load, name):
    model, _, vae, *_ = load(name)
    picture = photo(3, 64, 64)
    latent = vae.encode(picture)
    raw = vae.first_stage_model.taesd_encoder(picture.movedim(-1, 1))
    assert torch.allclose(model.model.process_latent_in(latent), raw, atol=1e-4)
    shown = vae.first_stage_model.taesd_decoder(raw).clamp(0, 1).movedim(1, -1)
    assert torch.allclose(vae.decode(model.model.process_latent_out(raw)), shown, atol=1e-4)


@each_family
def test_references_steer_it_and_strength_0_leaves_it_alone(plugin, load, name):
    model, clip, vae, *_ = load(name)
    positive, negative = prompt(clip, "apples"), prompt(clip, "")
    plain = sample(model, positive, negative)["samples"]
    inject = plugin("nodes.injection.inject").InjectReferences.execute
    steered = {
        (seed, strength): inject(
            model, image=photo(seed), vae=vae, strength=strength, start_percent=0.0, end_percent=1.0
        ).result[0]
        for seed, strength in ((1, 0.0), (1, 1.0), (2, 1.0))
    }
    pictures = {key: sample(patched, positive, negative)["samples"] for key, patched in steered.items()}
    assert torch.equal(pictures[1, 0.0], plain)
    assert not torch.allclose(pictures[1, 1.0], plain) and not torch.allclose(pictures[1, 1.0], pictures[2, 1.0])
    assert torch.equal(sample(model, positive, negative)["samples"], plain)


@each_family
def test_the_shipped_adapter_is_offered_last_and_steers_its_own_miniature_only(plugin, load, name):
    loader = plugin("nodes.injection.load_adapter")
    *_, sd3, flux = loader.adapters()
    assert (sd3, flux) == ("SD3 miniature (shipped)", "Flux miniature (shipped)")
    assert loader.LoadReferenceAdapter.validate_inputs(f"{name} (shipped)") is True
    adapter, *_ = loader.LoadReferenceAdapter.execute(f"{name} (shipped)").result
    retriever = plugin("nodes.retrieval.load_retriever").LoadReflectiveRetriever
    library = retriever.execute(plugin("nodes.folders").SHIPPED).result
    inject = plugin("nodes.injection.inject").InjectReferences.execute
    settings = dict(start_percent=0.0, end_percent=1.0, adapter=adapter, clip_vision=library[1])
    model, clip, _, *_ = load(name)
    positive, negative = prompt(clip, "apples"), prompt(clip, "")
    plain, off, one, other = (
        sample(patched, positive, negative)["samples"]
        for patched in (
            model, inject(model, image=photo(1), strength=0.0, **settings).result[0],
            *(inject(model, image=photo(seed), strength=1.0, **settings).result[0] for seed in (1, 2)),
        )
    )  # fmt: skip
    assert torch.equal(off, plain) and not torch.allclose(one, plain) and not torch.allclose(one, other)
    foreign = load(next(another for another in FAMILIES if another != name))[0]
    with pytest.raises(plugin("realrag.errors").AdapterError, match="was made for"):
        inject(foreign, image=photo(1), strength=1.0, **settings)


@each_family
@pytest.mark.parametrize("weights", ["random", "shipped"])
def test_a_picture_with_a_reference_is_the_one_that_plain_torch_samples(
    plugin, load, folder, name, weights, monkeypatch
):
    """Prompt, encoder, adapter, generator and sampler at once: what was trained and the demo paints is what ComfyUI
    does."""
    import comfy.sample
    from PIL import Image

    if weights == "shipped":
        folder = ROOT / "realrag" / "assets" / "miniature"
        monkeypatch.setattr(plugin("realrag.miniature.files"), "FOLDER", folder)
        if not (folder / f"{FAMILIES[name]}_adapter.safetensors").is_file():
            pytest.skip("no miniature's weights are in the package")
    family, text = FAMILIES[name], ("a lemon", "")
    model, clip, _, *_ = load(name)
    adapter, *_ = plugin("nodes.injection.load_adapter").LoadReferenceAdapter.execute(f"{name} (shipped)").result
    library = (
        plugin("nodes.retrieval.load_retriever").LoadReflectiveRetriever.execute(plugin("nodes.folders").SHIPPED).result
    )
    steered = (
        plugin("nodes.injection.inject")
        .InjectReferences.execute(
            model,
            image=photo(1),
            strength=1.0,
            start_percent=0.0,
            end_percent=1.0,
            adapter=adapter,
            clip_vision=library[1],
        )
        .result[0]
    )
    latent = sample(steered, *(prompt(clip, said) for said in text), steps=3, cfg=3.0, seed=5)["samples"]

    encoder = plugin("realrag.encoders.load").load_encoder()
    pixels = encoder.prepare(Image.fromarray((photo(1)[0] * 255).round().to(torch.uint8).numpy()))
    features = encoder.encode_features(pixels[None]).penultimate
    net = plugin("realrag.miniature.generator").load_generator(folder / f"{family}.safetensors")
    adapter = plugin("realrag.adapters").load_adapter(folder / f"{family}_adapter.safetensors")
    painting = plugin("realrag.miniature.painting")
    seen = plugin("realrag.adapters.hooks").Steered(painting.Miniature(net), adapter)
    guided = painting.Guided(seen, features)
    sampling, encode = plugin("realrag.miniature.sampling"), plugin("realrag.miniature.text").encode_prompts
    noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 16, 16), 5)
    texts = [encode(clip.cond_stage_model.text, [said]) for said in text]
    scales = sampling.FAMILIES[family]
    plain, ours = (
        sampling.sample(each, noise, *texts, steps=3, cfg=3.0) / scales.latent_scale + scales.latent_shift
        for each in (net, guided)
    )
    assert torch.allclose(latent, ours, atol=1e-4) and not torch.allclose(ours, plain, atol=0.1)


@each_family
def test_unloading_returns_its_memory_and_dropping_it_leaves_nothing(load, name):
    import comfy.model_management as management

    model, clip, vae, *_ = load(name)
    latent = sample(model, prompt(clip, "apples"), prompt(clip, ""))
    first = node("VAEDecode")().decode(vae, latent)[0]
    assert {type(loaded.model.model).__name__ for loaded in management.current_loaded_models} >= {"MiniatureTextModel"}
    management.unload_all_models()
    assert not management.current_loaded_models
    latent = sample(model, prompt(clip, "apples"), prompt(clip, ""))
    assert torch.equal(node("VAEDecode")().decode(vae, latent)[0], first), "loaded again, it gives the same picture"
    management.unload_all_models()
    held = [weakref.ref(part) for part in (model.model, clip.cond_stage_model, vae.first_stage_model)]
    del model, clip, vae
    gc.collect()
    assert not any(reference() for reference in held)


@each_family
def test_each_part_can_be_made_anew_where_comfyui_copies_a_model_whole(load, name):
    parts = load(name)
    for patcher in (parts[0], parts[1].patcher, parts[2].patcher):
        make, arguments = patcher.cached_patcher_init
        fresh = make(*arguments, disable_dynamic=True)
        if hasattr(patcher, "deepclone_multigpu"):  # newer versions
            fresh = patcher.deepclone_multigpu(new_load_device=torch.device("cpu"))
        ours, theirs = patcher.model.state_dict(), fresh.model.state_dict()
        assert fresh.model is not patcher.model and ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_what_is_not_there_or_not_known_is_said_in_a_sentence(plugin, folder, monkeypatch, tmp_path):
    miniature = plugin("nodes.miniature.load_miniature").LoadMiniature
    assert miniature.validate_inputs("SD3 miniature") is True
    assert "No miniature is called '../sd3'" in miniature.validate_inputs("../sd3")
    (tmp_path / "sd3.safetensors").write_bytes((folder / "sd3.safetensors").read_bytes()[:-100])
    (tmp_path / "autoencoder.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    monkeypatch.setattr(plugin("realrag.miniature.files"), "FOLDER", tmp_path)
    assert "flux.safetensors is missing" in miniature.validate_inputs("Flux miniature")
    assert miniature.define_schema().inputs[0].options == ["SD3 miniature"]
    with pytest.raises(plugin("realrag.errors").RealRAGError, match="cannot be read"):
        miniature.execute("SD3 miniature")
