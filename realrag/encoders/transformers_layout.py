"""Which model a transformers-format file holds: CLIP or SigLIP (2), from the shapes of its tensors, its config.json where it
has one, and a table of published widths where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isqrt
from typing import Any

from ..errors import EncoderError

Shapes = Mapping[str, tuple[int, ...]]

# Channels per attention head, where it is not 64: CLIP H, g and bigG; SigLIP so400m; SigLIP 2 giant. Shapes do not show it.
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104, 1152: 72, 1536: 96}
# Widths of the published vision and text towers; others are not guessed at.
PUBLISHED = {
    ("clip", "vision_model."): (768, 1024, 1280, 1408, 1664), ("clip", "text_model."): (512, 768, 1024, 1280),
    ("siglip", "vision_model."): (768, 1024, 1152, 1536), ("siglip", "text_model."): (768, 1024, 1152),
}  # fmt: skip
# Side in pixels by width, patch and grid, where it is no multiple of the patch: siglip-so400m-patch14-384.
ODD_SIDES = {(1152, 14, 27): 384}
# Published weights of OpenAI's shapes are OpenAI's (QuickGELU) or LAION's and others' (GELU). Wider ones are LAION's.
OPENAI_WIDTHS = (768, 1024)
# model.safetensors of openai/clip-vit-large-patch14: sha256 by size in bytes
OPENAI_FILES = {1710540580: "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb"}
ACTIVATIONS = ("gelu", "quick_gelu", "gelu_pytorch_tanh")
GEMMA_VOCABULARY = 256000  # SigLIP 2 reads with Gemma's tokenizer
NAMES = ("config.json", "preprocessor_config.json")
VISION, TEXT = "vision_model.", "text_model."


@dataclass(frozen=True)
class Tower:
    """One transformer. `last`: width of what comes out."""

    width: int
    layers: int
    heads: int
    mlp: int
    activation: str
    eps: float
    last: int


@dataclass(frozen=True)
class Layout:
    """A model. image, patch: sides in pixels. projection: CLIP's visual_projection is there. text: None without text tower."""

    family: str  # "clip" or "siglip"
    vision: Tower
    image: int
    patch: int
    projection: bool
    text: Tower | None = None
    vocabulary: int = 0
    context: int = 0
    configured: bool = field(default=False, compare=False)  # by a config.json of this model
    notes: tuple[str, ...] = field(default=(), compare=False)  # what was taken from a table and not from a config

    @property
    def dim(self) -> int:
        return self.vision.last

    @property
    def tokenizer(self) -> str:
        if self.text is None:
            return ""
        return "clip" if self.family == "clip" else "gemma" if self.vocabulary == GEMMA_VOCABULARY else "siglip"

    def describe(self) -> dict[str, Any]:
        """What decides the vectors besides weights and preprocessing."""
        towers = {"vision": asdict(self.vision), "text": None if self.text is None else asdict(self.text)}
        return {
            "family": self.family,
            **towers,
            "patch": self.patch,
            "context": self.context,
            "tokenizer": self.tokenizer,
        }


def canonical(name: str) -> str | None:
    """The name of a tensor as in the file of a whole model, or None for one that no vector needs. Towers saved alone by
    transformers 5 have no prefix."""
    if name.rsplit(".", 1)[-1] == "position_ids" or name in ("logit_scale", "logit_bias"):
        return None
    if name.startswith((VISION, TEXT, "visual_projection.", "text_projection.")):
        return name
    if name.startswith(
        ("head.probe", "head.attention.", "head.layernorm.", "head.mlp.", "pre_layrnorm.", "post_layernorm.")
    ):
        return VISION + name
    if name.startswith(
        (
            "embeddings.patch_embedding.",
            "embeddings.position_embedding.",
            "embeddings.class_embedding",
            "encoder.layers.",
        )
    ):
        return VISION + name
    return name


