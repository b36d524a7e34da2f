"""Memory, open files and threads of a real ComfyUI server over many retrievals and generations.

    COMFYUI_PATH=... python tests/comfyui/soak.py [RETRIEVALS [GENERATIONS]]

Each retrieval asks another question, and each generation is of another seed and other references: nothing comes from a
cache. Prints what the server's process holds after a first part and in the end. The C library is told to give freed memory
back: by itself it keeps pieces between those in use, so that the process grows by what nobody holds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "attacks"), str(HERE.parent.parent)]

from comfy_server import Graph, Server

GIVE_BACK = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}  # of glibc
SHIPPED = "sample (shipped)"
WORDS = "apple milk pepper lemon carton green red ripe bunch box table kitchen shelf bread juice banana onion".split()
ALLOWED = 64 << 20  # bytes of growth that are no leak: the allocator's own, and ComfyUI's history of prompts


@dataclass(frozen=True)
class Usage:
    memory: int
    files: int
    threads: int

    @classmethod
    def of(cls, process: int) -> Usage:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        memory = int(status["VmRSS"].split()[0]) * 1024
        return cls(memory, len(os.listdir(f"/proc/{process}/fd")), int(status["Threads"]))

    def __str__(self) -> str:
        return f"{self.memory / 1e6:.0f} MB, {self.files} open files, {self.threads} threads"


def question(number: int) -> str:
    first, second = divmod(number, len(WORDS))
    return f"{WORDS[first % len(WORDS)]} {WORDS[second]} {number}"


def retrieval(number: int) -> Graph:
    graph = Graph()
    loader = graph.add("RealRAG_LoadRetriever", bundle=SHIPPED)
    inputs = {"top_k": 1 + number % 4, "min_score": 0.0, "diversity": 0.1 * (number % 3), "doubt": "keep"}
    found = graph.add("RealRAG_RetrieveReferences", retriever=[loader, 0], prompt=question(number), **inputs)
    graph.add("RealRAGTest_ShowText", text=[found, 2])
    return graph


def generation(number: int) -> Graph:
    graph = retrieval(number)
    model = graph.add("RealRAG_LoadMiniature", family=["SD3 miniature", "Flux miniature"][number // 2 % 2])
    name = graph[model]["inputs"]["family"]
    adapter = graph.add("RealRAG_LoadReferenceAdapter", adapter=f"{name} (shipped)")
    inputs = {"adapter": [adapter, 0], "clip_vision": ["1", 1]} if number % 5 else {"vae": [model, 2]}
    steered = graph.add(
        "RealRAG_InjectReferences", model=[model, 0], references=["2", 0], strength=1.0, start_percent=0.0, end_percent=1.0, **inputs
    )  # fmt: skip
    texts = [graph.add("CLIPTextEncode", clip=[model, 1], text=text) for text in (question(number), "")]
    latent = graph.add("EmptySD3LatentImage", width=128, height=128, batch_size=1)
    sampled = graph.add(
        "KSampler", model=[steered, 0], positive=[texts[0], 0], negative=[texts[1], 0], latent_image=[latent, 0], seed=number,
        steps=2, cfg=2.0, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    decoded = graph.add("VAEDecode", samples=[sampled, 0], vae=[model, 2])
    graph.add("PreviewImage", images=[decoded, 0])
    return graph


def soak(server: Server, what: str, make, count: int) -> bool:
    """Prints what is held after each fifth; whether the last is flat against the first."""
    began, held = time.monotonic(), []
    for number in range(count):
        server.run(make(number))
        if (number + 1) % max(1, count // 5) == 0:
            held.append(Usage.of(server.process.pid))
            print(f"{what}: after {number + 1}: {held[-1]}; {time.monotonic() - began:.0f} s", flush=True)
    first, last = held[0], held[-1]
    return last.memory - first.memory < ALLOWED and last.files <= first.files + 4 and last.threads <= first.threads + 2


def main(retrievals: int = 1500, generations: int = 200) -> int:
    os.environ.update(GIVE_BACK)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            flat = [
                soak(server, "retrievals", retrieval, retrievals),
                soak(server, "generations", generation, generations),
            ]
        finally:
            server.stop()
    return 0 if all(flat) else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
