"""Any open_clip model as an Encoder: CLIP, SigLIP 2 and the rest, from the hub's cache, a file, or a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..artifact import what_file_is
from ..errors import EncoderError, brief
from . import open_clip_settings as settings
from . import transformers_files
from .base import Coverage, Encoder
from .carried import WEIGHTS, check_open_clip_weights, read_open_clip_config, read_tokenizer
from .open_clip_settings import ACTIVATIONS, Settings
from .weights import in_hub_cache, weights_of_tag


class OpenClipEncoder(Encoder):
    """An open_clip model.

    name: ARCH:TAG; ARCH:FILE with weights whose training all tags of ARCH share; ARCH:TAG=FILE with weights trained as
    TAG's. folder: a folder in open_clip's own layout instead (open_clip_config.json + open_clip_model.safetensors).
    untrained: random weights, for timing only. made_with: the `encoder` entry of a bundle to search as it was made,
    even by a version that ignored the settings of the tag.
    """

    kind = "open_clip"
    image_prefixes = ("towers.visual.",)
    CONFIG, WEIGHTS = "open_clip_config.json", WEIGHTS

    def __init__(
        self,
        name: str,
        *,
        folder: Path | None = None,
        offline: bool = False,
        untrained: bool = False,
        made_with: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        tagged = None if folder is not None or untrained else weights_of_tag(name, offline)
        try:
            import open_clip
        except Exception as error:  # a broken wheel fails in many ways; each must leave the rest of the pack working
            raise EncoderError(
                f"Encoder {name!r} needs open_clip, which does not import here ({brief(error)}). "
                "Install it with `pip install open_clip_torch`."
            ) from error
        self.name = name
        arch, _, pretrained = name.partition(":")
        tokenizer_files, options = None, dict[str, Any]()
        if folder is not None:
            source = f"local-dir:{folder}"
            self.portable = False
            self._config, self.tuned = read_open_clip_config(folder / self.CONFIG)
            check_open_clip_weights(folder, self._config)
        else:
            config = open_clip.get_model_config(arch)
            if config is None:
                raise EncoderError(
                    f"open_clip knows no model {arch!r}. Names look like ViT-L-14:openai; "
                    "`python -c 'import open_clip; print(open_clip.list_pretrained())'` lists them."
                )
            source = arch
            chosen = Settings()
            path: Path | None = None
            own = False
            if not untrained:
                chosen, path, own = _settings_and_weights(open_clip, arch, pretrained, tagged)
            if own and path:  # the path of a user's own file is private and stays out of the bundle
                self.name, self.portable = f"{arch}:{path.stem}", False
                tokenizer_files = _tokenizer_beside(path)
            if made_with is not None and "configuration" not in made_with:
                chosen = Settings(preprocess=chosen.preprocess)
            self._config = chosen.apply(config)
            options = {} if path is None else {"pretrained": str(path), "force_preprocess_cfg": dict(chosen.preprocess)}
            options |= {"quick_gelu": bool(self._config.get("quick_gelu"))}
            options |= {
                f"force_{key}": chosen.model[key] for key in ("context_length", "image_size") if key in chosen.model
            }
        if offline and "hf_model_name" in self._config.get("text_cfg", {}):
            raise EncoderError(
                f"Encoder {name!r} asks for the text model {self._config['text_cfg']['hf_model_name']!r} from the network, "
                "which is not opened here. Use an encoder that open_clip holds whole, such as CLIP or SigLIP."
            )
        path_given = Path(options["pretrained"]) if options.get("pretrained") else None
        if path_given and transformers_files.is_file(path_given):
            raise EncoderError(
                f"The file of {name!r} is in transformers' format, which needs no ARCH and TAG. Give it alone: --encoder FILE."
            )
        try:
            self.towers = open_clip.create_model(source, require_pretrained=not untrained, **options).eval()
        except Exception as error:
            if path_given and (other := what_file_is(path_given)):
                raise EncoderError(f"{path_given} is not an encoder: {other}") from error
            raise EncoderError(
                f"Encoder {name!r} cannot be loaded from {folder or options.get('pretrained')} ({brief(error)}). Check that "
                "the weights belong to this model."
            ) from error
        try:
            if folder is not None:
                self._tokenizer = read_tokenizer(folder, self._config["text_cfg"])
            else:
                self._tokenizer = _tokenizer(open_clip, source, self._config, offline, tokenizer_files)
        except EncoderError:
            raise
        except Exception as error:
            wanted = self._config.get("text_cfg", {}).get("hf_tokenizer_name") or arch
            raise EncoderError(
                f"The tokenizer of {name!r} cannot be loaded ({brief(error)}). Download tokenizer.json and "
                f"tokenizer_config.json of {wanted} into the folder of the weights."
            ) from error
        self.preprocess = settings.preprocess_of(self.towers.visual.preprocess_cfg)
        self.configuration = settings.identity(open_clip, self._config)
        side = self.preprocess.size
        try:
            with torch.inference_mode():
                self.dim = self._images(torch.zeros(1, 3, side, side)).shape[1]
        except Exception as error:  # settings that are right one by one and do not fit together
            raise EncoderError(
                f"Encoder {name!r} makes no vector of a picture of {side} x {side} pixels ({brief(error)}). Check that its "
                "configuration belongs to its weights."
            ) from error

    def is_encoder_of(self, made_with: Mapping[str, Any]) -> bool:
        if not self._same_before(made_with):
            return super().is_encoder_of(made_with)
        return self._activation_of(made_with) == settings.activation(self._config)

    def _differences(self, made_with: Mapping[str, Any]) -> list[str]:
        before, now = self._activation_of(made_with), settings.activation(self._config)
        other = [] if before == now else [f"{ACTIVATIONS.get(before, before[:40])} in place of {ACTIVATIONS[now]}"]
        return other + super()._differences(made_with)

    @property
    def fault(self) -> str:
        """What is wrong with vectors made as this encoder makes them, or ""."""
        import open_clip

        arch, _, tag = self.name.partition(":")
        config = open_clip.get_model_config(arch) if tag else None
        entry = open_clip.get_pretrained_cfg(arch, tag) if config else None
        if not entry or config is None:
            return ""
        trained = settings.activation(settings.tag_settings(entry).apply(config))
        if (used := settings.activation(self._config)) == trained:
            return ""
        return (
            f"made with {ACTIVATIONS[used]} in place of {ACTIVATIONS[trained]}, with which {self.name} was trained: index "
            "again, or keep asking it as it was made"
        )

    def _same_before(self, made_with: Mapping[str, Any]) -> bool:
        """Whether an entry without configuration, as earlier versions wrote it, has these weights and this
        preprocessing."""
        return "configuration" not in made_with and made_with["fingerprint"] == self.plain_fingerprint

    def _activation_of(self, made_with: Mapping[str, Any]) -> str:
        """The activation with which a bundle was made: from its entry, or as an earlier version built its encoder."""
        if "configuration" in made_with:
            entry = made_with["configuration"]
            return str(entry.get("activation", "gelu")) if isinstance(entry, Mapping) else ""
        return settings.activation_before(str(made_with.get("name", ""))) or settings.activation(self._config)

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

    def describe(self) -> dict:
        return super().describe() | {"configuration": self.configuration}

    def save_pretrained(self, folder: Path) -> list[Path]:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "model_cfg": self._config,
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


def _settings_and_weights(open_clip, arch: str, pretrained: str, tagged: Path | None) -> tuple[Settings, Path, bool]:
    """The settings and the weights file of what follows ARCH: in a name, and whether it is the user's own file. tagged: the
    weights of a tag."""
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if not pretrained:
        raise EncoderError(
            f"Encoder {arch!r} names no weights. Write {arch}:TAG with one of {', '.join(tags) or '(no known tag)'}, or "
            f"{arch}:FILE."
        )
    if Path(pretrained).is_file():
        return settings.agreed_settings(open_clip, arch, pretrained), Path(pretrained), True
    tag, equals, file = pretrained.partition("=")
    if equals and (entry := open_clip.get_pretrained_cfg(arch, tag)):
        if not Path(file).is_file():
            raise EncoderError(
                f"There is no file {file!r} for {arch}:{tag}. Give the path of its weights after the '='."
            )
        return settings.tag_settings(entry), Path(file), True
    if tagged is None:
        raise EncoderError(
            f"{arch!r} has no pretrained tag and there is no file {pretrained!r}. Known tags: {', '.join(tags) or 'none'}."
        )
    return settings.tag_settings(open_clip.get_pretrained_cfg(arch, pretrained)), tagged, False


def _tokenizer_beside(path: Path) -> Path | None:
    return path.parent if (path.parent / "tokenizer_config.json").is_file() else None


def _tokenizer(open_clip, source: str, config: dict, offline: bool, folder: Path | None):
    """open_clip's own tokenizer. One from the Hugging Face hub (SigLIP) comes from `folder`, or offline from the local
    copy only."""
    text = config.get("text_cfg", {})
    if not text.get("hf_tokenizer_name") or not (offline or folder):
        return open_clip.get_tokenizer(source)
    copy = folder or in_hub_cache(text["hf_tokenizer_name"], "tokenizer_config.json").parent
    options = {"context_length": text.get("context_length", 77), "tokenizer_mode": text.get("tokenizer_mode")}
    return open_clip.tokenizer.HFTokenizer(copy, **options, **text.get("tokenizer_kwargs", {}))
