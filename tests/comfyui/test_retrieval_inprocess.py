"""The retrieval nodes inside the real ComfyUI, in this process: memory, sharing, Cancel, folders, what they show."""

from __future__ import annotations

import gc
import shutil

import pytest


@pytest.fixture
def nodes(plugin):
    return plugin("nodes.retrieval.load_retriever"), plugin("nodes.folders"), plugin("nodes.retrieval.preview")


def test_the_encoder_is_loaded_by_comfyuis_memory_management(nodes):
    import comfy.model_management as management

    load, folders, _ = nodes
    managed = load.open_retriever(folders.bundle_folder(folders.SHIPPED))
    assert len(managed.search("green apples", k=2)) == 2
    assert managed.patcher in [loaded.model for loaded in management.current_loaded_models]
    management.unload_all_models()
    assert managed.patcher not in [loaded.model for loaded in management.current_loaded_models]


def test_nodes_with_one_bundle_share_one_retriever_and_it_goes_with_the_last_of_them(nodes):
    load, folders, _ = nodes
    folder = folders.bundle_folder(folders.SHIPPED)
    first, second = load.open_retriever(folder), load.open_retriever(folder)
    assert first is second
    del first, second
    gc.collect()
    assert not load._open


@pytest.fixture
def two_heads(plugin, nodes, tmp_path):
    """The shipped bundle with two heads, "flux" and "SD3.5", in a folder that ComfyUI knows."""
    import folder_paths
    import torch

    head, folders = plugin("realrag.encoders.reflective_head"), nodes[1]
    folder = shutil.copytree(folders.bundle_folder(folders.SHIPPED), tmp_path / "bundles" / "two-heads")
    dim, files = plugin("realrag.bundle.bundle").read_manifest(folder).dim, {}
    with torch.inference_mode(False):
        for seed, name in enumerate(("flux", "SD3.5")):
            torch.manual_seed(seed)
            made = head.ReflectiveHead(dim, 8, {"generator": name})
            torch.nn.init.normal_(made.fc2.weight)
            head.save_head(made, tmp_path / f"{name}.safetensors")
            files[name] = tmp_path / f"{name}.safetensors"
    plugin("realrag.bundle.edit_heads").change_heads(folder, files)
    before = folder_paths.folder_names_and_paths[folders.BUNDLES]
    folder_paths.add_model_folder_path(folders.BUNDLES, str(tmp_path / "bundles"))
    yield folder
    folder_paths.folder_names_and_paths[folders.BUNDLES] = (
        [p for p in before[0] if p != str(tmp_path / "bundles")],
        before[1],
    )


def test_heads_of_one_bundle_rank_differently_and_share_one_encoder(nodes, two_heads):
    load = nodes[0]
    opened = {head: load.open_retriever(two_heads, head) for head in ("flux", "SD3.5", "none")}
    assert load.open_retriever(two_heads) is opened["flux"], "the first head is the default"
    assert len({id(managed.retriever.encoder) for managed in opened.values()}) == 1
    assert len({id(managed.patcher) for managed in opened.values()}) == 1
    answers = {head: managed.search("green apples", k=3) for head, managed in opened.items()}
    assert len({tuple(item.score for item in answer.items) for answer in answers.values()}) == 3
    assert "Ranked through the head 'SD3.5'." in answers["SD3.5"].scores_text()
    assert "plain encoder, through none of the heads (flux, SD3.5)" in answers["none"].scores_text()
    plain = load.open_retriever(nodes[1].bundle_folder(nodes[1].SHIPPED)).search("green apples", k=3)
    assert plain.ranked_by == "" and [i.score for i in plain.items] == [i.score for i in answers["none"].items]
    del opened
    gc.collect()
    assert not load._open


