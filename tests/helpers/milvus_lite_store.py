"""An address of a store in a folder of milvus-lite; tests that ask for one are skipped where it is not installed."""

import pytest


def lite_address(folder, collection="photos"):
    pytest.importorskip("pymilvus", reason="pymilvus is not installed: pip install 'realrag[milvus]'")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed: pip install 'realrag[milvus]'")
    return f"milvus-lite:{folder}/store.db#{collection}"
