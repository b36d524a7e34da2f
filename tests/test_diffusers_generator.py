"""Tiny random SD3 and Flux pipelines, saved and loaded as real ones are, draw for the trainer."""

import numpy as np
import pytest
import torch

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from realrag_train.generators.diffusers_pipeline import Diffusers  # noqa: E402
from realrag_train.generators.errors import GeneratorError  # noqa: E402

WORDS = ["a", "photo", "of", "pear", "apple"]


def clip_tokenizer():
    letters = sorted(set("".join(WORDS)))
    ends = [letter + "</w>" for letter in letters]
    vocab = {token: i for i, token in enumerate(letters + ends + ["<|startoftext|>", "<|endoftext|>"])}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=16), len(vocab)


def clip_text(count: int, projected: bool):
    config = transformers.CLIPTextConfig(
        vocab_size=count, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, projection_dim=16, bos_token_id=count - 2, eos_token_id=count - 1, pad_token_id=count - 1,
    )  # fmt: skip
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config)


def t5():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [("▁" + word, -1.0) for word in WORDS]
    tokenizer = transformers.T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=16)
    config = transformers.T5Config(vocab_size=len(tokenizer), d_model=32, d_ff=16, d_kv=8, num_layers=1, num_heads=2)
    return tokenizer, transformers.T5EncoderModel(config)


def tiny_vae(channels: int):
    return diffusers.AutoencoderKL(
        block_out_channels=(4,), layers_per_block=1, latent_channels=channels, norm_num_groups=1, use_quant_conv=False,
        use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5, sample_size=32,
    )  # fmt: skip


def tiny_sd3():
    tokenizer, count = clip_tokenizer()
    third, t5_encoder = t5()
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=32, out_channels=4,
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=tiny_vae(4),
        text_encoder=clip_text(count, True), tokenizer=tokenizer, text_encoder_2=clip_text(count, True),
        tokenizer_2=tokenizer, text_encoder_3=t5_encoder, tokenizer_3=third,
    )  # fmt: skip


def tiny_flux():
    tokenizer, count = clip_tokenizer()
    second, t5_encoder = t5()
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return diffusers.FluxPipeline(
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=tiny_vae(1),
        text_encoder=clip_text(count, False), tokenizer=tokenizer, text_encoder_2=t5_encoder, tokenizer_2=second,
    )  # fmt: skip


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
    assert generator.facts["num_inference_steps"] == 2 and "tiny" in generator.facts["name"]


def test_what_cannot_be_loaded_is_refused_before_anything_is_fetched(tmp_path):
    with pytest.raises(GeneratorError, match="download = true"):
        Diffusers("someone/some-model")
    with pytest.raises(GeneratorError, match="Name the revision"):
        Diffusers("someone/some-model", download=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GeneratorError, match="no pipeline"):
        Diffusers(tmp_path / "empty")
