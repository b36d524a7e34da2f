#!/usr/bin/env bash
# webdataset: photos whose names hold a dot run together into one sample.
# Guess, before running: "audi 1.5l.jpg" and "audi 1.5l.txt" are one sample with the keys jpg and txt.
# Seen (webdataset 1.0.2): the key ends at the first dot. Two photos, "audi 1.5l" and "audi 1.8l", with a caption each, come as
# one sample "audi 1" with four parts, none of which is called jpg or txt.
# For us: engine sizes, versions and lens apertures stand in file names; pair by the last dot as well, or rename when writing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q webdataset==1.0.2 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import io
import tarfile

import webdataset
from PIL import Image

buffer = io.BytesIO()
Image.new("RGB", (8, 8)).save(buffer, "JPEG")
with tarfile.open("cars.tar", "w") as tar:
    for name in ("audi 1.5l.jpg", "audi 1.5l.txt", "audi 1.8l.jpg", "audi 1.8l.txt"):
        data = buffer.getvalue() if name.endswith("jpg") else b"a car"
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
samples = list(webdataset.WebDataset("cars.tar", shardshuffle=False))
parts = [sorted(key for key in sample if not key.startswith("__")) for sample in samples]
print([sample["__key__"] for sample in samples], parts)
assert len(samples) == 1 and samples[0]["__key__"] == "audi 1"
assert parts == [["5l.jpg", "5l.txt", "8l.jpg", "8l.txt"]]
PY
