"""The commands write to any output: in any encoding, into a pipe whose reader has gone, with any name in what they print."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from bundle_content import file_of, replace_hashed
from command_in_a_process import run_command
from tiny_encoders import write_tiny_small

from realrag import STOPPED_TEXT
from realrag.commands.main import main
from realrag.commands.output import on_one_line
from realrag.retriever import shipped_bundle


@pytest.fixture
def with_captions(photos, tmp_path):
    for number, text in enumerate(("猫 и кошка", "🦊 fox", "naïve\x81")):
        (photos / "red" / f"{number}.txt").write_text(text, encoding="utf-8")
    tiny = write_tiny_small(tmp_path / "tiny")
    assert main(["index", str(photos), "--out", str(tmp_path / "b"), "--encoder", str(tiny)]) == 0
    return tmp_path / "b"


@pytest.mark.slow
def test_any_encoding_of_the_output_gets_text_and_json(with_captions):
    done = run_command("search", with_captions, "red", "-k", "15", "--json", encoding="cp1252")
    assert done.returncode == 0, done.stderr
    captions = {item["caption"] for item in json.loads(done.stdout)}
    assert {"猫 и кошка", "🦊 fox"} <= captions
    plain = run_command("search", with_captions, "red", "-k", "15", encoding="cp1252")
    assert plain.returncode == 0, plain.stderr
    assert b"fox" in plain.stdout


@pytest.mark.slow
def test_half_characters_in_json_are_escaped(capsys, with_captions):
    rows = file_of(with_captions, "records").read_bytes().replace(b'"file":"', b'"file":"\\ud800')
    replace_hashed(with_captions, "records", rows)
    capsys.readouterr()
    assert main(["search", str(with_captions), "red", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX pipe")
def test_a_reader_that_goes_is_no_error():
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "realrag", "show", "sample"], env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
@pytest.mark.parametrize("delay", [0.15, 0.4, 0.8, 1.6])
def test_ctrl_c_at_any_time_is_130_without_a_traceback(delay):
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    code = "import sys, realrag.__main__ as m; print('up', flush=True); sys.exit(m.main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "verify", "sample"],
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "up\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert "Traceback" not in errors
    if process.returncode != 0:  # 0: it was done before
        assert process.returncode == 130
        assert STOPPED_TEXT in errors
    else:
        assert "photos" in output


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2Jb", "a\x00", "\u2028", "\ud800", "x\x85y"])
def test_names_cannot_forge_a_line(text):
    line = on_one_line(f"left out: {text}")
    assert len(line.splitlines()) == 1
    assert line.encode("utf-8")
    assert "\x1b" not in line


def test_a_full_disk_names_path_and_bytes(photos, tmp_path, tiny_clip, monkeypatch, capsys):
    from realrag import files

    real = files.os.replace

    def full(source, target):
        if str(target).endswith(".safetensors"):
            raise OSError(28, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    assert main(["index", str(photos), "--out", str(tmp_path / "b"), "--encoder", str(tiny_clip)]) == 1
    error = capsys.readouterr().err
    assert "bytes are needed" in error
    assert ".building" in error
    assert "are free" in error


@pytest.mark.slow
def test_the_shipped_bundle_is_shown_in_ascii_too():
    done = run_command("show", shipped_bundle(), encoding="ascii")
    assert done.returncode == 0, done.stderr
