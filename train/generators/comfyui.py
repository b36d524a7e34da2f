"""A running ComfyUI as the generator, with the artist's own workflow; nothing else needs to be installed.

The workflow is a file of `Workflow > Export (API)`. Prompt and seed go into nodes that are found by their title, or by the
sampler's links. A server that restarts is waited for, and other people's jobs in its queue do not count against us.
"""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from realrag.files import sha256_bytes

from .errors import DrawingFailed, GeneratorError
from .server import Server, Waiting, refusal
from .workflow import (
    PROMPT,
    SEED,
    Graph,
    Places,
    nodes_titled,
    prompt_inputs,
    read_workflow,
    seed_inputs,
)

log = logging.getLogger(__name__)
RESTARTED, CLEARED = "it restarted", "its queue was cleared, or the job was deleted from it"
UNCLEAR = "it restarted, or its queue was cleared"


@dataclass(frozen=True)
class Queued:
    """A run as the server took it. number: its place among all jobs since the server started, None where it is not stated.
    outages: how often the server had been away until then."""

    identity: str
    number: float | None
    outages: int


def why_gone(before: Queued, again: Queued) -> str:
    """Why a run left the queue, from the same workflow queued again: ComfyUI numbers its jobs from 0 at every start, so a
    number that is not higher is that of a new process."""
    if again.outages > before.outages:
        return RESTARTED
    if before.number is None or again.number is None:
        return UNCLEAR
    return CLEARED if again.number > before.number else RESTARTED


