"""One small encoder, from photos to a file that `load_encoder` opens, with its figures on validation photos."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from realrag import artifact
from realrag.encoders.small_net import SmallDualEncoder, save_small_encoder

from ..loop.stages import RESUME, Log, Stopped
from ..loop.watch import Hooks, RunFiles, Watch, WatchConfig
from ..retrieval_metrics import SHORT, ranked_relevance, ranking_figures
from .captioned_photos import QUERY, PhotoSet, with_noise
from .mobilenet import load_mobilenet
from .trainer import EncoderConfig, EncoderTraining
from .views import FrontCache, FrontSettings, to_features


@dataclass(frozen=True)
class EncoderJob:
    """What an encoder is trained and measured on, and where its files go.

    cached: the photos whose features are cached, where those are more than `data`. names: groups left out of training,
    measured apart. about: joins the metadata of the file. scratch: folder of cached features and checkpoints (default:
    that of the file). progress(done, total): after each cached view, and with steps at each log line.
    """

    data: PhotoSet
    val: PhotoSet
    mobilenet: Path
    cached: PhotoSet | None = None
    names: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    scratch: Path | None = None
    watch: WatchConfig = WatchConfig()
    log: Log = lambda line: None
    progress: Callable[[int, int], None] = lambda done, total: None


class Rows:
    """Some rows of a memory-mapped array, indexed by their position among them."""

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


def train_encoder(config: EncoderConfig, job: EncoderJob, out: Path) -> dict[str, float]:
    """Train, write `out`, and return its figures on `job.val`. Stopped when a signal or the time limit ended it; the
    same call then resumes."""
    torch.manual_seed(config.seed)
    start, source = load_mobilenet(job.mobilenet)
    model = SmallDualEncoder(config.model_config(source["mean"], source["std"])).to(memory_format=torch.channels_last)
    model.mobilenet.load_state_dict(start)

    data, everything, scratch = job.data, job.cached or job.data, job.scratch or out.parent
    settings = FrontSettings(config.cut, config.size, config.seed, source["mean"], source["std"], config.bf16)
    caches = [
        FrontCache(scratch / "front", model.mobilenet, photos, settings)
        for photos in (everything.photos, job.val.photos)
    ]
    views = caches[0].views(config.views + 1, job.progress)[1:]
    rows = np.flatnonzero(np.isin([str(p.path) for p in everything.photos], [str(p.path) for p in data.photos]))
    views = views if len(rows) == len(everything.photos) else [Rows(view, rows) for view in views]
    front = caches[1].view(0)

    def measure(averaged: SmallDualEncoder) -> dict[str, float]:
        return validate(averaged, config.cut, front, job.val, list(job.names))

    training = EncoderTraining(model, config, with_noise(data, config.noise, config.noise_seed), views, measure)
    left_out = ", ".join(job.names) or "nothing"
    job.log(f"{len(data.photos)} photos, {len(data.groups)} groups, {training.steps} steps; left out: {left_out}")
    hooks = Hooks(log=job.log, progress=job.progress)
    if not Watch(training, training.key, RunFiles.beside(out, scratch), job.watch, hooks).run():
        raise Stopped(f"Stopped after step {training.step} of {training.steps}. {RESUME}")
    model = training.averaged()
    report = measure(model)
    about = {"config": asdict(config), "start": source["source"], "validation": report, **job.about}
    save_small_encoder(model, out, about)
    figures_text = "".join(f", val {name} {value:.3f}" for name, value in report.items())
    job.log(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB){figures_text}")
    return report


def training_of(path: Path) -> dict[str, Any]:
    """The training settings and figures in the metadata of a small encoder's file."""
    metadata = artifact.read_header(path, "a small encoder", "Train it again.").metadata
    return json.loads(metadata["training"])