def is_transformers(names) -> bool:
    """Whether tensors of these names are a CLIP or SigLIP of transformers."""
    return f"{VISION}embeddings.patch_embedding.weight" in {canonical(name) for name in names}


def read_layout(shapes: Shapes, config: Mapping[str, Any] | None) -> Layout:
    """The layout of the tensors with these canonical names. config: the content of the config.json beside them, which
    counts only where it has the same sizes. Raises EncoderError."""
    patch = shapes.get(f"{VISION}embeddings.patch_embedding.weight", ())
    if len(patch) == 2:
        raise EncoderError(
            "The file holds a SigLIP 2 NaFlex model, whose pictures keep their aspect ratio. Use a fixed size, such as "
            "siglip2-base-patch16-224."
        )
    if len(patch) != 4 or patch[2] != patch[3] or not patch[3]:
        raise EncoderError(f"The patch embedding has the shape {patch}; a CLIP or SigLIP has (width, 3, size, size).")
    family = "clip" if f"{VISION}embeddings.class_embedding" in shapes else "siglip"
    places = _size(shapes, f"{VISION}embeddings.position_embedding.weight", 0) - (family == "clip")
    grid = isqrt(max(0, places))
    if grid * grid != places or not grid:
        raise EncoderError(f"The vision tower has {places} places, which are no square grid of patches.")
    if family == "siglip" and f"{VISION}head.probe" not in shapes:
        raise EncoderError(
            "The file holds a SigLIP vision tower without its pooling head (vision_model.head.*), so that it gives no "
            "vectors for search. Use the complete model.safetensors."
        )
    notes: list[str] = []
    parts = _matching(config, shapes)
    vision = _tower(shapes, VISION, family, parts.get("vision_config"), notes)
    projection = "visual_projection.weight" in shapes
    last = _size(shapes, "visual_projection.weight", 0) if projection else vision.width
    text, vocabulary, context = None, 0, 0
    if f"{TEXT}embeddings.token_embedding.weight" in shapes and (projection or family == "siglip"):
        text = _tower(shapes, TEXT, family, parts.get("text_config"), notes)
        end = "text_projection.weight" if family == "clip" else f"{TEXT}head.weight"
        text = replace(text, last=_size(shapes, end, 0))
        vocabulary, context = (
            shapes[f"{TEXT}embeddings.token_embedding.weight"][0],
            _size(shapes, f"{TEXT}embeddings.position_embedding.weight", 0),
        )
        if text.last != last:
            raise EncoderError(f"The towers give vectors of {last} and {text.last} numbers; they must be as long.")
    layout = Layout(
        family,
        replace(vision, last=last),
        _side(parts.get("vision_config"), vision.width, patch[3], grid),
        patch[3],
        projection,
        text,
        vocabulary,
        context,
    )
    return replace(layout, configured="vision_config" in parts, notes=tuple(dict.fromkeys(notes)))


def _side(config: Mapping | None, width: int, patch: int, grid: int) -> int:
    """Side of a picture in pixels: as the config has it where the grid agrees, else the grid's own."""
    side = (config or {}).get("image_size", 224)
    if config is not None and type(side) is int and side // patch == grid:
        return side
    return ODD_SIDES.get((width, patch, grid), grid * patch)


def _size(shapes: Shapes, name: str, axis: int) -> int:
    if name not in shapes or len(shapes[name]) <= axis:
        raise EncoderError(f"The file has no tensor {name}: it is incomplete, or no CLIP or SigLIP. Download it again.")
    return shapes[name][axis]


