#!/usr/bin/env bash
# Milvus Lite: filters with templates, which pymilvus offers for long lists and odd names, are refused.
# Guess, before running: filter="class in {names}" with filter_params={"names": [...]} works in lite as on a server, and saves
# quoting names that hold quotes and backslashes.
# Seen (pymilvus 3.0.2, milvus-lite 3.2.2): "unexpected character '{'". The same list written into the expression is taken.
# For us: photos are filtered by numbers made of their class and license, which need no quoting anywhere.
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
schema = MilvusClient.create_schema()
schema.add_field("id", DataType.INT64, is_primary=True)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
schema.add_field("class", DataType.VARCHAR, max_length=100)
index = client.prepare_index_params()
index.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_collection("photos", schema=schema, index_params=index)
client.insert("photos", [{"id": n, "vector": [1, 0, 0, n], "class": "cat" if n % 2 else "dog"} for n in range(10)])
found = client.query("photos", filter='class in ["cat"]', output_fields=["id"])
print("written out:", len(found))
assert len(found) == 5
try:
    client.query("photos", filter="class in {names}", filter_params={"names": ["cat"]}, output_fields=["id"])
    raise SystemExit("templates are taken now")
except MilvusException as error:
    print("as a template:", error.message.splitlines()[0])
    assert "unexpected character '{'" in error.message
PY
