#!/usr/bin/env bash
# faiss: a file that faiss wrote is not read under a byte limit of its own size.
# Guess, before running: set_deserialization_vector_byte_limit(size of the file) lets every whole file of faiss through, as no
# vector in it can be larger.
# Seen (faiss-cpu 1.15.1): an inverted file of product codes is refused. Before it reads the codes, faiss asks for room for a
# table of lists x parts x codes x 4 bytes, which it keeps for L2 alone; the index is of inner products and makes none.
# For us: the limit that guards a small library's index is its size and that table's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q faiss-cpu==1.15.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import os
import faiss
import numpy as np

rows = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)
index = faiss.IndexIVFPQ(faiss.IndexFlatIP(64), 64, 60, 32, 4, faiss.METRIC_INNER_PRODUCT)
index.train(rows)
index.add(rows)
assert index.precomputed_table.size() == 0
faiss.write_index(index, "index.faiss")
size, table = os.path.getsize("index.faiss"), 60 * 32 * 16 * 4
read = {}
for name, limit in (("its size", size), ("its size and the table's", size + table + 64)):
    faiss.set_deserialization_vector_byte_limit(limit)
    try:
        read[name] = faiss.read_index("index.faiss").ntotal
    except RuntimeError as error:
        read[name] = "precomputed_table" in str(error) and "refused for the table"
print(size, table, read)
assert read == {"its size": "refused for the table", "its size and the table's": 4000}
PY
