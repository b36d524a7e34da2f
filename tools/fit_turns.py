"""Steps of `fit` on request, for `bench-fit --before`: python fit_turns.py JSON, in the folder of the checkout to time. For each line
on standard input it takes one step, and writes its seconds by the clock and of CPU time."""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    given = json.loads(sys.argv[1])
    sys.path[0] = os.getcwd()
    import torch

    from train.maintainer_tools import tool

    bench = tool("bench_fit")
    size = bench.BenchSize(**given["size"])
    torch.set_float32_matmul_precision("high")
    held = max(size.batch, min(size.pairs, bench.ON_CPU))
    material, rows = bench._made(held, size, 0)
    config = bench.FitConfig(epochs=size.epochs, batch=size.batch, hidden=size.hidden)
    step = bench._stepping(
        bench.ContrastiveTraining(material, rows, config, bench.LossConfig(), device=given["device"])
    )
    for _ in range(3):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        if given["device"] != "cpu":
            torch.cuda.synchronize()
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


if __name__ == "__main__":
    main()
