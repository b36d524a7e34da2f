"""Hostile values through every input of every node, in a real ComfyUI: after each of them the next prompt runs.

    COMFYUI_PATH=... python tests/comfyui/attack_nodes.py [EVERY [NODE ...]]

EVERY: give each input only every so manieth value. NODE: such as LoadRetriever; all of them without one. Each value comes
twice, as a widget's value and from another node.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "attacks"), str(HERE.parent / "helpers"), str(HERE.parent.parent)]

from comfy_server import Graph, Refused, Server
from hostile_values import VALUES
from made_photos import write_photos

SHIPPED = "sample (shipped)"


def good(server: Server) -> tuple[Graph, dict[str, str]]:
    """A graph in which each of our nodes runs, and the id of each."""
    graph, ids = Graph(), {}
    info = server.json("/object_info")

    def first(node: str, name: str) -> str:
        kind, options = info[node]["input"]["required"][name]
        return (kind if isinstance(kind, list) else options["options"])[0]

    def add(kind: str, /, **inputs) -> str:
        declared = info[f"RealRAG_{kind}"]["input"]
        widgets = {
            key: options["default"]
            for key, (_, *rest) in {**declared["required"], **declared.get("optional", {})}.items()
            if (options := rest[0] if rest else {}).get("default") is not None
        }
        ids[kind] = graph.add(f"RealRAG_{kind}", **{**widgets, **inputs})
        return ids[kind]

    loader = add("LoadRetriever", bundle=SHIPPED)
    found = add("RetrieveReferences", retriever=[loader, 0], prompt="green apples", top_k=1)
    add("CheckReferences", retriever=[loader, 0], references=[found, 0], image=[found, 1])
    edited = add("EditReferences", references=[found, 0], weight=0.5)
    miniature = add("LoadMiniature", family=first("RealRAG_LoadMiniature", "family"))
    adapters = info["RealRAG_LoadReferenceAdapter"]["input"]["required"]["adapter"]
    names = adapters[0] if isinstance(adapters[0], list) else adapters[1]["options"]
    family = graph[miniature]["inputs"]["family"]
    adapter = add("LoadReferenceAdapter", adapter=next(name for name in names if name.startswith(family)))
    inputs = {"model": [miniature, 0], "adapter": [adapter, 0], "clip_vision": [loader, 1], "references": [edited, 0]}
    add("InjectReferences", **inputs)
    add("InjectSettings")
    add("BuildLibrary", photos="attacked photos", name="attacked")
    add("LibraryInfo", bundle=SHIPPED)
    add("Credits", images=[found, 1], references=[edited, 0])
    add("SaveReferencePack", **inputs, name="good", overwrite=True)
    return graph, ids


class Attack:
    def __init__(self, server: Server, every: int = 1, only: tuple[str, ...] = ()):
        self.server, self.every, self.only = server, every, only
        self.outcomes: Counter[str] = Counter()
        self.raw: Counter[str] = Counter()  # errors that are not ours: the node said it in no sentence
        write_photos(server.base / "input" / "attacked photos")
        self.graph, self.ids = good(server)
        server.run(self.graph)  # saves the pack that the next node loads
        self.ids["LoadReferencePack"] = self.graph.add("RealRAG_LoadReferencePack", pack="good.safetensors")
        for node in [*self.ids.values()]:
            self.graph.add("RealRAGTest_Sink", value=[node, 0])
        self.info = server.json("/object_info")
        ours = {name.removeprefix("RealRAG_") for name in self.info if name.startswith("RealRAG_")}
        assert ours == set(self.ids), f"not attacked: {ours - set(self.ids)}"

    def run(self) -> None:
        number = 0
        for name, node in self.ids.items():
            if self.only and name not in self.only:
                continue
            declared = self.info[f"RealRAG_{name}"]["input"]
            for key in {**declared["required"], **declared.get("optional", {})}:
                for value in VALUES[number % self.every :: self.every]:
                    for linked in (False, True):
                        try:
                            self.one(name, node, key, value, linked)
                        except (AssertionError, OSError) as error:
                            end = self.server.log.read_text(errors="replace")[-3000:]
                            raise AssertionError(
                                f"{name}.{key} = {value!r}, linked {linked}: {error}\n{end}"
                            ) from error
                number += 1
                self.next_prompt()

    def one(self, name: str, node: str, key: str, value: object, linked: bool) -> None:
        graph = Graph(self.graph)  # whole, as ComfyUI forgets what a prompt does not hold
        if linked:
            graph["value"] = {"class_type": "RealRAGTest_Value", "inputs": {"json": json.dumps(value)}}
        inputs = {**self.graph[node]["inputs"], key: ["value", 0] if linked else value}
        graph["attacked"] = {"class_type": self.graph[node]["class_type"], "inputs": inputs}
        graph["sink"] = {"class_type": "RealRAGTest_Sink", "inputs": {"value": ["attacked", 0]}}
        try:
            run = self.finished(self.server.queue(graph))
        except Refused as error:
            assert error.code == 400, error
            self.outcomes["refused"] += 1
            return
        failed = run["status"]["status_str"] != "success"
        events = dict(run["status"]["messages"])
        if not failed:
            self.outcomes["ran" if "sink" in run["outputs"] else "refused"] += 1
            return
        error = events["execution_error"]
        ours = "realrag.errors." in error["exception_type"]
        self.outcomes["refused in a sentence" if ours else "raw error"] += 1
        if not ours:
            where = "linked" if linked else "given"
            self.raw[
                f"{name}.{key} {where}: {error['node_type']}: {error['exception_type']}: {error['exception_message'][:90]!r}"
            ] += 1

    def finished(self, prompt: str) -> dict:
        end = time.monotonic() + 60
        while not (entry := self.server.json(f"/history/{prompt}").get(prompt)):
            assert time.monotonic() < end, "a prompt does not end"
            time.sleep(0.01)
        return entry

    def next_prompt(self) -> None:
        graph = Graph(self.graph)
        graph.add("RealRAGTest_ShowText", text=str(time.monotonic()))
        assert self.finished(self.server.queue(graph))["status"]["status_str"] == "success"


def main(every: int = 1, *only: str) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            attack = Attack(server, every, only)
            attack.run()
        finally:
            server.stop()
    for line, count in attack.raw.most_common():
        print(f"{count:4d}  {line}")
    print(f"{sum(attack.outcomes.values())} prompts in {time.monotonic() - began:.0f} s: {dict(attack.outcomes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2]), *sys.argv[2:]))
