"""What a manifest must look like, and the facts taken from it."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.spec.errors import ManifestInvalid
from moorage.spec.manifest import Facts, parse
from tests.support import (
    CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY,
    EMPTY_TYPE,
    LAYER,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Json,
    artifact,
    descriptor,
    digest_of,
    encode,
    image,
    index,
)

CHILD = descriptor(b"child", OCI_MANIFEST)


def refused(content: bytes | Json, content_type: str | None = None) -> Json:
    """The detail with which a manifest is refused."""
    with pytest.raises(ManifestInvalid) as caught:
        parse(encode(content), content_type)
    (detail,) = caught.value.details
    assert caught.value.status == 400
    assert detail["reason"]
    json.dumps(detail).encode()
    found: Json = detail
    return found


def with_config(**fields: Any) -> Json:
    return image(config=CONFIG) | {"config": descriptor(CONFIG, OCI_CONFIG) | fields}


def with_layer(**fields: Any) -> Json:
    good = descriptor(LAYER, OCI_LAYER)
    return image() | {"layers": [good, good | fields]}


def with_child(**fields: Any) -> Json:
    return index([CHILD, CHILD | fields])


def without(document: Json, key: str) -> Json:
    return {name: value for name, value in document.items() if name != key}


SHAPES: list[tuple[str, Json, str]] = [
    ("no schemaVersion", without(image(), "schemaVersion"), "$"),
    ("schemaVersion 1", image(schemaVersion=1), "$.schemaVersion"),
    ("schemaVersion as text", image(schemaVersion="2"), "$.schemaVersion"),
    ("schemaVersion as a fraction", image(schemaVersion=2.5), "$.schemaVersion"),
    ("schemaVersion true", image(schemaVersion=True), "$.schemaVersion"),
    ("schemaVersion null", image(schemaVersion=None), "$.schemaVersion"),
    ("mediaType no text", image(mediaType=5), "$.mediaType"),
    ("mediaType unknown", image(mediaType="application/vnd.example"), "$.mediaType"),
    ("no layers", without(image(), "layers"), "$"),
    ("layers no list", image() | {"layers": {}}, "$.layers"),
    ("layers of text", image() | {"layers": ["x"]}, "$.layers[0]"),
    ("layers and manifests", image(manifests=[]), "$.manifests"),
    ("config no object", image() | {"config": "x"}, "$.config"),
    ("config a list", image() | {"config": []}, "$.config"),
    ("config without digest", image() | {"config": without(descriptor(CONFIG, OCI_CONFIG), "digest")}, "$.config"),
    ("config without size", image() | {"config": without(descriptor(CONFIG, OCI_CONFIG), "size")}, "$.config"),
    ("config without type", image() | {"config": without(descriptor(CONFIG, OCI_CONFIG), "mediaType")}, "$.config"),
    ("config type no text", with_config(mediaType=1), "$.config.mediaType"),
    ("config type malformed", with_config(mediaType="tar"), "$.config.mediaType"),
    ("config type empty", with_config(mediaType=""), "$.config.mediaType"),
    ("config digest malformed", with_config(digest="sha256:xyz"), "$.config.digest"),
    ("config digest empty", with_config(digest=""), "$.config.digest"),
    ("config digest no text", with_config(digest=12), "$.config.digest"),
    ("config size negative", with_config(size=-1), "$.config.size"),
    ("config size text", with_config(size="7"), "$.config.size"),
    ("config size fraction", with_config(size=1.5), "$.config.size"),
    ("config size too large", with_config(size=2**63), "$.config.size"),
    ("config size huge", with_config(size=10**30), "$.config.size"),
    ("layer digest malformed", with_layer(digest="sha256:" + "A" * 64), "$.layers[1].digest"),
    ("layer size negative", with_layer(size=-5), "$.layers[1].size"),
    ("layer urls no list", with_layer(urls="http://x"), "$.layers[1].urls"),
    ("layer urls of numbers", with_layer(urls=[1]), "$.layers[1].urls[0]"),
    ("layer annotations no object", with_layer(annotations=["a"]), "$.layers[1].annotations"),
    ("layer annotation no text", with_layer(annotations={"a": 1}), "$.layers[1].annotations[...]"),
    ("layer data no text", with_layer(data=1), "$.layers[1].data"),
    ("layer data no base64", with_layer(data="%%"), "$.layers[1].data"),
    ("layer data of another size", with_layer(data=base64.b64encode(b"x").decode()), "$.layers[1].data"),
    ("layer data of another digest", with_layer(data=base64.b64encode(LAYER[::-1]).decode()), "$.layers[1].data"),
    ("layer artifactType no text", with_layer(artifactType=[]), "$.layers[1].artifactType"),
    ("annotations no object", image(annotations="x"), "$.annotations"),
    ("annotation no text", image(annotations={"a": {}}), "$.annotations[...]"),
    ("annotation null", image(annotations={"a": None}), "$.annotations[...]"),
    ("artifactType no text", image(artifactType=1), "$.artifactType"),
    ("artifactType malformed", image(artifactType="sbom"), "$.artifactType"),
    ("subject no object", image(subject=digest_of(b"")), "$.subject"),
    ("subject digest malformed", image(subject=CHILD | {"digest": "latest"}), "$.subject.digest"),
    ("subject size negative", image(subject=CHILD | {"size": -1}), "$.subject.size"),
    ("subject without type", image(subject=without(CHILD, "mediaType")), "$.subject"),
    ("subject type malformed", image(subject=CHILD | {"mediaType": "x y"}), "$.subject.mediaType"),
    ("index without manifests", without(index(), "manifests"), "$"),
    ("index manifests no list", index() | {"manifests": {}}, "$.manifests"),
    ("index manifests of null", index() | {"manifests": [None]}, "$.manifests[0]"),
    ("index with layers", index(layers=[]), "$.layers"),
    ("index with config", index(config=CHILD), "$.config"),
    ("index schemaVersion 1", index(schemaVersion=1), "$.schemaVersion"),
    ("child digest malformed", with_child(digest="sha256"), "$.manifests[1].digest"),
    ("child size negative", with_child(size=-1), "$.manifests[1].size"),
    ("child type malformed", with_child(mediaType="/"), "$.manifests[1].mediaType"),
    ("child platform no object", with_child(platform="linux"), "$.manifests[1].platform"),
    ("child platform without os", with_child(platform={"architecture": "amd64"}), "$.manifests[1].platform"),
    ("child platform os no text", with_child(platform={"architecture": "a", "os": 1}), "$.manifests[1].platform.os"),
    ("index subject digest malformed", index(subject=CHILD | {"digest": "x"}), "$.subject.digest"),
    ("index annotation no text", index(annotations={"a": 1}), "$.annotations[...]"),
]


@pytest.mark.parametrize(("document", "path"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES])
def test_invalid_field(document: Json, path: str) -> None:
    """A known field of the wrong shape is refused by its JSON path."""
    assert refused(document)["path"] == path


TEXTS: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "$"),
    ("no JSON", b"hello", "$"),
    ("JSON cut off", encode(image())[:-1], "$"),
    ("more after it", encode(image()) + b"{}", "$"),
    ("a list", b"[]", "$"),
    ("text", b'"x"', "$"),
    ("null", b"null", "$"),
    ("a byte order mark", b"\xef\xbb\xbf" + encode(image()), "$"),
    ("UTF-16", encode(image()).decode().encode("utf-16"), "$"),
    ("invalid UTF-8", b'{"schemaVersion": 2, "layers": [], "x": "\xff"}', "$"),
    ("overlong UTF-8", b'{"schemaVersion": 2, "layers": [], "x": "\xc0\xaf"}', "$"),
    ("NaN", b'{"schemaVersion": 2, "layers": [], "x": NaN}', "$"),
    ("Infinity", b'{"schemaVersion": 2, "layers": [], "x": -Infinity}', "$"),
    ("a number of 5,000 digits", b'{"schemaVersion": 2, "layers": [], "x": 1' + b"0" * 5000 + b"}", "$"),
    ("101 deep", b'{"schemaVersion": 2, "layers": [], "x": ' + b"[" * 100 + b"]" * 100 + b"}", "$"),
    ("100,000 deep", b"[" * 100_000 + b"]" * 100_000, "$"),
    ("a key twice", b'{"schemaVersion": 2, "layers": [], "layers": []}', "$.layers"),
    ("a key twice, escaped", b'{"schemaVersion": 2, "layers": [], "l\\u0061yers": []}', "$.layers"),
    ("a key twice, deep", b'{"schemaVersion": 2, "layers": [], "x": [{}, {"a": {"b": 1, "b": 2}}]}', "$.x[1].a.b"),
    ("a single quote", b"{'schemaVersion': 2}", "$"),
    ("a trailing comma", b'{"schemaVersion": 2, "layers": [],}', "$"),
]


@pytest.mark.parametrize(("content", "path"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_invalid_text(content: bytes, path: str) -> None:
    """What is not one JSON object in UTF-8, or is nested beyond reason, is refused."""
    assert refused(content, OCI_MANIFEST)["path"] == path


def test_hundred_deep_is_taken() -> None:
    """Nesting up to the limit is nobody's business."""
    content = b'{"schemaVersion": 2, "layers": [], "x": ' + b"[" * 98 + b"]" * 98 + b"}"
    assert parse(content, OCI_MANIFEST).media_type == OCI_MANIFEST


