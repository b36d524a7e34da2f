"""What an encoder folder that came with a bundle may say. It is data: numbers, and words from lists that stand here.

open_clip hands parts of its configuration on to timm and transformers, which take names of hubs, paths and classes, and
code of repositories. So every key, type and range that passes is listed, and sizes are compared with the tensors of the
weights file, on the meta device, before anything is allocated. EncoderError names the first key that is not allowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from .. import artifact
from ..errors import EncoderError, brief
from ..files import read_bounded
from ..validation import strict_json

MAX_CONFIG = 1 << 20  # bytes
MAX_TOKENIZER = 64 << 20
MAX_GRID = 48  # patches a side; attention compares each with each, and the finest known model has 37
WEIGHTS = "open_clip_model.safetensors"
WHAT, CURE = "an encoder", "Use an encoder as this RealRAG or open_clip saved it."
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Check = Callable[[Any], bool]
Network = TypeVar("Network", bound=torch.nn.Module)


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def _one_of(*words: str | None) -> Check:
    return lambda value: (value is None or type(value) is str) and value in words


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _pair_or(check: Check, counts: tuple[int, ...] = (2,)) -> Check:
    """One value, or a list of so many."""
    return lambda value: check(value) or (type(value) is list and len(value) in counts and all(map(check, value)))


def _three(check: Check) -> Check:
    return lambda value: type(value) is list and len(value) == 3 and all(map(check, value))


def _table(**checks: Check) -> Check:
    return lambda value: (
        value is None
        or (type(value) is dict and all(key in checks and checks[key](item) for key, item in value.items()))
    )


def _truth(value: Any) -> bool:
    return type(value) is bool


def _timm_name(value: Any) -> bool:
    return type(value) is str and value in timm_names()


@cache
def timm_names() -> frozenset[str]:
    """The timm models that open_clip's own configurations use. Any other name could be a hub's or a folder's."""
    import open_clip

    found = {
        (open_clip.get_model_config(name) or {}).get("vision_cfg", {}).get("timm_model_name")
        for name in open_clip.list_models()
    }
    return frozenset(name for name in found if name and re.fullmatch(r"[a-z0-9_]{1,64}", name))


_LAYERS, _WIDTH, _FRACTION = _whole(1, 256), _whole(1, 16_384), _number(0, 1)
_ATTENTION: dict[str, Check] = {
    "act_kwargs": _table(approximate=_one_of("none", "tanh")), "norm_kwargs": _table(eps=_number(0, 1)),
    "block_type": _one_of(None, "default", "custom"), "qk_norm": _truth, "scaled_cosine_attn": _truth, "scale_heads": _truth,
    "scale_attn_inner": _truth, "scale_attn": _truth, "scale_fc": _truth, "mlp_ratio": _number(0.01, 64),
    "ls_init_value": _or_none(_number(-100, 100)), "final_ln_after_pool": _truth, "output_tokens": lambda value: value is False,
}  # fmt: skip
VISION: dict[str, Check] = {
    **_ATTENTION, "layers": _pair_or(_LAYERS, (4,)), "width": _WIDTH, "head_width": _whole(8, 1024),
    "patch_size": _or_none(_pair_or(_whole(1, 1024))), "image_size": _pair_or(_whole(1, 1024)), "patch_dropout": _FRACTION,
    "attentional_pool": _truth, "attn_pooler_queries": _whole(1, 4096), "attn_pooler_heads": _whole(1, 64),
    "no_ln_pre": _truth, "pos_embed_type": _one_of("learnable", "sin_cos_2d"), "pool_type": _one_of("tok", "avg", "none"),
    "timm_model_name": _timm_name, "timm_model_pretrained": _truth,  # open_clip's loading sets it to False
    "timm_pool": _one_of("", "avg", "avgmax", "max", "map", "token", "abs_attn", "rot_attn"),
    "timm_proj": _one_of(None, "", "none", "linear", "mlp"), "timm_proj_bias": _truth, "timm_drop": _FRACTION,
    "timm_drop_path": _or_none(_FRACTION),
}  # fmt: skip
TEXT: dict[str, Check] = {
    **_ATTENTION, "layers": _LAYERS, "width": _WIDTH, "heads": _whole(1, 64), "context_length": _whole(1, 1024),
    "vocab_size": _whole(1, 2_000_000), "embed_cls": _truth, "pad_id": _whole(0, 2_000_000), "eos_id": _whole(0, 2_000_000),
    "no_causal_mask": _truth, "pool_type": _one_of("first", "last", "argmax", "eos", "none"), "proj_bias": _truth,
    "proj_type": _one_of("linear", "none"),
    # Names where the tokenizer came from; it is read from the folder, and nothing is looked up under this name.
    "hf_tokenizer_name": _or_none(lambda value: type(value) is str and len(value) <= 200),
    "tokenizer_mode": _one_of(None, "", "clips"),
    "tokenizer_kwargs": _table(clean=_one_of("canonicalize", "lower", "whitespace"), strip_sep_token=_truth),
}  # fmt: skip
MODEL: dict[str, Check] = {
    "embed_dim": _WIDTH, "quick_gelu": _truth, "custom_text": _truth, "init_logit_scale": _number(-100, 100),
    "init_logit_bias": _or_none(_number(-1000, 1000)), "nonscalar_logit_scale": _truth, "output_dict": _truth,
}  # fmt: skip
PREPROCESS: dict[str, Check] = {
    "size": _pair_or(_whole(1, 4096)), "mode": _one_of("RGB"), "mean": _three(_number(-10, 10)),
    "std": _three(_number(1e-6, 10)), "interpolation": _one_of("bicubic", "bilinear"),
    "resize_mode": _one_of("shortest", "longest", "squash"), "fill_color": _whole(0, 255),
}  # fmt: skip
SMALL: dict[str, Check] = {
    "name": lambda value: type(value) is str and len(value) <= 200, "dim": _WIDTH, "width": _number(0.01, 8),
    "buckets": _whole(2, 1 << 24), "text_width": _WIDTH, "preprocess": lambda value: type(value) is dict,
}  # fmt: skip
SMALL_PREPROCESS: dict[str, Check] = {
    "size": _whole(1, 1024), "mode": _one_of("crop", "squash", "pad"), "interpolation": _one_of("bicubic", "bilinear"),
    "mean": _three(_number(-10, 10)), "std": _three(_number(1e-6, 10)),
}  # fmt: skip
GENERAL: dict[str, Check] = {
    "dim": _WIDTH, "width": _number(0.01, 8), "text_width": _WIDTH, "layers": _LAYERS, "heads": _whole(1, 64),
    "wide": _whole(1, 65_536), "positions": _whole(3, 1024), "vocabulary": _whole(4, 2_000_000),
    "vocabulary_bytes": _whole(1, 64 << 20), "hidden": _WIDTH, "taught_dim": _WIDTH, "names": _whole(1, 32_767), "name_targets": _whole(1, 32_767), "side": _FRACTION,
    "preprocess": lambda value: type(value) is dict,
}  # fmt: skip


