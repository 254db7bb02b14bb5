"""Pushing manifests; spec "Pushing Manifests", end-7a, end-7b."""

import json
from typing import Any

import pytest

from moorage import Registry, create_app
from tests.support import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY,
    LAYER,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Exchange,
    Json,
    Repository,
    artifact,
    body,
    descriptor,
    detail,
    digest_of,
    encode,
    errors,
    image,
    index,
    pieces,
)
from tests.web.conftest import Opener

NOWHERE = digest_of(b"nowhere")


async def kinds(repository: Repository) -> list[tuple[str, Json]]:
    """One document of each manifest type, whose content is there."""
    await repository.push_image("child")
    child = descriptor(encode(image()), OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"})
    docker = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(CONFIG, DOCKER_CONFIG),
        "layers": [descriptor(LAYER, DOCKER_LAYER)],
    }
    await repository.push(docker, "docker-child")
    entry = descriptor(encode(docker), DOCKER_MANIFEST, platform={"os": "linux", "architecture": "amd64"})
    return [
        (OCI_MANIFEST, image(annotations={"a": "b"})),
        (OCI_INDEX, index([child])),
        (DOCKER_MANIFEST, docker),
        (DOCKER_LIST, {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]}),
    ]


@pytest.mark.parametrize("kind", range(4), ids=["OCI manifest", "OCI index", "Docker manifest", "Docker list"])
async def test_push_and_pull_each_type(repository: Repository, kind: int) -> None:
    """A manifest of each type is 201 by tag and by digest, and comes back byte for byte with its Content-Type."""
    media_type, document = (await kinds(repository))[kind]
    content = json.dumps(document, indent=3).encode() + b"\n"
    digest = digest_of(content)
    for reference in ("v1", digest):
        response = await repository.put(content, reference, media_type)
        assert (response.status_code, response.content) == (201, b"")
        assert response.headers["location"] == repository.at(f"manifests/{digest}")
        assert response.headers["docker-content-digest"] == digest
        assert "oci-subject" not in response.headers
        assert "oci-tag" not in response.headers
        pulled = await repository.client.get(response.headers["location"])
        assert (pulled.content, pulled.headers["content-type"]) == (content, media_type)
    assert (await repository.get("manifests/v1")).content == content


@pytest.mark.parametrize("layout", ["spaces", "escapes", "order", "tail", "unicode"])
async def test_exact_bytes(repository: Repository, layout: str) -> None:
    """The bytes are kept as they came: spaces, order, escapes, what is unknown, all of it."""
    await repository.push_image()
    document = image(annotations={"name": "Zoë ☂"}, future=[{"x": 1.50}, None])
    content = {
        "spaces": json.dumps(document, indent="\t", separators=(" ,", " : ")),
        "escapes": json.dumps(document).replace("schema", "\\u0073chema"),
        "order": json.dumps(dict(reversed(list(document.items())))),
        "tail": json.dumps(document) + "\r\n \n",
        "unicode": json.dumps(document, ensure_ascii=False),
    }[layout].encode()
    digest = await repository.push(content, "exact")
    assert digest == digest_of(content)
    assert (await repository.get(f"manifests/{digest}")).content == content


async def test_push_again(repository: Repository) -> None:
    """Pushing what is there already is 201 again."""
    for _ in range(3):
        assert await repository.push_image("latest") == descriptor(encode(image()), OCI_MANIFEST)
    assert await repository.tags() == ["latest"]


async def test_tag_moves(repository: Repository) -> None:
    """A tag that is pushed again names the new manifest; the old one stays by its digest."""
    old = await repository.push_image("latest")
    new = await repository.push_image("latest", annotations={"a": "b"})
    assert (await repository.head("manifests/latest")).headers["docker-content-digest"] == new["digest"]
    assert (await repository.get(f"manifests/{old['digest']}")).status_code == 200
    assert await repository.tags() == ["latest"]


async def test_content_type_parameters_are_ignored(repository: Repository) -> None:
    """Parameters of the Content-Type are ignored, and not given back."""
    await repository.push_image()
    await repository.push(image(), "latest", media_type=f"{OCI_MANIFEST}; charset=utf-8")
    assert (await repository.head("manifests/latest")).headers["content-type"] == OCI_MANIFEST


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (image(), OCI_MANIFEST),
        (index(), OCI_INDEX),
        ({k: v for k, v in image().items() if k != "mediaType"}, OCI_MANIFEST),
        (image(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST),
    ],
)
async def test_without_content_type(repository: Repository, document: Json, expected: str) -> None:
    """Without a Content-Type the document tells its type."""
    await repository.push_image()
    assert (await repository.put(document, "latest", media_type=None)).status_code == 201
    assert (await repository.head("manifests/latest")).headers["content-type"] == expected


