"""Ablations of what the paper does not vary: references, library, wrong references, loss, negatives, strength.

They were registered in docs/registration.md: one seed of one arm, U1 only, one judge. They describe and decide
nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from realrag.bundle.bundle import Bundle
from realrag.encoders.reflective_head import ReflectiveHead, load_head
from realrag.files import write_atomic, write_json
from realrag.interval_text import with_interval

from ..charts import NoCharts, chart, intervals
from ..contrastive.fit import FitInputs, fit_file
from ..contrastive.mine import MineInputs, mine_file
from ..dataset import photo_classes
from ..judge.inputs import aligned
from ..loop.stages import RESUME, Stopped
from ..loop.watch import WatchConfig
from ..pictures.arms import read_arm
from ..pictures.choose_references import choose
from ..retriever.imagine import DRAWN
from . import endpoints
from .experiment import Reproduction
from .paint_arms import make_painter, paint_arms
from .reference_controls import shuffled

RESULTS = "ablations.json"
PICTURES = 500  # an arm, at least


@dataclass(frozen=True)
class Ablation:
    """One value of one knob, and how it differs from the registered experiment. `arm`: whose references are used,
    "reflective" or "oracle"."""

    knob: str
    value: str
    arm: str = "reflective"
    loss: dict[str, Any] = field(default_factory=dict)
    mine: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    k: int = 0  # references; 0 for as many as in the experiment
    photos: int = 0  # per class in the library; 0 for all
    wrong: float = 0.0  # fraction of references that are of another class
    strength: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.knob} {self.value}"

    @property
    def trains(self) -> bool:
        return bool(self.loss or self.mine or self.fit)


REGISTERED = (
    *(Ablation("references", str(k), k=k) for k in (1, 2, 3, 5)),
    *(Ablation("photos a class", str(n) if n else "all", photos=n) for n in (5, 15, 0)),
    *(Ablation("wrong references", f"{n} of 3", "oracle", wrong=n / 3) for n in range(4)),
    *(Ablation("lambda_ref", str(value), loss={"lambda_ref": value}) for value in (0.3, 3.0)),
    *(Ablation("tau", str(value), loss={"tau": value}) for value in (0.03, 0.2)),
    Ablation("eq. 7", "as printed", loss={"reflect_tau": False}),
    *(Ablation("reflective negatives", str(k), mine={"k": k}) for k in (3, 10)),
    Ablation("the true class", "not excluded", mine={"drop_same_class": False}),
    Ablation("negatives", "mined again every 2 epochs", fit={"refresh": 2}),
    *(Ablation("strength", str(value), "oracle", strength=value) for value in (0.25, 0.5, 0.75, 1.0)),
)


class Ablations(Reproduction):
    """Ablations in the folder of a finished reproduction. They reuse its library, heads, judge and pictures."""

    @property
    def home(self) -> Path:
        return self.folder / "ablations"

    def run(self, wanted: Sequence[Ablation] = REGISTERED, pictures: int = PICTURES) -> dict:
        """Writes ablations.json, ablations.md and curves.png. Returns the content of ablations.json."""
        library, rows = self.bundle(self.library_folder), []
        unseen = self.prompts_of_split(endpoints.SPLIT)
        prompts = [prompt for prompt in self.prompts if prompt.prompt in unseen]
        seeds = range(self.plan.experiment.first_noise, self.plan.experiment.first_noise - (-pictures // len(prompts)))
        noises = {prompt.prompt: seeds for prompt in prompts}
        base = Ablation("none", "registered")
        for each in (base, *wanted):
            self.in_time()
            choices = {each.name: self.references(each, library, prompts)}
            painter = self.painter
            if each.strength != self.plan.painting.strength:
                painter = make_painter(
                    replace(self.plan.painting, strength=each.strength), self.photos, self.prompts, lambda: self._library,
                    self.device,
                )  # fmt: skip
            paint_arms(self.folder / "painted", painter, library, choices, noises, self.in_time, tables=self.home)
            rows.append(self.verdict(each, base))
            self.log(table_row(rows[-1]))
        report = {"painter": self.painter.metadata, "pictures": len(prompts) * len(seeds), "judge": self.plan.experiment.judges[0],
                  "rows": rows}  # fmt: skip
        write_json(self.home / RESULTS, report)
        write_atomic(self.home / "ablations.md", table(report).encode())
        try:
            picture = curves(report["rows"])
            write_atomic(self.home / "curves.png", lambda file: picture.save(file, "PNG", optimize=True))
        except NoCharts as error:
            self.log(f"{self.home / 'curves.png'} was not drawn. {error}")
        return report

    def references(self, each: Ablation, library: Bundle, prompts: Sequence) -> dict[str, tuple[str, ...]]:
        """{prompt: ids}"""
        among = np.ones(len(library.records), bool)
        if each.photos:
            classes = photo_classes(library)
            among = np.array([classes[:at].count(name) < each.photos for at, name in enumerate(classes)])
        k = each.k or self.plan.experiment.k
        heads = {"reflective": self.head(each)} if each.arm == "reflective" else {}
        controls = ("oracle",) if each.arm == "oracle" else ()
        lines = choose(
            library, self.encoder, prompts, heads, controls=controls, gallery=self.bundle(self.real), k=k,
            seed=self.plan.experiment.seed, among=among,
        )  # fmt: skip

        def ids(line):
            return [reference["id"] for reference in line["references"]]

        count = round(each.wrong * k)
        return {
            line["prompt"]: tuple([*ids(other)[:count], *ids(line)[count:]])
            for line, other in zip(lines, shuffled(lines), strict=True)
        }

    def head(self, each: Ablation) -> ReflectiveHead:
        """The head of the experiment's first seed, or one trained as the ablation asks."""
        run, recipe = self.run_folder, self.recipe
        if not each.trains:
            return load_head(run / "heads" / "reflective-0" / "head.safetensors", self.encoder.dim)
        folder = self.home / "heads" / each.name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        prompts, drawn, negatives = run / "prompts.jsonl", run / "imagine" / DRAWN, run / "negatives.safetensors"
        if each.mine:
            negatives = folder / "negatives.safetensors"
            mine_file(
                MineInputs(run / "library", prompts, drawn), negatives,
                replace(recipe.mine, kind="reflective", **each.mine),
                encoder=self.encoder, device=self.device, progress=self.in_time,
            )  # fmt: skip
        made = fit_file(
            FitInputs(run / "library", prompts, negatives, drawn=drawn), folder / "head.safetensors",
            replace(recipe.fit, **each.fit), replace(recipe.loss, kind="reflective", **each.loss), encoder=self.encoder,
            device=self.device, watch=WatchConfig(max_minutes=self.minutes_left), progress=self.in_time,
        )  # fmt: skip
        if made is None:
            raise Stopped(f"Stopped while fitting. {RESUME}")
        return made

    def verdict(self, each: Ablation, base: Ablation) -> dict:
        """Accuracy by the deciding judge, and the paired difference to the registered setting."""
        arms = aligned({name: read_arm(self.home / f"{name}.jsonl", self.prompts) for name in {each.name, base.name}})
        seen = self.verdicts(self.plan.experiment.judges[0], arms)
        accuracy = endpoints.accuracy(seen)[endpoints.SPLIT][each.name]["accuracy"]
        apart = endpoints.difference(seen, each.name, base.name, endpoints.SPLIT)
        return {
            "knob": each.knob,
            "value": each.value,
            "arm": each.arm,
            "accuracy": accuracy,
            "difference": apart["difference"],
        }


