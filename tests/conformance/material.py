"""What the matrix pushes: every kind of content, built from the words of the image specification."""

import base64
import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from blake3 import blake3

Descriptor = dict[str, Any]

ALGORITHMS: Final = ("sha256", "sha512", "blake3")
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
SBOM: Final = "application/vnd.example.sbom.v1"
SIGNATURE: Final = "application/vnd.example.signature.v1"
LARGEST: Final = 4 * 1024 * 1024  # of a manifest, in bytes, by default
MANY_LAYERS: Final = 24

NAMES: Final = (
    "0",
    "a.b_c__d---e/f0",
    "manifests/tags",
    "blobs",
    "a/blobs/uploads",
    "tags/list/referrers",
    "x" * 200,
)
INVALID_NAMES: Final = (
    "Upper",
    "a//b",
    "-a",
    "a-",
    "a..b",
    "a___b",
    "a/_b",
    "a/.b",
    "a.",
    "\u00e9",
    "a%20b",
    "x" * 256,
)
INVALID_TAGS: Final = (".a", "-a", "a+b", "a@b", "a%20b", "\u00e9", "x" * 129)
MALFORMED_DIGESTS: Final = (
    "sha256:abc",
    f"sha256:{'A' * 64}",
    f"sha256:{'g' * 64}",
    f"sha256:{'0' * 65}",
    f"sha512:{'0' * 64}",
    f"SHA256:{'0' * 64}",
    f"md5:{'0' * 32}",
    "sha256:",
    f":{'0' * 64}",
)
INVALID_MANIFESTS: Final = (
    (b"", OCI_MANIFEST),
    (b"{", OCI_MANIFEST),
    (b"[]", OCI_INDEX),
    (b"\xff{}", OCI_INDEX),
    (b'{"schemaVersion": 2, "manifests": [{}]}', OCI_INDEX),
    (json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}).encode(), OCI_INDEX),
)


def digest_of(content: bytes, algorithm: str) -> str:
    """The digest, computed without the code under test."""
    made = blake3(content) if algorithm == "blake3" else hashlib.new(algorithm, content)
    return f"{algorithm}:{made.hexdigest()}"


@dataclass(frozen=True)
class Blob:
    """Bytes under a digest."""

    content: bytes
    algorithm: str = "sha256"

    @cached_property
    def digest(self) -> str:
        return digest_of(self.content, self.algorithm)

    def descriptor(self, media_type: str, **fields: Any) -> Descriptor:
        """What a manifest says of it."""
        return {"mediaType": media_type, "digest": self.digest, "size": len(self.content), **fields}


@dataclass(frozen=True)
class Manifest(Blob):
    """A manifest or index; ``blobs`` and ``children`` are pushed before it.

    ``absent`` is what its descriptors name and nobody pushes.
    """

    media_type: str = OCI_MANIFEST
    blobs: tuple[Blob, ...] = ()
    children: tuple["Manifest", ...] = ()
    absent: tuple[Blob, ...] = ()

    @cached_property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.content)
        return document

    @property
    def subject(self) -> str | None:
        """The digest of what it refers to."""
        subject = self.document.get("subject")
        return subject["digest"] if subject else None

    @property
    def refers(self) -> Descriptor:
        """Its entry in a referrers list; spec "Listing Referrers"."""
        entry = self.descriptor(self.media_type)
        artifact_type = self.document.get("artifactType")
        if not artifact_type and "manifests" not in self.document:
            artifact_type = self.document["config"]["mediaType"]
        if artifact_type:
            entry["artifactType"] = artifact_type
        if annotations := self.document.get("annotations"):
            entry["annotations"] = annotations
        return entry

    def walk(self) -> Iterator["Manifest"]:
        """Every manifest of it in the order of their pushes, itself the last."""
        for child in self.children:
            yield from child.walk()
        yield self


