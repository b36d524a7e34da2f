"""What may import what, and what must never stand in the code at all."""

import ast
import subprocess
from pathlib import Path

import pytest
from command_in_a_process import import_modules
from house_rules import FILES, ROOT, import_graph, import_statements


def imports(path: Path):
    """(module, level) of every import statement."""
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            yield from ((name.name, 0) for name in node.names)
        else:
            yield node.module or "", node.level


URLLIB = {"unquote", "urlsplit", "getproxies", "proxy_bypass"}  # what opens no connection


def imported_names(path: Path):
    """(module, names) of every import statement; the module itself is the name where it is imported whole."""
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            yield from ((name.name, {name.name}) for name in node.names)
        else:
            yield node.module or "", {name.name for name in node.names}


def test_the_core_knows_nothing_of_comfyui_or_the_trainer():
    for path in (ROOT / "realrag").rglob("*.py"):
        for module, _ in imports(path):
            top = module.split(".")[0]
            assert top not in {
                "comfy",
                "comfy_api",
                "comfy_extras",
                "folder_paths",
                "nodes",
                "server",
                "train",
                "realrag_train",
            }, path
            assert top not in {"torchvision", "timm", "tensorflow", "requests"}, path
        for module, names in imported_names(path):
            assert not module.startswith("urllib") or names <= URLLIB, f"{path} opens connections of its own"


def circles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """What is left when everything that imports nothing more is taken away again and again: the circles and what hangs
    on them."""
    left = {name: set(used) for name, used in graph.items()}
    while free := {name for name, used in left.items() if not used & left.keys()}:
        for name in free:
            del left[name]
    return sorted((name, *sorted(used & left.keys())) for name, used in left.items())


def test_no_file_imports_itself_by_a_way_round():
    assert circles(import_graph()) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) == [("a", "b"), ("b", "c"), ("c", "a")]


def test_no_room_imports_itself_by_a_way_round():
    """A room is a folder; the files on top of a ring are rooms of their own."""

    def room(name: str) -> str:
        folder = name if (ROOT / name.replace(".", "/")).is_dir() else name.rpartition(".")[0]
        return folder if "." in folder else name

    rooms: dict[str, set[str]] = {}
    for name, used in import_graph().items():
        rooms.setdefault(room(name), set()).update({room(other) for other in used} - {room(name)})
    assert circles(rooms) == []
    assert (
        len([name for name in rooms if name.startswith("realrag.") and (ROOT / name.replace(".", "/")).is_dir()]) >= 12
    )


@pytest.mark.parametrize("ring", ["realrag", "nodes", "train"])
def test_every_room_says_in_a_sentence_what_it_holds(ring):
    folders = {path.parent for path in (ROOT / ring).rglob("*.py")}
    for folder in folders:
        words = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert words and words.endswith("."), folder


def test_nodes_never_pull_or_push():
    """Nothing is fetched or sent inside ComfyUI: the modules that talk to a hub are for the command line."""
    for path in (ROOT / "nodes").rglob("*.py"):
        assert not [
            module for module, _ in imports(path) if "hub" in module.split(".") or module.startswith("huggingface")
        ], path
    users = {user for user, used in import_graph().items() if any(name.startswith("realrag.hub") for name in used)}
    assert {user for user in users if not user.startswith("realrag.hub")} == {"realrag.commands.bundles"}


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
            assert name not in {
                "eval",
                "exec",
                "compile",
                "os.system",
                "pickle.load",
                "pickle.loads",
                "marshal.loads",
            }, name
            if name == "torch.load":
                assert any(key.arg == "weights_only" and ast.unparse(key.value) == "True" for key in node.keywords)
            if name in {"np.load", "numpy.load"}:
                assert not any(key.arg == "allow_pickle" and ast.unparse(key.value) != "False" for key in node.keywords)


@pytest.mark.slow
def test_importing_the_core_imports_nothing_heavy():
    modules = "realrag.retriever realrag.indexing.build realrag.hub.pull realrag.hub.push realrag.commands.main realrag.adapters realrag.injection.shared_attention".split()
    done = import_modules(*modules)
    assert done.stdout.decode().strip() == "[]", done.stderr


def test_no_shipped_file_is_large():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.decode().split("\0")):
        path = ROOT / name
        assert not path.is_file() or path.stat().st_size <= 25e6, name
