"""Tiny encoders with random weights: the real loading and training code, not real quality."""

import json

import torch

from realrag.encoders.small_net import SmallDualEncoder, save_small_encoder

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SMALL = {
    "name": "tiny", "dim": 12, "width": 0.25, "buckets": 97, "text_width": 8,
    "preprocess": {"size": 32, "mode": "squash", "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
}  # fmt: skip


def write_tiny_clip(folder):
    """A tiny CLIP in open_clip's own folder layout."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": TINY, "preprocess_cfg": {"mean": MEAN, "std": STD, "resize_mode": "shortest"}})
    )
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def write_tiny_small(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = SmallDualEncoder(SMALL)
    for (
        name,
        weight,
    ) in model.mobilenet.named_parameters():  # torch's own start shrinks every layer, and photos come out alike
        torch.nn.init.zeros_(weight) if name.endswith("bias") else torch.nn.init.kaiming_normal_(
            weight, nonlinearity="relu"
        )
    save_small_encoder(model, folder / "small_encoder.safetensors")
    return folder
