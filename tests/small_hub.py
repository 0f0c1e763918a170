"""A hub on loopback: the few endpoints of huggingface.co that pushing and pulling a dictionary use."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_writer"


class SmallHub:
    """`repos`: files by repository; `log`: the requests, as "METHOD path"; only `TOKEN` may write."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.log: list[str] = []
        self.address = ""

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        self.log.append(f"{method} {path}")
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            return self._create(json.loads(body), token)
        if path == "/api/validate-yaml":
            return _json({"errors": [], "warnings": []})
        if parts[:2] == ["api", "models"]:
            return self._models("/".join(parts[2:4]), parts[4:], body, token)
        if len(parts) > 4 and parts[2] == "resolve":
            return self._resolve("/".join(parts[:2]), "/".join(parts[4:]))
        return _json({"error": f"no such endpoint: {method} {path}"}, 404)

    def _create(self, asked: dict, token: str) -> tuple[int, dict[str, str], bytes]:
        if token != TOKEN:
            return _json({"error": "Invalid username or password."}, 401)
        owner = asked.get("organization") or "someone"
        if owner == "forbidden":
            return _json({"error": "You don't have the rights to create a model under this namespace"}, 403)
        name = f"{owner}/{asked['name']}"
        status = 409 if name in self.repos else 200
        self.repos.setdefault(name, {})
        return _json({"url": f"{self.address}/{name}"}, status)

    def _models(self, repo: str, what: list[str], body: bytes, token: str) -> tuple[int, dict[str, str], bytes]:
        if repo not in self.repos:
            return _json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        files = self.repos[repo]
        if what and what[0] == "preupload":
            asked = json.loads(body)["files"]
            return _json(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
            )
        if what and what[0] == "commit":
            return self._commit(repo, files, body, token)
        if what and what[0] == "tree":
            return _json([{"type": "file", "path": n, "size": len(b), "oid": _sha(b)} for n, b in files.items()])
        siblings = [{"rfilename": name, "size": len(blob)} for name, blob in files.items()]
        return _json({"id": repo, "sha": self._revision(repo), "private": False, "siblings": siblings, "tags": []})

    def _commit(self, repo: str, files: dict, body: bytes, token: str) -> tuple[int, dict[str, str], bytes]:
        if token != TOKEN:
            return _json({"error": "forbidden"}, 403)
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        revision = self._revision(repo)
        return _json({"success": True, "commitOid": revision, "commitUrl": f"{self.address}/{repo}/commit/{revision}"})

    def _resolve(self, repo: str, name: str) -> tuple[int, dict[str, str], bytes]:
        blob = self.repos.get(repo, {}).get(name)
        if blob is None:
            return _json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        return 200, {"ETag": f'"{_sha(blob)}"', "X-Repo-Commit": self._revision(repo)}, blob

    def _revision(self, repo: str) -> str:
        return _sha(b"".join(name.encode() + blob for name, blob in sorted(self.repos[repo].items())))


def _sha(blob: bytes) -> str:
    return hashlib.sha1(blob).hexdigest()


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()


@contextmanager
def serving(hub: SmallHub) -> Iterator[str]:
    """The hub's address, while it answers."""

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            status, headers, blob = hub.answer(self.command, unquote(urlsplit(self.path).path), body, token)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(blob))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(blob)

        do_GET = do_POST = do_HEAD = _respond

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
