"""The commands on a whole bundle: realrag heads, push, pull, serve-index."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from ..bundle.head_entries import AUTO
from ..errors import HubError
from ..stores.milvus import HOW, INDEXES
from .output import say, say_json


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
    from ..bundle.bundle import read_manifest
    from ..bundle.edit_heads import change_heads, heads_by_name
    from ..bundle.head_entries import generator_of

    manifest = read_manifest(args.bundle)
    if args.add or args.remove or args.first:
        manifest = change_heads(args.bundle, heads_by_name(args.add, manifest.dim), args.remove, args.first)
    if args.json:
        metadata = {"id": manifest.id, "heads": {head.name: head.metadata for head in manifest.heads}}
        say_json(metadata)
        return 0
    for number, head in enumerate(manifest.heads):
        made_for = generator_of(head.metadata) or "a generator it does not name"
        say(f"{head.name}: trained for {made_for}{', the default' if not number else ''}")
    count = len(manifest.heads)
    say(
        f"{args.bundle}: {count or 'no'} head{'s' * (count != 1)} over {manifest.count} photos, bundle {manifest.id[:12]}"
    )
    return 0


def pull(args) -> int:
    from ..hub.pull import pull as run

    with bar("fetching", "byte") as progress:
        manifest = run(args.repo, args.revision, args.out, largest=int(args.max_gb * 1e9), progress=progress)
    encoder = manifest.encoder["name"]
    say(f"{args.out}: {manifest.count} photos, encoder {encoder}, bundle {manifest.id[:12]}, every file right.")
    return 0


def push(args) -> int:
    from ..bundle.bundle import Bundle
    from ..files import default_cache
    from ..hub.push import push as run
    from ..validation import strict_json

    evaluation = None
    if args.evaluation:
        try:
            evaluation = strict_json(args.evaluation.read_bytes())
        except ValueError as error:
            raise HubError(
                f"{args.evaluation} is not valid JSON ({error}). Give the trainer's evaluate.json."
            ) from None
    with bar("checking", "byte") as progress:
        bundle = Bundle(args.bundle, default_cache(), progress)
    made = run(bundle, args.repo, public=args.public, evaluation=evaluation)
    who = "private" if made.private else "public"
    say(f"{made.url}: {bundle.manifest.count} photos, {who}. Who may read it gets exactly this bundle with")
    say(
        f"  realrag pull {args.repo} --revision {made.commit} --out ComfyUI/models/realrag/{args.repo.partition('/')[2]}"
    )
    return 0


def serve_index(args) -> int:
    from ..bundle.bundle import Bundle
    from ..files import default_cache
    from ..library import store_columns, store_source, unit_vectors
    from ..stores.fill import fill

    with bar("checking", "byte") as progress:
        bundle = Bundle(args.bundle, default_cache(), progress)
    head = bundle.head(args.head)
    with bar("sending") as progress:
        report = fill(
            args.to, store_source(bundle, head), unit_vectors(bundle, head), store_columns(bundle),
            index_type=args.index_type, progress=progress,
        )  # fmt: skip
    if args.json:
        say_json(vars(report))
        return 0
    say(
        f"{args.to}: {report.total} photos, {report.added} sent and {report.removed} taken out now, as {report.dtype}, index "
        f"{report.index}.",
        f"Ask it with `realrag search {args.bundle} TEXT --index {args.to}`.",
    )
    return 0


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """command(name, run, text, example) makes a sub-command's parser."""
    one = command(
        "heads", heads, "Say which heads a bundle has, put some in or take some out; no photo is encoded.",
        "realrag heads my-photos --add flux=flux/head.safetensors --add sd35=sd35/head.safetensors --first flux",
    )  # fmt: skip
    one.add_argument("bundle", type=Path)
    one.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="a head; without NAME it has its generator's name",
    )
    one.add_argument("--remove", action="append", default=[], metavar="NAME")
    one.add_argument("--first", default="", metavar="NAME", help="the head that answers where nobody chooses one")
    one.add_argument("--json", action="store_true", help="print JSON and nothing else")

    one = command(
        "pull", pull, "Fetch a bundle from a model hub, pinned to a commit, and check every file.",
        "realrag pull OWNER/NAME --revision 0123456789abcdef0123456789abcdef01234567 --out ComfyUI/models/realrag/NAME",
    )  # fmt: skip
    one.add_argument("repo", metavar="OWNER/NAME")
    one.add_argument(
        "--revision", default="", metavar="COMMIT", help="40 hex digits; without it the present one is told"
    )
    one.add_argument("--out", type=Path, required=True, help="the bundle's folder, new or empty")
    one.add_argument("--max-gb", type=float, default=50, help="refuse a bundle larger than this (default 50)")

    one = command(
        "push", push, "Put a bundle on a model hub, with a card of what is in it.",
        "realrag push my-photos OWNER/my-photos --evaluation run/evaluate.json",
    )  # fmt: skip
    one.add_argument("bundle", type=Path)
    one.add_argument("repo", metavar="OWNER/NAME")
    one.add_argument("--public", action="store_true", help="for everyone to see; else only for you and whom you let in")
    one.add_argument("--evaluation", type=Path, metavar="FILE", help="the trainer's evaluate.json, for the card")

    one = command(
        "serve-index", serve_index,
        "Fill a collection of Milvus with a bundle's vectors, or bring it up to date. Stopped, it goes on when run again.",
        "realrag serve-index my-photos --to milvus://127.0.0.1:19530/my_photos",
    )  # fmt: skip
    one.add_argument("bundle", type=Path)
    one.add_argument("--to", required=True, metavar="ADDRESS", help=HOW)
    one.add_argument(
        "--head", default=AUTO, metavar="NAME", help="a head of the bundle; auto: its first; none: the plain encoder"
    )
    one.add_argument(
        "--index-type",
        choices=INDEXES,
        default=INDEXES[0],
        help="of a collection that is made now (default auto: exact up to 200,000 photos, then lists)",
    )
    one.add_argument("--json", action="store_true", help="print JSON and nothing else")
