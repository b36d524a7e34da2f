"""Weights that are not on this machine: what to do about it is known at once, and said."""

import socket
import threading
from types import SimpleNamespace

import pytest
from command_in_a_process import ask_for_missing_weights

from realrag.encoders import weights
from realrag.errors import EncoderError

HUB = {"hf_hub": "someone/model/", "url": ""}
URL = {"hf_hub": "", "url": "https://weights.invalid/folder/model-1234.pt"}


def table(fetched=None, error=None):
    import open_clip

    def download(tag, prefer_hf_hub):
        if error:
            raise error
        fetched.append((tag, prefer_hf_hub))
        return "/fetched/file"

    return SimpleNamespace(__file__=open_clip.pretrained.__file__, download_pretrained=download)


def find(tag, offline=False, there=None):
    return weights.find_weights(there or table([]), "ViT-B-16-SigLIP", "mine", tag, offline)


@pytest.fixture(autouse=True)
def nothing_cached(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *given, **options: None)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """http://127.0.0.1:port, which takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def closed():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("tag, place, name", [
    (HUB, "https://huggingface.co/someone/model/resolve/main/open_clip_model.safetensors", "open_clip_model.safetensors"),
    (URL, "https://weights.invalid/folder/model-1234.pt", "model-1234.pt"),
    ({"hf_hub": "someone/model/own.pt"}, "https://huggingface.co/someone/model/resolve/main/own.pt", "own.pt"),
])  # fmt: skip
def test_a_missing_weight_is_said_with_its_address_its_place_and_the_command(tag, place, name):
    with pytest.raises(EncoderError) as caught:
        find(tag, offline=True)
    said = str(caught.value)
    assert place in said and f"--encoder ViT-B-16-SigLIP:mine=FOLDER/{name}" in said
    assert "tokenizer.json and tokenizer_config.json of https://huggingface.co/timm/ViT-B-16-SigLIP" in said


def test_the_message_is_whole_for_every_tag():
    import open_clip

    for arch, tag in open_clip.list_pretrained():
        entry = open_clip.get_pretrained_cfg(arch, tag)
        said = weights.missing(arch, tag, entry, "", "why", True)
        assert "https://" in said and f"--encoder {arch}:{tag}=FOLDER/" in said and "FOLDER/ " not in said, said


@pytest.mark.slow
def test_a_name_server_that_never_answers_is_not_waited_for(monkeypatch):
    release = threading.Event()

    def hangs(*given, **options):
        release.wait()
        raise OSError

    monkeypatch.setattr(socket, "create_connection", hangs)
    try:
        with pytest.raises(
            EncoderError, match=r"huggingface\.co cannot be reached; weights\.invalid cannot be reached"
        ):
            find(HUB | {"url": URL["url"]})
    finally:
        release.set()


def test_a_closed_hub_is_passed_over_for_the_other_address(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", closed())
    fetched, tag = [], HUB | {"url": f"{server}/model.pt"}
    assert str(find(tag, there=table(fetched))) == "/fetched/file" and fetched == [(tag, False)]


def test_an_open_hub_is_asked_first_and_not_where_the_user_switched_it_off(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server)
    fetched = []
    find(HUB, there=table(fetched))
    assert fetched == [(HUB, True)]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EncoderError, match="cannot be reached"):
        find(HUB)


@pytest.mark.parametrize("works", [True, False])
def test_behind_a_proxy_it_is_the_proxy_that_must_answer(works, server, monkeypatch):
    monkeypatch.setenv("https_proxy", server if works else closed())
    assert weights.reachable(["https://nowhere.invalid"]) == ({"https://nowhere.invalid"} if works else set())


def test_an_error_of_the_hub_is_passed_on_in_short(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server)
    with pytest.raises(EncoderError) as caught:
        find(HUB, there=table(error=RuntimeError("404 \x1b[31mnot found\x1b[0m\n" + 5000 * "key ")))
    assert "RuntimeError: 404 not found)" in str(caught.value) and len(str(caught.value)) < 900


def test_what_is_here_is_never_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *given: pytest.fail("a connection was opened"))
    file = tmp_path / ".cache" / "clip" / "model-1234.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert find(URL) == file


@pytest.mark.slow
def test_a_missing_weight_is_found_out_before_open_clip_is_imported():
    done = ask_for_missing_weights("ViT-L-14:openai")
    error, loaded = done.stdout.decode().splitlines()
    assert error.startswith("EncoderError ")
    assert "ViT-L-14:openai=FOLDER" in error
    assert loaded == "[]", done.stderr
