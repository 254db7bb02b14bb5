"""``make audit``: what is found fails, and what cannot be asked is not taken for an answer."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[1] / "requirements" / "audit.py"


@contextmanager
def service(vulnerable: str | None) -> Iterator[str]:
    """An advisory service (OSV) that knows of one vulnerable package, or of none."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, version = asked["package"]["name"], asked["version"]
            affected = {"package": {"name": name, "ecosystem": "PyPI"}, "versions": [version]}
            found = {"id": "OSV-1", "affected": [affected], "aliases": ["CVE-2000-1"], "summary": "it sinks"}
            answer = json.dumps({"vulns": [found]} if name == vulnerable else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nobody wants to know."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def audit(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, AUDIT, *options], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("vulnerable", "code"), [("msgspec", 1), (None, 0)])
def test_findings_fail(vulnerable: str | None, code: int) -> None:
    """A known vulnerability is named and fails; none does not."""
    with service(vulnerable) as url:
        done = audit("--services", "osv", f"--osv-url={url}", "--if-available")
    assert done.returncode == code, done.stderr
    assert ("OSV-1" in done.stdout) == bool(code)
    assert "packages audited by osv" in done.stdout


def test_silence_is_no_answer() -> None:
    """Where nobody can be asked the audit says that it did not run, and fails unless that was allowed for."""
    nobody = ("--services", "osv", "--osv-url=http://127.0.0.1:9/")
    for options, code in ((nobody, 3), ((*nobody, "--if-available"), 0)):
        done = audit(*options)
        assert done.returncode == code
        assert done.stdout.startswith("NOT RUN")


def test_a_wrong_option_is_an_error() -> None:
    """What pip-audit does not understand is not taken for a service that is out of reach."""
    assert audit("--if-available", "--format=poem").returncode not in (0, 3)
