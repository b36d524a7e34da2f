"""Trains a reference adapter for a frozen generator after a recipe; stopped at any point, the same command goes on."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch

from realrag.adapters.hooks import Base, Steered
from realrag.encoders.base import Encoder
from realrag.encoders.load import load_encoder
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, write_atomic
from realrag.miniature.generator import MODELS, load_generator, save_generator
from realrag.miniature.painting import Miniature

from ..loop.stages import STOPPED, Say
from ..loop.trainer import Keeping, Watch, training_key
from .bases import frozen, load_diffusers
from .cache import Cached, cached
from .inputs import DiffusersInputs, Inputs, MiniatureInputs
from .new_adapter import new_adapter, save_adapter
from .recipe import MINIATURE, AdapterRecipe, BaseConfig, DataConfig, read_adapter_recipe
from .shuffle_gap import NoGap
from .things import HELD_OUT, SEEN, TRAIN, read_things
from .trainer import AdapterTraining, Material

HELP = "train a reference adapter for a generator (miniature, or SD3 and Flux of diffusers)"
SHIFTS = {
    "sd3": 3.0,
    "flux": 1.0,
}  # of noise levels, as the families are sampled; for FLUX.1 dev give one in the recipe


def load_base(config: BaseConfig, device: str, seed: int = 0) -> Base:
    if config.kind != MINIATURE:
        return load_diffusers(
            config.kind, Path(config.path), config.name or Path(config.path).name, config.precision, config.checkpointing,
            config.guidance, device,
        )  # fmt: skip
    if config.path:
        net = load_generator(Path(config.path))
    else:
        torch.manual_seed(seed)
        net = MODELS[config.family][0]()
    return frozen(Miniature(net, config.name), config.precision, False, device)


def load_inputs(config: BaseConfig, encoder: Encoder, device: str) -> Inputs:
    if config.kind != MINIATURE:
        return DiffusersInputs.load(Path(config.path), config.precision, device)
    from realrag.miniature.autoencoder import load_autoencoder

    return MiniatureInputs(load_autoencoder(Path(config.autoencoder)), encoder)


def load_material(recipe: AdapterRecipe, inputs: Inputs, encoder: Encoder, scratch: Path, say: Say) -> Material:
    """Everything that the step and the gap read, from the scratch folder where it is there already."""
    made: dict[str, Cached] = {}
    for part, things in read_things(recipe.data).items():
        looks = recipe.data.looks if part == TRAIN else min(2, recipe.data.looks)
        last = [-1]

        def progress(done: int, total: int) -> None:
            if (percent := 10 * done // total) != last[0]:
                last[0] = percent
                say(f"{part}: {10 * percent} % of {len(things.photos)} photos in {looks} looks")

        made[part] = cached(things, recipe.data, looks, inputs, encoder, scratch, progress)
    say(
        ", ".join(
            f"{part}: {len(c.things.photos)} photos of {len(set(c.things.rows))} things" for part, c in made.items()
        )
    )
    # A wrong reference shows another thing of the same part, so two are needed.
    some = {part: cached if len(set(cached.things.rows)) > 1 else None for part, cached in made.items()}
    if some[SEEN] is None:
        raise RealRAGError(
            "Two photos each of two things have to be set aside to measure on. Raise `aside` in [data], or give things more."
        )
    return Material(made[TRAIN], some[SEEN], some[HELD_OUT])


def net_key(net: torch.nn.Module) -> str:
    """Tells one generator from another by the beginning of each of its tensors: to hash all of them can take minutes."""
    parts = [[name, list(t.shape), t.flatten()[:8].float().tolist()] for name, t in sorted(net.state_dict().items())]
    return sha256_bytes(canonical_json(parts))[:12]


class Files:
    """What a run leaves beside its checkpoint and log: the adapter, and the gaps as CSV."""

    def __init__(self, out: Path, training: AdapterTraining, base: Base, encoder: Encoder, facts: dict, say: Say):
        self.out, self.training, self.base, self.encoder, self.facts, self.say = (
            out,
            training,
            base,
            encoder,
            facts,
            say,
        )
        self.gaps = out.with_name(f"{out.stem}.gap.csv")
        self.generator = out.with_name(f"{out.stem}.generator.safetensors")

    def earlier_gaps(self) -> None:
        """The gaps up to the checkpoint that is gone on from."""
        if self.gaps.is_file():
            with open(self.gaps, newline="") as file:
                lines = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]
            self.training.history = [
                {**line, "step": int(line["step"])} for line in lines if line["step"] <= self.training.step
            ]

    def write(self) -> None:
        training = self.training
        if training.history:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(training.history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(training.history)
            write_atomic(self.gaps, text.getvalue().encode())
        facts = {**self.facts, "steps": training.step, "gap": training.history[-1] if training.history else None}
        save_adapter(
            self.out, training.kept("adapter"), self.base, self.encoder.name, self.encoder.adapter_sha256, facts
        )
        if net := training.kept("net"):
            about = {"together with": self.out.name, "steps": training.step, "began as": self.facts["generator"]}
            save_generator(self.generator, self.base.net, {**self.base.net.state_dict(), **net}, about)
        for name, gap in training.latest.items():
            self.say(f"step {training.step}, {name}: gap {gap}")


class AdapterWatch(Watch):
    """Goes on with the gaps too, and writes adapter and gaps whenever it writes the checkpoint."""

    files: Files

    def _earlier(self, step: int) -> list[dict]:
        self.files.earlier_gaps()
        return super()._earlier(step)

    def flush(self, training: AdapterTraining) -> None:
        super().flush(training)
        self.files.write()


def train_adapter(
    recipe: AdapterRecipe, out: Path, scratch: Path, keeping: Keeping = Keeping(), device: str = "cpu",
    say: Say = lambda line: None, sheet: Callable[[AdapterTraining, Base, Inputs], None] | None = None,
) -> bool:  # fmt: skip
    """Writes the adapter `out`; beside it NAME.checkpoint.safetensors, NAME.csv and NAME.gap.csv, and where the
    generator learns along NAME.generator.safetensors. True when it is finished, False when time was up or SIGTERM came.
    NoGap when references teach nothing; all is kept then too."""
    begun = bool(recipe.base.path) or (recipe.base.family in MODELS and recipe.fit.together)
    if not begun or (recipe.base.kind == MINIATURE and not recipe.base.autoencoder):
        raise RealRAGError(
            "Which generator? Give --base, and --autoencoder with a miniature; or both in [base]. A miniature that begins "
            f"anew has family = {' or '.join(sorted(MODELS))} there, and together = true in [fit]."
        )
    if recipe.fit.together and recipe.base.kind != MINIATURE:
        raise RealRAGError("Only a miniature can learn along with its adapter. Leave out together = true in [fit].")
    encoder = load_encoder(recipe.data.encoder, offline=True)
    inputs = load_inputs(recipe.base, encoder, device)
    material, key = load_material(recipe, inputs, encoder, scratch, say), inputs.key
    if recipe.base.kind != MINIATURE:
        del inputs  # text encoders and autoencoder make room for the transformer
        inputs = None
    base = load_base(recipe.base, device, recipe.fit.seed)
    places, dim = material.train.features[0].shape[1:]
    adapter = new_adapter(base, dim, places, recipe.adapter, recipe.fit.seed).to(device)
    steered = Steered(base, adapter)
    shift = recipe.base.shift or SHIFTS[base.family]
    data = recipe.data
    training = AdapterTraining(steered, material, recipe.fit, recipe.guard, shift, data.plain, data.cousins, device)
    facts = {
        "recipe": recipe.facts(),
        "encoder": encoder.adapter_sha256,
        "latents": key,
        "generator": net_key(base.net),
    }
    say(f"{base.name}: {sum(p.numel() for p in adapter.parameters()) / 1e6:.2f} M numbers to train")
    watch = AdapterWatch(out.parent, out.stem, training_key({**facts, "recipe": recipe.settled()}), keeping, say)
    watch.files = Files(out, training, base, encoder, facts, say)
    if sheet is not None:
        watch.sheet = lambda: sheet(training, base, inputs)
    try:
        return watch.run(training)
    except NoGap:
        watch.flush(training)
        raise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a TOML file, or miniature-sd3, miniature-flux, flux-dev, sd35"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the adapter to write, .safetensors")
    parser.add_argument("--scratch", type=Path, required=True, metavar="DIR", help="keeps latents and features")
    parser.add_argument("--base", default="", metavar="PATH", help="the generator, where the recipe has none")
    parser.add_argument("--autoencoder", default="", metavar="FILE", help="of a miniature")
    for name in DataConfig.paths:
        parser.add_argument(f"--{name}", default="", metavar="DIR", help="photos, where the recipe has none")
    parser.add_argument("--steps", type=int, default=0, help="0: as the recipe says")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's own choice")
    for each in fields(Keeping):
        flag = "--" + each.name.replace("_", "-")
        parser.add_argument(flag, type=type(each.default), default=each.default, help=f"default {each.default}")


def run(arguments: argparse.Namespace, say: Say = lambda line: print(line, flush=True)) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    given = {
        "base": {"path": arguments.base, "autoencoder": arguments.autoencoder},
        "data": {name: getattr(arguments, name) for name in DataConfig.paths},
        "fit": {"steps": arguments.steps},
    }
    recipe = read_adapter_recipe(arguments.recipe, given)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    said = json.dumps(recipe.facts(), indent=1, ensure_ascii=False) + "\n"
    write_atomic(arguments.out.with_name(f"{arguments.out.stem}.recipe.json"), said.encode())
    keeping = Keeping(**{each.name: getattr(arguments, each.name) for each in fields(Keeping)})
    sheet = None
    if recipe.base.kind == MINIATURE:
        from .sheet import sheets_of

        sheet = sheets_of(arguments.out, say)
    if not train_adapter(recipe, arguments.out, arguments.scratch, keeping, arguments.device, say, sheet):
        say("stopped and kept; the same command goes on from there")
        raise SystemExit(STOPPED)
    say(f"wrote {arguments.out}")
