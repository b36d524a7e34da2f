"""What is published and how it describes itself: the pack in ComfyUI's registry, the wheel, the project's metadata."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from realrag import __version__

ROOT = Path(__file__).parents[2]
# All that runs in ComfyUI and on the command line `realrag`; .comfyignore gives the reason for each part left out.
PACK = re.compile(
    r"(locales|nodes|realrag|web|workflows|subgraphs)/.+"
    r"|(__init__\.py|pyproject\.toml|requirements\.txt|CHANGELOG\.md|LICENSE|README\.md)"
)


@pytest.fixture(scope="module")
def project() -> dict:
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout, so nothing says which files belong to it")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def copy(tracked, tmp_path_factory) -> Path:
    """The tracked files alone: what a build leaves behind stays out of the checkout."""
    folder = tmp_path_factory.mktemp("published") / "realrag"
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def test_the_version_is_written_out_and_is_the_packages(project):
    """ComfyUI-Manager and the registry read `version` as it stands and no dynamic field."""
    assert "dynamic" not in project["project"]
    assert project["project"]["version"] == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_both_lists_of_dependencies_are_the_same(project):
    """pip and the registry read pyproject.toml, ComfyUI-Manager reads requirements.txt."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = [line for line in lines if line and not line.startswith("#")]
    assert required == project["project"]["dependencies"]
    # A pin could replace the artist's GPU build.
    assert not [line for line in required if line.startswith("torch")]


def test_the_metadata_names_where_to_read_to_ask_and_to_report(project):
    facts = project["project"]
    assert {"Repository", "Documentation", "Issues"} <= facts["urls"].keys()
    assert all(url.startswith("https://") for url in facts["urls"].values())
    assert facts["authors"] and facts["license"] == "Apache-2.0"
    assert "Operating System :: OS Independent" in facts["classifiers"]
    oldest = facts["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {oldest}" in facts["classifiers"]


def test_the_citation_names_the_same_version_and_repository(project):
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in citation
    assert f'\nrepository-code: "{project["project"]["urls"]["Repository"]}"\n' in citation


def test_the_pack_holds_what_runs_and_nothing_else(tracked):
    ignored = ["git", "ls-files", "-z", "--cached", "--ignored", "--exclude-from=.comfyignore"]
    left_out = set(subprocess.run(ignored, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"))
    assert {name for name in tracked if name not in left_out} == {name for name in tracked if PACK.fullmatch(name)}


COMFY_CLI = os.environ.get("COMFY_CLI") or shutil.which("comfy")


@pytest.mark.slow
@pytest.mark.skipif(
    not COMFY_CLI, reason="comfy-cli is not installed: pip install comfy-cli, in an environment of its own"
)
def test_comfy_cli_finds_nothing_to_warn_of_and_packs_what_runs(copy, tracked, tmp_path):
    """`comfy node validate` and `comfy node pack`. COMFY_CLI names the program where it is not on the PATH."""
    for command in ("init --quiet", "add --all --force"):
        subprocess.run(["git", *command.split()], cwd=copy, check=True)
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def comfy(*command: str) -> str:
        done = subprocess.run(
            [COMFY_CLI, "--skip-prompt", *command], cwd=copy, env=os.environ | home, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    comfy("tracking", "disable")
    said = comfy("node", "validate")
    assert "passed" in said and not re.search("warning|error", said, re.IGNORECASE), said
    said = comfy("node", "pack")
    assert not re.search("warning|error", said, re.IGNORECASE), said
    packed = zipfile.ZipFile(copy / "node.zip").namelist()
    assert sorted(packed) == sorted(name for name in tracked if PACK.fullmatch(name))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_realrag_and_of_the_trainer(copy, tracked, tmp_path):
    """Recipes, word lists and templates are read at run time, so a wheel without one of them fails only at a user's."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    build.append("--config-settings=--build-option=--compression=stored")  # weights are noise, and cost seconds to pack
    done = subprocess.run([*build, "--wheel-dir", str(tmp_path), str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob(f"realrag-{__version__}-*.whl")
    built = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    installed = {
        re.sub("^train/", "realrag_train/", name) for name in tracked if name.startswith(("realrag/", "train/"))
    }
    assert built == installed
