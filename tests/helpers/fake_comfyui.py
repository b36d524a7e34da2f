"""The part of ComfyUI's HTTP API that drawing needs, on a thread, with failures that tests choose."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from made_photos import photo_bytes


class FakeComfyUI:
    """`mood`: "well", "refuses", "fails", "no picture", "silent" (never ends), "gone" (answers 500), "busy" (other
    people's jobs run for the first `busy` looks at the queue), "cleared" (the first run is taken out of the queue),
    "restarted" (the same, and jobs are numbered from 0 again), or "unnumbered" (cleared, and no job has a number).

    A run ends after one look at the queue. picture: what a filled workflow draws."""

    def __init__(self, mood: str = "well", *, port: int = 0, picture=None, busy: int = 3):
        self.mood, self.graphs, self.looks, self.busy = mood, [], {}, busy
        self.uploads: dict[str, bytes] = {}
        self.picture = picture or self.picture
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_args):
                pass

            def reply(self, data: bytes | dict, code: int = 200) -> None:
                body = data if isinstance(data, bytes) else json.dumps(data).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/upload/image":
                    name = re.search(rb'filename="([^"]+)"', data)[1].decode()
                    fake.uploads[name] = data.split(b"\r\n\r\n", 1)[1].split(b"\r\n--realrag-", 1)[0]
                    return self.reply({"name": name, "subfolder": "", "type": "input"})
                body = json.loads(data)
                if fake.mood == "gone":
                    return self.reply(b"oh", 500)
                if fake.mood == "refuses":
                    errors = [{"message": "Value not in list", "details": "ckpt_name: 'x'"}]
                    answer = {
                        "error": {"message": "Prompt outputs failed validation"},
                        "node_errors": {"4": {"class_type": "Loader", "errors": errors}},
                    }
                    return self.reply(answer, 400)
                fake.graphs.append(body["prompt"])
                number = 0 if fake.mood == "restarted" else len(fake.graphs) - 1
                numbered = {} if fake.mood == "unnumbered" else {"number": number}
                self.reply({"prompt_id": f"run-{len(fake.graphs)}", **numbered, "node_errors": {}})

            def do_GET(self):
                if self.path.startswith("/view"):
                    return self.reply(fake.picture(fake.graphs[-1]))
                if self.path == "/system_stats":
                    return self.reply({"system": {"comfyui_version": "fake"}})
                if self.path == "/queue":
                    return self.reply(fake.queue())
                self.reply(fake.history(self.path.rsplit("/", 1)[1]))

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def queue(self) -> dict:
        """The last run, running, or waiting behind somebody else's."""
        own = f"run-{len(self.graphs)}"
        self.looks[own] = look = self.looks.get(own, 0) + 1
        if self._lost(own):
            return {"queue_running": [], "queue_pending": []}
        if self.mood == "busy" and look <= self.busy:
            return {"queue_running": [[0, "another", {}]], "queue_pending": [[1, own, {}], [2, "a later one", {}]]}
        running = [[1, own, {}]] if own in self.looks and not self._ended(own) else []
        return {"queue_running": running, "queue_pending": []}

    def _ended(self, run: str) -> bool:
        waits = self.busy if self.mood == "busy" else 0
        return run in self.looks and self.looks[run] > waits + 1 and self.mood != "silent" and not self._lost(run)

    def _lost(self, run: str) -> bool:
        return self.mood in ("cleared", "restarted", "unnumbered") and run == "run-1"

    def history(self, run: str) -> dict:
        if not self._ended(run):
            return {}
        if self.mood == "fails":
            details = {"node_type": "KSampler", "node_id": "3", "exception_message": "Allocation failed"}
            return {run: {"status": {"status_str": "error", "messages": [["execution_error", details]]}}}
        image = {"filename": "a.png", "subfolder": "", "type": "output"}
        shown = {"7": {"images": [{**image, "type": "temp"}]}, "9": {"images": [image]}}
        status = {"status_str": "success", "completed": True, "messages": []}
        return {run: {"status": status, "outputs": {} if self.mood == "no picture" else shown}}

    @staticmethod
    def picture(graph: dict) -> bytes:
        """A picture that depends on the workflow's content."""
        digest = hashlib.sha256(json.dumps(graph, sort_keys=True).encode()).digest()
        return photo_bytes(tuple(digest[:3]), digest[3], format="PNG")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> FakeComfyUI:
        return self

    def __exit__(self, *_exc) -> None:
        self.stop()
