"""A hub on loopback: the endpoints of huggingface.co that huggingface_hub, transformers, open_clip and datasets use.

Repositories are dictionaries of files. Large files are answered as the hub does, by a redirect to where their content
lies, in parts where a part is asked for. `faults` make it answer wrongly, break off or wait.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_writer"
LARGE = (".safetensors", ".bin", ".parquet", ".pt")  # what lies in large-file storage
PULL_REQUEST = "Adding `safetensors` variant of this model"  # as the hub's own converter calls it

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD path" the pattern `where` finds, `times` times; None: always.

    `status`: the answer's; `code`: the hub's own name of the error; `breaks_after`: bytes of the content after which
    the connection is dropped; `seconds`: how long the answer takes. With `hold` it stops after `breaks_after` bytes,
    says so by `reached`, and goes on when `released`.
    """

    where: str
    status: int | None = None
    code: str | None = None
    breaks_after: int | None = None
    seconds: float = 0.0
    times: int | None = None
    hold: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class SmallHub:
    """`repos`: files by repository, that of a data set as "datasets/owner/name", another revision as "name@refs/pr/1";
    `log`: the requests, as "METHOD path"; `faults` that are still to come; only `TOKEN` may write."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.log: list[str] = []
        self.faults: list[Fault] = []
        self.address = ""
        self._lock = threading.Lock()

    def fault(self, request: str) -> Fault | None:
        """The first fault that this request meets."""
        with self._lock:
            for fault in self.faults:
                if fault.times != 0 and re.search(fault.where, request):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def answer(self, method: str, target: str, body: bytes, token: str) -> Answer:
        """Status, headers and body."""
        path, recursive = unquote(urlsplit(target).path), "recursive=true" in urlsplit(target).query.lower()
        self.log.append(f"{method} {path}")
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            return self._create(json.loads(body), token)
        if path == "/api/validate-yaml":
            return _json({"errors": [], "warnings": []})
        if parts[0] == "api" and parts[1:2] in (["models"], ["datasets"]):
            repo = "/".join(parts[2:4])
            repo = repo if parts[1] == "models" else f"datasets/{repo}"
            if parts[4:5] == ["tree"] and repo in self.repos:
                key, below = self._revision_and_rest(repo, parts[5:])
                return _json(_tree(self.repos[key], "/".join(below), recursive))
            return self._about(repo, parts[4:], body, token)
        if parts[0] == "content" and len(parts) > 2:
            return self._content(parts[1])
        depth = 3 if parts[0] == "datasets" else 2
        if parts[depth : depth + 1] == ["resolve"]:
            revision, name = self._revision_and_rest("/".join(parts[:depth]), parts[depth + 1 :])
            return self._resolve(revision, "/".join(name))
        return _json({"error": f"no such endpoint: {method} {path}"}, 404)

    def _create(self, asked: dict, token: str) -> Answer:
        if token != TOKEN:
            return _json({"error": "Invalid username or password."}, 401)
        owner = asked.get("organization") or "someone"
        if owner == "forbidden":
            return _json({"error": "You don't have the rights to create a model under this namespace"}, 403)
        name = f"{owner}/{asked['name']}"
        status = 409 if name in self.repos else 200
        self.repos.setdefault(name, {})
        return _json({"url": f"{self.address}/{name}"}, status)

    def _revision_and_rest(self, repo: str, parts: list[str]) -> tuple[str, list[str]]:
        """The key of the files at a revision, which may be a commit or be written with slashes, and what follows it."""
        for length in (3, 1):
            revision = "/".join(parts[:length])
            for key in (f"{repo}@{revision}", repo, *(key for key in self.repos if key.startswith(f"{repo}@"))):
                if key in self.repos and (key == f"{repo}@{revision}" or revision == self._commit_of(key)):
                    return key, parts[length:]
        return repo, parts[1:]

    def _about(self, repo: str, what: list[str], body: bytes, token: str) -> Answer:
        if repo not in self.repos:
            return _json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        kind, rest = (what[0], what[1:]) if what else ("", [])
        key, _ = self._revision_and_rest(repo, rest)
        files = self.repos[key]
        if kind == "preupload":
            asked = json.loads(body)["files"]
            return _json(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
            )
        if kind == "commit":
            return self._commit(repo, files, body, token)
        if kind == "commits":
            keys = [key] if key == repo else [key, repo]
            commit = {"authors": [], "date": "2023-01-01T00:00:00.000Z", "message": ""}
            return _json([{**commit, "id": self._commit_of(k), "title": k} for k in keys])
        if kind == "discussions":
            return _json(self._discussions(repo))
        if kind == "paths-info":
            return _json([entry for path in _paths_asked(body) for entry in _path_info(files, path)])
        siblings = [{"rfilename": name, "size": len(blob)} for name, blob in files.items()]
        about = {"id": repo.removeprefix("datasets/"), "sha": self._commit_of(key), "private": False}
        return _json({**about, "gated": False, "disabled": False, "siblings": siblings, "tags": []})

    def _discussions(self, repo: str) -> dict:
        """The converter's pull request of a repository that has one."""
        opened = [key for key in self.repos if key.startswith(f"{repo}@refs/pr/")]
        author = {"name": "SFconvertbot", "type": "user"}
        about = {"title": PULL_REQUEST, "status": "open", "isPullRequest": True, "author": author}
        about |= {"createdAt": "2023-01-01T00:00:00.000Z", "repo": {"name": repo, "type": "model"}}
        listed = [{**about, "num": int(key.rpartition("/")[2])} for key in opened]
        return {"discussions": listed, "count": len(listed), "start": 0}

    def _commit(self, repo: str, files: dict, body: bytes, token: str) -> Answer:
        if token != TOKEN:
            return _json({"error": "forbidden"}, 403)
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        revision = self._commit_of(repo)
        return _json({"success": True, "commitOid": revision, "commitUrl": f"{self.address}/{repo}/commit/{revision}"})

    def _resolve(self, key: str, name: str) -> Answer:
        if key not in self.repos:
            return _json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        blob, commit = self.repos[key].get(name), {"X-Repo-Commit": self._commit_of(key)}
        if blob is None:
            return _json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", **commit})
        if not name.endswith(LARGE):
            return 200, {"ETag": f'"{_sha(blob)}"', **commit}, blob
        digest = _sha256(blob)
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(blob))}
        storage = self.address.replace("127.0.0.1", "localhost")  # another host: what is on the hub's own is followed
        return 302, {"Location": f"{storage}/content/{digest}/{key}/{name}", **linked, **commit}, b""

    def _content(self, digest: str) -> Answer:
        """A large file, by its content."""
        for files in list(self.repos.values()):
            for name, blob in files.items():
                if name.endswith(LARGE) and _sha256(blob) == digest:
                    return 200, {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}, blob
        return _json({"error": "AccessDenied"}, 403)

    def _commit_of(self, key: str) -> str:
        return _sha(b"".join(name.encode() + _sha(blob).encode() for name, blob in sorted(self.repos[key].items())))