@dataclass(frozen=True)
class Maker:
    """Makes content whose digests use ``algorithm`` and whose bytes are no other ``seed``'s."""

    algorithm: str
    seed: str

    def noise(self, label: str, size: int) -> bytes:
        """Bytes that do not compress, the same each time."""
        return random.Random(f"{self.seed} {label}").randbytes(size)

    def blob(self, content: bytes) -> Blob:
        return Blob(content, self.algorithm)

    @property
    def empty(self) -> Blob:
        """The empty descriptor's content; image-spec "Guidance for an Empty Descriptor"."""
        return self.blob(b"{}")

    def tar(self, label: str, size: int = 3000) -> bytes:
        """A layer: one file of ``size`` bytes in a tar."""
        out, member = io.BytesIO(), tarfile.TarInfo(f"{label}.bin")
        member.size = size
        with tarfile.open(fileobj=out, mode="w") as layer:
            layer.addfile(member, io.BytesIO(self.noise(label, size)))
        return out.getvalue()

    def manifest(self, config: Descriptor, layers: list[Descriptor], *blobs: Blob, **more: Any) -> Manifest:
        """An image manifest; ``more`` are its further fields."""
        return self.document({"config": config, "layers": layers, **more}, OCI_MANIFEST, blobs=blobs)

    def index(self, children: list[Manifest], **more: Any) -> Manifest:
        """An index of ``children``, each for a platform of its own."""
        entries = [
            child.descriptor(child.media_type, platform={"os": "linux", "architecture": f"machine{n}"})
            for n, child in enumerate(children)
        ]
        return self.document({"manifests": entries, **more}, OCI_INDEX, children=tuple(children))

    def document(self, fields: dict[str, Any], media_type: str, **parts: Any) -> Manifest:
        """A manifest of ``fields``."""
        content = json.dumps({"schemaVersion": 2, "mediaType": media_type, **fields}).encode()
        return Manifest(content, self.algorithm, media_type, **parts)

    def image(
        self,
        label: str = "image",
        *,
        layers: int = 2,
        size: int = 3000,
        zipped: bool = True,
        media_types: tuple[str, str, str] = (OCI_MANIFEST, OCI_CONFIG, f"{OCI_LAYER}+gzip"),
        **more: Any,
    ) -> Manifest:
        """An image with a true config: it names the digest of each uncompressed layer."""
        tars = [self.tar(f"{label}{n}", size) for n in range(layers)]
        blobs = [self.blob(gzip.compress(each, mtime=0) if zipped else each) for each in tars]
        root = {"type": "layers", "diff_ids": [digest_of(each, "sha256") for each in tars]}
        configured = {"architecture": "amd64", "os": "linux", "author": f"{self.seed} {label}", "rootfs": root}
        config = self.blob(json.dumps(configured).encode())
        manifest_type, config_type, layer_type = media_types
        fields = {
            "config": config.descriptor(config_type),
            "layers": [each.descriptor(layer_type) for each in blobs],
            **more,
        }
        return self.document(fields, manifest_type, blobs=(config, *blobs))

    def artifact(self, label: str, artifact_type: str | None = SBOM, **more: Any) -> Manifest:
        """An artifact of one layer; image-spec "Guidelines for Artifact Usage"."""
        layer = self.blob(self.noise(label, 700))
        typed = {"artifactType": artifact_type} if artifact_type else {}
        layers = [layer.descriptor("application/vnd.example.data")]
        return self.manifest(self.empty.descriptor(OCI_EMPTY), layers, self.empty, layer, **typed, **more)


Kind = Callable[[Maker], Manifest]
KINDS: Final[dict[str, Kind]] = {}
SPARSE: Final = ("sparse image", "sparse index")


def _kind(function: Kind) -> Kind:
    KINDS[function.__name__.replace("_", " ")] = function
    return function


@_kind
def image(make: Maker) -> Manifest:
    return make.image(size=100_000)


@_kind
def uncompressed_image(make: Maker) -> Manifest:
    return make.image(zipped=False, media_types=(OCI_MANIFEST, OCI_CONFIG, OCI_LAYER))


@_kind
def many_layers(make: Maker) -> Manifest:
    return make.image(layers=MANY_LAYERS, size=10)


@_kind
def large_manifest(make: Maker) -> Manifest:
    return sized(make, LARGEST - 1)


@_kind
def index(make: Maker) -> Manifest:
    return make.index([make.image("one"), make.image("two")], annotations={"org.example.note": "two of them"})


@_kind
def nested_index(make: Maker) -> Manifest:
    return make.index([make.index([make.image("inner")]), make.image("outer")])


@_kind
def empty_index(make: Maker) -> Manifest:
    return make.index([], annotations={"org.example.made.for": make.seed})


@_kind
def artifact(make: Maker) -> Manifest:
    return make.artifact("artifact", annotations={"org.opencontainers.image.created": "2026-01-02T03:04:05Z"})


@_kind
def artifact_without_layers(make: Maker) -> Manifest:
    """The empty descriptor stands where a layer would; image-spec "Guidelines for Artifact Usage"."""
    empty, note = make.empty.descriptor(OCI_EMPTY), {"org.example.made.for": make.seed}
    return make.manifest(empty, [empty], make.empty, artifactType=SIGNATURE, annotations=note)


@_kind
def artifact_index(make: Maker) -> Manifest:
    return make.index([make.artifact("one"), make.artifact("two", SIGNATURE)], artifactType=SBOM)


@_kind
def artifacts_with_subject(make: Maker) -> Manifest:
    """The last of several artifacts about one image, with annotations; another has its config's type."""
    subject = make.image("subject")
    about = subject.descriptor(OCI_MANIFEST)
    config = make.blob(make.noise("config", 90))
    configured = make.manifest(config.descriptor("application/vnd.example.config"), [], config, subject=about)
    notes = {"org.example.sbom.format": "json", "org.example.\u00e9": "\u00fc"}
    others = (subject, make.artifact("signature", SIGNATURE, subject=about), configured)
    return replace(make.artifact("sbom", subject=about, annotations=notes), children=others)


