"""The whole chain in a real ComfyUI server: prompt -> real references -> patched model -> sampler -> saved picture."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import synthetic_adapters
import torch
from comfy_server import ROOT, Graph, Refused, Run, Server
from safetensors.torch import save_file

from realrag.bundle.bundle import read_manifest
from realrag.bundle.edit_heads import change_heads
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.miniature.files import families_there

SHIPPED = "sample (shipped)"
# family -> (model file for UNETLoader, tiny VAE)
FAMILIES = {"flux": ("tiny_flux", "taef1"), "sd3": ("tiny_sd3", "taesd3"), "sd35": ("tiny_sd35m", "taesd3")}


def retrieval(graph: Graph, prompt: str = "green apples", **options) -> str:
    loader = graph.add("RealRAG_LoadRetriever", bundle=SHIPPED)
    inputs = {"retriever": [loader, 0], "prompt": prompt, "top_k": 2, "min_score": 0.0, "diversity": 0.0, **options}
    return graph.add("RealRAG_RetrieveReferences", **inputs)


def model_and_vae(graph: Graph, server: Server, family: str) -> tuple[str, str]:
    name, vae = FAMILIES[family]
    if family == "flux" and not server.detects_tiny_flux:
        model = graph.add("RealRAGTest_TinyFlux")
    else:
        model = graph.add("UNETLoader", unet_name=f"{name}.safetensors", weight_dtype="default")
    return model, graph.add("VAELoader", vae_name=vae)


def inject(graph: Graph, model: str, vae: str, references: str | None, strength: float = 1.0) -> str:
    inputs = {"model": [model, 0], "vae": [vae, 0], "strength": strength, "start_percent": 0.0, "end_percent": 1.0}
    if references:
        inputs["references"] = [references, 0]
    return graph.add("RealRAG_InjectReferences", **inputs)


def sample(graph: Graph, model: str, steps: int = 2, size: int = 64) -> str:
    """Sample 64 x 64 pixels; returns the latent's node."""
    positive, negative = (graph.add("RealRAGTest_Conditioning", seed=seed) for seed in (1, 2))
    latent = graph.add("EmptySD3LatentImage", width=size, height=size, batch_size=1)
    return graph.add(
        "KSampler", model=[model, 0], positive=[positive, 0], negative=[negative, 0], latent_image=[latent, 0],
        seed=7, steps=steps, cfg=2.0, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip


def shown_hash(graph: Graph, latent: str) -> str:
    return graph.add("RealRAGTest_LatentHash", latent=[latent, 0])


def shown_text(run: Run, node: str) -> str:
    return run.outputs[node]["text"][0]


@pytest.fixture(scope="module")
def ids(server: Server) -> tuple[str, str]:
    """Two photos that have little in common: the best answers to two prompts."""
    graph = Graph()
    found = [retrieval(graph, prompt, top_k=1) for prompt in ("green apples", "a carton of milk")]
    shown = [graph.add("RealRAGTest_ShowText", text=[node, 2]) for node in found]
    run = server.run(graph)
    first, second = (shown_text(run, node).split()[2] for node in shown)
    assert first != second
    return first, second


NODES = (
    "LoadRetriever", "RetrieveReferences", "EditReferences", "LoadReferenceAdapter", "InjectReferences",
    "SaveReferencePack", "LoadReferencePack", "Credits", *["LoadMiniature"] * bool(families_there()),
)  # fmt: skip


def test_the_nodes_are_there_with_words_on_everything(server: Server):
    for name in NODES:
        info = server.json("/object_info")[f"RealRAG_{name}"]
        assert info["category"] == "RealRAG" and info["description"] and info["display_name"]
        inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
        silent = [key for key, (_, *options) in inputs.items() if not options or not options[0].get("tooltip")]
        assert not silent and all(info["output_tooltips"])
        assert b"# " in server.get(f"/extensions/realrag/docs/RealRAG_{name}.md")


def test_a_prompt_ends_as_a_saved_picture_with_its_references_shown_in_order(server: Server):
    graph = Graph()
    found = retrieval(graph, "granny smith", top_k=3)  # a class: its photos are ranked by score
    scores, credits = (graph.add("RealRAGTest_ShowText", text=[found, slot]) for slot in (2, 3))
    batch = graph.add("PreviewImage", images=[found, 1])
    model, vae = model_and_vae(graph, server, "flux")
    latent = sample(graph, inject(graph, model, vae, found))
    decoded = graph.add("VAEDecode", samples=[latent, 0], vae=[vae, 0])
    saved = graph.add("SaveImage", images=[decoded, 0], filename_prefix="realrag")
    run = server.run(graph)

    assert len(run.outputs[found]["images"]) == 3
    assert all(server.picture(image).std() > 0 for image in run.outputs[found]["images"])
    shapes = {server.picture(image).shape for image in run.outputs[batch]["images"]}
    assert len(run.outputs[batch]["images"]) == 3 and len(shapes) == 1
    lines = shown_text(run, scores).splitlines()
    assert [line.split()[:2] for line in lines] == [["1.", "-"], ["2.", "-"], ["3.", "-"]]  # found by name
    looks = [float(re.search(r"\(by name; look alone (-?\d\.\d{3})\)", line)[1]) for line in lines]
    assert looks == sorted(looks, reverse=True)
    assert len(shown_text(run, credits).splitlines()) == 3
    (picture,) = run.outputs[saved]["images"]
    assert picture["type"] == "output" and server.picture(picture).shape == (64, 64, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_references_change_the_picture_and_nothing_else_does(server: Server, ids: tuple[str, str], family: str):
    first, second = ids
    graph = Graph()
    model, vae = model_and_vae(graph, server, family)
    pinned = {"A": first, "B": second, "A+B": f"{first}, {second}"}
    found = {name: retrieval(graph, include_ids=chosen) for name, chosen in pinned.items()}
    arms = {name: inject(graph, model, vae, node) for name, node in found.items()}
    arms["strength 0"] = inject(graph, model, vae, found["A"], strength=0.0)
    arms["no reference"] = inject(graph, model, vae, None)
    arms["unpatched"] = model
    shown = {name: shown_hash(graph, sample(graph, node)) for name, node in arms.items()}

    run = server.run(graph)
    hashes = {name: shown_text(run, node) for name, node in shown.items()}
    assert hashes["unpatched"] == hashes["no reference"] == hashes["strength 0"]
    assert len({hashes[name] for name in ("unpatched", "A", "B", "A+B")}) == 4

    server.forget()
    again = server.run(graph)
    assert not again.cached and {name: shown_text(again, node) for name, node in shown.items()} == hashes


def test_an_adapter_file_steers_the_picture(server: Server, ids: tuple[str, str]):
    folder = server.base / "models" / "realrag_adapters"
    folder.mkdir(exist_ok=True)
    save_file(synthetic_adapters.xlabs(width=256, blocks=2, encoder=24), folder / "tiny_xlabs.safetensors")
    graph = Graph()
    model, vae = model_and_vae(graph, server, "flux")
    adapter = graph.add("RealRAG_LoadReferenceAdapter", adapter="tiny_xlabs.safetensors")
    vision = graph.add("RealRAGTest_TinyClipVision")
    arms = {"unpatched": model}
    for name, chosen, strength in (("A", ids[0], 1.0), ("B", ids[1], 1.0), ("strength 0", ids[0], 0.0)):
        arms[name] = inject(graph, model, vae, retrieval(graph, include_ids=chosen), strength)
        graph[arms[name]]["inputs"] |= {"adapter": [adapter, 0], "clip_vision": [vision, 0]}
    shown = {name: shown_hash(graph, sample(graph, node)) for name, node in arms.items()}
    report = graph.add("RealRAGTest_ShowText", text=[arms["A"], 1])
    run = server.run(graph)
    hashes = {name: shown_text(run, node) for name, node in shown.items()}
    assert hashes["strength 0"] == hashes["unpatched"]
    assert len({hashes[name] for name in ("unpatched", "A", "B")}) == 3
    assert "XLabs" in shown_text(run, report)


@pytest.mark.parametrize("name", ["../../secrets.bin", "/etc/passwd", "C:\\x.pt", "no-such-adapter.safetensors", ""])
def test_an_adapter_that_is_not_in_the_list_is_never_opened(server: Server, name: str):
    (server.base / "secrets.bin").write_bytes(b"not yours")
    graph = Graph()
    model, vae = model_and_vae(graph, server, "sd3")
    patched = inject(graph, model, vae, retrieval(graph))
    loader = graph.add("RealRAG_LoadReferenceAdapter", adapter=name)
    graph[patched]["inputs"]["adapter"] = [loader, 0]
    shown = shown_hash(graph, sample(graph, patched))
    answer = json.loads(server.post("/prompt", {"prompt": graph}))  # what does not hang on it, the photos, runs
    assert loader in answer["node_errors"]
    run = server.wait(answer["prompt_id"])
    assert run.status == "success" and shown not in run.outputs


def test_an_empty_answer_says_so_and_leaves_the_picture_alone(server: Server):
    graph = Graph()
    nothing = retrieval(graph, min_score=1.0)
    scores = graph.add("RealRAGTest_ShowText", text=[nothing, 2])
    model, vae = model_and_vae(graph, server, "sd3")
    passed, plain = (
        shown_hash(graph, sample(graph, inject(graph, model, vae, nothing))),
        shown_hash(graph, sample(graph, model)),
    )
    run = server.run(graph)
    assert "0 of 2" in shown_text(run, scores)
    assert len(run.outputs[nothing]["images"]) == 1  # the card that says why
    assert shown_text(run, passed) == shown_text(run, plain)


def test_a_picture_finds_itself_and_filters_hold(server: Server, ids: tuple[str, str]):
    graph = Graph()
    query = retrieval(graph, include_ids=ids[0])
    same = retrieval(graph, prompt="", image=[query, 1], top_k=1)
    other = retrieval(graph, prompt="", image=[query, 1], top_k=1, exclude_ids=ids[0])
    shown = [graph.add("RealRAGTest_ShowText", text=[node, 2]) for node in (same, other)]
    run = server.run(graph)
    assert ids[0] in shown_text(run, shown[0]) and ids[0] not in shown_text(run, shown[1])


def test_a_second_run_comes_from_the_cache_and_a_new_number_runs_only_what_hangs_on_it(server: Server):
    def build(top_k: int) -> tuple[Graph, str, str]:
        graph = Graph()
        found = retrieval(graph, prompt="a red pepper", top_k=top_k)
        scores = graph.add("RealRAGTest_ShowText", text=[found, 2])
        return graph, found, scores

    graph, found, scores = build(2)
    server.run(graph)
    assert server.run(graph).cached == set(graph)
    graph, found, scores = build(3)
    assert set(graph) - server.run(graph).cached == {found, scores}


def test_bundles_are_found_in_models_and_where_the_users_yaml_says_and_a_damaged_one_is_refused(server: Server):
    sample = ROOT / "realrag" / "assets" / "sample"
    shutil.copytree(sample, server.base / "models" / "realrag" / "dropped")
    damaged = shutil.copytree(sample, server.base / "my-libraries" / "damaged")
    manifest, embeddings = damaged / "manifest.json", next(damaged.glob("embeddings*"))
    manifest.write_bytes(manifest.read_bytes() + b"\n")  # another bundle, so that no open one answers for it
    embeddings.write_bytes(embeddings.read_bytes()[:-1] + b"!")
    options = server.json("/object_info/RealRAG_LoadRetriever")["RealRAG_LoadRetriever"]["input"]["required"]["bundle"]
    made_here = (SHIPPED, "damaged", "dropped")  # other tests put libraries into the same server
    assert [name for name in options[1]["options"] if name in made_here] == [*made_here]

    runs = {}
    for name in ("dropped", "damaged"):
        graph = Graph()
        found = retrieval(graph)
        graph["1"]["inputs"]["bundle"] = name
        graph.add("RealRAGTest_ShowText", text=[found, 2])
        runs[name] = server.wait(server.queue(graph))
    assert runs["dropped"].status == "success"
    assert (
        runs["damaged"].status == "error"
        and "has changed" in runs["damaged"].events["execution_error"]["exception_message"]
    )


def test_each_head_of_a_library_can_be_chosen_and_a_graph_from_before_heads_still_runs(server: Server, tmp_path):
    folder = shutil.copytree(ROOT / "realrag" / "assets" / "sample", server.base / "models" / "realrag" / "two-heads")
    for seed, name in enumerate(("flux", "sd35")):
        torch.manual_seed(seed)
        head = ReflectiveHead(read_manifest(folder).dim, 8, {"generator": name})
        torch.nn.init.normal_(head.fc2.weight)
        save_head(head, tmp_path / f"{name}.safetensors")
    change_heads(folder, {name: tmp_path / f"{name}.safetensors" for name in ("flux", "sd35")})
    heads = server.json("/object_info/RealRAG_LoadRetriever")["RealRAG_LoadRetriever"]["input"]["optional"]["head"]
    assert heads[1]["options"] == ["auto", "none (plain encoder)", "flux", "sd35"] and heads[1]["default"] == "auto"

    graph, shown = Graph(), {}
    for chosen in (None, "auto", "none (plain encoder)", "flux", "sd35"):
        found = retrieval(graph)
        loader = graph[found]["inputs"]["retriever"][0]
        graph[loader]["inputs"] = {"bundle": "two-heads", **({"head": chosen} if chosen else {})}
        shown[chosen] = graph.add("RealRAGTest_ShowText", text=[found, 2])
    run = server.run(graph)
    texts = {chosen: shown_text(run, node) for chosen, node in shown.items()}
    assert texts[None] == texts["auto"] == texts["flux"] and "head 'flux'" in texts["flux"]
    assert len(set(texts.values())) == 3 and "plain encoder" in texts["none (plain encoder)"]


@pytest.mark.parametrize(
    "head", ["sd3", "../flux", "C:\\x", "", "a\0b", "flux, sd35", 7, {"head": "flux"}, ["a", "b", "c"]]
)
def test_a_head_that_the_library_lacks_gives_no_photos(server: Server, head):
    """Refused before anything runs by the versions of ComfyUI that look a name up in its list; by 0.3.64 when it runs."""
    graph = Graph()
    found = retrieval(graph)
    graph[graph[found]["inputs"]["retriever"][0]]["inputs"]["head"] = head
    graph.add("RealRAGTest_ShowText", text=[found, 2])
    try:
        run = server.wait(server.queue(graph))
    except Refused as refusal:
        assert refusal.code == 400
        assert "not in list" in str(refusal) or isinstance(head, list)  # ComfyUI itself refuses a list as a bad link
    else:
        error = run.events["execution_error"]
        assert run.status == "error" and not run.outputs and "realrag.errors." in error["exception_type"]
        assert any(rule in error["exception_message"] for rule in ("it has none", "one of the texts in its list"))


@pytest.mark.parametrize(
    "name", ["../../secrets", "/etc", "C:\\Windows", "sample (shipped)/..", "no-such-bundle", "a\0b", ""]
)
def test_a_bundle_that_is_not_in_the_list_is_refused_before_anything_runs(server: Server, name: str):
    graph = Graph()
    loader = graph.add("RealRAG_LoadRetriever", bundle=name)
    found = graph.add(
        "RealRAG_RetrieveReferences", retriever=[loader, 0], prompt="apples", top_k=1, min_score=0.0, diversity=0.0
    )
    graph.add("RealRAGTest_ShowText", text=[found, 2])
    with pytest.raises(Refused) as refusal:
        server.queue(graph)
    assert refusal.value.code == 400 and "No bundle named" in str(refusal.value)


def test_an_empty_prompt_without_a_picture_is_an_error_in_words_and_the_server_lives_on(server: Server):
    graph = Graph()
    graph.add("RealRAGTest_ShowText", text=[retrieval(graph, prompt="  "), 2])
    run = server.wait(server.queue(graph))
    assert run.status == "error" and "empty" in run.events["execution_error"]["exception_message"]
    assert server.get("/system_stats")


def test_odd_values_are_refused_or_answered_in_words_and_never_hurt_the_server(server: Server):
    odd = {
        "top_k": [0, -1, 10**9, "many", None, 2.7, float("nan")],
        "min_score": [-5, 2, "high", None, float("nan"), float("inf")],
        "diversity": [-0.1, 1.1, "much", float("nan")],
        "prompt": [5, None, "", "a\0b", "x" * 200_000, "\ud800", "苹果 🍏", {"text": "apples"}],
        "class_filter": [",,,", "no such class", "a," * 50_000, 7],
        "include_ids": ["../../etc/passwd", "\0", ",", "0" * 16],
    }
    graph = Graph()
    found = retrieval(graph)
    graph.add("RealRAGTest_ShowText", text=[found, 2])
    for name, values in odd.items():
        for value in values:
            changed = {key: {**node, "inputs": dict(node["inputs"])} for key, node in graph.items()}
            changed[found]["inputs"][name] = value
            try:
                run = server.wait(server.queue(changed))
            except Refused as refusal:
                assert refusal.code == 400, (name, value)
                continue
            if run.status == "error":
                assert run.events["execution_error"]["exception_type"].endswith("QueryError"), (name, value, run.events)
    server.run(graph)


def test_a_run_with_references_can_be_interrupted_and_the_next_is_unharmed(server: Server, ids: tuple[str, str]):
    def build(steps: int) -> Graph:
        graph = Graph()
        model, vae = model_and_vae(graph, server, "sd3")
        shown_hash(graph, sample(graph, inject(graph, model, vae, retrieval(graph, include_ids=ids[0])), steps, 256))
        return graph

    prompt = server.queue(build(10_000))
    run = server.interrupt(prompt)
    assert run.status == "error" and "execution_interrupted" in run.events
    server.run(build(2))
