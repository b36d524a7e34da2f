"""Tiny random SD3 and Flux pipelines, saved and loaded as real ones are, draw for the trainer."""

import numpy as np
import pytest
import torch
from PIL import Image

from realrag_train.generators.diffusers_pipeline import Diffusers
from realrag_train.generators.errors import DrawingFailed, GeneratorError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def packages():
    for name in ("diffusers", "transformers"):
        pytest.importorskip(name)


@pytest.mark.parametrize("make", ["tiny_sd3", "tiny_flux"])
def test_a_saved_pipeline_draws_by_prompt_and_seed(tmp_path, make):
    import tiny_diffusers

    torch.manual_seed(0)
    getattr(tiny_diffusers, make)().save_pretrained(tmp_path / "tiny")
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


class Filtered:
    """A pipeline of diffusers whose safety filter says what `flags` are, and blackens every picture."""

    def __init__(self, flags):
        self.flags = flags

    def to(self, device):
        return self

    def set_progress_bar_config(self, **options):
        pass

    def __call__(self, prompt, generator, output_type):
        from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput

        return StableDiffusionPipelineOutput(images=[Image.new("RGB", (8, 8))], nsfw_content_detected=self.flags)


@pytest.mark.parametrize("flags, blocked", [([True], True), ([False], False), (None, False)])
def test_a_picture_that_the_safety_filter_blanked_is_a_failed_drawing(tmp_path, monkeypatch, flags, blocked):
    from diffusers import DiffusionPipeline

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *given, **options: Filtered(flags))
    generator = Diffusers(tmp_path)
    if not blocked:
        assert generator.draw("a pear", 3).size == (8, 8)
        return
    with pytest.raises(DrawingFailed, match="safety filter blocked 'a pear', seed 3"):
        generator.draw("a pear", 3)
