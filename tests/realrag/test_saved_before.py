"""Files saved by version 0.1.0 are read by today's code, with the answers that version gave (answers.json).

Scores and features are compared with tolerance: they were computed on another machine."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_encoder import ColorEncoder
from fit_in_a_process import fit_here

from realrag.adapters import load_adapter
from realrag.bundle.bundle import Bundle
from realrag.encoders.reflective_head import load_head
from realrag.injection.reference_pack import open_pack
from realrag.retriever import Retriever

SAVED = Path(__file__).parents[1] / "data" / "saved-by-0.1.0"
ANSWERS = json.loads((SAVED / "answers.json").read_text())


@pytest.fixture
def bundle(tmp_path):
    """A copy: opening a bundle may write its cache."""
    return shutil.copytree(SAVED / "bundle", tmp_path / "bundle")


def test_a_bundle_is_whole_and_its_photos_are_there(bundle):
    opened = Bundle(bundle)
    opened.verify()
    assert [head.name for head in opened.manifest.heads] == ["miniature", "real"]
    assert len(opened.records) == 15
    assert {record.licence for record in opened.records} == {"CC0-1.0"}
    assert opened.image(opened.records[0]).size == (48, 36)


@pytest.mark.parametrize("head", ["none", "miniature", "real"])
def test_a_bundle_answers_as_it_did(bundle, head):
    retriever = Retriever.open(bundle, encoder=ColorEncoder()).with_head(None if head == "none" else head)
    for text, expected in ANSWERS["search"][head].items():
        found = retriever.search(text, k=3, min_score=None, find_by="look").items
        assert [(item.id, item.caption, item.licence) for item in found] == [(r[0], r[2], r[3]) for r in expected]
        assert [item.score for item in found] == pytest.approx([r[1] for r in expected], abs=1e-4)


@pytest.mark.parametrize("name, number", [("miniature", 0), ("real", 1)])
def test_a_head_is_read_with_its_metadata(name, number):
    head = load_head(SAVED / f"{name}.safetensors", ColorEncoder.dim)
    assert head.metadata["generator"] == f"generator {number}"
    assert head.metadata["encoder_fingerprint"] == ColorEncoder().fingerprint


def test_a_pack_is_read_with_its_settings():
    pack, expected = open_pack(SAVED / "pack.safetensors"), ANSWERS["pack"]
    assert pack.tensors[0].flatten()[:8].tolist() == expected["first"]  # stored in fp32, not computed
    assert float(sum(tensor.sum() for tensor in pack.tensors)) == pytest.approx(expected["sum"], abs=1e-3)
    cup, apples = pack.items
    assert cup.settings.mask.tolist() == expected["mask"]
    assert (cup.settings.weight, cup.settings.start, cup.settings.end, cup.settings.negative) == (2.0, 0.1, 0.9, True)
    assert apples.settings.mask is None


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_an_adapter_makes_the_tokens_it_made(family):
    adapter, expected = load_adapter(SAVED / f"{family}_adapter.safetensors").float(), ANSWERS["adapters"][family]
    assert (adapter.spec.base, adapter.spec.encoder) == (expected["base"], expected["encoder"])
    features = torch.tensor(ANSWERS["adapters"]["features"])
    with torch.no_grad():
        tokens = adapter.tokens(features, torch.tensor([300.0]))[0] if family == "sd3" else adapter.tokens(features)
    assert tokens.flatten()[:24].tolist() == pytest.approx(expected["tokens"], abs=1e-4)
    assert float(tokens.mean()) == pytest.approx(expected["mean"], abs=1e-4)


def test_a_stopped_fit_goes_on_from_its_checkpoint(bundle, tmp_path):
    folder = shutil.copytree(SAVED / "stopped-fit", tmp_path / "run")
    bundle.rename(folder / "bundle")
    steps = []
    head = fit_here(folder, progress=lambda done, total: steps.append(done))
    assert steps[0] == ANSWERS["fit"]["steps done"] + 1
    for name, expected in ANSWERS["fit"]["weights"].items():
        assert np.allclose(head.state_dict()[name].flatten()[:6].tolist(), expected, atol=1e-4), name
    with open(folder / "fit.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, steps[-1] + 1))
