"""`embed` under two torchrun groups that share folders and nothing else, as two machines would; photos in webdataset shards."""

import io
import json
import os
import socket
import subprocess
import sys
import tarfile

import pytest
import torch.distributed as dist
from made_photos import photo_bytes
from tiny_encoders import write_tiny_small

from realrag.bundle.bundle import Bundle
from realrag_train.__main__ import main

EACH = 100
COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}


@pytest.fixture
def shards(tmp_path):
    """Three .tar files of webdataset with a hundred photos, captions and classes each: more than one shard of the library."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, (name, color) in enumerate(COLORS.items()):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for each in range(EACH):
                key = f"{number:02d}{each:04d}"
                for suffix, data in (
                    ("jpg", photo_bytes(color, 100 * number + each)), ("txt", f"a {name} thing".encode()), ("cls", name.encode())
                ):  # fmt: skip
                    entry = tarfile.TarInfo(f"{key}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return folder


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


def embed_words(shards, out, recipe):
    return ["embed", str(recipe), "--photos", str(shards), "--out", str(out)]


def embed(shards, out, recipe, *torchrun):
    """The command in processes of its own, under torchrun."""
    words = ["-m", "torch.distributed.run", *torchrun, "-m", "realrag_train", *embed_words(shards, out, recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment = {key: value for key, value in environment.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_torchrun_groups_make_the_bundle_of_one_process(shards, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"[data]\nparts = []\nencoder = {json.dumps(str(write_tiny_small(tmp_path / 'tiny')))}\n")
    port = free_port()
    group = ["--nnodes", 2, "--nproc-per-node", 1, "--master-addr", "127.0.0.1", "--master-port", port]
    machines = [embed(shards, tmp_path / "both", recipe, *group, "--node-rank", rank) for rank in (1, 0)]
    assert main(embed_words(shards, tmp_path / "alone", recipe)) == 0
    logs = [each.communicate(timeout=240)[0] for each in machines]
    assert [each.returncode for each in machines] == [0, 0], logs
    both, one = Bundle(tmp_path / "both" / "library"), Bundle(tmp_path / "alone" / "library")
    assert both.id == one.id and both.manifest.count == 3 * EACH
    assert {record.class_name for record in both.records} == set(COLORS)
    assert "44 photos encoded by process 1 of 2" in logs[0] and "300 photos, 256 encoded now" in logs[1], logs
    prompts = (tmp_path / "both" / "prompts.jsonl").read_text().splitlines()
    assert len(prompts) == len((tmp_path / "alone" / "prompts.jsonl").read_text().splitlines()) > 0
    assert any("red" in json.loads(line)["prompt"] for line in prompts)
