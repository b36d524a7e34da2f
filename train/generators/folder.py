"""Finished pictures as a generator: FOLDER/<prompt or class>/*.png, the n-th by name for seed n."""

from __future__ import annotations

from pathlib import Path

from realrag.files import canonical_json, sha256_bytes
from realrag.photos.decode import decode, read_bytes
from realrag.photos.scan import photo_files

from ..dataset import class_key
from .errors import GeneratorError


class DrawnFolder:
    """One sub-folder per prompt, named after the prompt or its class; '-', '_' and case do not matter.

    classes: {prompt: class}. label: the name of what drew the pictures, for the metadata.
    """

    def __init__(self, folder: Path, classes: dict[str, str], label: str = ""):
        self._folder, self._classes = Path(folder), classes
        if not self._folder.is_dir():
            raise GeneratorError(f"No folder {folder}. Give the folder of the pictures.")
        self._pictures: dict[str, list[str]] = {}
        for file in photo_files(self._folder):
            self._pictures.setdefault(class_key(Path(file).parent.name), []).append(file)
        found = [(file, (self._folder / file).stat()) for files in self._pictures.values() for file in files]
        digest = sha256_bytes(canonical_json([[file, stat.st_size, stat.st_mtime_ns] for file, stat in found]))
        self.metadata = {"name": label or f"pictures in {self._folder.name}", "pictures": digest}

    def draw(self, prompt: str, seed: int):
        files = (
            self._pictures.get(class_key(prompt)) or self._pictures.get(class_key(self._classes.get(prompt, ""))) or []
        )
        if seed >= len(files):
            raise GeneratorError(
                f"{self._folder} has {len(files)} pictures for {prompt!r}, seed {seed} needs {seed + 1}. Put them into the "
                f"sub-folder {self._classes.get(prompt) or prompt!r}, or lower `seeds`."
            )
        return decode(read_bytes(self._folder / files[seed]), files[seed])
