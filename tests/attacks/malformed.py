"""Ways to spoil a bundle, as tables of data: damage (a file changes after the manifest was written) and malice (the author
hashed his spoiled file himself). All are harmless to whoever does not believe them."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from bundle_content import file_of, relist, replace_hashed, rewrite

from realrag.bundle.bundle import matrix_header, read_manifest

DAMAGE = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "last byte gone": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "first bit flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "middle bit flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]
    ),
    "a page zeroed": lambda data: data[:64] + bytes(min(4096, len(data) - 64)) + data[64 + 4096 :],
    "a pickle": lambda data: pickle.dumps({"weights": list(range(100))}),
    "a zip behind it": lambda data: data + b"PK\x03\x04" + bytes(64),
    "random": lambda data: np.random.default_rng(1).bytes(len(data)),
}


def entry0(**fields):
    def change(manifest):
        manifest["files"][0].update(fields)

    return change


def top(**fields):
    def change(manifest):
        manifest.update(fields)

    return change


MANIFESTS = {
    "another format": top(format="zip"),
    "a later version": top(version=3),
    "version as text": top(version="1"),
    "count of zero": top(count=0),
    "negative count": top(count=-4),
    "count too large": top(count=10**18),
    "count as float": top(count=4.0),
    "count as bool": top(count=True),
    "count one less": top(count=3),
    "wrong dim": top(dim=11),
    "huge dim": top(dim=10**9),
    "files no list": top(files={}),
    "no files": top(files=[]),
    "too many files": lambda m: m["files"].extend([m["files"][0]] * 10_001),
    "a file twice": lambda m: m["files"].append(m["files"][0]),
    "a file twice in capitals": lambda m: m["files"].append({**m["files"][0], "path": m["files"][0]["path"].replace("embed", "EMBED")}),
    "encoder missing": lambda m: m.pop("encoder"),
    "encoder no object": top(encoder="ViT"),
    "encoder without fingerprint": lambda m: m["encoder"].pop("fingerprint"),
    "head without file": top(head={}),
    "licences no object": top(licences=[1]),
    "licences not counts": top(licences={"MIT": "many"}),
    "picture size zero": top(picture_longest=0),
    "unknown role": entry0(role="code"),
    "index file": entry0(role="index"),
    "path up": entry0(path="../b/embeddings.safetensors"),
    "path absolute": entry0(path="/etc/x.safetensors"),
    "path with drive": entry0(path="C:\\x.safetensors"),
    "path backslash": entry0(path="a\\b.safetensors"),
    "path NUL": entry0(path="a\0.safetensors"),
    "path too long": entry0(path="a" * 300 + ".safetensors"),
    "path number": entry0(path=7),
    "path unlisted suffix": entry0(path="embeddings.pt"),
    "path pickle": entry0(path="embeddings.pkl"),
    "path device": entry0(path="con.safetensors"),
    "hash too short": entry0(sha256="abc"),
    "hash of another": entry0(sha256="0" * 64),
    "hash in capitals": lambda m: m["files"][0].update(sha256=m["files"][0]["sha256"].upper()),
    "size negative": entry0(bytes=-1),
    "size wrong": entry0(bytes=1),
    "extra field": entry0(run="me"),
    "two embeddings": lambda m: m["files"].append({**m["files"][0], "path": "more.safetensors"}),
    "no records": lambda m: m.update(files=[e for e in m["files"] if e["role"] != "records"]),
    "no pictures": lambda m: m.update(files=[e for e in m["files"] if e["role"] != "pictures"]),
    "no thumbnails": lambda m: m.update(files=[e for e in m["files"] if e["role"] != "thumbnails"]),
}  # fmt: skip


def heads(change):
    """A spoiled manifest of version 2 that lists two heads."""

    def changed(manifest):
        manifest.pop("head", None)
        files = [{**manifest["files"][0], "path": f"head-{name}.safetensors", "role": "head"} for name in "ab"]
        entries = [{"name": name, "path": f"head-{name}.safetensors", "facts": {}} for name in "ab"]
        manifest.update(version=2, files=manifest["files"] + files, heads=entries)
        change(manifest)

    return changed


def named(name):
    return heads(lambda m: m["heads"][1].update(name=name))


HEADS = {
    **{f"name {name!r:.20}": named(name) for name in (
        "..", "../b", "a/b", "a\\b", "", " ", "b\0", "-b", ".b", "b\n", "x" * 65, "x" * 100_000, "auto", "None", "NONE", "\uff42", "b é",
        7, None, ["b"], {"b": 1},
    )},
    "two of one name": named("a"),
    "two of one name but for capitals": named("A"),
    "two with one file": heads(lambda m: m["heads"][1].update(path="head-a.safetensors")),
    "one file for two": heads(lambda m: (m["heads"][1].update(path="head-a.safetensors"), m["files"].pop())),
    "a file of another role": heads(lambda m: m["heads"][1].update(path=m["files"][0]["path"])),
    "a file that is not listed": heads(lambda m: m["heads"][1].update(path="head-c.safetensors")),
    "a file that no head names": heads(lambda m: m["heads"].pop()),
    "a path up": heads(lambda m: m["heads"][1].update(path="../head-b.safetensors")),
    "a path that is no text": heads(lambda m: m["heads"][1].update(path=3)),
    "facts that are none": heads(lambda m: m["heads"][1].update(facts="flux")),
    "no facts": heads(lambda m: m["heads"][1].pop("facts")),
    "a field more": heads(lambda m: m["heads"][1].update(code="x")),
    "an entry that is none": heads(lambda m: m["heads"].append("a")),
    "heads no list": heads(lambda m: m.update(heads={"a": {}})),
    "no head at all": heads(lambda m: m.update(heads=[], files=m["files"][:-2])),
    "no heads": heads(lambda m: m.pop("heads")),
    "head and heads": heads(lambda m: m.update(head=None)),
    "two heads in version 1": heads(lambda m: m.update(version=1, head={})),
    "version as truth": heads(lambda m: m.update(version=True, head={})),
    "version as float": heads(lambda m: m.update(version=2.0)),
    "too many": heads(lambda m: (m["heads"].clear(), [m["heads"].append({"name": f"h{at}", "path": f"head-{at}.safetensors", "facts": {}})
                      for at in range(65)], m["files"].extend({**m["files"][-1], "path": f"head-{at}.safetensors"} for at in range(65)))),
}  # fmt: skip

HEAD_FILES = {
    "a pickle in disguise": lambda data: pickle.dumps({"weights": [1]}),
    "no header": lambda data: b"",
    "header length 2^63": lambda data: header(b"{}", 1 << 63),
    "cut": lambda data: data[:-8],
    "facts nested deeply": lambda data: safetensors.torch.save(
        {"fc1.weight": torch.zeros(1)}, {"format": "realrag-head", "version": "1", "facts": "[" * 100_000}
    ),
    "another width": lambda data: safetensors.torch.save(
        {"fc1.weight": torch.zeros(2, 3)}, {"format": "realrag-head", "version": "1"}
    ),
}

RAW_MANIFESTS = {
    "not JSON": b"hello",
    "a list": b"[]",
    "NaN": b'{"format": "realrag-bundle", "version": NaN}',
    "a key twice": b'{"format": "realrag-bundle", "version": 1, "version": 1}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "huge number": b'{"format": "realrag-bundle", "version": 1' + b"0" * 5000 + b"}",
    "not UTF-8": b'{"format": "\xff\xfe"}',
    "too large": b" " * (2 << 20),
}


def header(text: bytes, length: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def embeddings(dim: int) -> dict[str, bytes]:
    """Files of 4 vectors that are none, for a bundle of this width."""
    size = 8 * dim

    def entry(dtype: str = "F16", shape: str = f"[4,{dim}]", start: int = 0, end: int = size) -> bytes:
        return f'"embeddings":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}'.encode()

    def vectors(value: float) -> bytes:
        rows = np.full((4, dim), 0.5, np.float16)
        rows[2] = value
        return matrix_header(4, dim) + rows.tobytes()

    empty = f',"more":{{"dtype":"F16","shape":[0],"data_offsets":[{size},{size}]}}'.encode()
    return {
        "a pickle in disguise": pickle.dumps(np.zeros((4, dim))),
        "numpy file": b"\x93NUMPY\x01\x00" + bytes(200),
        "header length 2^63": header(b"{}", 1 << 63, bytes(size)),
        "header length beyond the file": header(b"{}", 50_000, bytes(size)),
        "header no JSON": header(b"hello", data=bytes(size)),
        "other tensor": header(b"{" + entry().replace(b"embeddings", b"weights") + b"}", data=bytes(size)),
        "two tensors": header(b"{" + entry() + empty + b"}", data=bytes(size)),
        "other dtype": header(b"{" + entry("F32", end=2 * size) + b"}", data=bytes(2 * size)),
        "other shape": header(b"{" + entry(shape=f"[{dim},4]") + b"}", data=bytes(size)),
        "overflowing shape": header(b"{" + entry(shape="[4611686018427387904,4]") + b"}", data=bytes(size)),
        "offsets lie": header(b"{" + entry(start=8, end=size + 8) + b"}", data=bytes(size + 8)),
        "data behind": header(b"{" + entry() + b"}", data=bytes(size + 900)),
        "not a number": vectors(float("nan")),
        "infinite": vectors(float("inf")),
        "zero": vectors(0.0),
    }


def line(**fields):
    def change(rows):
        rows[1].update(fields)
        return rows

    return change


RECORDS = {
    "one too few": lambda rows: rows[:3],
    "one too many": lambda rows: [*rows, rows[0]],
    "the same photo twice": lambda rows: [rows[0], rows[0], rows[2], rows[3]],
    "extra field": line(exec="rm"),
    "id of another": line(id="0" * 16),
    "caption number": line(caption=5),
    "caption too long": line(caption="a" * 3000),
    "width zero": line(width=0),
    "width text": line(width="48"),
    "place negative": line(picture=[0, -1, 10]),
    "place outside": line(picture=[0, 1 << 40, 10]),
    "part outside": line(picture=[7, 0, 10]),
    "place too long": line(picture=[0, 512, 1 << 40]),
    "place short list": line(picture=[0, 512]),
    "place of no picture": line(picture=[0, 0, 100]),
    "place as text": line(thumbnail="0"),
}

NO_RECORDS = {
    "empty lines": b"\n\n\n\n", "empty objects": b"{}\n" * 4, "deep": b"[" * 60_000 + b"\n", "one long line": b"a" * 100_000,
    "not UTF-8": b"\xff\n" * 4, "NaN": b'{"id": NaN}\n' * 4,
}  # fmt: skip

# (where, key, value) of open_clip_config.json: harmless here, and each of a kind that another library would follow or believe.
CONFIGS = [
    ("", "custom", 1), ("model_cfg", "multimodal_cfg", {}), ("model_cfg", "trust_remote_code", True),
    ("model_cfg", "embed_dim", "24"), ("model_cfg", "embed_dim", 24.0), ("model_cfg", "embed_dim", True),
    ("model_cfg", "embed_dim", 0), ("model_cfg", "embed_dim", 1 << 40), ("model_cfg", "quick_gelu", "yes"),
    ("model_cfg", "init_logit_bias", "0"), ("model_cfg", "vision_cfg", []), ("model_cfg", "text_cfg", "x"),
    ("model_cfg/vision_cfg", "timm_model_name", "a-name/of-a-repository"),
    ("model_cfg/vision_cfg", "timm_model_name", "scheme:name"), ("model_cfg/vision_cfg", "timm_model_name", "resnet18"),
    ("model_cfg/vision_cfg", "timm_model_name", ["convnext_base"]), ("model_cfg/vision_cfg", "timm_kwargs", {}),
    ("model_cfg/vision_cfg", "timm_pool", "other"), ("model_cfg/vision_cfg", "pretrained_cfg", {}),
    ("model_cfg/vision_cfg", "layers", 10**9), ("model_cfg/vision_cfg", "layers", [1, 1, 1]),
    ("model_cfg/vision_cfg", "width", -1), ("model_cfg/vision_cfg", "image_size", 1 << 20),
    ("model_cfg/vision_cfg", "image_size", [32, "32"]), ("model_cfg/vision_cfg", "act_kwargs", {"name": "x"}),
    ("model_cfg/vision_cfg", "norm_kwargs", {"eps": "1"}), ("model_cfg/vision_cfg", "mlp_ratio", 1e9),
    ("model_cfg/text_cfg", "hf_model_name", "a-name/of-a-repository"), ("model_cfg/text_cfg", "hf_model_config", {}),
    ("model_cfg/text_cfg", "hf_pooler_type", "mean_pooler"), ("model_cfg/text_cfg", "auto_map", {}),
    ("model_cfg/text_cfg", "tokenizer_kwargs", {"trust_remote_code": True}),
    ("model_cfg/text_cfg", "tokenizer_kwargs", {"cache_dir": "x"}), ("model_cfg/text_cfg", "tokenizer_kwargs", []),
    ("model_cfg/text_cfg", "tokenizer_mode", "other"), ("model_cfg/text_cfg", "context_length", 1 << 30),
    ("model_cfg/text_cfg", "vocab_size", 10**12), ("model_cfg/text_cfg", "heads", 100_000),
    ("preprocess_cfg", "mode", "L"), ("preprocess_cfg", "mean", [0, 0]), ("preprocess_cfg", "std", [0, 1, 1]),
    ("preprocess_cfg", "size", 10**6), ("preprocess_cfg", "interpolation", "random"), ("preprocess_cfg", "loader", "x"),
]  # fmt: skip
SIZES = [
    ("model_cfg", {"embed_dim": 16_384}), ("model_cfg/vision_cfg", {"width": 16_384}),
    ("model_cfg/vision_cfg", {"layers": 256}), ("model_cfg/text_cfg", {"vocab_size": 2_000_000, "width": 16_384}),
    ("model_cfg/text_cfg", {"layers": 256, "width": 16_384}),
    ("model_cfg/vision_cfg", {"timm_model_name": "eva02_enormous_patch14_clip_224"}),
    ("model_cfg/vision_cfg", {"image_size": 1024, "patch_size": 32}),
]  # fmt: skip


SMALL_CONFIGS = [
    ("", "custom", 1), ("", "dim", 1 << 40), ("", "dim", "12"), ("", "dim", True), ("", "width", 1e9), ("", "width", -1), ("", "width", "x"),
    ("", "buckets", 1 << 40), ("", "buckets", 0), ("", "text_width", 1 << 40), ("", "text_width", 1.5), ("", "name", []), ("", "preprocess", []),
    ("preprocess", "size", 1 << 30), ("preprocess", "size", 0), ("preprocess", "mode", "x"), ("preprocess", "mean", [0, 0]),
    ("preprocess", "std", [0, 1, 1]), ("preprocess", "interpolation", "random"), ("preprocess", "loader", "x"),
]  # fmt: skip


def with_setting(content: dict, part: str, fields: dict) -> dict:
    """The JSON with these fields in the part "a/b" of it."""
    place = content
    for key in part.split("/") if part else ():
        place = place.setdefault(key, {})
    place.update(fields)
    return content


def cases(bundle: Path) -> dict[str, Callable[[Path], None]]:
    """{name: spoils a copy of this bundle in place}."""
    manifest = read_manifest(bundle)
    roles = ["manifest", *dict.fromkeys(file.role for file in manifest.files)]
    found: dict[str, Callable[[Path], None]] = {}

    def add(name: str, change: Callable[[Path], None]) -> None:
        assert name not in found, name
        found[name] = change

    def place(folder: Path, role: str) -> Path:
        return folder / "manifest.json" if role == "manifest" else file_of(folder, role)

    def damaged(role: str, change) -> Callable[[Path], None]:
        def run(folder: Path) -> None:
            path = place(folder, role)
            data = change(path.read_bytes())
            path.unlink() if data is None else path.write_bytes(data)

        return run

    def recorded(change) -> Callable[[Path], None]:
        def run(folder: Path) -> None:
            rows = [json.loads(row) for row in file_of(folder, "records").read_bytes().splitlines()]
            replace_hashed(folder, "records", b"".join(json.dumps(row).encode() + b"\n" for row in change(rows)))

        return run

    def replaced(role: str, change) -> Callable[[Path], None]:
        return lambda folder: replace_hashed(folder, role, change(file_of(folder, role).read_bytes()))

    def rewriting(change) -> Callable[[Path], None]:
        return lambda folder: rewrite(folder, change)

    def configured(name: str, part: str, fields: dict) -> Callable[[Path], None]:
        def run(folder: Path) -> None:
            path = folder / "encoder" / name
            if name.endswith(".json"):
                path.write_text(json.dumps(with_setting(json.loads(path.read_bytes()), part, fields)))
            else:
                with safetensors.safe_open(path, "pt") as file:
                    metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
                metadata["config"] = json.dumps(with_setting(json.loads(metadata["config"]), part, fields))
                safetensors.torch.save_file(tensors, path, metadata)
            relist(folder, path)

        return run

    for role in roles:
        for name, change in DAMAGE.items():
            add(f"{role} damaged: {name}", damaged(role, change))
            if role not in ("manifest", "pictures", "thumbnails", "encoder") and name in (
                "empty",
                "half",
                "a pickle",
                "random",
            ):
                add(f"{role} hashed: {name}", replaced(role, change))
    for name, change in MANIFESTS.items():
        add(f"manifest: {name}", rewriting(change))
    for name, change in HEADS.items():
        add(f"heads: {name}", rewriting(change))
    for name, data in RAW_MANIFESTS.items():
        add(f"raw manifest: {name}", lambda folder, data=data: (folder / "manifest.json").write_bytes(data))
    for name, data in embeddings(manifest.dim).items():
        add(f"embeddings: {name}", replaced("embeddings", lambda _, data=data: data))
    for name, change in RECORDS.items():
        add(f"records: {name}", recorded(change))
    for name, data in NO_RECORDS.items():
        add(f"no records: {name}", replaced("records", lambda _, data=data: data))
    if manifest.heads:
        for name, change in HEAD_FILES.items():
            add(f"head file: {name}", replaced("head", change))
    for file in manifest.of("encoder"):
        settings = {"open_clip_config.json": [*((p, {k: v}) for p, k, v in CONFIGS), *SIZES]}.get(
            Path(file.path).name, []
        )
        settings += (
            [(p, {k: v}) for p, k, v in SMALL_CONFIGS] if file.path.endswith("small_encoder.safetensors") else []
        )
        for part, fields in settings:
            add(f"encoder: {part} {str(fields)[:60]}", configured(Path(file.path).name, part, fields))
        add(f"encoder: {file.path} missing", lambda folder, path=file.path: (folder / path).unlink())
    if manifest.of("encoder"):
        add("encoder: a file more", lambda folder: (folder / "encoder" / "modeling.py").write_text("x = 1"))
        add("encoder: a folder more", lambda folder: (folder / "encoder" / "more").mkdir())
    for role in roles:
        add(
            f"{role}: a folder in its place",
            lambda folder, role=role: (place(folder, role).unlink(), place(folder, role).mkdir()),
        )
    return found
