"""The settings in open_clip's pretrained tags besides the weights: activation, preprocessing, context length.

`open_clip.create_model` applies none of it when the weights come as a file, and only warns about the activation when they
come by tag (3.3.0), so that ViT-L-14:openai was built with GELU around weights trained with QuickGELU.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import EncoderError
from .preprocess import Preprocess

log = logging.getLogger(__name__)

SOURCE = {"url", "hf_hub", "file", "sha256", "revision"}  # keys of a tag that say where the weights are
# Keys of a model's configuration that act in training only, or on the file to start from.
TRAINING = {
    "patch_dropout", "timm_drop", "timm_drop_path", "timm_model_pretrained", "hf_model_pretrained", "init_logit_scale",
    "init_logit_bias", "nonscalar_logit_scale", "custom_text", "output_tokens", "output_dict",
}  # fmt: skip
NAMED = 3  # tags listed per group in an error


@dataclass(frozen=True)
class Settings:
    """The settings of a tag. `model`: activation ("quick_gelu") and sizes; `preprocess`: open_clip's PreprocessCfg fields."""

    model: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, config: dict) -> dict:
        """A model configuration of open_clip with these settings in it."""
        config = deepcopy(config)
        if "quick_gelu" in self.model:
            config["quick_gelu"] = bool(self.model["quick_gelu"])
        if "context_length" in self.model:
            config["text_cfg"]["context_length"] = self.model["context_length"]
        if "image_size" in self.model:
            config["vision_cfg"]["image_size"] = self.model["image_size"]
        return config


def tag_settings(tag: Mapping[str, Any]) -> Settings:
    """The settings of one pretrained tag, as `open_clip.get_pretrained_cfg` gives it."""
    from open_clip.transform import PreprocessCfg

    fields = set(asdict(PreprocessCfg()))
    model = {key: tag[key] for key in ("quick_gelu", "context_length", "image_size") if tag.get(key) is not None}
    preprocess = {key: tag[key] for key in sorted(fields & set(tag)) if tag[key] is not None}
    if unknown := set(tag) - SOURCE - fields - {"quick_gelu", "context_length", "image_size"}:
        log.warning(
            "open_clip's tag has settings that this RealRAG does not know: %s. Update RealRAG.", sorted(unknown)
        )
    return Settings(model, preprocess)


def agreed_settings(open_clip, arch: str, file: str) -> Settings:
    """The settings for weights of `arch` that come as a file without a tag: those on which all its tags agree.
    EncoderError where they do not."""
    config = open_clip.get_model_config(arch)
    groups: dict[tuple[bool, str], tuple[Settings, list[str]]] = {}
    for tag in open_clip.list_pretrained_tags_by_model(arch):
        settings = tag_settings(open_clip.get_pretrained_cfg(arch, tag))
        key = bool(settings.apply(config).get("quick_gelu")), repr(sorted(settings.preprocess.items()))
        groups.setdefault(key, (settings, []))[1].append(tag)
    if not groups:
        return Settings()
    if len(groups) == 1:
        return next(iter(groups.values()))[0]
    kinds = [(settings, tags) for settings, tags in groups.values()]
    listed = "; ".join(
        f"{_described(config, settings, [s for s, _ in kinds])}: {_named(tags)}" for settings, tags in kinds
    )
    example = kinds[0][1][0]
    raise EncoderError(
        f"The published weights of {arch} were trained in {len(kinds)} ways, and the file does not record which is right "
        f"for it ({listed}). Name the tag that the file comes from: {arch}:TAG=FILE, such as {arch}:{example}={file}."
    )


def _described(config: dict, settings: Settings, all_settings: list[Settings]) -> str:
    """The settings in which the groups differ."""
    words = []
    if len({bool(each.apply(config).get("quick_gelu")) for each in all_settings}) > 1:
        words.append("QuickGELU" if settings.apply(config).get("quick_gelu") else "GELU")
    for key in sorted({key for each in all_settings for key in each.preprocess}):
        if len({repr(each.preprocess.get(key)) for each in all_settings}) > 1:
            words.append(f"{key} {settings.preprocess.get(key)}")
    return ", ".join(words)


def _named(tags: list[str]) -> str:
    more = f" and {len(tags) - NAMED} more" if len(tags) > NAMED else ""
    return ", ".join(tags[:NAMED]) + more


def preprocess_of(config: Mapping[str, Any]) -> Preprocess:
    """open_clip's preprocessing as ours. EncoderError where ours cannot do the same."""
    size = config["size"]
    sides = {size} if isinstance(size, int) else set(size)
    mode = {"shortest": "crop", "squash": "squash", "longest": "pad"}.get(config.get("resize_mode") or "shortest")
    if len(sides) != 1 or mode is None or (mode == "pad" and config.get("fill_color")):
        raise EncoderError(
            f"This model wants pictures of {size} pixels, resized by {config.get('resize_mode')!r} and filled with "
            f"{config.get('fill_color', 0)}. RealRAG makes squares, resized by shortest, squash, or longest with black."
        )
    return Preprocess(sides.pop(), mode, config.get("interpolation") or "bicubic", config["mean"], config["std"])


def function_of(config: Mapping[str, Any]) -> dict:
    """The part of a model configuration that decides what the model computes; QuickGELU is left to `identity`."""

    def kept(part: Mapping[str, Any]) -> dict:
        return {
            key: kept(value) if isinstance(value, Mapping) else value
            for key, value in sorted(part.items())
            if key not in TRAINING and value is not None
        }

    return {key: value for key, value in kept(config).items() if key != "quick_gelu"}


def identity(open_clip, config: Mapping[str, Any]) -> dict:
    """What a fingerprint has to say of the configuration besides weights and preprocessing. Empty for an architecture
    that open_clip names, with GELU: so were fingerprints made before the configuration was part of them."""
    found: dict[str, Any] = {"activation": "quick_gelu"} if config.get("quick_gelu") else {}
    function = function_of(config)
    if not any(function == function_of(open_clip.get_model_config(arch)) for arch in open_clip.list_models()):
        found["model"] = function
    return found


def activation_before(name: str) -> str | None:
    """The activation that earlier versions of RealRAG gave to the encoder ARCH:TAG or ARCH:FILE: the architecture's,
    whatever the tag. None where the name is of no architecture."""
    import open_clip

    config = open_clip.get_model_config(name.partition(":")[0]) if ":" in name else None
    return None if config is None else activation(config)


def activation(config: Mapping[str, Any]) -> str:
    return "quick_gelu" if config.get("quick_gelu") else "gelu"


ACTIVATIONS = {"gelu": "GELU", "quick_gelu": "QuickGELU"}
