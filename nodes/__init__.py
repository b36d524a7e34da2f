"""RealRAG's nodes: the table of contents."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..realrag.miniature.files import families_there
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
        nodes = [
            LoadReflectiveRetriever,
            RetrieveRealReferences,
            EditReferences,
            LoadReferenceAdapter,
            InjectReferences,
            SaveReferencePack,
            LoadReferencePack,
        ]
        # Where no miniature's weights are in the package, a node that loads them could only say so.
        return [*nodes, LoadMiniature] if families_there() else nodes


async def comfy_entrypoint() -> RealRAGExtension:
    return RealRAGExtension()
