"""References that go in through the CONDITIONING, against what ComfyUI's own nodes make of the same pictures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_models
import torch
from injection_world import DIALS, Vae, Vision, conditioning, photo, synthetic

REDUX = synthetic.redux(width=tiny_models.TEXT_WIDTH, encoder=24)
TWO = torch.cat((photo(1), photo(2)))
TIGHT = 1e-5


def inject(world, model, images=TWO, prompt=None, **inputs):
    prompt = conditioning(0) if prompt is None else prompt
    out = world.inject.InjectReferences.execute(model, image=images, conditioning=prompt, **{**DIALS, **inputs})
    return out.result[:3]


def redux_parts(world):
    adapter = world.plugin("realrag.adapters").build_adapter(REDUX)
    return dict(adapter=world.plugin("nodes.injection.load_adapter").ManagedAdapter.of(adapter), clip_vision=Vision())


def cores_redux(prompt, images, strength=1.0):
    """Core's own StyleModelApply on core's own Redux, picture after picture."""
    import comfy.ldm.flux.redux
    import comfy.sd

    from nodes import StyleModelApply

    net = comfy.ldm.flux.redux.ReduxImageEncoder(redux_dim=24, txt_in_features=96 // 3)
    net.redux_down = torch.nn.Linear(96, tiny_models.TEXT_WIDTH)
    net.load_state_dict(REDUX)
    for image in images:
        seen = Vision().encode_image(image[None])
        (prompt,) = StyleModelApply().apply_stylemodel(prompt, comfy.sd.StyleModel(net), seen, strength, "multiply")
    return prompt


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for (text, table), (their_text, their_table) in zip(ours, theirs, strict=True):
        assert text.shape == their_text.shape
        assert (text - their_text).norm() / their_text.norm() < TIGHT
        assert table.keys() == their_table.keys()
        if "attention_mask" in table:
            assert torch.equal(table["attention_mask"].float(), their_table["attention_mask"].float())


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_redux_without_downsampling_is_cores_apply_style_model(world, strength):
    model, report, prompt = inject(world, world.models["flux"], **redux_parts(world), downsampling=1, strength=strength)
    assert model is world.models["flux"] and "18 tokens behind the prompt" in report
    same(prompt, cores_redux(conditioning(0), TWO, strength))


@pytest.mark.parametrize("kind", ["bias", "bool"])
def test_redux_keeps_the_attention_mask_of_the_prompt(world, kind):
    generator = torch.Generator().manual_seed(2)
    mask = torch.randn(1, 7 + 6, 7 + 6, generator=generator).half()
    mask = mask > 0 if kind == "bool" else mask
    [[text, table]] = conditioning(0)
    prompt = [[text, {**table, "attention_mask": mask, "attention_mask_img_shape": (2, 3)}]]
    before = mask.clone()
    ours = inject(world, world.models["flux"], prompt=prompt, **redux_parts(world), downsampling=1)[2]
    same(ours, cores_redux(prompt, TWO))
    assert torch.equal(prompt[0][1]["attention_mask"], before) and prompt[0][0].shape[1] == 7


def references(*settings):
    """Retrieved photos 1, 2, ... with an artist's settings for each."""
    return SimpleNamespace(
        items=tuple(SimpleNamespace(settings=own, score=0.5) for own in settings), note="",
        images=lambda: [photo(i)[0] for i in range(1, len(settings) + 1)],
    )  # fmt: skip


def painted(world, positive, negative, steps=2, cfg=1.0, latent=(1, 16, 6, 8)):
    """A picture of the tiny Flux from two CONDITIONINGs."""
    import comfy.sample

    noise = torch.randn(latent, generator=torch.Generator().manual_seed(1))
    return comfy.sample.sample(
        world.models["flux"], noise, steps, cfg, "euler", "simple", positive, negative, torch.zeros_like(noise),
        denoise=1.0, disable_pbar=True, seed=1,
    )  # fmt: skip


def test_weights_of_single_references_count_and_negative_ones_stay_out(world):
    own = world.plugin("realrag.injection.reference_settings").ReferenceSettings
    shown = references(own(weight=0.5), own(negative=True), own(weight=2.0))
    _, report, prompt = inject(
        world, world.models["flux"], images=None, references=shown, **redux_parts(world), downsampling=1, strength=0.6
    )
    theirs = cores_redux(cores_redux(conditioning(0), photo(1), 0.3), photo(3), 1.2)
    same(prompt, theirs)
    assert "2 references, 18 tokens" in report and "connect the negative prompt to negative" in report
    nobody = references(own(negative=True))
    _, report, prompt = inject(world, world.models["flux"], images=None, references=nobody, **redux_parts(world))
    assert "Nothing goes in" in report and len(prompt[0][0][0]) == 7


