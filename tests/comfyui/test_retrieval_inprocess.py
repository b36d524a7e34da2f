"""The retrieval nodes inside the real ComfyUI, in this process: memory, sharing, Cancel, folders, what they show."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture
def nodes(plugin):
    return plugin("nodes.load_retriever"), plugin("nodes.folders"), plugin("nodes.labels")


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


def test_every_card_has_one_size_and_an_empty_answer_has_one_card(nodes, plugin):
    from PIL import Image

    labels, references = nodes[2], plugin("realrag.references")
    sizes = ((60, 90), (120, 40), (30, 30))
    items = [
        references.Reference(
            "id",
            0.5,
            "",
            "a-very-long-class-name-that-no-card-can-hold",
            "",
            "",
            "",
            "f.jpg",
            *size,
            Image.new("RGB", size),
        )
        for size in sizes
    ]
    cards = labels.labelled(references.References("q", "b", tuple(items)))
    assert len(cards) == 3 and {card.shape for card in cards} == {(90 + 36, 120, 3)}
    (card,) = labels.labelled(references.References("q", "b", (), "Nothing scores 0.9 or more."))
    assert card.max() > 0.8 > card.mean()
