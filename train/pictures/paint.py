"""Paints the pictures of every arm with your own ComfyUI workflow, after `choose`. When stopped, the same command resumes.

The workflow shows the generator an arm's references through a *Retrieve Real References* node, or through Load Image nodes
that --reference-node names. Every arm paints the same prompts with the same seeds and settings."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, sweep_temporaries, write_atomic

from ..generators.comfyui import ComfyUI
from ..generators.errors import DrawingFailed, GeneratorError
from ..generators.workflow import Graph, nodes_titled, title
from ..loop.stages import Log, Staged
from ..retriever.drawings import Drawings
from ..tables import write_csv
from .choose_references import each_line

RETRIEVE, LOAD_IMAGE = "RealRAG_RetrieveReferences", "LoadImage"
NOBODY = "0" * 16  # an id that no photo has: the node then finds nothing, and the picture is made without references
COLUMNS = ("file", "prompt", "class", "seed", "references")
MAX_BAD = 0.1  # fraction of bad pictures above which the work stops
Line = dict


@dataclass(frozen=True)
class Shown:
    """How a workflow shows references: by a retrieving node, or by nodes that load pictures."""

    retrieve: tuple[str, ...] = ()
    load: tuple[str, ...] = ()

    def fill(self, graph: Graph, line: Line, upload: Callable[[dict], str]) -> None:
        """Put an arm's references into a workflow. GeneratorError where the workflow cannot be without references."""
        ids = [reference["id"] for reference in line["references"]]
        for node in self.retrieve:
            inputs = graph[node]["inputs"]
            inputs |= {"include_ids": ", ".join(ids) or NOBODY, "pinned": ", ".join(ids), "top_k": max(1, len(ids))}
            inputs |= {"min_score": 0.0, "exclude_ids": "", "class_filter": "", "licence_filter": "", "page": 1}
            inputs["doubt"] = "keep" if ids else "leave out"
            if not isinstance(inputs.get("prompt"), list):
                inputs["prompt"] = line["prompt"]
            if not isinstance(inputs.get("look_for", ""), list):
                inputs["look_for"] = ""
        if self.load and not ids:
            raise GeneratorError(
                f"The arm {line['arm']!r} shows no reference, and Load Image nodes always show one. Use a workflow with Retrieve "
                "Real References, or leave the arm out: --arm NAME once for each that is painted."
            )
        for at, node in enumerate(self.load):
            graph[node]["inputs"]["image"] = upload(line["references"][min(at, len(ids) - 1)])


def how_shown(graph: Graph, reference_node: str = "") -> Shown:
    """Which nodes of a workflow take references. reference_node: the title of Load Image nodes, in the order of their ids."""
    if reference_node:
        found = sorted(nodes_titled(graph, reference_node), key=lambda node: (len(node), node))
        if wrong := [node for node in found if graph[node]["class_type"] != LOAD_IMAGE]:
            raise GeneratorError(
                f"Node {wrong[0]} ({title(graph[wrong[0]])!r}) is no Load Image node. Give the title of those that load the references."
            )
        return Shown(load=tuple(found))
    retrieve = tuple(node for node, each in graph.items() if each["class_type"] == RETRIEVE)
    if not retrieve:
        raise GeneratorError(
            "The workflow has no Retrieve Real References node, so it cannot show references. Add it and Inject References, or "
            "name the Load Image nodes that take them: --reference-node TITLE."
        )
    return Shown(retrieve=retrieve)


def read_lines_of_arms(choices: Path, arms: Sequence[str] = ()) -> dict[str, list[Line]]:
    """{arm: lines of CHOICES}. RealRAGError names a line that is wrong, and an arm that is not there."""
    found: dict[str, list[Line]] = {}

    def take(line: Line) -> None:
        if not all(isinstance(line[name], str) for name in ("arm", "prompt", "class")):
            raise ValueError("arm, prompt and class are texts")
        line["references"] = [{"id": str(r["id"]), "picture": str(r["picture"])} for r in line["references"]]
        found.setdefault(line["arm"], []).append(line)

    each_line(choices, take)
    if missing := [arm for arm in arms if arm not in found]:
        raise RealRAGError(f"{choices} has no arm {missing[0]!r}; its arms are {', '.join(found)}.")
    return {arm: lines for arm, lines in found.items() if not arms or arm in arms}


