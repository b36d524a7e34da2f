"""Makes the painter of a plan and paints the pictures of every arm. Each distinct picture is painted once."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from realrag.bundle.bundle import Bundle
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, sweep_temporaries, write_atomic
from realrag.photos.decode import read_bytes
from realrag.photos.keep import encode_jpeg

from ..dataset import Prompt
from ..generators.stand_in import StandIn
from ..pictures.arms import class_key
from ..retriever.prompts import spoken_class
from .config import Painting
from .painter import Painter, Reference, Row
from .procedural.world import read_proper_names, read_splits


class WithoutReferences:
    """A painter as a generator of the stage `imagine`, without references. Negatives are mined from its drawings."""

    def __init__(self, painter: Painter):
        self._painter, self.metadata = painter, painter.metadata

    def draw(self, prompt: str, seed: int) -> Image.Image:
        return self._painter.paint_many([(prompt, seed, ())])[0]


class StandInPainter:
    """Not a generator: it alters photos. It always paints a class it knows. It paints another class only if a reference
    shows that class and a random number of the prompt and noise is below `heeds`; otherwise it paints a known sibling.

    So the effect of references is known beforehand, and a run tests only the machinery."""

    batch, unit = 1, "probability that it changes the class that is painted to the right one"

    def __init__(self, world: Path, prompts: Sequence[Prompt], class_of: Callable[[str], str], heeds: float, seed: int):
        """class_of: reference id -> class."""
        splits, classes = read_splits(world), {p.prompt: class_key(p.class_name) for p in prompts}
        known: dict[str, list[str]] = {}
        for name, (family, split) in splits.items():
            if split == "G-seen":
                known.setdefault(family, []).append(name)
        drawn_as = {class_key(name): class_key(random.Random(f"{seed}/{name}").choice(known[family]))
                    for name, (family, split) in splits.items() if split != "G-seen"}  # fmt: skip
        folders = {class_key(name): name for name in splits}

        @cache
        def pictures(name: str) -> list[bytes]:
            part = "novel" if splits[folders[name]][1] == "U2" else "known"
            return [read_bytes(file) for file in sorted((world / "library" / part / folders[name]).glob("*.jpg"))]

        self._plain, self._shown = StandIn(pictures, classes, drawn_as), StandIn(pictures, classes, {})
        self._classes, self._class_of, self._heeds = classes, class_of, heeds
        self.metadata = {**self._plain.metadata, "heeds": heeds}

    def paint_many(self, rows: Sequence[Row]) -> list[Image.Image]:
        return [self._paint(*row) for row in rows]

    def utility(self, prompt: str, reference: Reference, targets: Sequence[Image.Image]) -> float:
        lacking = self._classes[prompt] in self.metadata["drawn_as"]
        right = class_key(self._class_of(reference.id)) == self._classes[prompt]
        return self._heeds if lacking and right else 0.0

    def _paint(self, prompt: str, noise: int, references: Sequence[Reference]) -> Image.Image:
        rng = random.Random(hashlib.sha256(f"{prompt}\n{noise}\nheeds".encode()).hexdigest())
        right = any(class_key(self._class_of(each.id)) == self._classes[prompt] for each in references)
        return (self._shown if right and rng.random() < self._heeds else self._plain).draw(prompt, noise)


def make_painter(
    config: Painting, world: Path, prompts: Sequence[Prompt], library: Callable[[], Bundle], device: str
) -> Painter:
    """The painter of a plan. library: opens the bundle that references come from. RealRAGError for an unknown kind."""
    if config.kind == "miniature":
        from .miniature_painter import MiniaturePainter

        names = {class_key(name): proper for name, proper in read_proper_names(world).items()}
        own_prompts = {
            p.prompt: p.prompt.replace(spoken_class(p.class_name), names[class_key(p.class_name)])
            for p in prompts
            if names
        }
        return MiniaturePainter(config, own_prompts)
    if config.kind == "stand-in":

        def class_of(id: str) -> str:
            records = library().records
            return records[records.row_of(id)].class_name

        return StandInPainter(world, prompts, class_of, config.heeds, config.seed)
    raise RealRAGError(f"`kind` in [painting] is {config.kind!r}; it must be miniature or stand-in.")


def picture_key(metadata: dict, prompt: str, noise: int, references: Sequence[str]) -> str:
    """The name of a picture: a hash of everything that it depends on."""
    return sha256_bytes(canonical_json([metadata, prompt, noise, sorted(references)]))[:32]


def paint_arms(
    folder: Path,
    painter: Painter,
    library: Bundle,
    choices: dict[str, dict[str, tuple[str, ...]]],
    noises: dict[str, Sequence[int]],
    progress: Callable[[int, int], None] = lambda done, total: None,
    tables: Path | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, int]:
    """Paints folder/pictures/KEY.jpg and writes ARM.jsonl for each arm, in the format of `judge`, to `tables` or the
    folder. Pictures that exist are not painted again.

    choices: {arm: {prompt: ids}}. noises: {prompt: seeds}. Process `rank` of `world_size` paints its own part. Returns
    {"asked", "painted", "missing"}: pictures of all arms, distinct pictures, and those that other processes have not
    painted yet."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    tables = tables or folder
    tables.mkdir(parents=True, exist_ok=True)
    shelf = Path(os.path.relpath(folder / "pictures", tables)).as_posix()
    sweep_temporaries(folder / "pictures")
    wanted, lines = {}, {arm: [] for arm in choices}
    for arm, chosen in choices.items():
        for prompt, ids in chosen.items():
            for noise in noises[prompt]:
                key = picture_key(painter.metadata, prompt, noise, ids)
                wanted[key] = prompt, noise, sorted(ids)
                lines[arm].append(
                    {"file": f"{shelf}/{key}.jpg", "prompt": prompt, "seed": noise, "references": list(ids)}
                )

    def place(key):
        return folder / "pictures" / f"{key}.jpg"

    left = [key for key in list(wanted)[rank::world_size] if not place(key).is_file()]

    def shown(id):
        return Reference(id, library.image(library.records[library.records.row_of(id)]))

    for at in range(0, len(left), painter.batch):
        keys = left[at : at + painter.batch]
        rows = [(prompt, noise, [shown(id) for id in ids]) for prompt, noise, ids in (wanted[key] for key in keys)]
        for key, picture in zip(keys, painter.paint_many(rows), strict=True):
            write_atomic(place(key), encode_jpeg(picture.convert("RGB")))
        progress(at + len(keys), len(left))
    for arm, each in lines.items():
        write_atomic(tables / f"{arm}.jsonl", "".join(json.dumps(line) + "\n" for line in each).encode())
    missing = sum(not place(key).is_file() for key in wanted)
    return {"asked": sum(map(len, lines.values())), "painted": len(wanted), "missing": missing}
