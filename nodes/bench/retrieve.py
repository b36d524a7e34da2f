"""What `realrag bench retrieve` runs inside ComfyUI: python retrieve.py JSON. Its last line is the answer as JSON."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
import time
from pathlib import Path


def timed(work) -> tuple[float, float]:
    """Milliseconds by the clock and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def median(times: list[tuple[float, float]]) -> list[float]:
    return [statistics.median(part) for part in zip(*times, strict=True)]


def measure(job: dict) -> dict:
    from run import plugin, start

    start(job["comfyui"], "cpu")
    import folder_paths
    import torch

    torch.set_num_threads(1)
    cache, temp = Path(job["cache"]), Path(job["temp"])
    folder_paths.get_temp_directory = lambda: str(temp)
    load, node = plugin("nodes.retrieval.load_retriever"), plugin("nodes.retrieval.retrieve").RetrieveRealReferences
    load.cache_folder = lambda: cache
    with torch.inference_mode():
        # Nobody holds this one: the next opening begins anew, with all modules loaded.
        load.open_retriever(Path(job["bundle"]))
        begun = time.perf_counter()
        managed = load.open_retriever(Path(job["bundle"]))
        opened = time.perf_counter() - begun
        records = managed.retriever.bundle.records
        names = records.classes[:: max(1, len(records.classes) // job["prompts"])][: job["prompts"]]
        prompts = [f"a photo of {name.replace('-', ' ')} on a table" for name in names]

        def ask(prompt: str):
            return node.execute(managed, prompt, job["top_k"], 0.0, 0.0)

        def encode(prompt: str) -> None:
            managed.load()
            managed.retriever.query([prompt])

        answers = [ask(prompt) for prompt in prompts]  # what the first questions alone cost is not timed
        first, again, encoder = [], [], []
        for _ in range(job["rounds"]):
            for prompt in prompts:
                shutil.rmtree(temp, ignore_errors=True)
                first.append(timed(lambda: ask(prompt)))
                again.append(timed(lambda: ask(prompt)))
                encoder.append(timed(lambda: encode(prompt)))
    return {
        "photos": len(records), "index": managed.retriever.index.kind, "open_s": opened, "first_ms": median(first),
        "again_ms": median(again), "encoder_ms": median(encoder), "top_k": job["top_k"],
        "answers": sum(bool(answer.args[0].items) for answer in answers),
    }  # fmt: skip


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        result = measure(json.loads(sys.argv[1]))
        import comfyui_version

        result["comfyui"] = comfyui_version.__version__
    print(json.dumps(result))
