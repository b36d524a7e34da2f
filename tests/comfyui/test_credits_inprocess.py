"""Add Credits inside ComfyUI's own process: prompts of odd shapes, packs, and pictures that have no metadata."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

NODE = {"class_type": "RealRAG_Credits", "inputs": {}}


@pytest.fixture
def with_metadata(plugin):
    return plugin("nodes.credits.prompt_metadata").with_metadata


@pytest.mark.parametrize("extra", [[], "x", 5, {"extra_pnginfo": "x"}, {"extra_pnginfo": [1]}])
def test_metadata_of_another_shape_stays_as_it_is(with_metadata, extra):
    request = {"prompt": {"1": dict(NODE)}, "extra_data": extra}
    assert with_metadata(request) is request
    assert request["extra_data"] == extra


@pytest.mark.parametrize(
    "request_", [{}, {"prompt": None}, {"prompt": []}, {"prompt": {"1": None, "2": {"class_type": 5}}}]
)
def test_a_prompt_without_the_node_is_left_alone(with_metadata, request_):
    assert with_metadata(dict(request_)) == request_


def test_a_prompt_with_the_node_gets_a_place_for_credits(with_metadata):
    workflow = {"nodes": []}
    request = {
        "prompt": {"1": {**NODE, "is_changed": ["old"]}},
        "extra_data": {"extra_pnginfo": {"workflow": workflow, "realrag": 1}},
    }
    made = with_metadata(request)
    assert made["extra_data"]["extra_pnginfo"] == {"workflow": workflow}
    assert made["prompt"]["1"] == NODE
    assert with_metadata({"prompt": {"1": dict(NODE)}})["extra_data"] == {"extra_pnginfo": {}}


@pytest.fixture
def node(plugin):
    """Add Credits with this metadata -> (what it gives, the metadata)."""
    add_credits = plugin("nodes.credits.add_credits").AddCredits

    def run(metadata, **inputs):
        class Running(add_credits):
            hidden = SimpleNamespace(extra_pnginfo=metadata)

        return Running.execute(**inputs).args, metadata

    return run


@pytest.fixture
def pack(plugin):
    kind = plugin("realrag.injection.reference_pack")
    settings = plugin("realrag.injection.reference_settings").ReferenceSettings
    metadata = kind.PackMetadata(kind.FEATURES, "flux-xlabs", "XLabs", "", "", "flux", 8, 1, 1, 1, 0)
    items = (kind.PackedReference("lemon, by Ann, CC0-1.0"), kind.PackedReference("left out", 0.0, settings(weight=0)))
    return kind.ReferencePack(metadata, items, ())


def test_the_photos_behind_a_pack_are_credited(node, pack):
    images = torch.rand(2, 8, 8, 3)
    (passed, text), metadata = node({"workflow": {}}, images=images, pack=pack)
    assert passed is images
    assert text == "1. lemon, by Ann, CC0-1.0"
    (entry,) = metadata["realrag"]["credits"]
    assert [photo["title"] for photo in entry["references"]] == ["lemon, by Ann, CC0-1.0"]
    assert len(entry["pictures"]) == 2


@pytest.mark.parametrize("metadata", [None, "x", []])
def test_without_metadata_the_credits_are_still_a_text(node, pack, metadata):
    (_, text), after = node(metadata, images=torch.rand(1, 8, 8, 3), pack=pack)
    assert text == "1. lemon, by Ann, CC0-1.0"
    assert after == metadata


def test_no_references_leave_no_mark_and_say_why(node, plugin):
    none = plugin("realrag.references").References("a puffin", "ab" * 32, (), "Nothing here fits.")
    (_, text), metadata = node({}, images=torch.rand(1, 8, 8, 3), references=none)
    assert text == "Nothing here fits."
    assert metadata == {}


def test_the_hash_is_that_of_the_picture_that_core_saves(plugin, tmp_path, monkeypatch):
    """The same values, rounded as ComfyUI's own Save Image rounds them."""
    folder_paths, core = importlib.import_module("folder_paths"), importlib.import_module("nodes")
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    images = torch.rand(1, 8, 8, 3)
    (saved,) = core.SaveImage().save_images(images)["ui"]["images"]
    own = plugin("realrag.credits.record").pixel_hash(np.asarray(Image.open(tmp_path / saved["filename"])))
    assert plugin("nodes.credits.add_credits").pixel_hashes(images) == (own,)
