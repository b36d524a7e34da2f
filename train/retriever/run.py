"""From photos to a reflective bundle and its measurements, stage by stage. Finished work is not repeated, so a stopped run
resumes where it was."""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from realrag.bundle.bundle import MANIFEST, Bundle
from realrag.bundle.edit_heads import change_heads
from realrag.bundle.head_entries import own_name
from realrag.encoders.base import Encoder
from realrag.encoders.load import load_encoder
from realrag.encoders.reflective_head import ReflectiveHead, load_head
from realrag.errors import RealRAGError
from realrag.files import canonical_json, default_cache, sha256_bytes, sha256_file, write_json
from realrag.indexing.build import build
from realrag.indexing.shards import Sizes

from ..contrastive.fit import FitInputs, fit_file
from ..contrastive.loss import LossConfig
from ..contrastive.mine import MineInputs, mine_file, read_drawn, read_negatives
from ..contrastive.tuned_encoder import TunedVectors, tuned_vectors
from ..dataset import Prompt, prompts_hash, read_prompts
from ..generators import Generator
from ..loop.stages import RESUME, Log, Staged, Stopped
from ..loop.watch import WatchConfig
from .choose_generator import make_generator
from .embed import embed
from .evaluate import Questions, ann_loss, arm_scores, evaluate, head_vectors, table
from .imagine import DRAWN, imagine
from .model_card import write_model_card
from .parted import Places, is_parted, part_data
from .preflight import preflight
from .questions import Drawn, questions
from .recipe import NEGATIVES, Recipe
from .selection import Candidate, Selection, best, validation_figures
from .starting_encoder import start, started
from .verdict import as_text, verdict

STAGES = ("start", "embed", "imagine", "mine", "fit", "index", "evaluate")
logger = logging.getLogger(__name__)


