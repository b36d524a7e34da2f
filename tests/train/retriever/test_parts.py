"""Photos are parted by content and near-copies; test photos that were trained on are refused."""

import csv
import io
import json
import tarfile

import numpy as np
import pytest
from fake_encoder import ColorEncoder
from PIL import ImageOps
from speckles import speckled

from realrag.bundle.bundle import Bundle
from realrag.errors import RealRAGError
from realrag_train.dataset import load_material, read_prompts
from realrag_train.retriever import run as stages
from realrag_train.retriever.parts import PARTS, Fractions, assign, near_copies
from realrag_train.retriever.recipe import Data, Recipe
from realrag_train.retriever.run import Run


def write(folder, photos):
    """{file: picture} as JPEG."""
    for file, image in photos.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=95)
    return folder


def world(folder, classes=3, each=8, first=0):
    return write(folder, {
        f"class {c}/{n}.jpg": speckled(first + 100 * c + n) for c in range(classes) for n in range(each)
    })  # fmt: skip


def near(image):
    """Copies as people have them: smaller, mirrored, cropped, saved again."""
    width, height = image.size
    cut = image.crop((width // 20, height // 20, width - width // 20, height - height // 20))
    return [image.resize((32, 32)), ImageOps.mirror(image), cut]


def run_of(photos, out, **data):
    run = Run(Recipe(data=Data(photos=str(photos), **data)), out, log=lines.append)
    lines.clear()
    return run


lines: list[str] = []


@pytest.fixture(autouse=True)
def color_encoder(monkeypatch):
    monkeypatch.setattr(stages, "load_encoder", lambda name, device: ColorEncoder())


def parts_of(out):
    """{part: set of files}."""
    return {name: {record.file for record in Bundle(out / name).records} for name in PARTS}


@pytest.mark.slow
def test_photos_are_parted_by_themselves_and_nothing_is_lost_or_twice(tmp_path):
    run = run_of(world(tmp_path / "photos", each=10), tmp_path / "out")
    run.stage("embed")
    parts = parts_of(tmp_path / "out")
    assert [len(parts[name]) for name in PARTS] == [18, 6, 6]
    assert len(set.union(*parts.values())) == 30
    for name in PARTS:
        assert {record.class_name for record in Bundle(tmp_path / "out" / name).records} == {
            "class 0",
            "class 1",
            "class 2",
        }
    assert run.gallery == tmp_path / "out" / "gallery" and not (tmp_path / "out" / "all").exists()
    assert "18 photos to train on, 6 to choose the head by (validation), 6 to test on, which nothing else sees" in lines
    sizes = {name: Bundle(tmp_path / "out" / name).embeddings.shape for name in PARTS}
    encoder = run.encoder
    run_of(tmp_path / "photos", tmp_path / "out").stage("embed")  # nothing is encoded or moved again
    assert parts_of(tmp_path / "out") == parts and encoder.seen == 30
    assert {name: Bundle(tmp_path / "out" / name).embeddings.shape for name in PARTS} == sizes


@pytest.mark.slow
def test_other_photos_or_fractions_are_parted_anew(tmp_path):
    photos = world(tmp_path / "photos", each=10)
    run_of(photos, tmp_path / "out", parts=()).stage("embed")  # as runs before parts did
    assert len(Bundle(tmp_path / "out" / "library").records) == 30
    run_of(photos, tmp_path / "out").stage("embed")
    assert len(Bundle(tmp_path / "out" / "library").records) == 18
    run_of(photos, tmp_path / "out", parts=(0.4, 0.3, 0.3), split_seed=3).stage("embed")
    assert [len(files) for files in parts_of(tmp_path / "out").values()] == [12, 9, 9]
    write(photos, {f"class 0/new {n}.jpg": speckled(900 + n) for n in range(10)})
    run_of(photos, tmp_path / "out").stage("embed")
    assert sum(len(files) for files in parts_of(tmp_path / "out").values()) == 40


@pytest.mark.slow
def test_two_processes_part_as_one_does(tmp_path):
    photos = world(tmp_path / "photos", each=10)
    run_of(photos, tmp_path / "one").stage("embed")
    for rank in (1, 0):
        recipe = Recipe(data=Data(photos=str(photos)))
        Run(recipe, tmp_path / "two", log=lines.append, rank=rank, world_size=2).stage("embed")
    assert parts_of(tmp_path / "two") == parts_of(tmp_path / "one")
    one, two = (Bundle(tmp_path / name / "library") for name in ("one", "two"))
    assert one.id == two.id


@pytest.mark.slow
def test_near_copies_never_lie_in_two_parts(tmp_path):
    photos = world(tmp_path / "photos", classes=2, each=9)
    for c in range(2):
        copies = near(speckled(100 * c)) + near(speckled(100 * c + 1))
        write(photos, {f"class {c}/copy {n}.jpg": copy for n, copy in enumerate(copies)})
    groups = {f"class {c}/{n}.jpg": {f"class {c}/{n}.jpg"} | {f"class {c}/copy {3 * n + i}.jpg" for i in range(3)}
              for c in range(2) for n in range(2)}  # fmt: skip
    for seed in range(4):
        out = tmp_path / f"out{seed}"
        run_of(photos, out, split_seed=seed).stage("embed")
        for together in groups.values():
            assert sum(bool(files & together) for files in parts_of(out).values()) == 1
        metadata = json.loads((out / "parts" / "parts.json").read_text())
        assert metadata["near_copies"] == 16 and metadata["groups_of_near_copies"] == 4


def test_different_photos_are_no_near_copies_even_where_the_encoder_sees_no_difference():
    pictures = [speckled(seed) for seed in range(30)]
    groups = near_copies(np.ones((30, 4), np.float32) / 2, lambda row: pictures[row].copy())
    assert len(set(groups.tolist())) == 30


def test_test_photos_that_are_library_photos_are_refused(tmp_path):
    photos, test = world(tmp_path / "photos"), world(tmp_path / "test", each=2, first=50)
    (test / "class 0" / "again.jpg").write_bytes((photos / "class 1" / "3.jpg").read_bytes())
    for given in (test, photos):
        with pytest.raises(RealRAGError, match=r"are in .*photos too: .*Leave out --test-photos"):
            run_of(photos, tmp_path / "out", test_photos=str(given)).stage("embed")


def test_near_copies_of_given_test_photos_are_left_out_and_said(tmp_path):
    photos, test = world(tmp_path / "photos", each=6), world(tmp_path / "test", each=2, first=50)
    write(photos, {"class 0/copy.jpg": ImageOps.mirror(speckled(50))})
    run_of(photos, tmp_path / "out", test_photos=str(test)).stage("embed")
    parts = parts_of(tmp_path / "out")
    assert "class 0/copy.jpg" not in parts["library"] | parts["validation"]
    assert len(parts["library"] | parts["validation"]) == 18 and len(parts["gallery"]) == 6
    assert any("1 photos are near-copies of test photos and are left out" in line for line in lines)


def test_small_classes_are_trained_on_before_they_are_tested():
    def parts(count):
        classes, names = ["c"] * count, [str(n) for n in range(count)]
        return np.bincount(assign(classes, names, np.arange(count), Fractions(), 0), minlength=3).tolist()

    assert [parts(count) for count in (1, 2, 3, 5, 20)] == [[1, 0, 0], [1, 0, 1], [1, 1, 1], [3, 1, 1], [14, 3, 3]]


@pytest.mark.parametrize("parts", [(0.5, 0.5), (0.9, 0.2, 0.1), (1.0, 0.0, 0.0)])
def test_fractions_that_are_no_parts_are_refused(tmp_path, parts):
    with pytest.raises(RealRAGError, match="fractions"):
        run_of(world(tmp_path / "photos"), tmp_path / "out", parts=parts).stage("embed")


def test_where_nothing_is_left_to_test_on_the_cure_is_said(tmp_path):
    photos = write(tmp_path / "photos", {"a/1.jpg": speckled(1), "b/2.jpg": speckled(2)})
    with pytest.raises(RealRAGError, match=r"leave none to test on.*--test-photos"):
        run_of(photos, tmp_path / "out").stage("embed")


def webdataset(path, count):
    with tarfile.open(path, "w") as archive:
        for n in range(count):
            buffer = io.BytesIO()
            speckled(n).save(buffer, "JPEG", quality=95)
            words = json.dumps({"caption": f"picture number {n}"}).encode()
            for name, data in ((f"{n:05}.jpg", buffer.getvalue()), (f"{n:05}.json", words)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def hugging_face(folder, count):
    """An imagefolder with several captions a photo."""
    write(folder, {f"train/{n}.jpg": speckled(n) for n in range(count)})
    rows = [{"file_name": f"{n}.jpg", "text": [f"picture number {n}", f"the picture {n}"]} for n in range(count)]
    (folder / "train" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["webdataset", "hugging face"])
def test_data_sets_with_captions_alone_become_questions_about_their_own_photos(tmp_path, kind):
    (tmp_path / "photos").mkdir()
    if kind == "webdataset":
        webdataset(tmp_path / "photos" / "000.tar", 20)
    else:
        hugging_face(tmp_path / "photos", 20)
    run = run_of(tmp_path / "photos", tmp_path / "out")
    run.stage("embed")
    counts = {name: len(files) for name, files in parts_of(tmp_path / "out").items()}
    assert counts == {"library": 14, "validation": 3, "gallery": 3}
    each = 1 if kind == "webdataset" else 2
    for name, file in (("library", "prompts.jsonl"), ("gallery", "prompts-gallery.jsonl")):
        bundle, prompts = Bundle(tmp_path / "out" / name), read_prompts(tmp_path / "out" / file)
        material = load_material(bundle, run.encoder, prompts)
        right = material.query_classes[:, None] == material.photo_classes[None]
        assert len(prompts) == each * counts[name] and (right.sum(1) == 1).all()
        for prompt, row in zip(prompts, right.argmax(1), strict=True):
            number = prompt.prompt.split()[-1]
            assert number in {bundle.records[int(row)].caption.split()[-1]}


def test_the_folders_of_the_parts_keep_credits(tmp_path):
    photos = world(tmp_path / "photos", each=4)
    (photos / "credits.csv").write_text("file,author,license\nclass 0/1.jpg,Ann,CC0-1.0\n")
    run_of(photos, tmp_path / "out").stage("embed")
    rows = [row for name in PARTS for row in csv.DictReader(open(tmp_path / "out" / "parts" / name / "captions.csv"))]
    assert [row["author"] for row in rows if row["file"] == "class 0/1.jpg"] == ["Ann"]
    records = [record for name in PARTS for record in Bundle(tmp_path / "out" / name).records]
    assert {record.licence for record in records if record.author == "Ann"} == {"CC0-1.0"}
