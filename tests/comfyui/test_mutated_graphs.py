"""Fifty graphs that went wrong, in a real ComfyUI server: each is refused in words, and the next right prompt runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from random import Random

import pytest
from attack_nodes import good
from comfy_server import ROOT, Graph, Refused, Server
from graph_mutations import MUTATIONS, loop
from made_photos import write_photos

from realrag_train.maintainer_tools import tool

pytestmark = pytest.mark.slow
CASES = 50
PHOTOS = "mutated photos"


@pytest.fixture(scope="module")
def graphs(server: Server) -> dict[str, tuple[Graph, set[str]]]:
    """Graphs that run, and what each shows: each of our nodes once, the graph to start with, and the graph for own photos."""
    write_photos(server.base / "input" / "attacked photos")
    write_photos(server.base / "input" / PHOTOS)
    info = server.json("/object_info")
    every, ids = good(server)
    for node in ids.values():
        every.add("RealRAGTest_Sink", value=[node, 0])
    found = {"every node": every}
    for name in ("RealRAG 01 Start here", "RealRAG 02 Your own photos"):
        saved = json.loads((ROOT / "workflows" / f"{name}.json").read_text())
        found[name] = Graph(tool("make_workflows").as_prompt(saved, info))
    for node in found["RealRAG 02 Your own photos"].values():
        if node["class_type"] == "RealRAG_BuildLibrary":
            node["inputs"]["photos"] = PHOTOS
    for graph in found.values():
        for node in graph.values():
            if "steps" in node["inputs"]:
                node["inputs"]["steps"] = 1
    return {name: (graph, set(server.run(graph).outputs)) for name, graph in found.items()}


def mutated(graphs: dict, case: int, info: dict) -> tuple[Graph, set[str], Graph, str]:
    """A right graph, what it shows, the same gone wrong, and how. The first graph that has something to break so is taken."""
    mutate: Callable = MUTATIONS[case % len(MUTATIONS)]
    bases = list(graphs.values())
    for at in range(case, case + len(bases)):
        right, shown = bases[at % len(bases)]
        graph = Graph(json.loads(json.dumps(right)))
        try:
            return right, shown, graph, mutate(graph, Random(case), info)
        except IndexError:
            continue
    raise AssertionError(f"no graph for {mutate.__name__}")


@pytest.mark.parametrize("case", range(CASES))
def test_a_graph_that_went_wrong_is_refused_in_words_and_the_next_prompt_runs(server: Server, graphs, case: int):
    right, shown, graph, what = mutated(graphs, case, server.json("/object_info"))
    try:
        answer = json.loads(server.post("/prompt", {"prompt": graph}))
    except Refused as error:
        assert error.code == 400, (what, error)
        refused_by_validation(error.body["node_errors"] or {}, what)
        assert error.body["error"]["message"], what
    else:
        run = server.wait(answer["prompt_id"])
        if answer["node_errors"]:  # the outputs that do not hang on the fault run
            refused_by_validation(answer["node_errors"], what)
        elif run.status == "success":  # old versions leave the outputs behind a loop away without a word
            assert MUTATIONS[case % len(MUTATIONS)] is loop and set(run.outputs) < shown, f"{what}: it ran"
        else:
            refused_by_a_node(run, what)
    alive = Graph(json.loads(json.dumps(right)))
    alive.add("RealRAGTest_ShowText", text=f"{case} {time.monotonic()}")
    server.run(alive)


def refused_by_validation(errors: dict, what: str) -> None:
    for node in errors.values():
        for each in node["errors"]:
            assert each["message"], what
            assert "Traceback" not in each["details"], (what, each["details"])


def refused_by_a_node(run, what: str) -> None:
    """A sentence of ours, from one of our nodes."""
    error = run.events["execution_error"]
    message = error["exception_message"].strip()
    assert "realrag.errors." in error["exception_type"] or "Blocked" in error["exception_type"], (what, error)
    assert error["node_type"].startswith("RealRAG_") or "Blocked" in error["exception_type"], (what, error["node_type"])
    assert "Traceback" not in message and "\n" not in message, (what, message)
    assert message.endswith(".") and len(message) < 600, (what, message)


def test_every_kind_of_fault_is_among_them():
    assert len(MUTATIONS) <= CASES
    assert len({mutation.__name__ for mutation in MUTATIONS}) == len(MUTATIONS)
