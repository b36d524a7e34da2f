"""What is injected in the real ComfyUI, block by block, against slow twins of the published formulas in fp64."""

from __future__ import annotations

import math

import pytest
import tiny_models
import torch
from injection_world import LATENT, Vae, Vision, photo, synthetic

N_TEXT, N_IMAGE = 7, 15  # tokens of the test's prompt and of LATENT
FLUX_EXACT, SD3_EXACT = 1e-5, 5e-5


def error(ours, reference):
    return ((ours.double() - reference).norm() / reference.norm()).item()


def softmax_attention(q, k, v, bias=0.0):
    q, k, v = (tensor.double() for tensor in (q, k, v))
    weights = torch.einsum("bhld,bhmd->bhlm", q, k) / math.sqrt(q.shape[-1]) + bias
    weights = weights.exp() / weights.exp().sum(-1, keepdim=True)
    return torch.einsum("bhlm,bhmd->bhld", weights, v)


def merged(x):
    return torch.cat(x.unbind(1), -1)


class Watch:
    """Copies of what goes in and out of modules during one model call."""

    def __init__(self):
        self.seen, self.handles = {}, []

    def output(self, name, module):
        def keep(module, args, out):
            self.seen[name] = [t.clone() for t in (out if isinstance(out, tuple) else (out,)) if t is not None]

        self.handles.append(module.register_forward_hook(keep))

    def input(self, name, module):
        def keep(module, args, kwargs):
            self.seen[name] = {
                k: t.clone() for k, t in {**dict(enumerate(args)), **kwargs}.items() if torch.is_tensor(t)
            }

        self.handles.append(module.register_forward_pre_hook(keep, with_kwargs=True))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


def xlabs_twin(weights, q, strength, block=0):
    """strength * softmax(q k^T / sqrt(D)) v for the tokens of photo(1), straight from the file's weights."""
    w = {key: tensor.double() for key, tensor in weights.items()}
    embeds = Vision().encode_image(photo(1)).image_embeds.double()
    tokens = (embeds @ w["ip_adapter_proj_model.proj.weight"].T + w["ip_adapter_proj_model.proj.bias"]).reshape(
        1, 4, 48
    )
    tokens = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    tokens = tokens * w["ip_adapter_proj_model.norm.weight"] + w["ip_adapter_proj_model.norm.bias"]
    layer = f"double_blocks.{block}.processor.ip_adapter_double_stream_"
    k, v = (tokens @ w[f"{layer}{n}_proj.weight"].T + w[f"{layer}{n}_proj.bias"] for n in "kv")
    heads = [torch.stack(t.split(128, -1), 1).expand(len(q), -1, -1, -1) for t in (k, v)]
    return strength * merged(softmax_attention(q, *heads))


def flux_delta(world, steered, **call):
    """What is added behind double block 0, and that block's own pre-rotary image queries."""
    net = steered.model.diffusion_model
    with Watch() as watch:
        watch.output("q", net.double_blocks[0].img_attn.norm.query_norm)
        watch.output("out", net.double_blocks[0])
        watch.input("next", net.double_blocks[1])
        world.call(steered, **call)
    return watch.seen["next"]["img"] - watch.seen["out"][0], watch.seen["q"][0]


@pytest.mark.parametrize("strength", [0.35, 1.0])
def test_flux_xlabs_adds_the_published_formula_behind_the_block(world, strength):
    delta, q = flux_delta(world, world.steered("flux", "adapter", strength=strength))
    expected = xlabs_twin(synthetic.xlabs(width=256, context=48, encoder=24, tokens=4, seed=0), q, strength)
    assert delta.shape == (1, N_IMAGE, 256)
    assert error(delta, expected) < FLUX_EXACT


def test_flux_xlabs_touches_neither_negative_rows_nor_kontext_tokens(world):
    steered = world.steered("flux", "adapter")
    kontext = [torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(9)).expand(4, -1, -1, -1)]
    delta, q = flux_delta(world, steered, kinds=(1, 0), batch=2, ref_latents=kontext)
    assert delta.shape == (4, N_IMAGE + 6, 256)
    assert not delta[:2].any() and not delta[:, N_IMAGE:].any()
    expected = xlabs_twin(synthetic.xlabs(width=256, context=48, encoder=24, tokens=4, seed=0), q[2:, :, :N_IMAGE], 1.0)
    assert error(delta[2:, :N_IMAGE], expected) < FLUX_EXACT


def sd3_attention(world, model, **call):
    """Image rows of block 0's attention before its output projection, and the raw q, k, v of those rows."""
    block = model.model.diffusion_model.joint_blocks[0].x_block
    with Watch() as watch:
        watch.output("qkv", block.attn.qkv)
        watch.input("attention", block.attn.proj)
        world.call(model, **call)
    q, k, v = (torch.stack(t.split(64, -1), 1) for t in watch.seen["qkv"][0].chunk(3, -1))
    return watch.seen["attention"][0], q, k, v


