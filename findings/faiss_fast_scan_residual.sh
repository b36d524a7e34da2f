#!/usr/bin/env bash
# faiss: product codes in lists are of residuals in one class and of whole vectors in its fast twin.
# Guess, before running: IndexIVFPQFastScan made with the arguments of IndexIVFPQ codes the same thing, what is left of a vector
# after its list's center, and answers as well.
# Seen (faiss-cpu 1.15.1): by_residual is True in IndexIVFPQ and False in IndexIVFPQFastScan; in index_factory "PQ32x4fs" is whole
# and "PQ32x4fsr" residual. On vectors that lie close round their centers the ten best are found less than half as often.
# For us: say by_residual, whichever class it is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q faiss-cpu==1.15.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import faiss
import numpy as np

rng = np.random.default_rng(0)
centers = rng.standard_normal((40, 64))
rows = centers[rng.integers(0, 40, 8000)] + 0.2 * rng.standard_normal((8000, 64))
rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
right = np.argsort(-(rows[:200] @ rows.T), axis=1)[:, :10]
recall = {}
for kind in (faiss.IndexIVFPQ, faiss.IndexIVFPQFastScan):
    for residual in (None, True):
        index = kind(faiss.IndexFlatIP(64), 64, 40, 32, 4, faiss.METRIC_INNER_PRODUCT)
        said = index.by_residual
        if residual is not None:
            index.by_residual = residual
        index.train(rows)
        index.add(rows)
        index.nprobe = 40
        found = index.search(rows[:200], 10)[1]
        recall[kind.__name__, residual] = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, right)])
        print(kind.__name__, "by_residual as made:", said, "set to:", residual, "recall:", recall[kind.__name__, residual])
assert faiss.IndexIVFPQ(faiss.IndexFlatIP(64), 64, 40, 32, 4, faiss.METRIC_INNER_PRODUCT).by_residual
assert not faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(64), 64, 40, 32, 4, faiss.METRIC_INNER_PRODUCT).by_residual
assert recall["IndexIVFPQFastScan", None] < 0.75 * recall["IndexIVFPQFastScan", True]
PY
