"""What a newcomer sees first: the shipped encoder, photos and bundle."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from realrag.bundle import Bundle
from realrag.cli import main
from realrag.demo import COLUMNS, PHOTOS, PROMPTS
from realrag.encoder import load_encoder
from realrag.retriever import Retriever, shipped_bundle


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--out", str(out)]) == 0
    return out


def test_the_demo_answers_every_prompt_with_credited_photos(demo):
    content = json.loads((demo / "references.json").read_text())
    assert [answer["prompt"] for answer in content["answers"]] == list(PROMPTS)
    for answer in content["answers"]:
        scores = [item["score"] for item in answer["references"]]
        assert len(scores) == COLUMNS and scores == sorted(scores, reverse=True)
        assert all(item["licence"] and item["author"] and item["source"] for item in answer["references"])
    assert content["bundle"] == Bundle(demo / "bundle").id


def test_the_demo_finds_what_is_asked_for(demo):
    """The first answers of the trained encoder, on photos that it has not seen (the groceries)."""
    best = {a["prompt"]: [r["class"] for r in a["references"]] for a in json.loads((demo / "references.json").read_text())["answers"]}
    assert "Granny-Smith" in best["a photo of a granny smith apple"][:2]
    assert "Conference" in best["Conference pears"][:2]
    assert "Ginger" in best["fresh ginger root"][:2]


def test_the_contact_sheet_shows_every_answer(demo):
    sheet = np.asarray(Image.open(demo / "references.png").convert("RGB"), np.float32)
    assert sheet.shape[0] > len(PROMPTS) * 200
    rows = np.array_split(sheet[:, 240:], len(PROMPTS))
    assert all(row.std() > 20 for row in rows), "a row without pictures"


def test_the_demo_twice_is_the_same(demo):
    before = (demo / "references.json").read_bytes()
    assert main(["demo", "--out", str(demo)]) == 0
    assert (demo / "references.json").read_bytes() == before


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


def test_the_bench_measures_three_loops(capsys):
    assert main(["bench", "embed", "--number", "6", "--side", "64", "--batch", "3", "--rounds", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["photos"] == 6 and result["weights"] == "trained"
    rate = result["photos_per_second"]
    assert result["ratio"] == pytest.approx(rate["end_to_end"] / rate["synthetic"], rel=0.05)
    assert main(["bench", "embed", "--number", "3", "--side", "64", "--rounds", "1"]) == 0
    assert "end to end / encode alone" in capsys.readouterr().out
