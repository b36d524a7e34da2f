"""The types that run along the wires between our nodes, once for all rooms."""

from __future__ import annotations

from comfy_api.latest import io

RetrieverSocket = io.Custom("REALRAG_RETRIEVER")
ReferencesSocket = io.Custom("REALRAG_REFERENCES")
AdapterSocket = io.Custom("REALRAG_ADAPTER")
PackSocket = io.Custom("REALRAG_PACK")
SettingsSocket = io.Custom("REALRAG_SETTINGS")
