"""The shipped miniature adapters look at their references: 128 fixed (reference, target, noise, noise level) for each.

REALRAG_MINIATURE names another folder with the same files. Skipped where the weights are not.
"""

import os
from pathlib import Path

import pytest
import torch

import realrag
from realrag.adapters import load_adapter
from realrag.adapters.hooks import Steered
from realrag.encoders.load import load_encoder
from realrag.miniature.autoencoder import load_autoencoder
from realrag.miniature.generator import load_generator
from realrag.miniature.painting import Miniature
from realrag.miniature.sampling import shifted
from realrag_train.adapter.bases import frozen
from realrag_train.adapter.cache import cached
from realrag_train.adapter.class_photos import HELD_OUT, TRAIN, ClassPhotos, read_class_photos
from realrag_train.adapter.command import SHIFTS
from realrag_train.adapter.inputs import MiniatureInputs
from realrag_train.adapter.recipe import DataConfig, read_adapter_recipe
from realrag_train.adapter.shuffle_gap import fixed_tuples, measure

pytestmark = pytest.mark.slow

ASSETS = Path(realrag.__file__).parent / "assets"
FOLDER = Path(os.environ.get("REALRAG_MINIATURE") or ASSETS / "miniature")
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(
        not all((FOLDER / f"{name}.safetensors").is_file() for name in (kind, f"{kind}_adapter", "autoencoder")),
        reason=f"no miniature {kind} with its adapter in {FOLDER}",
    ))
    for kind in ("sd3", "flux")
]  # fmt: skip
EACH, FEW, COUNT = 64, 8, 16  # tuples of a part, fewer where none may change at all, and the things that they show


def few(things: ClassPhotos) -> ClassPhotos:
    """All photos of COUNT classes, spread over the alphabet."""
    rows = sorted(set(things.rows))[:: max(1, len(set(things.rows)) // COUNT)][:COUNT]
    kept = [i for i, row in enumerate(things.rows) if row in rows]
    return ClassPhotos(
        things.part, things.groups, tuple(things.photos[i] for i in kept), tuple(things.rows[i] for i in kept)
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Shipped photos of groceries that the miniatures were trained on, and of groceries held out from them."""
    held_out = read_adapter_recipe("miniature-sd3").data.held_out
    config = DataConfig(photos=str(ASSETS / "photos" / "grocery"), held_out=held_out, aside=0.0, sentences=2)
    encoder, scratch = load_encoder(), tmp_path_factory.mktemp("scratch")
    inputs, found = (
        MiniatureInputs(load_autoencoder(FOLDER / "autoencoder.safetensors"), encoder),
        read_class_photos(config),
    )
    return encoder, {part: cached(few(found[part]), config, 1, inputs, encoder, scratch) for part in (TRAIN, HELD_OUT)}


def gaps(kind, parts, tuples=EACH, zeroed=False):
    encoder, caches = parts

    def levels(normal):
        return shifted(torch.sigmoid(normal), SHIFTS[kind])

    adapter = load_adapter(FOLDER / f"{kind}_adapter.safetensors")
    adapter.spec.check_encoder(encoder.weights_sha256)
    if zeroed:
        for block in adapter.blocks:
            for name in ("v", "to_v_ip"):
                for weight in block[name].parameters() if name in block else ():
                    weight.zero_()
    steered = Steered(frozen(Miniature(load_generator(FOLDER / f"{kind}.safetensors")), "fp32", False), adapter.float())
    return {part: measure(steered.velocity, fixed_tuples(each, tuples, levels, 0)) for part, each in caches.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_reference_serves_better_than_a_wrong_one_and_zeroed_values_show_none(kind, parts):
    found = gaps(kind, parts)
    assert sum(gap.mean for gap in found.values()) > 0
    assert found[TRAIN].low > 0, f"things trained on: {found[TRAIN]}"
    assert found[HELD_OUT].mean > 0, f"things held out: {found[HELD_OUT]}"
    for gap in gaps(kind, parts, FEW, zeroed=True).values():
        assert gap.mean == 0 and abs(gap.saved) < 1e-6
