"""The part of ComfyUI's HTTP API that drawing needs, on a thread, with failures that tests choose."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from made_photos import photo_bytes


class FakeComfyUI:
    """`mood`: "well", "refuses", "fails", "no picture", "silent" (never ends), or "gone" (answers 500)."""

    def __init__(self, mood: str = "well"):
        self.mood, self.graphs, self.asked = mood, [], 0
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
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
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
                self.reply({"prompt_id": f"run-{len(fake.graphs)}", "number": 1, "node_errors": {}})

            def do_GET(self):
                if self.path.startswith("/view"):
                    return self.reply(fake.picture(fake.graphs[-1]))
                fake.asked += 1
                identity = self.path.rsplit("/", 1)[1]
                if fake.mood == "silent" or fake.asked % 2:  # the entry appears a moment after the run has ended
                    return self.reply({})
                if fake.mood == "fails":
                    details = {"node_type": "KSampler", "node_id": "3", "exception_message": "Allocation failed"}
                    return self.reply(
                        {identity: {"status": {"status_str": "error", "messages": [["execution_error", details]]}}}
                    )
                image = {"filename": "a.png", "subfolder": "", "type": "output"}
                outputs = (
                    {}
                    if fake.mood == "no picture"
                    else {"7": {"images": [{**image, "type": "temp"}]}, "9": {"images": [image]}}
                )
                status = {"status_str": "success", "completed": True, "messages": []}
                self.reply({identity: {"status": status, "outputs": outputs}})

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @staticmethod
    def picture(graph: dict) -> bytes:
        """A picture that depends on the workflow's content."""
        digest = hashlib.sha256(json.dumps(graph, sort_keys=True).encode()).digest()
        return photo_bytes(tuple(digest[:3]), digest[3], format="PNG")

    def __enter__(self) -> FakeComfyUI:
        return self

    def __exit__(self, *_exc) -> None:
        self._server.shutdown()
        self._server.server_close()
