"""Prompts: classes with the right article, and all captions; what is asked of photos that were not trained on."""

import json

import pytest
from speckles import speckled

from realrag.errors import RealRAGError
from realrag.photos.scan import scan
from realrag_train.dataset import Prompt, read_prompts
from realrag_train.retriever.prompts import (
    Described,
    Wording,
    describe_photos,
    photos_of,
    with_article,
    write_prompts,
)


@pytest.mark.parametrize(
    "name, text",
    [
        ("apple", "an apple"), ("pear", "a pear"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"), ("house", "a house"), ("european robin", "a european robin"),
        ("8 track tape", "an 8 track tape"), ("1994 audi 100", "a 1994 audi 100"), ("audi 100", "an audi 100"),
        ("bananas", "bananas"), ("sun glasses", "sun glasses"), ("glass", "a glass"), ("bus", "a bus"), ("iris", "an iris"),
        ("camera lens", "a camera lens"), ("the eiffel tower", "the eiffel tower"), ("one way sign", "a one way sign"),
        ("iphone 5s", "an iphone 5s"), ("uninhabited island", "an uninhabited island"), ("x-ray", "an x-ray"),
        ("toyota prius", "a toyota prius"), ("usb stick", "a usb stick"), ("ox", "an ox"),
    ],
)  # fmt: skip
def test_a_class_has_the_article_that_it_needs(name, text):
    assert with_article("a photo of a {}", name) == f"a photo of {text}"
    assert with_article("A {}, drawn", name) == f"A {name}, drawn" and with_article("{} on a table", name).startswith(
        name
    )


def folder_of(tmp_path, files):
    for at, file in enumerate(files):
        path = tmp_path / "photos" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        speckled(at).save(path)
    return tmp_path / "photos"


def described(folder, table=None):
    return describe_photos(folder, table, photos_of(scan(folder, table, archives=True).candidates))


def test_all_captions_of_a_photo_are_prompts_and_classes_too(tmp_path):
    folder = folder_of(tmp_path, ["red mug/a.png", "owl/b.png"])
    lines = [
        {"file": "red mug/a.png", "captions": ["a mug on a table", "breakfast"]},
        {"file": "red mug/a.png", "caption": "somebody's cup"}, {"file": "owl/b.png", "caption": "Owl"},
    ]  # fmt: skip
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prompts = Wording().library(described(folder))
    assert prompts == [
        Prompt("a photo of an owl", "owl"), Prompt("a photo of a red mug", "red mug"),
        Prompt("a mug on a table", "red mug"), Prompt("breakfast", "red mug"), Prompt("somebody's cup", "red mug"),
    ]  # fmt: skip
    assert Wording(captions=False).library(described(folder)) == prompts[:2]
    assert len(Wording(most=3).library(described(folder))) == 3


def test_captions_without_classes_ask_for_their_own_photo(tmp_path):
    folder = folder_of(tmp_path, ["images/a.png", "images/b.png"])
    (tmp_path / "words.csv").write_text("file,caption\nimages/a.png,two dogs on a beach\nimages/b.png,a cat asleep\n")
    photos = scan(folder, tmp_path / "words.csv").candidates
    prompts = Wording().library(described(folder, tmp_path / "words.csv"))
    assert prompts == [
        Prompt(text, "", photo.sha256[:16]) for photo, text in zip(photos, ("two dogs on a beach", "a cat asleep"), strict=True)
    ]  # fmt: skip
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    assert read_prompts(tmp_path / "prompts.jsonl") == prompts


def test_photos_without_any_words_are_refused_with_the_cure(tmp_path):
    folder = folder_of(tmp_path, ["a.png", "b.png"])
    with pytest.raises(RealRAGError, match=r"neither classes nor captions.*--captions FILE"):
        Wording().library(described(folder))


def test_what_is_asked_of_new_photos_is_in_words_that_were_not_trained_on():
    trained = Wording().library([Described("1", "owl", ("an owl at night",)), Described("2", "mug", ())])
    new = [Described("3", "owl", ("an owl at night", "an owl by day")), Described("4", "bus", ("a red bus",)),
           Described("5", "", ("a dog",))]  # fmt: skip
    assert Wording().asked(new, trained) == [
        Prompt("a photo of an owl", "owl"), Prompt("an owl by day", "owl"), Prompt("a dog", "", "5"),
    ]  # fmt: skip
