"""One small encoder from photos to a file that `load_encoder` opens, with its figures on validation photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from realrag.encoders.small_net import SmallDualEncoder, save_small_encoder

from ..retrieval_metrics import SHORT, ranked_relevance, ranking_figures
from .captioned_photos import (  # fmt: skip
    QUERY,
    PhotoSet,
    with_noise,
)
from .convert_mobilenet import load_mobilenet
from .trainer import EncoderConfig, Training
from .views import FrontCache, to_features

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


class Rows:
    """Some rows of a mapped array, indexed as if they were all."""

    def __init__(self, array: np.ndarray, rows: np.ndarray):
        self.array, self.rows = array, rows

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        return self.array[self.rows[chosen]]


@torch.no_grad()
def validate(
    model: SmallDualEncoder, cut: int, front: np.ndarray, data: PhotoSet, names: list[str]
) -> dict[str, float]:
    """Class name -> photo over the photos of `front`: means over the classes with a photo, and over `names` alone."""
    chunks = [to_features(front[i : i + 64]) for i in range(0, len(front), 64)]
    photos = F.normalize(torch.cat([model.pool(model.mobilenet.back(chunk, cut)) for chunk in chunks]), dim=1)
    texts = F.normalize(model.text_tower(model.tokenize([QUERY.format(group.name) for group in data.groups])), dim=1)
    relevant = torch.tensor(data.group_rows()) == torch.arange(len(data.groups))[:, None]
    asked = relevant.any(1)
    parts = ranking_figures(ranked_relevance((texts @ photos.T)[asked], relevant[asked]), SHORT)
    unseen = np.array([group.name in names for group, yes in zip(data.groups, asked, strict=True) if yes])
    report = {name: float(values.mean()) for name, values in parts.items()}
    return report | ({"mAP of names left out": float(parts["mAP"][unseen].mean())} if unseen.any() else {})


def train_encoder(
    config: EncoderConfig,
    data: PhotoSet,
    val: PhotoSet,
    mobilenet: Path,
    out: Path,
    *,
    cached: PhotoSet | None = None,
    names: tuple[str, ...] = (),
    about: dict[str, Any] | None = None,
    scratch: Path | None = None,
    say: Say = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> dict[str, float]:
    """Trains on `data`, writes `out`, and returns its figures on `val`; stopped, it goes on after the last whole epoch.

    cached: the photos whose features are cached, when they are more than those of `data`. names: groups left out,
    measured apart. about: joins what the file tells of its training. progress(done, total): after each cached view and
    each epoch.
    """
    torch.manual_seed(config.seed)
    start, source = load_mobilenet(mobilenet)
    model = SmallDualEncoder(config.model_config(source["mean"], source["std"])).to(memory_format=torch.channels_last)
    model.mobilenet.load_state_dict(start)

    everything, scratch = cached or data, scratch or out.parent
    settings = dict(size=config.size, seed=config.seed, mean=source["mean"], std=source["std"], bf16=config.bf16)
    caches = [
        FrontCache(scratch / "front", model.mobilenet, config.cut, photos, **settings)
        for photos in (everything.photos, val.photos)
    ]
    views = caches[0].views(config.views + 1, progress)[1:]
    rows = np.flatnonzero(np.isin([str(p.path) for p in everything.photos], [str(p.path) for p in data.photos]))
    views = views if len(rows) == len(everything.photos) else [Rows(view, rows) for view in views]
    front = caches[1].view(0)

    training = Training(model, config, with_noise(data, config.noise, config.noise_seed), views)
    checkpoint = scratch / (out.stem + ".checkpoint.safetensors")
    if checkpoint.exists():
        training.resume(checkpoint)
        say(f"resumed after step {training.step} of {training.steps}")
    say(
        f"{len(data.photos)} photos, {len(data.groups)} groups, {training.steps} steps; left out: {', '.join(names) or 'nothing'}"
    )
    for epoch, loss in training.run():
        training.save(checkpoint)
        report = validate(training.averaged(), config.cut, front, val, list(names)) if epoch % 3 == 0 else {}
        say(f"epoch {epoch}: loss {loss:.3f}" + "".join(f", val {name} {value:.3f}" for name, value in report.items()))
        progress(epoch, config.epochs)
    model = training.averaged()
    report = validate(model, config.cut, front, val, list(names))
    about = {"config": asdict(config), "start": source["source"], "validation": report, **(about or {})}
    save_small_encoder(model, out, about)
    say(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)" + "".join(f", val {n} {v:.3f}" for n, v in report.items()))
    return report
