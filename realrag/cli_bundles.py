"""The commands on a whole bundle: realrag heads, push, pull."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def bar(text: str, unit: str = "photo"):
    """A progress bar on standard error as a `progress(done, total)` callback; silent where nobody watches."""
    from tqdm import tqdm

    with tqdm(desc=text, unit=f" {unit}", file=sys.stderr, disable=None, leave=False) as line:

        def progress(done: int, total: int) -> None:
            line.total = total
            line.update(done - line.n)

        yield progress


def heads(args) -> int:
    from .build_heads import change_heads, heads_by_name
    from .bundle import read_manifest
    from .heads import generator_of

    manifest = read_manifest(args.bundle)
    if args.add or args.remove or args.first:
        manifest = change_heads(args.bundle, heads_by_name(args.add, manifest.dim), args.remove, args.first)
    if args.json:
        print(json.dumps({"id": manifest.id, "heads": {head.name: head.facts for head in manifest.heads}}, ensure_ascii=False))
        return 0
    for number, head in enumerate(manifest.heads):
        made_for = generator_of(head.facts) or "a generator it does not name"
        print(f"{head.name}: trained for {made_for}{', the default' if not number else ''}")
    print(f"{args.bundle}: {len(manifest.heads) or 'no'} heads over {manifest.count} photos, bundle {manifest.id[:12]}")
    return 0


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """command(name, run, text, example) makes a sub-command's parser."""
    one = command(
        "heads", heads, "Say which heads a bundle has, put some in or take some out; no photo is encoded.",
        "realrag heads my-photos --add flux=flux/head.safetensors --add sd35=sd35/head.safetensors --first flux",
    )  # fmt: skip
    one.add_argument("bundle", type=Path)
    one.add_argument(
        "--add", action="append", default=[], metavar="[NAME=]FILE", help="a head; without NAME it has its generator's name"
    )
    one.add_argument("--remove", action="append", default=[], metavar="NAME")
    one.add_argument("--first", default="", metavar="NAME", help="the head that answers where nobody chooses one")
    one.add_argument("--json", action="store_true", help="print JSON and nothing else")
