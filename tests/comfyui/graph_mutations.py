"""Ways in which a graph in API form goes wrong. Each takes (graph, rng, object_info), changes the graph at one of our nodes and
says what it did. None of them breaks what ComfyUI itself promises to answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from comfy_server import Graph

NUMBERS = ("INT", "FLOAT")


def declared(graph: Graph, info: dict) -> list[tuple[str, str, str, dict, bool]]:
    """(node, input, kind, options, required) of each input that one of our nodes has in this graph."""
    found = []
    for node, content in graph.items():
        described = info[content["class_type"]]["input"]
        for part in ("required", "optional"):
            for name, (kind, *options) in described.get(part, {}).items():
                if content["class_type"].startswith("RealRAG_") and name in content["inputs"]:
                    options = options[0] if options else {}
                    kind = "COMBO" if isinstance(kind, list) else kind
                    found.append((node, name, kind, options, part == "required"))
    return found


def linked(graph: Graph, info: dict, rng: Random, required: bool = False) -> tuple[str, str, str]:
    """(node, input, kind) of an input of ours that is linked."""
    chosen = [(node, name, kind) for node, name, kind, _, needed in declared(graph, info)
              if isinstance(graph[node]["inputs"][name], list) and (needed or not required)]  # fmt: skip
    return rng.choice(chosen)


def widget(graph: Graph, info: dict, rng: Random, *kinds: str) -> tuple[str, str, str, dict]:
    """(node, input, kind, options) of a widget of ours."""
    chosen = [(node, name, kind, options) for node, name, kind, options, _ in declared(graph, info)
              if kind in kinds and not isinstance(graph[node]["inputs"][name], list)]  # fmt: skip
    return rng.choice(chosen)


def told(graph: Graph, node: str, name: str, value: object) -> str:
    graph[node]["inputs"][name] = value
    return f"{graph[node]['class_type']}.{name} = {json.dumps(value)[:60]}"


def link_missing(graph: Graph, rng: Random, info: dict) -> str:
    node, name, _ = linked(graph, info, rng, required=True)
    del graph[node]["inputs"][name]
    return f"{graph[node]['class_type']}.{name} is not connected"


def value_missing(graph: Graph, rng: Random, info: dict) -> str:
    needed = [(node, name) for node, name, kind, options, required in declared(graph, info)
              if required and kind in (*NUMBERS, "COMBO", "STRING", "BOOLEAN")]  # fmt: skip
    node, name = rng.choice(needed)
    del graph[node]["inputs"][name]
    return f"{graph[node]['class_type']}.{name} has no value"


def node_missing(graph: Graph, rng: Random, info: dict) -> str:
    node, name, _ = linked(graph, info, rng, required=True)
    gone = graph[node]["inputs"][name][0]
    return f"{graph.pop(gone)['class_type']} is gone"


def wrong_node(graph: Graph, rng: Random, info: dict) -> str:
    node, name, _ = linked(graph, info, rng)
    return told(graph, node, name, [rng.choice(["999", "", "no such node", "-1"]), 0])


def wrong_slot(graph: Graph, rng: Random, info: dict) -> str:
    node, name, _ = linked(graph, info, rng)
    return told(graph, node, name, [graph[node]["inputs"][name][0], rng.choice([17, 99, 10**6])])


def other_slot(graph: Graph, rng: Random, info: dict) -> str:
    """The right node, and an output of another type."""
    node, name, kind = linked(graph, info, rng)
    origin = graph[node]["inputs"][name][0]
    outputs = info[graph[origin]["class_type"]]["output"]
    others = [slot for slot, output in enumerate(outputs) if output not in (kind, "*")]
    if not others:
        return wrong_slot(graph, rng, info)
    return told(graph, node, name, [origin, rng.choice(others)])


def slots_swapped(graph: Graph, rng: Random, info: dict) -> str:
    """Two inputs of one node get each other's links."""
    pairs = []
    for node, content in graph.items():
        if content["class_type"].startswith("RealRAG_"):
            here = [(name, kind) for at, name, kind, *_ in declared(graph, info)
                    if at == node and isinstance(content["inputs"][name], list)]  # fmt: skip
            pairs += [(node, one, two) for one, kind in here for two, other in here if one < two and kind != other]
    node, one, two = rng.choice(pairs)
    inputs = graph[node]["inputs"]
    inputs[one], inputs[two] = inputs[two], inputs[one]
    return f"{graph[node]['class_type']}: {one} and {two} are swapped"