async def test_other_content_type_for_the_same_bytes(repository: Repository) -> None:
    """Bytes without mediaType that are pushed under another Content-Type are answered as last pushed."""
    await repository.push_image()
    document = {k: v for k, v in image().items() if k != "mediaType"}
    for media_type in (OCI_MANIFEST, DOCKER_MANIFEST):
        await repository.push(document, "latest", media_type=media_type)
        assert (await repository.head("manifests/latest")).headers["content-type"] == media_type


async def test_digest_must_match(repository: Repository) -> None:
    """A manifest pushed by a digest that is not its own is 400 DIGEST_INVALID telling both; nothing is stored."""
    await repository.push_image()
    content = encode(image(annotations={"new": "one"}))
    response = await repository.put(content, NOWHERE, params=[("tag", "x")])
    assert detail(response, 400, "DIGEST_INVALID") == {"digest": NOWHERE, "computed": digest_of(content)}
    assert (await repository.head(f"manifests/{digest_of(content)}")).status_code == 404
    assert await repository.tags() == []


@pytest.mark.parametrize("tag", ["-a", ".a", "a+b", "a b", "x" * 129, "ä", "a%00"])
async def test_malformed_tag(repository: Repository, tag: str) -> None:
    """A tag that is malformed is 400 MANIFEST_INVALID, in the path and as a parameter."""
    await repository.push_image("good")
    assert "allowed" in detail(await repository.put(image(), tag), 400, "MANIFEST_INVALID")
    response = await repository.put(image(), None, params=[("tag", "fine"), ("tag", tag)])
    assert detail(response, 400, "MANIFEST_INVALID")["tag"] == tag
    assert await repository.tags() == ["good"]


@pytest.mark.parametrize("digest", ["sha256:", "sha256:x", "md5:" + "a" * 32, ":", "a:b"])
async def test_malformed_digest(repository: Repository, digest: str) -> None:
    """A digest that is malformed or unsupported is 400 DIGEST_INVALID."""
    errors(await repository.put(image(), digest), 400, "DIGEST_INVALID")


async def test_many_tags(repository: Repository) -> None:
    """A manifest pushed by digest with tag parameters gets them all, and OCI-Tag names them."""
    await repository.push_image()
    tags = [f"v1.{n}" for n in range(32)]
    response = await repository.put(image(), None, params=[("tag", tag) for tag in tags])
    assert response.status_code == 201
    assert [tag.strip() for tag in response.headers["oci-tag"].split(",")] == tags
    assert sorted(await repository.tags()) == sorted(tags)
    for tag in tags:
        assert (await repository.head(f"manifests/{tag}")).headers["docker-content-digest"] == digest_of(
            encode(image())
        )


async def test_repeated_tag_parameter(repository: Repository) -> None:
    """A tag that is given twice is one tag."""
    await repository.push_image()
    response = await repository.put(image(), None, params=[("tag", "a"), ("tag", "b"), ("tag", "a")])
    assert response.headers["oci-tag"] == "a, b"
    assert await repository.tags() == ["a", "b"]


async def test_too_many_tags(opened: Opener) -> None:
    """More tags than allowed are 414; nothing is stored, none is set."""
    repository = await opened(tags_per_push=10)
    await repository.push_image("before")
    new = image(annotations={"new": "one"})
    response = await repository.put(new, None, params=[("tag", f"t{n}") for n in range(11)])
    assert detail(response, 414, "MANIFEST_INVALID") == {"tags": 11, "allowed": 10}
    assert await repository.tags() == ["before"]
    assert (await repository.head(f"manifests/{digest_of(encode(new))}")).status_code == 404
    response = await repository.put(new, None, params=[("tag", f"t{n}") for n in range(10)])
    assert response.status_code == 201


async def test_tags_are_all_or_nothing(repository: Repository) -> None:
    """If the manifest is refused, no tag is set; tags that were there stay where they were."""
    old = await repository.push_image("a")
    response = await repository.put(image(layers=[b"missing"]), None, params=[("tag", "a"), ("tag", "b")])
    errors(response, 404, "MANIFEST_BLOB_UNKNOWN")
    assert await repository.tags() == ["a"]
    assert (await repository.head("manifests/a")).headers["docker-content-digest"] == old["digest"]


async def test_tags_go_with_a_digest(repository: Repository) -> None:
    """Tag parameters beside a tag in the path are refused: 400 MANIFEST_INVALID."""
    await repository.push_image()
    response = await repository.put(image(), "one", params=[("tag", "two")])
    assert detail(response, 400, "MANIFEST_INVALID") == {"reference": "one"}
    assert await repository.tags() == []