def test_the_list_offers_the_heads_of_all_bundles_and_a_wrong_one_is_refused_with_what_there_is(
    plugin, nodes, two_heads
):
    load, folders, _ = nodes
    node = load.LoadReflectiveRetriever
    (two_heads.parent / "damaged").mkdir()
    (two_heads.parent / "damaged" / "manifest.json").write_text("{")
    assert folders.head_names() == ["flux", "SD3.5"]
    options = next(each for each in node.define_schema().inputs if each.id == "head")
    assert options.options == ["auto", "none (plain encoder)", "flux", "SD3.5"] and options.default == "auto"
    assert node.validate_inputs("two-heads") is True
    for right in ("auto", "none (plain encoder)", "none", "flux", "SD3.5", None):
        assert node.execute("two-heads", right).args
    with pytest.raises(plugin("realrag.errors").BundleError, match="no head 'flux': it has none"):
        node.execute(folders.SHIPPED, "flux")
    for wrong in ("Flux", "../flux", "/etc/passwd", "", "flux\0", "x" * 10_000):
        with pytest.raises(plugin("realrag.errors").BundleError, match=r"its heads are flux, SD3\.5"):
            node.execute("two-heads", wrong)
    for wrong in (7, [], {"a": 1}, True, float("nan")):
        with pytest.raises(plugin("realrag.errors").QueryError, match="head is"):
            node.execute("two-heads", wrong)


def test_cancel_stops_the_opening_of_a_bundle(nodes):
    import comfy.model_management as management

    load, folders, _ = nodes
    gc.collect()
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        load.open_retriever(folders.bundle_folder(folders.SHIPPED))
    assert not load._open
    load.open_retriever(folders.bundle_folder(folders.SHIPPED))


def test_registering_again_keeps_the_users_folders_in_front(nodes, tmp_path):
    import folder_paths

    _, folders, _ = nodes
    for name in folders.SUFFIXES:
        folder_paths.add_model_folder_path(name, str(tmp_path), is_default=True)
        before = list(folder_paths.get_folder_paths(name))
        folders.register()
        assert folder_paths.get_folder_paths(name) == before and before[0] == str(tmp_path)
        before.remove(str(tmp_path))
        folder_paths.folder_names_and_paths[name] = (before, folders.SUFFIXES[name])


def test_every_card_has_one_size_whatever_the_photos_and_an_empty_answer_has_one_card(nodes, plugin):
    import numpy as np
    from PIL import Image

    preview, references = nodes[2], plugin("realrag.references")
    name = "a-very-long-class-name-that-no-card-can-hold"
    items = [
        references.Reference("id", 0.5, "", name, "", "", "", "f.jpg", *size, Image.new("RGB", size, "white"))
        for size in ((60, 90), (768, 40), (30, 30), (768, 1))
    ]
    cards = [np.asarray(card) for card in preview.labeled(references.References("q", "b", tuple(items)))]
    assert len(cards) == 4 and {card.shape for card in cards} == {(384 + 96, 384, 3)}
    for card, (width, height) in zip(cards, ((256, 384), (384, 20), (384, 384), (384, 1)), strict=True):
        white = (card[:384] > 250).all(axis=2)
        assert (white.any(axis=0).sum(), white.any(axis=1).sum()) == (width, height), "small photos are not stamps"
    (card,) = preview.labeled(references.References("q", "b", (), "Nothing scores 0.9 or more."))
    values = np.asarray(card) / 255
    assert values.max() > 0.8 > values.mean()


def test_the_page_gets_what_a_card_shows_and_the_photo_itself(nodes, plugin):
    import json

    load, folders, preview = nodes
    library = load.open_retriever(folders.bundle_folder(folders.SHIPPED))
    references = library.search("a lemon\na mango", k=2, pinned=["0" * 16])
    ui = preview.shown(references)
    assert json.loads(json.dumps(ui)) == ui and len(ui["images"]) == 2
    assert ui["realrag_note"] == [references.note] and "not in this library" in references.note
    for rank, (photo, item) in enumerate(zip(ui["realrag_photos"], references.items, strict=True), 1):
        assert (photo["id"], photo["rank"], photo["object"]) == (item.id, rank, item.object)
        assert (
            photo["score"] == pytest.approx(item.score, abs=1e-4)
            and photo["credit"] == item.credit()
            and photo["licensed"]
        )
        assert photo["photo"]["type"] == "temp" and photo["photo"]["filename"].endswith(".jpg")
    nothing = preview.shown(library.search("a puffin"))
    assert nothing["realrag_photos"] == [] and "set min_score to 0" in nothing["realrag_note"][0]


