#!/usr/bin/env bash
# rank_bm25: in a small library a word that half of the captions hold finds nothing.
# Guess, before running: of two captions, the one that holds the word scores higher.
# Seen (rank-bm25 0.2.2): both score 0. The weight log((N - n + 0.5) / (n + 0.5)) is 0 where n is half of N, and below it the
# weight is replaced by a quarter of the average weight of all words, which may be 0 as well: two of three captions score 0 too.
# For us: tests on toy captions pass or fail by this; log(1 + N / n) has no such hole.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rank-bm25==0.2.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
from rank_bm25 import BM25Okapi

half = BM25Okapi([["a", "cat"], ["a", "dog"]]).get_scores(["cat"])
most = BM25Okapi([["cat", "sat"], ["cat", "ran"], ["dog", "ran"]]).get_scores(["cat"])
third = BM25Okapi([["cat"], ["dog"], ["cow"]]).get_scores(["cat"])
print("one of two", half, "two of three", most, "one of three", third)
assert not half.any() and not most.any() and third[0] > 0.5
PY
