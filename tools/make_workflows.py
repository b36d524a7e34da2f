"""Write the example graphs in `workflows/` (UI format 0.4) and the subgraph in `subgraphs/`:
python -m tools.make_workflows URL-OF-A-SERVER

The server's /object_info says which sockets and widgets each node has; everything else stands in tools/graphs.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .graphs.api_format import as_prompt
from .graphs.blueprint import NAME, blueprint
from .graphs.canvas import ROOT, VERSION, WIDGETS, Canvas
from .graphs.controlnets import controlnet
from .graphs.flux import flux2, instantx, kontext, redux, xlabs
from .graphs.miniature import start_here
from .graphs.miniature_more import negatives, objects_with_masks, packs, picture_query
from .graphs.models import KNOWN
from .graphs.own_photos import own_photos
from .graphs.stable_diffusion import sd35, sdxl_embeds, vae_alone

__all__ = [
    "KNOWN",
    "NAME",
    "ROOT",
    "TEMPLATES",
    "VERSION",
    "WIDGETS",
    "Template",
    "as_prompt",
    "blueprint",
    "text",
    "workflow",
]


@dataclass(frozen=True)
class Template:
    """An example graph as the page lists it."""

    title: str  # also a part of a file's name
    description: str  # what the artist gets, and what has to be downloaded
    draw: Callable[[dict], Canvas]
    requires: str = ""  # a node that it needs and ComfyUI 0.3.64 lacks


# In the order in which an artist meets them.
_IN_ORDER = [
    Template("Start here",
        "Real photos steer a picture, without and with them side by side. Nothing to download.",
        start_here,
    ),
    Template("Your own photos", "A folder of your photos becomes a library that every other graph can use.", own_photos
    ),
    Template("Flux with XLabs", "Flux sees real photos through XLabs' IP-Adapter v2.", xlabs
    ),
    Template("Flux with InstantX", "Flux sees more of each photo, through InstantX's IP-Adapter (5.3 GB).", instantx
    ),
    Template("Flux Redux", "Real photos stand behind the prompt, through Flux Redux (129 MB).", redux
    ),
    Template("Flux Kontext", "Kontext puts the thing of a real photo into a new scene.", kontext),
    Template("FLUX.2", "FLUX.2 klein looks at several real photos. Needs ComfyUI 0.4.", flux2, requires="EmptyFlux2LatentImage"),
    Template("SD3.5 with InstantX", "SD3.5 Large sees real photos through InstantX's IP-Adapter.", sd35
    ),
    Template("No adapter", "SD3.5 Medium, SD3 or Flux see real photos without any adapter file.", vae_alone
    ),
    Template("SDXL through its prompt", "SDXL takes mood and colors from real photos, with CLIP Vision G.", sdxl_embeds
    ),
    Template("Several objects with masks", "Each object of the prompt from its own photos, in its own place. Nothing to download.",
        objects_with_masks,
    ),
    Template("Negative photos and weights", "Photos say what not to paint, and one counts twice. Nothing to download.", negatives
    ),
    Template("Search with a picture", "Find photos that look like yours, and paint with them. Nothing to download.", picture_query
    ),
    Template("Reference packs", "Keep what an adapter made of photos in one small file. Nothing to download.", packs
    ),
    Template("ControlNet with Flux", "The outlines of a real photo shape a picture by Flux.", partial(controlnet, base="flux")
    ),
    Template("ControlNet with SD3.5", "The outlines of a real photo shape a picture by SD3.5 Large.",
        partial(controlnet, base="sd35"),
    ),
    Template("ControlNet with SDXL", "The outlines of a real photo shape a picture by SDXL.", partial(controlnet, base="sdxl")
    ),
]  # fmt: skip
# The page shows a pack's graphs by the names of their files alone, and some systems list those by name.
TEMPLATES = {f"RealRAG {number:02} {template.title}": template for number, template in enumerate(_IN_ORDER, 1)}


def workflow(name: str, object_info: dict) -> dict:
    """The graph of this name, with the sockets that this ComfyUI's nodes have."""
    template = TEMPLATES[name]
    return template.draw(object_info).json(name, template.title, template.description)


def text(graph: dict) -> str:
    return json.dumps(graph, indent=1) + "\n"


if __name__ == "__main__":
    with urllib.request.urlopen(sys.argv[1] + "/object_info") as answer:
        served = json.load(answer)
    for name, template in TEMPLATES.items():
        if template.requires and template.requires not in served:
            print(f"{name} stays as it is: this ComfyUI is older than its nodes.")
            continue
        (ROOT / "workflows" / f"{name}.json").write_text(text(workflow(name, served)))
    (ROOT / "subgraphs" / f"{NAME}.json").write_text(text(blueprint(served)))
