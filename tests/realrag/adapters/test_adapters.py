"""Reference adapters: what a file is, and that anything broken is refused in words."""

import pytest
import synthetic_adapters as synthetic
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from realrag.adapters import attention as attention_maths
from realrag.adapters import build_adapter, detect, load_adapter
from realrag.adapters.reading import flatten
from realrag.adapters.siglip_pooling_head import head_width, load_map_head
from realrag.errors import AdapterError


def diffusers_names(flat):
    """XLabs weights as diffusers saves them."""
    return {
        key.replace("ip_adapter_proj_model.proj", "image_proj.proj")
        .replace("ip_adapter_proj_model.", "image_proj.")
        .replace("double_blocks.", "ip_adapter.")
        .replace("processor.ip_adapter_double_stream_k_proj", "to_k_ip")
        .replace("processor.ip_adapter_double_stream_v_proj", "to_v_ip"): tensor
        for key, tensor in flat.items()
    }


@pytest.mark.parametrize("tokens, label", [(4, "Flux XLabs v1"), (16, "Flux XLabs v2")])
def test_xlabs_files_of_real_size_are_recognised_without_their_data(tokens, label):
    spec = detect(synthetic.xlabs(width=3072, context=4096, blocks=19, encoder=768, tokens=tokens, device="meta"))
    assert (spec.family, spec.label, spec.tokens, spec.n_blocks) == ("flux-xlabs", label, tokens, 19)
    assert (spec.encoder, spec.encoder_output, spec.crop) == ("CLIP ViT-L/14", "image_embeds", True)


def test_the_instantx_file_of_real_size_is_recognised_without_its_data():
    sizes = dict(width=2432, hidden=1280, heads=20, blocks=38, encoder=1152, tokens=64, depth=4, time=320)
    spec = detect(synthetic.instantx(**sizes, device="meta"))
    assert (spec.family, spec.base, spec.tokens, spec.n_blocks) == ("sd35-instantx", "SD3.5 Large", 64, 38)
    assert (spec.encoder, spec.encoder_output, spec.crop) == (
        "SigLIP so400m-patch14-384",
        "penultimate_hidden_states",
        False,
    )


def test_the_flux_instantx_file_of_real_size_is_recognised_without_its_data():
    sizes = dict(width=3072, context=4096, blocks=57, encoder=1152, tokens=128, hidden=2304)
    spec = detect(synthetic.instantx_flux(**sizes, device="meta"))
    assert (spec.family, spec.tokens, spec.n_blocks, spec.single_blocks) == ("flux-instantx", 128, 57, True)
    assert (spec.encoder, spec.encoder_output, spec.crop) == ("SigLIP so400m-patch14-384", "pooler_output", False)
    spec.check_base("flux", "Flux", 3072, 19 + 38)
    with pytest.raises(AdapterError, match=r"57 blocks of width 3072.*but the model is Flux with 27 blocks"):
        spec.check_base("flux", "Flux", 3072, 8 + 19)


def test_the_redux_file_of_real_size_is_recognised_without_its_data():
    spec = detect(synthetic.redux(width=4096, encoder=1152, inner=12288, device="meta"))
    assert (spec.family, spec.width, spec.tokens, spec.encoder_output) == ("flux-redux", 4096, 729, "last_hidden_state")


def test_redux_tokens_are_pooled_in_squares_and_stay_as_they_are_at_one():
    adapter = build_adapter(synthetic.redux())
    hidden = torch.randn(1, 49, 24, generator=torch.Generator().manual_seed(1))
    whole = adapter.tokens(hidden)
    assert whole.shape == (1, 49, 64) and torch.equal(adapter.tokens(hidden, 1), whole)
    grid = whole.reshape(7, 7, 64)
    # 7 patches on a side to 3: windows 0-2, 2-4, 4-6, as area resampling lays them
    spans = [(0, 3), (2, 5), (4, 7)]
    slow = torch.stack([grid[a:b, c:d].mean((0, 1)) for a, b in spans for c, d in spans])
    torch.testing.assert_close(adapter.tokens(hidden, 2)[0], slow)
    assert adapter.tokens(hidden, 5).shape == (1, 1, 64)
    assert adapter.tokens(hidden[:, :48], 3).shape == (1, 48, 64)


