"""What `realrag bench blocks` measures by: color and texture blind to places, layout blind to color."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import realrag.indexing.build as indexing
from realrag.bench.blocks import color_and_texture, layout, moved
from realrag.commands.main import main
from realrag.miniature.files import families_there
from realrag.retriever import shipped_bundle


def pictures(seed=0):
    noise = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=(128, 128), mode="bilinear")


def test_color_and_texture_do_not_see_where_things_are():
    one = pictures()
    torch.testing.assert_close(color_and_texture(one.flip(-1)), color_and_texture(one), rtol=1e-4, atol=1e-4)
    assert (layout(one.flip(-1)) - layout(one)).norm() > 1


def test_layout_does_not_see_color_or_contrast():
    one = pictures()
    recolored = one[:, [1, 2, 0]] * 0.5 + 0.2
    torch.testing.assert_close(layout(recolored), layout(one), rtol=1e-4, atol=1e-4)
    assert (color_and_texture(recolored) - color_and_texture(one)).norm() > 0.1


def test_the_way_from_plain_to_full_is_0_at_its_start_and_1_at_its_end():
    plain, full = pictures(0), pictures(1)
    for describe in (color_and_texture, layout):
        assert moved(describe, plain, full, plain) == 0
        assert moved(describe, plain, full, full) == 1

    def brightness(pictures):
        return pictures.mean((2, 3))

    assert moved(brightness, plain, full, 0.75 * plain + 0.25 * full) == pytest.approx(0.25, abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not families_there(), reason="the package holds no miniatures")
def test_every_block_of_both_miniatures_is_measured(capsys, monkeypatch):
    """In the bundle that ships, instead of one indexed anew."""
    monkeypatch.setattr(indexing, "build", lambda photos, out, encoder: shutil.copytree(shipped_bundle(), out))
    assert main(["bench", "blocks", "--prompts", "1", "--steps", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["blocks"]
    assert len({(row["family"], row["block"]) for row in found}) == len(found) >= 2
