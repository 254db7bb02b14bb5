"""The conformance matrix: every kind of content, pushed every way, through four real servers.

"spec" is the OCI Distribution Specification on main. Each pair (kind, algorithm), (kind, way of the manifest),
(kind, server) and (algorithm, way of the blobs) occurs; ``test_every_pair`` holds the table to that.
"""

import itertools
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.certificates import Authority
from tests.conformance import BLOB_WAYS, OCTETS, Door, by_digest, chunk, codes_of, cut
from tests.conformance import material as m
from tests.conformance.material import ALGORITHMS, Blob, Maker, Manifest
from tests.conformance.mounted import mounted
from tests.login import NAME, PASSWORD, TokenFlow, basic, logged_in
from tests.postgres import Cluster
from tests.server import environment_of, running

NODES: Final = "2 nodes"  # over one PostgreSQL, each request to the other one
SERVERS: Final = ("1 worker", "4 workers", "mounted", NODES)
SPARSE_SERVER: Final = "mounted"
BY_TAG, BY_DIGEST, BY_DIGEST_WITH_TAGS = MANIFEST_WAYS = ("by tag", "by digest", "by digest with tags")
TWELVE: Final = tuple(f"{n}.{n % 3}" for n in range(12))  # spec "Pushing Manifests": at least 10 in a request
UPLOAD_WAYS: Final = tuple(way for way in BLOB_WAYS if not way.startswith("mount"))
ABSENT: Final = f"sha256:{'0' * 64}"
NO_UPLOAD: Final = "blobs/uploads/00000000-0000-4000-8000-000000000000"
MISSING: Final = {
    "manifests/nothing": "MANIFEST_UNKNOWN",
    f"manifests/{ABSENT}": "MANIFEST_UNKNOWN",
    f"blobs/{ABSENT}": "BLOB_UNKNOWN",
    "blobs/uploads/00000000-0000-4000-8000-000000000000": "BLOB_UPLOAD_UNKNOWN",
}


@dataclass(frozen=True)
class Row:
    """One line of the matrix."""

    kind: str
    algorithm: str
    blobs: str
    manifest: str
    server: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.algorithm}-{self.blobs}-{self.manifest}-{self.server}"


def _rows() -> Iterator[Row]:
    for (n, kind), (s, server) in itertools.product(enumerate(m.KINDS), enumerate(SERVERS)):
        algorithm = ALGORITHMS[(n + s) % 3]
        # A registry takes sha256 where a tag does not say otherwise.
        way = BY_TAG if algorithm == "sha256" else MANIFEST_WAYS[1 + (n + (algorithm == "blake3")) % 2]
        blobs = tuple(BLOB_WAYS)[(3 * n + ALGORITHMS.index(algorithm)) % len(BLOB_WAYS)]
        yield Row(kind, algorithm, blobs, way, SPARSE_SERVER if kind in m.SPARSE else server)


ROWS: Final = tuple(_rows())