def table_row(row: dict) -> str:
    cells = (
        row["knob"],
        row["value"],
        row["arm"],
        with_interval(row["accuracy"]),
        with_interval(row["difference"], "+.3f"),
    )
    return f"| {' | '.join(cells)} |"


def curves(rows: Sequence[dict]) -> Image.Image:
    """U1 accuracy with its interval over the values of each knob that has several, side by side."""
    knobs: dict[str, list[dict]] = {}
    for row in rows:
        knobs.setdefault(row["knob"], []).append(row)
    base = next(row for row in rows if row["value"] == "registered")
    panels = []
    for knob, each in knobs.items():
        if len(each) > 1:
            points, title = [(row["value"], row["accuracy"]) for row in each], f"{knob} ({each[0]['arm']})"
            panels.append(lambda axes, p=points, t=title: intervals(axes, p, t, base["accuracy"][0]))
    return chart(panels, 3, (320, 240))


def table(report: dict) -> str:
    head = [
        f"{report['pictures']} pictures an arm, {endpoints.SPLIT}, judge `{report['judge']}`, painter: {report['painter']['name']}. "
        "Differences are to the first row, paired; classes are resampled.",
        "", "| what | value | references of | accuracy | difference |", "|---|---|---|---|---|",
    ]  # fmt: skip
    return "\n".join([*head, *map(table_row, report["rows"])]) + "\n"
