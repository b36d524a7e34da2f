"""Build Reference Library and Library Info inside the real ComfyUI: from a folder, a .zip and images to an answer."""

from __future__ import annotations

import gc
import io
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

COLORS = {"red kite": (200, 40, 30), "blue tit": (40, 70, 200), "greenfinch": (50, 160, 60)}


def photo(color, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(-30, 30, (96, 128, 3))
    return Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8))


def write_photos(folder, count=3):
    for number, (name, color) in enumerate(COLORS.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            photo(color, 10 * number + index).save(folder / name / f"{index}.jpg")
    return folder


@pytest.fixture
def here(plugin, tmp_path, monkeypatch):
    """ComfyUI's folders in a temporary one, and the node's functions there."""
    import folder_paths

    folders = plugin("nodes.folders")
    for name in ("input", "temp", "user", "models"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    kept = dict(folder_paths.folder_names_and_paths)
    folder_paths.folder_names_and_paths[folders.BUNDLES] = ([str(tmp_path / "models")], {"folder"})
    (tmp_path / "clip_vision").mkdir()
    folder_paths.folder_names_and_paths["clip_vision"] = ([str(tmp_path / "clip_vision")], {".safetensors"})
    folder_paths.filename_list_cache.clear()
    yield tmp_path
    folder_paths.folder_names_and_paths.clear()
    folder_paths.folder_names_and_paths.update(kept)
    folder_paths.filename_list_cache.clear()
    gc.collect()


@pytest.fixture
def build(plugin, here):
    node = plugin("nodes.library.build_library").BuildReferenceLibrary

    def run(photos, name="birds", mode="add these photos", encoder="automatic", **others):
        return node.execute(photos=photos, name=name, mode=mode, encoder=encoder, **others).args

    run.node = node
    return run


def test_files_of_models_clip_vision_are_known_by_the_kind_of_their_encoder(plugin):
    kind = plugin("realrag.encoders.transformers_encoder").TransformersEncoder.kind
    assert plugin("nodes.encoder_files").FOUND_AGAIN == kind


def test_a_folder_becomes_a_library_that_answers_by_name(build, plugin, here):
    write_photos(here / "input" / "my birds")
    (here / "input" / "my birds" / "notes.pdf").write_bytes(b"%PDF-1.4")
    retriever, vision, report = build("my birds")
    assert [item.class_name for item in retriever.search("a blue tit on a branch", k=3).items] == ["blue tit"] * 3
    assert (
        "birds: 9 photos, encoder realrag-general." in report
        and "Ask it by name for its 3 classes: " in report.splitlines()[1]
    )
    assert "Passed over: 1 x .pdf file." in report
    assert vision.encode_image(torch.rand(1, 32, 32, 3)).image_embeds.shape[0] == 1
    assert "birds" in plugin("nodes.folders").bundles()
    again = plugin("nodes.retrieval.load_retriever").LoadReflectiveRetriever.execute(bundle="birds").args[0]
    assert again is retriever


def test_a_sub_folder_that_is_chosen_alone_keeps_its_name(build, here):
    """Who has put one more photo into it and chooses it, in place of the folder above, asks for all of them as before."""
    folder = write_photos(here / "input" / "birds", 2)
    build("birds")
    photo((60, 90, 180), 99).save(folder / "blue tit" / "new.jpg")
    retriever, _, report = build("birds/blue tit")
    assert "birds: 7 photos" in report and "1 encoded now" in report
    found = retriever.search("a blue tit on a branch", k=7, find_by="name").items
    assert [(item.class_name, item.found) for item in found] == [("blue tit", "by name")] * 3


def test_the_encoder_is_loaded_once_for_a_new_library_and_not_again_while_it_is_open(build, plugin, here, monkeypatch):
    general, loaded = plugin("realrag.encoders.general").GeneralEncoder, []
    load = general.__init__
    monkeypatch.setattr(general, "__init__", lambda self, *args: (loaded.append(1), load(self, *args))[1])
    write_photos(here / "input" / "one", 1)
    retriever = build("one")[0]
    assert len(loaded) == 1
    photo((120, 120, 120), 99).save(here / "input" / "one" / "red kite" / "new.jpg")
    again = build("one")[0]
    assert len(loaded) == 1, "one new photo needs no new encoder"
    assert again.patcher is retriever.patcher and again.search("red kite", k=4).items


def test_adding_matching_and_taking_out(build, here):
    folder = write_photos(here / "input" / "one")
    write_photos(here / "input" / "two", 1)
    photo((120, 120, 120), 99).save(here / "input" / "two" / "blue tit" / "new.jpg")
    build("one")
    assert "10 photos" in build("two")[2], "three are copies, one is new"
    shutil.rmtree(folder / "greenfinch")
    with pytest.raises(Exception, match="more than max_removed 25"):
        build("one", mode="match the folder")
    assert "6 photos" in build("one", mode="match the folder", max_removed=100)[2]
    assert "3 photos" in build("one/blue tit", mode="take these photos out")[2]


def test_images_with_captions_and_a_class_are_taken_in(build, here):
    pictures = torch.stack([torch.from_numpy(np.asarray(photo((200, 180, 20), n), np.float32) / 255) for n in range(3)])
    retriever, _, report = build(
        "(none: use the images)", "cats", images=pictures, captions="asleep\nawake\nhungry", class_name="my cat: Miez"
    )
    assert "cats: 3 photos" in report
    found = retriever.search("my cat Miez", k=3).items
    assert {item.caption for item in found} == {"asleep", "awake", "hungry"} and {item.found for item in found} == {
        "by name"
    }
    assert not list((here / "temp").glob("realrag_images_*"))
    with pytest.raises(Exception, match="2 captions for 3 images"):
        build("(none: use the images)", "cats", images=pictures, captions="a\nb")
    with pytest.raises(Exception, match="no folder to match"):
        build("(none: use the images)", "cats", mode="match the folder", images=pictures)
    with pytest.raises(Exception, match="no photos to take in"):
        build("(none: use the images)", "cats")


def test_halves_of_characters_in_credits_and_captions_are_replaced(build, here):
    write_photos(here / "input" / "birds", 1)
    assert "3 photos" in build("birds", author="A\udfffda", license="MIT\udfff")[2]
    report = build(
        "(none: use the images)", "cats", images=torch.rand(1, 20, 20, 3), captions="a\ud800b", class_name="c\ud800"
    )
    assert "cats: 1 photo," in report[2]


def test_a_zip_in_the_input_folder_is_taken_in(build, here):
    write_photos(here / "far", 1)
    with zipfile.ZipFile(here / "input" / "birds.zip", "w") as archive:
        for path in (here / "far").rglob("*.jpg"):
            archive.write(path, path.relative_to(here / "far"))
    retriever, _, report = build("birds.zip", "zipped")
    assert "zipped: 3 photos" in report
    assert retriever.search("red kite", k=1).items[0].class_name == "red kite"


def test_the_encoder_is_a_file_of_clip_vision_and_is_found_again(build, plugin, here, monkeypatch):
    from tiny_encoders import write_tiny_transformers

    with torch.inference_mode(False):
        write_tiny_transformers(here / "clip_vision", "B")
    write_photos(here / "input" / "birds")
    import folder_paths

    name = folder_paths.get_filename_list("clip_vision")[0]
    assert "by clip: 9 photos, encoder model." in build("birds", "by clip", encoder=name)[2]
    load = plugin("nodes.retrieval.load_retriever")
    gc.collect()
    opened = load.open_retriever(here / "models" / "by clip")
    assert opened.retriever.encoder.kind == "transformers" and opened.search("red kite", k=1).items
    assert "by clip: 9 photos, encoder model." in build("birds", "by clip")[2], "automatic takes the library's own"
    with pytest.raises(Exception, match=r"was made with the encoder .* Choose 'automatic'"):
        build("birds", "by clip", encoder="realrag-small (shipped)")
    (here / "clip_vision" / name).unlink()
    folder_paths.filename_list_cache.clear()
    manifest = plugin("realrag.bundle.bundle").read_manifest(here / "models" / "by clip")
    with pytest.raises(Exception, match=r"made with .*from models/clip_vision; there is no such file"):
        plugin("nodes.encoder_files").encoder_of(manifest)


def test_a_vision_tower_alone_makes_a_library_that_is_found_by_name_and_by_picture(build, here):
    import transformers

    config = transformers.CLIPVisionConfig(
        hidden_size=64, num_hidden_layers=2, intermediate_size=96, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=24,
    )  # fmt: skip
    with torch.inference_mode(False):
        torch.manual_seed(0)
        transformers.CLIPVisionModelWithProjection(config).save_pretrained(here / "clip_vision")
    write_photos(here / "input" / "birds")
    retriever, _, report = build("birds", "seen", encoder="model.safetensors")
    assert "seen: 9 photos" in report and "reads no words" in report
    assert [item.class_name for item in retriever.search("a red kite", k=3).items] == ["red kite"] * 3
    assert "reads no words" in retriever.search("a red kite", k=3).note
    assert retriever.search("", image=photo((40, 70, 200), 1), k=3).items
    assert len(retriever.search("a blue tit", image=photo((40, 70, 200), 1), k=3).items) == 3


@pytest.mark.parametrize(
    "name", ["", " ", "..", "../x", "a/b", "a\\b", "C:x", "con", "NUL.txt", "x" * 65, ".hidden", "end.", "a\nb", "COM\u00b9", 7, None, [], {}]
)  # fmt: skip
def test_a_name_that_could_leave_the_folder_is_refused_before_anything_is_read_or_written(build, plugin, here, name):
    with pytest.raises(plugin("realrag.errors").RealRAGError, match=r"cannot be called|name is .*; it must be a text"):
        build("no folder of this name", name=name)
    assert not list((here / "models").iterdir())


@pytest.mark.parametrize(
    "photos", ["..", "/etc", "../models", "missing", "", "my birds/../..", 7, [], {}, float("nan")]
)
def test_photos_are_chosen_from_the_list_alone(build, here, photos):
    (here / "input" / "my birds").mkdir()
    assert "There are: my birds" in build.node.validate_inputs(photos=photos)
    assert build.node.fingerprint_inputs(photos=photos) == ""


def test_a_new_photo_changes_the_fingerprint(build, here):
    folder = write_photos(here / "input" / "birds")
    before = build.node.fingerprint_inputs(photos="birds")
    assert build.node.fingerprint_inputs(photos="birds") == before
    photo((1, 2, 3), 5).save(folder / "blue tit" / "more.jpg")
    assert build.node.fingerprint_inputs(photos="birds") != before


def test_cancel_leaves_the_library_as_it_was_and_going_on_finishes(build, here):
    import comfy.model_management as management

    write_photos(here / "input" / "one", 1)
    build("one")
    before = (here / "models" / "birds" / "manifest.json").read_bytes()
    write_photos(here / "input" / "two")
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        build("two")
    assert (here / "models" / "birds" / "manifest.json").read_bytes() == before
    assert "9 photos" in build("two")[2]


def test_library_info_says_what_is_there(build, plugin, here):
    write_photos(here / "input" / "birds")
    build("birds", author="Ada", license="CC-BY-4.0")
    node = plugin("nodes.library.library_info").LibraryInfo
    text = node.execute(bundle="birds").args[0]
    assert "Photos: 9," in text and "Classes: blue tit (3), greenfinch (3), red kite (3)" in text
    assert "CC-BY-4.0 (9)" in text and "Encoder: realrag-general" in text and "Heads: none" in text
    assert node.validate_inputs(bundle="birds") is True and "No bundle named" in node.validate_inputs(bundle="x")
    assert node.fingerprint_inputs(bundle="birds") and node.fingerprint_inputs(bundle=7) == ""


def test_library_info_names_the_classes_that_can_be_asked_for(build, plugin, here):
    """As one asks for them; a folder of dates is none, and a library without any says what to do."""
    describe = plugin("nodes.library.library_info").LibraryInfo.execute
    for name, folder in (("dated", "2023/08"), ("named", "001.Blue_Tit")):
        (here / "input" / name / folder).mkdir(parents=True)
        for index in range(3):
            photo((40, 70, 200), index).save(here / "input" / name / folder / f"IMG_{index}.jpg")
    build("dated", name="dated")
    assert "Classes: none: put each class into a sub-folder" in describe(bundle="dated").args[0]
    build("named", name="named")
    assert "Classes: Blue Tit (3)\n" in describe(bundle="named").args[0]


def test_progress_says_how_fast_and_how_long(plugin):
    text = plugin("nodes.progress").progress_text
    assert text("encoding", 0, 3000, 0) == "encoding 0 of 3,000"
    assert text("encoding", 100, 3000, 10) == "encoding 100 of 3,000 · 10 a second · 4 min 50 s left"
    assert text("encoding", 2, 4, 10) == "encoding 2 of 4 · 5.0 seconds each · 10 s left"


def test_a_folder_linked_into_itself_does_not_hang_the_hook(build, here):
    folder = write_photos(here / "input" / "birds", 1)
    before = build.node.fingerprint_inputs(photos="birds")
    (folder / "again").symlink_to(here / "input", target_is_directory=True)
    (here / "input" / "empty").mkdir()
    (here / "input" / "empty" / "itself").symlink_to(here / "input" / "empty", target_is_directory=True)
    assert build.node.fingerprint_inputs(photos="birds") == before
    assert build.node.fingerprint_inputs(photos="empty")


def test_a_renamed_folder_and_a_moved_photo_are_run_again(build, here):
    """No file of it has changed: the name that photos are asked by has."""
    folder = write_photos(here / "input" / "birds", 1)
    states = [build.node.fingerprint_inputs(photos="birds")]
    (folder / "blue tit").rename(folder / "titmouse")
    states.append(build.node.fingerprint_inputs(photos="birds"))
    (folder / "titmouse" / "0.jpg").rename(folder / "red kite" / "1.jpg")
    states.append(build.node.fingerprint_inputs(photos="birds"))
    assert len(set(states)) == 3
    assert build.node.fingerprint_inputs(photos="birds") == states[-1]


def test_an_encoder_that_no_file_of_clip_vision_can_stand_for_travels_with_the_library(build, plugin, here):
    from tiny_encoders import write_tiny_small

    with torch.inference_mode(False):
        write_tiny_small(here / "clip_vision")
    write_photos(here / "input" / "birds", 1)
    build("birds", "small", encoder="small_encoder.safetensors")
    (here / "clip_vision" / "small_encoder.safetensors").unlink()
    gc.collect()
    assert (
        plugin("nodes.retrieval.load_retriever").open_retriever(here / "models" / "small").search("red kite", k=1).items
    )


def test_a_picture_of_one_channel_is_taken_in(plugin):
    images = plugin("nodes.images")
    data = images.png(images.pixels(torch.full((4, 5, 1), 0.5)))
    assert Image.open(io.BytesIO(data)).size == (5, 4) and Image.open(io.BytesIO(data)).mode == "RGB"
