"""A function in a process of its own, which a test may kill, send signals to, or read from while it runs.

Children are forked off one server that has imported torch and our code once (the multiprocessing start method "forkserver"),
so each starts within milliseconds in place of the seconds of a new interpreter. Where there is no forkserver, each is a new
interpreter.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
from collections.abc import Callable

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CONTEXT = multiprocessing.get_context(METHOD)
# None of these imports open_clip, so what a command imports on its own is still seen in a child. torch's optimizers import
# its compiler at their first step, a second and a half in each child that trains.
CONTEXT.set_forkserver_preload(
    ["realrag_train.retriever.run", "realrag_train.contrastive.fit", "realrag.commands.main", "torch._dynamo"]
)


class Child:
    """Runs `work(*arguments)`, a function of a module in this folder, with one thread; an int that it returns is the exit
    status. environment: variables beside the test's own. encoding: of the text that the child writes. The attributes and
    methods are those of subprocess.Popen.
    """

    def __init__(self, work: Callable, *arguments, encoding: str = "utf-8", **environment: str):
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
        given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        writers = [writer for _, writer in pipes]
        self._process = CONTEXT.Process(target=_run, args=(writers, given, encoding, work, arguments))
        self._process.start()
        self.stdout, self.stderr = (open(os.dup(reader.fileno()), "rb") for reader, _ in pipes)
        for ends in pipes:
            for end in ends:
                end.close()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"The child did not end within {timeout} s.")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def communicate(self, timeout: float | None = 60) -> tuple[bytes, bytes]:
        """All that the child writes until it ends. Its errors wait in their pipe: no more than 64 KiB fit."""
        with self.stdout, self.stderr:
            written = self.stdout.read(), self.stderr.read()
        self.wait(timeout)
        return written


def _run(writers: list, environment: dict[str, str], encoding: str, work: Callable, arguments: tuple) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, writer in enumerate(writers, 1):
        os.dup2(writer.fileno(), number)
        writer.close()
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(open(number, "wb", closefd=False), encoding=encoding, errors=errors, line_buffering=True)
        for number, errors in ((1, "strict"), (2, "backslashreplace"))
    )
    import torch

    torch.set_num_threads(1)
    raise SystemExit(work(*arguments))