def test_redux_downsampling_means_fewer_tokens(world):
    for downsampling, tokens in ((1, 18), (2, 2), (3, 2)):  # a grid of 3 x 3 for each of two pictures
        prompt = inject(world, world.models["flux"], **redux_parts(world), downsampling=downsampling)[2]
        assert prompt[0][0].shape[1] == 7 + tokens


def test_a_prompt_with_redux_changes_the_picture(world):
    ours = inject(world, world.models["flux"], **redux_parts(world), downsampling=1)[2]
    negative = conditioning(1)
    plain = painted(world, conditioning(0), negative)
    theirs = painted(world, cores_redux(conditioning(0), TWO), negative)
    torch.testing.assert_close(painted(world, ours, negative), theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(painted(world, ours, negative), plain, atol=1e-3)
    late = inject(world, world.models["flux"], **redux_parts(world), start_percent=0.999)[2]
    assert torch.equal(painted(world, late, negative), plain)  # both steps come before the window


def test_a_window_gives_each_entry_its_share_of_the_sampling(world):
    [[text, table]] = conditioning(0)
    prompt = [[text, table], [text * 2, {**table, "start_percent": 0.0, "end_percent": 0.3}]]
    window = dict(start_percent=0.2, end_percent=0.6)
    out = inject(world, world.models["flux"], prompt=prompt, **redux_parts(world), **window)[2]
    found = [(e[0].shape[1] > 7, e[1]["start_percent"], e[1]["end_percent"]) for e in out]
    assert found == [(False, 0.0, 0.2), (False, 0.0, 0.2), (True, 0.2, 0.6), (True, 0.2, 0.3), (False, 0.6, 1.0)]
    assert "start_percent" not in table


def test_redux_refuses_what_it_does_not_fit(world):
    with pytest.raises(world.adapter_error, match="Connect a Flux model"):
        inject(world, world.models["sd35"], **redux_parts(world))
    with pytest.raises(world.adapter_error, match="positive prompt to conditioning"):
        world.inject.InjectReferences.execute(world.models["flux"], image=photo(1), **redux_parts(world), **DIALS)
    with pytest.raises(world.adapter_error, match="width 64, but this prompt has width 32"):
        inject(world, world.models["flux"], prompt=[[torch.ones(1, 7, 32), {}]], **redux_parts(world))


def cores_latents(prompt, latents):
    """Core's own ReferenceLatent, one after another."""
    from comfy_extras.nodes_edit_model import ReferenceLatent

    for latent in latents:
        prompt = ReferenceLatent.execute(prompt, {"samples": latent}).result[0]
    return prompt


def test_reference_latents_are_those_of_cores_node_on_kontext(world):
    """The tiny Flux stands for Kontext, which ComfyUI's class does not tell from FLUX.1 dev."""
    prompt = [[conditioning(0)[0][0], {**conditioning(0)[0][1], "reference_latents": [torch.ones(1, 16, 2, 2)]}]]
    model, report, ours = inject(world, world.models["flux"], prompt=prompt, vae=Vae(), path="reference latents")
    theirs = cores_latents(prompt, [Vae().encode(photo(i)) for i in (1, 2)])
    assert model is world.models["flux"] and "24 tokens" in report and "because you chose it" in report
    assert len(ours[0][1]["reference_latents"]) == 3 and len(prompt[0][1]["reference_latents"]) == 1
    for a, b in zip(ours[0][1]["reference_latents"], theirs[0][1]["reference_latents"], strict=True):
        assert torch.equal(a, b)
    conds = [world.models["flux"].model.extra_conds(
        noise=torch.zeros(1, 16, 4, 4), device="cpu", cross_attn=c[0][0], **c[0][1]
    )["ref_latents"].cond for c in (ours, theirs)]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(*conds, strict=True))


