"""Reference packs in the real ComfyUI: the same picture without photos and adapter; what does not fit is refused."""

from __future__ import annotations

import pytest
import torch
from controls_world import ADAPTERS, WAYS, edited, execute, parts_of, retrieved
from injection_world import DIALS, photo

every_adapter = pytest.mark.parametrize("way", ADAPTERS)


@pytest.fixture
def folder(world, tmp_path, monkeypatch):
    import folder_paths

    place = ([str(tmp_path / "packs")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "realrag_packs", place)
    folder_paths.filename_list_cache.pop("realrag_packs", None)
    return tmp_path / "packs"


def nodes(world):
    return world.plugin("nodes.injection.save_and_load_pack")


def save(world, way, references=None, image=None, name="mine", **more):
    parts = parts_of(world, way)
    return nodes(world).SaveReferencePack.execute(
        world.models[WAYS[way][0]], name=name, references=references, image=image, **parts, **more
    )


def load(world, name="mine.safetensors"):
    import folder_paths

    folder_paths.filename_list_cache.pop("realrag_packs", None)
    assert nodes(world).LoadReferencePack.validate_inputs(name) is True
    return nodes(world).LoadReferencePack.execute(name).result


def from_pack(world, way, pack, adapter=None, **settings):
    model = world.models[WAYS[way][0]]
    return world.inject.InjectReferences.execute(model, pack=pack, adapter=adapter, **{**DIALS, **settings}).result


@every_adapter
def test_a_pack_gives_the_same_picture_without_photos_or_encoder(world, folder, way):
    references = edited(world, retrieved(world, 1, 2), 1, weight=2.0, mask=torch.rand(1, 9, 9), end_percent=0.7)
    references = edited(world, references, 2, weight=0.5)
    save(world, way, references)
    pack, credits = load(world)
    adapter = parts_of(world, way)["adapter"] if way == "sd35 instantx" else None
    model, report, *_ = from_pack(world, way, pack, adapter, strength=0.8)
    expected = execute(world, way, references, strength=0.8).result[0]
    assert torch.equal(world.sample(model), world.sample(expected))
    assert "Reference pack" in report and "Reference 1: weight 2, steps 0% to 70%, masked." in report
    assert "photo 1" in credits.splitlines()[0] and "weight 0.5" in credits.splitlines()[1]


@pytest.mark.parametrize("way", ["flux xlabs", "flux instantx"])
def test_with_a_flux_pack_no_adapter_is_held(world, folder, way):
    save(world, way, image=photo(1))
    model, report, *_ = from_pack(world, way, load(world)[0])
    assert model.get_nested_additional_models() == [] and "no adapter in memory" in report


def test_half_precision_is_half_the_size_and_nearly_the_same(world, folder):
    save(world, "flux xlabs", image=photo(1))
    save(world, "flux xlabs", image=photo(1), name="small", precision="half")
    full, half = ((folder / f"{name}.safetensors").stat().st_size for name in ("mine", "small"))
    assert half < 0.6 * full
    first, second = (from_pack(world, "flux xlabs", load(world, f"{n}.safetensors")[0])[0] for n in ("mine", "small"))
    torch.testing.assert_close(world.call(first), world.call(second), rtol=0.05, atol=0.05)


def test_a_pack_of_sd35_still_needs_its_adapter_and_says_so(world, folder):
    pack = save(world, "sd35 instantx", image=photo(1)).result[0]
    with pytest.raises(world.adapter_error, match="still needs its adapter"):
        from_pack(world, "sd35 instantx", pack)
    with pytest.raises(world.adapter_error, match="still needs its adapter"):
        from_pack(world, "sd35 instantx", pack, parts_of(world, "flux xlabs")["adapter"])


def test_a_pack_for_another_model_is_refused_with_both(world, folder):
    pack = save(world, "flux xlabs", image=photo(1)).result[0]
    with pytest.raises(world.adapter_error, match=r"made for a flux model .* but the model is SD3"):
        from_pack(world, "sd35 instantx", pack)


def test_a_pack_and_photos_together_are_refused(world, folder):
    pack = save(world, "flux xlabs", image=photo(1)).result[0]
    with pytest.raises(world.adapter_error, match="either a reference pack or"):
        world.inject.InjectReferences.execute(world.models["flux"], pack=pack, image=photo(2), **DIALS)


def test_a_name_is_kept_unless_it_is_the_same_pack_or_overwriting_is_wanted(world, folder):
    save(world, "flux xlabs", image=photo(1))
    save(world, "flux xlabs", image=photo(1))
    with pytest.raises(world.adapter_error, match="another pack named 'mine'"):
        save(world, "flux xlabs", image=photo(2))
    before = (folder / "mine.safetensors").read_bytes()
    save(world, "flux xlabs", image=photo(2), overwrite=True)
    assert (folder / "mine.safetensors").read_bytes() != before
    assert [file.name for file in folder.iterdir()] == ["mine.safetensors"]


@pytest.mark.parametrize("name", ["../out", "/out", "a/b", "a\\b", "", " ", ".hidden", "con", "x" * 200, "a.b", "ü"])
def test_a_name_that_is_no_plain_name_is_refused(world, folder, name):
    with pytest.raises(world.adapter_error, match="cannot be the name of a pack"):
        save(world, "flux xlabs", image=photo(1), name=name)
    assert not folder.exists() or not list(folder.iterdir())


def test_only_listed_packs_can_be_loaded(world, folder, tmp_path):
    save(world, "flux xlabs", image=photo(1))
    (tmp_path / "outside.safetensors").write_bytes((folder / "mine.safetensors").read_bytes())
    node = nodes(world).LoadReferencePack
    assert "No pack named" in node.validate_inputs("../outside.safetensors")
    with pytest.raises(Exception, match=r"No file named .../outside.safetensors. in models/realrag_packs"):
        node.execute("../outside.safetensors")
    assert node.define_schema().inputs[0].options == ["mine.safetensors"]


def test_nothing_to_pack_is_said(world, folder):
    empty = world.plugin("realrag.references").References("query", "bundle", (), "Nothing scored 0.9 or more.")
    with pytest.raises(world.adapter_error, match=r"no references to pack. Nothing scored"):
        save(world, "flux xlabs", empty)