@_kind
def index_with_subject(make: Maker) -> Manifest:
    """An index about an image; it has no artifact type, so its entry has none."""
    subject, note = make.image("subject"), {"org.example.kind": "index"}
    made = make.index([make.image("child")], subject=subject.descriptor(OCI_MANIFEST), annotations=note)
    return replace(made, children=(subject, *made.children))


@_kind
def missing_subject(make: Maker) -> Manifest:
    """Its subject is pushed by nobody."""
    return make.artifact("artifact", subject=make.image("never pushed").descriptor(OCI_MANIFEST))


@_kind
def data_field(make: Maker) -> Manifest:
    """Descriptors that embed their content; image-spec "Embedded Content"."""
    layer = make.blob(make.noise("embedded", 60))
    config, embedded = (
        each.descriptor(media_type, data=base64.b64encode(each.content).decode())
        for each, media_type in ((make.empty, OCI_EMPTY), (layer, "application/vnd.example.data"))
    )
    return make.manifest(config, [embedded], make.empty, layer, artifactType=SBOM)


@_kind
def nondistributable_layers(make: Maker) -> Manifest:
    """Two layers that live elsewhere; image-spec "Non-Distributable Layers"."""
    here, away = (
        make.blob(gzip.compress(make.tar("here"), mtime=0)),
        [make.blob(make.tar(f"away{n}")) for n in (1, 2)],
    )
    config = make.blob(json.dumps({"os": "windows", "author": make.seed}).encode())
    suffixes = ("", "+gzip")
    elsewhere = [
        each.descriptor(
            f"application/vnd.oci.image.layer.nondistributable.v1.tar{suffix}", urls=["https://layers.example/1"]
        )
        for each, suffix in zip(away, suffixes, strict=True)
    ]
    layers = [*elsewhere, here.descriptor(f"{OCI_LAYER}+gzip")]
    fields = {"config": config.descriptor(OCI_CONFIG), "layers": layers}
    return make.document(fields, OCI_MANIFEST, blobs=(config, here), absent=tuple(away))


@_kind
def custom_fields(make: Maker) -> Manifest:
    """Fields that no specification knows, written as no encoder would: the bytes are to be kept."""
    plain = make.image()
    fields = plain.document | {"org.example.custom": {"deep": [1.5e3, None, "\u2603"]}, "zero": 0}
    fields["layers"][0] |= {"org.example.more": True}
    text = json.dumps(fields, indent="\t", sort_keys=True, ensure_ascii=False).replace("org.", "\\u006frg.")
    return replace(plain, content=f"\n {text}\r\n\n".encode())


@_kind
def no_layers(make: Maker) -> Manifest:
    return make.image(layers=0)


@_kind
def empty_blob(make: Maker) -> Manifest:
    """A layer of no bytes."""
    nothing, config = make.blob(b""), make.blob(json.dumps({"author": make.seed}).encode())
    return make.manifest(config.descriptor(OCI_CONFIG), [nothing.descriptor(OCI_LAYER)], config, nothing)


@_kind
def docker_manifest(make: Maker) -> Manifest:
    return make.image(media_types=(DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER))


@_kind
def docker_list(make: Maker) -> Manifest:
    children = [make.image(label, media_types=(DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)) for label in "ab"]
    entries = make.index(children).document["manifests"]
    return make.document({"manifests": entries}, DOCKER_LIST, children=tuple(children))


@_kind
def sparse_image(make: Maker) -> Manifest:
    """An image whose config and first layer are pushed, the second layer not."""
    whole = make.image()
    return replace(whole, blobs=whole.blobs[:-1], absent=whole.blobs[-1:])


@_kind
def sparse_index(make: Maker) -> Manifest:
    """An index of two images of which one is pushed."""
    there, away = make.image("there"), make.image("away")
    return replace(make.index([there, away]), children=(there,), absent=(away,))


def sized(make: Maker, size: int) -> Manifest:
    """An image whose manifest has exactly ``size`` bytes."""
    room = size - len(make.image(annotations={"org.example.padding": ""}).content)
    return make.image(annotations={"org.example.padding": "x" * room})


def attachments(make: Maker, subject: Manifest) -> tuple[Manifest, ...]:
    """What may be attached to any manifest: two types of artifact, one typed by its config, and an index."""
    about: dict[str, Any] = {"subject": subject.descriptor(subject.media_type)}
    config = make.blob(make.noise("attached config", 80))
    return (
        make.artifact("sbom", annotations={"org.example.sbom.format": "spdx"}, **about),
        make.artifact("signature", SIGNATURE, **about),
        make.manifest(config.descriptor("application/vnd.example.config"), [], config, **about),
        make.index([], annotations={"org.example.made.for": make.seed}, **about),
    )
