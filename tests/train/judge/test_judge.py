"""Painted pictures, judged: each figure against a slow twin, the judges against their definitions, the command
whole."""

import json
import shutil

import numpy as np
import pytest
from fake_encoder import ColorEncoder
from made_photos import COLORS, photo_bytes
from unit_rows import unit

from realrag.bundle.bundle import Bundle, unit_rows
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.errors import PhotoError, RealRAGError
from realrag.indexing.build import build
from realrag_train.__main__ import main
from realrag_train.dataset import Prompt
from realrag_train.judge import command as judging_command
from realrag_train.judge.classifiers import mean_classifier, name_classifier, ridge_classifier
from realrag_train.judge.metrics import Arm, Bench, Photos, diversity, judge_arms, picture_figures, real_figures
from realrag_train.loop.stages import STOPPED
from realrag_train.pictures import arms
from realrag_train.pictures import choose_references as choosing
from realrag_train.pictures.arms import picture_vectors, read_arm
from realrag_train.pictures.choose_references import choose, kept_apart, read_choices, write_choices
from realrag_train.retriever.prompts import class_prompts, write_prompts

pytestmark = pytest.mark.slow

COLORS = {**COLORS, "yellow": (220, 220, 30)}
PROMPTS = class_prompts(sorted(COLORS))


def bench(dim=6, seed=0, classes=4):
    rng = np.random.default_rng(seed)
    centers = unit(rng.normal(size=(classes, dim)))

    def photos(each):
        return Photos(
            unit(centers.repeat(each, 0) + 0.3 * rng.normal(size=(classes * each, dim))),
            np.arange(classes).repeat(each),
        )

    real, library, taught, asked = photos(7), photos(9), photos(8), np.arange(classes).repeat(3)
    judges = {
        "linear": ridge_classifier(taught.vectors, taught.classes)[0],
        "means": mean_classifier(taught.vectors, taught.classes),
    }
    return Bench(real, np.ones(7 * classes, bool), library, judges, asked, centers[asked], centers[real.classes], 0.97)


def painted(bench, noise=0.3, seed=5, drift=0.0):
    rng = np.random.default_rng(seed)
    vectors = unit(bench.prompts + noise * rng.normal(size=bench.prompts.shape) + drift)
    return Arm(vectors, tuple([None, (3, 8), ()][i % 3] for i in range(len(vectors))))


# Figures


def test_every_figure_of_a_picture_equals_its_slow_twin():
    held = bench()
    arm = painted(held)
    values = picture_figures(arm, held)
    for i, v in enumerate(arm.vectors):
        mine = [held.real.vectors[r] for r in range(28) if held.real.classes[r] == held.classes[i]]
        assert values["CLIP-I"][i] == pytest.approx(np.mean([v @ p for p in mine]))
        assert values["CLIP-T"][i] == pytest.approx(v @ held.prompts[i])
        assert values["copied"][i] == (max(v @ p for p in held.library.vectors) >= 0.97)
        shown = [v @ held.library.vectors[r] for r in arm.references[i] or ()]
        if shown:
            assert values["to references"][i] == pytest.approx(max(shown))
            assert values["references copied"][i] == (max(shown) >= 0.97)
        else:
            assert np.isnan(values["to references"][i]) and np.isnan(values["references copied"][i])


def test_a_real_photo_is_compared_with_the_others_of_its_class_and_never_with_itself():
    held = bench()
    values = real_figures(held)
    for i, v in enumerate(held.real.vectors):
        others = [p for r, p in enumerate(held.real.vectors) if r != i and held.real.classes[r] == held.real.classes[i]]
        assert values["CLIP-I"][i] == pytest.approx(np.mean([v @ p for p in others]))


