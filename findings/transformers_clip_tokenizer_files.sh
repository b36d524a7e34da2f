#!/usr/bin/env bash
# transformers 5: a CLIP tokenizer that is given its two files by name reads neither, and says nothing.
# Guess, before running: CLIPTokenizerFast(vocab_file=..., merges_file=...) gives plain English the ids of the vocabulary.
# Seen (transformers 5.24.0): every text becomes a row of end-of-text tokens, so all texts have one vector;
# from_pretrained on the folder that holds the same two files is right.
# For us: tokenizers are opened by folder, and a known sentence is checked for known ids.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/pip" install -q --no-deps open_clip_torch==3.3.0  # for the file of CLIP's byte pairs
"$folder/venv/bin/python" - <<'PY'
import gzip
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path

from transformers import CLIPTokenizer, CLIPTokenizerFast

pairs = gzip.decompress(next(Path(p) for p in find_spec("open_clip").submodule_search_locations).joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes())
merges = pairs.decode().split("\n")[1 : 49152 - 256 - 2 + 1]
letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
signs = [chr(n) for n in letters] + [chr(256 + n) for n in range(256 - len(letters))]
words = [*signs, *(sign + "</w>" for sign in signs), *(line.replace(" ", "") for line in merges)]
vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
folder = Path(tempfile.mkdtemp())
(folder / "vocab.json").write_text(json.dumps(vocabulary))
(folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
by_name = CLIPTokenizerFast(vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt"))
by_folder = CLIPTokenizer.from_pretrained(folder)
text = "a photo of a cat"
named, right = (each(text, add_special_tokens=False)["input_ids"] for each in (by_name, by_folder))
print("by name", set(by_name.convert_ids_to_tokens(named)), "by folder", right)
assert set(by_name.convert_ids_to_tokens(named)) == {"<|endoftext|>"} and right == [320, 1125, 539, 320, 2368]
PY
