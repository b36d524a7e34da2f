"""A new adapter changes nothing, a steered generator is that of diffusers, and files come back as they were written."""

import pytest
import synthetic_adapters as synthetic
import torch

diffusers = pytest.importorskip("diffusers")

from tiny_bases import ENCODER, PLACES, inputs, tiny

from realrag.adapters import build_adapter, load_adapter
from realrag.adapters.hooks import Steered
from realrag.errors import AdapterError, RealRAGError
from realrag_train.adapter.bases import Fp8Linear, frozen
from realrag_train.adapter.new_adapter import AdapterConfig, new_adapter, published, save_adapter

SMALL = AdapterConfig(hidden=64, tokens=3, depth=1)
LOW = AdapterConfig(hidden=64, tokens=3, depth=1, rank=2)
KINDS = ["sd3", "flux"]


def error(ours, reference):
    return ((ours - reference).norm() / reference.norm()).item()


def stirred(adapter, seed=5):
    """Some random weights in the place of the zeros."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=rng)
    return adapter


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [SMALL, LOW])
def test_at_step_0_the_generator_is_as_without_an_adapter(kind, config):
    base = tiny(kind)
    parts, features = inputs()
    with torch.no_grad():
        plain = base.velocity(**parts)
        steered = Steered(base, new_adapter(base, ENCODER, PLACES, config, seed=0))
        # Zeros are added, but a sum may lie in memory otherwise than its parts, and be multiplied in another order.
        torch.testing.assert_close(steered.velocity(**parts, features=features), plain, rtol=1e-5, atol=1e-6)
        stirred(steered.adapter)
        assert not torch.allclose(steered.velocity(**parts, features=features), plain, atol=1e-3)
        assert torch.equal(steered.velocity(**parts), plain)


@pytest.mark.parametrize("norms", [True, False])
def test_a_steered_sd3_is_that_of_diffusers(norms):
    """The whole network with a published adapter (the picture's own keys and all), against diffusers' own processors."""
    from diffusers.loaders.transformer_sd3 import SD3Transformer2DLoadersMixin
    from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0

    weights = synthetic.instantx(width=128, hidden=128, depth=4, encoder=ENCODER, tokens=3)
    base, (parts, features) = tiny("sd3", norms), inputs()
    with torch.no_grad():
        plain = base.velocity(**parts)
        ours = Steered(base, build_adapter(weights)).velocity(**parts, features=features)
        base = tiny("sd3", norms)
        state = {key.removeprefix("image_proj."): t for key, t in weights.items() if key.startswith("image_proj.")}
        project = SD3Transformer2DLoadersMixin()._convert_ip_adapter_image_proj_to_diffusers(
            state, low_cpu_mem_usage=False
        )
        for i, block in enumerate(base.net.transformer_blocks):
            processor = SD3IPAdapterJointAttnProcessor2_0(128, 128, 64, timesteps_emb_dim=128, scale=1.0)
            prefix = f"ip_adapter.{i}."
            processor.load_state_dict({k.removeprefix(prefix): t for k, t in weights.items() if k.startswith(prefix)})
            block.attn.set_processor(processor)
        tokens, time = project(features, 1000 * parts["sigma"])
        theirs = base.net(
            parts["x"], parts["states"], parts["pooled"], 1000 * parts["sigma"], return_dict=False,
            joint_attention_kwargs=dict(ip_hidden_states=tokens, temb=time),
        )[0]  # fmt: skip
    assert error(ours, theirs) < 1e-5 and error(ours - plain, theirs - plain) < 1e-4


def test_a_steered_flux_is_that_of_diffusers():
    from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

    weights = synthetic.xlabs(width=64, context=48, encoder=ENCODER, tokens=PLACES, spatial=True)
    adapter, (parts, features) = build_adapter(weights), inputs()
    with torch.no_grad():
        base = tiny("flux")
        plain = base.velocity(**parts)
        ours = Steered(base, adapter).velocity(**parts, features=features)
        base = tiny("flux")
        for i, block in enumerate(base.net.transformer_blocks):
            processor = FluxIPAdapterAttnProcessor(
                hidden_size=64, cross_attention_dim=48, num_tokens=[PLACES], scale=1.0
            )
            layer = f"double_blocks.{i}.processor.ip_adapter_double_stream_"
            processor.load_state_dict(
                {f"to_{n}_ip.0.{part}": weights[f"{layer}{n}_proj.{part}"] for n in "kv" for part in ("weight", "bias")}
            )
            block.attn.set_processor(processor)
        tokens, net = adapter.tokens(features), base.net
        base.net = lambda *args, **kwargs: net(*args, **kwargs, joint_attention_kwargs={"ip_hidden_states": [tokens]})
        base.net.dtype, base.net.config = net.dtype, net.config
        theirs = base.velocity(**parts)
    assert error(ours, theirs) < 1e-5 and error(ours - plain, theirs - plain) < 1e-4


def test_a_flux_sees_its_latent_as_diffusers_pipeline_packs_it():
    base, (parts, _) = tiny("flux"), inputs()
    seen = {}
    base.net.register_forward_pre_hook(lambda m, args, kwargs: seen.update(kwargs, tokens=args[0]), with_kwargs=True)
    with torch.no_grad():
        out = base.velocity(**parts)
    pipeline = diffusers.FluxPipeline
    assert torch.equal(seen["tokens"], pipeline._pack_latents(parts["x"], 2, 16, 6, 8))
    assert torch.equal(seen["img_ids"], pipeline._prepare_latent_image_ids(2, 3, 4, "cpu", torch.float32))
    with torch.no_grad():
        raw = base.net(seen["tokens"], parts["states"], parts["pooled"], parts["sigma"],
                       **{k: seen[k] for k in ("img_ids", "txt_ids", "guidance")}, return_dict=False)[0]  # fmt: skip
    torch.testing.assert_close(pipeline._unpack_latents(raw, 48, 64, 8), out)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_a_reference_is_as_its_format_has_it(kind):
    base, (parts, features) = tiny(kind), inputs()
    steered = Steered(base, stirred(new_adapter(base, ENCODER, PLACES, SMALL, seed=0)))
    with torch.no_grad():
        seen = steered.velocity(**parts, features=features)
        half = steered.velocity(**parts, features=features, shown=torch.tensor([True, False]))
        blank = (
            steered.velocity(**parts, features=torch.zeros_like(features)) if kind == "sd3" else base.velocity(**parts)
        )
        plain = steered.velocity(**parts)
    torch.testing.assert_close(half[0], seen[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(half[1], (blank if kind == "sd3" else plain)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [SMALL, LOW])
def test_a_file_gives_the_adapter_that_was_trained(kind, config, tmp_path):
    base, (parts, features) = tiny(kind), inputs()
    adapter = stirred(new_adapter(base, ENCODER, PLACES, config, seed=0))
    with torch.no_grad():
        trained = Steered(base, adapter).velocity(**parts, features=features)
        save_adapter(tmp_path / "a.safetensors", adapter.state_dict(), base, "some-tower", "ab" * 32, {"steps": 7})
        loaded = load_adapter(tmp_path / "a.safetensors")
        again = Steered(tiny(kind), loaded).velocity(**parts, features=features)
    assert (loaded.spec.base, loaded.spec.encoder, loaded.spec.encoder_sha256) == (base.name, "some-tower", "ab" * 32)
    assert loaded.spec.tokens == (3 if kind == "sd3" else PLACES)
    assert error(again, trained) < 2e-3  # fp16
    first = (tmp_path / "a.safetensors").read_bytes()
    save_adapter(tmp_path / "a.safetensors", adapter.state_dict(), base, "some-tower", "ab" * 32, {"steps": 7})
    assert (tmp_path / "a.safetensors").read_bytes() == first


def test_low_rank_layers_multiply_out_to_what_they_do():
    base = tiny("flux")
    adapter = stirred(new_adapter(base, ENCODER, PLACES, LOW, seed=0))
    layer, x = adapter.blocks[1]["v"], torch.randn(3, 64)
    whole = published(adapter.state_dict(), "flux")
    name = "double_blocks.1.processor.ip_adapter_double_stream_v_proj"
    assert torch.linalg.matrix_rank(whole[f"{name}.weight"]) == 2
    torch.testing.assert_close(layer(x), x @ whole[f"{name}.weight"].T + whole[f"{name}.bias"], rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in adapter.blocks.parameters()) < 0.2 * sum(
        p.numel() for p in new_adapter(base, ENCODER, PLACES, SMALL, seed=0).blocks.parameters()
    )


def test_weights_beyond_fp16_are_not_written(tmp_path):
    base = tiny("flux")
    adapter = new_adapter(base, ENCODER, PLACES, SMALL, seed=0)
    adapter.norm.weight.data[3] = 1e6
    with pytest.raises(RealRAGError, match=r"ip_adapter_proj_model.norm.weight has grown beyond fp16"):
        save_adapter(tmp_path / "a.safetensors", adapter.state_dict(), base, "t", "", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_an_fp8_base_is_near_the_whole_one_and_lets_gradients_through(kind):
    (parts, features), whole = inputs(), tiny(kind)
    base = frozen(tiny(kind), "fp8", False)
    assert sum(isinstance(m, Fp8Linear) for m in base.net.modules()) > 10
    with torch.no_grad():
        near, exact = base.velocity(**parts), whole.velocity(**parts)
    assert 0 < error(near, exact) < 0.1
    adapter = new_adapter(base, ENCODER, PLACES, SMALL, seed=0)
    Steered(base, adapter).velocity(**parts, features=features).square().mean().backward()
    value = adapter.blocks[0]["to_v_ip" if kind == "sd3" else "v"]
    assert value.weight.grad.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_gives_the_same_gradients(kind):
    found = []
    for checkpointing in (False, True):
        base, (parts, features) = frozen(tiny(kind), "fp32", checkpointing), inputs()
        adapter = stirred(new_adapter(base, ENCODER, PLACES, SMALL, seed=0))
        runs = []
        base.net.transformer_blocks[0].register_forward_pre_hook(lambda *a: runs.append(1))
        Steered(base, adapter).velocity(**parts, features=features).square().mean().backward()
        found.append([p.grad for p in adapter.parameters()])
        assert len(runs) == 1 + checkpointing
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*found, strict=True))


def test_an_adapter_for_another_generator_is_refused():
    with pytest.raises(AdapterError, match="but the model is a tiny sd3"):
        Steered(tiny("sd3"), build_adapter(synthetic.instantx(width=128, blocks=3, encoder=ENCODER)))
    with pytest.raises(RealRAGError, match="hidden is a multiple of 64"):
        AdapterConfig(hidden=100)
