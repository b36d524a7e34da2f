#!/usr/bin/env bash
# sqlite-vec: some filters on a column of the vector table act before the nearest are taken, some after, and some are refused.
# Guess, before running: whatever asks about such a column, LIKE as well as =, acts before the five nearest are taken.
# Seen (sqlite-vec 0.1.9, SQLite 3.54.1 through apsw 3.54.1.0): = , <> and IN act before and give five. LIKE and GLOB are an error.
# NOT IN and lower(...) act after, without a word: none of the five nearest is a cat, so the answer is empty.
# For us: names are folded when they are written, and a filter is = or IN; an empty answer is compared with the number that pass.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q sqlite-vec==0.1.9 apsw==3.54.1.0
"$folder/venv/bin/python" - <<'PY'
import struct

import apsw
import sqlite_vec

db = apsw.Connection(":memory:")
db.enable_load_extension(True)
db.load_extension(sqlite_vec.loadable_path())
db.execute("create virtual table photos using vec0(vector float[2], class text)")
for row in range(100):
    name = "cat" if row % 10 == 9 else "dog"
    db.execute("insert into photos (vector, class) values (?, ?)", (struct.pack("2f", row, 0), name))


def found(condition):
    query = f"select class from photos where vector match ? and k = 5 and {condition}"
    try:
        return len(list(db.execute(query, (struct.pack("2f", 0, 0),))))
    except apsw.SQLError as error:
        return str(error)[:40]


before = [found(each) for each in ("class = 'cat'", "class <> 'dog'", "class in ('cat')")]
after = [found(each) for each in ("class not in ('dog')", "lower(class) = 'cat'")]
refused = [found(each) for each in ("class like 'ca%'", "class glob 'ca*'")]
print("before:", before, "after:", after, "refused:", refused)
assert before == [5, 5, 5] and after == [0, 0] and all(str(each).startswith("An illegal WHERE") for each in refused)
PY
