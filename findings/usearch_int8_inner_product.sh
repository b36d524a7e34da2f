#!/usr/bin/env bash
# usearch: an index of inner products that is kept in int8 ranks by direction alone.
# Guess, before running: distances follow the inner products up to rounding, so that a longer vector still wins.
# Seen (usearch 2.26.6, numpy 2.4.6): f16 gives the ten best in their order. i8 puts the vector of the same direction first,
# fourteen times shorter than the best one, and says distances below -7,000: each vector is scaled to the int8 range by its own length.
# For us: int8 codes of vectors that are not of unit length lose what length says; make them unit first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q usearch==2.26.6 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from usearch.index import Index

rng = np.random.default_rng(0)
vectors = rng.standard_normal((200, 32)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
vectors *= np.linspace(0.2, 3, 200, dtype=np.float32)[:, None]
query = vectors[0] / np.linalg.norm(vectors[0])
right = np.argsort(-(vectors @ query))[:10]
found = {}
for kind in ("f16", "i8"):
    index = Index(ndim=32, metric="ip", dtype=kind)
    index.add(np.arange(200), vectors)
    found[kind] = index.search(query, 10)
    print(kind, found[kind].keys.tolist(), found[kind].distances[:3].tolist())
print("right", right.tolist())
assert found["f16"].keys.tolist() == right.tolist()
assert found["i8"].keys[0] == 0 and right[0] != 0 and found["i8"].distances[0] < -1000
PY
