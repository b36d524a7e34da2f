#!/usr/bin/env bash
# safetensors: the numpy side writes bfloat16, and cannot read what it wrote.
# Guess, before running: it reads it back as ml_dtypes' bfloat16.
# Seen (safetensors 0.8.0, ml_dtypes 0.5.4): save takes the array, load of the same bytes ends in KeyError 'BF16'.
# For us: files of numpy arrays hold fp16 or fp32; what may be bfloat16 is read through torch, or from the header by hand.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q safetensors==0.8.0 ml_dtypes==0.5.4 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import ml_dtypes
import numpy as np
from safetensors.numpy import load, save

data = save({"x": np.ones((2, 2), ml_dtypes.bfloat16)})
try:
    load(data)
    raise SystemExit("it can be read now")
except KeyError as error:
    print("written", len(data), "bytes; reading: KeyError", error)
    assert error.args == ("BF16",)
PY
