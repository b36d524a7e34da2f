"""Trains a reference adapter for a generator from a recipe. When stopped, the same command resumes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch

from realrag.adapters.hooks import Base, Steered
from realrag.encoders.base import Encoder
from realrag.encoders.load import load_encoder
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, write_atomic
from realrag.miniature.generator import MODELS, load_generator, save_generator
from realrag.miniature.painting import Miniature

from ..flags import add_flags, chosen
from ..loop.checkpoint import training_key
from ..loop.stages import RESUME, Log, Stopped
from ..loop.watch import Hooks, RunFiles, Watch, WatchConfig
from ..tables import read_csv, write_csv
from .bases import frozen, load_diffusers
from .cache import Cached, cached
from .class_photos import HELD_OUT, SEEN, TRAIN, read_class_photos
from .inputs import DiffusersInputs, Inputs, MiniatureInputs
from .new_adapter import new_adapter, save_adapter
from .recipe import MINIATURE, AdapterRecipe, BaseConfig, DataConfig, read_adapter_recipe
from .trainer import AdapterData, AdapterTraining

# Shift of the noise levels, as each family is sampled. For FLUX.1 dev the recipe gives one.
SHIFTS = {"sd3": 3.0, "flux": 1.0}


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


def load_data(recipe: AdapterRecipe, inputs: Inputs, encoder: Encoder, scratch: Path, log: Log) -> AdapterData:
    """The cached inputs of the training and of the gap. What the scratch folder already holds is not computed again."""
    made: dict[str, Cached] = {}
    for part, class_photos in read_class_photos(recipe.data).items():
        variants = recipe.data.looks if part == TRAIN else min(2, recipe.data.looks)
        last = [-1]

        def progress(done: int, total: int) -> None:
            if (percent := 10 * done // total) != last[0]:
                last[0] = percent
                log(f"{part}: {10 * percent} % of {len(class_photos.photos)} photos in {variants} augmentations")

        made[part] = cached(class_photos, recipe.data, variants, inputs, encoder, scratch, progress)
    log(
        ", ".join(
            f"{part}: {len(c.class_photos.photos)} photos of {len(set(c.class_photos.rows))} classes"
            for part, c in made.items()
        )
    )
    # A wrong reference shows another class of the same part, so two are needed.
    some = {part: cached if len(set(cached.class_photos.rows)) > 1 else None for part, cached in made.items()}
    if some[SEEN] is None:
        raise RealRAGError(
            "Measuring needs two photos each of two classes set aside. Raise `aside` in [data], or give classes more photos."
        )
    return AdapterData(made[TRAIN], some[SEEN], some[HELD_OUT])


def net_key(net: torch.nn.Module) -> str:
    """Identifies a generator by the first values of each tensor, since hashing all of them can take minutes."""
    parts = [[name, list(t.shape), t.flatten()[:8].float().tolist()] for name, t in sorted(net.state_dict().items())]
    return sha256_bytes(canonical_json(parts))[:12]


class AdapterFiles:
    """What a run writes beside checkpoint and log: the adapter, a jointly trained generator, and the gaps as CSV."""

    def __init__(self, out: Path, training: AdapterTraining, encoder: Encoder, metadata: dict, log: Log):
        self.out, self.training, self.encoder, self.metadata, self.log = out, training, encoder, metadata, log
        self.gaps = out.with_name(f"{out.stem}.gap.csv")
        self.generator = out.with_name(f"{out.stem}.generator.safetensors")

    def read_gaps(self) -> None:
        """Take over the gaps up to the checkpoint that the run resumes from."""
        if self.gaps.is_file():
            rows = [{key: float(value) for key, value in row.items()} for row in read_csv(self.gaps)]
            self.training.history = [
                {**row, "step": int(row["step"])} for row in rows if row["step"] <= self.training.step
            ]

    def write(self) -> None:
        training, base = self.training, self.training.steered.base
        if training.history:
            write_csv(self.gaps, training.history, list(training.history[0]))
        trained = {**self.metadata, "steps": training.step, "gap": training.history[-1] if training.history else None}
        save_adapter(
            self.out,
            training.averaged_weights("adapter"),
            base,
            self.encoder.name,
            self.encoder.adapter_sha256,
            trained,
        )
        if net := training.averaged_weights("net"):
            metadata = {"together with": self.out.name, "steps": training.step, "began as": self.metadata["generator"]}
            save_generator(self.generator, base.net, {**base.net.state_dict(), **net}, metadata)
        for name, gap in training.latest.items():
            self.log(f"step {training.step}, {name}: gap {gap}")


def train_adapter(
    recipe: AdapterRecipe, out: Path, scratch: Path, watch: WatchConfig = WatchConfig(), device: str = "cpu",
    log: Log = lambda line: None, sheet: Callable[[AdapterTraining, Base, Inputs], None] | None = None,
) -> bool:  # fmt: skip
    """Write the adapter `out`; beside it NAME.checkpoint.safetensors, NAME.csv and NAME.gap.csv, and with
    `together` NAME.generator.safetensors. True when it is finished, False when it was stopped.

    NoGap when the adapter ignores its references; everything is saved then too."""
    begun = bool(recipe.base.path) or (recipe.base.family in MODELS and recipe.fit.together)
    if not begun or (recipe.base.kind == MINIATURE and not recipe.base.autoencoder):
        raise RealRAGError(
            "Which generator? Give --base, and --autoencoder with a miniature; or both in [base]. For a new miniature set "
            f"family = {' or '.join(sorted(MODELS))} there, and together = true in [fit]."
        )
    if recipe.fit.together and recipe.base.kind != MINIATURE:
        raise RealRAGError("Only a miniature can be trained with its adapter. Leave out together = true in [fit].")
    encoder = load_encoder(recipe.data.encoder, offline=True)
    inputs = load_inputs(recipe.base, encoder, device)
    data, key = load_data(recipe, inputs, encoder, scratch, log), inputs.key
    if recipe.base.kind != MINIATURE:
        del inputs  # frees the memory of text encoders and autoencoder for the transformer
        inputs = None
    base = load_base(recipe.base, device, recipe.fit.seed)
    places, dim = data.train.features[0].shape[1:]
    adapter = new_adapter(base, dim, places, recipe.adapter, recipe.fit.seed).to(device)
    training = AdapterTraining(
        Steered(base, adapter), data, recipe.fit, recipe.guard, recipe.base.shift or SHIFTS[base.family],
        recipe.data.plain, recipe.data.cousins, device,
    )  # fmt: skip
    metadata = {
        "recipe": recipe.metadata(),
        "encoder": encoder.adapter_sha256,
        "latents": key,
        "generator": net_key(base.net),
    }
    log(f"{base.name}: {sum(p.numel() for p in adapter.parameters()) / 1e6:.2f} M parameters to train")
    files = AdapterFiles(out, training, encoder, metadata, log)
    hooks = Hooks(log=log, saved=files.write, resumed=files.read_gaps)
    if sheet is not None:
        hooks.sheet = lambda: sheet(training, base, inputs)
    run_key = training_key({**metadata, "recipe": recipe.settled()})
    return Watch(training, run_key, RunFiles.beside(out), watch, hooks).run()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a TOML file, or miniature-sd3, miniature-flux, flux-dev, sd35"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the adapter to write, .safetensors")
    parser.add_argument("--scratch", type=Path, required=True, metavar="DIR", help="caches latents and features")
    parser.add_argument("--base", default="", metavar="PATH", help="the generator, unless the recipe names one")
    parser.add_argument("--autoencoder", default="", metavar="FILE", help="of a miniature")
    for name in DataConfig.paths:
        parser.add_argument(f"--{name}", default="", metavar="DIR", help="photos, unless the recipe names them")
    parser.add_argument("--steps", type=int, default=0, help="0: those of the recipe")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's own choice")
    add_flags(parser, WatchConfig)


def run(arguments: argparse.Namespace, log: Log = lambda line: print(line, flush=True)) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    given = {
        "base": {"path": arguments.base, "autoencoder": arguments.autoencoder},
        "data": {name: getattr(arguments, name) for name in DataConfig.paths},
        "fit": {"steps": arguments.steps},
    }
    recipe = read_adapter_recipe(arguments.recipe, given)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    settings = json.dumps(recipe.metadata(), indent=1, ensure_ascii=False) + "\n"
    write_atomic(arguments.out.with_name(f"{arguments.out.stem}.recipe.json"), settings.encode())
    watch = chosen(arguments, WatchConfig())
    sheet = None
    if recipe.base.kind == MINIATURE:
        from .sheet import sheets_of

        sheet = sheets_of(arguments.out, log)
    if not train_adapter(recipe, arguments.out, arguments.scratch, watch, arguments.device, log, sheet):
        raise Stopped(f"Stopped. {RESUME}")
    log(f"wrote {arguments.out}")
