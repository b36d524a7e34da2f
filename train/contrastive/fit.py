"""Trains a reflective head for one generator (paper, eq. 5-8) on the vectors of a bundle, or one tower of its encoder.

When stopped, the same command resumes from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from realrag.bundle.bundle import Bundle
from realrag.encoders.base import Encoder
from realrag.encoders.reflective_head import ReflectiveHead, load_head, save_head
from realrag.errors import EncoderError, RealRAGError
from realrag.files import canonical_json, default_cache, sha256_bytes, write_atomic
from realrag.library import own_encoder

from ..dataset import Prompt, load_material, prompts_hash, read_prompts
from ..flags import add_flags, chosen, recorded
from ..loop.progress import Progress
from ..loop.stages import RESUME, Stopped
from ..loop.watch import Hooks, RunFiles, Watch, WatchConfig
from .fit_config import ADDED, RATES, FitConfig
from .loss import KINDS, LossConfig
from .mine import read_drawn, read_negatives
from .models import Model, TextModel, VisionModel
from .negatives import MineConfig, Negatives
from .trainer import ContrastiveTraining, Sources
from .tuned_encoder import finished, refuse_to_replace, tuned_metadata, whole_encoder, write_tuned
from .utility import Utility, read_utility

OLD_FLAGS = {"save_steps": "every", "save_minutes": "every_minutes", "log_steps": "log_every"}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitInputs:
    """The files that a fit learns from. generator: its name, where the negatives do not name it. validation,
    validation_prompts: a bundle and prompts that are measured after each epoch, and choose the epoch."""

    bundle: Path
    prompts: Path
    negatives: Path | None = None
    utility: Path | None = None
    drawn: Path | None = None
    generator: str = ""
    validation: Path | None = None
    validation_prompts: Path | None = None


def fit_file(
    inputs: FitInputs,
    out: Path,
    config: FitConfig = FitConfig(),
    loss: LossConfig = LossConfig(),
    *,
    encoder: Encoder | None = None,
    device: str = "cpu",
    watch: WatchConfig = WatchConfig(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ReflectiveHead | Encoder | None:
    """Train and write the head `out`, or in the other modes the folder `out` with a tuned encoder; None when it was
    stopped before the end.

    An existing `out` with the same inputs is returned as it is. SIGTERM, Ctrl-C and `watch.max_minutes` save and stop.
    Files beside `head.safetensors` are fit.json and fit.csv; beside another NAME they are NAME.fit.json and so on.
    RealRAGError where inputs do not fit together, or a checkpoint belongs to other inputs.
    """
    out, bundle, prompts = Path(out), Bundle(inputs.bundle, default_cache()), read_prompts(inputs.prompts)
    negatives, mined = _negatives_for(bundle, prompts, loss, inputs.negatives)
    utility = _utility_for(bundle, prompts, loss, inputs.utility)
    fingerprint = bundle.manifest.encoder["fingerprint"]
    drawn, made = read_drawn(inputs.drawn, fingerprint) if inputs.drawn and config.refresh else (None, {})
    metadata = {
        "generator": inputs.generator or mined.get("generator") or made.get("generator") or "none",
        "encoder_fingerprint": fingerprint,
        "bundle_id": bundle.id,
        "loss": loss.kind,
        "lambda_ref": loss.lambda_ref,
        "seed": config.seed,
        "config": {"fit": recorded(config, ADDED), "loss": asdict(loss)},
        "prompts": prompts_hash(prompts),
        "negatives": sha256_bytes(negatives.rows.tobytes()) if negatives else "",
        "drawn": sha256_bytes(drawn.tobytes()) if drawn is not None else "",
        "known_share": negatives.metadata["known_share"] if negatives else None,
        "utility": {name: utility.metadata[name] for name in ("measured_by", "unit")} if utility else None,
        "utility_sha256": sha256_bytes(utility.rows.tobytes() + utility.utility.tobytes()) if utility else "",
    }
    held = Bundle(inputs.validation, default_cache()) if inputs.validation else None
    asked = read_prompts(inputs.validation_prompts or inputs.prompts) if held else []
    if held:
        if held.manifest.encoder["fingerprint"] != fingerprint:
            raise EncoderError(f"{held.folder} was indexed with another encoder than {bundle.folder}. Index it again.")
        metadata["validation"] = [held.id, prompts_hash(asked)]
    metadata["key"] = key = sha256_bytes(canonical_json(metadata))
    names = {
        kind: out.with_name(("" if out.stem == "head" else out.stem + ".") + f"fit.{kind}") for kind in ("json", "csv")
    }
    files = RunFiles(names["json"].with_suffix(".checkpoint.safetensors"), names["csv"])
    head = config.mode == "head"
    if (existing := _finished(out, bundle.manifest.dim, key) if head else finished(out, key)) is not None:
        files.checkpoint.unlink(missing_ok=True)
        return existing
    if not head:
        refuse_to_replace(out, fingerprint)  # now, and not after hours of training
    if encoder is None or (not head and encoder.place[1] != torch.float32):
        encoder = own_encoder(bundle, device if head else "cpu")  # a tower is trained in fp32, not in a GPU's bf16
    if not encoder.is_encoder_of(bundle.manifest.encoder):
        raise EncoderError(
            f"{bundle.folder} was indexed with another encoder than {encoder.name}. Index the photos with it first."
        )
    model = _model((bundle, held), encoder, [*prompts, *asked], config, torch.device(device))
    sources = Sources(
        utility, drawn, MineConfig(**mined["config"]) if mined else MineConfig(),
        load_material(held, encoder, asked) if held else None,
    )  # fmt: skip
    training = ContrastiveTraining(
        load_material(bundle, encoder, prompts), None if negatives is None else negatives.rows, config, loss, model=model,
        sources=sources, device=device,
    )  # fmt: skip
    if not Watch(training, key, files, watch, Hooks(log=log.info, progress=progress)).run():
        return None
    metadata |= {
        "tau": training.tau.item(),
        "epochs": len(training.history),
        "steps": training.step,
        "pairs": len(training.pairs),
        "batch": training.batch,
        "highest_rate": training.config.highest_rate,
    }
    if head:
        result = training.head.to("cpu").eval()
        result.metadata = metadata
    else:
        result = whole_encoder(model)
        result.tuned = tuned_metadata(encoder, config.mode, metadata)
    if training.rank == 0:
        history = {"facts": metadata, "history": training.history}
        write_atomic(names["json"], json.dumps(history, indent=1, ensure_ascii=False).encode())
        if head:  # written last: once it exists, everything exists
            save_head(result, out)
        else:
            result = write_tuned(result, out)
        files.checkpoint.unlink(missing_ok=True)
    return result


def _model(
    bundles: tuple[Bundle, Bundle | None],
    encoder: Encoder,
    prompts: list[Prompt],
    config: FitConfig,
    device: torch.device,
) -> Model | None:
    """The model to train on the photos of a bundle and of a validation bundle; None for a head, which `ContrastiveTraining` creates. Random weights depend on the seed
    alone, so that all ranks hold the same."""
    if config.mode == "head":
        return None
    torch.manual_seed(config.seed)
    if config.mode == "text":
        return TextModel(encoder, [prompt.prompt for prompt in prompts], device, config.precision)
    return VisionModel(encoder, bundles[0], config, device, bundles[1])


def _utility_for(bundle: Bundle, prompts: list[Prompt], loss: LossConfig, path: Path | None) -> Utility | None:
    if not loss.uses_utility:
        return None
    if path is None:
        raise RealRAGError(
            "This loss needs the measured utility of references. Give --utility FILE, or set lambda_utility to 0."
        )
    utility = read_utility(path, len(prompts), len(bundle.records))
    for what, wanted, found in (
        ("bundle", bundle.id, utility.metadata["bundle_id"]), ("prompts", prompts_hash(prompts), utility.metadata["prompts"]),
    ):  # fmt: skip
        if wanted != found:
            raise RealRAGError(
                f"{path} was measured for another {what} ({found[:12]}, not {wanted[:12]}). Measure again."
            )
    return utility


def _negatives_for(
    bundle: Bundle, prompts: list[Prompt], loss: LossConfig, path: Path | None
) -> tuple[Negatives | None, dict]:
    """The mined rows and their metadata, checked against this bundle, these prompts and this kind of loss."""
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
    return head if head and head.metadata.get("key") == key else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--negatives", type=Path, metavar="FILE", help="made by mine; not needed for --loss normal")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="default: prompts.jsonl beside the negatives")
    parser.add_argument("--drawn", type=Path, metavar="FILE", help="drawn.safetensors, for --refresh")
    parser.add_argument(
        "--utility", type=Path, metavar="FILE", help="measured utility of references, for --lambda-utility"
    )
    parser.add_argument("--validation", type=Path, metavar="BUNDLE",
                        help="photos that choose the epoch, and with --patience end the training")  # fmt: skip
    parser.add_argument("--validation-prompts", type=Path, metavar="FILE", help="default: the prompts")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH",
                        help="head.safetensors to write, or with another --mode the folder of the tuned encoder")  # fmt: skip
    parser.add_argument(
        "--mode", choices=list(RATES), default=FitConfig.mode, help="what is trained (default %(default)s)"
    )
    parser.add_argument("--generator", default="", help="its name, where the negatives do not name it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's own choice")
    parser.add_argument("--loss", choices=KINDS, default=LossConfig.kind)
    add_flags(parser, LossConfig, skip=("kind",))
    add_flags(parser, FitConfig, skip=("mode",))
    add_flags(parser, WatchConfig, skip=("sheet_minutes",), aliases=OLD_FLAGS)


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = _join_ranks(arguments.device)
    torch.set_float32_matmul_precision("high")  # TF32 on a card that has it; no change on a CPU
    if int(os.environ.get("RANK", "0")):

        def log(line):
            return None

    prompts = arguments.prompts or (arguments.negatives and arguments.negatives.with_name("prompts.jsonl"))
    if prompts is None:
        raise RealRAGError("Which prompts? Give --prompts FILE.")
    inputs = FitInputs(
        arguments.bundle,
        prompts,
        arguments.negatives,
        arguments.utility,
        arguments.drawn,
        arguments.generator,
        arguments.validation,
        arguments.validation_prompts,
    )
    made = fit_file(
        inputs, arguments.out, chosen(arguments, FitConfig()), chosen(arguments, LossConfig(arguments.loss)),
        device=device, watch=chosen(arguments, WatchConfig()), progress=Progress(log, "fit"),
    )  # fmt: skip
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # a rank that leaves early may take the others down with it
        torch.distributed.destroy_process_group()
    if made is None:
        raise Stopped(f"Stopped. {RESUME}")
    metadata = made.metadata if isinstance(made, ReflectiveHead) else made.tuned["facts"]
    log(f"wrote {arguments.out} after {metadata['steps']} steps of {metadata['pairs']} pairs")


def _join_ranks(device: str) -> str:
    """Under torchrun: join the other processes, and use the GPU of this rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        if device.startswith("cuda"):
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device
