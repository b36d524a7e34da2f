"""A ComfyUI workflow in API format: reading it, and finding the inputs for prompt and seed by title or by its links."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from realrag.files import read_bounded
from realrag.validation import strict_json

from .errors import GeneratorError

MAX_WORKFLOW = 16 << 20  # bytes
# Inputs for text in ComfyUI's own nodes; all of them that a node has are filled.
TEXT_INPUTS = ("text", "clip_l", "clip_g", "t5xxl", "prompt", "value", "string")
SEED_INPUTS = ("seed", "noise_seed", "value")
PROMPT, SEED = "Prompt", "Seed"  # titles that are looked for first
# Inputs of samplers and guiders by which the prompt comes in: KSampler, CFGGuider; BasicGuider; DualCFGGuider.
POSITIVE = ("positive", "conditioning", "cond1", "cond2")
NEGATIVE = ("negative",)
# Links that carry no prompt, so that a search for it does not follow them.
OTHER = frozenset(
    "model clip vae latent latent_image samples image images pixels mask control_net noise sigmas sampler guider "
    "clip_vision clip_vision_output style_model retriever references".split()
)

Graph = dict[str, dict]
Places = list[tuple[str, str]]  # (node, input) pairs


def read_workflow(path: Path) -> Graph:
    """A workflow in API format: {node id: {"class_type", "inputs", "_meta": {"title"}}}."""
    try:
        graph = strict_json(read_bounded(Path(path), MAX_WORKFLOW))
    except OSError as error:
        raise GeneratorError(
            f"The workflow {path} cannot be read ({error.strerror}). Give the exported JSON file: --workflow FILE, or "
            "`workflow` in the recipe's section [imagine]."
        ) from None
    except ValueError as error:
        raise GeneratorError(f"The workflow {path} is not JSON ({error}). Export it again from ComfyUI.") from None
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise GeneratorError(
            f"{path} is a saved workflow; the API format is needed. In ComfyUI: Workflow > Export (API)."
        )
    nodes = graph.values() if isinstance(graph, dict) else ()
    if not nodes or not all(
        isinstance(n, dict) and isinstance(n.get("class_type"), str) and isinstance(n.get("inputs"), dict)
        for n in nodes
    ):
        raise GeneratorError(f"{path} is not a workflow in API format. In ComfyUI: Workflow > Export (API).")
    return graph


# By title


def title(node: dict) -> str:
    meta = node.get("_meta")
    return str((meta.get("title") if isinstance(meta, dict) else "") or node["class_type"])


def nodes_titled(graph: Graph, wanted: str) -> list[str]:
    """The ids of the nodes with a title, in any case. GeneratorError, with the titles that there are, if none has it."""
    found = [name for name, node in graph.items() if title(node).casefold() == wanted.casefold()]
    if not found:
        titles = ", ".join(sorted({repr(title(node)) for node in graph.values()}))
        raise GeneratorError(
            f"The workflow has no node titled {wanted!r}. Its titles are {titles}. Give one of them, or rename the node in "
            "ComfyUI (double-click on its title) and export again."
        )
    return found


def inputs_titled(graph: Graph, wanted: str, names: tuple[str, ...]) -> Places:
    """(node, input) pairs to fill: those of `names` in the nodes titled `wanted` that are not linked; or the one input of
    "TITLE.input"."""
    titles = {title(node).casefold() for node in graph.values()}
    name, dot, own = wanted.rpartition(".")
    if dot and wanted.casefold() not in titles:
        names = (own,)
    else:
        name = wanted
    found = nodes_titled(graph, name)
    places = [(node, each) for node in found for each in names if _is_free(graph, node, each)]
    if not places:
        given = sorted({each for node in found for each in graph[node]["inputs"]})
        raise GeneratorError(
            f"The node {name!r} has no free input {' or '.join(names)}; it has {', '.join(given) or 'none'}. "
            "Write TITLE.input to name one, and unlink it if another node feeds it."
        )
    return places


def prompt_inputs(graph: Graph, wanted: str = "") -> Places:
    """The inputs that take the prompt: of the nodes titled `wanted`; without it, of those titled "Prompt", else of those
    that feed the sampler's `positive`.

    GeneratorError where a title also names a node of the negative prompt, or where no node can be found."""
    positive, negative = _fed_by(graph, POSITIVE), _fed_by(graph, NEGATIVE)
    if not wanted and not _has_title(graph, PROMPT):
        if positive:
            return positive
        raise GeneratorError(
            "No sampler of the workflow has an input `positive` that a node with a text feeds. Name the node that takes "
            "the prompt: --prompt-node TITLE, or `prompt_node` in the recipe's section [imagine]. Titles are "
            f"{', '.join(sorted({repr(title(node)) for node in graph.values()}))}."
        )
    places = inputs_titled(graph, wanted or PROMPT, TEXT_INPUTS)
    wrong = [node for node, name in places if (node, name) in negative and (node, name) not in positive]
    if wrong and len({node for node, _ in places}) > 1:
        others = sorted({node for node, _ in places} - set(wrong))
        raise GeneratorError(
            f"The title {wanted or PROMPT!r} names {len(others) + len(set(wrong))} nodes, and node {wrong[0]} feeds the "
            f"negative prompt. Leave out --prompt-node (prompt_node) to fill what feeds the sampler's `positive`, or rename "
            f"node {', '.join(others)} in ComfyUI and export again."
        )
    return places


def seed_inputs(graph: Graph, wanted: str = "") -> Places:
    """The inputs that take the seed: of the nodes titled `wanted`; without it, of those titled "Seed", else every `seed`
    and `noise_seed` of the workflow. GeneratorError if there is none."""
    if wanted or _has_title(graph, SEED):
        return inputs_titled(graph, wanted or SEED, SEED_INPUTS)
    places: Places = []
    for node, each in graph.items():
        for name in SEED_INPUTS[:2]:
            if _is_free(graph, node, name) and _is_number(each["inputs"][name]):
                places.append((node, name))
            elif (source := _source(graph, each["inputs"].get(name))) is not None:
                inputs = graph[source]["inputs"]
                places += [(source, n) for n in SEED_INPUTS if _is_free(graph, source, n) and _is_number(inputs[n])]
    if not places:
        raise GeneratorError(
            "No node of the workflow has an input `seed` or `noise_seed`. Name the node that takes the seed: --seed-node "
            "TITLE, or `seed_node` in the recipe's section [imagine]."
        )
    return list(dict.fromkeys(places))


def described(graph: Graph, places: Places) -> str:
    """'"CLIP Text Encode" (node 6, input text)' of each place."""
    return ", ".join(f'"{title(graph[node])}" (node {node}, input {name})' for node, name in places)


# By links


def _has_title(graph: Graph, wanted: str) -> bool:
    return any(title(node).casefold() == wanted.casefold() for node in graph.values())


def _is_free(graph: Graph, node: str, name: str) -> bool:
    inputs = graph[node]["inputs"]
    return name in inputs and not isinstance(inputs[name], list)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _source(graph: Graph, value: object) -> str | None:
    """The node that a link leads from, or None where the value is not a link to a node of the workflow."""
    return value[0] if isinstance(value, list) and value and isinstance(value[0], str) and value[0] in graph else None


def _fed_by(graph: Graph, names: tuple[str, ...]) -> Places:
    """The free text inputs upstream of the samplers' inputs `names`."""
    begin = [
        source
        for node in _samplers(graph)
        for name in names
        if (source := _source(graph, graph[node]["inputs"].get(name))) is not None
    ]
    return list(dict.fromkeys(_texts(graph, begin, "negative" if names is NEGATIVE else "positive")))


def _samplers(graph: Graph) -> list[str]:
    """Nodes with a model and something to follow: samplers and guiders. Where there is none, all with a `positive`."""
    wanted = {*POSITIVE, *NEGATIVE}
    asked = [node for node, each in graph.items() if wanted & each["inputs"].keys()]
    return [node for node in asked if _source(graph, graph[node]["inputs"].get("model")) is not None] or asked


def _texts(graph: Graph, begin: list[str], side: str) -> Iterator[tuple[str, str]]:
    waiting, seen = list(begin), set()
    while waiting:
        node = waiting.pop(0)
        if node in seen:
            continue
        seen.add(node)
        inputs = graph[node]["inputs"]
        yield from ((node, name) for name in TEXT_INPUTS if isinstance(inputs.get(name), str))
        # A node that hands both prompts on, such as ControlNet, is left by the side on which it was entered.
        both = {"positive", "negative"} <= inputs.keys()
        follow = [side] if both else [name for name in inputs if name not in OTHER]
        waiting += [source for name in follow if (source := _source(graph, inputs.get(name))) is not None]