def link_malformed(graph: Graph, rng: Random, info: dict) -> str:
    node, name, _ = linked(graph, info, rng)
    origin = graph[node]["inputs"][name][0]
    return told(graph, node, name, rng.choice([[origin], [origin, 0, 0], []]))


def text_for_number(graph: Graph, rng: Random, info: dict) -> str:
    node, name, *_ = widget(graph, info, rng, *NUMBERS)
    return told(graph, node, name, rng.choice(["", "much", "1e", "0x10", {"value": 1}]))


def out_of_range(graph: Graph, rng: Random, info: dict) -> str:
    node, name, _, options = widget(graph, info, rng, *NUMBERS)
    return told(graph, node, name, rng.choice([options["max"] + 1, options["min"] - 1, 10**12, -(10**12)]))


def no_number(graph: Graph, rng: Random, info: dict) -> str:
    node, name, *_ = widget(graph, info, rng, "FLOAT")
    return told(graph, node, name, rng.choice([float("nan"), float("inf"), -float("inf")]))


def unknown_choice(graph: Graph, rng: Random, info: dict) -> str:
    node, name, *_ = widget(graph, info, rng, "COMBO")
    return told(graph, node, name, rng.choice(["gone", "", "../../etc/passwd", "AUTO ", "x" * 300]))


def loop(graph: Graph, rng: Random, info: dict) -> str:
    """A node that waits for what comes after it."""
    fitting, others = [], []
    for node, name, kind, *_ in declared(graph, info):
        if isinstance(graph[node]["inputs"][name], list):
            for later in sorted(after(graph, node)):
                outputs = info[graph[later]["class_type"]]["output"]
                others += [(node, name, [later, 0])] * bool(outputs)
                fitting += [(node, name, [later, slot]) for slot, output in enumerate(outputs) if output == kind]
    return told(graph, *rng.choice(fitting or others))


def after(graph: Graph, node: str) -> set[str]:
    """The nodes that wait for this one, without itself."""
    found, waiting = set(), [node]
    while waiting:
        origin = waiting.pop()
        for other, content in graph.items():
            if other not in found and any(
                isinstance(v, list) and v[:1] == [origin] for v in content["inputs"].values()
            ):
                found.add(other)
                waiting.append(other)
    return found - {node}


def class_unknown(graph: Graph, rng: Random, info: dict) -> str:
    node = rng.choice([node for node, content in graph.items() if content["class_type"].startswith("RealRAG_")])
    graph[node]["class_type"] = rng.choice(["RealRAG_Gone", "realrag_loadretriever", "", "LoadRetriever"])
    return f"a node of the class {graph[node]['class_type']!r}"


def wrong_thing(graph: Graph, rng: Random, info: dict) -> str:
    """A value of another type arrives from a node whose output fits everything."""
    node, name, kind = linked(graph, info, rng)
    value = rng.choice([5, "text", [1, 2], {"a": 1}, True, -0.5])
    if kind == "STRING" and isinstance(value, str):
        value = 5
    graph["value"] = {"class_type": "RealRAGTest_Value", "inputs": {"json": json.dumps(value)}}
    return told(graph, node, name, ["value", 0]) + f", which is {value!r}"


def nothing_arrives(graph: Graph, rng: Random, info: dict) -> str:
    node, name, _ = linked(graph, info, rng, required=True)
    graph["value"] = {"class_type": "RealRAGTest_Value", "inputs": {"json": "null"}}
    return told(graph, node, name, ["value", 0]) + ", which is None"


MUTATIONS: list[Callable[[Graph, Random, dict], str]] = [
    link_missing, value_missing, node_missing, wrong_node, wrong_slot, other_slot, slots_swapped, link_malformed,
    text_for_number, out_of_range, no_number, unknown_choice, loop, class_unknown, wrong_thing, nothing_arrives,
]  # fmt: skip
