"""How much memory questions take, measured in a process of its own: a tracer of Python's memory takes four times as long,
and does not see torch's."""

import json
import sys

from child import Child


def memory_of_questions(texts: list[str]) -> list[tuple[str, int]]:
    """(note of the answer, bytes by which the peak of the process has risen since the first question) of each text, asked
    of the shipped library."""
    child = Child(_ask, texts)
    stdout, stderr = child.communicate(timeout=300)
    assert child.returncode == 0, stderr.decode()
    return [tuple(row) for row in json.loads(stdout)]


def _ask(texts):
    import resource

    from realrag.retriever import Retriever, shipped_bundle

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    retriever = Retriever.open(shipped_bundle())
    retriever.search("a lemon", k=1)
    before = peak()
    print(json.dumps([(retriever.search(text, k=1).note, peak() - before) for text in texts]))
