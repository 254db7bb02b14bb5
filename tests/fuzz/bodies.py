"""Bodies: manifests that are nearly right, JSON that no parser likes, bytes."""

import copy
import json
from typing import Any, Final

from hypothesis import strategies as st

from moorage.spec.digest import compute
from moorage.spec.manifest import OCI_INDEX, OCI_MANIFEST

BLOB: Final = b"a blob that is there"
EMPTY: Final = b"{}"
CONFIG: Final = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": compute(EMPTY), "size": 2}
LAYER: Final = {"mediaType": "application/octet-stream", "digest": compute(BLOB), "size": len(BLOB)}
MANIFEST: Final[dict[str, Any]] = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "artifactType": "application/x-test",
    "config": CONFIG,
    "layers": [LAYER],
    "annotations": {"org.opencontainers.image.created": "2026-11-21T12:00:00Z"},
}
STORED: Final = json.dumps(MANIFEST).encode()
CHILD: Final = {"mediaType": OCI_MANIFEST, "digest": compute(STORED), "size": len(STORED)}
REFERRER: Final[dict[str, Any]] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "subject": CHILD}
INDEX: Final[dict[str, Any]] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [CHILD | {"platform": {"architecture": "amd64", "os": "linux"}}],
    "subject": CHILD,
}

_texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            OCI_MANIFEST,
            OCI_INDEX,
            "a/b",
            "a/b; c=d",
            "a/b\r\n;c: d",
            "a/b\u2003;c",
            "../../../secret",
            "\0",
            "\ud800",
            "\udc80/\udc80",
            "é" * 300,
            compute(BLOB),
            compute(STORED),
            "sha256:" + "0" * 64,
            "md5:" + "a" * 9000,
            "YSBibG9iIHRoYXQgaXMgdGhlcmU=",
        ]
    ),
)
# What JSON can hold, and more: its numbers are of every size.
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**4000, 1e308, float("inf"), 1.5, -0.0]),
    _texts,
)
_documents = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4)
)
_descriptors = st.sampled_from([CONFIG, LAYER, CHILD, {**LAYER, "data": "YSBibG9iIHRoYXQgaXMgdGhlcmU="}])
_good = st.one_of(
    _descriptors,
    st.lists(_descriptors, max_size=3),
    st.dictionaries(_texts, _texts, max_size=3),
    st.sampled_from([compute(BLOB), compute(STORED), len(BLOB), len(STORED), "a/b", "application/x-other"]),
)
_places = st.sampled_from(
    """
    schemaVersion mediaType artifactType config layers manifests subject annotations annotations unknown
    unknown config.digest config.size config.mediaType config.data config.urls config.annotations
    layers.0.digest layers.0.size layers.0.mediaType layers.0.annotations layers.0.data
    layers.0.artifactType manifests.0.platform manifests.0.digest manifests.0.size manifests.0.mediaType
    manifests.0.unknown subject.digest subject.size subject.mediaType annotations.a annotations.a
    layers.0.unknown
    """.split()  # noqa: SIM905  a table of words
)


def _put(document: dict[str, Any], place: str, value: Any) -> None:
    """Set what stands at ``place``, if there is anything that holds it."""
    node: Any = document
    *above, last = place.split(".")
    for part in above:
        if isinstance(node, list):
            node = node[int(part)] if part.isdigit() and node else None
        else:
            node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node[last] = copy.deepcopy(value)


@st.composite
def mutated_manifests(draw: st.DrawFn) -> bytes:
    """A good manifest or index in which a few values were replaced, and perhaps a few bytes."""
    document = copy.deepcopy(draw(st.sampled_from([MANIFEST, INDEX, REFERRER])))
    for place, value in draw(st.lists(st.tuples(_places, _good | _documents), max_size=3)):
        _put(document, place, value)
    plain = json.dumps(document, ensure_ascii=draw(st.booleans()))
    return _damaged(plain.replace("Infinity", "1e999").encode("utf-8", "surrogatepass"), draw)


def _damaged(content: bytes, draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 19))
    at = draw(st.integers(0, len(content)))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + draw(st.binary(max_size=5)) + content[at:]
    if kind == 2:
        return b"\xef\xbb\xbf" + content
    if kind == 3:
        return content.replace(b"{", b'{"schemaVersion": 2, ', 1)
    if kind == 4:
        return content.replace(b"}", b', "\\ud800": 1, "\\ud800": 2}')
    return content


def _deep(count: int, opening: bytes, closing: bytes) -> bytes:
    return b'{"schemaVersion": 2, "manifests": [], "x": ' + opening * count + b"1" + closing * count + b"}"


odd = st.one_of(
    st.binary(max_size=200),
    st.builds(_deep, st.sampled_from([50, 97, 98, 99, 100, 101, 1000, 100_000]), st.just(b"["), st.just(b"]")),
    st.builds(_deep, st.sampled_from([50, 97, 98, 99, 1000, 100_000]), st.just(b'{"a":'), st.just(b"}")),
    st.sampled_from(
        [
            b"",
            b"{}",
            b"[]",
            b"null",
            b"2",
            b'"',
            b"NaN",
            b'{"schemaVersion": NaN}',
            b"\xff\xfe{\x00}\x00",
            b"{" * 100_000,
            b'{"schemaVersion": ' + b"9" * 5000 + b"}",
            b'{"schemaVersion": 2, "layers": ' + b"[" * 2000 + b"]" * 2000 + b"}",
            b'{"schemaVersion": 2, "layers": [' + b"{}," * 500 + b"{}]}",
            STORED,
            BLOB,
            json.dumps(INDEX).encode(),
        ]
    ),
)
manifests = st.integers(0, 4).flatmap(lambda luck: odd if luck == 4 else mutated_manifests())
# In pieces a body has no length.
sent: st.SearchStrategy[bytes | list[bytes]] = st.one_of(
    manifests, st.just(BLOB), st.lists(st.one_of(st.binary(max_size=30), st.just(BLOB)), min_size=1, max_size=4)
)