def test_reference_latents_stay_within_the_budget_of_tokens(world):
    sizes = []
    vae = SimpleNamespace(encode=lambda pixels: (sizes.append(tuple(pixels.shape[1:3])), Vae().encode(pixels))[1])
    images = torch.rand(3, 1200, 2000, 3, generator=torch.Generator().manual_seed(1))
    _, report, _ = inject(world, world.models["flux"], images=images, vae=vae, path="reference latents")
    tokens = sum(height * width // 256 for height, width in sizes)
    assert 3600 < tokens <= 4096 and f"{tokens} tokens" in report
    assert all(side % 16 == 0 for size in sizes for side in size)
    assert all(abs(width / height - 2000 / 1200) < 0.05 for height, width in sizes)


class Fake:
    """A MODEL of another kind, as far as the choice of a path looks at it."""

    def __init__(self, kind, **parts):
        self.model = type(kind, (), parts)()


@pytest.mark.parametrize("kind, name", [("Flux2", "FLUX.2"), ("Omnigen2", "OmniGen2")])
def test_models_trained_on_reference_latents_get_them_by_themselves(world, kind, name):
    model = Fake(kind)
    out, report, prompt = inject(world, model, vae=Vae())
    assert out is model and f"Path: reference latents, because {name} was trained with them" in report
    assert len(prompt[0][1]["reference_latents"]) == 2


def test_the_kinds_of_model_are_those_of_this_comfyui(world):
    """A class that core renames would silently lose its path."""
    import comfy.model_base

    known = {
        **world.plugin("nodes.injection.prompt.reference_latents").PERHAPS,
        **world.plugin("nodes.injection.prompt.image_embeddings").KNOWN,
    }
    assert all(hasattr(comfy.model_base, name) for name in [*known, "Omnigen2"])


def test_a_path_that_lacks_a_part_or_fits_no_model_says_so(world):
    flux, execute = world.models["flux"], world.inject.InjectReferences.execute
    for path, words in (
        ("adapter", "needs adapter .Load Reference Adapter. and clip_vision"),
        ("reference latents", "needs vae .Load VAE. connected"),
        ("image embeddings", "needs clip_vision"),
        ("shared attention", "needs vae"),
    ):
        with pytest.raises(world.adapter_error, match=words):
            inject(world, flux, path=path)
    with pytest.raises(world.adapter_error, match=r"SD3. was not made to look at reference latents"):
        inject(world, world.models["sd35"], vae=Vae(), path="reference latents")
    with pytest.raises(world.adapter_error, match=r"Flux. takes no image embeddings"):
        inject(world, flux, clip_vision=Vision(), path="image embeddings")
    with pytest.raises(world.adapter_error, match=r"QwenImage. takes references as reference latents: .* chosen if"):
        inject(world, Fake("QwenImage"), vae=Vae())
    with pytest.raises(world.adapter_error, match=r"SDXL. takes references as image embeddings: it needs clip_vision"):
        execute(Fake("SDXL"), image=photo(1), vae=Vae(), **DIALS)
    with pytest.raises(world.adapter_error, match="'magic' is not a path"):
        inject(world, flux, vae=Vae(), path="magic")


def test_auto_says_which_path_it_took_and_what_would_be_better(world):
    flux = world.models["flux"]
    report = inject(world, flux, adapter=world.adapter("flux"), clip_vision=Vision(), vae=Vae())[1]
    assert "Path: adapter, because an adapter is connected." in report
    report = inject(world, flux, vae=Vae())[1]
    assert "Path: shared attention, because no adapter is connected; if this is FLUX.1 Kontext" in report
    assert inject(world, world.models["sd35"], vae=Vae())[1].startswith(
        "Path: shared attention, because no adapter is connected.\n"
    )
    parts = dict(adapter=world.adapter("flux"), clip_vision=Vision(), vae=Vae())
    chosen = inject(world, flux, **parts, path="shared attention")
    assert "Path: shared attention, because you chose it." in chosen[1]


def test_the_prompt_comes_through_untouched_where_the_model_carries_the_references(world):
    prompt = conditioning(0)
    assert inject(world, world.models["flux"], prompt=prompt, vae=Vae())[2] is prompt
    assert inject(world, world.models["flux"], prompt=prompt, vae=Vae(), strength=0.0)[2] is prompt
    blocked = world.inject.InjectReferences.execute(world.models["flux"], image=photo(1), vae=Vae(), **DIALS).result[2]
    assert "connect the positive prompt" in blocked.message


@pytest.mark.parametrize("kind", ["SDXL", "SDXLRefiner", "SD21UNCLIP"])
@pytest.mark.parametrize("count", [1, 2])
def test_image_embeddings_are_those_of_cores_unclip_node(world, kind, count):
    """Down to the vector that core makes of them; two pictures count half each, for core adds them up."""
    import comfy.model_base
    from comfy.ldm.modules.encoders.noise_aug_modules import CLIPEmbeddingNoiseAugmentation

    from nodes import unCLIPConditioning

    torch.manual_seed(0)
    noise = CLIPEmbeddingNoiseAugmentation(
        noise_schedule_config={"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}, timestep_dim=24
    )
    model, images = Fake(kind, noise_augmentor=noise), TWO[:count]
    vision = Vision()
    out, report, ours = inject(world, model, images=images, clip_vision=vision, strength=0.8)
    assert out is model and "Path: image embeddings, because" in report and vision.crops == [True] * count
    theirs = conditioning(0)
    for image in images:
        seen = Vision().encode_image(image[None])
        (theirs,) = unCLIPConditioning().apply_adm(theirs, seen, 0.8 / count, 0.0)
    vectors = [
        comfy.model_base.unclip_adm(c[0][1]["unclip_conditioning"], "cpu", noise, seed=3) for c in (ours, theirs)
    ]
    assert torch.equal(*vectors) and torch.equal(ours[0][0], theirs[0][0])
    vision.width = 32
    with pytest.raises(world.adapter_error, match=r"width 24, but .* gives width 32"):
        inject(world, model, clip_vision=vision)
