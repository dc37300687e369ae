"""The Hugging Face Hub on loopback: the part of its HTTP interface by which huggingface_hub and
datasets find, list and fetch files, over repositories that a test makes; a plain file server for
the rest. Answers as the real one does: commits, ETags, ranges, and its own error headers.
"""

import contextlib
import gzip
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

KINDS = {"model": "", "dataset": "datasets/", "space": "spaces/"}
API = re.compile(
    r"/api/(model|dataset|space)s/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?"
)
FILE = re.compile(r"/(datasets/|spaces/|)([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    """A repository: what lies at each commit, where each ref points, and whether it is gated."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False


@dataclass
class Hub:
    """Repositories by (kind, name), plain files by path, and what was asked of the server."""

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)  # files of which bytes were sent
    requests: list[str] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)  # plain path -> bytes, then it hangs up
    stalled: set[str] = field(default_factory=set)  # files that come only after `release` is set
    release: threading.Event = field(default_factory=threading.Event)
    xet: str = ""  # where Xet would be served, by what this server announces
    url: str = ""


def tag(data: bytes) -> str:
    """A file's ETag."""
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` on 127.0.0.1 until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        do_POST = do_GET

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            raw = urlsplit(self.path).path
            length = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(length)
            hub.requests.append(f"{self.command} {path}")
            if "/xet-read-token/" in path:
                self.send_response(200)
                token = {"X-Xet-Cas-Url": hub.xet, "X-Xet-Access-Token": "t"}
                token |= {"X-Xet-Token-Expiration": "4102444800", "Content-Length": "0"}
                for key, value in token.items():
                    self.send_header(key, value)
                self.end_headers()
                return
            if path in hub.plain:
                self.file(hub.plain[path], path, body, {})
            elif found := API.fullmatch(raw):
                kind, name, what, revision, below = found.groups()
                if at := self.commit(kind, name, unquote(revision) if revision else None):
                    files = hub.repos[kind, name].commits[at]
                    below = unquote(below or "")
                    there = {p: d for p, d in files.items() if p.startswith(below)}
                    self.api(name, what, at, there, sent, top=below)
            elif found := FILE.fullmatch(raw):
                prefix, name, revision, file = found.groups()
                kind = next(kind for kind, each in KINDS.items() if each == prefix)
                if at := self.commit(kind, name, unquote(revision)):
                    files, file = hub.repos[kind, name].commits[at], unquote(file)
                    if file in files:
                        more = {"X-Repo-Commit": at}
                        if hub.xet:
                            more["X-Xet-Hash"] = tag(files[file])
                            route = f"/api/{kind}s/{name}/xet-read-token/{at}"
                            more["X-Xet-Refresh-Route"] = hub.url + route
                        self.file(files[file], f"{name}/{file}", body, more)
                    else:
                        self.fail(404, "EntryNotFound", "Entry not found")
            else:
                self.fail(404, "", "Not found")

        def commit(self, kind: str, name: str, revision: str | None) -> str | None:
            repo = hub.repos.get((kind, name))
            if repo is None:
                # the real one does not tell who may not know what there is
                self.fail(401, "RepoNotFound", "Repository not found")
            elif repo.gated:
                self.fail(401, "GatedRepo", f"Access to {kind} {name} is restricted.")
            else:
                at = repo.refs.get(revision or "main", revision or "main")
                if at in repo.commits:
                    return at
                self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None

        def api(
            self,
            name: str,
            what: str | None,
            commit: str,
            files: dict[str, bytes],
            sent: bytes,
            *,
            top: str,
        ) -> None:
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": tag(data)[:40]}
                for path, data in files.items()
            ]
            for entry, data in zip(entries, files.values(), strict=True):
                if hub.xet:
                    lfs = {"oid": tag(data), "size": len(data), "pointerSize": 134}
                    entry |= {"xetHash": tag(data), "lfs": lfs}
            if what in ("revision", None):
                self.json(
                    {
                        "id": name,
                        "modelId": name,
                        "sha": commit,
                        "private": False,
                        "siblings": [{"rfilename": e["path"], "size": e["size"]} for e in entries],
                    }
                )
            elif what == "tree":
                self.json(
                    entries if "recursive=true" in self.path.lower() else _level(entries, top)
                )
            else:
                asked = json.loads(sent)["paths"] if sent.startswith(b"{") else _form(sent)
                folders = {p.rpartition("/")[0] for p in files} - {""}
                self.json(
                    [e for e in entries if e["path"] in asked]
                    + [
                        {"type": "directory", "path": f, "size": 0, "oid": "0" * 40}
                        for f in folders & {*asked}
                    ]
                )

        def json(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def file(self, data: bytes, name: str, body: bool, headers: dict[str, str]) -> None:
            start, end, status = 0, len(data), 200
            version = f'"{tag(data)}"'
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if asked and self.headers.get("If-Range") in (None, version):
                start, end = int(asked[1]), min(int(asked[2] or end - 1) + 1, end)
                status = 206
            if start >= len(data) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(status)
            told = {
                "ETag": version,
                "Accept-Ranges": "bytes",
                "Content-Length": str(end - start),
                "Content-Type": "application/octet-stream",
                **headers,
            }
            if status == 206:
                told["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            for key, value in told.items():
                self.send_header(key, value)
            self.end_headers()
            if not body:
                return
            hub.fetched.append(name)
            if name in hub.stalled:
                hub.release.wait(60)
            if name in hub.cut:
                end = start + hub.cut.pop(name)
                self.close_connection = True
            self.wfile.write(data[start:end])

        def fail(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _level(entries: list[dict[str, Any]], top: str) -> list[dict[str, Any]]:
    """The files and folders that lie in the folder `top` itself."""
    start = f"{top}/" if top else ""
    inside = [entry for entry in entries if entry["path"].startswith(start)]
    names = [entry["path"].removeprefix(start) for entry in inside]
    folders = dict.fromkeys(name.partition("/")[0] for name in names if "/" in name)
    return [entry for entry, name in zip(inside, names, strict=True) if "/" not in name] + [
        {"type": "directory", "path": start + name, "size": 0, "oid": "0" * 40} for name in folders
    ]


def _form(sent: bytes) -> list[str]:
    pairs = (part.partition("=") for part in sent.decode().split("&"))
    return [unquote(value.replace("+", " ")) for key, _, value in pairs if key == "paths"]


def dump() -> bytes:
    """Two statements, each on a line, as mysqldump writes them."""
    rows = [
        (1, "Rivers_of_Europe", 30, 12, 0),
        (2, 'Women\\\'s_history_(\\"x\\"),_\\\\', 9, 11, 1),
        (3, "Wikipedia_articles", 99, 44, 0),
        (4, "Tides", 3, 0, 0),
        (5, "Café", 40, 25, 0),
        (6, "Underflow", 1, -2, 0),
    ]
    told = [f"({n},'{title}',{pages},{below},{files})" for n, title, pages, below, files in rows]
    text = (
        "-- MariaDB dump\n/*!40101 SET NAMES utf8 */;\nDROP TABLE IF EXISTS `category`;\n"
        "CREATE TABLE `category` (\n  `cat_id` int(10) unsigned NOT NULL AUTO_INCREMENT,\n"
        "  `cat_title` varbinary(255) NOT NULL DEFAULT '',\n  `cat_pages` int(11) NOT NULL,\n"
        "  `cat_subcats` int(11) NOT NULL,\n  `cat_files` int(11) NOT NULL,\n"
        "  PRIMARY KEY (`cat_id`),\n  UNIQUE KEY `cat_title` (`cat_title`)\n) ENGINE=InnoDB;\n"
        f"INSERT INTO `category` VALUES {','.join(told[:4])};\n"
        f"INSERT INTO `category` VALUES {','.join(told[4:])};\n-- Dump completed\n"
    )
    return gzip.compress(text.encode())