@lru_cache(maxsize=4096)
def _sha(blob: bytes) -> str:
    return hashlib.sha1(blob).hexdigest()


@lru_cache(maxsize=4096)
def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()


def _tree(files: dict[str, bytes], below: str, recursive: bool) -> list[dict]:
    """What is in a folder, or everything below it."""
    start = f"{below}/" if below else ""
    inside = [name for name in files if name.startswith(start)]
    folders = {start + name[len(start) :].rpartition("/")[0] for name in inside if "/" in name[len(start) :]}
    if not recursive:
        folders = {start + folder[len(start) :].partition("/")[0] for folder in folders}
        inside = [name for name in inside if "/" not in name[len(start) :]]
    return [*map(_folder, sorted(folders)), *(_entry(name, files[name]) for name in inside)]


def _folder(path: str) -> dict:
    return {"type": "directory", "path": path, "oid": _sha(path.encode()), "size": 0}


def _entry(name: str, blob: bytes) -> dict:
    entry = {"type": "file", "path": name, "size": len(blob), "oid": _sha(blob)}
    return entry | (
        {"lfs": {"oid": _sha256(blob), "size": len(blob), "pointerSize": 134}} if name.endswith(LARGE) else {}
    )


def _paths_asked(body: bytes) -> list[str]:
    return json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode()).get("paths", [])


def _path_info(files: dict[str, bytes], path: str) -> list[dict]:
    if path in files:
        return [_entry(path, files[path])]
    if any(name.startswith(f"{path}/") for name in files):
        return [_folder(path)]
    return []


def files_of(folder: Path) -> dict[str, bytes]:
    """A folder's files as a repository holds them."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class _Broken(Exception):
    """The connection is dropped."""


class _Handler(BaseHTTPRequestHandler):
    """One request to `hub`, with the fault that it meets."""

    hub: SmallHub
    protocol_version = "HTTP/1.1"

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        status, headers, blob = self.hub.answer(self.command, self.path, body, token)
        fault = self.hub.fault(f"{self.command} {unquote(urlsplit(self.path).path)}")
        if fault is not None:
            time.sleep(fault.seconds)
            if fault.status is not None:
                code = {"X-Error-Code": fault.code} if fault.code else {}
                status, headers, blob = _json({"error": "as it happens"}, fault.status, code)
        if status == 200 and "Accept-Ranges" in headers:
            status, headers, blob = self._part(headers, blob)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(blob))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(blob, fault)

    def _part(self, headers: dict[str, str], blob: bytes) -> Answer:
        """The bytes that are asked for."""
        asked = (self.headers.get("Range") or "").removeprefix("bytes=")
        if not asked:
            return 200, headers, blob
        first, _, last = asked.partition("-")
        start = int(first) if first else max(0, len(blob) - int(last))
        stop = min(int(last) + 1, len(blob)) if first and last else len(blob)
        if start >= len(blob):
            return 416, {"Content-Range": f"bytes */{len(blob)}"}, b""
        return 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(blob)}"}, blob[start:stop]

    def _send(self, blob: bytes, fault: Fault | None) -> None:
        try:
            if fault is not None and fault.breaks_after is not None:
                self.wfile.write(blob[: fault.breaks_after])
                self.wfile.flush()
                fault.reached.set()
                if not fault.hold:
                    raise _Broken
                fault.released.wait(60)
                blob = blob[fault.breaks_after :]
            self.wfile.write(blob)
        except (_Broken, ConnectionError):
            self.close_connection = True

    do_GET = do_POST = do_HEAD = _respond

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def serving(hub: SmallHub) -> Iterator[str]:
    """The hub's address, while it answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
