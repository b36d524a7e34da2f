"""Shared fixtures: folders of small photos made here, and the fake encoder."""

import os

import pytest
from fake_encoder import ColourEncoder
from made_photos import write_photos


def pytest_report_header():
    path = os.environ.get("COMFYUI_PATH")
    return f"ComfyUI: {path}" if path else "ComfyUI: tests in a real one are skipped, as COMFYUI_PATH names none"


@pytest.fixture
def photos(tmp_path):
    """photos/{red,green,blue}/0..4.jpg"""
    folder = tmp_path / "photos"
    write_photos(folder)
    return folder


@pytest.fixture
def encoder():
    return ColourEncoder()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test touches the user's cache."""
    monkeypatch.setenv("REALRAG_CACHE", str(tmp_path / "cache"))
