"""`run RECIPE.toml`: from photos to a reflective bundle and its measurements, stage by stage. Finished work is not
repeated, so a stopped run resumes where it was."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from realrag.bundle.bundle import MANIFEST, Bundle
from realrag.bundle.edit_heads import change_heads
from realrag.bundle.head_entries import own_name
from realrag.encoders.base import Encoder
from realrag.encoders.load import load_encoder
from realrag.encoders.reflective_head import load_head
from realrag.errors import RealRAGError
from realrag.files import default_cache, sha256_file, write_atomic, write_json
from realrag.indexing.build import build
from realrag.indexing.shards import Sizes

from ..contrastive.fit import FitInputs, fit_file
from ..contrastive.loss import LossConfig
from ..contrastive.mine import MineInputs, mine_file, read_drawn, read_negatives
from ..contrastive.tuned_encoder import TunedVectors, tuned_vectors
from ..dataset import Material, load_material, read_prompts
from ..generators import Generator
from ..loop.progress import Progress
from ..loop.ranks import own_device, rank_and_world_size
from ..loop.stages import RESUME, Log, Staged, Stopped, stopping
from ..loop.watch import WatchConfig
from ..sections import find_recipe
from .choose_generator import drawn_instead, make_generator
from .embed import embed
from .evaluate import Questions, ann_loss, drawn_photos, evaluate, head_vectors, table
from .imagine import DRAWN, imagine
from .recipe import Recipe, read_recipe
from .starting_encoder import start, started

STAGES = ("start", "embed", "imagine", "mine", "fit", "index", "evaluate")
GIVEN = ("photos", "captions", "test_photos", "groups", "encoder", "mobilenet", "validation")
logger = logging.getLogger(__name__)


class Run(Staged):
    """One recipe in one folder. Each stage reads the files of earlier stages and writes its own.

    rank, world_size: this process and the number of processes in the stage `embed`."""

    def __init__(
        self, recipe: Recipe, folder: Path, *, device: str = "cpu", max_minutes: float = 0, tensorboard: bool = False,
        log: Log = logger.info, rank: int = 0, world_size: int = 1,
    ):  # fmt: skip
        super().__init__(max_minutes=max_minutes, log=log)
        self.given, self.recipe = recipe, started(recipe, Path(folder))
        self.folder, self.device, self.tensorboard = Path(folder), device, tensorboard
        self.rank, self.world_size = rank, world_size
        self.library, self.retriever = self.folder / "library", self.folder / "retriever"
        self.gallery = self.folder / "gallery" if self.recipe.data.test_photos else self.library
        self.prompts_file, self.drawn_file = self.folder / "prompts.jsonl", self.folder / "imagine" / DRAWN

    @cached_property
    def encoder(self) -> Encoder:
        return load_encoder(self.recipe.data.encoder, device=self.device)

    # Stages

    def start(self) -> None:
        """split/ and start/, if the recipe trains its own starting encoder."""
        if self.given.start.mobilenet:
            start(self.given, self.folder, self.log, self.in_time)

    def embed(self) -> None:
        """library/, and gallery/ if there are test photos: bundles without a head."""
        embed(
            self.recipe.data, self.library, self.gallery, self.prompts_file, self.encoder, rank=self.rank,
            world_size=self.world_size, log=self.log, progress=self.in_time,
        )  # fmt: skip

    def imagine(self) -> None:
        """imagine/: the drawn pictures and their vectors."""
        library = self._open(self.library)
        imagine(
            self.drawn_file.parent, self._prompts(), self._generator(library), self.encoder, seeds=self.recipe.imagine.seeds,
            sizes=Sizes(picture=self.recipe.data.picture_size), real=library.embeddings, progress=self.in_time,
        )  # fmt: skip
        report = json.loads((self.drawn_file.parent / "imagine.json").read_bytes())
        self.log(
            f"{report['generator']['name']}: real-versus-drawn AUC {report.get('real_versus_drawn_auc', 'unknown')}"
        )

    def mine(self) -> None:
        """negatives.safetensors, and hard-negatives.safetensors for the arm without a generator."""
        for arm in ("reflective", "hard"):
            if arm in self.recipe.evaluate.arms:
                config = replace(self.recipe.mine, kind=arm)
                drawn = self.drawn_file if arm == "reflective" else None
                found = mine_file(
                    MineInputs(self.library, self.prompts_file, drawn), self._negatives(arm), config, encoder=self.encoder,
                    device=self.device, progress=self.in_time,
                )  # fmt: skip
                if arm == "reflective":
                    self.log(
                        f"the generator's first photo showed the true class for {found.facts['known_share']:.1%} of the prompts"
                    )

    def fit(self) -> None:
        """heads/ARM-SEED/head.safetensors of every trained arm; in modes other than `head`, its encoder."""
        for arm in self.recipe.evaluate.arms:
            for seed in range(self.recipe.evaluate.seeds) if arm != "zero" else ():
                self.in_time()
                inputs = FitInputs(
                    self.library, self.prompts_file,
                    negatives=self._negatives(arm) if arm in ("reflective", "hard") else None,
                    utility=Path(self.recipe.data.utility) if self.recipe.data.utility else None,
                    drawn=self.drawn_file if arm == "reflective" else None,
                )  # fmt: skip
                made = fit_file(
                    inputs, self._trained(arm, seed), replace(self.recipe.fit, seed=self.recipe.fit.seed + seed),
                    self._loss(arm), encoder=self.encoder, device=self.device,
                    watch=WatchConfig(max_minutes=self.minutes_left, tensorboard=self.tensorboard),
                    progress=Progress(self.log, f"fit {arm}, seed {seed}"),
                )  # fmt: skip
                if made is None:
                    raise Stopped(f"Stopped while fitting. {RESUME}")

    def index(self) -> None:
        """retriever/: the library with the shipped arm's head and the heads of other runs, or with its tuned encoder.
        Ready for models/realrag."""
        arm = self.recipe.evaluate.ship
        if arm != "zero" and self.recipe.fit.mode != "head":
            return self._index_tuned(load_encoder(str(self._trained(arm, 0)), device=self.device))
        library, heads = self._open(self.library), self._heads()
        if (self.retriever / MANIFEST).is_file():
            there = Bundle(self.retriever, default_cache()).manifest
            photos = [{file.sha256 for file in each.files if file.role != "head"} for each in (there, library.manifest)]
            found = [(head.name, head.file.sha256) for head in there.heads]
            if photos[0] == photos[1] and found == [(name, sha256_file(path)) for name, path in heads.items()]:
                return
        partial = self.folder / "retriever.part"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.library, partial)
        change_heads(partial, heads)
        shutil.rmtree(self.retriever, ignore_errors=True)
        partial.rename(self.retriever)

    def _heads(self) -> dict[str, Path]:
        """The bundle's heads by name. This run's head is first and so the default."""
        heads, options = {}, self.recipe.index
        if (arm := self.recipe.evaluate.ship) != "zero":
            own = self._trained(arm, 0)
            heads[options.name or own_name(load_head(own, self.encoder.dim).facts)] = own
        for folder in map(Path, options.others):
            if not (folder / "retriever" / MANIFEST).is_file():
                raise RealRAGError(
                    f"{folder} has no retriever yet. Run its stage `index` first, or leave it out of `others`."
                )
            other = Bundle(folder / "retriever", default_cache())
            for head in other.manifest.heads:
                if head.name in heads:
                    raise RealRAGError(
                        f"{folder} has a head {head.name!r}, but this bundle already has a head of that name. Give one of the "
                        "two runs its own `name` in the section [index], and run its stage `index` again."
                    )
                heads[head.name] = other.folder / head.file.path
        return heads

    def _index_tuned(self, encoder: Encoder) -> None:
        """A bundle of the tuned encoder, with the library's vectors if its image tower is the same, else with new ones."""
        library, data = self._open(self.library).manifest, self.recipe.data
        if (self.retriever / MANIFEST).is_file():
            there = Bundle(self.retriever, default_cache()).manifest
            photos = [{file.sha256 for file in manifest.of("records")} for manifest in (there, library)]
            if there.encoder["fingerprint"] == encoder.fingerprint and photos[0] == photos[1]:
                return
        partial = self.folder / "retriever.part"
        if (partial / MANIFEST).is_file():
            shutil.rmtree(partial)
        build(
            Path(data.photos), partial, encoder, captions=Path(data.captions) if data.captions else None,
            sizes=Sizes(picture=data.picture_size), reuse=self.library if encoder.accepts_vectors_of(library.encoder) else None,
            progress=self.in_time,
        )  # fmt: skip
        shutil.rmtree(self.retriever, ignore_errors=True)
        partial.rename(self.retriever)

    def evaluate(self) -> None:
        """evaluate.json and report.html; logs the table."""
        from .report import write_html

        gallery, prompts = self._open(self.gallery), self._prompts()
        material = load_material(gallery, self.encoder, prompts)
        drawn, made = read_drawn(self.drawn_file, self.encoder.fingerprint)
        siblings = self._siblings(material, drawn, json.loads(made["generator"]))
        asked = Questions(
            material.queries, material.photos, material.query_classes, material.photo_classes, siblings
        )  # fmt: skip
        asked = replace(asked, drawn=drawn_photos(asked, drawn))
        dim, arms, texts = material.photos.shape[1], {}, [prompt.prompt for prompt in prompts]
        for arm in self.recipe.evaluate.arms:
            arms[arm] = []
            for seed in range(self.recipe.evaluate.seeds) if arm != "zero" else ():
                self.in_time()
                trained = self._trained(arm, seed)
                if self.recipe.fit.mode == "head":
                    arms[arm].append(load_head(trained, dim))
                else:
                    arms[arm].append(tuned_vectors(load_encoder(str(trained), device=self.device), gallery, texts))
            arms[arm] = arms[arm] or [None]
        self.in_time()
        report = evaluate(asked, arms)
        shipped = arms[self.recipe.evaluate.ship][0]
        if not isinstance(shipped, TunedVectors):
            shipped = TunedVectors(material.queries, head_vectors(material.photos, shipped))
        report["ann_loss"] = ann_loss(shipped.queries, shipped.photos, self.folder / "ann", gallery.id[:32])
        report["facts"] = {
            "generator": json.loads(made["generator"]), "encoder": self.encoder.name, "encoder_fingerprint": self.encoder.fingerprint,
            "library": self._open(self.library).id, "gallery": gallery.id, "gallery_photos": len(material.photos),
            "mode": self.recipe.fit.mode, "prompts": len(prompts), "drawings_a_prompt": int(drawn.shape[1]),
            "imagine": json.loads((self.drawn_file.parent / "imagine.json").read_bytes()).get("real_versus_drawn_auc"),
            "mining": {a: read_negatives(self._negatives(a))[0].facts for a in ("reflective", "hard") if a in arms},
        }  # fmt: skip
        write_json(self.folder / "evaluate.json", report)
        write_html(self.folder / "report.html", report, asked, arms, gallery, prompts, self._histories())
        for line in (table(report), f"{self.folder / 'report.html'}: the same with curves and contact sheets"):
            self.log(line)

    # Shared by the stages

    def _open(self, folder: Path) -> Bundle:
        if not (folder / MANIFEST).is_file():
            raise RealRAGError(f"{folder} does not exist yet. Run the stage `embed` first.")
        return Bundle(folder, default_cache())

    def _prompts(self):
        if not self.prompts_file.is_file():
            raise RealRAGError(f"{self.prompts_file} does not exist yet. Run the stage `embed` first.")
        return read_prompts(self.prompts_file)

    def _negatives(self, arm: str) -> Path:
        return self.folder / ("negatives.safetensors" if arm == "reflective" else "hard-negatives.safetensors")

    def _trained(self, arm: str, seed: int) -> Path:
        mode = self.recipe.fit.mode
        return self.folder / "heads" / f"{arm}-{seed}" / ("head.safetensors" if mode == "head" else f"{mode}-encoder")

    def _histories(self) -> dict[str, list[dict]]:
        name = "fit.json" if self.recipe.fit.mode == "head" else f"{self.recipe.fit.mode}-encoder.fit.json"
        files = {arm: self._trained(arm, 0).with_name(name) for arm in self.recipe.evaluate.arms if arm != "zero"}
        return {arm: json.loads(file.read_bytes())["history"] for arm, file in files.items() if file.is_file()}

    def _loss(self, arm: str) -> LossConfig:
        return replace(self.recipe.loss, kind=arm)

    def _generator(self, library: Bundle) -> Generator:
        return make_generator(self.recipe, library, self._prompts(), self.encoder, self.device)

    def _siblings(self, material: Material, drawn: np.ndarray, generator: dict) -> np.ndarray:
        return drawn_instead(self._prompts(), material, drawn, generator)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file, or paper, recommended, tiny-cpu")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="everything is written here")
    parser.add_argument("--photos", default="", metavar="FOLDER", help="the library's photos, if the recipe names none")
    parser.add_argument("--captions", default="", metavar="FILE", help="CSV or JSONL with file, class, caption")
    parser.add_argument(
        "--test-photos", default="", metavar="FOLDER", help="photos for the evaluation, never trained on"
    )
    parser.add_argument("--groups", default="", metavar="FILE", help="CSV with class, coarse_class (for the stand-in)")
    parser.add_argument("--encoder", default="", metavar="NAME", help="an encoder, as for `realrag index`")
    parser.add_argument("--mobilenet", default="", metavar="FILE", help="for recipes that train a starting encoder")
    parser.add_argument("--validation", default="", metavar="FOLDER", help="photos for tuning its caption noise")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's default")
    parser.add_argument(
        "--max-minutes", type=float, default=0, help="stop after this long; the same command resumes (0: no limit)"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="also write TensorBoard event files beside the CSV logs of fit"
    )


def run(arguments: argparse.Namespace, log: Log = lambda line: print(line, flush=True), only: str = "") -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rank, world_size = rank_and_world_size()
    if world_size > 1 and only != "embed":
        raise RealRAGError(
            "torchrun only splits the work of `embed` and `fit`. Run this command once, without torchrun."
        )
    given = {name: getattr(arguments, name) for name in GIVEN}
    recipe = read_recipe(find_recipe(arguments.recipe), given)
    if recipe.encoder is not None:
        raise RealRAGError(
            f"{arguments.recipe} is a recipe for training an encoder: `python -m train encoder --recipe {arguments.recipe}`."
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        write_atomic(arguments.out / "recipe.json", recipe.as_json().encode())
    own_log = log if world_size == 1 else lambda line: log(f"[{rank}] {line}")
    device = own_device(arguments.device)
    work = Run(
        recipe, arguments.out, device=device, max_minutes=arguments.max_minutes, tensorboard=arguments.tensorboard,
        log=own_log, rank=rank, world_size=world_size,
    )  # fmt: skip
    with stopping():
        for stage in (only,) if only else STAGES:
            work.stage(stage)