class Painting(Staged):
    """The pictures of all arms in one folder: OUT/ARM/*.png and OUT/ARM.csv, which `judge` and `votes` take."""

    def __init__(
        self, generator: ComfyUI, shown: Shown, choices: Path, out: Path, arms: dict[str, list[Line]], seeds: int, *,
        max_minutes: float = 0, log: Log,
    ):  # fmt: skip
        super().__init__(max_minutes=max_minutes, log=log)
        self.generator, self.shown, self.out, self.arms, self.seeds = generator, shown, out, arms, seeds
        self.photos = choices if choices.is_dir() else choices.parent
        self._uploaded: dict[str, str] = {}

    def paint(self) -> None:
        places = [(arm, line, seed) for arm, lines in self.arms.items() for line in lines for seed in range(self.seeds)]
        for arm in self.arms:
            (self.out / arm).mkdir(parents=True, exist_ok=True)
            sweep_temporaries(self.out / arm)
        # Prompt by prompt and not arm by arm, so that a run that is stopped leaves pictures that can be compared.
        places.sort(key=lambda place: (place[1]["prompt"], place[2]))
        files = [self.out / arm / self._name(line, seed) for arm, line, seed in places]
        done = sum(file.is_file() for file in files)
        self.in_time(done, len(files))
        seen = {arm: Drawings(len(lines) * self.seeds, MAX_BAD) for arm, lines in self.arms.items()}
        painted: dict[str, list[dict]] = {arm: [] for arm in self.arms}
        for (arm, line, seed), file in zip(places, files, strict=True):
            place = line["prompt"], seed
            if not file.is_file():
                try:
                    write_atomic(file, self._picture(line, seed))
                except DrawingFailed as error:
                    seen[arm].failed(place, error)
                    continue
                done += 1
                self.in_time(done, len(files))
            seen[arm].add(place, file.read_bytes())
            if place not in seen[arm].bad:
                painted[arm].append({
                    "file": f"{arm}/{file.name}", "prompt": line["prompt"], "class": line["class"], "seed": str(seed),
                    "references": " ".join(reference["id"] for reference in line["references"]),
                })  # fmt: skip
        for arm, rows in painted.items():
            for text in seen[arm].named(3):
                self.log(f"left out of {arm}: {text}")
            if not rows:
                raise GeneratorError(f"No picture of the arm {arm!r} can be used. {seen[arm].cause()}")
            write_csv(self.out / f"{arm}.csv", rows, COLUMNS)

    def _name(self, line: Line, seed: int) -> str:
        """A hash of all that the picture depends on."""
        shown = [reference["id"] for reference in line["references"]]
        return sha256_bytes(canonical_json([self.generator.metadata, line["prompt"], seed, shown]))[:32] + ".png"

    def _picture(self, line: Line, seed: int) -> bytes:
        graph = self.generator.filled(line["prompt"], seed)
        self.shown.fill(graph, line, self._upload)
        buffer = io.BytesIO()
        self.generator.run(graph).convert("RGB").save(buffer, "PNG")
        return buffer.getvalue()

    def _upload(self, reference: dict) -> str:
        if reference["id"] not in self._uploaded:
            data = (self.photos / reference["picture"]).read_bytes()
            self._uploaded[reference["id"]] = self.generator.server.upload(f"realrag-{reference['id']}.jpg", data)
        return self._uploaded[reference["id"]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("choices", type=Path, metavar="CHOICES", help="the --out of `choose`")
    parser.add_argument("--workflow", type=Path, required=True, metavar="FILE", help="from Workflow > Export (API)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="gets a folder and a table for each arm"
    )
    parser.add_argument(
        "--arm", action="append", default=[], metavar="NAME", help="paint only this arm; may be given again"
    )
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each prompt and arm (default %(default)s)")
    parser.add_argument(
        "--reference-node", default="", metavar="TITLE", help="Load Image nodes that take the references"
    )
    parser.add_argument("--prompt-node", default="", metavar="TITLE", help="the node that takes the prompt")
    parser.add_argument("--seed-node", default="", metavar="TITLE", help="the node that takes the seed")
    parser.add_argument("--output-node", default="", metavar="TITLE", help="the node whose picture counts")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8188", metavar="URL", help="ComfyUI's address (default %(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one picture (default %(default)s)")
    parser.add_argument(
        "--max-minutes", type=float, default=0, help="stop in time; the same command goes on (0: never)"
    )


def run(arguments: argparse.Namespace, log: Log = lambda line: print(line, flush=True)) -> None:
    if arguments.seeds < 1:
        raise RealRAGError(f"--seeds is {arguments.seeds}; it starts at 1.")
    arms = read_lines_of_arms(arguments.choices, arguments.arm)
    generator = ComfyUI(
        arguments.workflow, arguments.url, prompt_node=arguments.prompt_node, seed_node=arguments.seed_node,
        output_node=arguments.output_node or None, timeout=arguments.timeout, log=log,
    )  # fmt: skip
    shown = how_shown(generator.workflow, arguments.reference_node)
    log(f"ComfyUI {generator.server.version()} answers at {generator.url}.")
    count = sum(len(lines) for lines in arms.values()) * arguments.seeds
    log(f"{count:,} pictures: {len(arms)} arms, {arguments.seeds} seeds each.")
    Painting(generator, shown, arguments.choices, arguments.out, arms, arguments.seeds, max_minutes=arguments.max_minutes,
             log=log).stage("paint")  # fmt: skip
    given = " ".join(f"--arm {arm}={arguments.out / arm}.csv" for arm in arms)
    log(
        f"Next: python -m train judge {given} --real RUN/gallery --library RUN/library --choices {arguments.choices} --out judged"
    )
