#!/usr/bin/env bash
# Milvus Lite: AUTOINDEX answers a filter with fewer photos than pass it.
# Guess, before running: AUTOINDEX is exact for a few thousand rows, so of 1,000 photos that pass a filter 400 are found.
# Seen (pymilvus 3.0.2, milvus-lite 3.2.2, faiss-cpu 1.15.1): once the rows are flushed, some queries get about 75. AUTOINDEX is then
# a graph (faiss HNSW), a second after the flush, that stops where the photos that pass are not neighbors of each other. FLAT gives 400, as AUTOINDEX did before
# the flush. Nothing in the answer says that it is short.
# For us: FLAT or lists in place of AUTOINDEX; and where a store gives fewer than could be, they are compared here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pymilvus==3.0.2 milvus-lite==3.2.2 faiss-cpu==1.15.1 numpy==2.4.6 "setuptools<81"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import logging
import time

import numpy as np
from pymilvus import DataType, MilvusClient

logging.disable(logging.ERROR)
client, rng = MilvusClient("photos.db"), np.random.default_rng(0)
topics, mean = rng.standard_normal((40, 24)), 3 * rng.standard_normal(24)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


photos = unit(mean + topics[rng.integers(0, 40, 3000)] + 0.7 * rng.standard_normal((3000, 24)))
queries = unit(topics + 0.7 * rng.standard_normal((40, 24)))


def fewest(name, kind, flush):
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=24)
    schema.add_field("license", DataType.INT64)
    index = client.prepare_index_params()
    index.add_index("vector", index_type=kind, metric_type="IP")
    client.create_collection(name, schema=schema, index_params=index)
    client.insert(name, [{"id": n, "vector": row, "license": n % 3} for n, row in enumerate(photos)])
    if flush:
        client.flush(name)
    passing = client.query(name, filter="license == 0", output_fields=["count(*)"])[0]["count(*)"]
    assert passing == 1000
    for _ in range(20):  # seconds: the graph comes a moment after the flush, although describe_index says Finished at once
        count = min(map(len, client.search(name, list(queries), limit=400, filter="license == 0")))
        if count < 400:
            break
        time.sleep(1)
    return count


found = {
    "AUTOINDEX, before the flush": fewest("a", "AUTOINDEX", False),
    "AUTOINDEX, after the flush": fewest("b", "AUTOINDEX", True),
    "FLAT, after the flush": fewest("c", "FLAT", True),
}
for name, count in found.items():
    print(f"{name}: at least {count} of 400, 1,000 pass")
before, after, flat = found.values()
assert before == flat == 400 and after < 200
PY
