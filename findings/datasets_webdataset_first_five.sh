#!/usr/bin/env bash
# datasets: the first five photos of a WebDataset shard decide what the others may have.
# Guess, before running: a photo without a caption has None there, and a PNG among JPEGs is an image too, under its own name.
# Seen (datasets 5.2.0): one photo without a caption as the third of nine, and the whole shard is refused; as the eighth, it is
# None. A PNG as the eighth is lost in silence: its row is there and holds no picture. A caption that only the eighth has is lost.
# For us: shards are read photo by photo with whatever each has, and what has no words is counted.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pillow==13.0.0
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - <<'PY'
import io
import tarfile

import datasets
from PIL import Image


def photo(format):
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(data, format)
    return data.getvalue()


def rows(name, odd, at):
    """Nine photos, each a JPEG with a caption, but for the one of number `at`, which has the parts `odd`."""
    with tarfile.open(f"{name}.tar", "w") as shard:
        for number in range(9):
            parts = {"jpg": photo("JPEG"), "txt": b"an apple"} if number != at else odd
            for suffix, data in parts.items():
                member = tarfile.TarInfo(f"{number:03}.{suffix}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    return datasets.load_dataset("webdataset", data_files=f"{name}.tar", split="train", cache_dir=name)


bare, png = {"jpg": photo("JPEG")}, {"png": photo("PNG"), "txt": b"an apple"}
late = rows("late", bare, 7)
other = rows("other", png, 7)
try:
    rows("early", bare, 2)
    early = "read"
except ValueError as error:
    early = f"refused: {error}"
print(datasets.__version__, late[7]["txt"], other.column_names, other[7]["jpg"], early, sep="\n")
assert late[7]["txt"] is None and late[6]["txt"] == "an apple"
assert "png" not in other.column_names and other[7]["jpg"] is None and other[7]["txt"] == "an apple"
assert early.startswith("refused") and "don't share the same prefix or the same types" in early
PY
