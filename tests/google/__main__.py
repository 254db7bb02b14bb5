import argparse
import json
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.google.bucket import Bucket
from tests.google.identities import Identities, services


async def _told(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Response(error.detail, error.status_code, error.headers)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--account", type=Path, required=True)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    chosen = parser.parse_args()
    identities = Identities(json.loads(chosen.account.read_text("utf-8")))
    bucket = Route("/{path:path}", Bucket(identities).answer, methods=["GET", "PUT", "POST", "DELETE"])
    application = Starlette(routes=[*services(identities), bucket], exception_handlers={HTTPException: _told})
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=chosen.port,
        log_level="warning",
        ssl_certfile=chosen.certificate,
        ssl_keyfile=chosen.key,
    )


if __name__ == "__main__":
    main()
