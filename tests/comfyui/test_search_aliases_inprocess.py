"""What artists type into the node search leads to a node of ours, where this ComfyUI knows other names for nodes."""

from __future__ import annotations

import asyncio

import pytest

WORDS = ("ipadapter", "reference", "real photo", "image search", "rag", "redux")


@pytest.fixture(scope="module")
def aliases(plugin) -> dict[str, list[str]]:
    from comfy_api.latest import io

    if not plugin("nodes.compat").supported_keywords(io.Schema, search_aliases=[]):
        pytest.skip("this ComfyUI knows no other names for nodes")
    nodes = asyncio.run(plugin("nodes").RealRAGExtension().get_node_list())
    return {node.GET_SCHEMA().node_id: node.GET_SCHEMA().search_aliases for node in nodes}


@pytest.mark.parametrize("word", WORDS)
def test_the_word_is_another_name_of_one_of_our_nodes(aliases, word):
    assert [node for node, names in aliases.items() if word in names]


def test_every_node_has_other_names_and_none_twice(aliases):
    assert not [node for node, names in aliases.items() if not names or len(set(names)) != len(names)]
    assert all(name == name.lower().strip() for names in aliases.values() for name in names)
