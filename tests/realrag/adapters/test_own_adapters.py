"""The adapter files that our own trainer makes: variants of the published layouts, and what they say of themselves."""

import pytest
import synthetic_adapters as synthetic
import torch
from PIL import Image
from safetensors.torch import save_file

from realrag.adapters import build_adapter, detect, load_adapter
from realrag.adapters.attention import merge_heads
from realrag.adapters.reading import FORMAT, VERSION
from realrag.encoders.base import Encoder
from realrag.encoders.load import load_encoder
from realrag.errors import AdapterError

METADATA_KEYS = dict(
    format=FORMAT, version=VERSION, base="a small Flux", encoder="some-tower", encoder_sha256="ab" * 32
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize(
    "width, context, blocks, encoder, tokens", [(256, 96, 2, 1024, 36), (3072, 4096, 19, 768, 256)]
)
def test_the_spatial_xlabs_variant_is_told_by_its_positions(width, context, blocks, encoder, tokens):
    sizes = dict(width=width, context=context, blocks=blocks, encoder=encoder, tokens=tokens)
    spec = detect(synthetic.xlabs(**sizes, spatial=True, device="meta"))
    assert (spec.family, spec.tokens, spec.encoder_output, spec.crop) == (
        "flux-xlabs", tokens, "penultimate_hidden_states", False,
    )  # fmt: skip
    assert detect(synthetic.xlabs(**{**sizes, "tokens": 4}, device="meta")).encoder_output == "image_embeds"


def test_spatial_tokens_are_made_of_one_place_each(generator):
    weights = synthetic.xlabs(tokens=5, spatial=True)
    adapter, w = build_adapter(weights), {k.removeprefix("ip_adapter_proj_model."): t for k, t in weights.items()}
    hidden = torch.randn(2, 5, 24, generator=generator)
    tokens = adapter.tokens(hidden)
    for row in range(2):
        for place in range(5):
            made = w["proj.weight"] @ hidden[row, place] + w["proj.bias"] + w["position"][place]
            made = (made - made.mean()) / (made.var(correction=0) + 1e-5).sqrt() * w["norm.weight"] + w["norm.bias"]
            torch.testing.assert_close(tokens[row, place], made, rtol=1e-4, atol=1e-5)
    k, v = adapter.keys_values(tokens, 1, heads=2)
    each = adapter.keys_values_each(tokens, 1, heads=2)
    for side_by_side, apart in zip((k, v), each, strict=True):
        torch.testing.assert_close(side_by_side, torch.cat(tuple(apart.split(1)), 2))
    with pytest.raises(AdapterError, match=r"width 24 from .*shape \(2, 4, 24\)"):
        adapter.tokens(hidden[:, :4])


@pytest.mark.parametrize("own_keys", [True, False])
def test_instantx_without_own_keys_attends_to_the_references_alone(generator, own_keys):
    adapter = build_adapter(synthetic.instantx(own_keys=own_keys))
    q, k, v = torch.randn(3, 2, 2, 7, 64, generator=generator)
    k_ip, v_ip = torch.randn(2, 2, 2, 6, 64, generator=generator)
    bias = torch.randn(1, 6, generator=generator)
    found = adapter.branch(1, q, k, v, k_ip, v_ip, bias)
    norm = adapter.blocks[1]["norm_q"].weight
    q = q / (q.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm
    if own_keys:
        k = k / (k.square().mean(-1, keepdim=True) + 1e-6).sqrt() * adapter.blocks[1]["norm_k"].weight
        k_ip, v_ip, bias = torch.cat((k, k_ip), 2), torch.cat((v, v_ip), 2), torch.cat((torch.zeros(1, 7), bias), 1)
    scores = (torch.einsum("bhld,bhmd->bhlm", q, k_ip) / 8 + bias).softmax(-1)
    torch.testing.assert_close(found, merge_heads(scores @ v_ip), rtol=1e-4, atol=1e-5)


def test_values_of_zero_add_nothing_only_without_own_keys(generator):
    q, k, v, k_ip = torch.randn(4, 1, 2, 7, 64, generator=generator)
    for own_keys in (True, False):
        adapter = build_adapter(synthetic.instantx(own_keys=own_keys))
        assert adapter.branch(0, q, k, v, k_ip, torch.zeros_like(k_ip)).any() == own_keys


def test_a_file_with_norm_k_in_some_blocks_only_is_refused():
    weights = synthetic.instantx()
    del weights["ip_adapter.0.norm_k.weight"]
    with pytest.raises(AdapterError, match=r"something is unknown: blocks.1.norm_k.weight"):
        build_adapter(weights)


def test_a_file_of_our_own_names_its_generator_and_its_image_encoder(tmp_path):
    path = tmp_path / "any.safetensors"
    save_file(synthetic.xlabs(tokens=5, spatial=True), path, {**METADATA_KEYS, "family": "flux-xlabs"})
    spec = load_adapter(path).spec
    assert (spec.base, spec.encoder, spec.encoder_sha256) == ("a small Flux", "some-tower", "ab" * 32)
    spec.check_encoder("ab" * 32)
    for wrong in ("cd" * 32, ""):
        with pytest.raises(
            AdapterError, match=r"trained on the image encoder some-tower .*clip_vision of Load Reflective"
        ):
            spec.check_encoder(wrong)
    detect(synthetic.xlabs()).check_encoder("")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"family": "sd35-instantx"}, "calls itself 'sd35-instantx'"),
        ({"version": "2"}, "any.safetensors: It is of version '2'"),
        ({"base": None}, "does not say its base"),
    ],
)
def test_a_file_of_our_own_that_contradicts_itself_is_refused(change, words, tmp_path):
    path = tmp_path / "any.safetensors"
    about = {k: v for k, v in {**METADATA_KEYS, "family": "flux-xlabs", **change}.items() if v is not None}
    save_file(synthetic.xlabs(tokens=5, spatial=True), path, about)
    with pytest.raises(AdapterError, match=words):
        load_adapter(path)


def test_the_small_encoder_gives_its_last_two_grids_and_they_lead_to_its_embedding():
    encoder = load_encoder()
    image = Image.effect_noise((90, 60), 80).convert("RGB")
    pixels = encoder.prepare(image)[None]
    seen = encoder.encode_features(pixels)
    assert seen.penultimate.shape == seen.last.shape == (1, 36, 1024)
    torch.testing.assert_close(seen.embeds, encoder.encode_images(pixels))
    tower = encoder.towers
    grid = seen.penultimate.transpose(1, 2).unflatten(2, (6, 6))
    with torch.no_grad():
        last = tower.mobilenet.blocks[-1](grid)
        torch.testing.assert_close(last.flatten(2).transpose(1, 2), seen.last, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(tower.projection(seen.last.mean(1)), seen.embeds, rtol=1e-4, atol=1e-4)


def test_an_encoder_without_a_grid_gives_its_embedding_alone(encoder):
    pixels = torch.full((1, 3, 16, 16), 200, dtype=torch.uint8)
    seen = Encoder.encode_features(type("Plain", (type(encoder),), {"_features": Encoder._features})(), pixels)
    assert torch.equal(seen.embeds, encoder.encode_images(pixels)) and seen.penultimate is None and seen.last is None
