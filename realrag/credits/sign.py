"""Credits of a saved picture -> the same picture with content credentials (C2PA 2.2), signed with the artist's own key.

Each photo becomes an ingredient of words alone: title, author, license and source. Given the photo's file, the library
would embed a small picture of it; it is never given one. The package c2pa-python signs, the extra `realrag[c2pa]`. Nobody
on the network is asked, so the signature carries no time stamp.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

from .. import __version__
from ..errors import PhotoError, RealRAGError
from ..files import write_atomic
from ..photos.c2pa import ALGORITHMS, MIMES, SETTINGS, readable
from ..photos.contents import contents_of
from ..photos.decode import read_bytes
from .read import read_credits
from .record import CreditedPhoto

MADE_BY_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_SUFFIXES = {"PNG": {".png"}, "JPEG": {".jpg", ".jpeg"}, "WEBP": {".webp"}}
_MOST_PEM = 1 << 20


def sign_picture(path: Path, out: Path, certificate: Path, key: Path, algorithm: str = "es256") -> int:
    """Write `out`: the picture, bit for bit, with a manifest that names the photos credited in it. Returns their number.

    certificate: PEM, the signer's first and its authorities after it. key: PEM, PKCS #8, without a password. RealRAGError
    where the picture carries no credits or is signed already, and where the key does not fit.
    """
    if not readable():
        raise RealRAGError("Signing needs the package c2pa-python. Run `pip install c2pa-python`.")
    found = read_credits(path)
    if not found.photos():
        raise RealRAGError(
            f"{path.name} carries no credits of RealRAG. Put Add Credits before Save Image, and paint again."
        )
    data = read_bytes(path)
    contents = contents_of(data, path.name)
    suffixes = _SUFFIXES.get(contents.kind)
    if suffixes is None:
        raise RealRAGError(
            f"{path.name} is a {contents.kind} file; PNG, JPEG and WebP are signed. Sign the picture as ComfyUI saved it."
        )
    if contents.c2pa:
        raise RealRAGError(f"{path.name} carries content credentials already. Sign the picture as ComfyUI saved it.")
    if out.suffix.lower() not in suffixes:
        raise RealRAGError(f"{path.name} is a {contents.kind} file: give --sign a name that ends in {min(suffixes)}.")
    write_atomic(out, _signed(data, contents.kind, found.photos(), _signer(certificate, key, algorithm)))
    return len(found.photos())


def manifest(photos: list[CreditedPhoto]) -> dict:
    """What is signed: a picture made by a model, from these photos as input."""
    ingredients = [_ingredient(number, photo) for number, photo in enumerate(photos, 1)]
    action = {
        "action": "c2pa.created", "digitalSourceType": MADE_BY_A_MODEL,
        "parameters": {"ingredientIds": [ingredient["label"] for ingredient in ingredients]},
    }  # fmt: skip
    return {
        "claim_generator_info": [{"name": "RealRAG", "version": __version__}],
        "ingredients": ingredients,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }


def _ingredient(number: int, photo: CreditedPhoto) -> dict:
    words = {"title": photo.title or "untitled", "relationship": "inputTo", "label": f"photo-{number}"}
    words["description"] = ", ".join(filter(None, (f"by {photo.author}" if photo.author else "", photo.license)))
    if photo.id:
        words["instance_id"] = f"realrag:{photo.id}"
    if photo.source.startswith(("https://", "http://")):
        words["informational_URI"] = photo.source
    return words


def _signer(certificate: Path, key: Path, algorithm: str):
    from c2pa import C2paError, C2paSignerInfo, Signer

    parts = []
    for path, what in ((certificate, b"CERTIFICATE"), (key, b"PRIVATE KEY")):
        parts.append(read_bytes(path, _MOST_PEM))
        if b"-----BEGIN " + what + b"-----" not in parts[-1]:
            raise RealRAGError(
                f"{path.name}: no PEM file with a {what.decode().lower()} in it. Export it as PEM, without a password."
            )
    try:
        return Signer.from_info(C2paSignerInfo(algorithm.encode(), *parts, None))
    except C2paError:  # its text may hold parts of the key
        raise _unfit(certificate, key, algorithm) from None


def _unfit(certificate: Path, key: Path, algorithm: str) -> RealRAGError:
    return RealRAGError(
        f"{key.name} cannot sign with {algorithm} for {certificate.name}. Give --algorithm what your key is for "
        f"({', '.join(ALGORITHMS)}), and a certificate for signing documents that has not run out, with its authorities in "
        "the same file."
    )


def _signed(data: bytes, kind: str, photos: list[CreditedPhoto], signer) -> bytes:
    from c2pa import Builder, C2paError, Context

    context = Context.from_dict({**SETTINGS, "builder": {"thumbnail": {"enabled": False}}})
    out = io.BytesIO()
    try:
        with Builder(json.dumps(manifest(photos)), context=context) as builder:
            builder.sign(signer, MIMES[kind], io.BytesIO(data), out)
    except C2paError as error:
        raise PhotoError(
            "not_signed", f"The picture cannot be signed ({str(error)[:120]}). Check certificate and key."
        ) from None
    return out.getvalue()
