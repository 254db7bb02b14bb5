"""The registry as a library: mounted under a FastAPI application that uvicorn runs."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from moorage import create_app
from tests.server import Bytes


@contextmanager
def mounted(root: Path, sparse: str) -> Iterator[str]:
    """``host:port`` of a FastAPI application with a route of its own and a registry beside it."""
    host = FastAPI()

    @host.get("/hello")
    def hello() -> dict[str, str]:
        return {"hello": "world"}

    registry = create_app(root=str(root), sparse=sparse, **Bytes.of(root))
    host.mount("/", registry)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(host, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline, "the host application did not start"
        time.sleep(0.01)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
