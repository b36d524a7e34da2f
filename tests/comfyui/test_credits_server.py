"""Credits in the files that a real ComfyUI server saves: cached runs, several libraries, API prompts, other formats."""

from __future__ import annotations

import json

import pytest
from comfy_server import Graph, Server
from PIL import Image

from realrag.credits.read import FoundCredits, read_credits

SHIPPED = "sample (shipped)"
WORKFLOW = {"id": "here", "nodes": [{"id": 1, "type": "Note"}], "links": [], "version": 0.4}


class Saved:
    """A prompt that saves pictures: each the best photo for some words, credited or not."""

    def __init__(self, server: Server, prefix: str = "credited"):
        self.server, self.graph, self.prefix = server, Graph(), prefix
        self.loader = self.graph.add("RealRAG_LoadRetriever", bundle=SHIPPED)

    def found(self, prompt: str) -> str:
        options = dict(top_k=1, min_score=0.0, diversity=0.0)
        return self.graph.add("RealRAG_RetrieveReferences", retriever=[self.loader, 0], prompt=prompt, **options)

    def credited(self, images: list, references: str) -> list:
        return [self.graph.add("RealRAG_Credits", images=images, references=[references, 0]), 0]

    def save(self, images: list, kind: str = "SaveImage", **options) -> str:
        return self.graph.add(kind, images=images, filename_prefix=self.prefix, **options)

    def run(self, extra: dict | None = None):
        body = {"prompt": self.graph} | ({"extra_data": extra} if extra is not None else {})
        run = self.server.wait(json.loads(self.server.post("/prompt", body))["prompt_id"])
        assert run.status == "success", run.events
        return run

    def read(self, run, node: str) -> FoundCredits:
        (image,) = run.outputs[node]["images"]
        return read_credits(self.server.base / "output" / image["subfolder"] / image["filename"])


def titles(found: FoundCredits) -> list[str]:
    return [photo.title for photo in found.photos()]


def picture_of(server: Server, run, node: str) -> Image.Image:
    (image,) = run.outputs[node]["images"]
    return Image.open(server.base / "output" / image["subfolder"] / image["filename"])


def credit_line(server: Server, prompt: str) -> str:
    """What Retrieve's own credits text says of its best photo."""
    saved = Saved(server)
    shown = saved.graph.add("RealRAGTest_ShowText", text=[saved.found(prompt), 3])
    return saved.run().outputs[shown]["text"][0]


def test_a_saved_picture_names_its_photo_and_still_restores_the_graph(server: Server):
    saved = Saved(server)
    apple = saved.found("granny smith")
    credited = saved.credited([apple, 1], apple)
    node = saved.save(credited)
    shown = saved.graph.add("RealRAGTest_ShowText", text=[credited[0], 1])
    run = saved.run({"extra_pnginfo": {"workflow": WORKFLOW}})
    found = saved.read(run, node)
    assert found.sure
    assert found.text() == credit_line(server, "granny smith") == run.outputs[shown]["text"][0]
    texts = picture_of(server, run, node).text
    assert json.loads(texts["workflow"]) == WORKFLOW
    sent = json.loads(texts["prompt"], parse_constant=pytest.fail)  # a page reads no NaN
    assert {key: node["inputs"] for key, node in sent.items()} == {
        key: node["inputs"] for key, node in saved.graph.items()
    }
    # the prompt of the picture, sent again as it was saved
    saved.graph = Graph(sent)
    assert saved.read(saved.run(), node).credits == found.credits
    saved.graph[node]["inputs"]["filename_prefix"] = "elsewhere"
    assert saved.read(saved.run(), node).sure


@pytest.mark.parametrize("extra", [None, {}, {"extra_pnginfo": None}, {"extra_pnginfo": {}}])
def test_a_prompt_through_the_api_is_credited_too(server: Server, extra: dict | None):
    saved = Saved(server)
    apple = saved.found("granny smith")
    node = saved.save(saved.credited([apple, 1], apple))
    run = saved.run(extra)
    assert saved.read(run, node).sure
    assert set(picture_of(server, run, node).text) == {"prompt", "realrag"}


def test_when_everything_before_is_cached_the_credit_is_still_there(server: Server):
    saved = Saved(server, "first")
    apple = saved.found("granny smith")
    node = saved.save(saved.credited([apple, 1], apple))
    first = saved.read(saved.run(), node)
    saved.graph[node]["inputs"]["filename_prefix"] = "second"
    again = saved.run()
    assert {saved.loader, apple} <= again.cached
    found = saved.read(again, node)
    assert found.sure
    assert found.credits == first.credits
    # a third one, with a saving node that was not there before
    other = saved.save([apple, 1])
    saved.graph[other]["inputs"]["images"] = saved.graph[node]["inputs"]["images"]
    assert saved.read(saved.run(), other).credits == first.credits


def test_two_searches_are_both_credited(server: Server):
    saved = Saved(server)
    apple, milk = saved.found("granny smith"), saved.found("a carton of milk")
    node = saved.save(saved.credited(saved.credited([apple, 1], apple), milk))
    found = saved.read(saved.run(), node)
    assert found.sure
    lines = found.text().splitlines()
    expected = [credit_line(server, prompt).split(". ", 1)[1] for prompt in ("granny smith", "a carton of milk")]
    assert [line.split(". ", 1)[1] for line in lines] == expected
    assert expected[0] != expected[1]


def test_each_picture_of_a_run_has_its_own_credit(server: Server):
    saved = Saved(server)
    apple, milk, plain = (saved.found(prompt) for prompt in ("granny smith", "a carton of milk", "garlic"))
    nodes = [saved.save(saved.credited([one, 1], one)) for one in (apple, milk)]
    without = saved.save([plain, 1])
    run = saved.run()
    found = [saved.read(run, node) for node in nodes]
    assert all(one.sure for one in found)
    assert [one.text() for one in found] == [
        credit_line(server, prompt) for prompt in ("granny smith", "a carton of milk")
    ]
    assert not saved.read(run, without).sure


def test_credits_of_an_earlier_run_do_not_come_back(server: Server):
    old = {"format": "realrag-credits", "version": 1, "credits": [{"references": [{"title": "old"}], "pictures": []}]}
    saved = Saved(server)
    nothing = saved.found("a puffin")
    node = saved.save(saved.credited([nothing, 1], nothing))
    found = saved.read(saved.run({"extra_pnginfo": {"workflow": WORKFLOW, "realrag": old}}), node)
    assert found.credits == ()


def test_webp_is_credited(server: Server):
    saved = Saved(server)
    apple = saved.found("granny smith")
    images = saved.credited([apple, 1], apple)
    node = saved.save(images, "SaveAnimatedWEBP", fps=6.0, lossless=True, quality=80, method="default")
    run = saved.run({"extra_pnginfo": {"workflow": WORKFLOW}})
    assert saved.read(run, node).text() == credit_line(server, "granny smith")
