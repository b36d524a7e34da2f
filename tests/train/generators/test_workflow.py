"""Which nodes take prompt and seed: by title, or by following the sampler's links."""

import pytest

from realrag_train.generators.errors import GeneratorError
from realrag_train.generators.workflow import described, prompt_inputs, seed_inputs

CLIP = "CLIP Text Encode (Prompt)"


def node(kind, title="", **inputs):
    return {"class_type": kind, "inputs": inputs} | ({"_meta": {"title": title}} if title else {})


def plain():
    """The graph that ComfyUI opens with: both prompts have one title."""
    return {
        "3": node("KSampler", seed=1, model=["4", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0]),
        "4": node("CheckpointLoaderSimple", ckpt_name="x"),
        "5": node("EmptyLatentImage", width=64),
        "6": node("CLIPTextEncode", CLIP, text="a bottle", clip=["4", 1]),
        "7": node("CLIPTextEncode", CLIP, text="watermark", clip=["4", 1]),
    }


def test_without_a_title_the_sampler_s_positive_is_followed():
    graph = plain()
    assert prompt_inputs(graph) == [("6", "text")]
    assert seed_inputs(graph) == [("3", "seed")]
    assert described(graph, [("6", "text")]) == '"CLIP Text Encode (Prompt)" (node 6, input text)'


def test_a_title_that_also_names_the_negative_prompt_is_refused():
    with pytest.raises(
        GeneratorError, match=r"names 2 nodes, and node 7 feeds the negative prompt. Leave out --prompt-node"
    ):
        prompt_inputs(plain(), CLIP)
    graph = plain()
    graph["6"]["_meta"]["title"] = "Prompt"
    assert prompt_inputs(graph) == [("6", "text")] == prompt_inputs(graph, "prompt")
    assert prompt_inputs(graph, CLIP) == [("7", "text")]  # one node, named: the user's word counts


def test_the_prompt_is_found_through_guidance_control_nets_and_text_boxes():
    graph = {
        "1": node("StringBox", value="a bottle"),
        "2": node("CLIPTextEncodeFlux", clip_l=["1", 0], t5xxl=["1", 0], guidance=3.5, clip=["9", 0]),
        "3": node("CLIPTextEncode", text="bad", clip=["9", 0]),
        "4": node("ControlNetApplyAdvanced", positive=["2", 0], negative=["3", 0], image=["8", 0]),
        "5": node("FluxGuidance", conditioning=["4", 0], guidance=3.5),
        "6": node("CFGGuider", model=["9", 1], positive=["5", 0], negative=["4", 1], cfg=1.0),
        "7": node("RandomNoise", noise_seed=3),
        "8": node("LoadImage", image="a.png"),
        "9": node("Loader", name="x"),
        "10": node("SamplerCustomAdvanced", guider=["6", 0], noise=["7", 0], latent_image=["9", 2]),
    }
    assert prompt_inputs(graph) == [("1", "value")]
    assert seed_inputs(graph) == [("7", "noise_seed")]


def test_flux_s_basic_guider_is_followed_and_an_empty_negative_is_no_doubt():
    graph = {
        "1": node("CLIPTextEncode", text="a", clip=["3", 0]),
        "2": node("BasicGuider", model=["3", 1], conditioning=["1", 0]),
        "3": node("Loader"),
        "4": node(
            "KSampler", model=["3", 1], seed=["6", 0], positive=["1", 0], negative=["5", 0], latent_image=["3", 2]
        ),
        "5": node("ConditioningZeroOut", conditioning=["1", 0]),
        "6": node("PrimitiveInt", value=5),
    }
    assert prompt_inputs(graph) == [("1", "text")]
    assert seed_inputs(graph) == [("6", "value")]


def test_a_workflow_without_a_sampler_or_a_seed_asks_for_their_names():
    graph = {"1": node("Maker", "My maker", words="a"), "2": node("SaveImage", images=["1", 0])}
    with pytest.raises(GeneratorError, match=r"--prompt-node TITLE.*'My maker', 'SaveImage'"):
        prompt_inputs(graph)
    with pytest.raises(GeneratorError, match="--seed-node TITLE"):
        seed_inputs(graph)
    circle = {"1": node("KSampler", model=["2", 0], positive=["2", 0]), "2": node("Odd", a=["1", 0], b=["7", 0])}
    with pytest.raises(GeneratorError, match="No sampler of the workflow"):
        prompt_inputs(circle)
