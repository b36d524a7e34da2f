#!/usr/bin/env bash
# pymilvus: making an index takes half a second, however small the collection and however near the server.
# Guess, before running: the half second that each test of a small store took was the closing of Milvus Lite's server; an index of
# no rows is there at once.
# Seen (pymilvus 3.0.2, milvus-lite 3.2.2): the client sleeps 0.5 s before it asks for the first time whether the index is there.
# With sync=False it returns in a few thousandths, and the index is finished when it is asked for at once; closing takes no time.
# For us: one wait per collection is nothing to an artist; tests that make many collections shorten that sleep.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pymilvus==3.0.2 milvus-lite==3.2.2 "setuptools<81"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import logging
import time

from pymilvus import DataType, MilvusClient

logging.disable(logging.ERROR)
client = MilvusClient("photos.db")


def made(name, **how):
    """(seconds that create_index took, state of the index right after it)"""
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
    client.create_collection(name, schema=schema)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    began = time.perf_counter()
    client.create_index(name, index, **how)
    took = time.perf_counter() - began
    return took, client.describe_index(name, "vector")["state"]


waited = [made(f"waited_{number}") for number in range(3)]
unwaited = [made(f"unwaited_{number}", sync=False) for number in range(3)]
began = time.perf_counter()
client.close()
closed = time.perf_counter() - began
print("create_index", waited, "with sync=False", unwaited, "close", closed)
assert min(took for took, _ in waited) >= 0.5
assert max(took for took, _ in unwaited) < 0.4 and closed < 0.4
assert {state for _, state in waited + unwaited} == {"Finished"}
PY