@pytest.mark.parametrize(
    ("document", "content_type", "media_type"),
    [
        (image(), OCI_MANIFEST, OCI_MANIFEST),
        (image(), f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST),
        (image(), f" {OCI_MANIFEST} ;x=y", OCI_MANIFEST),
        (image(), OCI_MANIFEST.upper(), OCI_MANIFEST),
        (image(), None, OCI_MANIFEST),
        (image(), "", OCI_MANIFEST),
        (without(image(), "mediaType"), OCI_MANIFEST, OCI_MANIFEST),
        (without(image(), "mediaType"), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (without(image(), "mediaType"), None, OCI_MANIFEST),
        (image(mediaType=DOCKER_MANIFEST), None, DOCKER_MANIFEST),
        (image(mediaType=""), OCI_MANIFEST, OCI_MANIFEST),
        (image(mediaType=None), OCI_MANIFEST, OCI_MANIFEST),
        (index(), OCI_INDEX, OCI_INDEX),
        (without(index(), "mediaType"), None, OCI_INDEX),
        (index(mediaType=DOCKER_LIST), DOCKER_LIST, DOCKER_LIST),
    ],
)
def test_media_type(document: Json, content_type: str | None, media_type: str) -> None:
    """The Content-Type without parameters is the type; without one the body's mediaType, then its shape, tells."""
    assert parse(encode(document), content_type).media_type == media_type


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        (image(), OCI_INDEX),
        (image(), DOCKER_MANIFEST),
        (image(mediaType=OCI_INDEX), OCI_MANIFEST),
        (index(), "application/json"),
        (without(image(), "mediaType"), "application/json"),
        (without(image(), "mediaType"), "text/plain"),
        (without(image(), "mediaType"), "application/vnd.docker.distribution.manifest.v1+json"),
        (without(image(), "mediaType"), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        (without(image(), "mediaType"), "nonsense"),
    ],
)
def test_contradicted_or_unknown_type(document: Json, content_type: str) -> None:
    """A mediaType that contradicts the Content-Type is refused, and so is a type that is no manifest's."""
    assert refused(document, content_type)["path"] == "$.mediaType"


