#!/usr/bin/env bash
# torchmetrics: a picture is not like itself where it is flat, by two of the measures.
# Guess, before running: every measure of likeness gives a picture compared with itself its best value, 1, also one that is flat in
# parts, as a thing photographed before black or cut out of its photo is.
# Seen (torchmetrics 1.9.0, torch 2.14.1): where half of the picture is black, the universal image quality index (UQI) says about
# 0.6 and the spatial correlation coefficient (SCC) less than 0.6; SSIM and VIF say 1. A window without any contrast is worth 0
# rather than 1, so the value tells how much of the picture is flat. Noise of one level in 255 heals SCC, and UQI where that half is
# white; before black UQI stays where it was.
# For us: a measure is tried on a picture and itself, on the kind of picture that it is to judge; SSIM for cut-outs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchmetrics==1.9.0 "numpy<3"
"$folder/venv/bin/python" - <<'PY'
import torch
from torchmetrics.functional.image import (
    spatial_correlation_coefficient,
    structural_similarity_index_measure,
    universal_image_quality_index,
    visual_information_fidelity,
)

MEASURES = {
    "UQI": universal_image_quality_index,
    "SCC": spatial_correlation_coefficient,
    "SSIM": lambda a, b: structural_similarity_index_measure(a, b, data_range=1.0),
    "VIF": visual_information_fidelity,
}
torch.manual_seed(0)
whole = torch.rand(1, 3, 64, 64)
noise = torch.randint(0, 2, (3, 64, 32)) / 255
pictures = {"whole": whole}
for name, half in (("half black", 0), ("half black with noise", noise), ("half white with noise", 1 - noise)):
    pictures[name] = whole.clone()
    pictures[name][..., :32] = half
found = {name: {what: round(float(measure(p, p)), 3) for what, p in pictures.items()} for name, measure in MEASURES.items()}
for name, values in found.items():
    print(name, "of a picture and itself:", values)
    assert min(values["whole"], values["half white with noise"]) > 0.98
assert found["UQI"]["half black"] < 0.75 and found["UQI"]["half black with noise"] < 0.75
assert found["SCC"]["half black"] < 0.75 and found["SCC"]["half black with noise"] > 0.98
assert min(min(found[name].values()) for name in ("SSIM", "VIF")) > 0.999
PY
