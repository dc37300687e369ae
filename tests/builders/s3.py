"""An S3 server on loopback: moto's, which speaks the protocol that dvc-s3 and boto3 speak, with a
bucket in it and books on what was asked. Objects live in memory and end with the block.
"""

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

BUCKET = "bezoar"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@dataclass
class S3:
    """A running server. `fetched` and `stored` have the keys of objects whose bytes went out and
    came in, in order; clear them to count anew."""

    port: int
    fetched: list[str] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The bucket as DVC names it."""
        return f"s3://{BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to be let in, and to ask no proxy."""
        return {
            **KEYS,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def be_remote_of(self, clone: Path) -> None:
        """Make the bucket the verified default remote of a DVC clone, where git does not see it."""
        (clone / ".dvc/config.local").write_text(
            f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {self.url}\n"
            f"    endpointurl = {self.endpoint}\n    verify = true\n"
        )

    def sizes(self) -> dict[str, int]:
        """Every object's key and bytes."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}

    def read(self, key: str) -> bytes:
        """An object's bytes; not counted as fetched."""
        count = len(self.fetched)
        data: bytes = self._client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
        del self.fetched[count:]
        return data

    def write(self, key: str, data: bytes) -> None:
        """Put other bytes under a key: what a bad disk does; not counted as stored."""
        count = len(self.stored)
        self._client().put_object(Bucket=BUCKET, Key=key, Body=data)
        del self.stored[count:]

    def delete(self, key: str) -> None:
        """Lose an object."""
        self._client().delete_object(Bucket=BUCKET, Key=key)

    def _client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )


def key_of(digest: str) -> str:
    """Where the content of an md5 that dvc.lock names (`...`, or `....dir`) lies in the bucket."""
    return f"files/md5/{digest[:2]}/{digest[2:]}"


@contextlib.contextmanager
def s3(port: int = 0) -> Iterator[S3]:
    """Serve an empty bucket on 127.0.0.1 (on a free port, or on `port`) until the block ends. Who
    does not bring the access key of `KEYS` is answered 403, as by the real one."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: object) -> None:
            pass

    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        signed = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        if signed and signed[1] != KEYS["AWS_ACCESS_KEY_ID"]:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [DENIED]
        key = unquote(environ["PATH_INFO"]).removeprefix(f"/{BUCKET}").lstrip("/")
        if key and environ["REQUEST_METHOD"] == "GET":
            server.fetched.append(key)
        if key and environ["REQUEST_METHOD"] == "PUT":
            server.stored.append(key)
        return moto(environ, start_response)

    listening = make_server("127.0.0.1", port, application, threaded=True, request_handler=Quiet)
    server = S3(listening.server_port)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        server._client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        _forget()
        listening.shutdown()
        listening.server_close()
        thread.join()


def _forget() -> None:
    """moto keeps its objects by process, not by server."""
    from moto.backends import get_backend

    get_backend("s3").reset()


DENIED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>InvalidAccessKeyId</Code>
<Message>The AWS Access Key Id you provided does not exist in our records.</Message></Error>"""