class Run(Staged):
    """One recipe in one folder. Each stage reads the files of earlier stages and writes its own.

    rank, world_size: this process and the number of processes in the stage `embed`."""

    def __init__(
        self, recipe: Recipe, folder: Path, *, device: str = "cpu", max_minutes: float = 0, tensorboard: bool = False,
        wandb: str = "", log: Log = logger.info, rank: int = 0, world_size: int = 1,
    ):  # fmt: skip
        super().__init__(max_minutes=max_minutes, log=log)
        self.folder, self.device = Path(folder), device
        self.tensorboard, self.wandb = tensorboard, wandb
        self.given, self.recipe, self.places = recipe, started(recipe, self.folder), Places(self.folder)
        self.rank, self.world_size = rank, world_size
        self.photos = self.recipe.data  # as they are given, before they are parted
        if is_parted(self.photos):
            self.recipe = replace(self.recipe, data=part_data(self.photos, self.places))
        self.library, self.retriever = self.places.bundle("library"), self.folder / "retriever"
        self.gallery = self.places.bundle("gallery") if self.recipe.data.test_photos else self.library
        self.prompts_file, self.drawn_file = self.places.prompts("library"), self.folder / "imagine" / DRAWN

    @cached_property
    def encoder(self) -> Encoder:
        return load_encoder(self.recipe.data.encoder, device=self.device)

    def check(self) -> None:
        """Everything that is cheap to check, one picture, and the plan with its times; see `preflight`."""
        if self.given.start.mobilenet:
            return  # its photos and its encoder are made by the first stage
        recipe = replace(self.recipe, data=self.photos)
        preflight(recipe, self.folder, lambda: self.encoder, self.device, self.log)

    # Stages

    def start(self) -> None:
        """split/ and start/, if the recipe trains its own starting encoder."""
        if self.given.start.mobilenet:
            start(self.given, self.folder, self.log, self.in_time)

    def embed(self) -> None:
        """library/, validation/ and gallery/: bundles without a head; and the prompts of each."""
        embed(
            self.photos, self.places, self.encoder, rank=self.rank, world_size=self.world_size, log=self.log,
            progress=self.in_time,
        )  # fmt: skip

    def imagine(self) -> None:
        """imagine/: the drawn pictures and their vectors."""
        library = self._open(self.library)
        imagine(
            self.drawn_file.parent, self._prompts(), self._generator(library), self.encoder, seeds=self.recipe.imagine.seeds,
            sizes=Sizes(picture=self.recipe.data.picture_size), real=library.embeddings,
            max_bad=self.recipe.imagine.max_bad, progress=self.in_time,
        )  # fmt: skip
        report = json.loads((self.drawn_file.parent / "imagine.json").read_bytes())
        self.log(
            f"{report['generator']['name']}: real-versus-drawn AUC {report.get('real_versus_drawn_auc', 'unknown')}"
        )

    def mine(self) -> None:
        """negatives.safetensors, hard-negatives.safetensors for the arm without a generator, and those of other arms."""
        for arm, mined in NEGATIVES.items():
            if arm in self.recipe.evaluate.arms:
                config = replace(self.recipe.mine, kind=mined.kind, k=mined.k or self.recipe.mine.k)
                drawn = self.drawn_file if mined.kind == "reflective" else None
                found = mine_file(
                    MineInputs(self.library, self.prompts_file, drawn), self._negatives(arm), config, encoder=self.encoder,
                    device=self.device, progress=self.in_time,
                )  # fmt: skip
                if arm == "reflective":
                    self.log(
                        f"the generator's first photo showed the true class for {found.metadata['known_share']:.1%} of the prompts"
                    )

    def fit(self) -> None:
        """heads/ARM-SEED/head.safetensors of every trained arm; in modes other than `head`, its encoder. Then
        selection.json: which of them is best on the validation photos."""
        trained, config = self._candidates(), self.recipe.fit
        if config.patience and not config.held_out and self.validation_bundle is None:
            self.log("There are no validation photos, so the training goes to its end (patience is ignored).")
            config = replace(config, patience=0)
        for at, (arm, seed) in enumerate(trained):
            self.in_time()
            inputs = FitInputs(
                self.library, self.prompts_file,
                negatives=self._negatives(arm) if arm in NEGATIVES else None,
                utility=Path(self.recipe.data.utility) if self.recipe.data.utility else None,
                drawn=self.drawn_file if self._loss(arm).kind == "reflective" else None,
                validation=self.validation_bundle, validation_prompts=self._prompts_file("validation"),
            )  # fmt: skip
            self.progress.what = f"fit {arm}, seed {seed} ({at + 1} of {len(trained)})"
            made = fit_file(
                inputs, self._trained(arm, seed), replace(config, seed=config.seed + seed),
                self._loss(arm), encoder=self.encoder, device=self.device,
                watch=WatchConfig(max_minutes=self.minutes_left, tensorboard=self.tensorboard, wandb=self.wandb),
                progress=lambda step, steps, at=at: self.progress(at * steps + step, len(trained) * steps),
            )  # fmt: skip
            if made is None:
                raise Stopped(f"Stopped while fitting. {RESUME}")
        self.select()

    def select(self) -> Selection:
        """What is shipped. Written to selection.json, which is read where nothing that it depends on has changed."""
        arms, file, trained = self.recipe.evaluate, self.folder / "selection.json", self._candidates()
        if arms.ship != "best" or self.validation_bundle is None:
            arm = arms.ship if arms.ship != "best" else "reflective"
            arm = arm if arm in (*(arm for arm, _ in trained), "zero") else trained[0][0] if trained else "zero"
            return Selection(None if arm == "zero" else Candidate(arm), False, {})
        held = self._open(self.validation_bundle)
        prompts = read_prompts(self._prompts_file("validation") or self.prompts_file)
        keys = [self._key(arm, seed) for arm, seed in trained]
        key = sha256_bytes(canonical_json([held.id, prompts_hash(prompts), self.encoder.fingerprint, keys]))
        with suppress(OSError, ValueError, KeyError):
            found = json.loads(file.read_bytes())
            if found["key"] == key:
                arm, _, seed = found["shipped"].rpartition("-")
                return Selection(Candidate(arm, int(seed)) if arm else None, True, found["validation"])
        asked = questions(held, self.encoder, prompts)
        figures = {Candidate("zero"): validation_figures(asked, arm_scores(asked, None))}
        for at, (arm, seed) in enumerate(trained):
            self.in_time(at, len(trained))
            figures[Candidate(arm, seed)] = validation_figures(
                asked, arm_scores(asked, self._arm(arm, seed, held, prompts))
            )
        selection = Selection(best(figures), True, {str(each): row for each, row in figures.items()})
        write_json(file, {**selection.as_json(), "key": key})
        return selection

    def index(self) -> None:
        """retriever/: the library with the shipped arm's head and the heads of other runs, or with its tuned encoder.
        Ready for models/realrag."""
        shipped = self.select().shipped
        if shipped and self.recipe.fit.mode != "head":
            return self._index_tuned(load_encoder(str(self._trained(shipped.arm, shipped.seed)), device=self.device))
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
        if shipped := self.select().shipped:
            own = self._trained(shipped.arm, shipped.seed)
            heads[options.name or own_name(load_head(own, self.encoder.dim).metadata)] = own
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
        """evaluate.json, report.html and model-card.md; logs the table and the verdict."""
        from .report import write_html

        gallery, asked, prompts = self._open(self.gallery), *self._questions()
        arms: dict[str, list] = {}
        for arm in self.recipe.evaluate.arms:
            arms[arm] = []
            for seed in range(self.recipe.evaluate.seeds) if arm != "zero" else ():
                self.in_time()
                arms[arm].append(self._arm(arm, seed, gallery, prompts))
            arms[arm] = arms[arm] or [None]
        self.in_time()
        report = evaluate(asked, arms)
        selection = self.select()
        head = arms[selection.shipped.arm][selection.shipped.seed] if selection.shipped else None
        report["selection"] = selection.as_json()
        if selection.shipped:
            report["shipped"] = evaluate(asked, {"reflective": [head], "zero": [None]}, controls=False)["differences"]
        shipped = (
            head if isinstance(head, TunedVectors) else TunedVectors(asked.queries, head_vectors(asked.photos, head))
        )
        report["ann_loss"] = ann_loss(shipped.queries, shipped.photos, self.folder / "ann", gallery.id[:32])
        report["facts"] = self._metadata(gallery, prompts, arms)
        report["verdict"] = verdict(report).as_json()
        write_json(self.folder / "evaluate.json", report)
        write_html(self.folder / "report.html", report, asked, arms, gallery, prompts, self._histories())
        fitted = selection.shipped and json.loads(
            self._fit_json(selection.shipped.arm, selection.shipped.seed).read_bytes()
        )
        write_model_card(self.folder / "model-card.md", report, self._open(self.library), fitted and fitted["facts"])
        self.log(table(report))
        self._conclude(report)

    def _conclude(self, report: dict) -> None:
        self.log(as_text(report["verdict"], str(self.folder)))
        self.log(f"{self.folder / 'report.html'}: the same with curves and contact sheets")

    def _metadata(self, gallery: Bundle, prompts: list[Prompt], arms: dict) -> dict:
        metadata = read_drawn(self.drawn_file, self.encoder.fingerprint)[1]
        drawn = json.loads((self.drawn_file.parent / "imagine.json").read_bytes())
        return {
            "generator": json.loads(metadata["generator"]), "encoder": self.encoder.name,
            "encoder_fingerprint": self.encoder.fingerprint, "library": self._open(self.library).id, "gallery": gallery.id,
            "library_photos": len(self._open(self.library).records), "gallery_photos": len(gallery.records),
            "validation_photos": len(self._open(self.validation_bundle).records) if self.validation_bundle else 0,
            "gallery_is_library": self.gallery == self.library, "mode": self.recipe.fit.mode, "prompts": len(prompts),
            "drawings_a_prompt": drawn["seeds"], "bad_drawings": drawn.get("bad", 0), "bad_named": drawn.get("named", []),
            "imagine": drawn.get("real_versus_drawn_auc"), "classes": bool(prompts and prompts[0].class_name),
            "mining": {a: read_negatives(self._negatives(a))[0].metadata for a in NEGATIVES if a in arms},
        }  # fmt: skip

    # Shared by the stages

    def _open(self, folder: Path) -> Bundle:
        if not (folder / MANIFEST).is_file():
            raise RealRAGError(f"{folder} does not exist yet. Run the stage `embed` first.")
        return Bundle(folder, default_cache())

    @property
    def validation_bundle(self) -> Path | None:
        """The bundle of the validation photos, if there are some."""
        folder = self.places.bundle("validation")
        return folder if self.recipe.data.validation and (folder / MANIFEST).is_file() else None

    def _prompts_file(self, part: str) -> Path | None:
        """The prompts about a part's photos; None where they are those of the library."""
        file = self.places.prompts(part)
        return file if is_parted(self.photos) and file.is_file() else None

    def _candidates(self) -> list[tuple[str, int]]:
        arms = self.recipe.evaluate
        return [(arm, seed) for arm in arms.arms if arm != "zero" for seed in range(arms.seeds)]

    def _arm(self, arm: str, seed: int, bundle: Bundle, prompts: list[Prompt]) -> ReflectiveHead | TunedVectors:
        trained = self._trained(arm, seed)
        if self.recipe.fit.mode == "head":
            return load_head(trained, bundle.manifest.dim)
        return tuned_vectors(load_encoder(str(trained), device=self.device), bundle, [each.prompt for each in prompts])

    def _key(self, arm: str, seed: int) -> str:
        """What tells one trained head or encoder from another."""
        try:
            return json.loads(self._fit_json(arm, seed).read_bytes())["facts"]["key"]
        except OSError:
            raise RealRAGError(f"{self._trained(arm, seed)} does not exist yet. Run the stage `fit` first.") from None

    def _questions(self) -> tuple[Questions, list[Prompt]]:
        """About the gallery, with what was drawn for the prompts."""
        drawn, metadata = read_drawn(self.drawn_file, self.encoder.fingerprint)
        made = Drawn(self._prompts(), drawn, json.loads(metadata["generator"]))
        prompts = read_prompts(self._prompts_file("gallery") or self.prompts_file)
        return questions(self._open(self.gallery), self.encoder, prompts, made), prompts

    def _prompts(self) -> list[Prompt]:
        if not self.prompts_file.is_file():
            raise RealRAGError(f"{self.prompts_file} does not exist yet. Run the stage `embed` first.")
        return read_prompts(self.prompts_file)

    def _negatives(self, arm: str) -> Path:
        return self.folder / NEGATIVES[arm].file

    def _trained(self, arm: str, seed: int) -> Path:
        mode = self.recipe.fit.mode
        return self.folder / "heads" / f"{arm}-{seed}" / ("head.safetensors" if mode == "head" else f"{mode}-encoder")

    def _histories(self) -> dict[str, list[dict]]:
        files = {arm: self._fit_json(arm, 0) for arm in self.recipe.evaluate.arms if arm != "zero"}
        return {arm: json.loads(file.read_bytes())["history"] for arm, file in files.items() if file.is_file()}

    def _fit_json(self, arm: str, seed: int) -> Path:
        name = "fit.json" if self.recipe.fit.mode == "head" else f"{self.recipe.fit.mode}-encoder.fit.json"
        return self._trained(arm, seed).with_name(name)

    def _loss(self, arm: str) -> LossConfig:
        return replace(self.recipe.loss, kind=NEGATIVES[arm].kind if arm in NEGATIVES else arm)

    def _generator(self, library: Bundle) -> Generator:
        return make_generator(self.recipe, library, self._prompts(), self.encoder, self.device, self.log)
