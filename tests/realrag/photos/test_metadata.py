"""Words inside a photo's own file."""

import io
import json
import struct

import pytest
from made_photos import photo_bytes
from PIL import Image

from realrag.photos.contents import contents_of
from realrag.photos.credit import Credit
from realrag.photos.decode import header
from realrag.photos.metadata import comfy_prompt, generated, words_inside, xmp_credit


def iptc_block(fields: dict[int, str | list[str]], encoding="utf-8") -> bytes:
    data = b"\x1c\x01\x5a\x00\x03\x1b%G" if encoding == "utf-8" else b""
    pairs = [(n, text) for n, value in fields.items() for text in (value if isinstance(value, list) else [value])]
    for number, text in pairs:
        body = text.encode(encoding)
        data += struct.pack(">BBBH", 0x1C, 2, number, len(body)) + body
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data + bytes(len(data) % 2)
    body = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_iptc_of_a_jpeg(encoding):
    data = photo_bytes((230, 20, 20))
    block = iptc_block({5: "Title", 120: "Bäume am Fluß", 80: "Änn", 116: "© Änn"}, encoding)
    contents = contents_of(data[:2] + block + data[2:], "a.jpg")
    assert words_inside(contents) == (Credit("Bäume am Fluß", "", "Änn", "© Änn"), "")
    assert b"Title" not in contents.pixels


@pytest.mark.parametrize(
    ("fields", "caption"),
    [
        ({25: ["heron", "Fluß", "Heron"]}, "heron, Fluß"),
        ({5: "DSC_0412", 25: "heron"}, "DSC_0412; heron"),
        ({120: "A heron at dawn", 25: ["heron", "dawn"]}, "A heron at dawn; heron, dawn"),
    ],
)
def test_keywords_of_iptc_stand_behind_the_caption(fields, caption):
    data = photo_bytes((230, 20, 20))
    inside, _ = words_inside(contents_of(data[:2] + iptc_block(fields) + data[2:], "a.jpg"))
    assert inside.joined() == Credit(caption)


def test_keywords_of_lightroom_and_darktable_are_words_of_the_photo():
    def bag(name: str, *items: str) -> str:
        return f"<{name}><rdf:Bag>{''.join(f'<rdf:li>{item}</rdf:li>' for item in items)}</rdf:Bag></{name}>"

    lr = 'xmlns:lr="http://ns.adobe.com/lightroom/1.0/"'
    both = bag("dc:subject", "boot", "fringe") + bag("lr:hierarchicalSubject", "Footwear|Boot|Western")
    assert xmp_credit(packet(both, lr)).joined() == Credit("boot, fringe, Footwear, Western")
    named = xmp_credit(packet(LANGUAGES + both, lr)).joined()
    assert named == Credit("Heron; boot, fringe, Footwear, Western", "", "Ann, Bob")
    noted = bag("dc:subject", "darktable|exported|jpg", "Yixing")
    assert xmp_credit(packet(noted)).joined() == Credit("Yixing")
    assert xmp_credit(
        packet(bag("dc:subject", *(["a long keyword"] * 3 + [f"k{n}" for n in range(900)])))
    ).keywords.startswith("a long keyword, k0, ")


def exif(**fields: object) -> bytes:
    found = Image.Exif()
    for tag, value in {"description": 0x010E, "title": 0x9C9B, "comment": 0x9C9C, "author": 0x9C9D, "tags": 0x9C9E, "owner": 0xA430, "make": 0x010F}.items():  # fmt: skip
        if tag in fields:
            value_of = fields[tag]
            found[value] = value_of.encode("utf-16-le") + b"\0\0" if 0x9C9B <= value <= 0x9C9F else value_of
    return photo_bytes((230, 20, 20), exif=found)


@pytest.mark.parametrize(
    ("fields", "caption"),
    [
        ({"description": "Bello jumping into the waves"}, "Bello jumping into the waves"),
        ({"description": "Bello"}, "Bello"),
        ({"title": "Größe", "tags": "Bello;Strand;bello"}, "Größe; Bello, Strand"),
        ({"comment": "at the beach", "author": "Jane", "owner": "Jane", "make": "Canon"}, "at the beach"),
        ({"description": "sdr_HDRB"}, ""),
        ({"description": "oznor"}, ""),
        ({"description": "OLYMPUS DIGITAL CAMERA"}, ""),
        ({"description": "Exif_JPEG_PICTURE"}, ""),
        ({"description": 'workflow:{"nodes": []}'}, ""),
        ({"description": "  "}, ""),
    ],
)
def test_the_description_of_exif_is_a_caption_and_nothing_of_the_camera_or_its_owner(fields, caption):
    assert words_inside(header(exif(**fields), "a.jpg")[1])[0].joined() == Credit(caption)


def test_keywords_take_no_captions_place():
    """A keyword of IPTC and a description of EXIF, as two programs write them, are both words of the photo."""
    data = exif(description="Bello jumping into the waves", tags="old")
    data = data[:2] + iptc_block({25: ["Bello", "beach"]}) + data[2:]
    inside, _ = words_inside(header(data, "a.jpg")[1])
    assert inside.joined().caption == "Bello jumping into the waves; Bello, beach"


