"""A ComfyUI that restarts, whose queue is cleared, or that draws for other people first."""

import json
import threading
import time

import numpy as np
import pytest
from fake_comfyui import FakeComfyUI
from made_photos import photo_bytes

from realrag.photos.decode import decode
from realrag_train.generators.comfyui import CLEARED, RESTARTED, UNCLEAR, ComfyUI, Queued, why_gone
from realrag_train.generators.errors import GeneratorError
from realrag_train.generators.server import NoServer, Waiting

QUICK = Waiting(poll=0.01, longest_poll=0.02, back_off=0.05, longest_back_off=0.1, restart=20, lost=0.1, note=0)


@pytest.fixture
def flow(tmp_path):
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 1}, "_meta": {"title": "Seed"}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}, "_meta": {"title": "Prompt"}},
        "9": {"class_type": "SaveImage", "inputs": {}},
    }
    (tmp_path / "flow.json").write_text(json.dumps(graph))
    return tmp_path / "flow.json"


def test_other_people_s_jobs_are_not_our_timeout(flow):
    lines = []
    with FakeComfyUI("busy", busy=40) as server:
        generator = ComfyUI(flow, server.url, timeout=0.3, waiting=QUICK, log=lines.append)
        began = time.monotonic()
        assert generator.draw("a pear", 1).size == (48, 36)
        assert time.monotonic() - began > 0.3  # longer than the timeout for our own drawing
    assert f"{server.url} has 1 other jobs before ours" in lines


@pytest.mark.parametrize("mood, cause", [("cleared", CLEARED), ("restarted", RESTARTED), ("unnumbered", UNCLEAR)])
def test_a_picture_that_left_the_queue_is_queued_again_and_the_cause_is_named(flow, mood, cause):
    lines = []
    with FakeComfyUI(mood) as server:
        ComfyUI(flow, server.url, waiting=QUICK, log=lines.append).draw("a pear", 1)
        assert len(server.graphs) == 2
    assert f"{server.url} no longer had our picture: {cause}. It is queued again." in lines


def test_a_server_that_was_away_restarted_whatever_number_it_gives():
    assert why_gone(Queued("a", 3, 0), Queued("b", 9, 1)) == RESTARTED
    assert why_gone(Queued("a", 3, 0), Queued("b", 3, 0)) == RESTARTED
    assert why_gone(Queued("a", 3, 1), Queued("b", 4, 1)) == CLEARED


@pytest.mark.parametrize(
    "mood, said", [("well", r"taken out of the queue of .* 4 times"), ("restarted", "restarted again")]
)
def test_a_picture_that_is_lost_again_and_again_ends_the_work_with_the_cause(flow, monkeypatch, mood, said):
    monkeypatch.setattr(FakeComfyUI, "queue", lambda self: {"queue_running": [], "queue_pending": []})
    monkeypatch.setattr(FakeComfyUI, "history", lambda self, run: {})
    with FakeComfyUI(mood) as server, pytest.raises(GeneratorError, match=said):
        ComfyUI(flow, server.url, timeout=1000, waiting=QUICK).draw("a pear", 1)


def test_a_server_that_restarts_is_waited_for_and_asked_again(flow):
    lines, first = [], FakeComfyUI("silent")
    generator = ComfyUI(flow, first.url, waiting=QUICK, log=lines.append)
    second = []

    def restart():
        while not first.graphs:
            time.sleep(0.01)
        first.stop()
        time.sleep(0.3)
        second.append(FakeComfyUI(port=first.port, picture=lambda graph: photo_bytes((200, 10, 10), format="PNG")))

    thread = threading.Thread(target=restart)
    thread.start()
    picture = generator.draw("a pear", 1)
    thread.join()
    with second[0]:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(decode(photo_bytes((200, 10, 10), format="PNG"))))
        assert len(second[0].graphs) == 1
    assert any("Trying again in" in line for line in lines)
    assert f"{first.url} answers again." in lines
    assert f"{first.url} no longer had our picture: {RESTARTED}. It is queued again." in lines


def test_a_server_that_never_answered_is_said_at_once_and_one_that_stays_away_in_the_end(flow):
    with FakeComfyUI() as server:
        url = server.url
    with pytest.raises(NoServer, match=r"No ComfyUI answers at .*--url"):
        ComfyUI(flow, url, waiting=QUICK).server.version()
    with FakeComfyUI() as server:
        generator = ComfyUI(flow, server.url, waiting=Waiting(back_off=0.05, restart=0.2))
        assert generator.server.version() == "fake"
    with pytest.raises(NoServer):
        generator.draw("a pear", 1)
