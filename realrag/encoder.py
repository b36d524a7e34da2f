"""Photos and words -> vectors in one space: any open_clip model, or the small encoder that ships with the plugin."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from . import DEFAULT_ENCODER as SMALL
from .errors import EncoderError
from .files import canonical_json, sha256_bytes
from .preprocess import Preprocess

log = logging.getLogger(__name__)
SMALL_FILE = Path(__file__).parent / "assets" / "small_encoder.safetensors"


class Encoder(torch.nn.Module):
    """Two towers and their preprocessing. A Module, so that ComfyUI's model management can hold and move it.

    `name`: what `load_encoder` takes; `dim`: D; `kind`: "small" or "open_clip". `portable`: the name alone is enough to
    load it on another machine; where it is not, the weights must travel with the bundle.
    """

    kind: str
    name: str
    dim: int
    preprocess: Preprocess
    portable: bool = True

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights themselves (name, shape and fp32 bytes of each tensor), whatever file they came in."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            tensor = tensor.detach().to("cpu").contiguous()
            tensor = tensor.float() if tensor.is_floating_point() else tensor
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(memoryview(tensor.reshape(-1).numpy()).cast("B"))
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """Equal fingerprints give comparable vectors: same weights, same preprocessing."""
        return sha256_bytes(canonical_json({"weights": self.weights_sha256, "preprocess": asdict(self.preprocess)}))

    def describe(self) -> dict:
        """The `encoder` entry of a bundle's manifest."""
        return {
            "kind": self.kind,
            "name": self.name,
            "dim": self.dim,
            "weights_sha256": self.weights_sha256,
            "preprocess": {**asdict(self.preprocess), "mean": list(self.preprocess.mean), "std": list(self.preprocess.std)},
            "fingerprint": self.fingerprint,
        }

    @property
    def _place(self) -> tuple[torch.device, torch.dtype]:
        parameter = next(self.parameters())
        return parameter.device, parameter.dtype

    def prepare(self, image) -> Tensor:
        """PIL image -> (3, S, S) uint8; cheap work for a decoding thread."""
        return self.preprocess.pixels(image)

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 -> (B, D) float32 on the CPU, as the image tower gives them (not of unit length)."""
        device, dtype = self._place
        return self._images(self.preprocess.normalise(pixels.to(device, non_blocking=True), dtype)).float().cpu()

    @torch.inference_mode()
    def encode_texts(self, texts: list[str]) -> Tensor:
        """B texts -> (B, D) float32 on the CPU, as the text tower gives them (not of unit length)."""
        return self._texts([str(text) for text in texts]).float().cpu()

    def _images(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _texts(self, texts: list[str]) -> Tensor:
        raise NotImplementedError

    def save_pretrained(self, folder: Path) -> list[Path]:
        """Write what `load_encoder(folder)` needs into `folder`; returns the files. safetensors and JSON only."""
        raise NotImplementedError


class SmallEncoder(Encoder):
    """The offline default: a small dual encoder of our own (docs/model-card.md); needs neither open_clip nor torchvision."""

    kind = "small"
    FILE = "small_encoder.safetensors"

    def __init__(self, path: Path, name: str = SMALL):
        from .small_encoder import load_small_encoder

        super().__init__()
        self.towers = load_small_encoder(path).eval()
        self.name, self.dim = name, int(self.towers.config["dim"])
        self.portable = name == SMALL
        self.preprocess = Preprocess(**self.towers.config["preprocess"])

    def _images(self, x: Tensor) -> Tensor:
        return self.towers.image_tower(x)

    def _texts(self, texts: list[str]) -> Tensor:
        return self.towers.text_tower(self.towers.tokenize(texts).to(self._place[0]))

    def save_pretrained(self, folder: Path) -> list[Path]:
        from .small_encoder import save_small_encoder

        folder.mkdir(parents=True, exist_ok=True)
        save_small_encoder(self.towers, folder / self.FILE)
        return [folder / self.FILE]


class OpenClipEncoder(Encoder):
    """Any open_clip model: `arch` and `pretrained` tag or weights file, or a folder in open_clip's own layout
    (open_clip_config.json + open_clip_model.safetensors). `untrained`: random weights, for timing only."""

    kind = "open_clip"
    CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

    def __init__(self, name: str, *, folder: Path | None = None, offline: bool = False, untrained: bool = False):
        super().__init__()
        try:
            import open_clip
        except Exception as error:  # a broken wheel fails in many ways, and each must leave the rest of the pack working
            raise EncoderError(
                f"Encoder {name!r} needs open_clip, which does not import here ({type(error).__name__}: {error}). "
                "Install it with `pip install open_clip_torch`."
            ) from error
        self.name = name
        arch, _, pretrained = name.partition(":")
        if folder is not None:
            source, kwargs = f"local-dir:{folder}", {}
            self.portable = False
            self._model_cfg = _model_config(folder / self.CONFIG)
        else:
            if open_clip.get_model_config(arch) is None:
                raise EncoderError(
                    f"open_clip knows no model {arch!r}. Names look like ViT-L-14:openai; "
                    "`python -c 'import open_clip; print(open_clip.list_pretrained())'` lists them."
                )
            path, tag = (Path("untrained"), {}) if untrained else _find_weights(open_clip, arch, pretrained, offline)
            if not tag:  # a file of the user's own: its path is his business and stays out of the bundle
                self.name, self.portable = f"{arch}:{path.stem}", False
            source = arch
            kwargs = {} if untrained else {"pretrained": str(path), "force_preprocess_cfg": _preprocess_keys(tag)}
            self._model_cfg = open_clip.get_model_config(arch)
        try:
            self.towers = open_clip.create_model(source, require_pretrained=not untrained, **kwargs).eval()
            self._tokenizer = open_clip.get_tokenizer(source)
        except Exception as error:
            raise EncoderError(
                f"Encoder {name!r} cannot be loaded from {folder or kwargs.get('pretrained')}: {error}. Check that the "
                "weights belong to this model, and for SigLIP that its tokenizer files are on this machine."
            ) from error
        self.preprocess = _from_open_clip(self.towers.visual.preprocess_cfg)
        with torch.inference_mode():
            self.dim = self._images(torch.zeros(1, 3, self.preprocess.size, self.preprocess.size)).shape[1]

    def _images(self, x: Tensor) -> Tensor:
        return self.towers.encode_image(x)

    def _texts(self, texts: list[str]) -> Tensor:
        return self.towers.encode_text(self._tokenizer(texts).to(self._place[0]))

    def save_pretrained(self, folder: Path) -> list[Path]:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_cfg": self._model_cfg, "preprocess_cfg": dict(self.towers.visual.preprocess_cfg)}
        (folder / self.CONFIG).write_bytes(json.dumps(config, indent=1, sort_keys=True).encode())
        # clone(): safetensors refuses tensors that share memory (tied weights)
        save_file({key: value.clone().contiguous() for key, value in self.towers.state_dict().items()}, folder / self.WEIGHTS)
        if hasattr(self._tokenizer, "tokenizer"):  # a Hugging Face tokenizer has files of its own
            self._tokenizer.tokenizer.save_pretrained(folder)
        return sorted(path for path in folder.iterdir() if path.is_file())


def _model_config(path: Path) -> dict:
    try:
        return json.loads(path.read_bytes())["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError):
        raise EncoderError(f"{path} is not an open_clip config with a 'model_cfg'. Save the model again.") from None


def _preprocess_keys(tag: dict) -> dict:
    return {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag}


def _from_open_clip(cfg: dict) -> Preprocess:
    size = cfg["size"] if isinstance(cfg["size"], int) else cfg["size"][0]
    mode = {"shortest": "crop", "squash": "squash", "longest": "pad"}[cfg.get("resize_mode") or "shortest"]
    return Preprocess(size, mode, cfg.get("interpolation") or "bicubic", cfg["mean"], cfg["std"])


def _find_weights(open_clip, arch: str, pretrained: str, offline: bool) -> tuple[Path, dict]:
    """The weights file of a pretrained tag or path. Offline, only what is already on this machine is used."""
    if not pretrained:
        raise EncoderError(
            f"Encoder {arch!r} names no weights. Write {arch}:TAG with one of "
            f"{', '.join(open_clip.list_pretrained_tags_by_model(arch)) or '(no known tag)'}, or {arch}:FILE."
        )
    if Path(pretrained).is_file():
        return Path(pretrained), {}
    tag = open_clip.get_pretrained_cfg(arch, pretrained)
    if not tag:
        raise EncoderError(
            f"{arch!r} has no pretrained tag and there is no file {pretrained!r}. Known tags: "
            f"{', '.join(open_clip.list_pretrained_tags_by_model(arch)) or 'none'}."
        )
    try:
        if not offline:
            return Path(open_clip.download_pretrained(tag)), tag
        return _cached(tag), tag
    except Exception as error:
        raise EncoderError(
            f"The weights of {arch}:{pretrained} are not on this machine ({type(error).__name__}). Fetch them once with "
            f"`realrag index PHOTOS --out BUNDLE --encoder {arch}:{pretrained}`, or use a bundle made with --with-encoder."
        ) from error


def _cached(tag: dict) -> Path:
    from huggingface_hub import hf_hub_download

    if hub := tag.get("hf_hub"):
        repo, _, file = hub.rpartition("/")
        names = [file] if file else [
            "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"
        ]
        for name in names:
            try:
                return Path(hf_hub_download(repo, name, local_files_only=True))
            except Exception:
                continue
    path = Path.home() / ".cache" / "clip" / str(tag.get("url", "")).rsplit("/", 1)[-1]
    if path.is_file():
        return path
    raise FileNotFoundError(path.name)


def load_encoder(
    name: str = SMALL,
    *,
    folder: Path | None = None,
    device: str | torch.device = "cpu",
    offline: bool = False,
) -> Encoder:
    """Load an encoder by name.

    name: "realrag-small"; "ARCH:TAG" or "ARCH:FILE" of open_clip; a folder in open_clip's layout; or a small-encoder
        file. folder: where the weights lie when the name alone does not say (a bundle's `encoder` folder).
    device: fp32 on a CPU, bf16 (fp16 on cards without it) on a GPU. offline: never open a connection.
    Raises EncoderError.
    """
    place = Path(folder or name)
    if (place / SmallEncoder.FILE).is_file():
        encoder: Encoder = SmallEncoder(place / SmallEncoder.FILE, name)
    elif (place / OpenClipEncoder.CONFIG).is_file():
        encoder = OpenClipEncoder(name if folder else place.resolve().name, folder=place, offline=offline)
    elif place.is_file() and place.suffix == ".safetensors":
        encoder = SmallEncoder(place, place.stem)
    elif name == SMALL:
        encoder = SmallEncoder(SMALL_FILE)
    else:
        encoder = OpenClipEncoder(name, offline=offline)
    device = torch.device(device)
    if device.type != "cpu":
        half = torch.bfloat16 if device.type != "cuda" or torch.cuda.is_bf16_supported() else torch.float16
        encoder.weights_sha256  # hashed in fp32, before rounding
        encoder.to(device, half)
    return encoder