@pytest.mark.parametrize("kind", ["image", "index"])
async def test_subject(repository: Repository, kind: str) -> None:
    """A manifest with a subject is answered with OCI-Subject, whether the subject is there or not."""
    subject = await repository.push_image("latest")
    await repository.push_blob(EMPTY)
    for each in (subject, {**subject, "digest": NOWHERE}):
        document = artifact(subject=each) if kind == "image" else index(subject=each)
        response = await repository.put(document)
        assert response.status_code == 201
        assert response.headers["oci-subject"] == each["digest"]


async def test_missing_content_is_named(repository: Repository) -> None:
    """What is missing is 404 MANIFEST_BLOB_UNKNOWN: one error for each, with its digest, kind and JSON path."""
    await repository.push_blob(b"there")
    response = await repository.put(image(b"config", [b"one", b"there", b"two"]), "latest")
    found = errors(response, 404, "MANIFEST_BLOB_UNKNOWN")
    assert [each["detail"] for each in found] == [
        {"digest": digest_of(b"config"), "kind": "config", "path": "$.config"},
        {"digest": digest_of(b"one"), "kind": "layer", "path": "$.layers[0]"},
        {"digest": digest_of(b"two"), "kind": "layer", "path": "$.layers[2]"},
    ]
    assert (await repository.head("manifests/latest")).status_code == 404


async def test_the_same_layer_twice(repository: Repository) -> None:
    """An image may have a layer twice; if it is missing, each place is named."""
    await repository.push_blob(CONFIG)
    document = image(CONFIG, [LAYER, LAYER])
    found = errors(await repository.put(document, "twice"), 404, "MANIFEST_BLOB_UNKNOWN")
    assert [each["detail"]["path"] for each in found] == ["$.layers[0]", "$.layers[1]"]
    await repository.push_blob(LAYER)
    await repository.push(document, "twice")


async def test_missing_child_is_named(repository: Repository) -> None:
    """A missing child of an index is named too; a blob of its digest is no child."""
    child = await repository.push_image()
    await repository.push_blob(b"a blob")
    blob = descriptor(b"a blob", OCI_MANIFEST)
    response = await repository.put(index([child, {**child, "digest": NOWHERE}, blob]), "latest")
    found = errors(response, 404, "MANIFEST_BLOB_UNKNOWN")
    assert [each["detail"]["path"] for each in found] == ["$.manifests[1]", "$.manifests[2]"]
    assert {each["detail"]["kind"] for each in found} == {"manifest"}


async def test_index_of_other_content(repository: Repository) -> None:
    """An index may list blobs or manifests under types that no manifest has, if they are there."""
    manifest = await repository.push_image()
    await repository.push_blob(b"a blob")
    entries = [descriptor(b"a blob", "application/x"), {**manifest, "mediaType": "application/y"}]
    await repository.push(index(entries), "mixed")
    response = await repository.put(index([*entries, descriptor(b"missing", "application/z")]), "mixed")
    assert detail(response, 404, "MANIFEST_BLOB_UNKNOWN")["path"] == "$.manifests[2]"


async def test_missing_in_another_repository_only(repository: Repository) -> None:
    """Content of another repository does not count, nor is it revealed that it is there."""
    await Repository(repository.client, "other").push_image("latest")
    assert len(errors(await repository.put(image(), "latest"), 404, "MANIFEST_BLOB_UNKNOWN")) == 2


@pytest.mark.parametrize(
    ("sparse", "missing_child", "missing_layer"), [("none", 404, 404), ("indexes", 201, 404), ("all", 201, 201)]
)
async def test_sparse(opened: Opener, sparse: str, missing_child: int, missing_layer: int) -> None:
    """The setting says what may be missing: nothing, entries of indexes, or layers and configs too."""
    repository = await opened(sparse=sparse)
    entries = [descriptor(b"missing", OCI_MANIFEST), descriptor(b"missing", "application/x")]
    assert (await repository.put(index(entries), "index")).status_code == missing_child
    assert (await repository.put(image(), "image")).status_code == missing_layer


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
async def test_non_distributable_layers_may_be_absent(repository: Repository, media_type: str) -> None:
    """A non-distributable layer need not be in the registry."""
    await repository.push_blob(CONFIG)
    document = image(layers=[])
    document["layers"] = [descriptor(b"elsewhere", media_type, urls=["https://example.com/layer"])]
    assert (await repository.put(document, "windows")).status_code == 201


