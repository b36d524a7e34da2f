"""Shared fixtures: folders of small photos made here, and the fake encoder."""

import itertools
import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: workers with many threads wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from fake_encoder import ColorEncoder
from made_photos import write_photos

ROOMS = {"comfyui": ("comfyui", "browser"), "browser": ("browser",)}  # which folders have each marker
NUMBERS = itertools.count()
NO_COMFYUI = "COMFYUI_PATH does not name a ComfyUI folder (and COMFYUI_PYTHON, if needed, its Python)"


def _in_rooms(path: Path, rooms: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(Path(__file__).parent / room) for room in rooms)


def pytest_report_header():
    path = os.environ.get("COMFYUI_PATH")
    return f"ComfyUI: {path}" if path else "ComfyUI: tests in a real one are skipped, as COMFYUI_PATH names none"


class NeedsComfyUI(pytest.Module):
    """A file of tests that is skipped whole, before it is read: without ComfyUI that would be a third of all there is to read."""

    def collect(self):
        pytest.skip(NO_COMFYUI, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    if not os.environ.get("COMFYUI_PATH") and _in_rooms(module_path, ROOMS["comfyui"]):
        return NeedsComfyUI.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(items):
    for item in items:
        for marker, rooms in ROOMS.items():
            if _in_rooms(item.path, rooms):
                item.add_marker(marker)


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """No test cuts the power: that the disk is asked, and when, is tested in test_files.py. Thousands of waits take
    minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield


@pytest.fixture
def photos(tmp_path):
    """photos/{red,green,blue}/0..4.jpg"""
    folder = tmp_path / "photos"
    write_photos(folder)
    return folder


@pytest.fixture
def encoder():
    return ColorEncoder()


@pytest.fixture
def bundle(photos, tmp_path, encoder):
    """The bundle of `photos` by the fake encoder."""
    from realrag.indexing.build import build

    build(photos, tmp_path / "b", encoder)
    return tmp_path / "b"


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """The folder of a tiny CLIP with random weights; tests only read it."""
    from tiny_encoders import write_tiny_clip

    return write_tiny_clip(tmp_path_factory.mktemp("tiny-clip"))


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def own_cache(caches):
    """No test touches the user's cache, or another's. Its folder is made by whoever writes into it."""
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # of its own: `monkeypatch` is undone when a test's folder is still there
        patch.setenv("REALRAG_CACHE", str(caches / str(next(NUMBERS))))
        yield


@pytest.fixture(scope="module")
def one_thread():
    """Tiny tensors: more threads would only wait for each other, and sums keep their order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
