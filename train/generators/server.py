"""The HTTP API of a ComfyUI server: requests that wait for a server that restarts, and what is wrong in words."""

from __future__ import annotations

import http.client
import ipaddress
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from realrag.files import sha256_bytes

from .errors import GeneratorError

MAX_ANSWER = 256 << 20
log = logging.getLogger(__name__)


class NoServer(GeneratorError):
    """Nothing answers at the server's address."""


@dataclass(frozen=True)
class Waiting:
    """How long a server is waited for, in seconds. All values are our choices."""

    poll: float = 0.02  # between two requests while a picture is drawn, doubled up to `longest_poll`
    longest_poll: float = 2.0
    back_off: float = 1.0  # before the first new try at a server that does not answer, doubled up to `longest_back_off`
    longest_back_off: float = 30.0
    restart: float = 600.0  # in which a server that answered before has to come back
    lost: float = 4.0  # a run that is neither in the queue nor in the history for so long was taken out
    requeue: int = 3  # times that one picture is put into the queue again
    note: float = 30.0  # between two lines on what is waited for


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args):
        return None  # a server on this machine must not redirect to another one


class Server:
    """A ComfyUI server at `url`. remote: allow one on another machine. log: receives what is waited for."""

    def __init__(self, url: str, *, remote: bool = False, waiting: Waiting = Waiting(),
                 log: Callable[[str], None] = log.info):  # fmt: skip
        self.url, self.waiting, self.log = _checked_url(url, remote), waiting, log
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
        self._answered, self.outages = False, 0  # outages: times that it was away and came back

    def version(self) -> str:
        """The server's ComfyUI version. NoServer, at once, where nothing answers."""
        system = self._json("/system_stats").get("system")
        self._answered = True
        return str(system.get("comfyui_version") or "unknown") if isinstance(system, dict) else "unknown"

    def json(self, path: str, body: dict | None = None) -> dict:
        return self._patiently(lambda: self._json(path, None if body is None else json.dumps(body).encode()))

    def bytes(self, path: str) -> bytes:
        return self._patiently(lambda: self._request(path))

    def upload(self, name: str, data: bytes) -> str:
        """Put a picture into the server's input folder; the name that a Load Image node knows it by."""
        mark = "realrag-" + sha256_bytes(data)[:16]
        parts = (
            f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        end = f'\r\n--{mark}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n--{mark}--\r\n'
        body, kind = parts.encode() + data + end.encode(), f"multipart/form-data; boundary={mark}"
        answer = self._patiently(lambda: self._json("/upload/image", body, kind))
        folder = str(answer.get("subfolder") or "")
        return f"{folder}/{answer.get('name')}" if folder else str(answer.get("name"))

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """`ask()`, tried again with growing pauses while a server that answered before does not answer."""
        pause, since, tried = self.waiting.back_off, time.monotonic(), False
        while True:
            try:
                answer = ask()
            except NoServer:
                if not self._answered or time.monotonic() - since > self.waiting.restart:
                    raise
                self.log(f"No ComfyUI answers at {self.url}. Trying again in {pause:g} s.")
                time.sleep(pause)
                pause, tried = min(self.waiting.longest_back_off, 2 * pause), True
                continue
            if tried:
                self.outages += 1
                self.log(f"{self.url} answers again.")
            self._answered = True
            return answer

    def _json(self, path: str, data: bytes | None = None, kind: str = "application/json") -> dict:
        try:
            answer = json.loads(self._request(path, data, kind))
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise GeneratorError(f"{self.url}{path} does not answer like ComfyUI. Is another program on that port?")
        return answer

    def _request(self, path: str, data: bytes | None = None, kind: str = "application/json") -> bytes:
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind})
        try:
            with self._opener.open(request, timeout=60) as answer:
                body = answer.read(MAX_ANSWER + 1)
        except urllib.error.HTTPError as error:
            text = error.read(1 << 20)
            try:
                answer = json.loads(text)
            except (ValueError, RecursionError):
                answer = None
            if error.code == 400 and isinstance(answer, dict):
                raise GeneratorError(refusal(self.url, answer)) from None
            raise GeneratorError(
                f"{self.url}{path.split('?')[0]} answers with error {error.code}. Check ComfyUI's window."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise NoServer(
                f"No ComfyUI answers at {self.url} ({reason}). Start it, or give its address: --url, or `url` in the recipe's "
                "section [imagine]."
            ) from None
        if len(body) > MAX_ANSWER:
            raise GeneratorError(
                f"{self.url}{path.split('?')[0]} sent more than {MAX_ANSWER >> 20} MiB. Draw smaller pictures."
            )
        return body


def _checked_url(url: str, remote: bool) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise GeneratorError(f"{url!r} is not the address of a ComfyUI server, such as http://127.0.0.1:8188.")
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if not here and not remote:
        raise GeneratorError(
            f"{url} is another machine: the prompts would leave this one. Set `remote = true` in the recipe's section [imagine] to "
            "allow that."
        )
    return url.rstrip("/")


def refusal(url: str, answer: dict) -> str:
    error = answer.get("error")
    parts = [str(error.get("message") if isinstance(error, dict) else error or "no reason given")]
    for node, report in (answer.get("node_errors") or {}).items():
        for one in (report.get("errors") or ())[:2] if isinstance(report, dict) else ():
            parts.append(
                f"node {node} ({report.get('class_type')}): {one.get('message')} {one.get('details') or ''}".strip()
            )
    return f"{url} refuses the workflow: {'; '.join(parts)[:1500]}. Run it once in ComfyUI's own window, then export it again."
