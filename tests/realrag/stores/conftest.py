"""pymilvus as it is, but for a rest of half a second that it takes before it first asks whether an index is there."""

import importlib.util
import time
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_rest_before_the_first_look():
    if not importlib.util.find_spec("pymilvus"):
        yield
        return
    quick = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: time.sleep(min(seconds, 0.01))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pymilvus.client.grpc_handler.time", quick)
        yield
