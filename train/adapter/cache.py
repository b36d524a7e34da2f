"""Latents, image features and text states of all classes in all augmentations, computed once and memory-mapped."""

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
from .augmentations import augment, augmentation_of
from .class_photos import ClassPhotos
from .inputs import Inputs
from .recipe import DataConfig

CHUNK = 8  # larger chunks leave the CPU's cache and are slower
OPENED = 256  # photos are opened with at least this many pixels on their short side
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Cached:
    """Of one part: latents[augmentation][photo] (C, h, w) and features[augmentation][photo] (L, E); states (S, T, D) and
    pooled (S, P) of each sentence, sentence j of group i at row i * sentences + j, the empty one last. All float16,
    memory-mapped."""

    class_photos: ClassPhotos
    latents: list[np.ndarray]
    features: list[np.ndarray]
    states: np.ndarray
    pooled: np.ndarray
    sentences: int

    def text_states(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """States (B, T, D) and pooled (B, P) of these sentences."""
        return tuple(torch.from_numpy(np.array(part[rows])).float() for part in (self.states, self.pooled))

    def target_latents(self, photos: np.ndarray, looks: np.ndarray) -> Tensor:
        """(B, C, h, w) of these photos, each in its augmentation."""
        return torch.from_numpy(
            np.stack([self.latents[look][photo] for photo, look in zip(photos, looks, strict=True)])
        ).float()

    def image_features(self, photos: np.ndarray, looks: np.ndarray) -> Tensor:
        """(B, L, E) of these photos, each in its augmentation."""
        return torch.from_numpy(
            np.stack([self.features[look][photo] for photo, look in zip(photos, looks, strict=True)])
        ).float()


def cached(
    class_photos: ClassPhotos, config: DataConfig, looks: int, inputs: Inputs, encoder: Encoder, folder: Path,
    progress: Progress = lambda done, total: None,
) -> Cached:  # fmt: skip
    """Compute what the folder does not hold yet. Files are written whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [[photo.group, photo.path.name, photo.path.stat().st_size] for photo in class_photos.photos]
    features, latents = [], []
    for look in range(looks):
        chosen = [asdict(augmentation_of(group.key, look, config.seed)) for group in class_photos.groups]
        photos = sha256_bytes(canonical_json([names, chosen]))[:12]

        def views(look=look):
            return _views(class_photos, look, config.seed, max(OPENED, config.size))

        files = (
            f"features-{photos}-{encoder.fingerprint[:12]}-{look}.npy",
            f"latents-{photos}-{inputs.key}-{config.size}-{look}.npy",
        )

        def report(done: int, fraction: float, look=look) -> None:
            progress(int((look + fraction + done / max(1, len(class_photos.photos)) / 2) * 100), looks * 100)

        features.append(
            _computed(
                folder / files[0], views, lambda images: _features(encoder, images), lambda done: report(done, 0.0)
            )
        )
        latents.append(
            _computed(
                folder / files[1],
                views,
                lambda images: _latents(inputs, images, config.size),
                lambda done: report(done, 0.5),
            )
        )
    return Cached(class_photos, latents, features, *_text_files(class_photos, config, inputs, folder), config.sentences)


def _text_files(class_photos: ClassPhotos, config: DataConfig, inputs: Inputs, folder: Path) -> list[np.ndarray]:
    texts = [
        sentence for own in class_photos.sentences(config.sentences, config.kinds, config.seed) for sentence in own
    ] + [""]
    key = f"{sha256_bytes(canonical_json(texts))[:12]}-{inputs.words_key}"
    files = [folder / f"{name}-{key}.npy" for name in ("states", "pooled")]
    if not all(file.exists() for file in files):
        parts = zip(*(inputs.texts(texts[at : at + CHUNK]) for at in range(0, len(texts), CHUNK)), strict=True)
        for file, made in zip(files, parts, strict=True):
            whole = torch.cat(made).half().numpy()
            write_atomic(file, lambda opened, whole=whole: np.save(opened, whole))
    return [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]


def _views(class_photos: ClassPhotos, look: int, seed: int, size: int):
    """Chunks of RGB pictures in one augmentation, which depends on the class and its number, never on the photo."""
    chosen = [augmentation_of(group.key, look, seed) for group in class_photos.groups]
    for at in range(0, len(class_photos.photos), CHUNK):
        rows = range(at, min(at + CHUNK, len(class_photos.photos)))
        yield [augment(open_photo(class_photos.photos[i].path, size), chosen[class_photos.rows[i]]) for i in rows]


def _computed(path: Path, views, make: Callable[[list], np.ndarray], progress: Callable[[int], None]) -> np.ndarray:
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
            f"The encoder {encoder.name} has no spatial features. Use a small encoder, such as realrag-small."
        )
    return hidden.half().numpy()


def _latents(inputs: Inputs, images: list, size: int) -> np.ndarray:
    pixels = np.stack([np.asarray(square(image, size)) for image in images])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return inputs.latents(x.contiguous(memory_format=torch.channels_last)).half().cpu().numpy()
