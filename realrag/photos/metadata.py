"""Words inside a photo's own file: XMP and IPTC captions and credits, and the prompt that a generator left there.

Nothing else of the metadata is looked at: no place, time, camera, owner or face.
"""

from __future__ import annotations

import io
import json
import re

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
_LICENSE_URL = re.compile(r"https?://(www\.)?(creativecommons|opensource|rightsstatements)\.org/", re.IGNORECASE)


def words_inside(contents: Contents) -> tuple[Credit, str]:
    """(what the file says of itself, the generator that marked it or "")."""
    credit = Credit()
    if contents.xmp:
        credit = xmp_credit(contents.xmp)
    if contents.iptc:
        credit = credit.or_else(iptc_credit(contents))
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
    for node in root.iter(f"{_RDF}Description"):
        for name, value in [*node.attrib.items(), *((child.tag, _value(child)) for child in node)]:
            if text := clean(value):
                found.setdefault(name, text)
    return _credit(
        title=found.get(f"{_DC}title", ""), description=found.get(f"{_DC}description", ""),
        creator=found.get(f"{_DC}creator", ""), terms=found.get(f"{_RIGHTS}UsageTerms", ""),
        rights=found.get(f"{_DC}rights", ""), web=found.get(f"{_RIGHTS}WebStatement", ""),
        license=found.get(f"{_CC}license", ""), headline=found.get(f"{_PHOTOSHOP}Headline", ""),
    )  # fmt: skip


def _value(node) -> str:
    """The text of a property: itself, rdf:resource, the default of its languages, or all of its list."""
    items = list(node.iter(f"{_RDF}li"))
    if not items:
        return node.attrib.get(f"{_RDF}resource") or node.text or ""
    if any(_XML_LANG in item.attrib for item in items):
        items = [item for item in items if item.attrib.get(_XML_LANG) == "x-default"][:1] or items[:1]
    return ", ".join(text for item in items if (text := (item.text or "").strip()))


def iptc_credit(contents: Contents) -> Credit:
    """Title, caption, byline and copyright notice of IPTC-IIM, read by Pillow from a JPEG's Photoshop block."""
    from PIL import IptcImagePlugin, JpegImagePlugin

    try:
        # The blocks before the first table of a picture, as Pillow reads them from a file's beginning.
        data = contents.pixels[:2] + b"".join(contents.iptc) + contents.pixels[2:]
        fields = IptcImagePlugin.getiptcinfo(JpegImagePlugin.JpegImageFile(io.BytesIO(data))) or {}
    except Exception:
        return Credit()
    utf8 = fields.get((1, 90)) == b"\x1b%G"

    def text(number: int) -> str:
        value = fields.get((2, number), b"")
        value = b", ".join(value) if isinstance(value, list) else value
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("utf-8" if utf8 else "cp1252", "replace")

    return _credit(title=text(5), description=text(120), creator=text(80), rights=text(116), headline=text(105))


def _credit(title="", description="", creator="", terms="", rights="", web="", license="", headline="") -> Credit:
    caption = next(
        (text for text in map(clean, (description, headline, title)) if text and not _PLACEHOLDER.fullmatch(text)), ""
    )
    is_license = bool(_LICENSE_URL.match(web))
    licence = license or (web if is_license else "") or terms or rights
    source = web if re.match(r"https?://", web) and not is_license else ""
    return Credit(caption=caption, author=clean(creator), licence=clean(licence), source=clean(source))


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