def instantx_twin(world, weights, q, k, v, sigma, strength, hidden):
    """o = SDPA(norm_q q, [norm_k k; norm_ip_k W_k e'], [v; W_v e']), e' = LN(e) (1 + scale) + shift, block 0."""
    adapter = world.plugin("realrag.adapters").build_adapter({key: t.double().float() for key, t in weights.items()})
    tokens, time = adapter.tokens(hidden, torch.tensor([1000 * sigma]))
    w = {key.removeprefix("ip_adapter.0."): t.double() for key, t in weights.items() if key.startswith("ip_adapter.0.")}
    tokens, time = tokens.double(), time.double()
    modulation = (time * time.sigmoid()) @ w["norm_ip.linear.weight"].T + w["norm_ip.linear.bias"]
    shift, scale = modulation[:, None].chunk(2, -1)
    e = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    e = e * (1 + scale) + shift
    k_ip, v_ip = (torch.stack((e @ w[f"to_{n}_ip.weight"].T).split(64, -1), 1).expand(len(q), -1, -1, -1) for n in "kv")

    def rms(x, name):
        return x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]

    keys = torch.cat((rms(k, "norm_k"), rms(k_ip, "norm_ip_k")), 2)
    return strength * merged(softmax_attention(rms(q, "norm_q"), keys, torch.cat((v.double(), v_ip), 2)))


@pytest.mark.parametrize("kind", ["sd3", "sd35", "sd35m"])
@pytest.mark.parametrize("side", [0, 1])
def test_sd35_instantx_adds_the_published_formula_before_the_projection(world, kind, side):
    """The positive prompt sees the photo; the negative one sees hidden states of zeros."""
    sigma, call = 0.6, dict(sigma=0.6, kinds=(side,), batch=2)
    attention, q, k, v = sd3_attention(world, world.steered(kind, "adapter", strength=0.5), **call)
    plain, *_ = sd3_attention(world, world.models[kind], **call)
    hidden = Vision().encode_image(photo(1)).penultimate_hidden_states
    weights = synthetic.instantx(width=128, encoder=24, tokens=6, depth=2, seed=0)
    expected = instantx_twin(world, weights, q, k, v, sigma, 0.5, torch.zeros_like(hidden) if side else hidden)
    assert attention.shape == (2, N_IMAGE, 128)
    assert error(attention - plain, expected) < SD3_EXACT


