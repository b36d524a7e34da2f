"""A graph in the making: nodes get their sockets from /object_info, links are made by name, places are computed.

A graph is a row of columns; a node goes below the last one of its column. Its room is what it needs in both renderers of
ComfyUI, so nothing overlaps in either.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from .models import offered

ROOT = Path(__file__).resolve().parents[2]
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "realrag" / "__init__.py").read_text())[1]  # type: ignore[index]
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
TITLE, GAP = 30, 26  # pixels: a node's title stands above its place; between two nodes
OPENS = (66, 90)  # pixels of the page: to the right of its bar, below its buttons
FIRST = 50  # below the title of the group
# Pixels that a node needs below its title, in Nodes 2.0, which needs more than the classic renderer; both were measured with
# frontend 1.58.1. Pictures and texts that a node shows are not in it.
HEIGHTS = {
    "RealRAG_LoadRetriever": 134, "RealRAG_RetrieveReferences": 482, "RealRAG_EditReferences": 222,
    "RealRAG_BuildLibrary": 400, "RealRAG_LoadReferenceAdapter": 178, "RealRAG_InjectReferences": 594,
    "RealRAG_SaveReferencePack": 230, "RealRAG_Credits": 86, "RealRAG_LoadReferencePack": 106, "RealRAG_LoadMiniature": 146,
    "PrimitiveStringMultiline": 126, "PrimitiveInt": 110, "PreviewAny": 162, "CLIPTextEncode": 126, "UNETLoader": 110,
    "DualCLIPLoader": 166, "CLIPLoader": 138, "CheckpointLoaderSimple": 126, "VAELoader": 86, "CLIPVisionLoader": 86,
    "FluxGuidance": 86, "ConditioningZeroOut": 58, "EmptySD3LatentImage": 142, "EmptyLatentImage": 142,
    "EmptyFlux2LatentImage": 142, "KSampler": 286, "KSamplerSelect": 86, "BasicGuider": 78, "RandomNoise": 116,
    "Flux2Scheduler": 142, "SamplerCustomAdvanced": 150, "VAEDecode": 78, "SaveImage": 94, "PreviewImage": 58,
    "ImageScaleBy": 114, "ImageStitch": 158, "LoadImage": 114, "SolidMask": 142, "MaskComposite": 162, "InvertMask": 58,
    "ControlNetLoader": 86, "ControlNetApplyAdvanced": 222, "Canny": 114,
}  # fmt: skip
NOTE_STYLE = {"color": "#432", "bgcolor": "#653"}
GROUP_COLOR = "#3f5159"


@dataclass
class Column:
    """A column of nodes; y is the place of the next one."""

    x: int
    width: int
    y: int = FIRST + TITLE


class Canvas:
    def __init__(self, object_info: dict, scale: float = 0.7):
        """scale: the zoom at which the graph opens."""
        self.info, self.nodes, self.links, self.groups, self.scale = object_info, [], [], [], scale
        self._right = 0

    def column(self, width: int) -> Column:
        """A new column, to the right of all others."""
        column = Column(self._right + (GAP if self._right else 0), width)
        self._right = column.x + width
        return column

    def node(
        self, kind: str, column: Column, *, links: dict | None = None, title: str = "", muted: bool = False,
        collapsed: bool = False, shows: int = 0, **values,
    ) -> dict:  # fmt: skip
        """Add a node below the last one of the column.

        links: input name -> (node, name or type of its output). shows: pixels for a picture or text that it shows. values: of
        its widgets, by name.
        """
        info, links = self.info[kind], dict(links or {})
        height = HEIGHTS[kind] + shows
        node = {
            "id": len(self.nodes) + 1, "type": kind, "pos": [column.x, column.y], "size": [column.width, height],
            "flags": {"collapsed": True} if collapsed else {}, "order": len(self.nodes), "mode": 2 if muted else 0,
            "inputs": [], "outputs": [], "properties": {"Node name for S&R": kind, **_origin(info)}, "widgets_values": [],
        }  # fmt: skip
        column.y += (0 if collapsed else height) + TITLE + GAP
        if title:
            node["title"] = title
        # newer versions give core's preview and save nodes an output as well; older ones would not know it
        core = not kind.startswith("RealRAG_")
        outputs = [] if info["output_node"] and core else zip(info["output_name"], info["output"], strict=True)
        for slot, (name, kind_of) in enumerate(outputs):
            node["outputs"].append({"name": name, "type": _type(kind_of), "links": [], "slot_index": slot})
        for name, (kind_of, *options) in _inputs(info):
            options = options[0] if options else {}
            socket = {"name": name, "type": _type(kind_of), "link": None}
            if socket["type"] in WIDGETS and not options.get("forceInput"):
                socket["widget"] = {"name": name}
                node["widgets_values"].append(values.pop(name, _default(kind_of, options)))
                if options.get("control_after_generate"):
                    node["widgets_values"].append("fixed")
                if options.get("image_upload"):
                    node["widgets_values"].append("image")
            if name in links:
                socket["link"] = self._link(*links.pop(name), node, len(node["inputs"]), socket["type"])
            if socket["link"] is not None or "widget" not in socket:
                node["inputs"].append(socket)
        assert not values and not links, f"{kind} has no {[*values, *links]}"
        if models := offered(node["widgets_values"]):
            node["properties"]["models"] = models
        self.nodes.append(node)
        return node

    def note(self, column: Column, height: int, text: str, title: str = "What this graph does") -> None:
        self.nodes.append({
            "id": len(self.nodes) + 1, "type": "MarkdownNote", "pos": [column.x, column.y],
            "size": [column.width, height], "flags": {}, "order": len(self.nodes), "mode": 0, "inputs": [], "outputs": [],
            "title": title, "properties": {}, "widgets_values": [text], **NOTE_STYLE,
        })  # fmt: skip
        column.y += height + TITLE + GAP

    def text(self, column: Column, title: str, source: tuple[dict, str], shows: int = 0) -> None:
        """A node that shows a text, such as the report."""
        self.node("PreviewAny", column, title=title, links={"source": source}, shows=shows)

    def group(self, title: str, *columns: Column) -> None:
        """A box with a title round these columns, which stand side by side."""
        left, right = columns[0].x - 10, columns[-1].x + columns[-1].width + 10
        below = max(column.y for column in columns) - TITLE
        box = {
            "id": len(self.groups) + 1,
            "title": title,
            "bounding": [left, 0, right - left, below],
            "color": GROUP_COLOR,
        }
        self.groups.append({**box, "font_size": 24, "flags": {}})

    def json(self, name: str, title: str, description: str) -> dict:
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "revision": 0, "last_node_id": len(self.nodes),
            "last_link_id": len(self.links), "nodes": self.nodes, "links": self.links, "groups": self.groups,
            "config": {}, "extra": {"ds": {"scale": self.scale, "offset": [OPENS[0] / self.scale, OPENS[1] / self.scale]},
                                    "info": {"name": title, "description": description, "version": VERSION}},
            "version": 0.4,
        }  # fmt: skip

    def _link(self, source: dict, output: str, target: dict, slot: int, kind: str) -> int:
        origin = next(i for i, socket in enumerate(source["outputs"]) if output in (socket["name"], socket["type"]))
        identity = len(self.links) + 1
        self.links.append([identity, source["id"], origin, target["id"], slot, kind])
        source["outputs"][origin]["links"].append(identity)
        return identity


def _type(kind_of) -> str:
    return "COMBO" if isinstance(kind_of, list) else kind_of


def _default(kind_of, options: dict):
    choices = kind_of if isinstance(kind_of, list) else options.get("options")
    return options.get("default", choices[0] if choices else "")


def _inputs(info: dict) -> list:
    return [item for part in ("required", "optional") for item in info["input"].get(part, {}).items()]


def _origin(info: dict) -> dict:
    ours = info["name"].startswith("RealRAG_")
    return {"cnr_id": "realrag", "ver": VERSION} if ours else {"cnr_id": "comfy-core", "ver": "0.3.64"}
