"""A running ComfyUI as the generator, with the artist's own workflow; nothing else needs to be installed.

The workflow is a file of `Workflow > Export (API)`. Prompt and seed go into nodes that are found by their title.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from realrag.files import read_bounded, sha256_bytes
from realrag.validation import strict_json

from .errors import GeneratorError

MAX_ANSWER = 256 << 20
MAX_WORKFLOW = 16 << 20  # bytes
# Inputs for text in ComfyUI's own nodes; all of them that a node has are filled.
TEXT_INPUTS = ("text", "clip_l", "clip_g", "t5xxl", "prompt", "value", "string")
SEED_INPUTS = ("seed", "noise_seed", "value")
PATIENCE = 0.25  # seconds between two requests of the history, doubled up to 2


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args):
        return None  # a server on this machine must not redirect to another one


class ComfyUI:
    """Draws through the HTTP API of a ComfyUI server.

    workflow: JSON in API format. prompt_node, seed_node: titles of the nodes for prompt and seed, also as "TITLE.input".
    output_node: title of the node whose picture is used (None: the first saved one). timeout: seconds per picture.
    remote: allow a server on another machine.
    """

    def __init__(
        self,
        workflow: Path,
        url: str = "http://127.0.0.1:8188",
        *,
        prompt_node: str = "Prompt",
        seed_node: str = "Seed",
        output_node: str | None = None,
        timeout: float = 600,
        remote: bool = False,
    ):
        self.url, self.timeout = _checked_url(url, remote), timeout
        self._workflow = read_workflow(workflow)
        self._prompts = inputs_titled(self._workflow, prompt_node, TEXT_INPUTS)
        self._seeds = inputs_titled(self._workflow, seed_node, SEED_INPUTS)
        self._output = None if output_node is None else _nodes_titled(self._workflow, output_node)
        digest = sha256_bytes(json.dumps(self._workflow, sort_keys=True).encode())
        self.facts = {
            "name": f"ComfyUI workflow {Path(workflow).name}", "workflow_sha256": digest, "prompt_node": prompt_node,
            "seed_node": seed_node, "output_node": output_node,
        }  # fmt: skip
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def draw(self, prompt: str, seed: int):
        from realrag.photos.decode import decode

        graph = copy.deepcopy(self._workflow)
        for values, places in ((prompt, self._prompts), (seed, self._seeds)):
            for node, name in places:
                graph[node]["inputs"][name] = values
        entry = self._wait(self._queue(graph))
        picture = self._picture(entry)
        data = self._request("/view?" + urlencode(picture))
        try:
            return decode(data, str(picture["filename"]))
        except Exception as error:
            raise GeneratorError(
                f"{self.url} returned {picture['filename']!r}, which is not a picture: {error}"
            ) from None

    def _queue(self, graph: dict) -> str:
        answer = self._json("/prompt", {"prompt": graph})
        if not isinstance(identity := answer.get("prompt_id"), str) or answer.get("node_errors"):
            raise GeneratorError(_refusal(self.url, answer))
        return identity

    def _wait(self, identity: str) -> dict:
        """The history entry of a finished run. It appears a moment after the run has ended, so it is polled."""
        end, pause = time.monotonic() + self.timeout, PATIENCE
        while time.monotonic() < end:
            if entry := self._json(f"/history/{quote(identity)}").get(identity):
                status = entry.get("status") or {}
                if status.get("status_str") == "error":
                    raise GeneratorError(_failure(self.url, status))
                if status.get("completed", True):
                    return entry
            time.sleep(pause)
            pause = min(2.0, 2 * pause)
        raise GeneratorError(
            f"{self.url} drew nothing in {self.timeout:g} seconds. Check its window; if it is only slow, raise `timeout`."
        )

    def _picture(self, entry: dict) -> dict:
        outputs = entry.get("outputs") or {}
        nodes = sorted(self._output or outputs, key=lambda node: (len(node), node))
        found = [image for node in nodes for image in (outputs.get(node) or {}).get("images") or ()]
        found.sort(key=lambda image: image.get("type") != "output")  # saved pictures before previews
        if not found:
            raise GeneratorError(
                "The workflow ended without a picture. End it with a Save Image or Preview Image node"
                + (", and check the title in `output_node`." if self._output else ".")
            )
        return {name: str(found[0].get(name, "")) for name in ("filename", "subfolder", "type")}

    def _json(self, path: str, body: dict | None = None) -> dict:
        data = self._request(path, None if body is None else json.dumps(body).encode())
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise GeneratorError(f"{self.url}{path} does not answer like ComfyUI. Is another program on that port?")
        return answer

    def _request(self, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=60) as answer:
                body = answer.read(MAX_ANSWER + 1)
        except urllib.error.HTTPError as error:
            text = error.read(1 << 20)
            try:
                answer = json.loads(text)
            except (ValueError, RecursionError):
                answer = None
            if error.code == 400 and isinstance(answer, dict):
                raise GeneratorError(_refusal(self.url, answer)) from None
            raise GeneratorError(
                f"{self.url}{path.split('?')[0]} answers with error {error.code}. Check ComfyUI's window."
            ) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise GeneratorError(
                f"No ComfyUI answers at {self.url} ({reason}). Start it, or set its address as `url`."
            ) from None
        if len(body) > MAX_ANSWER:
            raise GeneratorError(
                f"{self.url}{path.split('?')[0]} sent more than {MAX_ANSWER >> 20} MiB. Draw smaller pictures."
            )
        return body


def read_workflow(path: Path) -> dict[str, dict]:
    """A workflow in API format: {node id: {"class_type", "inputs", "_meta": {"title"}}}."""
    try:
        graph = strict_json(read_bounded(Path(path), MAX_WORKFLOW))
    except OSError as error:
        raise GeneratorError(
            f"The workflow {path} cannot be read ({error.strerror}). Give the exported JSON file."
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


def _title(node: dict) -> str:
    meta = node.get("_meta")
    return str((meta.get("title") if isinstance(meta, dict) else "") or node["class_type"])


def _nodes_titled(graph: dict[str, dict], title: str) -> list[str]:
    found = [name for name, node in graph.items() if _title(node).casefold() == title.casefold()]
    if not found:
        titles = ", ".join(sorted({repr(_title(node)) for node in graph.values()}))
        raise GeneratorError(
            f"The workflow has no node titled {title!r}. Its titles are {titles}. Give one of them, or rename the node in "
            "ComfyUI (double-click on its title) and export again."
        )
    return found


def inputs_titled(graph: dict[str, dict], wanted: str, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """(node, input) pairs to fill: those of `names` in the nodes titled `wanted` that are not linked; or the one input of
    "TITLE.input"."""
    titles = {_title(node).casefold() for node in graph.values()}
    title, dot, own = wanted.rpartition(".")
    if dot and wanted.casefold() not in titles:
        names = (own,)
    else:
        title = wanted
    places = []
    for node in _nodes_titled(graph, title):
        inputs = graph[node]["inputs"]
        places += [(node, name) for name in names if name in inputs and not isinstance(inputs[name], list)]
    if not places:
        given = sorted({name for node in _nodes_titled(graph, title) for name in graph[node]["inputs"]})
        raise GeneratorError(
            f"The node {title!r} has no free input {' or '.join(names)}; it has {', '.join(given) or 'none'}. "
            "Write TITLE.input to name one, and unlink it if another node feeds it."
        )
    return places


def _checked_url(url: str, remote: bool) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise GeneratorError(f"{url!r} is not the address of a ComfyUI server, such as http://127.0.0.1:8188.")
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if not here and not remote:
        raise GeneratorError(
            f"{url} is another machine: the prompts would leave this one. Set `remote = true` to allow that."
        )
    return url.rstrip("/")


def _refusal(url: str, answer: dict) -> str:
    error = answer.get("error")
    parts = [str(error.get("message") if isinstance(error, dict) else error or "no reason given")]
    for node, report in (answer.get("node_errors") or {}).items():
        for one in (report.get("errors") or ())[:2] if isinstance(report, dict) else ():
            parts.append(
                f"node {node} ({report.get('class_type')}): {one.get('message')} {one.get('details') or ''}".strip()
            )
    return f"{url} refuses the workflow: {'; '.join(parts)[:1500]}. Run it once in ComfyUI's own window, then export it again."


def _failure(url: str, status: dict[str, Any]) -> str:
    for message in status.get("messages") or ():
        kind, facts = ([*list(message), {}])[:2] if isinstance(message, (list, tuple)) and message else ("", {})
        if kind == "execution_error":
            where = f"{facts.get('node_type')} (node {facts.get('node_id')})"
            return f"{url} stopped in {where}: {str(facts.get('exception_message')).strip()[:1000]}"
        if kind == "execution_interrupted":
            return f"{url} was interrupted while drawing. Run the command again; finished pictures are kept."
    return f"{url} reports an error without details. Check ComfyUI's window."
