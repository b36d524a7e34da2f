"""Latents, image features and sentences of all things in all looks, worked out once and mapped from files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from realrag.encoders.base import Encoder
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, write_atomic

from ..miniature.world import square
from ..small_encoder.views import open_photo
from .augmentations import look_of, with_look
from .inputs import Inputs
from .recipe import DataConfig
from .things import Things

CHUNK = 8  # more only go through slower memory on a CPU
OPENED = 256  # pixels that a photo's short side is read with at least
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Cached:
    """Of one part: latents[look][photo] (C, h, w) and features[look][photo] (L, E); states (S, T, D) and pooled (S, P)
    of each sentence, sentence j of group i at row i * sentences + j, the empty one last. All float16, mapped from
    files."""

    things: Things
    latents: list[np.ndarray]
    features: list[np.ndarray]
    states: np.ndarray
    pooled: np.ndarray
    sentences: int

    def said(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """States and pooled of these sentences."""
        return tuple(torch.from_numpy(np.array(part[rows])).float() for part in (self.states, self.pooled))

    def pictures(self, photos: np.ndarray, looks: np.ndarray) -> Tensor:
        return torch.from_numpy(
            np.stack([self.latents[look][photo] for photo, look in zip(photos, looks, strict=True)])
        ).float()

    def seen(self, photos: np.ndarray, looks: np.ndarray) -> Tensor:
        return torch.from_numpy(
            np.stack([self.features[look][photo] for photo, look in zip(photos, looks, strict=True)])
        ).float()


def cached(
    things: Things, config: DataConfig, looks: int, inputs: Inputs, encoder: Encoder, folder: Path,
    progress: Progress = lambda done, total: None,
) -> Cached:  # fmt: skip
    """Works out what the folder does not hold yet; a half-written file is never taken for a whole one."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [[photo.group, photo.path.name, photo.path.stat().st_size] for photo in things.photos]
    features, latents = [], []
    for look in range(looks):
        chosen = [asdict(look_of(group.key, look, config.seed)) for group in things.groups]
        photos = sha256_bytes(canonical_json([names, chosen]))[:12]

        def views(look=look):
            return _views(things, look, config.seed, max(OPENED, config.size))

        files = (
            f"features-{photos}-{encoder.fingerprint[:12]}-{look}.npy",
            f"latents-{photos}-{inputs.key}-{config.size}-{look}.npy",
        )

        def told(done: int, share: float, look=look) -> None:
            progress(int((look + share + done / max(1, len(things.photos)) / 2) * 100), looks * 100)

        features.append(
            _kept(folder / files[0], views, lambda images: _features(encoder, images), lambda done: told(done, 0.0))
        )
        latents.append(
            _kept(
                folder / files[1],
                views,
                lambda images: _latents(inputs, images, config.size),
                lambda done: told(done, 0.5),
            )
        )
    return Cached(things, latents, features, *_said(things, config, inputs, folder), config.sentences)


def _said(things: Things, config: DataConfig, inputs: Inputs, folder: Path) -> list[np.ndarray]:
    said = [sentence for own in things.sentences(config.sentences, config.kinds, config.seed) for sentence in own] + [
        ""
    ]
    key = f"{sha256_bytes(canonical_json(said))[:12]}-{inputs.words_key}"
    files = [folder / f"{name}-{key}.npy" for name in ("states", "pooled")]
    if not all(file.exists() for file in files):
        parts = zip(*(inputs.texts(said[at : at + CHUNK]) for at in range(0, len(said), CHUNK)), strict=True)
        for file, made in zip(files, parts, strict=True):
            whole = torch.cat(made).half().numpy()
            write_atomic(file, lambda opened, whole=whole: np.save(opened, whole))
    return [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]


def _views(things: Things, look: int, seed: int, size: int):
    """Chunks of RGB pictures in one look. The thing and the look decide about colours and shapes, never the photo."""
    chosen = [look_of(group.key, look, seed) for group in things.groups]
    for at in range(0, len(things.photos), CHUNK):
        rows = range(at, min(at + CHUNK, len(things.photos)))
        yield [with_look(open_photo(things.photos[i].path, size), chosen[things.rows[i]]) for i in rows]


def _kept(path: Path, views, make: Callable[[list], np.ndarray], progress: Callable[[int], None]) -> np.ndarray:
    if not path.exists():
        parts, done = [], 0
        for images in views():
            parts.append(make(images))
            done += len(images)
            progress(done)
        write_atomic(path, lambda file: np.save(file, np.concatenate(parts) if parts else np.empty((0, 1), np.float16)))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _features(encoder: Encoder, images: list) -> np.ndarray:
    hidden = encoder.encode_features(torch.stack([encoder.prepare(image) for image in images])).penultimate
    if hidden is None:
        raise RealRAGError(
            f"The encoder {encoder.name} gives no spatial states. Use a small encoder, such as realrag-small."
        )
    return hidden.half().numpy()


def _latents(inputs: Inputs, images: list, size: int) -> np.ndarray:
    pixels = np.stack([np.asarray(square(image, size)) for image in images])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return inputs.latents(x.contiguous(memory_format=torch.channels_last)).half().cpu().numpy()
