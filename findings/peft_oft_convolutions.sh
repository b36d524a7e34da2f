#!/usr/bin/env bash
# peft: an OFT adapter that has learned nothing changes what a convolution puts out, until it is merged.
# Guess, before running: OFT starts as the identity, so an untrained adapter leaves a 3 x 3 convolution and a patch embedding as they
# are, and merging it changes nothing.
# Seen (peft 0.21.2, torch 2.14.1): a 3 x 3 convolution and a patch embedding put out something else, without a word; merged, both
# are as they were. A 1 x 1 convolution is right both ways. The input is cut into windows, each is turned, and the windows are added
# up to a picture again where they overlap: a pixel inside counts nine times before a 3 x 3 convolution sees it.
# For us: an adapter's first check is that untrained it changes nothing, unmerged and merged; OFT only on linear layers and 1 x 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 peft==0.21.2 "numpy<3"
"$folder/venv/bin/python" - <<'PY'
import torch
from peft import OFTConfig, get_peft_model


def changed(size, **how):
    """How far an untrained adapter moves the output of a convolution, unmerged and merged, in parts of the output."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 8, size, **how)).eval()
    picture = torch.randn(1, 8, 16, 16)
    with torch.no_grad():
        plain = model(picture)
        adapted = get_peft_model(model, OFTConfig(r=0, oft_block_size=4, target_modules=["0"])).eval()
        unmerged = adapted(picture)
        merged = adapted.merge_and_unload()(picture)
    return [round(float((out - plain).norm() / plain.norm()), 4) for out in (unmerged, merged)]


found = {"3 x 3": changed(3, padding=1), "patches": changed(4, stride=4), "1 x 1": changed(1)}
print("change of the output (unmerged, merged):", found)
assert found["3 x 3"][0] > 1 and found["patches"][0] > 1 and found["1 x 1"][0] < 1e-4
assert all(merged < 1e-4 for _, merged in found.values())
PY
