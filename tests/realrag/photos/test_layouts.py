"""Folders as people and programs lay them out, indexed with exact counts."""

import io
import json
import tarfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_photos import photo_bytes
from PIL import Image, PngImagePlugin

from realrag.bundle.bundle import Bundle
from realrag.commands.main import main
from realrag.errors import RealRAGError
from realrag.indexing.build import build
from realrag.photos.match import Matcher
from realrag.photos.scan import scan

RED, GREEN, BLUE = (230, 20, 20), (20, 200, 20), (20, 20, 220)


def put(folder, files: dict[str, bytes | str]):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def photo(seed: int, format="JPEG") -> bytes:
    return photo_bytes(RED, seed, (48, 36), format)


def index(capsys, folder, out, *more: str) -> SimpleNamespace:
    """What `realrag index` reports."""
    capsys.readouterr()
    assert main(["index", str(folder), "--out", str(out), "--encoder", "realrag-small", "--json", *more]) == 0
    report = json.loads(capsys.readouterr().out)
    return SimpleNamespace(**{**report, "rejected": [SimpleNamespace(**item) for item in report["rejected"]]})


def words(library) -> dict[str, str]:
    return {item.file: item.credit.caption for item in library.candidates}


def xmp(**fields: str) -> bytes:
    tags = {
        "title": "dc:title", "description": "dc:description", "rights": "dc:rights", "terms": "xmpRights:UsageTerms"
    }  # fmt: skip
    body = ""
    for name, value in fields.items():
        if name in tags:
            body += f'<{tags[name]}><rdf:Alt><rdf:li xml:lang="x-default">{value}</rdf:li></rdf:Alt></{tags[name]}>'
        elif name == "creator":
            body += f"<dc:creator><rdf:Seq><rdf:li>{value}</rdf:li></rdf:Seq></dc:creator>"
    web = f' xmpRights:WebStatement="{fields["web"]}"' if "web" in fields else ""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/"'
        f' xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="48,12.5N"{web}>{body}'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def jpeg_with_xmp(seed: int, packet: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo(seed))).save(buffer, "JPEG", xmp=packet)
    return buffer.getvalue()


