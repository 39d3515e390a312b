"""Remote stores on loopback: a real S3 API (moto) and a plain HTTP server, both of which misbehave on request."""

import contextlib
import functools
import http.server
import logging
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rhostream.loaders.storage import retries
from rhostream.loaders.storage.retries import Retries

#: The tests' patience: an attempt stalls after 1 s.
IMPATIENT = Retries(attempts=4, seconds=20.0, pause=0.02, stall=1.0, slowest=1e6)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Retries:
    monkeypatch.setattr(retries, "RETRIES", IMPATIENT)
    return IMPATIENT


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for remote shards."""
    monkeypatch.setenv("RHO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RHO_CACHE_GB", raising=False)
    return tmp_path / "cache" / "shards"


@dataclass
class S3:
    """A moto server. `fault` sees each request's WSGI environment, and answers for the server where it returns one."""

    bucket: str = ""
    requests: list[str] = field(default_factory=list)
    fault: Callable[[dict[str, Any]], str | None] = lambda environ: None
    client: Any = None
    serve: Callable[[int], Any] = lambda port: None
    server: Any = None

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    @contextlib.contextmanager
    def away(self, seconds: float) -> Iterator[None]:
        """Nothing listens at its address for so long; what is asked meanwhile gets no connection."""
        port = self.server.server_port
        self.server.shutdown()
        self.server.server_close()

        def come_back() -> None:
            time.sleep(seconds)
            self.server = self.serve(port)

        thread = threading.Thread(target=come_back)
        thread.start()
        try:
            yield
        finally:
            thread.join()


@functools.cache
def serving_s3() -> S3:
    """The one server of this process: s3fs keeps to the endpoint that it was first given."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    store = S3()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    backend = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        store.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {environ.get('HTTP_RANGE', '')}")
        answer = store.fault(environ)
        if answer is not None:
            start_response(answer, [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return [b""]
        body: Iterable[bytes] = backend(environ, start_response)
        return body

    def serve(port: int) -> Any:
        server = make_server("127.0.0.1", port, application, threaded=True, request_handler=MotoRequestHandler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    store.serve, store.server = serve, serve(0)
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update(settings)
    store.client = boto3.client("s3")
    return store


_numbers = iter(range(1_000_000))


@pytest.fixture
def s3() -> Iterator[S3]:
    """A well-behaved S3 with an empty bucket."""
    store = serving_s3()
    store.bucket = f"bucket-{next(_numbers)}"
    store.client.create_bucket(Bucket=store.bucket)
    store.requests.clear()
    yield store
    store.fault = lambda environ: None


def upload(folder: Path, store: S3) -> str:
    """Put a folder into the bucket; returns its URL."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = f"{folder.name}/{path.relative_to(folder)}"
            store.client.put_object(Bucket=store.bucket, Key=name, Body=path.read_bytes())
    return f"{store.url}/{folder.name}"


@dataclass
class Web:
    """An HTTP server of a folder. Each request takes the next of `faults`; when none is left it is well-behaved.

    A fault is "ok", "reset", "truncate", "hang", "slow" (1 s late), "drip" (the body takes a minute) or a status.
    """

    folder: Path
    url: str = ""
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    ranges: bool = True


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.web.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}")
        fault = self.web.faults.pop(0) if self.web.faults else "ok"
        if fault == "hang":
            time.sleep(IMPATIENT.stall + 2)
            fault = "reset"
        if fault == "reset":
            # Linger 0: the client gets a reset and not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if fault == "slow":
            time.sleep(1)
        path = self.web.folder / self.path.lstrip("/")
        status = int(fault) if fault.isdigit() else 200 if path.is_file() else 404
        body = path.read_bytes() if status == 200 else b""
        tag = f'"{path.stat().st_mtime_ns}-{len(body)}"' if status == 200 else '""'
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if status == 200 and found and self.web.ranges:
            status, body = 206, body[int(found[1]) : int(found[2]) + 1 if found[2] else None]
            if not body:
                status = 416
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", tag)
        self.end_headers()
        if with_body:
            for start in range(60 if fault == "drip" else 0):
                self.wfile.write(body[start : start + 1])
                time.sleep(1)
            self.wfile.write(body[: len(body) // 2] if fault == "truncate" else body)
            if fault == "truncate":
                self.close_connection = True


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # the connections that a fault has closed


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A server of the folder `tmp_path/served`."""
    served = Web(tmp_path / "served")
    served.folder.mkdir()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": served}))
    served.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield served
    with contextlib.suppress(OSError):
        server.shutdown()
        server.server_close()
