"""The commands: realrag index, search, show, verify, convert, demo, bench; and those of the modules beside it."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from .. import DEFAULT_ENCODER, SHIPPED_ENCODERS, SMALL_ENCODER, STOPPED_TEXT, __version__
from ..bundle.head_entries import AUTO
from ..errors import BusyError, RealRAGError, TooManyError
from ..photos.credit import Credit
from ..search.hybrid import BOTH, LOOK, NAME
from . import bundles, credits
from .bundles import bar
from .output import close_quietly, prepare, say, say_json

# Exit codes, also in the README.
OK, FAILED, USAGE, TOO_MANY, BUSY, STOPPED = 0, 1, 2, 3, 4, 130


def _bundle(name: str) -> Path:
    """A bundle's folder; the word `sample` means the one that ships with the plugin."""
    from ..library import shipped_bundle

    return shipped_bundle() if name == "sample" and not Path(name).exists() else Path(name)


def _retriever(args):
    from ..encoders.load import load_encoder
    from ..files import default_cache
    from ..retriever import Retriever

    encoder = load_encoder(args.encoder, device=args.device) if args.encoder else None
    with bar("checking", "byte") as progress:
        return Retriever.open(
            _bundle(args.bundle), encoder=encoder, head=args.head, cache=default_cache(), device=args.device,
            progress=progress, index=args.index,
        )  # fmt: skip


def index(args) -> int:
    from ..bundle.edit_heads import heads_by_name
    from ..encoders.load import load_encoder
    from ..indexing.build import build
    from ..indexing.options import IndexOptions
    from ..indexing.report_text import what_to_ask
    from ..indexing.shards import Sizes

    encoder = load_encoder(args.encoder or _encoder_of(args.out, args.reuse), device=args.device)
    nameless = len(args.head) == 1 and ("=" not in args.head[0] or Path(args.head[0]).is_file())
    options = IndexOptions(
        mode="add" if args.add else "remove" if args.remove else "sync",
        captions=args.captions,
        names=args.names,
        default=Credit(author=args.author, licence=args.licence, source=args.source),
        sizes=Sizes(args.keep, bound="area") if args.keep else Sizes(args.picture_size) if args.picture_size else None,
        head=Path(args.head[0]) if nameless else heads_by_name(args.head, encoder.dim),
        reuse=args.reuse,
        with_encoder=args.with_encoder,
        max_removed=args.max_removed,
        max_rejected=args.max_rejected,
        batch=args.batch,
        workers=args.workers,
    )
    try:
        with bar("reading") as on_scan, bar("encoding") as progress:
            report = build(args.photos, args.out, encoder, options, on_scan=on_scan, progress=progress)
    except TooManyError as error:
        _print_report(args, error.report)
        say(f"realrag: {error}", error=True)
        return TOO_MANY
    _print_report(args, report)
    if not args.json:
        say(f"{args.out}: {report.total} photos, encoder {encoder.name}, bundle {report.bundle_id[:12]}")
        say(what_to_ask(report))
        if args.encoder is None:
            say(f"By look, {encoder.name} finds {LOOKS[encoder.name]}")
    return OK


# What a shipped encoder finds by look, and what finds more.
LOOKS = {
    DEFAULT_ENCODER: "everyday things, roughly. For large libraries, scenes, styles and places make the library with --encoder "
    "ViT-L-14:openai, which finds far more (a download of 1.7 GB, once).",
    SMALL_ENCODER: "only what it was trained on: groceries, clothing, household things. For anything else make a new library "
    f"with --encoder {DEFAULT_ENCODER}, which needs no download, or with --encoder ViT-L-14:openai, which finds far more.",
}


def _encoder_of(*libraries: Path | None) -> str:
    """The shipped encoder that one of these libraries was made with, or the one for a new library."""
    from ..bundle.bundle import read_manifest

    for folder in libraries:
        if folder is not None and (folder / "manifest.json").is_file():
            try:
                name = read_manifest(folder).encoder["name"]
            except RealRAGError:
                continue  # opening it says what is wrong
            if name in SHIPPED_ENCODERS:
                return name
    return DEFAULT_ENCODER


def _print_report(args, report) -> None:
    from ..indexing.report_text import counts_of, left_out, license_note

    if args.json:
        level = report.level.as_json() if report.level else None
        metadata = {**vars(report), "rejected": [vars(item) for item in report.rejected], "level": level}
        say_json(metadata)
        return
    say(*left_out(report), *report.notes, *license_note(report), *counts_of(report))


