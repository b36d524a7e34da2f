#!/usr/bin/env bash
# usearch: where several questions get fewer answers than asked for, the gap is filled with key 0.
# Guess, before running: two questions for ten of three vectors give three keys each, or ten with a mark such as the greatest
# number in the others, since the one question alone gives three.
# Seen (usearch 2.26.6): ten keys each, seven of them 0, a key like any other; only `counts`
# says 3. One question alone gives three keys.
# For us: whoever reads `keys` of a batch shows photo 0 seven times.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q usearch==2.26.6 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from usearch.index import Index

index = Index(ndim=8, metric="cos")
index.add(np.arange(3, 6), np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32))
one, two = index.search(np.ones(8, np.float32), 10), index.search(np.ones((2, 8), np.float32), 10)
print("one:", one.keys.tolist())
print("two:", two.keys.tolist(), two.counts.tolist())
assert sorted(one.keys.tolist()) == [3, 4, 5]
assert (two.keys[:, 3:] == 0).all() and two.keys.shape == (2, 10) and two.counts.tolist() == [3, 3]
PY
