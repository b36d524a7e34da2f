"""The training of a tower in a folder that holds a tiny encoder, a bundle, prompts and negatives."""

from pathlib import Path

import torch
from torch import Tensor

from realrag.bundle.bundle import Bundle
from realrag.encoders.load import load_encoder
from realrag_train.contrastive.fit_config import FitConfig
from realrag_train.contrastive.loss import LossConfig
from realrag_train.contrastive.mine import read_negatives
from realrag_train.contrastive.models import TextModel, VisionModel
from realrag_train.contrastive.trainer import ContrastiveTraining
from realrag_train.dataset import load_material, read_prompts


def small(mode, **changes):
    lrs = {"text": 1e-2, "lora": 1e-2, "full": 1e-3}
    return FitConfig(**{"mode": mode, "epochs": 2, "batch": 4, "rate": lrs[mode], "lora_rank": 2, "seed": 3, **changes})


def fitting_in(folder, mode, loss=LossConfig(), **changes):
    bundle, encoder, prompts = (
        Bundle(folder / "bundle"),
        load_encoder(str(folder / "tiny")),
        read_prompts(folder / "prompts.jsonl"),
    )
    material, config, cpu = load_material(bundle, encoder, prompts), small(mode, **changes), torch.device("cpu")
    torch.manual_seed(config.seed)
    if mode == "text":
        model = TextModel(encoder, [prompt.prompt for prompt in prompts], cpu, config.precision)
    else:
        model = VisionModel(encoder, bundle, config, cpu)
    return ContrastiveTraining(
        material, read_negatives(folder / "negatives.safetensors")[0].rows, config, loss, model=model
    ), encoder


def tower_of_one_rank(rank: int, folder: Path) -> list[Tensor]:
    """The trained weights and the metrics of the last step."""
    fitting, _ = fitting_in(folder, "lora", epochs=1, rate=1e-3)
    fitting.run()
    figures = torch.tensor(list(fitting.figures().values()))
    return [*(weight.detach() for weight in fitting.model.trained.values()), figures]
