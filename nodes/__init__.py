"""RealRAG's nodes: the table of contents."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..realrag.miniature.files import families_there
from . import folders
from .credits import prompt_metadata
from .credits.add_credits import AddCredits
from .injection.inject import InjectReferences
from .injection.inject_settings import InjectSettings
from .injection.load_adapter import LoadReferenceAdapter
from .injection.save_and_load_pack import LoadReferencePack, SaveReferencePack
from .library.build_library import BuildReferenceLibrary
from .library.library_info import LibraryInfo
from .miniature.load_miniature import LoadMiniature
from .retrieval.check_references import CheckAgainstReferences
from .retrieval.edit_references import EditReferences
from .retrieval.load_retriever import LoadReflectiveRetriever
from .retrieval.retrieve import RetrieveRealReferences

folders.register()
prompt_metadata.register()


class RealRAGExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        nodes = [
            LoadReflectiveRetriever,
            RetrieveRealReferences,
            EditReferences,
            CheckAgainstReferences,
            BuildReferenceLibrary,
            LibraryInfo,
            LoadReferenceAdapter,
            InjectReferences,
            InjectSettings,
            SaveReferencePack,
            LoadReferencePack,
            AddCredits,
        ]
        # Where no miniature's weights are in the package, a node that loads them could only say so.
        return [*nodes, LoadMiniature] if families_there() else nodes


async def comfy_entrypoint() -> RealRAGExtension:
    return RealRAGExtension()
