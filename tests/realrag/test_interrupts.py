"""A Ctrl-C that Python drops stops the command all the same."""

import signal
import sys
import time
import weakref

import pytest

import realrag.__main__ as program
from realrag import STOPPED_TEXT
from realrag.interrupts import interrupts_heard

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")


class Thing:
    pass


def work() -> int:
    """Ctrl-C comes while a weak reference is told that its object is gone; then there are ten seconds of work."""
    thing = Thing()
    told = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    assert told() is None
    time.sleep(10)
    return 0


@pytest.fixture
def heeded():
    """In a shell's background job Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_an_interrupt_in_a_callback_ends_the_command_with_130(monkeypatch, capsys):
    before = sys.unraisablehook
    monkeypatch.setattr("realrag.commands.main.main", work)
    monkeypatch.setattr(program.atexit, "register", lambda *given: None)  # for a process that ends
    assert program.main() == 130
    assert capsys.readouterr().err == f"{STOPPED_TEXT}\n"
    assert sys.unraisablehook is before


def test_other_dropped_exceptions_are_reported_as_ever(monkeypatch):
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: dropped.append(unraisable.exc_type))
    with interrupts_heard():
        thing = Thing()
        told = weakref.ref(thing, lambda _: 1 / 0)
        del thing
        assert told() is None
    assert dropped == [ZeroDivisionError]
