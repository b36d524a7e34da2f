"""`reproduce run WORLD.toml`: from a world to endpoints, stage by stage. Finished work is not repeated."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from realrag.bundle.bundle import MANIFEST, Bundle
from realrag.encoders.base import Encoder
from realrag.encoders.load import load_encoder
from realrag.encoders.reflective_head import load_head
from realrag.errors import RealRAGError
from realrag.files import default_cache, write_atomic, write_json
from realrag.indexing.build import build
from realrag.indexing.shards import Sizes
from realrag.photos.keep import encode_jpeg

from ..dataset import Prompt, read_prompts
from ..judge.histograms import GradientEncoder
from ..judge.inputs import Judged, aligned, judge, refuse_shared
from ..judge.page import arms_sheet, prompts_of, spread, write_page
from ..judge.table import table as judge_table
from ..loop.stages import Log, Staged
from ..pictures.arms import Picture, class_key, read_arm
from ..pictures.choose_references import CHOICES, choose, read_choices, summary, write_choices
from ..retriever.prompts import class_prompts, write_prompts
from ..retriever.recipe import Recipe
from ..retriever.run import STAGES as RETRIEVER_STAGES
from ..retriever.starting_encoder import started
from . import endpoints
from .config import Plan
from .further_endpoints import further_endpoints, mechanism
from .judge_encoders import JudgeTraining, cached_judge_encoder
from .named_rankings import HELD_OUT, choose_by, compare_rankings, folder_of
from .paint_arms import make_painter, paint_arms
from .painter import Painter
from .paper import relative_gains
from .procedural.world import SPLITS, read_splits, write_world
from .reference_controls import describe, shuffled
from .report import gate_rows, ordered, write_results
from .retriever_run import RetrieverRun

SHEET, SHOWN, CELL = "sheet.jpg", 12, 104  # of U1, for illustration
STAGES = ("world", "retriever", "library", "judges", "choose", "gates", "paint", "judge", "report")


class Reproduction(Staged):
    """One plan in one folder. Each stage reads the files of earlier stages and writes its own."""

    def __init__(
        self, plan: Plan, recipe: Recipe, folder: Path, *, device: str = "cpu", max_minutes: float = 0, log: Log,
        painter: Painter | None = None, rank: int = 0, world_size: int = 1,
    ):  # fmt: skip
        """painter: replaces the plan's painter. rank, world_size: this process and the number of processes in the stage
        `paint`."""
        super().__init__(max_minutes=max_minutes, log=log)
        self.plan, self.folder, self.device, self._painter = plan, Path(folder), device, painter
        self.rank, self.world_size = rank, world_size
        self._opened: dict[Path, Bundle] = {}
        self.photos = Path(plan.experiment.photos) if plan.experiment.photos else self.folder / "photos"
        data = replace(
            recipe.data, photos=str(self.photos / "library" / "known"), test_photos=str(self.photos / "evaluation"),
            parts=(), articles=False, caption_prompts=False,  # as registered
        )  # fmt: skip
        begin = (
            replace(recipe.start, validation=str(self.photos / "validation"))
            if recipe.start.mobilenet
            else recipe.start
        )
        self.recipe = replace(recipe, data=data, start=begin)
        self.run_folder, self.library_folder = self.folder / "retriever", self.folder / "library"
        self.taught, self.real = self.folder / "judges" / "taught", self.run_folder / "gallery"

    # Stages

    def world(self) -> None:
        """photos/, if the plan draws them, and prompts.jsonl: one prompt per class, of all splits."""
        if not self.plan.experiment.photos:
            write_world(self.plan.world, self.photos, self.in_time)
        names = [name for name, _ in sorted(self.splits.items())]
        write_prompts(self.folder / "prompts.jsonl", class_prompts(names, self.recipe.data.template))

    def retriever(self) -> None:
        """retriever/: a recipe's run on the known classes only: starting encoder, negatives, heads, retrieval metrics."""
        self.run_folder.mkdir(parents=True, exist_ok=True)
        run = RetrieverRun(
            self.recipe, self.run_folder, device=self.device, max_minutes=self.minutes_left, log=self.log,
        )  # fmt: skip
        run.painter, run.validation = self.painter, self.photos / "validation"
        for stage in RETRIEVER_STAGES:
            if stage == "fit":
                run.stage("utility")
            if stage != "index":  # this experiment ships no retriever
                run.stage(stage)

    def library(self) -> None:
        """library/: all photos that references are chosen from, including those of U2."""
        build(
            self.photos / "library", self.library_folder, self.encoder, sizes=Sizes(picture=self.recipe.data.picture_size),
            reuse=self.run_folder / "library", progress=self.in_time,
        )  # fmt: skip

    def judges(self) -> None:
        """judges/: a bundle of the judges' training photos, and the judge that is a trained network."""
        build(
            self.photos / "judge", self.taught, GradientEncoder(), sizes=Sizes(picture=self.recipe.data.picture_size),
            progress=self.in_time,
        )  # fmt: skip
        for name in self.plan.experiment.judges:
            self.judge_encoder(name)

    def choose(self) -> None:
        """choices/: the references of every arm and seed for every prompt, and under the further rankings of the plan."""
        experiment, library, arms = self.plan.experiment, self.bundle(self.library_folder), {"zero": None}
        for arm in self.recipe.evaluate.arms:
            for seed in range(self.recipe.evaluate.seeds) if arm != "zero" else ():
                arms[f"{arm}-{seed}"] = load_head(
                    self.run_folder / "heads" / f"{arm}-{seed}" / "head.safetensors", self.encoder.dim
                )
        lines = choose(
            library,
            self.encoder,
            self.prompts,
            arms,
            gallery=self.bundle(self.real),
            k=experiment.k,
            seed=experiment.seed,
        )
        lines += shuffled([line for line in lines if line["arm"] == "oracle"])
        if experiment.arms:
            lines = [line for line in lines if endpoints.arm_of(line["arm"]) in experiment.arms]
        write_choices(self.folder / "choices", lines, library)
        self.log(summary(lines))
        held_out = {prompt for split in HELD_OUT for prompt in self.prompts_of_split(split)}
        choose_by(
            experiment.find_by, self.folder / "choices", library, self.encoder, [p for p in self.prompts if p.prompt in held_out],
            arms, self.bundle(self.real), experiment.k,
        )  # fmt: skip

    def gates(self) -> None:
        """gates/: the gates. Only the arms that they need are painted first, so that a failing generator costs minutes
        instead of hours. `paint` reuses these pictures."""
        folder, painted = self.folder / "gates", self.folder / "painted"
        choices = {
            arm: chosen for arm, chosen in read_choices(self.folder / "choices").items() if arm in endpoints.CONTROLS
        }
        paint_arms(
            painted, self.painter, self.bundle(self.library_folder), choices, self.noises, self.in_time, tables=folder
        )
        name = self.plan.experiment.judges[0]
        found = self.gate_results(self.verdicts(name, self.arms_of(folder)))
        write_json(folder / "gates.json", {"judge": name, "painter": self.painter.metadata, "gates": found})
        self.log("\n".join(gate_rows(found)))
        if not all(gate["passed"] for gate in found):
            self.log(
                "A gate failed. Fix the generator, the judge or the world first: the report gives no verdict on pictures painted now."
            )

    def paint(self) -> None:
        """painted/: the pictures of every arm, and under the further rankings. Each distinct picture is painted once."""
        painted, choices, further = self.folder / "painted", self.folder / "choices", self.plan.experiment.find_by

        def paint(chosen: Path, tables: Path) -> dict[str, int]:
            return paint_arms(
                painted, self.painter, self.bundle(self.library_folder), read_choices(chosen), self.noises, self.in_time, tables,
                self.rank, self.world_size,
            )  # fmt: skip

        counts = paint(choices, painted)
        by_name = {by: paint(folder_of(choices, by), folder_of(painted, by)) for by in further}
        if missing := counts.pop("missing") + sum(each.pop("missing") for each in by_name.values()):
            self.log(
                f"Process {self.rank} of {self.world_size} is done; the other processes still have {missing} pictures to paint."
            )
            return
        if by_name:
            counts["further rankings"] = by_name
        write_json(painted / "painted.json", {**counts, "painter": self.painter.metadata})
        self.log(f"{counts['asked']} pictures of all arms, {counts['painted']} of them distinct")

    def judge(self) -> None:
        """judged/: nearness, copying, variety, FID and KID of one seed per arm, with contact sheets."""
        real, taught, library = self.bundle(self.real), self.bundle(self.taught), self.bundle(self.library_folder)
        refuse_shared(real, library, "Then copying would look real. Separate the sets.")
        refuse_shared(real, taught, "Then the judge would have memorized the photos of the ceiling. Separate the sets.")
        refuse_shared(
            taught, library, "Then the judge would recognize copied references from memory. Separate the sets."
        )
        arms = self.painted_arms()
        first = {endpoints.arm_of(name): p for name, p in arms.items() if not name[-1].isdigit() or name.endswith("-0")}
        base = set(
            range(self.plan.experiment.first_noise, self.plan.experiment.first_noise + self.plan.experiment.noises)
        )
        even = {
            name: [p for p in pictures if p.seed in base] for name, pictures in first.items()
        }  # equal weight for every class
        reports = {}
        for name in self.plan.experiment.judges:
            encoder, vectors = self.judge_encoder(name), self.folder / "judged" / "vectors"
            judged = Judged(even, real, library, taught, seed=self.plan.experiment.seed)
            reports[name] = judge(judged, encoder, vectors, self.in_time)
            write_json(self.folder / "judged" / f"{name}.json", reports[name])
            self.log(judge_table({**reports[name], "differences": {}}))
        write_page(self.folder / "judged" / "judge.html", reports, even, real)
        unseen = [p for p in prompts_of(even) if p in self.prompts_of_split(endpoints.SPLIT)]
        sheet = arms_sheet({arm: even[arm] for arm in ordered(even)}, real, spread(unseen, SHOWN), CELL, titles=True)
        write_atomic(self.folder / "judged" / SHEET, encode_jpeg(sheet))

    def report(self) -> None:
        """results.json and results.md: the endpoints, the gates and the registered plan."""
        arms, plan, found = self.painted_arms(), self.plan.experiment, {}
        counts = self.folder / "painted" / "painted.json"
        if not counts.is_file():
            raise RealRAGError(
                f"{counts} is missing, so the pictures are not all painted. Finish the stage `paint` first."
            )
        painted = json.loads(counts.read_bytes())
        for name in plan.judges:
            verdicts = self.verdicts(name, arms)
            gates = self.gate_results(verdicts)
            pairs = {f"{a} - {b}": {split: endpoints.difference(verdicts, a, b, split) for split in (*SPLITS, "all")
                                    if split == "all" or (verdicts.splits == split).any()} for a, b in endpoints.PAIRS if {a, b} <= verdicts.right.keys()}  # fmt: skip
            primary = pairs[" - ".join(endpoints.PRIMARY)][endpoints.SPLIT]
            pictures = json.loads((self.folder / "judged" / f"{name}.json").read_bytes())
            found[name] = {
                "ceiling": verdicts.real, "confusions": verdicts.confusions, "accuracy": endpoints.accuracy(verdicts), "gates": gates,
                "differences": pairs, "fingerprint": self.judge_encoder(name).fingerprint,
                "conclusion": endpoints.conclusion(primary, gates, painted["painter"]["name"], plan.same_sign),
                "pictures": pictures, "relative": relative_gains(verdicts, pictures),
            }  # fmt: skip
            if name == plan.judges[0]:
                found[name] |= self._deciding(name, verdicts, all(gate["passed"] for gate in gates))
        results = {
            "plan": json.loads(self.plan.as_json(self.recipe)), "painted": painted, "judges": found,
            "retrieval": {"arms": {a: r["splits"] for a, r in self.retrieval["arms"].items()},
                          "differences": self.retrieval["differences"], "facts": self.retrieval["facts"]},
            "references": describe(self.folder / "choices" / CHOICES, self.splits),
        }  # fmt: skip
        self.log(write_results(self.folder, results))

    def _deciding(self, judge: str, found: endpoints.Verdicts, standing: bool) -> dict:
        """What only the judge that decides is asked."""
        plan, choices = self.plan.experiment, self.folder / "choices"

        def by_name(by: str) -> endpoints.Verdicts:
            return self.verdicts(judge, self.arms_of(folder_of(self.folder / "painted", by)))

        return {
            "further": further_endpoints(found, plan.same_sign, standing),
            "mechanism": mechanism(found),
            "rankings": compare_rankings(plan.find_by, choices, found, by_name, self.splits),
            "by class and seed": endpoints.by_class_and_seed(found),
        }

    # Shared by the stages

    @cached_property
    def splits(self) -> dict[str, tuple[str, str]]:
        return read_splits(self.photos)

    @cached_property
    def encoder(self) -> Encoder:
        return load_encoder(started(self.recipe, self.run_folder).data.encoder, device=self.device)

    @property
    def prompts(self) -> list[Prompt]:
        return read_prompts(self.folder / "prompts.jsonl")

    @property
    def _library(self) -> Bundle:
        """All photos that references are chosen from; before the stage `library`, only the retriever's training photos."""
        whole = (self.library_folder / MANIFEST).is_file()
        folder = self.library_folder if whole else self.run_folder / "library"
        if folder not in self._opened:
            self._opened[folder] = self.bundle(folder)
        return self._opened[folder]

    @cached_property
    def painter(self) -> Painter:
        return self._painter or make_painter(
            self.plan.painting, self.photos, self.prompts, lambda: self._library, self.device
        )

    @property
    def noises(self) -> dict[str, range]:
        """The noise seeds of each prompt: more for U1, the split of the endpoints."""
        plan, first, unseen = (
            self.plan.experiment,
            self.plan.experiment.first_noise,
            self.prompts_of_split(endpoints.SPLIT),
        )

        def count(prompt):
            return max(plan.noises, plan.unseen_noises) if prompt in unseen else plan.noises

        return {prompt.prompt: range(first, first + count(prompt.prompt)) for prompt in self.prompts}

    def prompts_of_split(self, split: str) -> list[str]:
        classes = {class_key(name) for name, (_, each) in self.splits.items() if each == split}
        return [prompt.prompt for prompt in self.prompts if class_key(prompt.class_name) in classes]

    def bundle(self, folder: Path) -> Bundle:
        if not (folder / MANIFEST).is_file():
            raise RealRAGError(f"{folder} does not exist yet. Run the earlier stages first.")
        return Bundle(folder, default_cache())

    @property
    def retrieval(self) -> dict:
        return json.loads((self.run_folder / "evaluate.json").read_bytes())

    def arms_of(self, folder: Path) -> dict[str, list[Picture]]:
        return aligned({file.stem: read_arm(file, self.prompts) for file in sorted(folder.glob("*.jsonl"))})

    def painted_arms(self) -> dict[str, list[Picture]]:
        return self.arms_of(self.folder / "painted")

    def verdicts(self, judge: str, arms: dict[str, list[Picture]]) -> endpoints.Verdicts:
        return endpoints.verdicts(
            arms, self.bundle(self.real), self.bundle(self.taught), self.splits, self.judge_encoder(judge),
            self.folder / "judged" / "vectors", self.in_time,
        )  # fmt: skip

    def gate_results(self, verdicts: endpoints.Verdicts) -> list[dict]:
        """One entry per gate, with `passed`."""
        start = self.recipe.start
        return endpoints.gates(verdicts, self.retrieval, (start.least, start.most), self.plan.experiment)

    def judge_encoder(self, name: str) -> Encoder:
        plan = self.plan.experiment
        training = JudgeTraining(plan.judge_width, plan.judge_epochs, seed=plan.seed)
        return cached_judge_encoder(
            name, self.photos / "judge", self.bundle(self.taught).id, self.folder / "judges", training, self.in_time,
            plan.lite0,
        )  # fmt: skip
