"""The trainer on tiny random pipelines of diffusers, saved and loaded as real ones are."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from fake_encoder import ColorEncoder

from realrag.adapters import load_adapter
from realrag.errors import RealRAGError
from realrag_train.adapter import command as adapter_run
from realrag_train.adapter.command import load_base, train_adapter
from realrag_train.adapter.inputs import DiffusersInputs
from realrag_train.adapter.new_adapter import AdapterConfig
from realrag_train.adapter.recipe import (
    AdapterFitConfig,
    AdapterRecipe,
    BaseConfig,
    DataConfig,
    GuardConfig,
    read_adapter_recipe,
)
from realrag_train.loop.watch import WatchConfig

pytestmark = pytest.mark.slow

MAKE = {"diffusers-sd3": "tiny_sd3", "diffusers-flux": "tiny_flux"}


@pytest.fixture(autouse=True, scope="module")
def packages():
    for name in ("diffusers", "transformers"):
        pytest.importorskip(name)


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    import tiny_diffusers

    monkeypatch.setattr(adapter_run, "load_encoder", lambda name, offline: ColorEncoder())

    def make(kind):
        torch.manual_seed(0)
        built = getattr(tiny_diffusers, MAKE[kind])()
        for part in built.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
        built.save_pretrained(tmp_path / "tiny")
        return built

    return make


def recipe(kind, photos, folder, **base):
    return AdapterRecipe(
        BaseConfig(kind, str(folder / "tiny"), **base), DataConfig(photos=str(photos), aside=0.4, looks=2, sentences=1, size=16),
        AdapterConfig(hidden=64, tokens=4, depth=1, rank=2), AdapterFitConfig(steps=2, batch=2, autocast=True), GuardConfig(every=2, tuples=4),
    )  # fmt: skip


@pytest.mark.parametrize("kind", MAKE)
def test_an_adapter_is_trained_on_a_saved_pipeline_in_8_bits_with_checkpointing(kind, pipeline, photos, tmp_path):
    pipeline(kind)
    out = tmp_path / "out" / "a.safetensors"
    out.parent.mkdir()
    chosen = recipe(kind, photos, tmp_path, precision="fp8", checkpointing=True, name="a tiny one")
    assert train_adapter(chosen, out, tmp_path / "scratch", WatchConfig(log_steps=1))
    adapter, base = load_adapter(out), load_base(chosen.base, "cpu")
    adapter.spec.check_base(base.family, base.name, base.width, base.blocks)
    assert adapter.spec.base == "a tiny one" and adapter.spec.encoder_dim == 3
    values = adapter.blocks[0]["to_v_ip" if kind.endswith("sd3") else "v"].weight
    assert values.any() and torch.linalg.matrix_rank(values.float(), rtol=1e-2) <= 2


@pytest.mark.parametrize("kind", MAKE)
def test_latents_and_sentences_are_those_of_the_pipeline(kind, pipeline, tmp_path):
    built = pipeline(kind)
    inputs = DiffusersInputs.load(tmp_path / "tiny", "fp32", "cpu")
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        vae = built.vae
        expected = (vae.encode(built.image_processor.normalize(pixels)).latent_dist.mode() - 0.06) * 1.5
        torch.testing.assert_close(inputs.latents(pixels), expected)
        said = built.encode_prompt(["a pear", ""], *(None,) * (2 if kind.endswith("sd3") else 1))
        states, pooled = (said[0], said[2]) if kind.endswith("sd3") else said[:2]
    found = inputs.texts(["a pear", ""])
    torch.testing.assert_close(found[0], states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], pooled, rtol=1e-4, atol=1e-5)


def test_what_is_not_there_is_named(pipeline, photos, tmp_path, monkeypatch):
    pipeline("diffusers-sd3")
    chosen = recipe("diffusers-sd3", photos, tmp_path)
    with pytest.raises(RealRAGError, match="is not a saved pipeline"):
        load_base(replace(chosen.base, path=str(photos)), "cpu")
    (tmp_path / "out").mkdir()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(RealRAGError, match="needs bitsandbytes"):
        train_adapter(
            replace(chosen, fit=replace(chosen.fit, optimiser="adamw8bit")),
            tmp_path / "out" / "a.safetensors",
            tmp_path / "scratch",
        )


def test_an_8_bit_optimiser_gets_the_same_groups(pipeline, photos, tmp_path, monkeypatch):
    """bitsandbytes itself needs a GPU to be of use; its place is taken by torch's optimizer here."""
    made = []

    class AdamW8bit(torch.optim.AdamW):
        def __init__(self, groups, betas):
            made.append(([group["weight_decay"] for group in groups], betas))
            super().__init__(groups, betas=betas)

    module = ModuleType("bitsandbytes.optim")
    module.AdamW8bit = AdamW8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    pipeline("diffusers-flux")
    chosen = recipe("diffusers-flux", photos, tmp_path)
    (tmp_path / "out").mkdir()
    chosen = replace(chosen, fit=replace(chosen.fit, optimiser="adamw8bit"))
    assert train_adapter(chosen, tmp_path / "out" / "a.safetensors", tmp_path / "scratch")
    assert made == [([0.01, 0.0], (0.9, 0.99))]


@pytest.mark.parametrize("name, kind", [("flux-dev", "diffusers-flux"), ("sd35", "diffusers-sd3")])
def test_the_recipes_for_real_generators_train_tiny_ones(name, kind, pipeline, photos, tmp_path, monkeypatch):
    """All their choices but sizes and numbers of steps; and AdamW, as bitsandbytes is not everywhere."""
    pipeline(kind)
    chosen = read_adapter_recipe(name, {"base": {"path": str(tmp_path / "tiny")}, "data": {"photos": str(photos)}})
    assert chosen.base.kind == kind and chosen.base.precision == "fp8" and chosen.fit.optimiser == "adamw8bit"
    chosen = replace(
        chosen, data=replace(chosen.data, size=16, looks=2, aside=0.4), adapter=replace(chosen.adapter, hidden=64, rank=2),
        fit=replace(chosen.fit, optimiser="adamw", steps=2, batch=2, accumulate=2), guard=replace(chosen.guard, every=1, tuples=4),
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    assert train_adapter(chosen, tmp_path / "out" / "a.safetensors", tmp_path / "scratch")