def test_unknown_type_tells_what_is_known() -> None:
    """The refusal of an unknown type lists the types that are taken."""
    assert set(refused(b"{}", "application/x")["allowed"]) == {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST}


def test_unknown_type_allowed() -> None:
    """Where unknown types are allowed, a JSON object of any well-formed type is a manifest without facts."""
    content = b'{"layers": "anything", "subject": 5}'
    assert parse(content, "application/vnd.example+json", allow_unknown=True) == Facts("application/vnd.example+json")
    with pytest.raises(ManifestInvalid):
        parse(b'"text"', "application/vnd.example+json", allow_unknown=True)
    with pytest.raises(ManifestInvalid):
        parse(content, "nonsense", allow_unknown=True)
    with pytest.raises(ManifestInvalid):
        parse(encode(image(schemaVersion=1)), OCI_MANIFEST, allow_unknown=True)


def test_facts_of_an_image() -> None:
    """An image needs its config and layers; its type is its config's; a subject is no need."""
    facts = parse(encode(image(subject=CHILD, annotations={"a": "b"})), OCI_MANIFEST)
    assert [(each.digest, each.kind, each.path, each.required) for each in facts.references] == [
        (digest_of(CONFIG), "config", "$.config", True),
        (digest_of(LAYER), "layer", "$.layers[0]", True),
    ]
    assert (facts.subject, facts.artifact_type) == (CHILD["digest"], OCI_CONFIG)
    assert facts.annotations == {"a": "b"}