def _tower(shapes: Shapes, prefix: str, family: str, config: Mapping | None, notes: list[str]) -> Tower:
    layers = [
        name.split(".")[3]
        for name in shapes
        if name.startswith(f"{prefix}encoder.layers.") and name.endswith("layer_norm1.weight")
    ]
    width = _size(shapes, f"{prefix}encoder.layers.0.layer_norm1.weight", 0)
    mlp = _size(shapes, f"{prefix}encoder.layers.0.mlp.fc1.weight", 0)
    heads = width // HEAD_WIDTHS.get(width, 64) if prefix == VISION or width == 1152 else width // 64
    activation, eps = ("gelu_pytorch_tanh", 1e-6) if family == "siglip" else ("gelu", 1e-5)
    tower = Tower(width, len(layers), heads, mlp, activation, eps, width)
    if config is not None:
        # What a config leaves out is the default of its class.
        heads = 8 if family == "clip" and prefix == TEXT else 12
        return _configured(
            replace(tower, heads=heads, activation="quick_gelu" if family == "clip" else activation), config
        )
    if width not in PUBLISHED[family, prefix]:
        raise EncoderError(
            f"A tower is {width} channels wide, which no published CLIP or SigLIP is, and the file does not record how many "
            "heads it has. Put its config.json beside the file."
        )
    if family == "clip":
        vision = _size(shapes, f"{VISION}encoder.layers.0.layer_norm1.weight", 0)
        if vision in OPENAI_WIDTHS:
            tower = replace(tower, activation="quick_gelu")
            notes.append(
                f"taken for OpenAI's CLIP, with QuickGELU, by its width of {vision}; weights of LAION and others have GELU: "
                "put their config.json beside the file"
            )
        else:
            notes.append(f"taken for LAION's CLIP, with GELU, by its width of {vision}")
    return tower


def _configured(tower: Tower, config: Mapping[str, Any]) -> Tower:
    """The tower with the part of its config that shapes do not show."""
    heads = config.get("num_attention_heads", tower.heads)
    found = config.get("hidden_act", tower.activation)
    eps = config.get("layer_norm_eps", tower.eps)
    if type(heads) is not int or heads < 1 or tower.width % heads:
        raise EncoderError(
            f"config.json gives {str(heads)[:40]} heads to a tower {tower.width} channels wide; they must divide it."
        )
    if found not in ACTIVATIONS:
        raise EncoderError(
            f"config.json names the activation {str(found)[:40]!r}; RealRAG knows {', '.join(ACTIVATIONS)}."
        )
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise EncoderError(f"config.json gives layer_norm_eps {str(eps)[:40]}; it lies between 0 and 1.")
    return replace(tower, heads=heads, activation=found, eps=eps)


def _matching(config: Mapping[str, Any] | None, shapes: Shapes) -> dict[str, Mapping]:
    """The parts of a config.json that are of these tensors: in a folder of many models it may be another's."""
    if not isinstance(config, Mapping):
        return {}
    parts = {key: config[key] for key in ("vision_config", "text_config") if isinstance(config.get(key), Mapping)}
    if not parts and str(config.get("model_type", "")).endswith("_vision_model"):
        parts = {"vision_config": config}
    prefixes = {"vision_config": VISION, "text_config": TEXT}
    return {key: part for key, part in parts.items() if _fits(part, key, prefixes[key], shapes, config)}


DEFAULTS = {
    "vision_config": {"hidden_size": 768, "num_hidden_layers": 12},
    "text_config": {"hidden_size": 512, "num_hidden_layers": 12},
}


def _fits(part: Mapping, key: str, prefix: str, shapes: Shapes, config: Mapping) -> bool:
    """Whether a part of a config has the sizes of the tensors. A config leaves out what is the default of its class."""
    width = shapes.get(f"{prefix}encoder.layers.0.layer_norm1.weight", (0,))[0]
    layers = sum(name.startswith(f"{prefix}encoder.layers.") and name.endswith("layer_norm1.weight") for name in shapes)
    siglip = str(config.get("model_type", part.get("model_type", ""))).startswith("siglip")
    default = dict(DEFAULTS[key], **({"hidden_size": 768} if siglip else {}))
    return (
        part.get("hidden_size", default["hidden_size"]),
        part.get("num_hidden_layers", default["num_hidden_layers"]),
    ) == (width, layers)