def _min_score(text: str) -> float | str:
    return text if text == AUTO else float(text)


def search(args) -> int:
    from ..bundle.records import Filters
    from ..photos.decode import decode, read_bytes
    from ..references import NONE_STATED

    image = decode(read_bytes(args.image), args.image.name) if args.image else None
    filters = Filters(tuple(args.classes), tuple(args.licences), tuple(args.ids), tuple(args.without))
    answer = _retriever(args).search(
        args.text,
        image=image,
        k=args.k,
        min_score=args.min_score,
        diversity=args.diversity,
        filters=filters,
        find_by=args.find_by,
        pinned=args.pins,
        page=args.page,
    )
    if args.json:
        say_json(answer.as_json())
    else:
        for rank, item in enumerate(answer.items, 1):
            how, credit = item.how() + ", doubtful" * answer.doubts(item), item.credit(answer.licensed)
            say(f"{rank:3d}. {item.shown_score():5}  {item.id}  {credit}  [{item.file}]  ({how})")
        unlicensed = NONE_STATED if answer.items and not answer.licensed else ""
        for words in filter(None, (answer.note, answer.ranked_by, unlicensed)):
            say(words)
    return OK


def show(args) -> int:
    from ..bundle.bundle import Bundle
    from ..bundle.summary import generator_marks, license_counts, listed, summary
    from ..files import default_cache

    bundle = Bundle(_bundle(args.bundle), default_cache())
    metadata = summary(bundle)
    if args.json:
        say_json(metadata)
        return OK
    for name in ("folder", "id", "photos", "encoder", "dim", "carries_encoder", "heads", "bytes"):
        say(f"{name:16s} {(', '.join(metadata[name]) or 'none') if name == 'heads' else metadata[name]}")
    say(f"{'manifest':16s} {_checksum(bundle.manifest)}")
    for name, counts in (("licences", license_counts(metadata)), ("classes", metadata["classes"])):
        say(f"{name:16s} {listed(counts, 10)}")
    say(f"{'generated':16s} {generator_marks(metadata)}")
    return OK


def _checksum(manifest) -> str:
    return "with a checksum of its own" if manifest.checksummed else "without a checksum, as older versions wrote it"


def verify(args) -> int:
    from ..bundle.bundle import Bundle

    with bar("hashing", "byte") as hashing:
        bundle = Bundle(_bundle(args.bundle), None, hashing)
    with bar("reading") as progress:
        bundle.verify(progress)
    say(f"{bundle.folder}: right. {bundle.manifest.count} photos, every file, record, vector and picture read.")
    say(f"Its manifest is {_checksum(bundle.manifest)}.")
    if not bundle.manifest.checksummed:
        say("A flipped bit in it would not be noticed. `realrag index` writes one when the bundle next changes.")
    return OK


def convert(args) -> int:
    from ..adapters.convert import convert as run

    made = run(args.file, args.out)
    say(f"{args.out}: {made.tensors} tensors, {made.bytes} bytes, each read back and found the same.")
    say(made.what)
    return OK


def demo(args) -> int:
    from ..demo.run import run_demo

    with bar("encoding") as progress, bar("painting") as painting:
        made = run_demo(args.out, progress, painting, args.encoder)
    say(f"Indexed {made.report.indexed} photos ({made.report.encoded} encoded in this run).")
    for answer in made.answers:
        best = answer.items[0]
        say(f"  {answer.query!r} -> {best.caption} ({best.how()}, {best.licence})")
    say(*made.judged)
    say("Written:", *(f"  {path}" for path in made.written))
    return OK


def bench(args) -> int:
    module = importlib.import_module(f"..bench.{args.what}", __package__)
    result = module.run(args)
    if args.json:
        say_json(result)
    else:
        say(*str(module.format_report(result)).split("\n"))
    return OK


