"""Manifests and indexes: what they must look like, and the facts that the registry takes from them.

image-spec "OCI Image Manifest", "OCI Image Index"; distribution-spec "Pushing Manifests". The bytes are stored
as they came: nothing here is ever written back.
"""

import base64
import json
import re
from typing import Any, Final, Literal, NoReturn, TypeVar

import msgspec

from moorage.spec import digest as digests
from moorage.spec.descriptor import MEDIA_TYPE, Descriptor
from moorage.spec.errors import ManifestInvalid

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
KNOWN_TYPES: Final = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
# image-spec "Non-Distributable Layers", and Docker's word for them: they may live elsewhere.
_NON_DISTRIBUTABLE: Final = re.compile(
    r"application/vnd\.oci\.image\.layer\.nondistributable\.v1\.tar(\+(gzip|zstd))?"
    r"|application/vnd\.docker\.image\.rootfs\.foreign\.diff\.tar(\.gzip)?"
)
_DEEPEST: Final = 100

_T = TypeVar("_T")
Kind = Literal["config", "layer", "manifest", "content"]


class Reference(msgspec.Struct, frozen=True):
    """One thing of ``size`` bytes that a manifest needs. ``content``: an entry of an index, of no manifest type."""

    digest: str
    kind: Kind
    path: str
    required: bool
    size: int


