#!/usr/bin/env bash
# faiss: searching lists that the caller chose takes no selector from Python, although its documentation says so.
# Guess, before running: search_preassigned(..., params=SearchParametersIVF(sel=...)) filters as search does; its docstring lists
# params as "Search parameters of the current search (overrides the class-level params)".
# Seen (faiss-cpu 1.15.1): AssertionError "params not supported". The same call of C++, kept under the name with "_c", takes them
# and filters.
# For us: a filtered search in lists of our own choice goes through that name, with a test that would show a change.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q faiss-cpu==1.15.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import faiss
import numpy as np

rows = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)
index = faiss.index_factory(64, "IVF40,Flat", faiss.METRIC_INNER_PRODUCT)
index.train(rows)
index.add(rows)
index.nprobe = 40
query, params = rows[:1], faiss.SearchParametersIVF(nprobe=40, sel=faiss.IDSelectorRange(100, 200))
wanted = index.search(query, 5, params=params)[1]
scores, lists = index.quantizer.search(query, 40)
assert "Search parameters of the current search" in index.search_preassigned.__doc__
try:
    index.search_preassigned(query, 5, lists, scores, params=params)
    said = "taken"
except AssertionError as error:
    said = str(error)
distances, found = np.empty((1, 5), np.float32), np.empty((1, 5), np.int64)
index.search_preassigned_c(1, *map(faiss.swig_ptr, [query]), 5, *map(faiss.swig_ptr, (lists, scores, distances, found)), False, params)
print("by Python:", said, "| by C++:", found.tolist(), "| by search:", wanted.tolist())
assert said == "params not supported" and found.tolist() == wanted.tolist() and ((found >= 100) & (found < 200)).all()
PY
