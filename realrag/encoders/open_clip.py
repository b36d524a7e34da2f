"""Any open_clip model as an Encoder: CLIP, SigLIP 2 and the rest, from the hub's cache, a file, or a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import EncoderError
from .base import Coverage, Encoder
from .preprocess import Preprocess


class OpenClipEncoder(Encoder):
    """Any open_clip model: `arch` and `pretrained` tag or weights file, or a folder in open_clip's own layout
    (open_clip_config.json + open_clip_model.safetensors). `untrained`: random weights, for timing only."""

    kind = "open_clip"
    image_prefixes = ("towers.visual.",)
    CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

    def __init__(self, name: str, *, folder: Path | None = None, offline: bool = False, untrained: bool = False):
        super().__init__()
        try:
            import open_clip
        except (
            Exception
        ) as error:  # a broken wheel fails in many ways, and each must leave the rest of the pack working
            raise EncoderError(
                f"Encoder {name!r} needs open_clip, which does not import here ({type(error).__name__}: {error}). "
                "Install it with `pip install open_clip_torch`."
            ) from error
        self.name = name
        arch, _, pretrained = name.partition(":")
        if folder is not None:
            source, kwargs = f"local-dir:{folder}", {}
            self.portable = False
            self._model_cfg, self.tuned = _model_config(folder / self.CONFIG)
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
        if offline and "hf_model_name" in self._model_cfg.get("text_cfg", {}):
            raise EncoderError(
                f"Encoder {name!r} asks for the text model {self._model_cfg['text_cfg']['hf_model_name']!r} from the network, "
                "which is not opened here. Use an encoder that open_clip holds whole, such as CLIP or SigLIP."
            )
        try:
            self.towers = open_clip.create_model(source, require_pretrained=not untrained, **kwargs).eval()
            self._tokenizer = _tokenizer(open_clip, source, self._model_cfg, offline and folder is None)
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

    def coverage(self, text: str) -> Coverage:
        """The least number of words whose tokens are those of the whole text: what follows them is cut off."""
        found = text.split()
        whole = self._tokenizer([text])
        low, high = 0, len(found)
        while low < high:
            middle = (low + high) // 2
            if torch.equal(self._tokenizer([" ".join(found[:middle])]), whole):
                high = middle
            else:
                low = middle + 1
        return Coverage(len(found), low)

    def _texts(self, texts: list[str]) -> Tensor:
        return self.towers.encode_text(self._tokenizer(texts).to(self.place[0]))

    def save_pretrained(self, folder: Path) -> list[Path]:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "model_cfg": self._model_cfg,
            "preprocess_cfg": dict(self.towers.visual.preprocess_cfg),
        }
        if self.tuned:
            config["realrag_tuned"] = dict(self.tuned)
        (folder / self.CONFIG).write_bytes(json.dumps(config, indent=1, sort_keys=True).encode())
        # clone(): safetensors refuses tensors that share memory (tied weights)
        save_file(
            {key: value.clone().contiguous() for key, value in self.towers.state_dict().items()}, folder / self.WEIGHTS
        )
        if hasattr(self._tokenizer, "tokenizer"):  # a Hugging Face tokenizer has files of its own
            self._tokenizer.tokenizer.save_pretrained(folder)
        return sorted(path for path in folder.iterdir() if path.is_file())


def _tokenizer(open_clip, source: str, model_cfg: dict, offline: bool):
    """open_clip's own tokenizer; offline, one from the Hugging Face hub (SigLIP) is taken from the local copy only."""
    text = model_cfg.get("text_cfg", {})
    if not offline or not text.get("hf_tokenizer_name"):
        return open_clip.get_tokenizer(source)
    copy = _in_hub_cache(text["hf_tokenizer_name"], "tokenizer_config.json").parent
    options = {"context_length": text.get("context_length", 77), "tokenizer_mode": text.get("tokenizer_mode")}
    return open_clip.tokenizer.HFTokenizer(copy, **options, **text.get("tokenizer_kwargs", {}))


def _model_config(path: Path) -> tuple[dict, dict]:
    """An open_clip config's `model_cfg`, and what it says of the encoder that this one was trained from."""
    try:
        content = json.loads(path.read_bytes())
        return content["model_cfg"], dict(content.get("realrag_tuned", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
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


def _in_hub_cache(repo: str, file: str) -> Path:
    """A file of the hub's local cache. Not `hf_hub_download(local_files_only=True)`: that one opened a connection all
    the same, to report its user agent (huggingface_hub 2.4)."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file)
    if not isinstance(found, str):
        raise FileNotFoundError(f"{repo}/{file}")
    return Path(found)


def _cached(tag: dict) -> Path:
    repo, _, file = tag.get("hf_hub", "").rpartition("/")
    stem = ["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"]
    for name in ([file] if file else stem) if repo else []:
        try:
            return _in_hub_cache(repo, name)
        except FileNotFoundError:
            continue
    path = Path.home() / ".cache" / "clip" / tag.get("url", "none").rsplit("/", 1)[-1]
    if path.is_file():
        return path
    raise FileNotFoundError(path.name)
