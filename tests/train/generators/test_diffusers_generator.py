"""Tiny random SD3 and Flux pipelines, saved and loaded as real ones are, draw for the trainer."""

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tiny_diffusers import tiny_flux, tiny_sd3

from realrag_train.generators.diffusers_pipeline import Diffusers
from realrag_train.generators.errors import GeneratorError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("make", [tiny_sd3, tiny_flux])
def test_a_saved_pipeline_draws_by_prompt_and_seed(tmp_path, make):
    torch.manual_seed(0)
    make().save_pretrained(tmp_path / "tiny")
    generator = Diffusers(tmp_path / "tiny", steps=2, guidance=2.0, size=32)
    pear, again, seeded, apple = (
        np.asarray(generator.draw(prompt, seed))
        for prompt, seed in (
            ("a photo of a pear", 1),
            ("a photo of a pear", 1),
            ("a photo of a pear", 2),
            ("an apple", 1),
        )
    )
    assert pear.shape == (32, 32, 3)
    np.testing.assert_array_equal(pear, again)
    assert (pear != seeded).any() and (pear != apple).any()
    assert generator.metadata["num_inference_steps"] == 2 and "tiny" in generator.metadata["name"]


def test_what_cannot_be_loaded_is_refused_before_anything_is_fetched(tmp_path):
    with pytest.raises(GeneratorError, match="download = true"):
        Diffusers("someone/some-model")
    with pytest.raises(GeneratorError, match="Name the revision"):
        Diffusers("someone/some-model", download=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GeneratorError, match="not a pipeline"):
        Diffusers(tmp_path / "empty")
