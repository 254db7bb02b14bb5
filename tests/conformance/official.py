"""Runs the official conformance suite against real servers: ``make conformance``.

The suite is a Go program. It is taken from ``--suite FILE``, from ``oci-conformance`` on the PATH, or built from its
Go module, pinned. The exit code is 0 if nothing failed, 1 if anything did, 3 if the suite cannot be had here.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.login import NAME, PASSWORD, Way, logged_in
from tests.server import running

MODULE = "github.com/opencontainers/distribution-spec/conformance"
VERSION = "v0.0.0-20260716174315-967efdc079b9"  # main of 2026-07-16
UNAVAILABLE = 3
ROOT = Path(__file__).parents[2]
# Every flag that the suite leaves off in version 1.1.
EVERYTHING = {
    "OCI_API_BLOBS_DIGEST_HEADER": "true",
    "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
    "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_TAG_PARAM": "true",
}


@dataclass(frozen=True)
class Case:
    """One run of the suite: ``version`` of the specification, against which server."""

    version: str
    workers: int = 1
    sparse: bool = False
    mounted: bool = False
    login: Way | None = None
    nodes: int = 0

    def __str__(self) -> str:
        server = "mounted under FastAPI" if self.mounted else f"{self.workers} worker{'s' * (self.workers > 1)}"
        if self.nodes:
            server = f"{self.nodes} nodes behind nginx"
        return f"{self.version}, {server}{', sparse' * self.sparse}{f', {self.login}' if self.login else ''}"


CASES = (
    Case("1.1"),
    Case("1.1", sparse=True),
    Case("dev"),
    Case("dev", sparse=True),
    Case("dev", workers=4, sparse=True),
    Case("dev", mounted=True, sparse=True),
    Case("1.1", login="basic"),
    Case("dev", workers=4, sparse=True, login="basic"),
    Case("1.1", login="tokens"),
    Case("dev", workers=4, sparse=True, login="tokens"),
    Case("dev", nodes=4, sparse=True),
)


def find_suite(given: str | None) -> str | None:
    """The suite's program, built if need be; None if it cannot be had."""
    if given:
        return given
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "moorage-ci" / "bin"
    path = os.pathsep.join([os.environ.get("PATH", ""), str(cache)])
    if found := shutil.which("oci-conformance", path=path):
        return found
    if not shutil.which("go"):
        print("the conformance suite needs Go, or SUITE=FILE with a built one", file=sys.stderr)
        return None
    program = cache / "oci-conformance"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "go.mod").write_text(f"module suite\ngo 1.24\nrequire {MODULE} {VERSION}\n")
        command = ["go", "build", "-mod=mod", "-buildvcs=false", "-o", str(program), MODULE]
        built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if built.returncode:
        print(f"the conformance suite {MODULE}@{VERSION} cannot be had:\n{built.stderr}", file=sys.stderr)
        return None
    return str(program)


@contextmanager
def _server(case: Case, folder: Path) -> Iterator[str]:
    environment = {"MOORAGE_SPARSE": "all" if case.sparse else "none"}
    if case.login:
        environment |= logged_in(folder / "htpasswd", case.login).settings
    if case.nodes:
        from tests.buckets import seaweed
        from tests.nodes.kit import nodes
        from tests.postgres import cluster

        (folder / "bucket").mkdir()
        with (
            cluster() as postgres,
            seaweed(folder / "bucket") as bucket,
            nodes(folder, postgres, bucket, case.nodes, ahead=None, **environment) as made,
        ):
            yield made.host
            assert not any("Traceback" in server.log for server in made.servers)
        return
    if not case.mounted:
        with running(folder / "root", "--workers", str(case.workers), **environment) as server:
            yield server.host
            assert "Traceback" not in server.log, server.log
        return
    from tests.conformance.mounted import mounted

    with mounted(folder / "root", environment["MOORAGE_SPARSE"]) as host:
        yield host


def run(suite: str, case: Case, results: Path) -> tuple[int, int, int, int]:
    """``(tests, failures, errors, skipped)`` of one run; its report is left in ``results``."""
    with tempfile.TemporaryDirectory() as folder, _server(case, Path(folder)) as host:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OCI_")},
            **EVERYTHING,
            "OCI_REGISTRY": host,
            "OCI_TLS": "disabled",
            "OCI_VERSION": case.version,
            "OCI_REPO1": "conformance/one",
            "OCI_REPO2": "conformance/two",
            "OCI_RESULTS_DIR": str(results),
            "OCI_DATA_SPARSE": str(case.sparse).lower(),
        }
        if case.login:
            environment |= {"OCI_USERNAME": NAME, "OCI_PASSWORD": PASSWORD}
        ended = subprocess.run(
            [suite], env=environment, cwd=folder, capture_output=True, text=True, timeout=600, check=False
        )
    report = results / "junit.xml"
    if not report.is_file():
        raise RuntimeError(f"the suite ended with {ended.returncode} and no report:\n{ended.stdout}{ended.stderr}")
    suites = list(ET.parse(report).iter("testsuite"))
    counts = [sum(int(each.get(name, 0)) for each in suites) for name in ("tests", "failures", "errors", "skipped")]
    if ended.returncode and not counts[1] + counts[2]:
        raise RuntimeError(f"the suite ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return counts[0], counts[1], counts[2], counts[3]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default=os.environ.get("SUITE"), help="a built conformance program")
    parser.add_argument("--results", type=Path, default=ROOT / "conformance-results")
    parser.add_argument(
        "--if-available", action="store_true", help="say so and end with 0 where the suite cannot be had"
    )
    arguments = parser.parse_args()
    suite = find_suite(arguments.suite)
    if suite is None:
        print("NOT RUN: the official conformance suite. tests/conformance/test_matrix.py stands in for it.")
        return 0 if arguments.if_available else UNAVAILABLE
    shutil.rmtree(arguments.results, ignore_errors=True)
    bad = 0
    print(f"{'run':<40} {'tests':>6} {'failed':>7} {'errors':>7} {'skipped':>8}")
    for case in CASES:
        results = arguments.results / str(case).replace(", ", "-").replace(" ", "-")
        results.mkdir(parents=True)
        try:
            tests, failures, errors, skipped = run(suite, case, results)
        except pytest.skip.Exception as skip:  # in CI it fails instead
            print(f"{case!s:<40} NOT RUN: {skip}", flush=True)
            continue
        bad += failures + errors + (tests == 0)
        print(f"{case!s:<40} {tests:>6} {failures:>7} {errors:>7} {skipped:>8}", flush=True)
    print(f"reports: {arguments.results}" if bad else "nothing failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