class Facts(msgspec.Struct, frozen=True):
    """What the registry knows of a manifest besides its bytes."""

    media_type: str
    references: tuple[Reference, ...] = ()
    subject: str | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class _Common(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: Literal[2]
    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class ImageManifest(_Common, frozen=True, rename="camel", kw_only=True):
    """``config`` is not insisted on; Go writes an empty list as null."""

    config: Descriptor | None = None
    layers: list[Descriptor] | None


class ImageIndex(_Common, frozen=True, rename="camel", kw_only=True):
    manifests: list[Descriptor] | None


class _Repeated(dict[str, Any]):
    """An object in which a key stands twice: kept apart until its place in the document is known."""

    key = ""


def parse(content: bytes, content_type: str | None, *, allow_unknown: bool = False) -> Facts:
    """The facts of a pushed manifest.

    ``content_type`` is the header as it came: parameters are ignored, and without it the body's ``mediaType`` or
    its shape decides. Raises ``ManifestInvalid`` whose ``detail`` names the JSON path.
    """
    declared = (content_type or "").partition(";")[0].strip()
    document = _load(content)
    media_type = _media_type(document, declared)
    if media_type in MANIFESTS:
        return _image_facts(document, media_type)
    if media_type in INDEXES:
        return _index_facts(document, media_type)
    if allow_unknown and MEDIA_TYPE.fullmatch(media_type):
        return Facts(media_type)
    _refuse("$.mediaType", f"unknown manifest type {media_type[:256]!r}", allowed=KNOWN_TYPES)


def _refuse(path: str, why: str, **more: Any) -> NoReturn:
    raise ManifestInvalid(f"manifest invalid: {why}", detail={"path": path, "reason": why, **more})


def _load(content: bytes) -> dict[str, Any]:
    seen_twice = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal seen_twice
        made = dict(items)
        if len(made) == len(items):
            return made
        seen_twice = True
        repeated = _Repeated(made)
        seen: set[str] = set()
        repeated.key = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return repeated

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=pairs, parse_constant=no_constant)
    except UnicodeDecodeError as error:
        _refuse("$", f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        _refuse("$", f"not JSON: {error.msg} at line {error.lineno} column {error.colno}")
    except RecursionError:
        _refuse("$", "nested too deeply")
    except ValueError as error:  # an integer of thousands of digits, NaN
        _refuse("$", f"not JSON that can be read: {error}")
    try:
        msgspec.json.decode(content)  # stricter: text that is no Unicode, numbers beyond any size
    except msgspec.DecodeError as error:
        _refuse("$", f"not JSON that can be read: {error}")
    _check_shape(document, seen_twice=seen_twice)
    if not isinstance(document, dict):
        _refuse("$", "not a JSON object")
    return document


def _check_shape(document: Any, *, seen_twice: bool) -> None:
    """Refuse what is nested beyond reason and, where the decoder met one, the object with a key that repeats."""
    level: list[tuple[str, Any]] = [("$", document)]
    for _ in range(_DEEPEST):
        below: list[tuple[str, Any]] = []
        for path, value in level:
            if isinstance(value, dict):
                if seen_twice and isinstance(value, _Repeated):
                    _refuse(f"{path}.{value.key}", "the key stands twice in one object")
                below += [(f"{path}.{key}" if seen_twice else path, each) for key, each in value.items()]
            elif isinstance(value, list):
                below += [(f"{path}[{n}]" if seen_twice else path, each) for n, each in enumerate(value)]
        if not below:
            return
        level = below
    _refuse("$", f"nested more than {_DEEPEST} deep")


def _media_type(document: dict[str, Any], declared: str) -> str:
    stated = document.get("mediaType")
    if stated is not None and not isinstance(stated, str):
        _refuse("$.mediaType", "Expected `str | null`")
    if declared and stated and stated.lower() != declared.lower():
        _refuse("$.mediaType", f"{stated[:256]!r} contradicts the Content-Type", content_type=declared[:256])
    if declared or stated:
        given = declared or str(stated)
        return given.lower() if given.lower() in KNOWN_TYPES else given
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def _convert(document: dict[str, Any], into: type[_T]) -> _T:
    try:
        return msgspec.convert(document, into)
    except msgspec.ValidationError as error:
        why, _, path = str(error).partition(" - at `")
        _refuse(path.rstrip("`") or "$", why)


def _image_facts(document: dict[str, Any], media_type: str) -> Facts:
    if "manifests" in document:
        _refuse("$.manifests", "an image manifest has layers, not manifests")
    manifest = _convert(document, ImageManifest)
    references = []
    if manifest.config is not None:
        _check(manifest.config, "$.config")
        digest, size = manifest.config.digest, manifest.config.size
        references.append(Reference(digest, "config", "$.config", required=True, size=size))
    for n, layer in enumerate(manifest.layers or ()):
        _check(layer, path := f"$.layers[{n}]")
        required = not _NON_DISTRIBUTABLE.fullmatch(layer.media_type)
        references.append(Reference(layer.digest, "layer", path, required, layer.size))
    config_type = manifest.config.media_type if manifest.config else None
    return _facts(manifest, media_type, references, manifest.artifact_type or config_type)


def _index_facts(document: dict[str, Any], media_type: str) -> Facts:
    for key in ("layers", "config"):
        if key in document:
            _refuse(f"$.{key}", f"an index has manifests, not {key}")
    index = _convert(document, ImageIndex)
    references = []
    for n, child in enumerate(index.manifests or ()):
        _check(child, path := f"$.manifests[{n}]")
        kind: Kind = "manifest" if child.media_type in KNOWN_TYPES else "content"
        references.append(Reference(child.digest, kind, path, required=True, size=child.size))
    return _facts(index, media_type, references, index.artifact_type)


def _facts(manifest: _Common, media_type: str, references: list[Reference], artifact_type: str | None) -> Facts:
    if manifest.artifact_type and not MEDIA_TYPE.fullmatch(manifest.artifact_type):
        _refuse("$.artifactType", "not a media type")
    if manifest.subject is not None:
        _check(manifest.subject, "$.subject")
    return Facts(
        media_type=media_type,
        references=tuple(references),
        subject=manifest.subject.digest if manifest.subject else None,
        artifact_type=artifact_type or None,
        annotations=manifest.annotations or None,
    )


def _check(descriptor: Descriptor, path: str) -> None:
    if not MEDIA_TYPE.fullmatch(descriptor.media_type):
        _refuse(f"{path}.mediaType", "not a media type")
    if why := digests.fault(descriptor.digest):
        _refuse(f"{path}.digest", f"invalid digest: {why}")
    if descriptor.data is not None:
        _check_data(descriptor, path)


def _check_data(descriptor: Descriptor, path: str) -> None:
    """Embedded content is the content; image-spec "Embedded Content"."""
    try:
        content = base64.b64decode(descriptor.data or "", validate=True)
    except ValueError:  # also what is not ASCII
        _refuse(f"{path}.data", "not base64")
    algorithm = descriptor.digest.partition(":")[0]
    if len(content) != descriptor.size:
        _refuse(f"{path}.data", f"holds {len(content)} bytes where size says {descriptor.size}")
    if algorithm in digests.ENCODED_LENGTH and digests.compute(content, algorithm) != descriptor.digest:
        _refuse(f"{path}.data", "does not match the digest")
