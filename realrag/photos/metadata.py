"""Words inside a photo's own file: captions, keywords and credits of XMP, IPTC and EXIF, and the prompt that a generator left
there.

Nothing else of the metadata is looked at: no place, time, camera, owner or face.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence

from .color import exif_of
from .contents import Contents
from .credit import Credit, clean

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_RIGHTS = "{http://ns.adobe.com/xap/1.0/rights/}"
_CC = "{http://creativecommons.org/ns#}"
_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# What cameras write into every picture is no caption.
_PLACEHOLDER = re.compile(
    r"(OLYMPUS|SONY|KONICA MINOLTA|MINOLTA|PENTAX|SAMSUNG|SAMSUNG TECHWIN|VIVITAR|KODAK|HP|BENQ)?\s*DIGITAL\s*(STILL )?CAMERA"
    r"|SONY DSC|DCIM.*|DIGICAM PHOTO|JPEG IMAGE|UNTITLED|CREATED WITH GIMP|DEFAULT",
    re.IGNORECASE,
)
# What phones and programs write into EXIF's description: "oznor", "sdr_HDRB", and of a generator "workflow:{...}".
_NO_DESCRIPTION = re.compile(
    r"[a-z]{2,8}(?:_[A-Za-z0-9]+)*|exif[ _]jpeg[ _]picture|(?:\w+:)?\s*[{\[].*", re.IGNORECASE | re.DOTALL
)
MOST_KEYWORDS = 300
_LR = "{http://ns.adobe.com/lightroom/1.0/}"
# EXIF's description, and what Windows writes: title, subject, comment. Of its other fields the author's may be the owner.
_DESCRIPTION, _WINDOWS, _WINDOWS_KEYWORDS = 0x010E, (0x9C9B, 0x9C9F, 0x9C9C), 0x9C9E
_LICENSE_URL = re.compile(r"https?://(www\.)?(creativecommons|opensource|rightsstatements)\.org/", re.IGNORECASE)


def words_inside(contents: Contents) -> tuple[Credit, str]:
    """(what the file says of itself, the generator that marked it or "")."""
    credit = Credit()
    if contents.xmp:
        credit = xmp_credit(contents.xmp)
    if contents.iptc:
        credit = credit.or_else(iptc_credit(contents))
    if contents.exif and not credit.caption:
        credit = credit.or_else(exif_credit(contents.exif))
    if contents.texts:
        prompt, generator = generated(contents.texts)
        if generator:
            return credit.or_else(Credit(caption=clean(prompt))), generator
    return credit, ""


def xmp_credit(packet: bytes) -> Credit:
    """Title, description, creator, rights, usage terms and web statement of an XMP packet (ISO 16684-1)."""
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(packet.strip(b"\0 \r\n\t").decode("utf-8", "replace"))
    except Exception:
        return Credit()  # not XML, or more than XMP needs of it: entities, a DTD
    found: dict[str, str] = {}
    keywords: list[str] = []
    rdf = root if root.tag == f"{_RDF}RDF" else root.find(f"{_RDF}RDF")
    for node in [] if rdf is None else rdf.findall(f"{_RDF}Description"):  # not those inside others, which may be many
        for name, value in [*node.attrib.items(), *((child.tag, _value(child)) for child in node)]:
            if text := clean(value):
                found.setdefault(name, text)
        keywords += [text for name in (f"{_DC}subject", f"{_LR}hierarchicalSubject") for text in _listed(node, name)]
    return _credit(
        title=found.get(f"{_DC}title", ""), description=found.get(f"{_DC}description", ""),
        creator=found.get(f"{_DC}creator", ""), terms=found.get(f"{_RIGHTS}UsageTerms", ""),
        rights=found.get(f"{_DC}rights", ""), web=found.get(f"{_RIGHTS}WebStatement", ""),
        license=found.get(f"{_CC}license", ""), headline=found.get(f"{_PHOTOSHOP}Headline", ""), keywords=keywords,
    )  # fmt: skip


def _listed(node, name: str) -> list[str]:
    """The items of a property that is a list."""
    lists = (bag for child in node if child.tag == name for bag in child)
    return [item.text or "" for bag in lists for item in bag if item.tag == f"{_RDF}li"]


def _value(node) -> str:
    """The text of a property: itself, rdf:resource, the default of its languages, or all of its list."""
    items = list(node.iter(f"{_RDF}li"))
    if not items:
        return node.attrib.get(f"{_RDF}resource") or node.text or ""
    if any(_XML_LANG in item.attrib for item in items):
        items = [item for item in items if item.attrib.get(_XML_LANG) == "x-default"][:1] or items[:1]
    return ", ".join(text for item in items if (text := (item.text or "").strip()))


def iptc_credit(contents: Contents) -> Credit:
    """Title, caption, keywords, byline and copyright notice of IPTC-IIM, read by Pillow from a JPEG's Photoshop block."""
    from PIL import IptcImagePlugin, JpegImagePlugin

    try:
        # The blocks before the first table of a picture, as Pillow reads them from a file's beginning.
        data = contents.pixels[:2] + b"".join(contents.iptc) + contents.pixels[2:]
        fields = IptcImagePlugin.getiptcinfo(JpegImagePlugin.JpegImageFile(io.BytesIO(data))) or {}
    except Exception:
        return Credit()
    utf8 = fields.get((1, 90)) == b"\x1b%G"

    def texts(number: int) -> list[str]:
        value = fields.get((2, number), b"")
        return [decoded(each) for each in (value if isinstance(value, list) else [value])]

    def decoded(value: bytes) -> str:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("utf-8" if utf8 else "cp1252", "replace")

    title, description, creator, rights, headline = (", ".join(texts(number)) for number in (5, 120, 80, 116, 105))
    return _credit(title, description, creator, rights=rights, headline=headline, keywords=texts(25))