def test_every_pair() -> None:
    """Each pair that the matrix promises is in one of its rows, with content that has what the pair is about."""
    for kind in m.KINDS:
        assert {row.algorithm for row in ROWS if row.kind == kind} == set(ALGORITHMS)
        assert {row.manifest for row in ROWS if row.kind == kind} == set(MANIFEST_WAYS)
        assert {row.server for row in ROWS if row.kind == kind} == (
            {SPARSE_SERVER} if kind in m.SPARSE else set(SERVERS)
        )
    with_blobs = [row for row in ROWS if any(each.blobs for each in m.KINDS[row.kind](Maker("sha256", "")).walk())]
    pairs = {(row.algorithm, row.blobs) for row in with_blobs}
    assert pairs == set(itertools.product(ALGORITHMS, BLOB_WAYS))
    assert {(row.server, row.blobs) for row in with_blobs} == set(itertools.product(SERVERS, BLOB_WAYS))


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Door]]:
    """The servers of one folder each. What the tests left in them is without fault; none failed on the way."""
    folder = tmp_path_factory.mktemp("conformance")
    with ExitStack() as stack:
        # These ask for tokens over TLS, or for a name and a password: nothing of the specification changes by that.
        authority = Authority(folder / "authority").make()
        pair = authority.server()
        options = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
        login = logged_in(folder / "users of one", "tokens")
        one = stack.enter_context(running(folder / "1 worker", *options, **login.settings))
        trust = ssl.create_default_context(cafile=authority.certificate)
        login = logged_in(folder / "users of four")
        four = stack.enter_context(running(folder / "4 workers", "--workers", "4", **login.settings))
        host = stack.enter_context(mounted(folder / "mounted", sparse="all"))
        made = {
            "1 worker": Door(one.host, auth=TokenFlow(_source), trust=trust),
            "4 workers": Door(four.host, scatter=True, headers=login.headers),
            "mounted": Door(host, sparse=True),
        }
        for door in made.values():
            stack.enter_context(door)
            door.send(200, "GET", "")  # a mounted registry opens with its first request
        yield made
        for server in (one, four):
            assert server.stop() == 0, server.log
            assert "Traceback" not in server.log, server.log
    for name in made:
        wrong = check(folder / name, sparse="all" if name == SPARSE_SERVER else "none")
        assert not wrong


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory, postgres: Cluster) -> Iterator[Door]:
    """Two servers over one PostgreSQL, under the same conditions."""
    folder, url = tmp_path_factory.mktemp("nodes"), postgres.make_database()
    with running(folder, "--metadata", url) as one, running(folder, "--metadata", url) as other:
        with Door(one.host, other.host) as door:
            yield door
        for server in (one, other):
            assert server.stop() == 0, server.log
            assert "Traceback" not in server.log, server.log
    assert check(folder, "none", {"MOORAGE_METADATA": url}) == []


def _source(request: httpx.Request) -> str:
    """The scope of the repository that a mount shall find by itself."""
    repository = request.url.path.removeprefix("/v2/").removesuffix("/blobs/uploads/")
    return f"repository:{repository}/source:pull" if "mount" in request.url.params else ""


