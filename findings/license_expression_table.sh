#!/usr/bin/env bash
# license-expression: get_spdx_licensing() reads and indexes the whole list of SPDX whenever it is called.
# Guess, before running: what is called "get" and takes no argument gives the same object each time, as the list ships with the
# package and never changes.
# Seen (license-expression 30.4.4): each call makes a new object, hundreds of times as long as it takes to parse a license by it.
# For us: it is asked once for a process. Before, each new spelling of a license in a folder of photos cost 20 ms.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q license-expression==30.4.4
"$folder/venv/bin/python" - <<'PY'
import time
from statistics import median

from license_expression import get_spdx_licensing


def seconds(work, times):
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return median(taken)


one, other = get_spdx_licensing(), get_spdx_licensing()
assert one is not other and one.known_symbols.keys() == other.known_symbols.keys()
assert str(one.parse("CC-BY-4.0 and MIT", validate=True)) == "CC-BY-4.0 AND MIT"
parsing = seconds(lambda: one.parse("CC-BY-4.0 and MIT", validate=True), 50)
making = seconds(get_spdx_licensing, 5)
print(f"parse {parsing * 1000:.3f} ms, get_spdx_licensing {making * 1000:.1f} ms, {making / parsing:.0f} times")
assert making > 30 * parsing
PY