@pytest.mark.parametrize("kind", ["flux", "sd35"])
def test_two_chained_adapters_add_up_within_one_block(world, kind):
    measure = flux_delta if kind == "flux" else sd3_attention
    one, two = (world.steered(kind, "adapter", seed=seed, strength=0.7) for seed in (0, 1))
    chained = world.steered(kind, "adapter", model=one, seed=1, strength=0.7)
    base = 0 if kind == "flux" else sd3_attention(world, world.models[kind])[0]
    first, second, both = (measure(world, model)[0] - base for model in (one, two, chained))
    torch.testing.assert_close(both, first + second, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("kind", ["sd3", "sd35"])
@pytest.mark.parametrize("ways", [("shared", "shared"), ("adapter", "shared"), ("shared", "adapter")])
def test_shared_attention_adds_up_with_any_other_injection_in_one_block(world, kind, ways):
    one, two = (world.steered(kind, way, image=photo(i), seed=i) for i, way in enumerate(ways))
    chained = world.steered(kind, ways[1], model=one, image=photo(1), seed=1)
    plain, first, second, both = (sd3_attention(world, model)[0] for model in (world.models[kind], one, two, chained))
    torch.testing.assert_close(both - plain, first - plain + second - plain, rtol=1e-4, atol=1e-5)


class Spy:
    """An attention override that notes what every attention call was given and what came of it."""

    def __init__(self):
        self.calls = []

    def __deepcopy__(self, memo):
        return self

    def __call__(self, func, q, k, v, *args, **kwargs):
        heads = kwargs["heads"] if "heads" in kwargs else args[0]
        if kwargs.get("skip_reshape"):
            self.calls.append([t.clone().double() for t in (q, k, v)])
        else:
            self.calls.append([t.reshape(*t.shape[:2], heads, -1).transpose(1, 2).clone().double() for t in (q, k, v)])
        return func(q, k, v, *args, **kwargs)


def flux_factors():
    axes, factors = (16, 56, 56), []
    for axis, size in enumerate(axes):
        factors += [3.0 if axis == 0 else 1.05 + 1.95 * (d / (size // 2)) ** 50 for d in range(size // 2) for _ in "xy"]
    return torch.tensor(factors, dtype=torch.float64)


def moved_to(x, reference):
    def centered(t):
        mean = t.mean(2, keepdim=True)
        return mean, ((t - mean).square().mean(2, keepdim=True) + 1e-5).sqrt()

    (own, spread), (mean, deviation) = centered(x), centered(reference)
    return (x - own) / spread * deviation + mean


@pytest.mark.parametrize("kind", ["flux", "sd3", "sd35", "sd35m"])
@pytest.mark.parametrize("strength", [1.0, 1.5])
def test_shared_attention_lets_image_rows_attend_to_the_noised_references(world, kind, strength):
    """Every attention call of every block: own q, k, v as the block made them, the reference's from a plain call."""
    shared, sigma, photos = world.plugin("realrag.injection.shared_attention"), 0.6, [photo(1), photo(2, 32, 80)]
    model = world.models[kind]
    references = []
    for image in photos:
        latent = model.get_model_object("latent_format").process_in(Vae().encode(image))
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(shared.content_seed(image[0])))
        spy = Spy()
        world.call(model, sigma=sigma, x=(1 - sigma) * latent + sigma * noise, override=spy)
        references.append(spy.calls)
    steered = world.inject.InjectReferences.execute(
        model, references=type("Two", (), {"images": lambda self: [p[0] for p in photos]})(), vae=Vae(),
        strength=strength, start_percent=0.0, end_percent=1.0,
    ).result[0]  # fmt: skip
    net, spy = model.model.diffusion_model, Spy()
    with Watch() as watch:
        if kind == "flux":
            for i in range(2):
                watch.input(i, net.double_blocks[i].img_attn.proj)
                watch.input(2 + i, net.single_blocks[i].linear2)
        else:
            blocks = [block.x_block for block in net.joint_blocks]
            parts = [part for b in blocks for part in (b.attn, *([b.attn2] if b.x_block_self_attn else []))]
            for i, part in enumerate(parts):
                watch.input(i, part.proj)
        output = world.call(steered, sigma=sigma, override=spy)
    assert len(spy.calls) == len(references[0]) == len(watch.seen)
    for number, (q, k, v) in enumerate(spy.calls):
        before = q.shape[2] - N_IMAGE
        q = q[:, :, before:]
        q_ref, k_ref, v_ref = (
            torch.cat([calls[number][part][:, :, before:] for calls in references], 2) for part in range(3)
        )
        if kind == "flux":
            k_ref = k_ref * flux_factors()
        else:
            q, k = moved_to(q, q_ref), torch.cat((k[:, :, :before], moved_to(k[:, :, before:], k_ref)), 2)
        bias = torch.cat((torch.zeros(k.shape[2]), torch.full((k_ref.shape[2],), math.log(strength))))
        expected = merged(softmax_attention(q, torch.cat((k, k_ref), 2), torch.cat((v, v_ref), 2), bias))
        found = watch.seen[number][0][..., : expected.shape[-1]][:, -N_IMAGE:]
        assert error(found, expected) < 1e-5, number
    torch.testing.assert_close(output, world.call(steered, sigma=sigma), rtol=1e-4, atol=1e-4)


def test_shared_attention_keeps_the_attention_mask_of_other_nodes(world):
    generator = torch.Generator().manual_seed(4)
    mask = torch.randn(1, N_TEXT + N_IMAGE, N_TEXT + N_IMAGE, generator=generator)
    steered = world.steered("flux", "shared", strength=1e-6)
    masked = world.call(world.models["flux"], attention_mask=mask)
    torch.testing.assert_close(world.call(steered, attention_mask=mask), masked, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(masked, world.call(world.models["flux"]), atol=1e-2)


def test_the_reference_is_seen_once_for_each_prompt_and_never_for_the_negative(world):
    steered = world.steered("flux", "shared")
    calls, net = [], steered.model.diffusion_model
    handle = net.final_layer.register_forward_hook(lambda module, args, out: calls.append(len(out)))
    try:
        world.call(steered, kinds=(1,), batch=2)
        world.call(steered, kinds=(1, 0), batch=2)
        world.call(steered, kinds=(0, 0, 1), batch=2)
    finally:
        handle.remove()
    assert calls == [2, 1, 4, 2, 6]


def test_the_shape_of_the_latent_is_the_one_the_twins_assume():
    assert math.ceil(LATENT[2] / 2) * math.ceil(LATENT[3] / 2) == N_IMAGE


@pytest.mark.parametrize("kind", ["flux", "sd35", "sd35m"])
@pytest.mark.parametrize("way", ["adapter", "shared"])
def test_half_precision_moves_the_picture_the_same_way(world, kind, way):
    """bf16 is coarse, so what is compared is the direction of the references' effect."""
    half = tiny_models.model(kind, torch.bfloat16)
    assert next(half.model.diffusion_model.parameters()).dtype == torch.bfloat16
    effects = [
        (world.call(world.steered(kind, way, model=model), sigma=0.6) - world.call(model, sigma=0.6)).flatten()
        for model in (world.models[kind], half)
    ]
    assert torch.cosine_similarity(*effects, dim=0) > 0.8