def test_diversity_is_the_mean_distance_of_pairs_of_one_class():
    vectors, classes = unit(np.random.default_rng(0).normal(size=(9, 4))), np.array([0, 0, 0, 0, 1, 2, 2, 2, 2])
    values, names = diversity(vectors, classes)
    assert names.tolist() == [0, 2]
    for value, c in zip(values, names, strict=True):
        part = vectors[classes == c]
        assert value == pytest.approx(np.mean([1 - part[i] @ part[j] for i in range(4) for j in range(4) if i != j]))
    assert diversity(np.ones((3, 1)), np.zeros(3))[0] == pytest.approx(0)


def test_the_better_of_two_arms_is_told_by_every_figure_and_equal_arms_by_none():
    held = bench(classes=12, dim=8)
    good, bad = painted(held, 0.3, 6), painted(held, 1.0, drift=1.0)
    report = judge_arms({"none": bad, "oracle": good, "again": good}, held)
    apart, same = report["differences"]["oracle - none"], report["differences"]["again - oracle"]
    assert all(apart[m][1] > 0 for m in ("CLIP-I", "CLIP-T", "accuracy (linear)", "accuracy (means)"))
    assert apart["FID"][2] < 0 and apart["KID"][2] < 0
    assert all(row == [0, 0, 0] for row in same.values())
    assert report["distances"]["pictures"] == 36 and report["distances"]["photos"] == 48
    json.dumps(report, allow_nan=False)


# Judges