@pytest.mark.parametrize(
    ("document", "artifact_type"),
    [
        (artifact("application/vnd.example"), "application/vnd.example"),
        (artifact(""), EMPTY_TYPE),
        (without(artifact(), "artifactType"), EMPTY_TYPE),
        (without(artifact("application/vnd.example"), "config"), "application/vnd.example"),
        (without(without(artifact(), "config"), "artifactType"), None),
        (artifact("application/vnd.example", config=None), "application/vnd.example"),
        (index(), None),
        (index(artifactType=""), None),
        (index(artifactType="application/vnd.example"), "application/vnd.example"),
    ],
)
def test_artifact_type(document: Json, artifact_type: str | None) -> None:
    """artifactType, else for an image the config's mediaType, else nothing."""
    assert parse(encode(document), None).artifact_type == artifact_type


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ],
)
def test_non_distributable_layer_is_not_required(media_type: str) -> None:
    """A non-distributable layer is referenced, but need not be there."""
    layer = parse(encode(with_layer(mediaType=media_type)), None).references[-1]
    assert (layer.kind, layer.required) == ("layer", False)


def test_children_of_an_index() -> None:
    """Children of a manifest type are manifests; what else an index lists may be a manifest or a blob."""
    children = [descriptor(b"a", each) for each in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, OCI_LAYER)]
    facts = parse(encode(index(children)), OCI_INDEX)
    assert [each.kind for each in facts.references] == ["manifest"] * 4 + ["content"]
    assert all(each.required for each in facts.references)


@pytest.mark.parametrize(
    "document",
    [
        image(layers=[]),
        image() | {"layers": None},
        index() | {"manifests": None},
        image(config=EMPTY, future={"a": [1, 2.5, None, True, 2**70]}),
        with_config(size=0, digest=digest_of(b"")),
        with_config(size=2**63 - 1),
        with_config(digest="md5:d41d8cd98f00b204e9800998ecf8427e"),
        with_config(digest=digest_of(CONFIG, "sha512")),
        with_config(digest=digest_of(CONFIG, "blake3")),
        with_config(data=base64.b64encode(CONFIG).decode()),
        with_config(mediaType="application/vnd.example.v1+json; charset=utf-8"),
        with_layer(urls=["https://example.com/x"], annotations={"k": "v"}, unknown=1),
        with_child(platform={"architecture": "amd64", "os": "linux", "os.version": "1", "variant": "v8", "new": 1}),
        with_child(artifactType="application/vnd.example"),
        image(annotations={}),
        image(annotations=None, subject=None, artifactType=None),
    ],
)
def test_valid_document(document: Json) -> None:
    """What image-spec allows is taken, unknown fields included."""
    assert parse(encode(document), None).media_type == document["mediaType"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations"])


@given(st.sampled_from([image(), index([CHILD])]), st.dictionaries(fields, json_values, max_size=3))
def test_any_values_are_taken_or_refused(document: Json, changed: dict[str, Any]) -> None:
    """Whatever stands in known fields, the outcome is facts or MANIFEST_INVALID with a path."""
    try:
        parse(json.dumps(document | changed).encode(), None)
    except ManifestInvalid as error:
        assert error.details[0]["path"].startswith("$")  # noqa: PT017  either outcome is right


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes) -> None:
    """Bytes that are no manifest are MANIFEST_INVALID, whatever they are."""
    assert refused(content, OCI_MANIFEST)["path"].startswith("$")
