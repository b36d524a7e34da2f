#!/usr/bin/env bash
# peft: on a convolution that pads with its own picture, an adapter's part pads with zeros until it is merged.
# Guess, before running: an adapter on a convolution puts out the same before and after merge_and_unload, whatever the padding_mode.
# Seen (peft 0.21.2, torch 2.14.1): with "circular" and "reflect" it does not, in silence, for LoRA, DoRA, LoHa, LoKr and HRA.
# The inside of the picture agrees, its border does not. LoRA's first half is a new convolution made of kernel size, stride and
# padding alone. Tiles show it: a model made circular for patterns without seams gets a seam from the adapter, and merging heals it.
# For us: adapters on convolutions are merged before padding_mode is changed or judged. (Reported to peft for LoRA, number 3697.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 peft==0.21.2 "numpy<3"
"$folder/venv/bin/python" - <<'PY'
import torch
from peft import HRAConfig, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model

ADAPTERS = {
    "LoRA": LoraConfig(r=4, target_modules=["0"], init_lora_weights=False),
    "DoRA": LoraConfig(r=4, target_modules=["0"], init_lora_weights=False, use_dora=True),
    "HRA": HRAConfig(r=4, target_modules=["0"], init_weights=False),
    "LoHa": LoHaConfig(r=4, target_modules=["0"], init_weights=False),
    "LoKr": LoKrConfig(r=4, target_modules=["0"], init_weights=False),
}


def apart(config, mode):
    """(how far unmerged and merged outputs lie apart at the border, inside, seam before merging, seam after)"""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, padding=1, padding_mode=mode)).eval()
    picture = torch.randn(1, 8, 16, 16)
    with torch.no_grad():
        adapted = get_peft_model(model, config).eval()
        for name, weight in adapted.named_parameters():
            if "hada_" in name or "lokr_" in name:
                weight.normal_(std=0.5)
        unmerged, unmerged_shifted = adapted(picture), adapted(picture.roll(8, 3))
        merged_model = adapted.merge_and_unload()
        merged, merged_shifted = merged_model(picture), merged_model(picture.roll(8, 3))
    away = (unmerged - merged).abs()[0].amax(0)
    seam, healed = (unmerged.roll(8, 3) - unmerged_shifted).abs().max(), (merged.roll(8, 3) - merged_shifted).abs().max()
    return [round(float(x), 4) for x in (away.max(), away[1:-1, 1:-1].max(), seam, healed)]


for name, config in ADAPTERS.items():
    border, inside, seam, healed = apart(config, "circular")
    reflect, zeros = apart(config, "reflect")[0], apart(config, "zeros")[0]
    print(f"{name}: circular apart {border} at the border, {inside} inside; seam {seam}, merged {healed};", end=" ")
    print(f"reflect apart {reflect}, zeros {zeros}")
    assert border > 0.1 and seam > 0.1 and reflect > 0.1 and max(inside, healed, zeros) < 1e-3
PY
