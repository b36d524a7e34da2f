#!/usr/bin/env bash
# datasets: a table of captions beside an image folder takes the classes away, and photos without a row as well.
# Guess, before running: the column with the folders' names stays, the captions come beside it, a photo without a row has none.
# Seen (datasets 5.2.0): with metadata.csv there is no label any more, and of four photos the one that has no row is gone,
# without a word.
# For us: a library that is read from such a folder must take classes from the folders itself, and count what has no row.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pillow==13.0.0
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - <<'PY'
import os

import datasets
from PIL import Image

for kind in ("cat", "dog"):
    os.makedirs(f"pets/train/{kind}")
    for number in range(2):
        Image.new("RGB", (8, 8), (90 * number, 1, 1)).save(f"pets/train/{kind}/{number}.png")
plain = datasets.load_dataset("imagefolder", data_dir="pets", split="train", cache_dir="one")
with open("pets/train/metadata.csv", "w") as table:
    table.write("file_name,text\ncat/0.png,a cat\ncat/1.png,two cats\ndog/0.png,a dog\n")
captioned = datasets.load_dataset("imagefolder", data_dir="pets", split="train", cache_dir="two")
print(datasets.__version__, len(plain), sorted(plain.features), len(captioned), sorted(captioned.features))
assert sorted(plain.features) == ["image", "label"] and len(plain) == 4
assert sorted(captioned.features) == ["image", "text"] and len(captioned) == 3
PY