def check_keys(content: Any, checks: Mapping[str, Check], where: str, required: tuple[str, ...] = ()) -> None:
    """EncoderError where `content` is no table, lacks a required key, or holds one that is not among `checks` or whose
    value they refuse."""
    if type(content) is not dict:
        raise EncoderError(f"{where} is not a table of settings. {CURE}")
    for key, value in content.items():
        if key not in checks:
            raise EncoderError(f"{where} has the key {key[:60]!r}, which a carried encoder may not have. {CURE}")
        if not checks[key](value):
            raise EncoderError(f"{where}: {key} is {repr(value)[:80]}, which is not allowed. {CURE}")
    if missing := [key for key in required if key not in content]:
        raise EncoderError(f"{where} lacks the key {missing[0]!r}. {CURE}")


def read_open_clip_config(path: Path) -> tuple[dict, dict]:
    """The `model_cfg` of an open_clip configuration, and its metadata about the encoder that it was trained from; all
    of it checked."""
    try:
        content = strict_json(read_bounded(path, MAX_CONFIG))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read ({brief(error)}). {CURE}") from None
    parts: dict[str, Check] = dict.fromkeys(
        ("model_cfg", "preprocess_cfg", "realrag_tuned"), lambda value: type(value) is dict
    )
    check_keys(content, parts, path.name, ("model_cfg",))
    model = content["model_cfg"]
    towers: dict[str, Check] = {"vision_cfg": lambda value: True, "text_cfg": lambda value: True}
    check_keys(model, {**MODEL, **towers}, f"{path.name}, model_cfg", ("embed_dim", "vision_cfg", "text_cfg"))
    check_keys(model["vision_cfg"], VISION, f"{path.name}, vision_cfg")
    check_keys(model["text_cfg"], TEXT, f"{path.name}, text_cfg")
    check_keys(content.get("preprocess_cfg", {}), PREPROCESS, f"{path.name}, preprocess_cfg")
    size, patch = (_largest(model["vision_cfg"].get(key)) for key in ("image_size", "patch_size"))
    if patch and size > MAX_GRID * patch:
        raise EncoderError(f"{path.name}: pictures of {size} pixels in patches of {patch} are too many patches. {CURE}")
    return model, content.get("realrag_tuned", {})


