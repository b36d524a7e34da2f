"""A model hub on 127.0.0.1 that speaks the part of the hub's HTTP API which huggingface_hub uses to list, fetch and
commit.

Repositories are lists of commits, each {path: bytes}. `asked` logs every request; `faults` corrupts responses.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Repository:
    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        before = self.commits[-1][0] if self.commits else ""
        text = before + json.dumps(
            {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, sort_keys=True
        )
        self.commits.append((hashlib.sha1(text.encode()).hexdigest(), dict(files)))
        return self.commits[-1][0]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


class FakeHub:
    """faults: path -> a function from its bytes to the bytes sent, or a list of byte counts after which the connection
    breaks, one per response. sizes: path -> the size that the hub reports. large: suffixes of files stored in LFS."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.faults: dict[str, object] = {}
        self.sizes: dict[str, int] = {}
        self.blobs: dict[str, bytes] = {}
        self.token = ""  # if set, every request must carry it
        self.large = (".tar", ".safetensors")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fetched(self) -> list[str]:
        """The paths of the files whose content was requested, in order."""
        paths = [path for verb, path, _ in self.asked if verb == "GET" and "/resolve/" in path]
        return [path.split("/resolve/")[1].split("/", 1)[1] for path in paths]


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits for the receipt of its head, 40 ms each time

    def log_message(self, *_args) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(self._read)

    def do_HEAD(self) -> None:
        self._answer(self._read)

    def do_POST(self) -> None:
        self._answer(self._write)

    def do_PUT(self) -> None:
        self._answer(self._write)

    def _answer(self, what) -> None:
        path = self.path.split("?")[0]
        self.hub.asked.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        signed = path.startswith("/lfs/")  # an upload address is valid for one upload and needs no token
        if self.hub.token and not signed and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._json(401, {"error": "Invalid username or password."}, {"X-Error-Code": "RepoNotFound"})
        what(path, body)

    def _json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self._send(status, data, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, data: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:cut])
        if cut is not None and cut < len(data):
            self.close_connection = True

    def _repository(self, name: str) -> Repository | None:
        if (found := self.hub.repositories.get(name)) is None:
            self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return found

    # reading

    def _read(self, path: str, _body: bytes) -> None:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if (repository := self._repository(match[1])) is None:
                return
            if (commit := repository.at(match[2] or "main")) is None:
                return self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            siblings = [
                {"rfilename": name, "size": self.hub.sizes.get(name, len(data))} for name, data in commit[1].items()
            ]
            return self._json(
                200, {"id": match[1], "sha": commit[0], "private": repository.private, "siblings": siblings}
            )
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if (repository := self._repository(match[1])) is None:
                return
            oid, files = repository.at(match[2]) or ("", {})
            if match[3] not in files:
                return self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return self._file(oid, match[3], files[match[3]])
        self._json(404, {"error": f"this hub knows no {path}"})

    def _file(self, oid: str, name: str, data: bytes) -> None:
        fault = self.hub.faults.get(name)
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if callable(fault):
            data = fault(data)
        status, start = 200, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if start:
            status, headers["Content-Range"] = 206, f"bytes {start[1]}-{len(data) - 1}/{len(data)}"
            data = data[int(start[1]) :]
        breaks = isinstance(fault, list) and fault and self.command == "GET"
        self._send(status, data, headers, fault.pop(0) if breaks else None)

    # writing

    def _write(self, path: str, body: bytes) -> None:
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.repositories:
                return self._json(
                    409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
                )
            private = asked.get("private", False) or asked.get("visibility") == "private"
            self.hub.repositories[name] = repository = Repository(private)
            repository.commit({".gitattributes": b""})
            return self._json(200, {"url": f"{self.hub.url}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self._json(200, {"errors": [], "warnings": []})
        if match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            if hashlib.sha256(body).hexdigest() != match[1]:
                return self._json(400, {"error": "other bytes than announced"})
            self.hub.blobs[match[1]] = body
            return self._send(200, b"", {})
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [self._wanted(each) for each in json.loads(body)["objects"]]
            return self._json(200, {"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path):
            if (repository := self._repository(match[1])) is None:
                return
            return (self._preupload if match[2] == "preupload" else self._commit)(match[1], repository, body)
        self._json(404, {"error": f"this hub knows no {path}"})

    def _wanted(self, each: dict) -> dict:
        known = each["oid"] in self.hub.blobs
        actions = {} if known else {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}}
        return {"oid": each["oid"], "size": each["size"], "authenticated": True, **actions}

    def _preupload(self, _name: str, repository: Repository, body: bytes) -> None:
        there, answers = repository.at("main")[1], []
        for file in json.loads(body)["files"]:
            lfs = file["path"].endswith(self.hub.large)
            oid = None
            if (data := there.get(file["path"])) is not None:
                oid = (
                    hashlib.sha256(data).hexdigest()
                    if lfs
                    else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                )
            mode = "lfs" if lfs else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json(200, {"files": answers})

    def _commit(self, name: str, repository: Repository, body: bytes) -> None:
        files = dict(repository.at("main")[1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(files)
        self._json(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid, "hookOutput": ""})
