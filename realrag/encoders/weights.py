"""Finds the weights of an open_clip tag: on this machine first, then over the network, if there is one."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import EncoderError, brief

PATIENCE = 2.0  # seconds for a first connection; libraries of their own try for over a minute
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


def tag_table() -> ModuleType | None:
    """`open_clip.pretrained`: the table of tags and where their weights are. Without open_clip's models, whose import
    takes seconds, where they are not loaded yet. None where open_clip is not installed."""
    if (package := sys.modules.get("open_clip")) is not None:
        return package.pretrained
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        return None
    alias = "_realrag_open_clip"
    if alias not in sys.modules:
        package = ModuleType(alias)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[alias] = package
    return importlib.import_module(f"{alias}.pretrained")


def weights_of_tag(name: str, offline: bool) -> Path | None:
    """The weights file of ARCH:TAG, fetched if need be; None for another form of name. EncoderError without it."""
    arch, _, tag = name.partition(":")
    table = tag_table()
    if table is None or Path(tag).is_file() or not (known := table.get_pretrained_cfg(arch, tag)):
        return None
    return find_weights(table, arch, tag, known, offline)


def find_weights(table: ModuleType, arch: str, pretrained: str, tag: Mapping[str, Any], offline: bool) -> Path:
    """The weights file of a pretrained tag: `tag` is its entry in open_clip's `table`. Offline, only a file that is
    already on this machine. Raises EncoderError."""
    try:
        return cached(tag)
    except FileNotFoundError:
        pass
    why = "RealRAG opens no connection here"
    if not offline:
        places = [(True, endpoint())] if tag.get("hf_hub") else []
        places += [(False, tag["url"])] if tag.get("url") else []
        failed, open_hosts = [], reachable([url for _, url in places])
        for from_hub, url in places:
            if url not in open_hosts:
                failed.append(f"{urlsplit(url).hostname} cannot be reached")
                continue
            try:
                return Path(table.download_pretrained(tag, prefer_hf_hub=from_hub))
            except Exception as error:  # each library underneath has errors of its own
                failed.append(f"{urlsplit(url).hostname}: {brief(error)}")
        why = "; ".join(failed)
    raise EncoderError(missing(arch, pretrained, tag, _tokenizer_name(table, arch), why, offline))


def _tokenizer_name(table: ModuleType, arch: str) -> str:
    """The hub's name of the tokenizer that an architecture needs besides its weights, or ""."""
    path = Path(str(table.__file__)).parent / "model_configs" / f"{arch}.json"
    try:
        return str(json.loads(path.read_bytes())["text_cfg"].get("hf_tokenizer_name", ""))
    except (OSError, ValueError, KeyError, AttributeError):
        return ""


def missing(arch: str, pretrained: str, tag: Mapping[str, Any], tokenizer: str, why: str, offline: bool) -> str:
    """What to download by hand, where to put it, and the command that uses it."""
    repo, _, file = tag.get("hf_hub", "").rpartition("/")
    if repo:
        names = [file] if file else [FILES[0], FILES[2]]
        source = " (or ".join(f"{endpoint()}/{repo}/resolve/main/{name}" for name in names) + ")" * (len(names) - 1)
    else:
        source = tag.get("url", "")
    name = (file or FILES[0]) if repo else source.rsplit("/", 1)[-1]
    more = ""
    if tokenizer:
        more = f", and beside it tokenizer.json and tokenizer_config.json of {endpoint()}/{tokenizer}/tree/main"
    online = (
        f"with a connection, `realrag index PHOTOS --out BUNDLE --encoder {arch}:{pretrained}` fetches it; " * offline
    )
    return (
        f"The weights of {arch}:{pretrained} are not on this machine ({why}). Download {source} into any folder{more}. "
        f"Then use the file: --encoder {arch}:{pretrained}=FOLDER/{name} ({online}a bundle made with --with-encoder "
        "needs no download)."
    )


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def reachable(urls: list[str], seconds: float = PATIENCE) -> set[str]:
    """Those of `urls` to whose host, or its proxy, a connection opens within `seconds`, name lookup included."""
    found: set[str] = set()

    def connect(url: str) -> None:
        place = urlsplit(url)
        proxy = getproxies().get(place.scheme)
        if proxy and not proxy_bypass(place.hostname or ""):
            place = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        try:
            port = place.port or (80 if place.scheme == "http" else 443)
            socket.create_connection((place.hostname or "", port), seconds).close()
            found.add(url)
        except (OSError, ValueError):
            return

    wanted = [url for url in urls if not (url == endpoint() and _hub_is_switched_off())]
    threads = [threading.Thread(target=connect, args=(url,), daemon=True) for url in wanted]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))  # a name server that does not answer holds `connect` longer
    return set(found)


def _hub_is_switched_off() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def in_hub_cache(repo: str, file: str) -> Path:
    """A file of the hub's local cache, or FileNotFoundError. Not `hf_hub_download(local_files_only=True)`: that opened a
    connection all the same, to report its user agent (huggingface_hub 2.4)."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file)
    if not isinstance(found, str):
        raise FileNotFoundError(f"{repo}/{file}")
    return Path(found)


def cached(tag: Mapping[str, Any]) -> Path:
    """The file that an earlier download of this tag left on this machine, or FileNotFoundError."""
    if Path(tag.get("file", "")).is_file():
        return Path(tag["file"])
    repo, _, file = tag.get("hf_hub", "").rpartition("/")
    for name in ([file] if file else FILES) if repo else ():
        try:
            return in_hub_cache(repo, name)
        except FileNotFoundError:
            continue
    path = Path.home() / ".cache" / "clip" / tag.get("url", "none").rsplit("/", 1)[-1]
    if path.is_file():
        return path
    raise FileNotFoundError(path.name)