def exif_credit(block: bytes) -> Credit:
    """The description of EXIF, and the title, subject, comment and tags that Windows writes. Its authors stay out: a camera
    writes its owner there."""
    exif = exif_of(block)

    def text(tag: int) -> str:
        try:
            value = exif.get(tag, "")
        except Exception:  # Pillow reads a tag when it is asked for, and some are damaged
            return ""
        if isinstance(value, tuple) and all(type(byte) is int and 0 <= byte < 256 for byte in value):
            value = bytes(value)
        if isinstance(value, bytes):
            value = value.decode("utf-16-le" if tag >= 0x9C9B else "utf-8", "replace")
        return value.strip("\0 ") if isinstance(value, str) else ""

    description = text(_DESCRIPTION)
    if _NO_DESCRIPTION.fullmatch(description) and not description.istitle():
        description = ""
    windows = next((found for found in map(text, _WINDOWS) if found), "")
    return _credit(windows, description, keywords=text(_WINDOWS_KEYWORDS).split(";"))


def _credit(
    title="",
    description="",
    creator="",
    terms="",
    rights="",
    web="",
    license="",
    headline="",
    keywords: Sequence[str] = (),
) -> Credit:
    caption = next(
        (text for text in map(clean, (description, headline, title)) if text and not _PLACEHOLDER.fullmatch(text)), ""
    )
    is_license = bool(_LICENSE_URL.match(web))
    licence = license or (web if is_license else "") or terms or rights
    source = web if re.match(r"https?://", web) and not is_license else ""
    return Credit(caption, "", clean(creator), clean(licence), clean(source), clean(_joined(keywords)))


def _joined(keywords: Sequence[str]) -> str:
    """Keywords as an artist filed them, each once: of "Footwear|Boots" both words. What darktable notes for itself is none."""
    found: dict[str, str] = {}
    for keyword in keywords[:MOST_KEYWORDS]:
        if not keyword.startswith("darktable|"):
            for part in map(clean, keyword.split("|")):
                found.setdefault(part.casefold(), part)
    return ", ".join(filter(None, found.values()))


def generated(texts: dict[str, str]) -> tuple[str, str]:
    """(prompt, generator) of a PNG that A1111 and its kin, ComfyUI, InvokeAI or NovelAI wrote; ("", "") for others."""
    if "parameters" in texts:
        prompt = re.split(r"\n(?:Negative prompt:|Steps:)", "\n" + texts["parameters"].strip(), maxsplit=1)[0]
        return prompt.strip(), "AUTOMATIC1111" if "Steps:" in texts["parameters"] else "a generator"
    if "prompt" in texts and (graph := _object(texts["prompt"])):
        if any(isinstance(node, dict) and "class_type" in node for node in graph.values()):
            return comfy_prompt(graph), "ComfyUI"
    if "workflow" in texts and "nodes" in _object(texts["workflow"]):
        return "", "ComfyUI"
    if metadata := _object(texts.get("invokeai_metadata", "")) or _object(texts.get("sd-metadata", "")):
        return str(metadata.get("positive_prompt") or ""), "InvokeAI"
    if "Dream" in texts:
        return texts["Dream"].split('" -')[0].strip('"'), "InvokeAI"
    if texts.get("Software", "").startswith("NovelAI"):
        return texts.get("Description", ""), "NovelAI"
    return "", ""


def _object(text: str) -> dict:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def comfy_prompt(graph: dict) -> str:
    """The text that leads into the first sampler's `positive` in a ComfyUI prompt; else the longest text of all."""

    def inputs(key: object) -> dict:
        node = graph.get(str(key))
        found = node.get("inputs") if isinstance(node, dict) else None
        return found if isinstance(found, dict) else {}

    def text_before(key: object) -> str:
        waiting, seen = [key], set[str]()
        while waiting and len(seen) < 1000:
            key = str(waiting.pop(0))
            if key in seen:
                continue
            seen.add(key)
            for name in ("text", "clip_l", "t5xxl", "text_g", "prompt", "string", "value"):
                if isinstance(text := inputs(key).get(name), str) and text.strip():
                    return text
            waiting += [value[0] for value in inputs(key).values() if isinstance(value, list) and value]
        return ""

    for key in graph:
        link = inputs(key).get("positive") or inputs(key).get("conditioning")
        if (
            isinstance(link, list)
            and link
            and "seed" in str(inputs(key).keys()) + str(graph[key].get("class_type", "")).lower()
        ):
            if text := text_before(link[0]):
                return text
    texts = [inputs(key).get("text") for key in graph]
    return max((text for text in texts if isinstance(text, str)), key=len, default="")