class ComfyUI:
    """Draws through the HTTP API of a ComfyUI server.

    workflow: JSON in API format. prompt_node, seed_node: titles of the nodes for prompt and seed, also as "TITLE.input";
    "" takes those titled Prompt and Seed, else those that the sampler's links lead to. output_node: title of the node whose
    picture is used (None: the first saved one). timeout: seconds in which the server may draw one picture; time in which it
    draws for others does not count. remote: allow a server on another machine. log: receives what is waited for.
    """

    def __init__(
        self,
        workflow: Path,
        url: str = "http://127.0.0.1:8188",
        *,
        prompt_node: str = "",
        seed_node: str = "",
        output_node: str | None = None,
        timeout: float = 600,
        remote: bool = False,
        waiting: Waiting = Waiting(),
        log: Callable[[str], None] = log.info,
    ):
        self.server = Server(url, remote=remote, waiting=waiting, log=log)
        self.url, self.timeout, self.waiting, self.log = self.server.url, timeout, waiting, log
        self.workflow: Graph = read_workflow(workflow)
        self.prompts: Places = prompt_inputs(self.workflow, prompt_node)
        self.seeds: Places = seed_inputs(self.workflow, seed_node)
        self._output = None if output_node is None else nodes_titled(self.workflow, output_node)
        digest = sha256_bytes(json.dumps(self.workflow, sort_keys=True).encode())
        self.metadata = {
            "name": f"ComfyUI workflow {Path(workflow).name}", "workflow_sha256": digest, "prompt_node": prompt_node or PROMPT,
            "seed_node": seed_node or SEED, "output_node": output_node,
        }  # fmt: skip

    def draw(self, prompt: str, seed: int):
        return self.run(self.filled(prompt, seed))

    def filled(self, prompt: str, seed: int) -> Graph:
        """A copy of the workflow with prompt and seed in their places."""
        graph = copy.deepcopy(self.workflow)
        for value, places in ((prompt, self.prompts), (seed, self.seeds)):
            for node, name in places:
                graph[node]["inputs"][name] = value
        return graph

    def run(self, graph: Graph):
        """The picture of a filled workflow. A run that a restart or a cleared queue took away is queued again."""
        from realrag.photos.decode import decode

        causes: list[str] = []
        before: Queued | None = None
        for _ in range(self.waiting.requeue + 1):
            queued = self._queue(graph)
            if before is not None:
                causes.append(why_gone(before, queued))
                self.log(f"{self.url} no longer had our picture: {causes[-1]}. It is queued again.")
            before = queued
            if (entry := self._wait(queued.identity)) is None:
                continue
            picture = self._picture(entry)
            data = self.server.bytes("/view?" + urlencode(picture))
            try:
                return decode(data, str(picture["filename"]))
            except Exception as error:
                raise GeneratorError(
                    f"{self.url} returned {picture['filename']!r}, which is not a picture: {error}"
                ) from None
        if causes and set(causes) == {RESTARTED}:
            raise GeneratorError(
                f"{self.url} restarted again and again while it drew one picture. Look for the cause in ComfyUI's window, such "
                "as memory that ran out, then run the command again; finished pictures are kept."
            )
        raise GeneratorError(
            f"The picture was taken out of the queue of {self.url} {self.waiting.requeue + 1} times. Let the queue run, then "
            "run the command again; finished pictures are kept."
        )

    def _queue(self, graph: Graph) -> Queued:
        answer = self.server.json("/prompt", {"prompt": graph})
        if not isinstance(identity := answer.get("prompt_id"), str) or answer.get("node_errors"):
            raise GeneratorError(refusal(self.url, answer))
        number = answer.get("number")
        return Queued(identity, number if isinstance(number, (int, float)) else None, self.server.outages)

    def _wait(self, identity: str) -> dict | None:
        """The history entry of a finished run; None where the run is gone. It appears a moment after the run has ended."""
        pause, drawn, noted = self.waiting.poll, 0.0, time.monotonic()
        gone_since: float | None = None
        asked = time.monotonic()
        while True:
            place, ahead = self._place(identity)
            if entry := self.server.json(f"/history/{quote(identity)}").get(identity):
                status = entry.get("status") or {}
                if status.get("status_str") == "error":
                    raise _failure(self.url, status)
                if status.get("completed", True):
                    return entry
            now = time.monotonic()
            if place != "waiting":
                drawn += now - asked
            asked = now
            gone_since = (gone_since or now) if place == "gone" else None
            if gone_since is not None and now - gone_since >= self.waiting.lost:
                return None
            if drawn > self.timeout:
                raise GeneratorError(
                    f"{self.url} drew nothing in {self.timeout:g} seconds. Check its window; if it is only slow, raise `timeout`."
                )
            if now - noted >= self.waiting.note and place == "waiting":
                self.log(f"{self.url} has {ahead} other jobs before ours")
                noted = now
            time.sleep(pause)
            pause = min(self.waiting.longest_poll, 2 * pause)

    def _place(self, identity: str) -> tuple[str, int]:
        """("running", 0), ("waiting", jobs before ours) or ("gone", 0), as the server's queue says."""
        answer = self.server.json("/queue")
        lists = (answer.get(name) for name in ("queue_running", "queue_pending"))
        running, pending = ([_number_and_id(item) for item in each] if isinstance(each, list) else [] for each in lists)
        if any(each == identity for _, each in running):
            return "running", 0
        own = [number for number, each in pending if each == identity]
        if own:
            return "waiting", len(running) + sum(number < own[0] for number, _ in pending)
        return "gone", 0

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


def _number_and_id(item: Any) -> tuple[float, str]:
    """Of an entry of the queue: [number, prompt id, workflow, ...]."""
    if isinstance(item, list) and len(item) > 1 and isinstance(item[0], (int, float)):
        return item[0], str(item[1])
    return float("inf"), ""


def _failure(url: str, status: dict[str, Any]) -> GeneratorError:
    """What a failed run's status says. One that a person interrupted stops the work; another is left out."""
    for message in status.get("messages") or ():
        kind, metadata = ([*list(message), {}])[:2] if isinstance(message, (list, tuple)) and message else ("", {})
        if kind == "execution_error":
            where = f"{metadata.get('node_type')} (node {metadata.get('node_id')})"
            return DrawingFailed(f"{url} stopped in {where}: {str(metadata.get('exception_message')).strip()[:1000]}")
        if kind == "execution_interrupted":
            return GeneratorError(
                f"{url} was interrupted while drawing. Run the command again; finished pictures are kept."
            )
    return DrawingFailed(f"{url} reports an error without details. Check ComfyUI's window.")
