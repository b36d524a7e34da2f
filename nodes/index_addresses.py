"""Which libraries are searched in a Milvus collection: said by the artist's own file, and by nothing that a workflow brings.

The file lies where no workflow, library or web page can write: `realrag.json` in ComfyUI's folder `user`. Without it nothing
here opens a connection.
"""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..realrag.errors import RealRAGError
from ..realrag.files import read_bounded
from ..realrag.stores.milvus import parse_address
from ..realrag.validation import strict_json

FILE, KEY = "realrag.json", "indexes"
MOST = 1 << 16  # bytes
EXAMPLE = '{"indexes": {"my-photos": "milvus://127.0.0.1:19530/my_photos"}}'


def index_address(bundle: str) -> str | None:
    """The address that the artist's file names for a listed bundle, or None. RealRAGError where the file is wrong."""
    path = Path(folder_paths.get_user_directory()) / FILE
    try:
        content = strict_json(read_bounded(path, MOST))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RealRAGError(f"{path} cannot be read ({error}). It holds, for example: {EXAMPLE}") from None
    named = content.get(KEY) if isinstance(content, dict) and set(content) == {KEY} else None
    if not isinstance(named, dict) or not all(isinstance(text, str) for text in named.values()):
        raise RealRAGError(
            f"{path} is not an object with the one field {KEY!r}, which has an address for each library. It holds, for example: "
            f"{EXAMPLE}"
        )
    address = named.get(bundle)
    if address is not None:
        parse_address(address)  # refused before anything is opened
    return address
