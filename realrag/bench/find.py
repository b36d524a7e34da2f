"""`realrag bench find`: how often the right photo comes first, by name, caption and look; and the cost of the word search.

On any bundle with classes, the prompts are its class names alone, among quality tags, in 54 and in 299 words, and two at
a time; phrases about unrelated subjects test whether they are refused. With --rows: the time of a hybrid query over that
of a vector query on a seeded library with captions, in turns, as medians of the time until the answer (words are looked up
while the vectors are searched) and of CPU time. On a busy machine only the latter means something.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..doubt import Level, measure_level
from ..errors import QueryError
from ..prompts.words import read_list, words
from ..search.hybrid import BOTH, LOOK, rank

if TYPE_CHECKING:  # the commands' help comes without loading torch
    from ..references import References
    from ..retriever import Retriever

TAGS = "masterpiece, best quality, (highly detailed:1.2), 8k, sharp focus, {}, cinematic lighting, trending on artstation, raw photo"
SENTENCES = (
    "The mood is calm and quiet and everything seems to wait for something that nobody can name",
    "Soft light falls from the left and slowly turns warmer toward the edges of the frame",
    "The composition is balanced and leaves a lot of empty space above and below",
    "It was made early in the morning when everything was still and the air was cold",
    "Nothing distracts from what matters most and the background fades into a gentle blur",
    "The tones are muted and natural without any strong contrast or artificial saturation",
    "A slight haze makes distant parts look pale and gives a feeling of great depth",
    "The overall impression is honest and simple as if someone had just happened to pass by",
)
SHORT, LONG = 54, 299  # words of the two long prompts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", type=Path, help="a bundle with classes (default: the shipped one)")
    parser.add_argument("--rows", type=int, default=0, help="time a seeded library of this many photos instead")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="folder for the files of --rows (default: a temporary one)")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run(args) -> dict:
    if args.rows:
        return measure_time(args.rows, args.dim, args.queries, args.seed, args.scratch)
    from ..files import default_cache
    from ..retriever import Retriever, shipped_bundle

    return measure_answers(Retriever.open(args.bundle or shipped_bundle(), cache=default_cache()), args.seed)


def long_prompt(name: str, length: int) -> str:
    """The name in the middle of a prompt of `length` words that name nothing else."""
    filler = itertools.cycle(SENTENCES)
    text: list[str] = []
    while len(text) < length:
        text += [*next(filler).split()]
    text = text[: length - len(name.split()) - 3]
    return " ".join([*text[: length // 2], "There", "is", "a", name + ".", *text[length // 2 :]])


def measure_answers(retriever: Retriever, seed: int = 0) -> dict:
    """Fractions over the classes of a library, each ranked by look alone and by names, captions and look."""
    records = retriever.bundle.records
    codes = [code for code, name in enumerate(records.classes) if name.strip()]
    if len(codes) < 2:
        raise QueryError(
            "This library has fewer than two classes, so answers cannot be scored. Choose another library."
        )
    names = {code: " ".join(records.classes[code].replace("-", " ").replace("_", " ").split()) for code in codes}
    ways: dict[str, str | Callable[[str], str]] = {
        "class names": "{}",
        "in 8 quality tags": TAGS,
        f"in {SHORT} words": lambda name: long_prompt(name, SHORT),
        f"in {LONG} words": lambda name: long_prompt(name, LONG),
    }
    found: dict[str, dict[str, float]] = {}
    for way, form in ways.items():
        ask: Callable[[str], str] = form.format if isinstance(form, str) else form
        found[way] = {
            by: float(np.mean([_is(retriever, _first(retriever, ask(names[code]), by), {code}) for code in codes]))
            for by in (LOOK, BOTH)
        }
    found["class names, five photos"] = {
        by: float(np.mean([_fraction(retriever, code, names[code], by) for code in codes])) for by in (LOOK, BOTH)
    }
    rng = np.random.Generator(np.random.PCG64(seed))
    pairs = [(code, codes[int(other)]) for code, other in zip(codes, rng.permutation(len(codes)), strict=True)]
    pairs = [pair for pair in pairs if names[pair[0]] != names[pair[1]]]
    forms = itertools.cycle(("a {} next to a {}", "{} and {}", "a {}, a {}"))
    asked = [(form.format(names[a], names[b]), a, b) for form, (a, b) in zip(forms, pairs, strict=False)]
    found["two classes in one prompt, both in four photos"] = {
        by: float(np.mean([_both(retriever, text, a, b, by) for text, a, b in asked])) for by in (LOOK, BOTH)
    }
    return {
        "photos": len(records),
        "classes": len(codes),
        "first photo right": found,
        "mean average precision": {by: _mean_precision(retriever, codes, names, by) for by in (LOOK, BOTH)},
        "doubt": _doubt(retriever, codes, names),
        "level": retriever.level.as_json(),
    }


def _first(retriever: Retriever, text: str, by: str) -> References:
    return retriever.search(text, k=1, find_by=by, min_score=None)


def _is(retriever: Retriever, answer: References, codes: set[int]) -> bool:
    wanted = {retriever.bundle.records.classes[code] for code in codes}
    return any(item.class_name in wanted for item in answer.items)


def _fraction(retriever: Retriever, code: int, name: str, by: str) -> float:
    """Fraction of the first five photos (fewer if the class has fewer) that show the class."""
    count = min(5, int((retriever.bundle.records.class_codes == code).sum()))
    answer = retriever.search(name, k=count, find_by=by, min_score=None)
    return sum(item.class_name == retriever.bundle.records.classes[code] for item in answer.items) / count


def _both(retriever: Retriever, text: str, a: int, b: int, by: str) -> bool:
    answer = retriever.search(text, k=4, find_by=by, min_score=None)
    return _is(retriever, answer, {a}) and _is(retriever, answer, {b})


def _mean_precision(retriever: Retriever, codes: list[int], names: dict[int, str], by: str) -> float:
    """Mean average precision of "a photo of a NAME" over the full ranking of the library."""
    every, values = len(retriever.bundle.records), []
    for code in codes:
        text = f"a photo of a {names[code]}"
        query = retriever.query([text])
        if by == LOOK:
            rows = retriever.index.search(query, every)[1][0]
        else:
            rows = rank(retriever.index, retriever.vectors, retriever.lexicon, query[0], text, every).rows
        right = retriever.bundle.records.class_codes[rows] == code
        values.append(float((right.cumsum() / np.arange(1, len(right) + 1))[right].mean()))
    return float(np.mean(values))


def _doubt(retriever: Retriever, codes: list[int], names: dict[int, str]) -> dict:
    """Counts of refused and kept prompts, with a level measured on the other half of class names and phrases, for both
    halves in turn."""
    phrases = [
        phrase for phrase in read_list("unrelated.txt") if not any(map(retriever.lexicon.knows, _telling(phrase)))
    ]
    refused, kept, asked = 0, 0, 0
    level = retriever.level
    for half in (0, 1):
        retriever.level = _level_of(retriever, codes[1 - half :: 2], phrases[1 - half :: 2])
        for phrase in phrases[half::2]:
            refused += not retriever.search(phrase, k=1).items
            asked += 1
        kept += sum(bool(retriever.search(names[code], k=1).items) for code in codes[half::2])
    retriever.level = level
    return {"absent": asked, "refused": refused, "present": len(codes), "kept": kept}


def _telling(phrase: str) -> list[str]:
    from ..prompts.words import function_words

    return [word for word in words(phrase) if word not in function_words()]


def _level_of(retriever: Retriever, codes: list[int], phrases: list[str]) -> Level:
    records = retriever.bundle.records
    classes = [name if code in set(codes) else "" for code, name in enumerate(records.classes)]
    from ..bundle.bundle import unit_rows
    from ..library import captions_to_ask

    return measure_level(
        lambda texts: unit_rows(retriever.encoder.encode_texts(texts).numpy()), retriever.vectors, classes,
        records.class_codes, captions_to_ask(records)[::2], lambda word: False, phrases=phrases,
    )  # fmt: skip


# The cost of the word search


def measure_time(rows: int, dim: int, queries: int, seed: int, scratch: Path | None) -> dict:
    """Seeded vectors and captions of 22 words: build time and size of the word lists, and hybrid over vector time."""
    import torch

    from ..search.index import open_index
    from ..search.lexicon import Lexicon
    from .clustered_vectors import clustered_vectors, text_queries

    torch.set_num_threads(1)
    vectors = clustered_vectors(rows, dim, seed=seed)
    asked = text_queries(queries, dim, seed=seed)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        index = open_index(vectors, Path(scratch or folder), f"find-{rows}-{dim}-{seed}")
        begun = time.process_time()
        lexicon = Lexicon([""], np.zeros(rows, np.int32), lambda: captions(rows, seed), "seeded", Path(folder))
        build = time.process_time() - begun
        size = sum(path.stat().st_size for path in Path(folder).rglob("words.*"))
        plain = _captions_alone(rows, seed)
        prompts = {count: list(_prompts(count, queries, seed)) for count in (2, 10, 60)}
        times: dict[str, list[tuple[float, float]]] = {"vectors": [], **{f"{count} words": [] for count in prompts}}
        for number in range(queries):
            query = asked[number]
            index.search(query[None], 32)  # untimed: who asks first would pay for reading the lists
            times["vectors"].append(_times(lambda: index.search(query[None], 32)))
            for count, texts in prompts.items():
                text = texts[number]
                times[f"{count} words"].append(_times(lambda: rank(index, vectors, lexicon, query, text, 32)))
    waited, cpu = (
        {name: float(np.median(values, axis=0)[which]) for name, values in times.items()} for which in (0, 1)
    )
    return {
        "rows": rows,
        "dim": dim,
        "index": index.kind,
        "build_s": build - plain,
        "megabytes": size / 1e6,
        "vector_ms": 1000 * waited["vectors"],
        "over_vectors": {name: value / waited["vectors"] for name, value in waited.items() if name != "vectors"},
        "cpu_over_vectors": {name: value / cpu["vectors"] for name, value in cpu.items() if name != "vectors"},
    }


def _times(work: Callable) -> tuple[float, float]:
    """Seconds until it is done, and CPU seconds of all threads."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - cpu


