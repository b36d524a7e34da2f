"""Photos dropped on Build Reference Library: brought to the input folder, chosen there, and built into a library."""

from __future__ import annotations

import base64
import io
import zipfile

import pytest
from made_photos import photo_bytes
from real_page import RealPage

NODE = "RealRAG_BuildLibrary"
PHOTOS = {f"{color} {n}.jpg": photo_bytes(rgb, n) for n in (1, 2) for color, rgb in
          {"red": (230, 20, 20), "blue": (20, 20, 230)}.items()}  # fmt: skip
NEW = """(kind) => { const node = LiteGraph.createNode(kind); app.graph.add(node); node.pos = [60, 80]; return node.id; }"""
DROP = """async ([id, files]) => {
    const node = app.graph.getNodeById(id);
    const data = new DataTransfer();
    for (const [name, text] of files)
        data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
    if (!node.onDragOver({ dataTransfer: data })) return "refused";
    return String(await node.onDragDrop({ dataTransfer: data }));
}"""


def drop(page: RealPage, node: int, files: dict[str, bytes]) -> None:
    taken = page.evaluate(DROP, [node, [(name, base64.b64encode(data).decode()) for name, data in files.items()]])
    assert taken == "true"


def zipped(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return archive.getvalue()


def named(page: RealPage, node: int, name: str) -> None:
    page.evaluate(
        "([id, name]) => { app.graph.getNodeById(id).widgets.find((each) => each.name === 'name').value = name; }",
        [node, name],
    )


OFFERED = """(library) => app.graph.nodes.find((node) => node.type === "RealRAG_LoadRetriever").widgets[0].options.values
    .includes(library)"""


@pytest.mark.parametrize("kind", ["pictures", "zip"])
def test_dropped_photos_become_a_library_that_the_loader_offers(page: RealPage, kind: str):
    library = f"dropped {kind} {page.version} {page.nodes2}".replace(".", "-")
    node = page.evaluate(NEW, NODE)
    page.evaluate(NEW, "RealRAG_LoadRetriever")
    named(page, node, library)
    if kind == "zip":
        drop(page, node, {f"{library}.zip": zipped(PHOTOS)})
        assert page.widgets(NODE)["photos"] == f"{library}.zip"
    else:
        drop(page, node, {**PHOTOS, "notes.docx": b"no photo"})
        assert page.widgets(NODE)["photos"] == library
        assert sorted(path.name for path in (page.server.base / "input" / library).iterdir()) == sorted(PHOTOS)
    page.run()
    page.page.wait_for_function(OFFERED, arg=library)  # the page asks the server for its lists anew
    assert (page.server.base / "models" / "realrag" / library / "manifest.json").is_file()


def test_a_second_zip_of_the_same_name_does_not_take_the_first_ones_place(page: RealPage):
    node = page.evaluate(NEW, NODE)
    name = f"twice {page.version} {page.nodes2}".replace(".", "-")
    drop(page, node, {f"{name}.zip": zipped(dict(list(PHOTOS.items())[:1]))})
    drop(page, node, {f"{name}.zip": zipped(PHOTOS)})
    chosen = page.widgets(NODE)["photos"]
    assert chosen != f"{name}.zip"
    with zipfile.ZipFile(page.server.base / "input" / chosen) as archive:
        assert sorted(archive.namelist()) == sorted(PHOTOS)


def test_what_is_no_photo_is_refused_in_words(page: RealPage):
    node = page.evaluate(NEW, NODE)
    before = page.widgets(NODE)["photos"]
    drop(page, node, {"report.docx": b"words"})
    page.page.get_by_text("That is no photo, folder of photos or .zip file.").first.wait_for()
    assert page.widgets(NODE)["photos"] == before