@pytest.mark.parametrize(
    "document",
    [
        artifact("application/vnd.example.sbom"),
        artifact("application/vnd.example.sbom", annotations={"a": "b"}, layers=[descriptor(EMPTY, "text/plain")]),
        {k: v for k, v in artifact().items() if k != "config"},
        {k: v for k, v in artifact(layers=[]).items() if k not in ("config", "mediaType")},
        image(EMPTY, []) | {"config": descriptor(EMPTY, "application/vnd.cncf.helm.config.v1+json")},
        artifact(future={"nested": [1, {"deeper": True}]}),
        artifact("application/x; version=1"),
    ],
)
async def test_artifacts(repository: Repository, document: Json) -> None:
    """Artifacts of any type, with or without config, with unknown fields, are kept as they are."""
    await repository.push_blob(EMPTY)
    await repository.push(document, "artifact")
    assert (await repository.get("manifests/artifact")).json() == document


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
        "text/plain",
        "application/vnd.example+json",
    ],
)
async def test_unknown_type(repository: Repository, opened: Opener, media_type: str) -> None:
    """A type that is no manifest's is 400 MANIFEST_INVALID naming the known ones, unless a setting allows any."""
    document: dict[str, Any] = {"anything": ["goes"]}
    response = await repository.put(document, "odd", media_type)
    assert OCI_MANIFEST in detail(response, 400, "MANIFEST_INVALID")["allowed"]
    liberal = await opened(unknown_manifests=True)
    await liberal.push(document, "odd", media_type=media_type)
    response = await liberal.get("manifests/odd")
    assert (response.json(), response.headers["content-type"]) == (document, media_type)


async def test_digests_of_other_algorithms_in_a_manifest(repository: Repository) -> None:
    """A manifest may name its content by any registered algorithm, if it was pushed by that digest."""
    config = await repository.push_blob(CONFIG, "sha512")
    await repository.push_blob(LAYER, "blake3")
    document = image() | {
        "config": descriptor(CONFIG, OCI_CONFIG, "sha512"),
        "layers": [descriptor(LAYER, OCI_LAYER, "blake3")],
    }
    assert document["config"]["digest"] == config
    await repository.push(document, "mixed")
    response = await repository.put(image(), "latest")
    assert len(errors(response, 404, "MANIFEST_BLOB_UNKNOWN")) == 2


@pytest.mark.parametrize("limit", [1024, 4 * 1024 * 1024])
async def test_too_large(opened: Opener, limit: int) -> None:
    """A manifest of exactly the limit is taken; one byte more is 413 MANIFEST_INVALID telling the limit."""
    repository = await opened(**({} if limit > 1024 else {"manifest_limit": limit}))
    await repository.push_blob(CONFIG)
    fitting = encode(image(layers=[], annotations={"filling": ""}))
    fitting = fitting.replace(b'"filling": "', b'"filling": "' + b"x" * (limit - len(fitting)))
    assert len(fitting) == limit
    await repository.push(fitting, "large")
    large = fitting + b" "
    response = await repository.put(large, "larger")
    assert detail(response, 413, "MANIFEST_INVALID") == {"allowed": limit, "announced": limit + 1}
    response = await repository.client.put(repository.at("manifests/larger"), content=pieces(large[:9], large[9:]))
    assert detail(response, 413, "MANIFEST_INVALID") == {"allowed": limit}
    assert await repository.tags() == ["large"]


@pytest.mark.parametrize("announced", [None, "1000000000"])
async def test_too_large_is_cut_off(registry: Registry, announced: str | None) -> None:
    """A body over the limit is not taken to its end: at most the limit, and what draining allows, is read."""
    piece = b" " * 65536
    thousand_megabytes = (body(piece, more=True) for _ in range(16 * 1024))
    headers = {"content-type": OCI_MANIFEST}
    headers |= {"content-length": announced} if announced else {"transfer-encoding": "chunked"}
    exchange = Exchange(create_app(registry), "PUT", "/v2/a/manifests/latest", headers, thousand_megabytes)
    await exchange.run()
    assert exchange.response.status_code == 413
    assert exchange.response.headers["connection"] == "close"
    assert exchange.taken * len(piece) <= (1 if announced else 5) * 1024 * 1024 + 2 * len(piece)


async def test_expecting_client_sends_nothing(registry: Registry) -> None:
    """A client that waits for 100-continue before a body that is too large is refused without reading any of it."""
    headers = {"content-length": "5000000", "expect": "100-continue", "content-type": OCI_MANIFEST}
    messages = [body(b" ", more=True)] * 10
    exchange = await Exchange(create_app(registry), "PUT", "/v2/a/manifests/latest", headers, messages).run()
    assert (exchange.response.status_code, exchange.taken) == (413, 0)