VOCABULARY = 60_000


def _ranks(rng: np.random.Generator, shape) -> np.ndarray:
    """Word numbers of a Zipf-like distribution over the vocabulary."""
    return np.minimum((VOCABULARY ** rng.random(shape)).astype(np.int64) - 1, VOCABULARY - 1)


def captions(rows: int, seed: int):
    """22 words each, Zipf-distributed, as seeded words "wa", "wb", ..."""
    names = [spelled(number) for number in range(VOCABULARY)]
    rng = np.random.Generator(np.random.PCG64((seed, 3)))
    for start in range(0, rows, 10_000):
        for line in _ranks(rng, (min(10_000, rows - start), 22)).tolist():
            yield " ".join([names[number] for number in line])


def spelled(number: int) -> str:
    letters = ""
    while True:
        number, digit = divmod(number, 20)
        letters += "bcdfghjklmnpqrtvwxyz"[digit] + "aeiou"[digit % 5]
        if not number:
            return letters + "n"


def _prompts(count: int, queries: int, seed: int):
    rng = np.random.Generator(np.random.PCG64((seed, 4, count)))
    for line in _ranks(rng, (queries, count)).tolist():
        yield " ".join(map(spelled, line))


def _captions_alone(rows: int, seed: int) -> float:
    """CPU seconds of generating the captions, which are subtracted from the build time."""
    begun = time.process_time()
    for _ in captions(rows, seed):
        pass
    return time.process_time() - begun


