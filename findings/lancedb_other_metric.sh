#!/usr/bin/env bash
# LanceDB: a search by another metric than the index's reads every vector, and gives an answer all the same.
# Guess, before running: an index of L2 asked for cosine raises an error that names both.
# Seen (lancedb 0.40.0): the answer comes, exact and by cosine; the plan says that all rows were compared, and nothing but a line
# in the log of the library tells. Asked without a metric, the index's own is used.
# For us: who changes the metric of a query measures how long it takes; for vectors of unit length both metrics rank alike.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lancedb==0.40.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/db" <<'PY'
import sys

import lancedb
import numpy as np

vectors = np.random.default_rng(0).normal(size=(10_000, 32)).astype("float32")
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
db = lancedb.connect(sys.argv[1])
table = db.create_table("photos", [{"id": row, "vector": vector} for row, vector in enumerate(vectors)])
table.create_index(metric="l2", num_partitions=16, num_sub_vectors=8, index_type="IVF_PQ")


def asked(*metric):
    query = table.search(vectors[5])
    query = query.distance_type(*metric) if metric else query
    plan = query.limit(3).explain_plan()
    return [row["id"] for row in query.limit(3).to_list()], "ANNIvfPartition" in plan


default, l2, cosine = asked(), asked("l2"), asked("cosine")
print("answer and whether the index was used: default", default, "l2", l2, "cosine", cosine)
assert default[1] and l2[1] and not cosine[1]
assert cosine[0] == np.argsort(-(vectors @ vectors[5]), kind="stable")[:3].tolist()
PY
