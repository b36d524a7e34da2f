#!/usr/bin/env bash
# torchmetrics: PSNR-B, the PSNR that minds a JPEG's blocks, falls with the number of pictures.
# Guess, before running: the value for a batch is the mean over what its pictures get alone.
# Seen (torchmetrics 1.9.0, torch 2.14.1): one JPEG gives about 28 dB, 16 copies of it less than 17; PSNR stays as it is. The squared
# errors are divided by the number of pixels of all pictures, the blocks' effect only by that of one picture. The class does so too,
# in batches of any size.
# For us: PSNR-B is taken picture by picture and averaged; values of two sets of unequal size say nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchmetrics==1.9.0 pillow==13.0.0 "numpy<3"
"$folder/venv/bin/python" - <<'PY'
import io

import numpy as np
import torch
from PIL import Image
from torchmetrics.functional.image import peak_signal_noise_ratio, peak_signal_noise_ratio_with_blocked_effect
from torchmetrics.image import PeakSignalNoiseRatioWithBlockedEffect

noise = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
photo = Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC)
data = io.BytesIO()
photo.save(data, "JPEG", quality=30)
right, jpeg = (torch.from_numpy(np.asarray(p) / np.float32(255))[None, None] for p in (photo, Image.open(data)))
with_blocks, plain, by_class = {}, {}, {}
for copies in (1, 4, 16, 64):
    a, b = jpeg.repeat(copies, 1, 1, 1), right.repeat(copies, 1, 1, 1)
    with_blocks[copies] = round(float(peak_signal_noise_ratio_with_blocked_effect(a, b, data_range=1.0)), 2)
    plain[copies] = round(float(peak_signal_noise_ratio(a, b, data_range=1.0)), 2)
    metric = PeakSignalNoiseRatioWithBlockedEffect(data_range=1.0)
    for one, other in zip(a, b):
        metric.update(one[None], other[None])
    by_class[copies] = round(float(metric.compute()), 2)
print("copies of one JPEG: PSNR", plain, "PSNR-B", with_blocks, "by the class, one at a time", by_class)
assert max(plain.values()) - min(plain.values()) < 0.02
for found in (with_blocks, by_class):
    assert found[1] > 25 and found[1] - found[16] > 10 and found[16] - found[64] > 5
PY
