"""What a file is, by its first bytes; and what the suffixes of files that we do not read are called in a report."""

from __future__ import annotations

# The formats that are decoded. HEIF needs the extra `realrag[heic]`.
READ = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "HEIF")
# Suffixes that promise a picture we read. The content decides; the suffix only says that a file claims to be a photo.
PHOTO_SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".jif": "JPEG", ".mpo": "JPEG", ".png": "PNG",
    ".apng": "PNG", ".webp": "WEBP", ".avif": "AVIF", ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF", ".bmp": "BMP",
    ".dib": "BMP", ".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF",
}  # fmt: skip
RAW_SUFFIXES = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2"
    " .srf .srw .x3f".split()
)
# Pictures that an artist would call photos or drawings, and that are not decoded: each is named in the report.
FOREIGN_SUFFIXES = {
    **dict.fromkeys(RAW_SUFFIXES, "a camera's raw file"), ".jxl": "JPEG XL", ".jp2": "JPEG 2000", ".j2k": "JPEG 2000",
    ".psd": "Photoshop", ".psb": "Photoshop", ".xcf": "GIMP", ".kra": "Krita", ".svg": "SVG", ".exr": "OpenEXR",
    ".hdr": "Radiance HDR", ".tga": "Targa", ".ico": "an icon", ".dds": "DirectDraw", ".qoi": "QOI", ".clip": "Clip Studio",
}  # fmt: skip
# Files of words and of programs that stand beside photos; they are never opened as pictures.
COMPANION_SUFFIXES = frozenset(".txt .json .jsonl .ndjson .csv .tsv .parquet .xmp .caption .token .cls".split())

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}


def kind_of(data: bytes) -> str:
    """The format of a file's first 64 bytes or more: one of READ, another format's name, or "" for none known."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "a camera's raw file" if data[8:10] == b"CR" else "TIFF"
    if data[4:8] == b"ftyp":
        return _boxed(data)
    if data.startswith(b"BM") and data[6:10] == bytes(4) and data[14:18] in _BMP_HEADERS:
        return "BMP"
    return next((name for mark, name in _FOREIGN_MARKS if data.startswith(mark)), "")


def _boxed(data: bytes) -> str:
    """AVIF, HEIF and their relatives: by the major brand, then by the compatible ones."""
    length = min(int.from_bytes(data[:4], "big"), len(data))
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, length - 3, 4))]
    for brand in brands:
        if brand in (b"avif", b"avis"):
            return "AVIF"
        if brand in _HEIF_BRANDS:
            return "HEIF"
        if brand == b"crx ":
            return "a camera's raw file"
    return "HEIF" if {b"mif1", b"msf1"} & set(brands) else "a video"


_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}
_FOREIGN_MARKS = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"gimp xcf", "GIMP"),
    (b"<svg", "SVG"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (b"IIRO", "a camera's raw file"),
    (b"IIU\0", "a camera's raw file"),
    (b"FOVb", "a camera's raw file"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"qoif", "QOI"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
)