def parser() -> argparse.ArgumentParser:
    from ..bench import blocks as bench_blocks
    from ..bench import embed as bench_embed
    from ..bench import find as bench_find
    from ..bench import growth as bench_growth
    from ..bench import inject as bench_inject
    from ..bench import retrieve as bench_retrieve
    from ..bench import search as bench_search
    from ..bench import startup as bench_startup
    from ..bench import store as bench_store

    top = argparse.ArgumentParser("realrag", description="Find real photos for a prompt.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, text: str, example: str, under=commands) -> argparse.ArgumentParser:
        made = under.add_parser(
            name, help=text, description=text, epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        made.set_defaults(run=run)
        return made

    def common(made: argparse.ArgumentParser, encoder: str | None) -> None:
        made.add_argument(
            "--encoder",
            default=encoder,
            help="realrag-general, realrag-small, an open_clip model as NAME:TAG, NAME:FILE or NAME:TAG=FILE, or the file or folder of a "
            "CLIP or SigLIP in transformers' format",
        )
        made.add_argument("--device", default="cpu", help="cpu, cuda, mps")
        made.add_argument("--json", action="store_true", help="print JSON and nothing else")

    one = command(
        "index", index, "Make a bundle from a folder of photos, or bring it up to date.",
        "realrag index my-photos --out ComfyUI/models/realrag/my-photos --encoder ViT-L-14:openai",
    )  # fmt: skip
    one.add_argument("photos", type=Path, help="folder of photos; sub-folders are classes")
    one.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    common(one, None)
    one.add_argument(
        "--captions",
        type=Path,
        help="CSV, TSV, JSON Lines, JSON or Parquet with a column `file`, and caption, class, author, licence, source",
    )
    one.add_argument(
        "--names", type=Path, help="CSV with the columns class, language, name: what classes are also called"
    )
    group = one.add_mutually_exclusive_group()
    group.add_argument("--add", action="store_true", help="keep photos of the bundle that are not in this folder")
    group.add_argument("--remove", action="store_true", help="take the photos in this folder out of the bundle")
    one.add_argument("--author", default="", help="author of photos that name none")
    one.add_argument("--licence", default="", help="licence of photos that name none, such as CC-BY-4.0")
    one.add_argument("--source", default="", help="source of photos that name none")
    one.add_argument(
        "--head", action="append", default=[], metavar="[NAME=]FILE",
        help="a reflective head to put into the bundle (repeat for one a generator; without NAME its generator's name)",
    )  # fmt: skip
    one.add_argument(
        "--reuse", type=Path, metavar="BUNDLE", help="take over its vectors, where --encoder differs in its words alone"
    )
    one.add_argument("--with-encoder", action="store_true", help="put the encoder's weights into the bundle")
    group = one.add_mutually_exclusive_group()
    group.add_argument(
        "--keep", type=int, choices=(768, 1024, 1536),
        help="pixels of the kept pictures: as many as a square of this side has (default 768); 1024 suits reference latents "
        "at 1024 px. Of a bundle that is there already it stays as it is",
    )  # fmt: skip
    group.add_argument(
        "--picture-size", type=int, help="bound the longest side of the kept pictures instead, in pixels"
    )
    one.add_argument(
        "--batch", type=int, default=0, help="photos a step of the encoder (0: 32 on a CPU, what fits on a GPU)"
    )
    one.add_argument(
        "--workers", type=int, default=0, help="decoding threads (0: 4 beside a CPU encoder, all cores for a GPU)"
    )
    one.add_argument(
        "--max-rejected", type=float, default=10, metavar="PERCENT",
        help="change nothing and exit with 3 if more of the photos found cannot be used (default 10)",
    )  # fmt: skip
    one.add_argument(
        "--max-removed", type=float, default=25, metavar="PERCENT",
        help="change nothing and exit with 3 if more of the bundle's photos are gone from the folder (default 25)",
    )  # fmt: skip

    one = command("search", search, "Ask a bundle for real photos.", 'realrag search my-photos "a 1994 Audi 100" -k 5')
    one.add_argument("bundle", help="a bundle's folder, or `sample`")
    one.add_argument("text", nargs="?", default="", help="what you want to see; may be empty where --image is given")
    one.add_argument("--image", type=Path, help="a picture to ask with")
    one.add_argument("-k", type=int, default=4, help="how many photos")
    one.add_argument(
        "--head", default=AUTO, metavar="NAME", help="a head of the bundle; auto: its first; none: the plain encoder"
    )
    one.add_argument(
        "--min-score",
        type=_min_score,
        metavar="SCORE",
        help="leave out photos below this cosine; auto: below the library's level",
    )
    one.add_argument(
        "--find-by",
        choices=(BOTH, NAME, LOOK),
        default=BOTH,
        help="names and captions, how photos look, or both (default)",
    )
    one.add_argument("--diversity", type=float, default=0.0, help="0 best matches .. 1 most different")
    one.add_argument("--class", dest="classes", action="append", default=[], help="only this class (repeat for more)")
    one.add_argument(
        "--licence", dest="licences", action="append", default=[], help="only this licence (repeat for more)"
    )
    one.add_argument("--id", dest="ids", action="append", default=[], help="only this photo (repeat for more)")
    one.add_argument(
        "--without", "--ban", action="append", default=[], metavar="ID", help="never this photo (repeat for more)"
    )
    one.add_argument(
        "--pin", dest="pins", action="append", default=[], metavar="ID",
        help="this photo first, whatever it scores (repeat for more)",
    )  # fmt: skip
    one.add_argument("--page", type=int, default=1, help="1 the best photos, 2 those after them, and so on")
    one.add_argument(
        "--index", metavar="ADDRESS", help="ask this collection, which serve-index filled, in place of an index here"
    )
    common(one, None)

    one = command("show", show, "Say what is in a bundle.", "realrag show sample")
    one.add_argument("bundle")
    one.add_argument("--json", action="store_true", help="print JSON and nothing else")

    one = command("verify", verify, "Read a bundle whole and say whether it is right.", "realrag verify my-photos")
    one.add_argument("bundle")

    bundles.add_commands(command)
    credits.add_commands(command)

    one = command(
        "convert", convert, "Make a safetensors file of a pickled adapter; no code in the pickle is run.",
        "realrag convert ip-adapter.bin --out ComfyUI/models/realrag_adapters/flux-instantx.safetensors",
    )  # fmt: skip
    one.add_argument("file", type=Path, help="a .bin, .pt or .pth file of weights")
    one.add_argument("--out", type=Path, required=True, help="the .safetensors file to write; never overwritten")

    one = command("demo", demo, "Index the shipped photos and ask several prompts.", "realrag demo --out demo-out")
    one.add_argument("--out", type=Path, default=Path("demo-out"))
    one.add_argument(
        "--encoder", default=SMALL_ENCODER,
        help="what the demo's library is made with, as for `realrag index`; the miniatures see its photos through realrag-small",
    )  # fmt: skip

    what = commands.add_parser("bench", help="Measure answers, and speed as ratios within one run.").add_subparsers(
        required=True, dest="what"
    )
    for name, module, example in (
        ("search", bench_search, "realrag bench search --rows 1000000"),
        ("retrieve", bench_retrieve, "COMFYUI_PATH=~/ComfyUI realrag bench retrieve --rows 1000000"),
        ("growth", bench_growth, "realrag bench growth --folder growth --graph growth.svg"),
        ("store", bench_store, "realrag bench store --to milvus-lite:new.db#bench"),
        ("find", bench_find, "realrag bench find my-photos"),
        ("embed", bench_embed, "realrag bench embed --untrained ViT-B-32"),
        ("inject", bench_inject, "COMFYUI_PATH=~/ComfyUI realrag bench inject --family flux-xlabs --references 4"),
        ("blocks", bench_blocks, "realrag bench blocks"),
        (
            "startup",
            bench_startup,
            "COMFYUI_PATH=~/ComfyUI realrag bench startup --other-pack ~/ComfyUI/custom_nodes/OTHER",
        ),
    ):
        one = command(name, bench, str(module.__doc__).split("\n")[0], example, what)
        module.add_arguments(one)
        if "--json" not in one._option_string_actions:
            one.add_argument("--json", action="store_true", help="print JSON and nothing else")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 wrong usage, 3 too many photos rejected or gone, 4 busy, 130
    stopped."""
    prepare()
    try:
        args = parser().parse_args(argv)
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BusyError as error:
        say(f"realrag: {error}", error=True)
        return BUSY
    except RealRAGError as error:
        say(f"realrag: {error}", error=True)
        return FAILED
    except KeyboardInterrupt:
        say(STOPPED_TEXT, error=True)
        return STOPPED
    except BrokenPipeError:
        close_quietly()
        return OK
    except OSError as error:
        what = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        say(f"realrag: {what}. Check the path, its permissions and the free space.", error=True)
        return FAILED
