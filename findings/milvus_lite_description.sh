#!/usr/bin/env bash
# Milvus Lite: the description of a collection is lost, its properties are kept.
# Guess, before running: both are given back by describe_collection, so that either can say which library and encoder the
# vectors are of.
# Seen (pymilvus 3.0.2, milvus-lite 3.2.2): the description comes back empty at once; properties of one's own are there, also after
# they were changed and the file was opened again.
# For us: what a collection was made of stands in its properties.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pymilvus==3.0.2 milvus-lite==3.2.2 "setuptools<81"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import logging

from pymilvus import DataType, MilvusClient

logging.disable(logging.ERROR)
client = MilvusClient("photos.db")
schema = MilvusClient.create_schema(description="CLIP ViT-L/14")
schema.add_field("id", DataType.INT64, is_primary=True)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
index = client.prepare_index_params()
index.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_collection("photos", schema=schema, index_params=index, properties={"encoder": "none yet"})
client.alter_collection_properties("photos", properties={"encoder": "CLIP ViT-L/14"})
client.close()
about = MilvusClient("photos.db").describe_collection("photos")
print("given:", schema.description, "| described:", repr(about["description"]), "| properties:", about["properties"])
assert schema.description == "CLIP ViT-L/14" and about["description"] == ""
assert about["properties"] == {"encoder": "CLIP ViT-L/14"}
PY