def format_report(result: dict) -> str:
    if "rows" in result:
        over, cpu = (
            ", ".join(f"{name} {value:.2f} x" for name, value in result[key].items())
            for key in ("over_vectors", "cpu_over_vectors")
        )
        return (
            f"{result['rows']:,} photos of {result['dim']} dimensions ({result['index']}), captions of 22 words\n"
            f"word lists: {result['build_s']:.1f} CPU s to build, {result['megabytes']:.0f} MB\n"
            f"a vector query takes {result['vector_ms']:.2f} ms; a hybrid query over it: {over}\n"
            f"CPU time of both threads over it: {cpu}"
        )
    lines = [f"{result['photos']} photos, {result['classes']} classes", f"{'asked':<50}{'by look':>9}{'hybrid':>9}"]
    rows = {**result["first photo right"], "mAP of class names over all photos": result["mean average precision"]}
    lines += [f"{way:<50}{fractions[LOOK]:>9.3f}{fractions[BOTH]:>9.3f}" for way, fractions in rows.items()]
    doubt = result["doubt"]
    lines.append(
        f"{doubt['refused']} of {doubt['absent']} absent things refused, {doubt['kept']} of {doubt['present']} present ones "
        "kept, by a level measured on the other half"
    )
    return "\n".join(lines)