@pytest.mark.parametrize("bias", [False, True])
def test_a_huge_layer_is_converted_in_parts(monkeypatch, bias):
    """So that baking a 5 GB adapter does not need a second copy of it on the device."""
    layer = torch.nn.Linear(24, 50, bias=bias).half()
    x = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(1))
    whole = attention_maths.linear(layer, x)
    converted = []
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args: (converted.append(self.numel()), to(self, *args))[1])
    monkeypatch.setattr(attention_maths, "CAST_LIMIT", 200)
    torch.testing.assert_close(attention_maths.linear(layer, x), whole)
    assert len(converted) > 6 and max(converted) <= 200


def test_the_nested_flux_instantx_bin_is_read_as_plain_weights(tmp_path):
    flat = synthetic.instantx_flux()
    torch.save(synthetic.nested(flat), tmp_path / "ip-adapter.bin")
    loaded = load_adapter(tmp_path / "ip-adapter.bin")
    assert torch.equal(loaded.blocks[3]["v"].weight, flat["ip_adapter.3.to_v_ip.weight"])
    assert torch.equal(loaded.proj["2"].bias, flat["image_proj.proj.2.bias"])


def test_a_pooling_head_is_found_by_its_keys_and_broken_ones_are_refused(tmp_path):
    whole, path = synthetic.map_head(width=24), tmp_path / "vision.safetensors"
    save_file({**whole, "vision_model.post_layernorm.weight": torch.ones(24)}, path)
    assert head_width(path) == 24 and load_map_head(path).width == 24
    torch.save(whole, tmp_path / "vision.bin")
    assert torch.equal(load_map_head(tmp_path / "vision.bin").probe, load_map_head(path).probe)
    save_file({"vision_model.post_layernorm.weight": torch.ones(24)}, path)
    assert head_width(path) is None
    save_file({"vision_model.head.probe": torch.tensor(1.0)}, tmp_path / "odd.safetensors")
    assert head_width(tmp_path / "odd.safetensors") is None
    with pytest.raises(AdapterError, match=r"vision.safetensors holds no pooling head"):
        load_map_head(path)
    for key in whole:
        save_file({k: t for k, t in whole.items() if k != key} | {"x": torch.ones(1)}, path)
        with pytest.raises(AdapterError, match="missing"):
            load_map_head(path)
    path.write_bytes(path.read_bytes()[:50])
    assert head_width(path) is None
    with pytest.raises(AdapterError, match=r"vision.safetensors is damaged"):
        load_map_head(path)


@pytest.mark.parametrize("make", [synthetic.xlabs, synthetic.instantx, synthetic.instantx_flux, synthetic.redux])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_an_adapter_keeps_the_precision_of_its_file(make, dtype, tmp_path):
    save_file(make(dtype=dtype), tmp_path / "any name.safetensors")
    assert {p.dtype for p in load_adapter(tmp_path / "any name.safetensors").parameters()} == {dtype}


def test_the_spellings_of_diffusers_give_the_same_xlabs_adapter():
    published = synthetic.xlabs()
    ours, theirs = build_adapter(published), build_adapter(diffusers_names(published))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_the_spellings_of_diffusers_give_the_same_instantx_adapter():
    parts = {
        "0.norm1": "ln0",
        "0.norm2": "ln1",
        "0.to_q": "attn.to_q",
        "0.to_kv": "attn.to_kv",
        "0.to_out": "attn.to_out.0",
        "1.0": "adaln_norm",
        "1.1": "ff.net.0.proj",
        "1.3": "ff.net.2",
        "2.1": "adaln_proj",
    }
    published, renamed = synthetic.instantx(depth=2), {}
    for key, tensor in published.items():
        for old, new in parts.items():
            key = key.replace(f"layers.0.{old}.", f"layers.0.{new}.").replace(f"layers.1.{old}.", f"layers.1.{new}.")
        renamed[key] = tensor
    assert "image_proj.layers.1.ff.net.2.weight" in renamed
    ours, theirs = build_adapter(published), build_adapter(renamed)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_the_same_weight_in_two_spellings_is_refused():
    weights = synthetic.xlabs()
    weights["image_proj.proj.weight"] = weights["ip_adapter_proj_model.proj.weight"]
    with pytest.raises(AdapterError, match="in two ways"):
        build_adapter(weights)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_bin_is_refused(share, tmp_path):
    torch.save(synthetic.nested(synthetic.instantx(blocks=1, depth=1)), tmp_path / "adapter.bin")
    whole = (tmp_path / "adapter.bin").read_bytes()
    (tmp_path / "adapter.bin").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(AdapterError, match=r"adapter.bin is damaged"):
        load_adapter(tmp_path / "adapter.bin")


