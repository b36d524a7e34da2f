"""Fits a reflective head to one generator (paper, eq. 5-8) on the vectors a bundle holds, or one tower of its encoder;
stopped at any point, the same command goes on from the last checkpoint."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import torch

from realrag.bundle.bundle import Bundle
from realrag.encoders.base import Encoder
from realrag.encoders.reflective_head import ReflectiveHead, load_head, save_head
from realrag.errors import EncoderError, RealRAGError
from realrag.files import canonical_json, default_cache, sha256_bytes, sweep_temporaries, write_atomic
from realrag.retriever import own_encoder

from ..dataset import Prompt, load_material, prompts_hash, read_prompts
from ..loop.progress import Pace
from ..loop.stages import STOPPED
from ..loop.watch import Keeping, Watch
from .fit_config import RATES, FitConfig
from .loss import KINDS, LossConfig
from .mine import read_drawn, read_negatives
from .models import Model, TextModel, VisionModel
from .negatives import MineConfig
from .trainer import Fitting
from .tuned_encoder import finished, refuse_to_replace, whole_encoder, words_of, write_tuned
from .utility import Utility, read_utility

HELP = "fit a reflective head, or a tower of the encoder, to a generator"
log = logging.getLogger(__name__)


def fit_file(
    folder: Path,
    out: Path,
    config: FitConfig = FitConfig(),
    loss: LossConfig = LossConfig(),
    *,
    prompts_file: Path,
    negatives_file: Path | None = None,
    utility_file: Path | None = None,
    drawn_file: Path | None = None,
    encoder: Encoder | None = None,
    device: str = "cpu",
    keeping: Keeping = Keeping(),
    generator: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ReflectiveHead | Encoder | None:
    """Train and write the head `out`, or in the other modes the folder `out` with a tuned encoder; None when it was
    stopped before the end.

    What is there and has the same inputs stays as it is. SIGTERM, and `keeping.max_minutes`, save and stop.
    Files beside `head.safetensors` are fit.json and fit.csv; beside another NAME they are NAME.fit.json and so on.
    """
    out, bundle, prompts = Path(out), Bundle(folder, default_cache()), read_prompts(prompts_file)
    negatives, mined = _negatives_for(bundle, prompts, loss, negatives_file)
    utility = _utility_for(bundle, prompts, loss, utility_file)
    fingerprint = bundle.manifest.encoder["fingerprint"]
    drawn, made = read_drawn(drawn_file, fingerprint) if drawn_file and config.refresh else (None, {})
    facts = {
        "generator": generator or mined.get("generator") or made.get("generator") or "none",
        "encoder_fingerprint": fingerprint,
        "bundle_id": bundle.id,
        "loss": loss.kind,
        "lambda_ref": loss.lambda_ref,
        "seed": config.seed,
        "config": {"fit": asdict(config), "loss": asdict(loss)},
        "prompts": prompts_hash(prompts),
        "negatives": sha256_bytes(negatives.rows.tobytes()) if negatives else "",
        "drawn": sha256_bytes(drawn.tobytes()) if drawn is not None else "",
        "known_share": negatives.facts["known_share"] if negatives else None,
        "utility": {name: utility.facts[name] for name in ("measured_by", "unit")} if utility else None,
        "utility_sha256": sha256_bytes(utility.rows.tobytes() + utility.utility.tobytes()) if utility else "",
    }
    facts["key"] = key = sha256_bytes(canonical_json(facts))
    names = {
        kind: out.with_name(("" if out.stem == "head" else out.stem + ".") + f"fit.{kind}") for kind in ("json", "csv")
    }
    checkpoint = names["json"].with_suffix(".checkpoint.safetensors")
    head = config.mode == "head"
    if (kept := _finished(out, bundle.manifest.dim, key) if head else finished(out, key)) is not None:
        checkpoint.unlink(missing_ok=True)
        return kept
    if not head:
        refuse_to_replace(out, fingerprint)  # now, and not when hours of work are done
    mining = MineConfig(**mined["config"]) if mined else MineConfig()
    if encoder is None or (not head and encoder.place[1] != torch.float32):
        encoder = own_encoder(bundle, device if head else "cpu")  # a tower is trained in fp32, not as a GPU reads it
    if not encoder.is_encoder_of(bundle.manifest.encoder):
        raise EncoderError(
            f"{bundle.folder} was made with another encoder than {encoder.name}. Index the photos with it first."
        )
    material = load_material(bundle, encoder, prompts)
    model = _model(bundle, encoder, prompts, config, torch.device(device))
    fitting = Fitting(
        material, None if negatives is None else negatives.rows, config, loss, model=model, utility=utility, drawn=drawn,
        mining=mining, device=device,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(out.parent)
    if checkpoint.is_file():
        found = fitting.resume(checkpoint, key)
        log.info(
            "%s", f"going on after step {fitting.step}" if found else f"{checkpoint} is of another run: beginning anew"
        )
    with Watch(keeping, names["csv"], checkpoint, key, fitting, progress) as watch:
        ended = fitting.run(watch.after_step)
        watch.flush(save=not ended)
    if not ended:
        return None
    facts |= {
        "tau": fitting.tau.item(),
        "epochs": len(fitting.history),
        "steps": fitting.step,
        "pairs": len(fitting.pairs),
    }
    facts |= {"highest_rate": config.highest_rate}
    if head:
        made = fitting.head.to("cpu").eval()
        made.facts = facts
    else:
        made = whole_encoder(model)
        made.tuned = words_of(encoder, config.mode, facts)
    if fitting.rank == 0:
        history = {"facts": facts, "history": fitting.history}
        write_atomic(names["json"], json.dumps(history, indent=1, ensure_ascii=False).encode())
        if head:  # last: it being there says that all is there
            save_head(made, out)
        else:
            made = write_tuned(made, out)
        checkpoint.unlink(missing_ok=True)
    return made


def _model(
    bundle: Bundle, encoder: Encoder, prompts: list[Prompt], config: FitConfig, device: torch.device
) -> Model | None:
    """What is trained; None is a head, which `Fitting` makes. Drawn from the seed alone, so that all ranks hold the
    same."""
    if config.mode == "head":
        return None
    torch.manual_seed(config.seed)
    if config.mode == "text":
        return TextModel(encoder, [prompt.prompt for prompt in prompts], device)
    return VisionModel(encoder, bundle, config, device)


def _utility_for(bundle: Bundle, prompts: list[Prompt], loss: LossConfig, path: Path | None) -> Utility | None:
    if not loss.uses_utility:
        return None
    if path is None:
        raise RealRAGError(
            "This loss needs what references were worth. Give --utility FILE, or set lambda_utility to 0."
        )
    utility = read_utility(path, len(prompts), len(bundle.records))
    for what, wanted, found in (
        ("bundle", bundle.id, utility.facts["bundle_id"]), ("prompts", prompts_hash(prompts), utility.facts["prompts"]),
    ):  # fmt: skip
        if wanted != found:
            raise RealRAGError(
                f"{path} was measured for another {what} ({found[:12]}, not {wanted[:12]}). Measure again."
            )
    return utility


def _negatives_for(bundle: Bundle, prompts: list[Prompt], loss: LossConfig, path: Path | None):
    """The mined rows and what is written about them, checked to be of this bundle, these prompts and this kind of loss."""
    if not loss.uses_negatives:
        return None, {}
    if path is None:
        raise RealRAGError(f"The loss {loss.kind!r} needs negatives. Give --negatives FILE, or use --loss normal.")
    negatives, mined = read_negatives(path)
    for what, wanted, found in (
        ("bundle", bundle.id, mined.get("bundle_id")),
        ("prompts", prompts_hash(prompts), mined.get("prompts")),
        ("kind of loss", loss.kind, mined.get("config", {}).get("kind")),
    ):
        if wanted != found:
            raise RealRAGError(
                f"{path} was mined for another {what} ({str(found)[:12]}, not {wanted[:12]}). Mine again."
            )
    return negatives, mined


def _finished(path: Path, dim: int, key: str) -> ReflectiveHead | None:
    try:
        head = load_head(path, dim) if path.is_file() else None
    except RealRAGError:
        return None
    return head if head and head.facts.get("key") == key else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--negatives", type=Path, metavar="FILE", help="made by mine; not needed for --loss normal")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="default: prompts.jsonl beside the negatives")
    parser.add_argument("--drawn", type=Path, metavar="FILE", help="drawn.safetensors, for --refresh")
    parser.add_argument("--utility", type=Path, metavar="FILE", help="what references were worth, for --lambda-utility")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH",
                        help="head.safetensors to write, or with another --mode the folder of the tuned encoder")  # fmt: skip
    parser.add_argument(
        "--mode", choices=list(RATES), default=FitConfig.mode, help="what is trained (default %(default)s)"
    )
    parser.add_argument("--generator", default="", help="its name, where the negatives do not say it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's own choice")
    parser.add_argument("--loss", choices=KINDS, default=LossConfig.kind)
    for owner in (LossConfig, FitConfig, Keeping):
        for field in fields(owner):
            if field.name not in ("kind", "mode"):
                boolean = isinstance(field.default, bool)
                kind = {"action": argparse.BooleanOptionalAction} if boolean else {"type": type(field.default)}
                flag, told = "--" + field.name.replace("_", "-"), f"default {field.default}"
                parser.add_argument(flag, default=field.default, help=told, **kind)


def run(arguments: argparse.Namespace, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    given = vars(arguments)

    def pick(owner):
        return {f.name: given[f.name] for f in fields(owner) if f.name != "kind"}

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = _join_ranks(arguments.device)
    torch.set_float32_matmul_precision("high")  # TF32 on a card that has it; no change on a CPU
    if int(os.environ.get("RANK", "0")):

        def say(line):
            return None

    prompts = arguments.prompts or (arguments.negatives and arguments.negatives.with_name("prompts.jsonl"))
    if prompts is None:
        raise RealRAGError("Which prompts? Give --prompts FILE.")
    made = fit_file(
        arguments.bundle, arguments.out, FitConfig(**pick(FitConfig)), LossConfig(arguments.loss, **pick(LossConfig)),
        prompts_file=prompts, negatives_file=arguments.negatives, utility_file=arguments.utility, drawn_file=arguments.drawn,
        device=device, keeping=Keeping(**pick(Keeping)), generator=arguments.generator, progress=Pace(say, "fit"),
    )  # fmt: skip
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # a rank that leaves early may take the others down with it
        torch.distributed.destroy_process_group()
    if made is None:
        say("stopped and kept; the same command goes on from there")
        raise SystemExit(STOPPED)
    facts = made.facts if isinstance(made, ReflectiveHead) else made.tuned["facts"]
    say(f"wrote {arguments.out} after {facts['steps']} steps of {facts['pairs']} pairs")


def _join_ranks(device: str) -> str:
    """Under torchrun: join the other processes, and take this one's own card."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        if device.startswith("cuda"):
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device