def test_pins_bans_and_pages_reach_the_search(nodes, plugin):
    load, folders, _ = nodes
    retrieve, errors = plugin("nodes.retrieval.retrieve"), plugin("realrag.errors")
    library = load.open_retriever(folders.bundle_folder(folders.SHIPPED))
    settings = dict(retriever=library, prompt="garlic", top_k=2, min_score=0.0, diversity=0.0, doubt="keep")

    def found(**given) -> list[str]:
        return [item.id for item in retrieve.RetrieveRealReferences.execute(**settings, **given).result[0].items]

    plain, later = found(), found(page=2)
    assert not set(plain) & set(later) and found(page=None, pinned=None) == found(page=1.0, pinned=" ,\n") == plain
    assert found(pinned=f"{later[0]}, {later[1]}") == later
    assert found(pinned=later[0]) == [later[0], plain[0]]
    assert found(pinned=later[0], exclude_ids=later[0]) == plain
    assert found(pinned="../../etc/passwd, \0, " + "f" * 16) == plain
    drawn = f"{plain[1]}:gA{'A' * 680}A="
    masked = retrieve.RetrieveRealReferences.execute(**settings, masks=drawn).result[0]
    assert [item.settings.mask is None for item in masked.items] == [True, False]
    for wrong in (
        {"masks": "x"},
        {"masks": 5},
        {"page": 0},
        {"page": 101},
        {"page": 1.5},
        {"page": "2"},
        {"pinned": 7},
        {"pinned": [later[0]]},
    ):
        with pytest.raises(errors.QueryError):
            found(**wrong)


def test_linked_values_that_are_no_texts_are_refused_in_words_and_none_counts_as_not_given(nodes, plugin):
    load, folders, _ = nodes
    retrieve, errors = plugin("nodes.retrieval.retrieve"), plugin("realrag.errors")
    node = retrieve.RetrieveRealReferences
    library = load.open_retriever(folders.bundle_folder(folders.SHIPPED))
    settings = dict(retriever=library, top_k=2, min_score=0.0, diversity=0.0)

    def found(**given) -> list[str]:
        return [item.id for item in node.execute(**settings, **given).result[0].items]

    plain = found(prompt="a lemon")
    nothing = dict.fromkeys(("look_for", "find_by", "doubt", "class_filter", "licence_filter", "exclude_ids"))
    assert len(plain) == 2 and found(prompt="a lemon", **nothing) == plain
    assert found(prompt=None, look_for="a lemon") == plain
    for wrong in (5, 2.5, True, [], {"a": 1}, b"lemon"):
        for name in ("prompt", "look_for", "find_by", "doubt", "class_filter", "include_ids"):
            with pytest.raises(errors.QueryError):
                found(**{"prompt": "a lemon", name: wrong})


def test_the_card_of_a_doubtful_answer_names_the_way_out(nodes, plugin):
    import numpy as np

    references = plugin("realrag.references").References
    notes = [references("q", "b", (), "Nothing here fits: best 0.42.", doubtful=doubtful) for doubtful in (False, True)]
    short, long = (np.asarray(nodes[2].labeled(each)[0]) for each in notes)
    assert (long > 128).sum() > 2 * (short > 128).sum(), "more is written on it"
    assert not (long[-16:] > 128).any(), "nothing is cut off at the bottom"


def test_a_gate_says_whether_anything_was_found_and_a_picture_is_checked_against_its_references(nodes, plugin):
    load, folders, _ = nodes
    managed = load.open_retriever(folders.bundle_folder(folders.SHIPPED))
    retrieve = plugin("nodes.retrieval.retrieve").RetrieveRealReferences
    check = plugin("nodes.retrieval.check_references").CheckAgainstReferences
    asked = {"retriever": managed, "top_k": 2, "min_score": 0.0, "diversity": 0.0}
    references, _, _, _, found, best = retrieve.execute(prompt="garlic", **asked).args
    assert found is True and best == max(item.score for item in references.items)
    nothing = retrieve.execute(prompt="a puffin", **asked).args
    assert nothing[4] is False and -1 < nothing[5] < 1
    copied = references.images()[1][None]
    report, sheet, likeness, near_copy = check.execute(retriever=managed, references=references, image=copied).args
    assert near_copy is True and likeness > 0.99 and "nearly a copy of reference 2" in report
    assert sheet.ndim == 4 and sheet.shape[-1] == 3
    report, _, likeness, near_copy = check.execute(retriever=managed, references=nothing[0], image=copied).args
    assert (near_copy, likeness) == (False, -1.0) and "no references" in report
