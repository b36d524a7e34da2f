"""Tiny diffusers pipelines with random weights."""

import diffusers
import transformers

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
