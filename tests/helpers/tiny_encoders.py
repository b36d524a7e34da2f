"""Tiny encoders with random weights, for the real loading and training code."""

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
    """A tiny CLIP in open_clip's folder layout."""
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
    ) in (
        model.mobilenet.named_parameters()
    ):  # torch's default initialization shrinks every layer's output, and all photos get similar vectors
        torch.nn.init.zeros_(weight) if name.endswith("bias") else torch.nn.init.kaiming_normal_(
            weight, nonlinearity="relu"
        )
    save_small_encoder(model, folder / "small_encoder.safetensors")
    return folder


GENERAL = {
    "dim": 20, "taught_dim": 8, "side": 0.5, "width": 0.25, "text_width": 16, "layers": 1, "heads": 2, "wide": 32,
    "positions": 12, "vocabulary": 0, "vocabulary_bytes": 0, "hidden": 24, "names": 3, "name_targets": 2,
    "preprocess": {"size": 64, "mode": "crop", "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
}  # fmt: skip
PIECES = "[PAD] [UNK] [CLS] [SEP] a photo of red blue green apple cat dog ##s gar ##lic lemon . - \u2028".split(" ")


def tiny_general():
    """A tiny general encoder with random weights."""
    from realrag.encoders.general_net import GeneralDualEncoder

    text = "\n".join(PIECES).encode()
    torch.manual_seed(0)
    model = GeneralDualEncoder({**GENERAL, "vocabulary": len(PIECES), "vocabulary_bytes": len(text)})
    model.text.vocabulary.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    model.text.names.texts.copy_(torch.nn.functional.normalize(torch.randn(3, 16), dim=1))
    model.text.names.targets.copy_(torch.nn.functional.normalize(torch.randn(2, 20), dim=1))
    model.text.names.rows.copy_(torch.tensor([0, 1, 1]))
    for name, weight in model.image.named_parameters():  # see write_tiny_small
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
    return model


def write_tiny_general(folder):
    from realrag.encoders.general import GeneralEncoder
    from realrag.encoders.general_net import save_general_encoder

    folder.mkdir(parents=True, exist_ok=True)
    names = GeneralEncoder.IMAGE, GeneralEncoder.TEXT, GeneralEncoder.NAMES
    save_general_encoder(tiny_general(), *(folder / name for name in names), {"seed": 0})
    return folder


def write_tiny_vit(folder):
    """A tiny CLIP of transformers."""
    write_tiny_transformers(folder, "B")
    return folder


CLIP_LIKE = {  # scaled-down published CLIPs: patch and image size, vision heads, activation
    "B": {"patch": 8, "image": 32, "heads": 2, "act": "quick_gelu"},
    "L": {"patch": 14, "image": 28, "heads": 4, "act": "quick_gelu"},
    "H": {"patch": 14, "image": 42, "heads": 2, "act": "gelu"},
    "g": {"patch": 14, "image": 28, "heads": 1, "act": "gelu"},
}


def write_tiny_transformers(folder, layout, single=False):
    """A tiny CLIP ("B", "L", "H", "g") or SigLIP ("siglip", "siglip2") as transformers saves it, its tokenizer beside it.
    Returns the transformers model."""
    import transformers

    tower = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    torch.manual_seed(len(layout))
    if layout.startswith("siglip"):
        vision = {**tower, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
        text = {**tower, "num_attention_heads": 2, "vocab_size": 256000 if layout == "siglip2" else 40, "hidden_size": 64,
                "max_position_embeddings": 12, "projection_size": 64}  # fmt: skip
        model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    else:
        like = CLIP_LIKE[layout]
        shared = {**tower, "hidden_act": like["act"], "projection_dim": 24}
        vision = {
            **shared,
            "num_attention_heads": like["heads"],
            "image_size": like["image"],
            "patch_size": like["patch"],
        }
        text = {**shared, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 40, "max_position_embeddings": 12,
                "bos_token_id": 38, "eos_token_id": 39, "pad_token_id": 1}  # fmt: skip
        model = transformers.CLIPModel(
            transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
        )
    with torch.no_grad():  # transformers initializes so close to zero that all pictures get similar vectors
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight) / max(1, weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0
    model.eval().save_pretrained(folder)
    write_tiny_tokenizer(folder, layout)
    return model


def write_tiny_tokenizer(folder, layout):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *"a red blue green apple cat dog photo of on the table 1994 audi".split()]
    vocabulary = {word: number for number, word in enumerate(words)} | {"<start>": 38, "<end>": 39}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    siglip = layout.startswith("siglip")
    single = "$A </s>" if siglip else "<start> $A <end>"
    special = [("</s>", 1), ("<start>", 38), ("<end>", 39)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)


def add_architecture(monkeypatch, file):
    """open_clip knows the architecture in `file` until the test ends. Left there, it would change the fingerprints of all
    encoders that are built like it in the tests that follow."""
    import open_clip

    factory = open_clip.factory
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    open_clip.add_model_config(file)