def check(root: Path, sparse: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """What ``moorage check`` finds wrong in ``root``; ``environment`` are more variables."""
    command = [sys.executable, "-m", "moorage", "check", "--full", "--root", str(root)]
    variables = environment_of(root, {"MOORAGE_SPARSE": sparse, **(environment or {})})
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    wrong = [line for line in ended.stdout.splitlines() if line.startswith("wrong: ")]
    assert bool(wrong) == bool(ended.returncode), ended.stdout
    return wrong


@pytest.fixture(scope="session", params=SERVERS)
def door(request: pytest.FixtureRequest) -> Door:
    return door_of(request, request.param)


def door_of(request: pytest.FixtureRequest, server: str) -> Door:
    """The door to a server; PostgreSQL is started only for what needs it."""
    if server == NODES:
        nodes: Door = request.getfixturevalue("nodes")
        return nodes
    doors: dict[str, Door] = request.getfixturevalue("doors")
    return doors[server]


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository that no other test uses."""
    name = request.node.name.lower().removeprefix("test_")
    return re.sub("[^a-z0-9]+", "-", name).strip("-")


@pytest.fixture
def make(repository: str) -> Maker:
    return Maker("sha256", repository)


@dataclass(frozen=True)
class Pushed:
    """A row's content where it was pushed; ``answer`` is that to its manifest."""

    door: Door
    repository: str
    manifest: Manifest
    tags: tuple[str, ...]
    answer: httpx.Response

    @property
    def blobs(self) -> dict[str, Blob]:
        return {blob.digest: blob for each in self.manifest.walk() for blob in each.blobs}


def push(row: Row, door: Door, use: str, blobs: str = "single POST") -> Pushed:
    repository = f"row/{ROWS.index(row)}/{use}"
    manifest = m.KINDS[row.kind](Maker(row.algorithm, repository))
    tags = {BY_TAG: ("latest",), BY_DIGEST: (), BY_DIGEST_WITH_TAGS: TWELVE}[row.manifest]
    reference, *more = tags if row.manifest == BY_TAG else (manifest.digest, *tags)
    answer = door.push(repository, manifest, reference, *more, way=blobs)
    return Pushed(door, repository, manifest, tags, answer)


@pytest.fixture(scope="module", params=ROWS, ids=str)
def row(request: pytest.FixtureRequest) -> Row:
    made: Row = request.param
    return made


@pytest.fixture(scope="module")
def pushed(request: pytest.FixtureRequest, row: Row) -> Pushed:
    return push(row, door_of(request, row.server), "kept", row.blobs)


def test_push(pushed: Pushed) -> None:
    """The answer to a manifest tells where it can be pulled, its subject and each tag; spec "Pushing Manifests"."""
    headers = pushed.answer.headers
    pushed.door.serves("GET", pushed.door.follow(pushed.answer), pushed.manifest)
    assert headers.get("OCI-Subject") == pushed.manifest.subject
    accepted = headers.get("OCI-Tag", "").replace(" ", "").split(",")
    assert set(accepted) == (set(TWELVE) if pushed.tags == TWELVE else {""})


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_pull(pushed: Pushed, method: str) -> None:
    """What is pulled is, byte for byte and in its type, what was pushed, and HEAD tells its size; spec "Pull".

    What was not pushed is 404.
    """
    door, repository, root = pushed.door, pushed.repository, pushed.manifest
    for reference in (root.digest, *pushed.tags):
        door.serves(method, f"{repository}/manifests/{reference}", root, headers={"Accept": root.media_type})
    for each in root.walk():
        door.serves(method, f"{repository}/manifests/{each.digest}", each)
    for digest, blob in pushed.blobs.items():
        door.serves_blob(method, f"{repository}/blobs/{digest}", blob)
    for absent in root.absent:
        door.send(
            404, method, f"{repository}/{'manifests' if isinstance(absent, Manifest) else 'blobs'}/{absent.digest}"
        )


def test_tags(pushed: Pushed) -> None:
    """Every tag is listed, in order; ``n`` and ``last`` give part of them; spec "Listing Tags"."""
    door, repository, tags = pushed.door, pushed.repository, sorted(pushed.tags)
    assert door.tags(repository) == tags
    assert door.tags(repository, n=5) == tags[:5]
    assert door.tags(repository, n=0) == []
    for n, tag in enumerate(tags):
        assert door.tags(repository, last=tag) == tags[n + 1 :]
        assert door.tags(repository, last=tag, n=2) == tags[n + 1 : n + 3]


def test_referrers(pushed: Pushed) -> None:
    """Any manifest may be a subject: its referrers are listed in full, or by type; spec "Listing Referrers"."""
    door, repository, root = pushed.door, pushed.repository, pushed.manifest
    assert door.referrers(repository, root.digest) == []
    attached = m.attachments(Maker(root.algorithm, repository), root)
    for each in attached:
        assert door.push(repository, each).headers["OCI-Subject"] == root.digest
    everything = [*root.walk(), *attached]
    for subject in {each.subject for each in everything if each.subject}:
        expected = by_digest([each.refers for each in everything if each.subject == subject])
        assert door.referrers(repository, subject) == expected
        for wanted in (m.SBOM, m.SIGNATURE, "application/vnd.example.config", "application/vnd.example.none"):
            chosen = [each for each in expected if each.get("artifactType") == wanted]
            assert door.referrers(repository, subject, wanted) == chosen
    for each in attached:
        door.send(202, "DELETE", f"{repository}/manifests/{each.digest}")
    assert door.referrers(repository, root.digest) == []


def test_delete(request: pytest.FixtureRequest, row: Row) -> None:
    """A deleted tag, manifest or blob is 404 at once, and no list names it; spec "Content Management"."""
    pushed = push(row, door_of(request, row.server), "deleted")
    door, repository, root = pushed.door, pushed.repository, pushed.manifest
    for tag in pushed.tags[:2]:
        door.send(202, "DELETE", f"{repository}/manifests/{tag}")
        door.gone(f"{repository}/manifests/{tag}")
        door.refused(404, "MANIFEST_UNKNOWN", "DELETE", f"{repository}/manifests/{tag}")
    assert door.tags(repository) == sorted(pushed.tags[2:])
    door.serves("GET", f"{repository}/manifests/{root.digest}", root)
    for each in reversed(list(root.walk())):
        door.send(202, "DELETE", f"{repository}/manifests/{each.digest}")
        door.gone(f"{repository}/manifests/{each.digest}")
        door.refused(404, "MANIFEST_UNKNOWN", "DELETE", f"{repository}/manifests/{each.digest}")
        if each.subject:
            assert each.refers not in door.referrers(repository, each.subject)
    for tag in pushed.tags:
        door.gone(f"{repository}/manifests/{tag}")
    assert door.tags(repository) == []
    for digest in pushed.blobs:
        door.send(202, "DELETE", f"{repository}/blobs/{digest}")
        door.gone(f"{repository}/blobs/{digest}")
        door.refused(404, "BLOB_UNKNOWN", "DELETE", f"{repository}/blobs/{digest}")


def test_check_of_sparse_content(tmp_path: Path) -> None:
    """A registry that allows sparse content, and holds some, has nothing wrong with it; invariant 4."""
    with running(tmp_path, MOORAGE_SPARSE="all") as server, Door(server.host, sparse=True) as door:
        for kind in m.SPARSE:
            door.push("sparse", m.KINDS[kind](Maker("sha256", kind)))
    assert check(tmp_path, sparse="all") == []


def test_support(door: Door) -> None:
    """The base says that the specification is implemented; spec "Determining Support"."""
    door.send(200, "GET", "")


@pytest.mark.parametrize("way", BLOB_WAYS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_blob(door: Door, repository: str, algorithm: str, way: str) -> None:
    """Pushed any way, a blob is pulled from its Location, whole or a range of it; spec "Push", "Pulling blobs"."""
    blob = Blob(Maker(algorithm, repository).noise("blob", 100_000), algorithm)
    location = door.follow(door.push_blob(repository, blob, way))
    door.serves_blob("GET", location, blob)
    door.serves_blob("HEAD", f"{repository}/blobs/{blob.digest}", blob)
    part = door.send(206, "GET", location, headers={"Range": "bytes=99-70000"})
    assert part.content == blob.content[99:70001]
    assert part.headers["Content-Range"] == "bytes 99-70000/100000"
    door.push_blob(repository, blob)


@pytest.mark.parametrize("way", UPLOAD_WAYS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wrong_content(door: Door, repository: str, algorithm: str, way: str) -> None:
    """Content that does not match its digest gets 400, and neither is stored; spec "Pushing blobs", code-4."""
    blob, said = (Blob(f"{repository} {n}".encode(), algorithm) for n in (1, 2))
    blob.__dict__["digest"] = said.digest  # from here on the client believes it
    assert codes_of(BLOB_WAYS[way](door, repository, blob, 400)) == {"DIGEST_INVALID"}
    door.gone(f"{repository}/blobs/{said.digest}")
    door.gone(f"{repository}/blobs/{m.digest_of(blob.content, algorithm)}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_digest_algorithm_unsaid(door: Door, repository: str, algorithm: str) -> None:
    """A session that was started without an algorithm takes any of them; spec "Pushing a blob in chunks", SHOULD."""
    blob = Blob(repository.encode(), algorithm)
    session = door.patch(door.start(repository), blob.content, 0)
    door.send(201, "PUT", door.follow(session, digest=blob.digest))
    door.serves_blob("GET", f"{repository}/blobs/{blob.digest}", blob)


@pytest.mark.parametrize("way", MANIFEST_WAYS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_manifest(door: Door, repository: str, algorithm: str, way: str) -> None:
    """A manifest of blobs of any algorithm is pushed any way; by a tag alone its digest is sha256; spec end-7."""
    image = Maker(algorithm, repository).image()
    if way == BY_TAG:
        image = replace(image, algorithm="sha256")
        door.push(repository, image, "latest")
    else:
        door.push(repository, image, None, *(TWELVE if way == BY_DIGEST_WITH_TAGS else ()))
    for reference in [image.digest, *door.tags(repository)]:
        door.serves("GET", f"{repository}/manifests/{reference}", image)


def test_tag_moves(door: Door, repository: str, make: Maker) -> None:
    """A tag names what was last pushed under it; what it named before stays by its digest; spec "Definitions"."""
    before, after = make.artifact("before"), make.artifact("after")
    for each in (before, after):
        door.push(repository, each, "latest")
        door.serves("GET", f"{repository}/manifests/latest", each)
    door.serves("GET", f"{repository}/manifests/{before.digest}", before)
    assert door.tags(repository) == ["latest"]


def test_content_type_parameters(door: Door, repository: str, make: Maker) -> None:
    """Parameters of the Content-Type are ignored, and not given back; spec "Pushing Manifests"."""
    image = make.image()
    door.push(repository, image)
    headers = {"Content-Type": f"{image.media_type}; charset=utf-8"}
    door.send(201, "PUT", f"{repository}/manifests/latest", content=image.content, headers=headers)
    door.serves("GET", f"{repository}/manifests/latest", image)


def test_largest_manifest(door: Door, repository: str, make: Maker) -> None:
    """A manifest of 4 MiB is stored, one byte more is 413 and changes nothing; spec "Pushing Manifests"."""
    largest, larger = m.sized(make, m.LARGEST), m.sized(make, m.LARGEST + 1)
    door.push(repository, largest, "latest")
    headers = {"Content-Type": larger.media_type}
    door.send(413, "PUT", f"{repository}/manifests/latest", content=larger.content, headers=headers)
    door.serves("GET", f"{repository}/manifests/latest", largest)
    door.gone(f"{repository}/manifests/{larger.digest}")


def test_tag_order(door: Door, repository: str, make: Maker) -> None:
    """Tags come sorted and each once, page by page along the links, after any ``last``; spec "Listing Tags"."""
    artifact = make.artifact("artifact")
    tags = ["10", "9", "A", "B", "_x", "a", "a-1", "a.1", "b", "x" * 128]
    door.push(repository, artifact, None, *reversed(tags))
    assert door.tags(repository) == tags
    assert door.tags(repository, last="a-0") == tags[6:]
    assert door.tags(repository, n=3, last="nothing") == tags[9:]
    page = door.send(200, "GET", f"{repository}/tags/list", params={"n": 3})
    seen = page.json()["tags"]
    while link := page.links.get("next"):
        page = door.send(200, "GET", page.url.join(link["url"]))
        seen += page.json()["tags"]
    assert seen == tags
    nothing = door.send(200, "GET", f"{repository}/tags/list", params={"n": 0})
    assert (nothing.json()["tags"], nothing.links) == ([], {})


def test_subject_comes_later(door: Door, repository: str, make: Maker) -> None:
    """An artifact may be pushed before its subject, which then has it as a referrer; spec "Push"."""
    subject = make.image()
    artifact = make.artifact("early", subject=subject.descriptor(subject.media_type))
    assert door.referrers(repository, subject.digest) == []
    door.push(repository, artifact)
    assert door.referrers(repository, subject.digest) == [artifact.refers]
    door.push(repository, subject, "latest")
    assert door.referrers(repository, subject.digest) == [artifact.refers]
    door.send(202, "DELETE", f"{repository}/manifests/{artifact.digest}")
    assert door.referrers(repository, subject.digest) == []


def test_head_has_no_body(door: Door, repository: str, make: Maker) -> None:
    """After the headers of an answer to HEAD nothing comes, be it 200 or 404; RFC 9110 section 9.3.2."""
    artifact = make.artifact("artifact")
    door.push(repository, artifact, "latest")
    for path in ("manifests/latest", f"blobs/{artifact.blobs[1].digest}", *MISSING):
        with door.connect() as connection, connection.makefile("rb") as answer:
            headers = {"Host": door.host, "Connection": "close"} | basic(NAME, PASSWORD)
            lines = [
                f"HEAD /v2/{repository}/{path} HTTP/1.1",
                *(f"{name}: {value}" for name, value in headers.items()),
            ]
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            status, _, rest = answer.read().partition(b"\r\n")
        assert status.split()[1] == (b"404" if path in MISSING else b"200")
        assert rest.endswith(b"\r\n\r\n")
        assert rest.count(b"\r\n\r\n") == 1


def test_mounted_blob_stays(door: Door, repository: str) -> None:
    """A mounted blob outlives the one that it was mounted from; spec "Mounting a blob from another repository"."""
    blob = Blob(repository.encode())
    door.push_blob(repository, blob, "mount with from")
    door.send(202, "DELETE", f"{repository}/source/blobs/{blob.digest}")
    door.gone(f"{repository}/source/blobs/{blob.digest}")
    door.serves_blob("GET", f"{repository}/blobs/{blob.digest}", blob)


@pytest.mark.parametrize("source", [None, "other"])
def test_mount_of_nothing(door: Door, repository: str, source: str | None) -> None:
    """What cannot be mounted starts a session that takes the blob; spec "Mounting a blob from another repository"."""
    blob = Blob(repository.encode())
    asked = {"mount": blob.digest} | ({"from": f"{repository}/{source}"} if source else {})
    session = door.send(202, "POST", f"{repository}/blobs/uploads/", params=asked)
    door.send(201, "PUT", door.follow(session, digest=blob.digest), content=blob.content, headers=OCTETS)
    door.serves_blob("GET", f"{repository}/blobs/{blob.digest}", blob)


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_cancel(door: Door, repository: str, sent: int) -> None:
    """A cancelled upload is 404 to whatever follows, and leaves no blob; spec "Cancel a blob upload"."""
    blob = Blob(repository.encode())
    session = door.start(repository)
    for first, piece in cut(blob.content)[:sent]:
        session = door.patch(session, piece, first)
    door.send(204, "DELETE", door.follow(session))
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        body = chunk(blob.content, 0) if method in ("PATCH", "PUT") else {}
        door.refused(404, "BLOB_UPLOAD_UNKNOWN", method, door.follow(session, digest=blob.digest), **body)
    door.gone(f"{repository}/blobs/{blob.digest}")


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize(("sent", "first"), [(0, 1), (0, 100), (1, 0), (1, 99), (1, 101), (1, 200), (2, 100)])
def test_out_of_order(door: Door, repository: str, method: str, sent: int, first: int) -> None:
    """A chunk out of order gets 416; GET tells where to go on, and so it does; spec "Pushing a blob in chunks"."""
    blob = Blob(Maker("sha256", repository).noise("blob", 300))
    session, chunks = door.start(repository), cut(blob.content)
    for offset, piece in chunks[:sent]:
        session = door.patch(session, piece, offset)
    wrong = chunk(blob.content[first : first + 100], first)
    door.refused(416, "BLOB_UPLOAD_INVALID", method, door.follow(session, digest=blob.digest), **wrong)
    session = door.received(session)
    assert not sent or session.headers["Range"] == f"0-{100 * sent - 1}"
    door.gone(f"{repository}/blobs/{blob.digest}")
    for offset, piece in chunks[sent:]:
        session = door.patch(session, piece, offset)
    door.send(201, "PUT", door.follow(session, digest=blob.digest))
    door.serves_blob("GET", f"{repository}/blobs/{blob.digest}", blob)


@pytest.mark.parametrize("header", ["100-200", "100-198", "bytes 100-199/300", "100-", "199-100", "100"])
def test_chunk_range_invalid(door: Door, repository: str, header: str) -> None:
    """A Content-Range that is malformed or not of the chunk's length gets 400, and the session stays as it was.

    Spec "Pushing a blob in chunks": it MUST match the expression, the length is the chunk's.
    """
    blob = Blob(Maker("sha256", repository).noise("blob", 200))
    session = door.patch(door.start(repository), blob.content[:100], 0)
    headers = {**OCTETS, "Content-Range": header}
    door.send(400, "PATCH", door.follow(session), content=blob.content[100:], headers=headers)
    session = door.received(session)
    assert session.headers["Range"] == "0-99"
    door.send(201, "PUT", door.follow(session, digest=blob.digest), **chunk(blob.content[100:], 100))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wrong_digest_then_right(door: Door, repository: str, algorithm: str) -> None:
    """A session refused for its digest is still there, with all it received, for the right one; spec end-13."""
    blob = Blob(repository.encode(), algorithm)
    session = door.patch(door.start(repository, algorithm), blob.content, 0)
    wrong = m.digest_of(b"other", algorithm)
    door.refused(400, "DIGEST_INVALID", "PUT", door.follow(session, digest=wrong))
    session = door.received(session)
    assert session.headers["Range"] == f"0-{len(blob.content) - 1}"
    door.send(201, "PUT", door.follow(session, digest=blob.digest))
    door.serves_blob("GET", f"{repository}/blobs/{blob.digest}", blob)


def test_session_of_another_repository(door: Door, repository: str) -> None:
    """An upload session is unknown to every repository but its own; spec end-5, end-6, end-13, end-14."""
    session = door.start(repository)
    elsewhere = httpx.URL(str(door.follow(session)).replace(repository, f"{repository}/other"))
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        parameters = {"digest": ABSENT} if method == "PUT" else None
        door.refused(404, "BLOB_UPLOAD_UNKNOWN", method, elsewhere, params=parameters)
    door.received(session)


@pytest.mark.parametrize(("path", "code"), MISSING.items())
def test_missing(door: Door, repository: str, make: Maker, path: str, code: str) -> None:
    """What is not in a repository is 404 to every method, as is all of an unknown one; spec "Endpoints"."""
    door.push(repository, make.artifact("there"))
    for method in ("GET", "PATCH", "PUT", "DELETE") if "uploads" in path else ("GET", "HEAD", "DELETE"):
        parameters = {"digest": ABSENT} if method == "PUT" else None
        door.refused(404, code, method, f"{repository}/{path}", params=parameters)
        answer = door.send(404, method, f"{repository}/unknown/{path}", params=parameters)
        assert method == "HEAD" or codes_of(answer) <= {code, "NAME_UNKNOWN"}
    door.refused(404, "NAME_UNKNOWN", "GET", f"{repository}/unknown/tags/list")


@pytest.mark.parametrize("digest", m.MALFORMED_DIGESTS)
def test_malformed_digest(door: Door, repository: str, make: Maker, digest: str) -> None:
    """A malformed or unsupported digest is 400 to a push or a list of referrers, and never there; spec "Push"."""
    uploads, session = f"{repository}/blobs/uploads/", door.start(repository)
    said, mount = {"digest": digest}, {"mount": digest, "from": "other"}
    content, manifest = {"content": b"content"}, {"content": make.index([]).content}
    door.refused(400, "DIGEST_INVALID", "POST", uploads, params=said, **content)
    door.refused(400, "DIGEST_INVALID", "POST", uploads, params=mount)
    door.refused(400, "DIGEST_INVALID", "PUT", door.follow(session, **said), **content)
    door.refused(400, "DIGEST_INVALID", "PUT", f"{repository}/manifests/{digest}", **manifest)
    door.refused(400, "DIGEST_INVALID", "GET", f"{repository}/referrers/{digest}")
    for path in (f"{repository}/blobs/{digest}", f"{repository}/manifests/{digest}"):
        for method in ("GET", "HEAD", "DELETE"):
            # The table of endpoints has both for DELETE; a pull may take either for what cannot be there.
            assert door.request(method, path).status_code in (400, 404)


@pytest.mark.parametrize("algorithm", ["md5", "sha3-256", "SHA256"])
def test_unsupported_algorithm(door: Door, repository: str, algorithm: str) -> None:
    """A session for an algorithm that the registry does not have gets 400; spec "Pushing blobs", SHOULD."""
    path, asked = f"{repository}/blobs/uploads/", {"digest-algorithm": algorithm}
    door.refused(400, "DIGEST_INVALID", "POST", path, params=asked)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wrong_manifest_content(door: Door, repository: str, algorithm: str) -> None:
    """A manifest that does not match its digest gets 400, and neither it nor a tag is stored; spec code-4."""
    make = Maker(algorithm, repository)
    image, other = make.image("image"), make.image("other")
    door.push(repository, image)
    path, headers = f"{repository}/manifests/{other.digest}", {"Content-Type": image.media_type}
    tag = {"tag": "latest"}
    door.refused(400, "DIGEST_INVALID", "PUT", path, content=image.content, headers=headers, params=tag)
    door.gone(path)
    door.gone(f"{repository}/manifests/latest")


@pytest.mark.parametrize(("content", "media_type"), m.INVALID_MANIFESTS)
def test_invalid_manifest(door: Door, repository: str, content: bytes, media_type: str) -> None:
    """What is no manifest, or not of the type it is sent as, gets 400 and moves no tag; spec code-6."""
    headers = {"Content-Type": media_type}
    path = f"{repository}/manifests/latest"
    door.refused(400, "MANIFEST_INVALID", "PUT", path, content=content, headers=headers)
    door.gone(path)
    door.gone(f"{repository}/manifests/{m.digest_of(content, 'sha256')}")


@pytest.mark.parametrize("kind", m.SPARSE)
@pytest.mark.parametrize("door", [name for name in SERVERS if name != SPARSE_SERVER], indirect=True)
def test_missing_content(door: Door, repository: str, make: Maker, kind: str) -> None:
    """A manifest whose parts are not there is refused, naming them, until they are; spec "Push", code-5."""
    root = m.KINDS[kind](make)
    for child in root.children:
        door.push(repository, child)
    path, headers = f"{repository}/manifests/latest", {"Content-Type": root.media_type}
    missing = (*root.blobs, *root.absent)
    refused = door.refused(404, "MANIFEST_BLOB_UNKNOWN", "PUT", path, content=root.content, headers=headers)
    assert len(refused.json()["errors"]) == len(missing)
    assert all(each.digest in refused.text for each in missing)
    door.gone(path)
    door.gone(f"{repository}/manifests/{root.digest}")
    for part in root.absent:
        if isinstance(part, Manifest):
            door.push(repository, part)
        else:
            door.push_blob(repository, part)
    door.push(repository, root, "latest")
    door.serves("GET", path, root)


def test_delete_what_is_needed(door: Door, repository: str, make: Maker) -> None:
    """What a manifest needs is deleted only where sparse content is allowed; spec "Deleting Blobs": 405 else."""
    image = make.image()
    index = make.index([image])
    door.push(repository, index, "latest")
    needed = [
        f"{repository}/manifests/{image.digest}",
        *(f"{repository}/blobs/{blob.digest}" for blob in image.blobs),
    ]
    for path in needed:
        if door.sparse:
            door.send(202, "DELETE", path)
            door.gone(path)
        else:
            door.refused(405, "DENIED", "DELETE", path)
            door.send(200, "HEAD", path)
    door.serves("GET", f"{repository}/manifests/latest", index)


@pytest.mark.parametrize("name", m.NAMES)
def test_name(door: Door, make: Maker, name: str) -> None:
    """A name of the expression's form is a repository, even one of a path's words; spec "Pulling manifests"."""
    artifact = make.artifact("artifact")
    door.push(name, artifact, "latest")
    door.serves("GET", f"{name}/manifests/latest", artifact)
    door.serves_blob("GET", f"{name}/blobs/{artifact.blobs[1].digest}", artifact.blobs[1])
    assert door.tags(name) == ["latest"]


@pytest.mark.parametrize("name", m.INVALID_NAMES)
def test_invalid_name(door: Door, make: Maker, name: str) -> None:
    """No other name can be pushed to or pulled from; spec "Pulling manifests", code-8."""
    content, headers = make.index([]).content, {"Content-Type": m.OCI_INDEX}
    door.refused(400, "NAME_INVALID", "POST", f"{name}/blobs/uploads/")
    door.refused(400, "NAME_INVALID", "PUT", f"{name}/manifests/latest", content=content, headers=headers)
    for path in ("manifests/latest", f"blobs/{ABSENT}", "tags/list"):
        assert door.request("GET", f"{name}/{path}").status_code in (400, 404)


@pytest.mark.parametrize("tag", m.INVALID_TAGS)
def test_invalid_tag(door: Door, repository: str, make: Maker, tag: str) -> None:
    """What is not of a tag's form cannot be pushed, and is never there; spec "Pulling manifests"."""
    index, headers = make.index([]), {"Content-Type": m.OCI_INDEX}
    content = index.content
    door.push(repository, index)
    door.refused(400, "MANIFEST_INVALID", "PUT", f"{repository}/manifests/{tag}", content=content, headers=headers)
    path, tags = f"{repository}/manifests/{index.digest}", [("tag", "good"), ("tag", tag)]
    door.refused(400, "MANIFEST_INVALID", "PUT", path, content=content, headers=headers, params=tags)
    door.gone(f"{repository}/manifests/{tag}")
    assert door.tags(repository) == []
