import os

import pytest
import torch
from safetensors.torch import save

from realrag import artifact
from realrag.adapters.reading import read_weights
from realrag.adapters.siglip_pooling_head import load_map_head
from realrag.bundle.bundle import read_manifest
from realrag.errors import AdapterError, BundleError, RealRAGError
from realrag.wrong_file import LOOK_AT, what_it_is

PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Welcome</body></html>" * 40
REFUSED = b"Access to model someone/some-model is restricted. You must be authenticated to access it. Please log in."
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
# What is saved in the place of a model -> what its message says.
WRONG = {
    "a web page": (PAGE, "it is a web page"),
    "a page with spaces in front": (b"\n\n  <HTML lang='en'>" + PAGE, "it is a web page"),
    "a refusal in XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "it is a web page"),
    "a refusal": (REFUSED, "it is a text that begins 'Access to model someone/some-model is restricted"),
    "a refusal in JSON": (b'{"error":"Invalid username or password."}', "it is a text that begins '.\"error"),
    "a refusal in Chinese": (
        "请先登录并接受该模型的许可协议然后再下载\n".encode() * 400,
        "it is a text that begins '请先登录",
    ),
    "a pointer": (POINTER, "it is a Git LFS pointer"),
}
case = pytest.mark.parametrize("data, words", WRONG.values(), ids=WRONG)


@case
def test_a_safetensors_file_that_is_none_is_called_what_it_is(tmp_path, data, words):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(RealRAGError, match=f"model.safetensors is not a reference pack: {words}"):
        artifact.read(path, "x", "1", "a reference pack", "Save it again.")
    with pytest.raises(AdapterError, match=words):
        read_weights(path)
    with pytest.raises(AdapterError, match=words):
        load_map_head(path)


@case
def test_a_pickle_that_is_none_is_called_what_it_is(tmp_path, data, words):
    (tmp_path / "adapter.bin").write_bytes(data)
    with pytest.raises(AdapterError, match=f"adapter.bin is not an adapter: {words}"):
        read_weights(tmp_path / "adapter.bin")


def test_a_manifest_that_is_a_web_page_is_called_so(tmp_path):
    (tmp_path / "manifest.json").write_bytes(PAGE)
    with pytest.raises(BundleError, match="is not a bundle's manifest: it is a web page"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b'{"format": ')
    with pytest.raises(BundleError, match="is not valid JSON"):
        read_manifest(tmp_path)


def test_a_damaged_model_is_not_taken_for_a_text(tmp_path):
    right = save({"weight": torch.zeros(64, 64)})
    assert what_it_is(right[:LOOK_AT]) == ""
    for wrong in (right[:100], right[8:], b"\0" * 500, os.urandom(500) + b"\xff\0", b"PK\x03\x04" + bytes(30)):
        assert not what_it_is(wrong[:LOOK_AT]).startswith("it is a web page")
    (tmp_path / "cut.safetensors").write_bytes(right[:-7])
    with pytest.raises(AdapterError, match="is damaged, or is not an adapter: its tensors take"):
        read_weights(tmp_path / "cut.safetensors")


def test_control_characters_of_a_text_do_not_reach_a_terminal():
    assert what_it_is(b"\x1b[2Jplease log in") == ""
    assert "begins 'please log in first'" in what_it_is(b"please\tlog in  first\r\nthree")
    assert len(what_it_is(b"x" * LOOK_AT)) < 400


def test_a_missing_file_is_nothing_else(tmp_path):
    assert artifact.what_file_is(tmp_path / "missing") == ""
    assert artifact.what_file_is(tmp_path) == ""
