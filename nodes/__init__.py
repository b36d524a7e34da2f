"""RealRAG's nodes: the table of contents."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import folders
from .edit_references import EditReferences
from .inject import InjectReferences
from .load_adapter import LoadReferenceAdapter
from .load_miniature import LoadMiniature
from .load_retriever import LoadReflectiveRetriever
from .pack_nodes import LoadReferencePack, SaveReferencePack
from .retrieve import RetrieveRealReferences

folders.register()


class RealRAGExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadReflectiveRetriever,
            RetrieveRealReferences,
            EditReferences,
            LoadReferenceAdapter,
            InjectReferences,
            SaveReferencePack,
            LoadReferencePack,
            LoadMiniature,
        ]


async def comfy_entrypoint() -> RealRAGExtension:
    return RealRAGExtension()
