#!/usr/bin/env bash
# torch: the antialiased resize of bytes, which preprocessing on tensors uses, is not Pillow's to within one level.
# Guess, before running: both do the same sum in whole numbers, so their results differ by one level at most, by rounding, and
# torch's paths for processors with and without AVX2 agree to the bit.
# Seen (torch 2.14.1, pillow 13.0.0): noise of 800 x 600 made a little smaller differs by two levels (bilinear, 790 x 590), made
# half as large by none; torch keeps its weights in 16 bits, Pillow in 22. The two paths of torch agree.
# For us: a vector made through tensors is not that of the same photo made through Pillow; one of the two is chosen for good.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 pillow==13.0.0 "numpy<3"
for path in avx2 default; do
ATEN_CPU_CAPABILITY=$path "$folder/venv/bin/python" - > "$folder/$path" <<'PY'
import hashlib

import numpy as np
import PIL
import torch
from PIL import Image

pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
print(torch.__version__, PIL.__version__)
for width, height in ((400, 300), (790, 590)):
    ours = torch.nn.functional.interpolate(batch, (height, width), mode="bilinear", antialias=True)
    ours = ours[0].permute(1, 2, 0).contiguous().numpy()
    theirs = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    away = np.abs(ours.astype(int) - theirs.astype(int))
    print(width, height, "most", away.max(), "mean", away.mean().round(4), hashlib.sha256(ours.tobytes()).hexdigest()[:12])
    assert away.max() == (0 if width == 400 else 2)
PY
done
cat "$folder/avx2"
cmp "$folder/avx2" "$folder/default"