def _largest(size: int | list[int] | None) -> int:
    return max(size) if isinstance(size, list) else size or 0


def check_open_clip_weights(folder: Path, model_cfg: Mapping[str, Any]) -> None:
    """EncoderError where the weights file does not hold exactly the tensors of the model that its configuration
    describes. Nothing of the model is allocated."""
    import open_clip

    vision = {key: value for key, value in model_cfg["vision_cfg"].items() if key != "timm_model_pretrained"}
    options = {key: value for key, value in model_cfg.items() if key != "custom_text"} | {"vision_cfg": vision}
    make = open_clip.CustomTextCLIP if model_cfg.get("custom_text") else open_clip.CLIP
    shapes = artifact.read_header(folder / WEIGHTS, WHAT, CURE, error=EncoderError).shapes
    check_shapes(folder / WEIGHTS, lambda: make(**options), shapes)


def check_small_config(path: Path, config: Any) -> None:
    """EncoderError where a small encoder's configuration says more, or other, than one can."""
    check_keys(config, SMALL, f"{path.name}, config", ("dim", "width", "buckets", "text_width", "preprocess"))
    check_keys(config["preprocess"], SMALL_PREPROCESS, f"{path.name}, preprocess", ("size",))


def check_general_config(path: Path, config: Any) -> None:
    """EncoderError where a general encoder's configuration says more, or other, than one can."""
    check_keys(config, GENERAL, f"{path.name}, config", tuple(GENERAL))
    check_keys(config["preprocess"], SMALL_PREPROCESS, f"{path.name}, preprocess", ("size",))
    if config["text_width"] % config["heads"]:
        raise EncoderError(
            f"{path.name}, config: {config['heads']} heads do not divide the {config['text_width']} of text_width. {CURE}"
        )


def check_shapes(path: Path, make: Callable[[], Network], shapes: Mapping[str, tuple[int, ...]]) -> Network:
    """EncoderError where a file with tensors of these shapes does not fill the network that `make` builds. It is built
    on the meta device, where tensors have shapes and no memory, and returned so."""
    try:
        with torch.device("meta"), _Unfilled():
            network = make()
            wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    except Exception as error:  # whatever another library makes of settings that pass one by one and not together
        raise EncoderError(f"{path} belongs to no model that can be built ({brief(error)}). {CURE}") from None
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            found = f"{name[:80]!r} is {shapes.get(name, 'missing')} where {wanted.get(name, 'nothing')} belongs"
            raise EncoderError(f"{path} does not hold the weights that its configuration describes: {found}. {CURE}")
    return network


class _Unfilled(TorchFunctionMode):
    """Leaves out the first values of weights: on the meta device there are none, and drawing them from a normal
    distribution would import all of torch's compiler, which takes seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def read_tokenizer(folder: Path, text_cfg: Mapping[str, Any]):
    """The tokenizer of an encoder folder: open_clip's own, or the data of a Hugging Face one, read from tokenizer.json
    alone. No class, name or path in the folder's files is followed."""
    import open_clip

    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    length = text_cfg.get("context_length", 77)
    if not text_cfg.get("hf_tokenizer_name"):
        return _own_tokenizer(length, **options)
    from transformers import PreTrainedTokenizerFast

    data = _tokenizer_data(folder)
    made = object.__new__(open_clip.tokenizer.HFTokenizer)  # its own constructor asks transformers for a name
    made.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **data)
    made.tokenizer_mode, made.context_length = text_cfg.get("tokenizer_mode") or "", length
    made.clean_fn = open_clip.tokenizer.get_clean_fn(options.get("clean", "whitespace"))
    made.strip_sep_token = options.get("strip_sep_token", False)
    return made


@lru_cache(4)
def _own_tokenizer(length: int, **options):
    """open_clip's own, which changes nothing but its cache of words: its 49,408 pieces take a tenth of a second each time."""
    import open_clip

    return open_clip.SimpleTokenizer(context_length=length, **options)


def _tokenizer_data(folder: Path) -> dict[str, str]:
    """The special tokens and the padding side of tokenizer_config.json; all else in it is passed over."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        try:
            content = strict_json(read_bounded(folder / name, MAX_TOKENIZER))
        except (OSError, ValueError) as error:
            raise EncoderError(f"{folder / name} cannot be read ({brief(error)}). {CURE}") from None
        if not isinstance(content, dict):
            raise EncoderError(f"{folder / name} is not a tokenizer's. {CURE}")
    found = {}
    for key in SPECIAL_TOKENS:
        token = content.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and 0 < len(token) <= 200:
            found[key] = token
    if content.get("padding_side") in ("left", "right"):
        found["padding_side"] = content["padding_side"]
    return found