def test_what_an_editor_wrote_counts_before_exif():
    data = exif(description="scan 12", tags="old")
    data = data[:2] + iptc_block({120: "A heron at dawn"}) + data[2:]
    assert words_inside(header(data, "a.jpg")[1])[0].joined() == Credit("A heron at dawn")


def packet(body: str, attributes: str = "") -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:cc="http://creativecommons.org/ns#"'
        f' xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/" {attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


LANGUAGES = (
    '<dc:description><rdf:Alt><rdf:li xml:lang="de">Reiher</rdf:li><rdf:li xml:lang="x-default">Heron</rdf:li></rdf:Alt>'
    "</dc:description><dc:creator><rdf:Seq><rdf:li>Ann</rdf:li><rdf:li>Bob</rdf:li></rdf:Seq></dc:creator>"
)
CC = "https://creativecommons.org/licenses/by/4.0/"


@pytest.mark.parametrize(
    ("xmp", "credit"),
    [
        (packet(LANGUAGES), Credit("Heron", "", "Ann, Bob")),
        (packet(f'<cc:license rdf:resource="{CC}"/>'), Credit(licence=CC)),
        (packet("", f'xmpRights:WebStatement="{CC}"'), Credit(licence=CC)),
        (packet("", 'xmpRights:WebStatement="https://ann.example"'), Credit(source="https://ann.example")),
        (packet("", 'xmpRights:WebStatement="javascript:alert(1)"'), Credit()),
        (packet("", 'dc:description="SONY DSC" dc:title="Heron"'), Credit("Heron")),
        (packet("", 'dc:description="Created with GIMP"'), Credit()),
        (b"<x", Credit()),
        (b"", Credit()),
        (b'<!DOCTYPE x [<!ENTITY a "b">]>' + packet("", 'dc:title="Heron"'), Credit()),
    ],
)
def test_xmp_gives_six_fields_and_no_more(xmp, credit):
    assert xmp_credit(xmp) == credit


@pytest.mark.slow
def test_a_packet_of_many_thousand_parts_inside_each_other_is_read_once():
    depth = 30_000
    nested = "<rdf:Description><dc:subject>" * depth + "</dc:subject></rdf:Description>" * depth
    assert xmp_credit(packet(LANGUAGES + nested)) == Credit("Heron", "", "Ann, Bob")


def test_entities_that_grow_are_refused():
    bomb = b'<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        f'<!ENTITY a{at} "{f"&a{at - 1};" * 10}">'.encode() for at in range(1, 12)
    )
    assert xmp_credit(bomb + b"]>" + packet("&a11;")) == Credit()


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "TIFF", "PNG"])
def test_xmp_is_found_in_every_format_that_carries_it(format):
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(photo_bytes((230, 20, 20))))
    if format == "PNG":
        from PIL import PngImagePlugin

        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet(LANGUAGES).decode())
        image.save(buffer, "PNG", pnginfo=info)
    elif format == "TIFF":
        image.save(buffer, "TIFF", tiffinfo={700: packet(LANGUAGES)})
    else:
        image.save(buffer, format, xmp=packet(LANGUAGES))
    _, contents = header(buffer.getvalue(), "a")
    assert words_inside(contents)[0] == Credit("Heron", "", "Ann, Bob")


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ({"parameters": "a heron\nNegative prompt: ugly\nSteps: 20"}, ("a heron", "AUTOMATIC1111")),
        ({"parameters": "two\nlines\nSteps: 20, Seed: 1"}, ("two\nlines", "AUTOMATIC1111")),
        ({"parameters": "Steps: 20"}, ("", "AUTOMATIC1111")),
        ({"workflow": '{"nodes": []}'}, ("", "ComfyUI")),
        ({"prompt": "a sentence and no graph"}, ("", "")),
        ({"prompt": "{}", "Comment": "x"}, ("", "")),
        ({"invokeai_metadata": '{"positive_prompt": "a heron"}'}, ("a heron", "InvokeAI")),
        ({"Dream": '"a heron" -s 50'}, ("a heron", "InvokeAI")),
        ({"Software": "NovelAI", "Description": "a heron"}, ("a heron", "NovelAI")),
        ({"Software": "GIMP 3", "Description": "a heron"}, ("", "")),
        ({"prompt": "[" * 100_000}, ("", "")),
    ],
)
def test_prompts_of_generators(texts, found):
    assert generated(texts) == found


def test_the_prompt_that_the_sampler_is_given_and_no_other():
    def encode(text):
        return {"class_type": "CLIPTextEncode", "inputs": {"text": text}}

    graph = {
        "1": encode("ugly, blurry, and longer than the other"),
        "2": encode("a heron"),
        "3": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["2", 0], "guidance": 3.5}},
        "4": {"class_type": "KSampler", "inputs": {"positive": ["3", 0], "negative": ["1", 0], "seed": 1}},
    }
    assert comfy_prompt(graph) == "a heron"
    assert (
        comfy_prompt({"1": encode("only"), "2": {"class_type": "KSampler", "inputs": {"positive": ["9", 0]}}}) == "only"
    )
    assert comfy_prompt({"1": {"class_type": "KSampler", "inputs": {"positive": ["1", 0], "seed": 1}}}) == ""
    assert comfy_prompt(json.loads('{"1": 3, "2": {"inputs": 4}, "3": {"inputs": {"positive": []}}}')) == ""
