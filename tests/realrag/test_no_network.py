"""No public entry opens a connection, whatever a bundle carries; those of the hub excepted, which are asked to."""

import json
import socket

import pytest
from bundle_content import relist, rewrite
from no_network import Opened, no_network

from realrag.adapters.convert import convert
from realrag.bundle.bundle import Bundle
from realrag.commands.main import main
from realrag.encoders.load import load_encoder
from realrag.errors import RealRAGError
from realrag.injection.reference_pack import open_pack
from realrag.retriever import Retriever, shipped_bundle


@pytest.fixture
def carrying(photos, tmp_path, tiny_clip):
    """A bundle that carries a tiny open_clip model."""
    assert main(["index", str(photos), "--out", str(tmp_path / "b"), "--encoder", str(tiny_clip)]) == 0
    return tmp_path / "b"


def test_the_guard_guards(monkeypatch):
    with no_network(monkeypatch), pytest.raises(Opened):
        socket.create_connection(("127.0.0.1", 9))


@pytest.mark.slow
def test_nothing_opens_a_connection(monkeypatch, carrying, photos, tmp_path, capsys, tiny_clip):
    with no_network(monkeypatch):
        for bundle in (shipped_bundle(), carrying):
            Bundle(bundle, tmp_path / "cache").verify()
            assert len(Retriever.open(bundle, cache=tmp_path / "cache").search("red", k=2)) <= 2
            for command in (["show", str(bundle)], ["verify", str(bundle)], ["search", str(bundle), "red"]):
                assert main(command) == 0
        assert main(["index", str(photos), "--out", str(carrying), "--encoder", str(tiny_clip)]) == 0
        load_encoder()
        for call in (
            lambda: convert(tmp_path / "no.bin", tmp_path / "x.safetensors"),
            lambda: open_pack(tmp_path / "no.safetensors"),
        ):
            with pytest.raises(RealRAGError):
                call()


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("text_cfg", "hf_model_name", "somebody/something"), ("text_cfg", "hf_tokenizer_name", "somebody/something"),
        ("vision_cfg", "timm_model_name", "scheme:somebody/something"), ("text_cfg", "tokenizer_kwargs", {"revision": "x"}),
    ],
)  # fmt: skip
def test_a_carried_name_is_refused_and_never_looked_up(monkeypatch, carrying, part, key, value):
    path = carrying / "encoder" / "open_clip_config.json"
    content = json.loads(path.read_bytes())
    content["model_cfg"][part][key] = value
    path.write_text(json.dumps(content))
    relist(carrying, path)
    with no_network(monkeypatch):
        with pytest.raises(RealRAGError):
            Bundle(carrying).verify()
        with pytest.raises(RealRAGError):
            Retriever.open(carrying)


def test_a_file_that_no_encoder_has_is_refused(carrying):
    def add(manifest):
        entry = next(entry for entry in manifest["files"] if entry["role"] == "encoder")
        manifest["files"].append({**entry, "path": "encoder/modeling.json"})

    rewrite(carrying, add)
    with pytest.raises(RealRAGError, match=r"'encoder/modeling\.json' is no file that an encoder has"):
        Bundle(carrying)
