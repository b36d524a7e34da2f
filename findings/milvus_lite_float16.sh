#!/usr/bin/env bash
# Milvus Lite: half-precision vectors, which Milvus keeps, are refused.
# Guess, before running: a field of FLOAT16_VECTOR is made and searched.
# Seen (pymilvus 3.0.2, milvus-lite 3.2.2): creating the collection raises, and the message lists what there is.
# For us: a schema is chosen by what the server takes, float32 at worst; tests on Lite cannot cover half precision.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pymilvus==3.0.2 milvus-lite==3.2.2 "setuptools<81"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import logging

from pymilvus import DataType, MilvusClient, MilvusException

logging.disable(logging.ERROR)
client = MilvusClient("photos.db")


def collection(name, kind):
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", kind, dim=16)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection(name, schema=schema, index_params=index)


try:
    collection("half", DataType.FLOAT16_VECTOR)
    raise SystemExit("half precision is taken now")
except MilvusException as error:
    print(error.message[:90])
    assert "does not support" in error.message
collection("single", DataType.FLOAT_VECTOR)
PY