def test_kohya(tmp_path, capsys):
    folder = put(
        tmp_path / "kohya",
        {
            "10_ohwx man/a.png": photo(1, "PNG"), "10_ohwx man/a.txt": "ohwx man, smiling",
            "10_ohwx man/b.webp": photo(2, "WEBP"), "10_ohwx man/b.caption": "ohwx man on a bench",
            "10_ohwx man/c.jpg": photo(3),
            "10_ohwx man/left.txt": "belongs to nothing",
            "meta_cap.json": json.dumps({"c": {"tags": "1boy, outdoors", "caption": "a man outdoors"}, "d": {"tags": "x"}}),
        },
    )  # fmt: skip
    report = index(capsys, folder, tmp_path / "b")
    assert (report.found, report.indexed, len(report.rejected)) == (3, 3, 0)
    assert {record.file: record.caption for record in Bundle(tmp_path / "b").records} == {
        "10_ohwx man/a.png": "ohwx man, smiling",
        "10_ohwx man/b.webp": "ohwx man on a bench",
        "10_ohwx man/c.jpg": "a man outdoors",
    }
    assert report.notes == [
        "meta_cap.json: 1 of 2 rows name a photo here; without one: 1 (first: d).",
        "1 .txt file belongs to no photo (first: 10_ohwx man/left.txt).",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_hugging_face_imagefolder(tmp_path, capsys, suffix):
    rows = [
        {"file_name": "0001.png", "text": "a red thing, round"},
        {"file_name": "0002.png", "text": "another"},
        {"file_name": "0009.png", "text": "not here"},
    ]
    folder = put(
        tmp_path / "hf",
        {"train/0001.png": photo(1, "PNG"), "train/0002.png": photo(2, "PNG"), "test/0001.png": photo(3, "PNG")},
    )
    if suffix == "csv":
        put(
            folder,
            {"train/metadata.csv": 'file_name,text\n0001.png,"a red thing, round"\n0002.png,another\n0009.png,x\n'},
        )
    elif suffix == "jsonl":
        put(folder, {"train/metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        import pyarrow.parquet as parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train" / "metadata.parquet")
    report = index(capsys, folder, tmp_path / "b")
    assert (report.found, report.indexed) == (3, 3)
    assert {record.file: record.caption for record in Bundle(tmp_path / "b").records} == {
        "test/0001.png": "test", "train/0001.png": "a red thing, round", "train/0002.png": "another",
    }  # fmt: skip
    assert report.notes == [
        f"train/metadata.{suffix}: 2 of 3 rows name a photo here; without one: 1 (first: 0009.png).",
        "1 photo has no caption of its own (first: test/0001.png).",
    ]


def test_parquet_without_its_package_is_said_and_the_photos_are_indexed(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    library = scan(put(tmp_path, {"a.jpg": photo(1), "metadata.parquet": b"PAR1"}))
    assert len(library.candidates) == 1
    assert "pip install pyarrow" in library.notes[0]


def test_webdataset_is_read_without_unpacking(tmp_path, capsys):
    folder = tmp_path / "wds"
    folder.mkdir()
    members = {
        "000000000.jpg": photo(1), "000000000.txt": b"a red thing",
        "000000000.json": json.dumps(
            {"key": "000000000", "status": "success", "url": "https://example.org/1.jpg", "caption": "a red thing", "exif": "{}"}
        ).encode(),
        "000000001.webp": photo(2, "WEBP"), "000000001.txt": b"another",
        "dog/000000002.png": photo(3, "PNG"), "dog/000000002.cls": b"7",
        "000000003.txt": b"its photo could not be fetched",
    }  # fmt: skip
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    put(folder, {"00000_stats.json": "{}", "00000.parquet": b"PAR1"})
    report = index(capsys, folder, tmp_path / "b")
    assert (report.found, report.indexed, len(report.rejected)) == (3, 3, 0)
    records = {record.file: record for record in Bundle(tmp_path / "b").records}
    assert {file: (record.caption, record.class_name, record.source) for file, record in records.items()} == {
        "00000.tar/000000000.jpg": ("a red thing", "", "https://example.org/1.jpg"),
        "00000.tar/000000001.webp": ("another", "", ""),
        "00000.tar/dog/000000002.png": ("7", "7", ""),
    }
    assert sorted(path.name for path in folder.iterdir()) == ["00000.parquet", "00000.tar", "00000_stats.json"]
    assert report.notes == [
        "1 table was not read, as only captions, metadata and credits are (first: 00000.parquet). Give one with --captions.",
        "1 .json file belongs to no photo (first: 00000_stats.json).",
        "1 .txt file belongs to no photo (first: 00000.tar/000000003.txt).",
        "1 photo has no caption of its own (first: 00000.tar/dog/000000002.png).",
    ]
    again = index(capsys, folder, tmp_path / "b")
    assert (again.encoded, again.removed, again.bundle_id) == (0, 0, report.bundle_id)


def test_a_tar_that_is_damaged_is_named(tmp_path):
    library = scan(put(tmp_path, {"a.jpg": photo(1), "b.tar": b"no tar" * 200}), archives=True)
    assert [(item.file, item.reason) for item in library.rejected] == [("b.tar", "damaged")]
    assert len(library.candidates) == 1


def test_lightroom_export_with_sidecars(tmp_path, capsys):
    inside = xmp(description="Heron at dawn", creator="Ann", terms="CC BY 4.0", web="https://ann.example/heron")
    folder = put(
        tmp_path / "export",
        {
            "IMG_1.jpg": jpeg_with_xmp(1, inside),
            "IMG_2.jpg": photo(2), "IMG_2.xmp": xmp(title="Kingfisher", creator="Ann", rights="All rights reserved"),
            "IMG_3.jpg": jpeg_with_xmp(3, xmp(description="OLYMPUS DIGITAL CAMERA")),
            "IMG_4.jpg": photo(4), "IMG_4.CR3": b"\0\0\0\x18ftypcrx ", "IMG_5.CR3": b"\0\0\0\x18ftypcrx ",
            "Previews.lrdata/0.jpg": photo(5), ".DS_Store": b"x", "Export.lrtemplate": "x", "@eaDir/IMG_1.jpg/S.jpg": photo(6),
        },
    )  # fmt: skip
    report = index(capsys, folder, tmp_path / "b", "--max-rejected", "20")
    assert (report.found, report.indexed) == (5, 4)
    assert [(item.file, item.reason) for item in report.rejected] == [("IMG_5.CR3", "unsupported_format")]
    found = {record.file: record for record in Bundle(tmp_path / "b").records}
    one, two = found["IMG_1.jpg"], found["IMG_2.jpg"]
    assert (one.caption, one.author, one.licence, one.source) == (
        "Heron at dawn", "Ann", "CC BY 4.0", "https://ann.example/heron",
    )  # fmt: skip
    assert (two.caption, two.author, two.licence) == ("Kingfisher", "Ann", "All rights reserved")
    assert found["IMG_3.jpg"].caption == "IMG 3"
    assert report.notes == [
        "2 photos have no captions of their own (first: IMG_3.jpg).",
        "Passed over: 1 x .lrtemplate file, 1 x hidden file, 1 x raw file beside its photo, 1 x system folder "
        "@eaDir, 1 x system folder Previews.lrdata.",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.txt", "image,caption\na.jpg,A child in a dress .\na.jpg,A girl .\nb.jpg,A dog .\n"),
        ("Flickr8k.token.txt", "a.jpg#0\tA child in a dress .\na.jpg#1\tA girl .\nb.jpg#0\tA dog .\n"),
        (
            "results.csv",
            "image_name| comment_number| comment\na.jpg| 0| A child in a dress .\na.jpg| 1| A girl .\nb.jpg| 0| A dog .\n",
        ),
    ],
)
def test_flickr8k_and_flickr30k(tmp_path, name, text):
    library = scan(put(tmp_path, {"Images/a.jpg": photo(1), "Images/b.jpg": photo(2), name: text}))
    assert words(library) == {"Images/a.jpg": "A child in a dress .", "Images/b.jpg": "A dog ."}
    assert f"{name}: 1 row repeats a photo; its first caption is kept." in library.notes


def test_open_clip_training_table(tmp_path):
    put(tmp_path / "images", {"a.jpg": photo(1), "b.jpg": photo(2)})
    table = tmp_path / "train.csv"
    table.write_text("filepath\ttitle\nimages/a.jpg\tred\n/data/set/images/b.jpg\tgreen\n")
    library = scan(tmp_path / "images", table)
    assert words(library) == {"a.jpg": "red", "b.jpg": "green"}
    assert library.notes == [f"{table}: its columns are separated by tabs."]


@pytest.mark.parametrize(
    ("row", "file"),
    [
        ("Bäume.jpg", "Ba\u0308ume.jpg"),
        ("A.JPG", "a.jpg"),
        ("a", "a.jpg"),
        ("a.png", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("/home/ann/set/red/a.jpg", "red/a.jpg"),
        ("C:\\photos\\red\\a.jpg", "red/a.jpg"),
        ("red\\a.jpg", "red/a.jpg"),
        ("./red/a.jpg", "red/a.jpg"),
        ("my%20photo.jpg", "my photo.jpg"),
        ("file:///home/ann/a.jpg", "a.jpg"),
        ("a.jpg", "deep/er/a.jpg"),
        ("1", "1.jpg"),
    ],
)
def test_a_row_finds_the_one_photo_that_it_can_mean(tmp_path, row, file):
    library = scan(put(tmp_path, {file: photo(1), "captions.csv": f'file,caption\n"{row}",found\n'}))
    assert words(library) == {file: "found"}


@pytest.mark.parametrize(
    ("rows", "files"),
    [
        (["a.jpg"], ["x/a.jpg", "y/a.jpg"]),
        (["a"], ["a.jpg", "a.png"]),
        (["train/a.jpg", "val/a.jpg"], ["a.jpg"]),
        (["train/a.jpg"], ["test/a.jpg"]),
        (["A.jpg"], ["a.JPG", "a.jpg"]),
    ],
)
def test_a_row_that_could_mean_several_photos_or_none_is_said(tmp_path, rows, files):
    table = "file,caption\n" + "".join(f"{row},wrong\n" for row in rows)
    library = scan(
        put(tmp_path / "photos", {**{file: photo(at) for at, file in enumerate(files)}, "captions.csv": table})
    )
    assert "wrong" not in words(library).values()
    assert (
        f"captions.csv: 0 of {len(rows)} rows name a photo here; without one: {len(rows)} (first: {rows[0]})."
        in library.notes
    )


def test_the_folders_own_name_tells_parts_of_a_data_set_from_each_other(tmp_path):
    table = "file,caption\ntrain/a.jpg,of the other part\ntest/a.jpg,right\n"
    library = scan(put(tmp_path / "test", {"a.jpg": photo(1), "captions.csv": table}))
    assert words(library) == {"a.jpg": "right"}


def test_a_name_that_every_folder_has_is_looked_up_once():
    """20,000 rows from another disk, of photos that are all called 1.jpg."""
    files = [f"{number}/1.jpg" for number in range(20_000)]
    matcher = Matcher(files, Path("photos"))
    assert all(matcher.find(f"/mnt/other/{file}", "") == (file, 2) for file in files)
    assert matcher.find("1.jpg", "") is None


def test_several_tables_are_merged_and_the_first_that_says_a_field_counts(tmp_path):
    library = scan(
        put(
            tmp_path,
            {
                "a.jpg": photo(1),
                "captions.csv": "file,caption\na.jpg,from captions\n",
                "metadata.jsonl": '{"file_name": "a.jpg", "text": "from metadata", "label": "apple"}\n',
                "credits.csv": "file,author,license\na.jpg,Ann,CC0-1.0\n",
            },
        )
    )
    credit = library.candidates[0].credit
    assert (credit.caption, credit.class_name, credit.author, credit.licence) == (
        "from captions",
        "apple",
        "Ann",
        "CC0-1.0",
    )


def test_a_table_without_a_column_for_the_photo_names_the_columns_it_has(tmp_path):
    with pytest.raises(RealRAGError, match="its columns are 'picture_ref', 'words'"):
        scan(put(tmp_path, {"a.jpg": photo(1), "captions.csv": "picture_ref,words\na.jpg,x\n"}))


def test_empty_cells_of_pandas_and_lists_of_captions(tmp_path):
    rows = '{"file": "a.jpg", "caption": ["first", "second"], "label": "nan"}\n{"file": "b.jpg", "caption": NaN}\n'
    library = scan(put(tmp_path, {"a.jpg": photo(1), "b.jpg": photo(2), "captions.jsonl": rows}))
    assert words(library) == {"a.jpg": "first", "b.jpg": "b"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("name", ["a.txt", "a.jpg.txt", "a.caption", "A.TXT"])
def test_text_beside_a_photo_in_any_encoding(tmp_path, encoding, name):
    library = scan(put(tmp_path, {"a.jpg": photo(1), name: "Bäume am Fluß".encode(encoding)}))
    assert words(library) == {"a.jpg": "Bäume am Fluß"}


def test_a_text_that_cannot_be_read_costs_its_own_photo_only(tmp_path):
    library = scan(
        put(
            tmp_path,
            {
                "a.jpg": photo(1),
                "a.txt": b"\0\x81\xff",
                "b.jpg": photo(2),
                "b.txt": b"x" * (2 << 20),
                "c.jpg": photo(3),
            },
        )
    )
    assert [item.file for item in library.candidates] == ["c.jpg"]
    assert [(item.file, item.reason) for item in library.rejected] == [
        ("a.jpg", "bad_sidecar"),
        ("b.jpg", "bad_sidecar"),
    ]


def test_a_strangers_export_gives_its_caption_and_nothing_else(tmp_path):
    takeout = {
        "title": "IMG_1.jpg", "description": "Heron at dawn", "url": "https://photos.google.com/photo/SECRET", "creator": "Ann",
        "photoTakenTime": {"timestamp": "1"}, "geoData": {"latitude": 48.2}, "people": [{"name": "Bob"}],
    }  # fmt: skip
    library = scan(
        put(
            tmp_path,
            {
                "IMG_1.jpg": photo(1),
                "IMG_1.jpg.json": json.dumps(takeout),
                "IMG_2.jpg": photo(2),
                "IMG_2.jpg.supplemental-metadata.json": json.dumps(takeout | {"description": ""}),
                "IMG_3.jpg": photo(3),
                "IMG_3.json": json.dumps({"caption": "own", "url": "https://x/SECRET", "session": "1"}),
                "IMG_4.jpg": photo(4),
                "IMG_4.json": json.dumps({"caption": "own", "source": "https://example.org", "x": 1}),
            },
        )
    )
    found = {item.file: item.credit for item in library.candidates}
    assert (found["IMG_1.jpg"].caption, found["IMG_1.jpg"].source, found["IMG_1.jpg"].author) == (
        "Heron at dawn",
        "",
        "",
    )
    assert found["IMG_2.jpg"].caption == "IMG 2"
    assert (found["IMG_3.jpg"].caption, found["IMG_3.jpg"].source) == ("own", "")
    assert found["IMG_4.jpg"].source == "https://example.org"
    assert "SECRET" not in str(library.candidates)


def png_with_text(seed: int, **texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo(seed))).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def test_pictures_of_a_generator_are_marked_and_counted(tmp_path, encoder):
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["6", 0], "negative": ["7", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a heron at dawn"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly, blurry, and much longer than the other text"}},
    }
    a1111 = "a kingfisher, <lora:x:1>\nNegative prompt: ugly\nSteps: 20, Sampler: Euler, Seed: 1"
    folder = put(
        tmp_path / "photos",
        {
            "comfy.png": png_with_text(1, prompt=json.dumps(graph), workflow="{}"),
            "a1111.png": png_with_text(2, parameters=a1111),
            "real.png": png_with_text(3, Comment="a real photo"),
            "given.png": png_with_text(4, parameters=a1111), "given.txt": "its own words",
        },
    )  # fmt: skip
    report = build(folder, tmp_path / "b", encoder)
    found = {record.file: (record.caption, record.source) for record in Bundle(tmp_path / "b").records}
    assert found == {
        "a1111.png": ("a kingfisher, <lora:x:1>", "generated by AUTOMATIC1111, says the file"),
        "comfy.png": ("a heron at dawn", "generated by ComfyUI, says the file"),
        "given.png": ("its own words", "generated by AUTOMATIC1111, says the file"),
        "real.png": ("real", ""),
    }
    assert report.generated == 3
    assert "3 photos carry a generator's mark and may not be real (first: a1111.png)." in report.notes


@pytest.mark.parametrize(
    "folder",
    [
        "@eaDir",
        "#recycle",
        "@Recycle",
        "$RECYCLE.BIN",
        "__MACOSX",
        "lost+found",
        "System Volume Information",
        ".hidden",
    ],
)
def test_folders_of_deleted_files_and_previews_are_passed_over_and_counted(tmp_path, folder):
    library = scan(put(tmp_path, {"a.jpg": photo(1), f"{folder}/b.jpg": photo(2)}))
    assert [item.file for item in library.candidates] == ["a.jpg"]
    assert library.notes[-1].startswith("Passed over: 1 x ")


def test_links_to_folders_a_bundle_and_other_files_are_named(tmp_path, encoder):
    folder = put(
        tmp_path / "photos",
        {"a.jpg": photo(1), "movie.mov": b"\0\0\0\x14ftypqt  ", "notes.docx": b"PK\3\4", "README": "x"},
    )
    put(tmp_path / "elsewhere", {"b.jpg": photo(2)})
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    build(folder, folder / "bundle", encoder)
    library = scan(folder)
    assert [item.file for item in library.candidates] == ["a.jpg"]
    assert library.notes == [
        "1 linked folder is not followed (first: linked).",
        "1 photo has no caption of its own (first: a.jpg).",
        "Passed over: 1 x .docx file, 1 x .mov file, 1 x file without a suffix, 1 x folder that is a bundle.",
    ]


def test_a_photo_of_another_format_than_its_name_is_read_and_said(tmp_path):
    library = scan(put(tmp_path, {"a.jpg": photo(1, "WEBP"), "b": photo(2), "c.dat": photo(3, "PNG")}))
    assert [item.file for item in library.candidates] == ["a.jpg", "b", "c.dat"]
    assert not library.rejected
    assert any(
        note.startswith("1 file is of another format than its name says, and was read (first: a.jpg is WEBP)")
        for note in library.notes
    )


def test_the_longest_name_a_disk_allows_needs_no_sidecar(tmp_path):
    name = "x" * 251 + ".jpg"
    library = scan(put(tmp_path, {name: photo(1)}))
    assert [item.file for item in library.candidates] == [name]


def test_private_bytes_of_no_format_reach_the_bundle(tmp_path, encoder):
    secret = b"SECRETSECRET"
    exif = Image.Exif()
    exif[0x010F], exif[0xA431] = secret.decode(), secret.decode()
    packet = xmp(description="a heron").replace(b"48,12.5N", secret)
    image = Image.open(io.BytesIO(photo(9)))
    files = {}
    for format, options in {
        "JPEG": {"exif": exif, "xmp": packet, "comment": secret}, "PNG": {"exif": exif.tobytes()}, "WEBP": {"exif": exif, "xmp": packet},
        "AVIF": {"exif": exif.tobytes(), "xmp": packet}, "TIFF": {"exif": exif}, "GIF": {"comment": secret},
    }.items():  # fmt: skip
        buffer = io.BytesIO()
        image.rotate(len(files), fillcolor=RED).save(buffer, format, **options)
        files[f"a.{format.lower()}"] = buffer.getvalue()
        assert secret in files[f"a.{format.lower()}"], format
    if find_spec("pillow_heif") is not None:
        from pillow_heif import from_pillow

        buffer = io.BytesIO()
        from_pillow(image.rotate(7, fillcolor=RED)).save(buffer, exif=exif.tobytes(), xmp=packet)
        files["a.heic"] = buffer.getvalue()
        assert secret in files["a.heic"]
    # Maker notes, IPTC, a thumbnail and what phones put behind the picture: segments of a JPEG, whatever they hold.
    plain = photo(10)
    segments = b"".join(
        bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body
        for marker, body in (
            (0xE1, b"Exif\0\0" + secret),
            (0xED, b"Photoshop 3.0\0" + secret),
            (0xEC, secret),
            (0xE2, b"MPF\0" + secret),
        )
    )
    files["segments.jpg"] = plain[:2] + segments + plain[2:] + secret + photo(11)
    report = build(put(tmp_path / "photos", files), tmp_path / "b", encoder)
    assert report.indexed == len(files)
    bundle = Bundle(tmp_path / "b", tmp_path / "cache")
    assert {record.caption for record in bundle.records if record.file != "a.png"} >= {"a heron"}
    for path in [*(tmp_path / "b").rglob("*"), *(tmp_path / "cache").rglob("*")]:
        assert not path.is_file() or secret not in path.read_bytes(), path
    assert all(not bundle.image(record).info for record in bundle.records)


def test_the_number_of_a_file_stands_apart_from_its_name(tmp_path):
    for name in ("robot2", "IMG_0007", "T3"):
        (tmp_path / f"{name}.jpg").write_bytes(photo_bytes((9, 9, 9), len(name)))
    assert sorted(item.credit.caption for item in scan(tmp_path).candidates) == ["IMG 0007", "T3", "robot 2"]


def test_named_folders_need_no_captions_and_the_lack_of_some_is_said(tmp_path):
    folder = put(tmp_path, {"Bello/IMG_1.jpg": photo(1), "Mimi/IMG_2.jpg": photo(2)})
    assert scan(folder).notes == []
    (folder / "Mimi" / "IMG_2.txt").write_text("Mimi asleep")
    assert scan(folder).notes == ["1 photo has no caption of its own (first: Bello/IMG_1.jpg)."]
    put(tmp_path / "phone", {"2023/08/IMG_1.jpg": photo(1), "Mimi/IMG_2.jpg": photo(2)})
    assert scan(tmp_path / "phone").notes == ["2 photos have no captions of their own (first: 2023/08/IMG_1.jpg)."]
