"""The card that is pushed with a bundle: what it must say, and that strangers' words in it stay words."""

import json
import re

import pytest
import torch
from made_photos import photo_bytes

from realrag.bundle.bundle import Bundle
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.errors import HubError
from realrag.hub.card import card, plain
from realrag.indexing.build import build

COMMIT = "0123456789" * 4
HOSTILE = "x | <script>alert(1)</script> ](http://evil) `# \n\n# Owned ![p](http://evil/p.png) {repo} & _a_"


@pytest.fixture
def bundle(photos, tmp_path, encoder):
    (photos / "captions.jsonl").write_text(
        "".join(
            json.dumps({"file": f"{name}/{at}.jpg", "licence": licence, "class": name}) + "\n"
            for name, licence in (("red", "CC0-1.0"), ("green", "MIT"), ("blue", "")) for at in range(5)
        )
    )  # fmt: skip
    files = {}
    for at, generator in enumerate((json.dumps({"name": "FLUX.1-dev", "steps": 20}), HOSTILE)):
        torch.manual_seed(at)
        head = ReflectiveHead(13, 8, {"generator": generator, "config": {"fit": {"rate": 0.001}}, "lambda_ref": 1.0})
        files[f"head{at}"] = tmp_path / f"{at}.safetensors"
        save_head(head, files[f"head{at}"])
    build(photos, tmp_path / "b", encoder, head=files)
    return Bundle(tmp_path / "b")


def report(**changes):
    figures = {"R@1": [0.5, 0.4, 0.6], "mAP": [0.25, 0.2, 0.3], "another": [1, 1, 1]}
    return {
        "facts": {"generator": {"name": "FLUX.1-dev"}, "encoder_fingerprint": "f", "gallery_photos": 99, "prompts": 12},
        "arms": {"zero": {"splits": {"all": figures}}, "reflective": {"splits": {"all": figures, "unseen": {"mAP": [1, 1, 1]}}}},
        "differences": {"reflective - zero": {"all": {"R@1": [0.01, -0.02, 0.03, 4]}}},
        **changes,
    }  # fmt: skip


def test_the_card_says_what_is_in_the_bundle_and_how_to_get_exactly_this(bundle):
    text = card(bundle, "ann/my-cars", COMMIT)
    assert f"realrag pull ann/my-cars --revision {COMMIT} --out ComfyUI/models/realrag/my-cars" in text
    assert bundle.id in text and bundle.manifest.encoder["fingerprint"] in text and "| photos | 15," in text
    for row in ("| CC0-1.0 | 5 |", "| MIT | 5 |", "| not stated | 5 |", "3: blue (5), green (5), red (5)"):
        assert row in text
    assert "### head0\n\nTrained for FLUX.1-dev, the default" in text and '"rate": 0.001' in text
    assert "Nothing was measured" in text and text.startswith("---\nlicense: other\n")


@pytest.mark.parametrize(
    ("licence", "told"), [("CC-BY-4.0", "cc-by-4.0"), ("MIT", "mit"), ("", "unknown"), ("my own", "other")]
)
def test_one_licence_for_all_photos_is_the_repositorys(tmp_path, encoder, licence, told):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(photo_bytes((200, 0, 0)))
    (tmp_path / "photos" / "captions.jsonl").write_text(json.dumps({"file": "a.jpg", "licence": licence}) + "\n")
    build(tmp_path / "photos", tmp_path / "b", encoder)
    text = card(Bundle(tmp_path / "b"), "ann/b", COMMIT)
    assert text.splitlines()[1] == f"license: {told}" and "ranked by the plain encoder" in text


def test_the_figures_of_an_evaluation_come_with_their_intervals(bundle):
    fingerprint = bundle.manifest.encoder["fingerprint"]
    measured = report()
    measured["facts"]["encoder_fingerprint"] = fingerprint
    text = card(bundle, "ann/b", COMMIT, measured)
    assert "On 99 photos and 12 prompts, for FLUX.1-dev." in text and "No generator drew" not in text
    assert "| arm | prompts | R@1 | mAP |" in text
    assert "| zero | all | 0.500 (0.400 to 0.600) | 0.250 (0.200 to 0.300) |" in text
    assert "| reflective | unseen | - | 1.000 (1.000 to 1.000) |" in text
    assert "| reflective - zero | all | +0.010 (-0.020 to +0.030) | - |" in text
    measured["facts"]["generator"]["name"] = "stand-in (altered photos, not a generator)"
    assert "**No generator drew anything here.**" in card(bundle, "ann/b", COMMIT, measured)


@pytest.mark.parametrize(
    "spoiled",
    [[], {}, {"facts": None}, report(arms=None), report(arms={"a": {"splits": {"all": {"R@1": ["x", 1, 2]}}}}), report(facts={}),
     report(differences=[1]), report(arms={"a": {"splits": {"all": {"R@1": [1]}}}})],
)  # fmt: skip
def test_what_is_no_evaluation_is_refused(bundle, spoiled):
    if isinstance(spoiled, dict) and spoiled.get("facts"):
        spoiled = {
            **spoiled,
            "facts": {**spoiled["facts"], "encoder_fingerprint": bundle.manifest.encoder["fingerprint"]},
        }
    with pytest.raises(HubError, match=r"none of the trainer's evaluate.json"):
        card(bundle, "ann/b", COMMIT, spoiled)


def test_an_evaluation_of_another_encoder_is_refused(bundle):
    with pytest.raises(HubError, match="another encoder"):
        card(bundle, "ann/b", COMMIT, report())


def test_words_of_strangers_stay_words(bundle):
    """Outside the fenced JSON no line begins anew, and nothing is a link, a picture, HTML or a table's border."""
    text = card(bundle, "ann/b", COMMIT)
    fenced = re.findall(r"```json\n(.*?)\n```", text, re.DOTALL)
    assert len(fenced) == 2 and all("`" not in block and json.loads(block) for block in fenced)
    around = re.sub(r"```json\n.*?\n```", "", text, flags=re.DOTALL)
    line = next(line for line in around.splitlines() if "evil" in line)
    assert not re.search(r"(?<!\\)[|<>`\[\]#!{}&*_]", line) and "# Owned" not in around.splitlines()
    assert plain("a\nb\t c") == "a b c" and len(plain("x" * 1000)) == 400
