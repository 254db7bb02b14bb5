"""Paths, queries and headers that no client should send, most of them near enough to good ones to get far."""

from typing import Final
from urllib.parse import quote

from hypothesis import strategies as st

from moorage.spec.digest import compute
from moorage.spec.manifest import KNOWN_TYPES, OCI_INDEX, OCI_MANIFEST
from tests.fuzz.bodies import BLOB, EMPTY, STORED

NAME: Final = "library/busybox"
FALLBACK: Final = compute(STORED).replace(":", "-")
UPLOAD: Final = "{upload}"  # stands for a session that is open
KEPT_BLOB: Final = f"/v2/{NAME}/blobs/{compute(BLOB)}"
KEPT_MANIFEST: Final = f"/v2/{NAME}/manifests/latest"


def mostly(good: st.SearchStrategy[str], odd: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Four times out of five a good one."""
    return st.integers(0, 4).flatmap(lambda luck: odd if luck == 4 else good)


names = mostly(
    st.just(NAME),
    st.sampled_from(
        [
            "a",
            "a/b",
            "a/blobs",
            "a/blobs/uploads",
            "tags",
            "v2",
            "_catalog",
            "A",
            "a//b",
            "..",
            "a/../../secret",
            "a" * 256,
        ]
    ),
)
digests = mostly(
    st.sampled_from([compute(BLOB), compute(STORED), compute(EMPTY)]),
    st.sampled_from(
        [
            compute(BLOB, "sha512"),
            compute(BLOB, "blake3"),
            "sha256:" + "0" * 64,
            "sha256:" + "0" * 63,
            "sha256:" + "A" * 64,
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:../../../secret",
            "sha256:",
            ":",
            "sha256:" + "a" * 5000,
        ]
    ),
)
tags = mostly(
    st.sampled_from(["latest", "v1", FALLBACK]),
    st.sampled_from(["sha256-" + "0" * 64, "-", "a" * 129, "..", "list", "uploads", "", "x" * 9000]),
)
uploads = mostly(
    st.just(UPLOAD),
    st.sampled_from(["00000000-0000-0000-0000-000000000000", "..", "../../../../secret", "0" * 2000]),
)

_PULL: Final = ("GET", "HEAD")
_KINDS: Final[tuple[tuple[str, st.SearchStrategy[str], tuple[str, ...]], ...]] = (
    ("blobs", digests, (*_PULL, "DELETE")),
    ("manifests", st.one_of(tags, digests), (*_PULL, "PUT", "DELETE")),
    ("blobs/uploads", st.just(""), ("POST",)),
    ("blobs/uploads", uploads, (*_PULL, "PATCH", "PUT", "DELETE")),
    ("blobs/uploads", uploads, ("PATCH", "PUT")),
    ("tags", st.just("list"), _PULL),
    ("referrers", digests, _PULL),
    ("_oci/ext", st.just("discover"), _PULL),
)
METHODS: Final = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "PROPFIND")


@st.composite
def endpoint_requests(draw: st.DrawFn) -> tuple[str, str]:
    """A method and a path of one of the endpoints; most of their parts are good."""
    kind, references, methods = draw(st.sampled_from(_KINDS))
    method = draw(mostly(st.sampled_from(methods), st.sampled_from(METHODS)))
    return method, f"/v2/{draw(names)}/{kind}/{draw(references)}"


_words = st.sampled_from(
    "v2 .. . blobs uploads manifests tags list referrers _catalog _oci ext discover secret root etc".split()  # noqa: SIM905
)
_odd = st.sampled_from(["", "//", "a" * 300, "a" * 9000]) | st.sampled_from(
    """
    %2e%2e %2E%2E%2F ..%2f %2F %5c..%5c \\..\\ %00 a%00b %ff%fe %c3%28 % %zz %2 %25 %252e%252e %0d%0aX:y + ; : @ * ~
    %e2%80%ae %f0%9f%90%b3 %ed%a0%80 file: C: latest. %20 sha256%3A00
    """.split()  # noqa: SIM905  a table of words
)
_text = st.text(max_size=12).map(lambda text: quote(text.encode("utf-8", "replace"), safe=""))
_segments = st.one_of(_words, _odd, _text, names, digests, tags, uploads)


def _escaped(path: str, draw: st.DrawFn) -> str:
    """``path`` with some of its characters percent-encoded, the slashes among them."""
    chosen = draw(st.sets(st.integers(0, max(0, len(path) - 1)), max_size=4))
    return "".join(f"%{ord(each):02X}" if n in chosen and each.isascii() else each for n, each in enumerate(path))


@st.composite
def paths(draw: st.DrawFn) -> str:
    """An endpoint's path with some of it encoded, or segments of all kinds in any order."""
    if draw(st.integers(0, 2)) == 0:
        return _escaped(draw(endpoint_requests())[1].replace(UPLOAD, "0"), draw)
    start = draw(st.sampled_from(["/v2/", "/", "/v2/library/busybox/", "/v2/..%2f", "/v2//"]))
    return start + "/".join(draw(st.lists(_segments, max_size=7)))


_values = st.one_of(
    digests,
    tags,
    names,
    _text,
    st.sampled_from(["", "0", "1", "-1", "1e9", "999999999", "9" * 40, "%00", "%ff", "sha512", "sha1", "٣", "*"]),
)
_keys = st.sampled_from(["digest", "mount", "from", "tag", "n", "last", "artifactType", "digest-algorithm", "", "x"])
_pairs = st.lists(st.tuples(_keys, _values), max_size=5).map(
    lambda pairs: "&".join(f"{key}={quote(value, safe='%:/*-_.')}" for key, value in pairs)
)
_many_tags = st.integers(20, 60).map(lambda count: "&".join(f"tag=t{n}" for n in range(count)))
queries = st.one_of(
    st.just(""),
    digests.map("digest={}".format),
    st.tuples(digests, names).map(lambda pair: f"mount={pair[0]}&from={pair[1]}"),
    _pairs,
    st.sampled_from(["%", "&=&=%00", "n=1", "digest-algorithm=blake3", "&" * 5000]),
    _many_tags,
)


def joined(path: str, query: str) -> str:
    """A request target."""
    return f"{path}?{query}" if query else path


_numbers = st.sampled_from(["0", "1", "5", "19", "20", "21", "-1", "", "9" * 17, "9" * 30, "0x1", "1.5", "\xd9\xa3"])
_spans = st.tuples(_numbers, mostly(st.just("-"), st.sampled_from(["--", "", ","])), _numbers).map("".join)
_ranges = st.one_of(
    st.lists(_spans, max_size=5).map(lambda spans: "bytes=" + ",".join(spans)),
    st.integers(30, 300).map(lambda count: "bytes=" + ",".join(f"{n}-{n}" for n in range(count))),
    st.sampled_from(["bytes", "bytes=", "bytes = 0-1", "items=0-1", "BYTES=0-0,-1", "bytes=0-1, ,2-3", "bytes=-0"]),
)
_entity_tags = st.one_of(
    digests.map('"{}"'.format),
    digests.map('W/"{}"'.format),
    st.sampled_from(["*", "", '"', '""', '"a', "a", ' * , "b"', ",,,", '"a" "b"', '"' * 500, "W/", "\xff"]),
)
media_types = mostly(
    st.sampled_from(KNOWN_TYPES),
    st.sampled_from(
        [
            "",
            ";",
            "/",
            "a",
            "a/b/c",
            "application/json; charset=utf-8",
            f"{OCI_MANIFEST};x",
            OCI_INDEX.upper(),
            "\xe9/\xe9",
            "multipart/form-data; boundary=x",
            "text/html\x0b",
            "x/" + "y" * 3000,
            "*/*",
        ]
    ),
)
_printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40)
_others = st.sampled_from(
    """
    X-Forwarded-Host X-Forwarded-Proto Forwarded Host Authorization Cookie Origin Accept-Encoding If-Modified-Since
    If-Unmodified-Since Docker-Content-Digest X
    """.split()  # noqa: SIM905  a table of words
)
headers = st.lists(
    st.one_of(
        st.tuples(st.just("Range"), _ranges),
        st.tuples(st.just("Content-Range"), st.one_of(_spans, _ranges)),
        st.tuples(st.sampled_from(["If-Match", "If-None-Match", "If-Range"]), _entity_tags),
        st.tuples(st.sampled_from(["Accept", "Content-Type"]), media_types),
        st.tuples(_others, _printable),
    ),
    max_size=4,
)
