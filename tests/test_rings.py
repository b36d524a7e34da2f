"""What may import what, and what must never stand in the code at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("realrag", "nodes", "train") for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path):
    """(module, level) of every import statement."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((name.name, 0) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level


def test_the_core_knows_nothing_of_comfyui_or_the_trainer():
    for path in (ROOT / "realrag").rglob("*.py"):
        for module, _ in imports(path):
            top = module.split(".")[0]
            assert top not in {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server", "train", "realrag_train"}, path
            assert top not in {"torchvision", "timm", "tensorflow", "requests", "urllib"}, path


def test_nodes_never_pull_or_push():
    """Nothing is fetched or sent inside ComfyUI: the modules that talk to a hub are for the command line."""
    hub = {"hub", "pull", "push"}
    for path in (ROOT / "nodes").rglob("*.py"):
        assert not [module for module, _ in imports(path) if hub & set(module.split(".")) or module.startswith("huggingface")], path
    users = {path.name for path in (ROOT / "realrag").rglob("*.py") if hub & {module for module, level in imports(path) if level}}
    assert users == {"pull.py", "push.py", "cli_bundles.py"}


def test_only_nodes_know_comfyui_and_nothing_imports_the_trainer():
    for path in FILES:
        for module, level in imports(path):
            top = module.split(".")[0]
            if top.startswith("comfy") or top == "folder_paths":
                assert path.is_relative_to(ROOT / "nodes"), path
            if top in {"train", "realrag_train"} and level == 0:
                pytest.fail(f"{path} imports the trainer")
            if path.is_relative_to(ROOT / "train"):
                assert top != "nodes" or level == 0, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_pickle_no_eval_no_exec_and_every_torch_load_is_weights_only(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"eval", "exec", "compile", "os.system", "pickle.load", "pickle.loads", "marshal.loads"}, name
            if name == "torch.load":
                assert any(key.arg == "weights_only" and ast.unparse(key.value) == "True" for key in node.keywords)
            if name in {"np.load", "numpy.load"}:
                assert not any(key.arg == "allow_pickle" and ast.unparse(key.value) != "False" for key in node.keywords)


def test_importing_the_core_imports_nothing_heavy():
    modules = "realrag.retriever realrag.build realrag.pull realrag.push realrag.cli realrag.adapters realrag.shared_attention".split()
    code = f"import sys, {', '.join(modules)}\nprint(sorted({{'open_clip', 'faiss', 'huggingface_hub', 'torchvision'}} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_versions_and_dependency_lists_agree():
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"]["file"] == ["requirements.txt"]
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert not any(line.startswith(("torch", "torchvision")) for line in lines), "a pin could replace the artist's GPU build"
    found = [path for name in ("realrag", "train") for path in (ROOT / name).rglob("__init__.py")]
    packages = {path.parent.relative_to(ROOT).as_posix() for path in found}
    listed = {name.replace(".", "/").replace("realrag_train", "train") for name in project["tool"]["setuptools"]["packages"]}
    assert packages == listed


def test_no_shipped_file_is_large():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.decode().split("\0")):
        path = ROOT / name
        assert not path.is_file() or path.stat().st_size <= 25e6, name
