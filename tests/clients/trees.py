"""Storage trees of real registries, for what takes them in."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests import support
from tests.buckets import ACCESS, SECRET, Engine
from tests.clients.kit import Door, Home, Layout, tool
from tests.clients.test_skopeo import KEEP, TO
from tests.google.bucket import BUCKET
from tests.server import free_port
from tests.support import CONFIG, EMPTY, LAYER, OCI_INDEX, OCI_MANIFEST, digest_of, encode, eventually

REPOSITORY = "library/app"


@contextmanager
def started(folder: Path, port: int, program: str, *arguments: str | Path) -> Iterator[Door]:
    """Another registry, on that port."""
    settled = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([tool(program), *arguments], stdout=log, stderr=log, env=settled)
    try:
        door = Door(f"http://127.0.0.1:{port}")

        def answers() -> bool:
            try:
                return httpx.get(f"{door.url}/v2/", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        eventually(answers, f"{program} answers")
        yield door
    finally:
        process.terminate()
        process.wait()


@contextmanager
def distribution(program: str, folder: Path, engine: Engine | None = None) -> Iterator[Door]:
    """A registry of distribution over ``folder/tree``, or over ``tree`` in a bucket of S3."""
    port = free_port()
    storage: dict[str, Any] = {"filesystem": {"rootdirectory": str(folder / "tree")}}
    if engine is not None:
        keys = {"accesskey": ACCESS, "secretkey": SECRET, "region": "us-east-1", "bucket": BUCKET}
        ways = {"regionendpoint": engine.endpoint, "forcepathstyle": True, "secure": False, "encrypt": False}
        storage = {"s3": {**keys, **ways, "rootdirectory": f"/{folder.name}"}, "redirect": {"disable": True}}
    settings = folder / "config.yml"
    logs, http = {"accesslog": {"disabled": True}}, {"addr": f"127.0.0.1:{port}"}
    settings.write_text(json.dumps({"version": "0.1", "log": logs, "storage": storage, "http": http}))
    with started(folder, port, program, "serve", settings) as door:
        yield door


def put(door: Door, reference: str, content: bytes, media_type: str) -> None:
    url = f"{door.url}/v2/{REPOSITORY}/manifests/{reference}"
    answer = httpx.put(url, content=content, headers={"content-type": media_type}, trust_env=False)
    assert answer.status_code == 201, answer.text


def push_blob(door: Door, content: bytes) -> None:
    start = httpx.post(f"{door.url}/v2/{REPOSITORY}/blobs/uploads/", trust_env=False)
    url = httpx.URL(door.url).join(start.headers["location"]).copy_merge_params({"digest": digest_of(content)})
    assert httpx.put(url, content=content, trust_env=False).status_code == 201


def fill(door: Door, run: Home, multi: Layout) -> dict[str, str]:
    """Two platforms, schema 2, a signature, a referrer and its fallback tag; what each tag names."""
    at = f"docker://{door.url.removeprefix('http://')}/{REPOSITORY}"
    source = f"oci:{multi.root}:multi"
    run("skopeo", "copy", "--all", KEEP, TO, source, f"{at}:multi")
    run("skopeo", "copy", "--format", "v2s2", TO, source, f"{at}:schema2")
    run("skopeo", "copy", "--all", KEEP, TO, source, f"{at.removesuffix('app')}deep/er:v1")
    for content in (CONFIG, LAYER, EMPTY):
        push_blob(door, content)
    image = encode(support.image())
    put(door, "v1", image, OCI_MANIFEST)
    put(door, digest_of(image).replace(":", "-") + ".sig", encode(support.image(layers=[EMPTY])), OCI_MANIFEST)
    referrer = encode(support.artifact(subject=support.descriptor(image, OCI_MANIFEST)))
    put(door, digest_of(referrer), referrer, OCI_MANIFEST)
    listing = encode(support.index([support.descriptor(referrer, OCI_MANIFEST)]))
    put(door, digest_of(image).replace(":", "-"), listing, OCI_INDEX)
    tags = {tag: door.digest(REPOSITORY, tag) for tag in door.tags(REPOSITORY)}
    assert len(tags) == 5
    return tags


def data(tree: Path, digest: str) -> Path:
    encoded = digest.partition(":")[2]
    return tree / "docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"


def links(tree: Path) -> Path:
    return tree / "docker/registry/v2/repositories" / REPOSITORY / "_manifests"


def digests_of(door: Door, repository: str, digest: str) -> Iterator[str]:
    """A manifest and all that it needs, each of which the door gives byte for byte."""
    document = json.loads(door.manifest(repository, digest))
    yield digest
    for child in document.get("manifests", []):
        yield from digests_of(door, repository, child["digest"])
    for each in [*([document["config"]] if "config" in document else []), *document.get("layers", [])]:
        assert door.blob(repository, each["digest"]) == each["digest"]
        yield each["digest"]
