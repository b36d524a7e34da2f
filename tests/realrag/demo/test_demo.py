"""What a newcomer sees first: the shipped encoder, photos and bundle."""

import csv
import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_encoders import write_tiny_clip, write_tiny_general, write_tiny_vit

import realrag_train as train
from realrag.bundle.bundle import Bundle
from realrag.commands.main import main
from realrag.demo import pictures, run
from realrag.demo.pictures import HELD_OUT, LABEL, PROMPT, SEEN, SIZE, TOP, Painted, sheet, summary, worst
from realrag.demo.run import COLUMNS, PHOTOS, PROMPTS
from realrag.encoders.load import load_encoder
from realrag.miniature.files import families_there
from realrag.miniature.painting import paint
from realrag.retriever import Retriever, shipped_bundle

FEW_HELD_OUT, FEW_SEEN = HELD_OUT[::4], SEEN[::4]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The whole demo, but a quarter of its pictures in 1 step in place of 20, and with the shipped bundle to bring up to date."""
    out = tmp_path_factory.mktemp("demo")
    shutil.copytree(shipped_bundle(), out / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "paint", partial(paint, steps=1))
        patch.setattr(pictures, "HELD_OUT", FEW_HELD_OUT)
        patch.setattr(pictures, "SEEN", FEW_SEEN)
        assert main(["demo", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory):
    """A photo of every fifth shipped class, with their credits: few for the judge to look at, in every test."""
    out = tmp_path_factory.mktemp("few-photos")
    with open(PHOTOS / "credits.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_class = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    kept = [rows[0] for rows in list(by_class.values())[::5]]
    for row in kept:
        (out / row["file"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PHOTOS / row["file"], out / row["file"])
    with open(out / "credits.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_tiny_general, write_tiny_clip, write_tiny_vit])
def test_the_demo_runs_with_a_library_of_any_encoder(few_photos, tmp_path, monkeypatch, write):
    """The miniatures see the photos through realrag-small, whatever the library was made with."""
    monkeypatch.setattr(run, "PHOTOS", few_photos)
    monkeypatch.setattr(pictures, "paint", partial(paint, steps=1))
    monkeypatch.setattr(pictures, "HELD_OUT", pictures.HELD_OUT[:1])
    monkeypatch.setattr(pictures, "SEEN", pictures.SEEN[:1])
    encoder = write(tmp_path / "encoder")
    assert main(["demo", "--out", str(tmp_path / "demo"), "--encoder", str(encoder)]) == 0
    bundle = Bundle(tmp_path / "demo" / "bundle")
    assert bundle.manifest.encoder["kind"] in ("general", "open_clip", "transformers")
    assert (tmp_path / "demo" / "references.png").is_file()


@pytest.mark.slow
def test_the_demo_answers_every_prompt_with_credited_photos(demo):
    content = json.loads((demo / "references.json").read_text())
    assert [answer["prompt"] for answer in content["answers"]] == list(PROMPTS)
    for answer in content["answers"]:
        named = [item["score"] for item in answer["references"] if item["found"] == "by name"]
        assert len(answer["references"]) == COLUMNS
        assert named == sorted(named, reverse=True)
        assert all(item["found"] == "by name" for item in answer["references"][: len(named)])
        assert all(item["licence"] and item["author"] and item["source"] for item in answer["references"])
    assert content["bundle"] == Bundle(demo / "bundle").id


@pytest.mark.slow
def test_the_demo_finds_what_is_asked_for(demo):
    """The first answers of the trained encoder, on photos that it has not seen (the groceries)."""
    best = {
        a["prompt"]: [r["class"] for r in a["references"]]
        for a in json.loads((demo / "references.json").read_text())["answers"]
    }
    assert "Granny-Smith" in best["a photo of a granny smith apple"][:2]
    assert "Conference" in best["Conference pears"][:2]
    assert "Ginger" in best["fresh ginger root"][:2]


@pytest.mark.slow
def test_the_contact_sheet_shows_every_answer(demo):
    sheet = np.asarray(Image.open(demo / "references.png").convert("RGB"), np.float32)
    assert sheet.shape[0] > len(PROMPTS) * 200
    rows = np.array_split(sheet[:, 240:], len(PROMPTS))
    assert all(row.std() > 20 for row in rows), "a row without pictures"


@pytest.mark.slow
def test_the_demo_twice_is_the_same(few_photos, tmp_path, monkeypatch):
    """Bit for bit in one process, with two of its pictures in 2 steps. All files but the bundle are deleted between: no picture lies
    ready anywhere."""
    names = {"references.json", "references.png", *(("pictures.json", "pictures.png") if families_there() else ())}
    monkeypatch.setattr(run, "PHOTOS", few_photos)
    monkeypatch.setattr(pictures, "paint", partial(paint, steps=2))
    monkeypatch.setattr(pictures, "HELD_OUT", HELD_OUT[:1])
    monkeypatch.setattr(pictures, "SEEN", SEEN[:1])
    out, made = tmp_path / "demo", []
    for _ in range(2):
        assert main(["demo", "--out", str(out)]) == 0
        made.append({path.name: path.read_bytes() for path in out.iterdir() if path.is_file()})
        for name in made[-1]:
            (out / name).unlink()
    assert made[0].keys() == names
    assert made[0] == made[1]


def test_every_held_out_class_is_painted():
    assert sorted(HELD_OUT) == (Path(train.__file__).parent / "miniature" / "held_out.txt").read_text().split("\n")[:-1]
    assert not set(HELD_OUT) & set(SEEN)


@pytest.mark.slow
@pytest.mark.skipif(not families_there(), reason="the miniatures are not in the package")
def test_every_prompt_is_painted_without_and_with_the_photo_found_for_it(demo):
    painted = json.loads((demo / "pictures.json").read_text())
    assert len(painted) == 2 * len(families_there()) * len(FEW_HELD_OUT + FEW_SEEN)
    assert {p["prompt"] for p in painted if p["held_out"]} == {PROMPT.format(thing) for thing in FEW_HELD_OUT}
    for with_it in (p for p in painted if p["reference"]):
        assert (PHOTOS / with_it["reference"]).is_file()
    assert len({p["reference"] for p in painted if p["reference"]}) > len(FEW_HELD_OUT)
    sheet = np.asarray(Image.open(demo / "pictures.png").convert("RGB"), np.float32)

    def column(at):
        return sheet[TOP:-300, LABEL + at * (SIZE + 6) :][:, :SIZE]

    for at in range(1, 1 + 2 * len(families_there()), 2):
        assert np.abs(column(at) - column(at + 1)).mean() > 2, "the photo changes nothing"


def test_a_sheet_shows_what_the_judge_likes_least():
    things = HELD_OUT + SEEN
    margins = torch.linspace(-1, 1, len(things))
    picture = torch.rand(len(things), 3, SIZE, SIZE)
    made = [
        Painted("SD3 miniature", steered, picture, margins * sign, ["leek"] * len(things), margins > 0.9)
        for steered, sign in ((False, 3), (True, -1))
    ]
    assert [(p.steered, row) for p, row in worst(made)] == [(True, len(things) - 1 - i) for i in range(3)]
    half = len(HELD_OUT)
    assert summary(made)[1] == (
        f"SD3 miniature with the photo: the judge names {min(half, len(things) // 2)} of {half} held out, "
        f"{max(0, len(things) // 2 - half)} of {len(SEEN)} seen; near-copies of a photo: {int((margins > 0.9).sum())}"
    )
    found = [SimpleNamespace(image=Image.new("RGB", (60, 90)), file="a.jpg")] * len(things)
    shown = np.asarray(sheet(things, found, made), np.float32)
    assert np.allclose(
        shown[TOP : TOP + SIZE, LABEL + SIZE + 6 :][:, :SIZE], picture[0].permute(1, 2, 0) * 255, atol=0.6
    )


@pytest.mark.slow
def test_the_shipped_bundle_is_right_and_belongs_to_the_shipped_encoder():
    bundle = Bundle(shipped_bundle())
    bundle.verify()
    assert bundle.manifest.encoder["fingerprint"] == load_encoder().fingerprint
    photos = list(csv.DictReader(open(PHOTOS / "credits.csv", encoding="utf-8")))
    assert sorted(row["file"] for row in photos) == [record.file for record in bundle.records]
    assert all(record.licence and record.author and record.source for record in bundle.records)


def test_the_shipped_vectors_are_those_of_the_shipped_photos():
    """A vector of each class made here and now agrees with the one in the bundle."""
    retriever = Retriever.open(shipped_bundle())
    for row in range(0, len(retriever.bundle.records), 40):
        image = retriever.bundle.image(retriever.bundle.records[row])
        best = retriever.search(image=image, k=1).items[0]
        assert best.id == retriever.bundle.records[row].id and best.score > 0.99


@pytest.mark.slow
def test_the_bench_measures_three_loops(capsys):
    assert main(["bench", "embed", "--number", "6", "--side", "64", "--batch", "3", "--rounds", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["photos"] == 6 and result["weights"] == "trained"
    rate = result["photos_per_second"]
    assert result["ratio"] == pytest.approx(rate["end_to_end"] / rate["synthetic"], rel=0.05)
    assert main(["bench", "embed", "--number", "3", "--side", "64", "--rounds", "1"]) == 0
    assert "end to end / encode alone" in capsys.readouterr().out
