"""`python -m train`: its help needs nothing heavy, a broken command leaves the others alone, and how it exits."""

import os
import signal
import subprocess
import sys
import time

import pytest

import realrag_train.__main__ as command_line
from realrag.errors import RealRAGError
from realrag_train.__main__ import COMMANDS, load, main
from realrag_train.loop.stages import RESUME, STOPPED, Stopped

HEAVY = ("torch", "numpy", "PIL", "safetensors", "open_clip")


def test_the_help_imports_nothing_heavy():
    code = (
        "import sys, realrag_train.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    path = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("[]\n") and all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_of_its_own(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and shown.startswith(f"usage: python -m train {name}")


def test_a_package_that_one_command_lacks_is_named_and_the_others_work(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "broken", ("broken_command", "cannot be imported"))

    def import_module(name, package):
        if name == ".broken_command":
            raise ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes")
        return found(name, package)

    found = command_line.import_module
    monkeypatch.setattr(command_line, "import_module", import_module)
    assert main(["broken"]) == 1 and "needs the package bitsandbytes" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["split", "--help"])
    assert stop.value.code == 0


def test_a_name_may_be_written_as_two_words(capsys):
    for words in (["miniature", "generator"], ["miniature-generator"]):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
        assert stop.value.code == 0 and "train miniature-generator" in capsys.readouterr().out


def test_an_unknown_command_is_answered_with_the_names_that_there_are(capsys):
    for given in (["reprodcue"], [], ["--", "run"]):
        with pytest.raises(SystemExit) as stop:
            main(given)
        assert stop.value.code == 2
        assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status"), [(Stopped("Stopped."), STOPPED), (KeyboardInterrupt(), STOPPED), (RealRAGError("No."), 1)]
)
def test_a_stopped_command_has_one_exit_status_and_a_failed_one_another(monkeypatch, raised, status):
    def run(arguments):
        raise raised

    monkeypatch.setattr(load("split"), "run", run)
    assert main(["split", "photos", "--out", "out"]) == status


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["split", "votes", "mine", "choose"])
def test_sigterm_and_ctrl_c_stop_every_command_alike(monkeypatch, capsys, command, number):
    def run(arguments):
        os.kill(os.getpid(), number)
        time.sleep(10)
        raise AssertionError("went on")

    module = load(command)
    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "add_arguments", lambda parser: None)
    heeded = signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background job it is ignored
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main([command]) == STOPPED == 75
    finally:
        signal.signal(signal.SIGINT, heeded)
    assert capsys.readouterr().out == f"Stopped. {RESUME}\n" and signal.getsignal(signal.SIGTERM) == before


def test_a_maintainer_s_command_outside_a_checkout_says_where_it_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("realrag_train.maintainer_tools.FOLDER", tmp_path)
    assert main(["convert-mobilenet", "--help"]) == 1
    assert "from a checkout" in capsys.readouterr().err
