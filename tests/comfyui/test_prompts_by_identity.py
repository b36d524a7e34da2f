"""Which rows of a model call see the references: asked of every guider, way of batching prompts, and family."""

from __future__ import annotations

import pytest
import torch
from controls_world import WAYS, execute, retrieved
from injection_world import LATENT, conditioning

SEES = 1e-6  # a row that sees references differs by more than this from one that does not


def conds_of(model, guider, sigmas=(1.0, 0.6, 0.0), latent=LATENT):
    """Sample with this guider, and note what each evaluation of prompts gave: {sum of the text: prediction}."""
    import comfy.samplers

    found, inner = [], comfy.samplers.calc_cond_batch

    def spy(model, conds, x, t, options):
        out = inner(model, conds, x, t, options)
        for entries, one in zip(conds, out, strict=True):
            if entries:
                found.append((round(float(entries[0]["cross_attn"].double().sum()), 3), one.clone()))
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.samplers, "calc_cond_batch", spy)
        noise = torch.randn(latent, generator=torch.Generator().manual_seed(3))
        guider.sample(
            noise, torch.zeros(latent), comfy.samplers.sampler_object("euler"), torch.tensor(sigmas),
            disable_pbar=True, seed=3,
        )  # fmt: skip
    first = {}
    for text, one in found:  # of the first step, where all start from the same noise
        first.setdefault(text, one)
    return first


def guider_of(node, *inputs):
    """What a guider node of core gives, in its older and its newer form."""
    if hasattr(node, "execute"):
        return node.execute(*inputs).result[0]
    return node().get_guider(*inputs)[0]


def basic(model):
    from comfy_extras.nodes_custom_sampler import BasicGuider

    return guider_of(BasicGuider, model, conditioning(0))


def cfg(model):
    from comfy_extras.nodes_custom_sampler import CFGGuider

    return guider_of(CFGGuider, model, conditioning(0), conditioning(1), 3.0)


def dual(style):
    def made(model):
        from comfy_extras.nodes_custom_sampler import DualCFGGuider

        return guider_of(DualCFGGuider, model, conditioning(0), conditioning(2), conditioning(1), 3.0, 2.0, style)

    return made


def dual_model(model):
    from comfy_extras import nodes_custom_sampler

    if not hasattr(nodes_custom_sampler, "DualModelGuider"):
        pytest.skip("This ComfyUI has no DualModelGuider")
    return guider_of(nodes_custom_sampler.DualModelGuider, model, conditioning(0), 3.0, model, conditioning(1))


def perp_neg(model):
    from comfy_extras.nodes_perpneg import PerpNegGuider

    return guider_of(PerpNegGuider, model, conditioning(0), conditioning(1), conditioning(3), 3.0, 1.0)


def perp_neg_old(model):
    from comfy_extras.nodes_perpneg import PerpNeg

    return cfg(PerpNeg.execute(model, conditioning(3), 1.0).result[0])


def another_packs(model):
    """A guider that names and orders its prompts its own way and asks for them one by one, copied anew each step."""
    import comfy.samplers

    class Guider(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            def ask(name):
                copied = [{**entry} for entry in self.conds[name]]
                return comfy.samplers.calc_cond_batch(self.inner_model, [copied], x, timestep, model_options)[0]

            down, up = ask("uncond"), ask("my prompt")
            return down + 2 * (up - down)

    guider = Guider(model)
    guider.inner_set_conds({"uncond": conditioning(1), "my prompt": conditioning(0)})
    return guider


# guider -> the seeds of its prompts that see the references, and of those that do not
GUIDERS = {
    "BasicGuider": (basic, (0,), ()),
    "CFGGuider": (cfg, (0,), (1,)),
    "DualCFGGuider": (dual("regular"), (0, 2), (1,)),
    "DualCFGGuider nested": (dual("nested"), (0, 2), (1,)),
    "DualModelGuider": (dual_model, (0,), (1,)),
    "PerpNegGuider": (perp_neg, (0,), (1, 3)),
    "PerpNeg": (perp_neg_old, (0,), (1, 3)),
    "of another pack": (another_packs, (0,), (1,)),
}


def together(model):
    return model


def one_by_one(model):
    """As little memory as runs a single prompt at a time."""
    model = model.clone()
    model.get_free_memory = lambda device: 0
    return model


def halves(model):
    """A pack that splits every batch in two calls."""
    model = model.clone()

    def run(apply, given):
        x, t, c = given["input"], given["timestep"], given["c"]
        cut, rows = (len(x) + 1) // 2, len(x)

        def part(rows_of):
            return {k: v[rows_of] if torch.is_tensor(v) and len(v) == rows else v for k, v in c.items()}

        pieces = [rows for rows in (slice(0, cut), slice(cut, rows)) if len(x[rows])]
        return torch.cat([apply(x[rows], t[rows], **part(rows)) for rows in pieces])

    model.set_model_unet_function_wrapper(run)
    return model


def tiled(model):
    """A pack that cuts the latent into two tiles and runs them in one batch, the right one first."""
    model = model.clone()

    def run(apply, given):
        x, t, c = given["input"], given["timestep"], given["c"]
        rows, half = len(x), x.shape[-1] // 2
        double = {k: torch.cat([v, v]) if torch.is_tensor(v) and len(v) == rows else v for k, v in c.items()}
        out = apply(torch.cat([x[..., half:], x[..., :half]]), torch.cat([t, t]), **double)
        return torch.cat([out[rows:], out[:rows]], -1)

    model.set_model_unet_function_wrapper(run)
    return model


BATCHINGS = {"together": together, "one by one": one_by_one, "halves": halves, "tiles": tiled}


def text_sum(seed):
    return round(float(conditioning(seed)[0][0].double().sum()), 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("guider", GUIDERS)
def test_positive_prompts_see_the_references_and_no_other_does(world, guider, batching, way):
    make, positive, others = GUIDERS[guider]
    plain = world.models[WAYS[way][0]]
    steered = execute(world, way, retrieved(world, 1)).result[0]
    latent = (2, 16, 4, 8)
    bare, seen = (conds_of(model, make(model), latent=latent) for model in map(BATCHINGS[batching], (plain, steered)))
    changed = {text: float((bare[text] - seen[text]).abs().amax((1, 2, 3)).min()) for text in bare}
    assert set(changed) == {text_sum(seed) for seed in (*positive, *others)}
    for seed in positive:
        assert changed[text_sum(seed)] > SEES
    if way != "sd35 instantx":  # as published, its negative prompts see references of nothing
        for seed in others:
            assert float((bare[text_sum(seed)] - seen[text_sum(seed)]).abs().max()) == 0
    else:
        other = execute(world, way, retrieved(world, 2)).result[0]
        another = conds_of(None, make(BATCHINGS[batching](other)), latent=latent)
        for seed in others:
            assert torch.equal(seen[text_sum(seed)], another[text_sum(seed)])
        assert not torch.equal(seen[text_sum(positive[0])], another[text_sum(positive[0])])
