"""What a clone costs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


def git(*command: str, data: str = "") -> str:
    return subprocess.run(["git", *command], cwd=ROOT, input=data, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", autouse=True)
def checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so there is no history to weigh")


def test_a_clone_stays_within_120_megabytes():
    assert int(git("rev-list", "--objects", "--disk-usage", "HEAD")) <= 120 * MIB


def test_no_file_of_any_commit_is_larger_than_25_megabytes():
    sizes = git(
        "cat-file", "--batch-check=%(objecttype) %(objectsize) %(rest)", data=git("rev-list", "--objects", "HEAD")
    )
    blobs = [line.split(" ", 2)[1:] for line in sizes.splitlines() if line.startswith("blob ")]
    assert len(blobs) > 100 and not [(size, name) for size, name in blobs if int(size) > 25 * MIB]


def test_the_weights_that_ship_stay_within_110_megabytes_and_each_was_committed_once():
    weights = [path for path in git("ls-files", "realrag/assets/*.safetensors").splitlines() if "/sample/" not in path]
    assert "realrag/assets/small_encoder.safetensors" in weights
    assert sum((ROOT / path).stat().st_size for path in weights) <= 110 * MIB
    versions = {path: len(git("log", "--format=%h", "--diff-filter=AM", "--", path).split()) for path in weights}
    assert not {path: count for path, count in versions.items() if count > 1 and "/miniature/" in path}