def test_the_ridges_leave_one_out_is_a_refit_without_each_photo(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = unit(rng.normal(size=(24, 5))) + np.eye(5)[np.arange(24) % 3] * 0.5, np.arange(24) % 3
    monkeypatch.setattr("realrag_train.judge.classifiers.STRENGTHS", (0.1,))
    _, metadata = ridge_classifier(x, y)
    axes = x - x.mean(0)
    ridge, right = 0.1 * np.trace(axes.T @ axes) / 5, 0
    for i in range(24):
        rest, wanted = np.delete(x, i, 0), np.eye(3)[np.delete(y, i)]
        a, b = rest - rest.mean(0), wanted - wanted.mean(0)
        weights = np.linalg.solve(a.T @ a + ridge * np.eye(5), a.T @ b)
        right += ((x[i] - rest.mean(0)) @ weights + wanted.mean(0)).argmax() == y[i]
    assert metadata["leave_one_out"] == pytest.approx(right / 24, abs=1e-5) and 0 < right < 24


def test_judges_name_what_they_were_taught_and_nothing_of_classes_they_never_saw():
    held = bench()
    for judge in held.classifiers.values():
        assert np.nanmean(judge.correct(held.real.vectors, held.real.classes)) > 0.8
        assert np.isnan(judge.correct(held.real.vectors[:1], np.array([77]))).all()
    named = name_classifier(np.eye(3), np.array([5, 2, 9]))
    assert named.predict(np.array([[0.9, 0.1, 0], [0, 0, 1.0]])).tolist() == [5, 9]
    with pytest.raises(RealRAGError, match="photos of 1 class"):
        ridge_classifier(np.eye(3), np.zeros(3))


# From files


@pytest.fixture
def world(tmp_path, encoder, monkeypatch):
    """library and gallery bundles of four colors, and three painted arms: the right colors, the wrong ones, and
    copies."""
    for part, first in (("library", 0), ("gallery", 100)):
        for name, color in COLORS.items():
            (tmp_path / part / name).mkdir(parents=True)
            for seed in range(8):
                (tmp_path / part / name / f"{seed}.jpg").write_bytes(photo_bytes(color, first + seed))
        build(tmp_path / part, tmp_path / "run" / part, encoder)
    turned = dict(zip(COLORS, [*list(COLORS)[1:], "red"], strict=True))
    for arm, colors, first in (("oracle", COLORS, 200), ("none", turned, 200), ("copy", COLORS, 0)):
        for name in COLORS:
            (tmp_path / arm / name).mkdir(parents=True)
            for seed in range(3):
                color = COLORS[colors[name]] if arm == "none" else COLORS[name]
                (tmp_path / arm / name / f"{seed}.jpg").write_bytes(photo_bytes(color, first + seed))
    monkeypatch.setattr(judging_command, "load_encoder", lambda name, device: ColorEncoder())
    monkeypatch.setattr(choosing, "own_encoder", lambda library, device: ColorEncoder())
    return tmp_path


def command(world, *extra, arms=("oracle", "none", "copy")):
    given = [word for arm in arms for word in ("--arm", f"{arm}={world / arm}")]
    run = world / "run"
    return [
        "judge",
        *given,
        "--real",
        str(run / "gallery"),
        "--library",
        str(run / "library"),
        "--out",
        str(world / "out"),
        *extra,
    ]


def test_the_command_tells_right_wrong_and_copied_pictures_apart(world, capsys):
    assert main(command(world)) == 0
    said = capsys.readouterr().out
    assert "the retriever's own, so not an independent judge" in said and "So few pictures raise every FID" in said
    report = json.loads((world / "out" / "judge.json").read_text())["encoders"]["realrag-small"]
    oracle, none, copy = (report["arms"][name] for name in ("oracle", "none", "copy"))
    assert oracle["accuracy (linear)"][0] == oracle["accuracy (means)"][0] == 1 and none["accuracy (linear)"][0] == 0
    assert copy["copied"][0] == 1 and oracle["copied"][0] < 0.2 and report["real"]["copied"][0] <= 1 / 16
    assert report["real"]["accuracy (linear)"][0] == 1 and report["facts"]["held_photos"] == 16
    assert none["FID"][0] < 3 * oracle["FID"][0]  # the same colors over all: FID does not look at prompts
    mean, *bounds = report["differences"]["oracle - none"]["CLIP-I"]
    assert mean > 0 and bounds == [None, None]  # four classes are too few for an interval
    assert "none below 5 classes" in said
    page = (world / "out" / "judge.html").read_text()
    assert page.count("data:image/") == 4 and "<script" not in page and "http:" not in page


def test_a_stopped_judging_goes_on_without_encoding_again(world, monkeypatch):
    assert main(command(world, "--max-minutes", "1e-9")) == STOPPED
    kept = list((world / "out" / "vectors").iterdir())
    assert kept and not (world / "out" / "judge.json").exists()
    assert main(command(world)) == 0
    first = (world / "out" / "judge.json").read_bytes()
    monkeypatch.setattr(ColorEncoder, "_images", None)
    assert main(command(world)) == 0
    assert (world / "out" / "judge.json").read_bytes() == first


def test_what_one_arm_lacks_is_judged_in_none(world):
    (world / "none" / "red" / "2.jpg").unlink()
    shutil.rmtree(world / "copy" / "blue")
    assert main(command(world)) == 0
    metadata = json.loads((world / "out" / "judge.json").read_text())["encoders"]["realrag-small"]["facts"]
    assert (metadata["pictures"], metadata["classes"]) == (8, 3)


def test_photos_that_are_shared_are_refused(world, capsys):
    run = world / "run"
    assert main([*command(world), "--judge-photos", str(run / "library")]) == 1
    assert "a copied reference would be named by heart" in capsys.readouterr().err
    assert main([*command(world), "--real", str(run / "library")]) == 1
    assert "copying would look real" in capsys.readouterr().err


def test_pictures_that_are_equal_to_photos_have_their_vectors(world, encoder):
    library = Bundle(world / "run" / "library")
    pictures = read_arm(world / "copy", PROMPTS)
    vectors, rows = picture_vectors({"copy": pictures}, encoder, 768, world / "kept")
    for picture, vector in zip(pictures, unit_rows(vectors)[rows["copy"]], strict=True):
        row = next(
            i for i, record in enumerate(library.records) if record.file == f"{picture.class_name}/{picture.seed}.jpg"
        )
        assert vector @ unit_rows(library.embeddings)[row] > 0.9999
    (world / "copy" / "red" / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(PhotoError, match=r"0.jpg"):
        picture_vectors({"copy": read_arm(world / "copy", PROMPTS)}, encoder, 768, world / "kept")


def test_a_picture_of_many_arms_is_encoded_once_and_by_no_later_run(world, encoder, monkeypatch):
    seen, encode = [], type(encoder).encode_images
    monkeypatch.setattr(type(encoder), "encode_images", lambda self, x: seen.append(len(x)) or encode(self, x))
    monkeypatch.setattr(arms, "CACHED", 4)
    copy, none = (read_arm(world / name, PROMPTS) for name in ("copy", "none"))
    asked = {"one": copy, "two": copy[::-1], "three": [*copy[:2], *none[:3]]}

    class Stop(Exception):
        pass

    def cancel(done, total):
        assert total == len(copy) + 3
        raise Stop

    with pytest.raises(Stop):
        picture_vectors(asked, encoder, 768, world / "kept", cancel)
    assert sum(seen) == 4
    vectors, rows = picture_vectors(asked, encoder, 768, world / "kept")
    assert sum(seen) == len(vectors) == len(copy) + 3
    assert (rows["two"] == rows["one"][::-1]).all() and (rows["three"][:2] == rows["one"][:2]).all()
    apart = [picture_vectors({"": pictures}, encoder, 768, world / "apart")[0] for pictures in (copy, none[:3])]
    np.testing.assert_allclose(vectors[rows["one"]], apart[0], atol=1e-3)
    np.testing.assert_allclose(vectors[rows["three"][2:]], apart[1], atol=1e-3)
    seen.clear()
    again, _ = picture_vectors({"some": none[2:4]}, encoder, 768, world / "kept")
    assert sum(seen) == 1 and (again[0] == vectors[rows["three"][-1]]).all()  # the other one had a vector
    none[3].file.write_bytes(copy[0].file.read_bytes())  # another picture under the same name
    changed, _ = picture_vectors({"some": none[2:4]}, encoder, 768, world / "kept")
    assert sum(seen) == 2
    np.testing.assert_allclose(changed[1], vectors[rows["one"][0]], atol=1e-3)


def test_a_table_says_the_same_as_folders_and_may_name_the_references(world):
    folder = read_arm(world / "oracle", PROMPTS)
    rows = [
        {"file": f"oracle/{p.class_name}/{p.seed}.jpg", "prompt": p.prompt, "references": ["a" * 16]} for p in folder
    ]
    (world / "arm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{row['file']},{row['prompt']},{'a' * 16} {'b' * 16}" for row in rows]
    (world / "arm.csv").write_text("file,prompt,references\n" + "\n".join(lines))
    for name, references in (("arm.jsonl", 1), ("arm.csv", 2)):
        table = read_arm(world / name, PROMPTS)
        assert [(p.key, p.class_name, p.file) for p in table] == [(p.key, p.class_name, p.file) for p in folder]
        assert all(len(p.references) == references for p in table)


@pytest.mark.parametrize(
    "text, told",
    [("file,prompt\na.png,", "empty"), ("file\na.png", "KeyError"),
     ("prompt,file,seed\na photo of a red,a.png,x", "ValueError"),
     ("file,prompt,seed\na.png,a photo of a red,1\nb.png,a photo of a red,1", "two pictures"),
     ("file,prompt", "no picture")],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_its_place(tmp_path, text, told):
    (tmp_path / "arm.csv").write_text(text)
    with pytest.raises(RealRAGError, match=told):
        read_arm(tmp_path / "arm.csv", PROMPTS)


def test_a_folder_that_names_no_prompt_and_one_that_could_mean_two_are_refused(world):
    with pytest.raises(RealRAGError, match=r"'blue' in .* neither a prompt"):
        read_arm(world / "oracle", [Prompt("a photo of a red", "red")])
    with pytest.raises(RealRAGError, match="the class of 2 prompts"):
        read_arm(world / "oracle", [*PROMPTS, Prompt("a blue thing", "blue")])


# Choosing references


def test_each_arm_shows_what_its_name_says_and_never_a_photo_to_judge_by(world, encoder):
    library, gallery = Bundle(world / "run" / "library"), Bundle(world / "run" / "gallery")
    shutil.copy(world / "library" / "red" / "0.jpg", world / "gallery" / "red" / "same.jpg")
    build(world / "gallery", world / "run" / "gallery", encoder)
    gallery = Bundle(world / "run" / "gallery")
    assert not kept_apart(library, gallery).all() and kept_apart(library, None).all()
    lines = choose(library, encoder, PROMPTS, {"zero": None}, gallery=gallery, k=3, seed=4)
    assert [line["arm"] for line in lines] == ["none"] * 4 + ["random"] * 4 + ["oracle"] * 4 + ["zero"] * 4
    by = {(line["arm"], line["class"]): line["references"] for line in lines}
    judged = {record.sha256[:16] for record in gallery.records}
    for (arm, name), references in by.items():
        assert len(references) == (0 if arm == "none" else 3) and not {r["id"] for r in references} & judged
        assert len({r["id"] for r in references}) == len(references)
        if arm in ("oracle", "zero"):
            assert all(r["class"] == name for r in references)
    assert any(r["class"] != name for (arm, name), each in by.items() if arm == "random" for r in each)
    assert lines == choose(library, encoder, PROMPTS, {"zero": None}, gallery=gallery, k=3, seed=4)
    assert by[("oracle", "red")] != choose(library, encoder, PROMPTS, {}, k=3, seed=5)[-1]["references"]
    with pytest.raises(RealRAGError, match="Every photo"):
        choose(library, encoder, PROMPTS, {}, gallery=library)


def test_choices_come_back_as_the_references_that_pictures_were_shown(world, capsys):
    run = world / "run"
    write_prompts(run / "prompts.jsonl", PROMPTS)
    (run / "heads" / "normal-0").mkdir(parents=True)
    save_head(ReflectiveHead(13, 4), run / "heads" / "normal-0" / "head.safetensors")
    assert main(["choose", str(run), "--out", str(world / "choices"), "--k", "2"]) == 0
    assert "oracle  100.0% of 8 references" in capsys.readouterr().out.splitlines()[2]
    lines = [json.loads(line) for line in (world / "choices" / "choices.jsonl").read_text().splitlines()]
    assert {line["arm"] for line in lines} == {"none", "random", "oracle", "zero", "normal"}
    assert all((world / "choices" / r["picture"]).is_file() for line in lines for r in line["references"])
    zero, normal = ([line["references"] for line in lines if line["arm"] == arm] for arm in ("zero", "normal"))
    assert zero == normal  # an untrained head is the plain encoder
    assert main(command(world, "--choices", str(world / "choices"))) == 0
    arms = json.loads((world / "out" / "judge.json").read_text())["encoders"]["realrag-small"]["arms"]
    assert (
        arms["oracle"]["to references"][0] > 0.9
        and "to references" not in arms["none"]
        and "to references" not in arms["copy"]
    )
    write_prompts(world / "other.jsonl", class_prompts(sorted(COLORS), "one {}"))
    assert main(command(world, "--choices", str(world / "choices"), "--prompts", str(world / "other.jsonl"))) == 1
    assert "no references for 'one blue'" in capsys.readouterr().err


def test_choices_that_are_none_are_refused(tmp_path, world):
    (tmp_path / "choices.jsonl").write_text('{"arm": "zero"}\n')
    with pytest.raises(RealRAGError, match="line 1"):
        read_choices(tmp_path)
    with pytest.raises(RealRAGError, match="cannot be read"):
        read_choices(tmp_path / "nothing.jsonl")
    library = Bundle(world / "run" / "library")
    write_choices(tmp_path / "c", choose(library, ColorEncoder(), PROMPTS, {}, k=1), library)
    assert set(read_choices(tmp_path / "c")) == {"none", "random", "oracle"}
