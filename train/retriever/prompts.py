"""The prompts of a library: a sentence for each class, and every caption of its photos."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from realrag.bundle.records import record_id
from realrag.errors import RealRAGError
from realrag.files import write_atomic
from realrag.photos.captions import Captions
from realrag.photos.scan import Candidate
from realrag.photos.walk import walk

from ..dataset import Prompt, class_key

# Words that begin with a vowel and take "a", and words that begin with a consonant and take "an".
A_YOU = re.compile(r"(?:uni(?!n)|use|usu|uten|ukulele|uk\b|us[ab]\b|euro|eu|ewe|one\b|once\b|ufo|urinal|ural\b|u-)")
AN_SILENT = re.compile(r"(?:hour|honest|honou?r|heir|x-?ray|mri\b|mp\d|8|11\b|18\b)")
SINGULAR = frozenset("gas canvas christmas atlas lens bias series species news chess swiss pancreas pyjamas".split())
SHUFFLED = 7  # seed of the captions that are kept where there are too many


class Photo(NamedTuple):
    id: str
    file: str
    class_name: str
    caption: str


@dataclass(frozen=True)
class Described:
    """A photo as the prompts see it. captions: all that is said of it beyond its class."""

    id: str
    class_name: str
    captions: tuple[str, ...]


def describe_photos(folder: Path, table: Path | None, photos: Iterable[Photo]) -> list[Described]:
    """What is said of the photos of a folder. Where all have one class, such as the folder `images`, they count as without."""
    photos = list(photos)
    words = Captions(folder, table, listing=walk(folder, archives=True))
    classed = len({class_key(photo.class_name) for photo in photos if photo.class_name}) > 1
    found = []
    for photo in photos:
        texts = dict.fromkeys([photo.caption, *words.further(photo.file)])
        plain = {class_key(photo.class_name), class_key(Path(photo.file).stem)}
        said = tuple(text for text in texts if text.strip() and class_key(text) not in plain)
        found.append(Described(photo.id, photo.class_name if classed else "", said))
    return found


def photos_of(candidates: Iterable[Candidate]) -> list[Photo]:
    return [Photo(record_id(c.sha256), c.file, c.credit.class_name, c.credit.caption) for c in candidates]


@dataclass(frozen=True)
class Wording:
    """How photos become prompts. template: of a class. articles: "an apple" and "bananas" in place of "a apple" and "a
    bananas". captions: they are prompts too. most: with more prompts than this, captions are left out by chance; 0 keeps
    all."""

    template: str = "a photo of a {}"
    articles: bool = True
    captions: bool = True
    most: int = 0

    def of_classes(self, names: Sequence[str]) -> list[Prompt]:
        return class_prompts(names, self.template, articles=self.articles)

    def library(self, photos: Sequence[Described]) -> list[Prompt]:
        """One prompt for each class, then the photos' captions: of the class, or of the photo where it has none.
        RealRAGError if the photos have neither classes nor captions."""
        prompts = self.of_classes(sorted({photo.class_name for photo in photos if photo.class_name}))
        captions = self._captions(photos, prompts)
        if not prompts and not captions:
            raise RealRAGError(
                "The photos have neither classes nor captions, so there is nothing to ask for. Sort them into one folder per "
                "class, or give --captions FILE with the columns file and caption."
            )
        return prompts + self._kept(captions, len(prompts))

    def asked(self, photos: Sequence[Described], trained: Sequence[Prompt]) -> list[Prompt]:
        """The questions for photos that were not trained on: the classes that they share with the prompts `trained`, in the
        same words, and the photos' own captions, without those that were trained on."""
        here = {class_key(photo.class_name) for photo in photos if photo.class_name}
        first: dict[str, Prompt] = {}
        for prompt in trained:
            if prompt.class_name and (key := class_key(prompt.class_name)) in here:
                first.setdefault(key, prompt)
        own = [photo for photo in photos if not photo.class_name or class_key(photo.class_name) in first]
        texts = {class_key(prompt.prompt) for prompt in trained}
        captions = [p for p in self._captions(own, list(first.values())) if class_key(p.prompt) not in texts]
        return [*first.values(), *self._kept(captions, len(first))]

    def _captions(self, photos: Sequence[Described], prompts: Sequence[Prompt]) -> list[Prompt]:
        """Every caption once for its class or photo, but those that are among `prompts`."""
        said = {(class_key(prompt.prompt), class_key(prompt.class_name)) for prompt in prompts}
        found = []
        for photo in photos if self.captions else ():
            for text in photo.captions:
                if (key := (class_key(text), class_key(photo.class_name) or photo.id)) not in said:
                    said.add(key)
                    found.append(Prompt(text, photo.class_name, "" if photo.class_name else photo.id))
        return found

    def _kept(self, captions: list[Prompt], others: int) -> list[Prompt]:
        if not self.most or len(captions) + others <= self.most:
            return captions
        keep = set(random.Random(SHUFFLED).sample(range(len(captions)), max(0, self.most - others)))
        return [prompt for at, prompt in enumerate(captions) if at in keep]


def class_prompts(classes: Sequence[str], template: str = "a photo of a {}", *, articles: bool = False) -> list[Prompt]:
    """One prompt per class, in order. The template is the paper's (sec. 3.1) in lower case. articles: its "a" before the
    class becomes what the name needs."""
    fill = with_article if articles else str.format
    return [Prompt(fill(template, spoken_class(name)), name) for name in classes]


def spoken_class(name: str) -> str:
    return " ".join(name.replace("-", " ").replace("_", " ").lower().split())


def with_article(template: str, name: str) -> str:
    """The template with the name: "a photo of a {}" and "apple" -> "a photo of an apple", "bananas" -> "a photo of
    bananas"."""
    form = article(name)
    return re.sub(r"\ba \{\}", f"{form} {{}}" if form else "{}", template).replace("{}", name)


def article(name: str) -> str:
    """ "a" or "an"; "" for a plural, and for a name that has an article."""
    first, *_ = name.casefold().split() or [""]
    last = re.sub(r"\W+$", "", name.casefold()).rpartition(" ")[2]
    if first in ("a", "an", "the", "some", "my") or is_plural(last):
        return ""
    if A_YOU.match(first):
        return "a"
    return "an" if (first[:1] in "aeiouäöüéèêáàâåøœæ" and first) or AN_SILENT.match(first) else "a"


def is_plural(word: str) -> bool:
    if word in SINGULAR or any(char.isdigit() for char in word) or len(word) < 4:
        return False
    return word.endswith("s") and not word.endswith(("ss", "us", "is", "'s"))


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    lines = [
        json.dumps({"prompt": p.prompt, "class": p.class_name} | ({"photo": p.photo} if p.photo else {}), ensure_ascii=False)
        for p in prompts
    ]  # fmt: skip
    write_atomic(path, ("\n".join(lines) + "\n").encode())