def test_a_nested_bin_is_read_as_plain_weights(tmp_path):
    flat = synthetic.instantx()
    torch.save(synthetic.nested(flat), tmp_path / "ip-adapter.bin")
    loaded = load_adapter(tmp_path / "ip-adapter.bin")
    assert torch.equal(loaded.blocks[1]["to_v_ip"].weight, flat["ip_adapter.1.to_v_ip.weight"])


class Surprise:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, capsys):
    torch.save({"image_proj": Surprise()}, tmp_path / "adapter.bin")
    with pytest.raises(AdapterError, match="more than weights"):
        load_adapter(tmp_path / "adapter.bin")
    (tmp_path / "adapter.bin").rename(tmp_path / "adapter.safetensors")
    with pytest.raises(AdapterError, match="holds a pickle"):
        load_adapter(tmp_path / "adapter.safetensors")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "content, words",
    [
        ({"lora_unet_x.lora_up.weight": torch.ones(2, 2)}, "a LoRA"),
        (  # a face adapter of SD1.5: the projector of Flux InstantX, but blocks 1, 3, 5
            {f"image_proj.proj.{i}.weight": torch.ones(2, 2) for i in "02"}
            | {"ip_adapter.1.to_k_ip.weight": torch.ones(2)},
            "SD1.5 or SDXL",
        ),
        ({"1.to_k_ip.weight": torch.ones(2, 2)}, "SD1.5 or SDXL"),
        ({"some.thing": torch.ones(2)}, "some.thing"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_name(content, words, tmp_path):
    save_file(content, tmp_path / "file.safetensors")
    with pytest.raises(AdapterError, match=words):
        load_adapter(tmp_path / "file.safetensors")


@pytest.mark.parametrize("content", [[1], {"image_proj": {"a": 1}}, {"other": {"a": torch.ones(1)}}, {"a": "text"}])
def test_a_table_that_is_not_all_tensors_is_refused(content):
    with pytest.raises(AdapterError):
        flatten(content)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mutated_adapter_file_is_refused_in_words(data, tmp_path):
    families = [synthetic.xlabs, synthetic.instantx, synthetic.instantx_flux, synthetic.redux]
    make = data.draw(st.sampled_from(families))
    kinds = {
        synthetic.xlabs: [{}, {"spatial": True}],
        synthetic.instantx: [{"depth": 1}, {"depth": 1, "own_keys": False}],
    }
    weights = make(blocks=1, **data.draw(st.sampled_from(kinds.get(make, [{}]))))
    key = data.draw(st.sampled_from(sorted(weights)))
    harm = data.draw(
        st.sampled_from(["missing", "shape", "rank", "dtype", "nan", "inf", "extra", "cut", "header", "flip"])
    )
    path = tmp_path / "adapter.safetensors"
    if harm == "missing":
        del weights[key]
    elif harm == "shape":
        weights[key] = torch.cat((weights[key], weights[key][:1]))
    elif harm == "rank":
        weights[key] = weights[key][None]
    elif harm == "dtype":
        weights[key] = weights[key].to(torch.float64)
    elif harm in ("nan", "inf"):
        weights[key].view(-1)[-1] = float(harm)
    elif harm == "extra":
        weights[key + ".more"] = torch.ones(2)
    save_file(weights, path)
    raw = bytearray(path.read_bytes())
    if harm == "cut":
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    elif harm == "header":
        raw[:8] = data.draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little")
    elif harm == "flip":
        raw[data.draw(st.integers(9, 200))] ^= 0x80
    path.write_bytes(bytes(raw))
    with pytest.raises(AdapterError) as refused:
        load_adapter(path)
    assert "adapter.safetensors" in str(refused.value)


def test_an_adapter_refuses_a_generator_and_an_encoder_it_was_not_made_for():
    spec = build_adapter(synthetic.instantx(width=128, blocks=2, encoder=24)).spec
    spec.check_base("sd3", "SD3.5", 128, 2)
    with pytest.raises(AdapterError, match=r"2 blocks of width 128.*24 blocks of width 1536"):
        spec.check_base("sd3", "SD3.5 Medium", 1536, 24)
    with pytest.raises(AdapterError, match="but the model is Flux"):
        spec.check_base("flux", "Flux", 128, 2)
    spec.check_features(torch.ones(1, 5, 24))
    with pytest.raises(AdapterError, match=r"width 24 .*gives width 32"):
        spec.check_features(torch.ones(1, 5, 32))
    with pytest.raises(AdapterError, match="Load CLIP Vision"):
        spec.check_features(torch.ones(1, 24))
