"""A .zip or .tar of photos is read in place: as the folder itself, or inside one; what cannot be read is named."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from realrag.errors import RealRAGError
from realrag.photos.other_names import OtherName, read_names
from realrag.photos.scan import scan


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


FILES = {
    "audi/1.jpg": jpeg(1), "audi/1.txt": b"a red car", "saab/2.jpg": jpeg(2), "3.jpg": jpeg(3),
    "__MACOSX/audi/._1.jpg": b"x", "saab/.hidden.jpg": jpeg(5),
}  # fmt: skip


def zipped(path, files=FILES, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("audi") if hasattr(archive, "mkdir") else None
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_a_folder(tmp_path, method):
    library = scan(zipped(tmp_path / "cars.zip", method=method))
    assert [(item.file, item.credit.class_name) for item in library.candidates] == [
        ("3.jpg", ""), ("audi/1.jpg", "audi"), ("saab/2.jpg", "saab"),
    ]  # fmt: skip
    assert library.candidates[1].credit.caption == "a red car" and not library.rejected
    assert [item.source.read() for item in library.candidates] == [jpeg(3), jpeg(1), jpeg(2)]
    assert any("1 x file in a system folder of an archive" in note for note in library.notes)


def test_other_names_of_classes_are_read_in_a_zip_and_said_where_they_are_not(tmp_path):
    table = b"class,language,name\naudi,de,Flitzer\n"
    library = scan(zipped(tmp_path / "cars.zip", {**FILES, "names.csv": table, "saab/names.csv": table}))
    assert read_names(library.names) == [OtherName("audi", "de", "Flitzer")]
    assert "1 .csv file belongs to no photo (first: saab/names.csv)." in library.notes
    library = scan(zipped(tmp_path / "wrong.zip", {**FILES, "names.csv": b"class,title\naudi,Flitzer\n"}))
    with pytest.raises(RealRAGError, match=r"wrong.zip.names.csv has no column 'name'"):
        read_names(library.names)


def test_zips_and_tars_inside_a_folder_are_read_too(tmp_path):
    zipped(tmp_path / "a.zip")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        info = tarfile.TarInfo("lada/4.jpg")
        info.size = len(jpeg(4))
        tar.addfile(info, io.BytesIO(jpeg(4)))
    found = scan(tmp_path, archives=True)
    assert [(item.file, item.credit.class_name) for item in found.candidates] == [
        ("a.zip/3.jpg", ""), ("a.zip/audi/1.jpg", "audi"), ("a.zip/saab/2.jpg", "saab"), ("b.tar/lada/4.jpg", "lada"),
    ]  # fmt: skip
    assert [item.file for item in scan(tmp_path / "b.tar").candidates] == ["lada/4.jpg"]


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda data: data.replace(jpeg(1)[-60:-20], b"\0" * 40), "damaged"),
        (lambda data: data[: len(data) // 2], "damaged"),
        (lambda data: b"no archive", "damaged"),
    ],
)
def test_a_damaged_zip_or_member_is_named(tmp_path, spoil, reason):
    path = zipped(tmp_path / "cars.zip", method=zipfile.ZIP_STORED)
    path.write_bytes(spoil(path.read_bytes()))
    rejected = scan(path).rejected
    assert [item.reason for item in rejected] == [reason] and "cars.zip" in rejected[0].message


def test_names_that_lead_out_of_the_archive_stay_inside(tmp_path):
    path = zipped(tmp_path / "cars.zip", {"../../saab/2.jpg": jpeg(2), "C:\\audi\\1.jpg": jpeg(1)})
    assert [item.file for item in scan(path).candidates] == ["C:/audi/1.jpg", "saab/2.jpg"]


def test_another_file_is_no_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(RealRAGError, match=r"the folder that holds your photos, or a \.zip or \.parquet file"):
        scan(tmp_path / "notes.txt")
