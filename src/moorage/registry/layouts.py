"""What other programs' trees hold: repositories with their tags, manifests, and where the bytes are.

A storage tree of distribution (v2, v3), an OCI image layout, a folder of such layouts, an archive of docker.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from moorage.spec import digest as digests
from moorage.spec.digest import Digest
from moorage.spec.errors import DigestInvalid
from moorage.spec.manifest import OCI_MANIFEST
from moorage.spec.names import TAG
from moorage.storage.trees import PLACES, Tree, data_path

REF_NAME: Final = "org.opencontainers.image.ref.name"
IMAGE_LAYOUT: Final = "oci-layout"
_CONTAINERD_NAME: Final = "io.containerd.image.name"  # the whole name, where the other is but the tag
_OLAREG_REFERRERS: Final = "org.olareg.referrer.subject"  # a list that olareg keeps, pushed by nobody
_LONGEST: Final = 64 * 1024 * 1024  # of an index.json or manifest.json
_AT_ONCE: Final = 32
_OCI: Final = "application/vnd.oci.image"
_PACKED: Final = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}

Told = Callable[[str], None]  # what is missing or damaged


class SourceUnknown(RuntimeError):
    """The source is none of the layouts that can be imported."""


@dataclass(slots=True)
class Origin:
    """A repository of a tree. ``path_of`` says where a digest's bytes are, unless ``made`` holds them."""

    repository: str
    path_of: Callable[[Digest], str]
    tags: list[tuple[str, Digest]] = field(default_factory=list)
    manifests: list[Digest] = field(default_factory=list)
    made: dict[str, bytes] = field(default_factory=dict)


async def origins(tree: Tree, name: str | None, told: Told) -> AsyncIterator[Origin]:
    """The repositories of ``tree``. ``name`` is that of the only one, or stands before those of several.

    Raises ``SourceUnknown``.
    """
    prefix = f"{name.rstrip('/')}/" if name else ""
    for place in PLACES:
        if "repositories/" in await tree.entries(place) and (
            place or "blobs/" in await tree.entries(place) or await _is_repository(tree, "repositories/")
        ):
            async for each in _distribution(tree, place, "", prefix, told):
                yield each
            return
    if await _is_layout(tree, ""):
        async for each in _layout(tree, "", name, tree.name, told):
            yield each
    elif await tree.size("manifest.json") is not None:
        async for each in _docker_archive(tree, name, told):
            yield each
    else:
        found = False
        async for folder in _layouts(tree, ""):
            found = True
            repository = prefix + folder.rstrip("/")
            async for each in _layout(tree, folder, repository, repository, told):
                yield each
        if not found:
            raise SourceUnknown(
                f"{tree.name} holds nothing that can be imported; allowed: a storage tree of distribution "
                "(docker/registry/v2), an OCI image layout or a folder of them, a tar of a layout or of docker save"
            )


async def read_whole(tree: Tree, path: str, limit: int) -> bytes:
    """A small file; raises ``OSError``, also where it is larger than ``limit`` bytes."""
    content = bytearray()
    async for piece in tree.read(path):
        content += piece
        if len(content) > limit:
            raise OSError(f"{path} is larger than {limit} bytes")
    return bytes(content)


async def _is_repository(tree: Tree, folder: str) -> bool:
    """Whether one of the folders is a repository, or holds one."""
    for each in await tree.entries(folder):
        if each == "_manifests/" or (each.endswith("/") and await _is_repository(tree, folder + each)):
            return True
    return False


async def _distribution(tree: Tree, place: str, name: str, prefix: str, told: Told) -> AsyncIterator[Origin]:
    """The repository ``name`` of a storage tree (or none), and those below it."""
    folder = f"{place}repositories/{name}"
    names = await tree.entries(folder)
    if "_manifests/" in names:
        origin = Origin(prefix + name.rstrip("/"), lambda digest: data_path(place, digest.algorithm, digest.encoded))
        revisions = f"{folder}_manifests/revisions/"
        for algorithm in await tree.entries(revisions):
            async for encoded, link in _links(tree, revisions + algorithm, "", told):
                if link == f"{algorithm.rstrip('/')}:{encoded}":
                    origin.manifests.append(link)
                else:
                    told(f"{revisions}{algorithm}{encoded}/link names {link}")
        there = set(origin.manifests)
        async for tag, link in _links(tree, f"{folder}_manifests/tags/", "current/", told):
            if link in there:
                origin.tags.append((tag, link))
            else:
                told(f"{origin.repository}:{tag}: names {link}, which was deleted there")
        yield origin
    for each in names:
        if each.endswith("/") and not each.startswith(("_", ".")):
            async for below in _distribution(tree, place, name + each, prefix, told):
                yield below


async def _links(tree: Tree, folder: str, below: str, told: Told) -> AsyncIterator[tuple[str, Digest]]:
    """Each folder in ``folder`` and what its link file, ``below`` it, says; some are read at once, for a bucket."""
    names = [each.rstrip("/") for each in await tree.entries(folder)]
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        links = await asyncio.gather(*(_link(tree, f"{folder}{name}/{below}link", told) for name in some))
        for name, link in zip(some, links, strict=True):
            if link is not None:
                yield name, link


async def _link(tree: Tree, path: str, told: Told) -> Digest | None:
    """The digest in a link file; None where there is none (it was deleted), or it is told why not."""
    try:
        content = await read_whole(tree, path, 1024)
        return Digest.parse(content.decode("ascii").strip())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        told(f"{path}: {error}")
    except DigestInvalid:
        told(f"{path} is empty" if not content else f"{path} holds no digest")
    return None


async def _is_layout(tree: Tree, folder: str) -> bool:
    return all([await tree.size(f"{folder}{each}") is not None for each in ("index.json", IMAGE_LAYOUT)])


async def _layouts(tree: Tree, folder: str) -> AsyncIterator[str]:
    """The folders that are layouts, below ``folder``."""
    for each in await tree.entries(folder):
        below = folder + each
        if each.endswith("/") and not each.startswith(("_", ".")) and each != "blobs/":
            if await _is_layout(tree, below):
                yield below
            async for found in _layouts(tree, below):
                yield found


async def _layout(tree: Tree, folder: str, name: str | None, default: str, told: Told) -> AsyncIterator[Origin]:
    """The repositories that a layout's index names, ``default`` if it names none; ``name`` as in ``origins``."""
    document = await _json(tree, f"{folder}index.json", told)
    entries = document.get("manifests") if isinstance(document, dict) else None
    found: dict[str, Origin] = {}
    for entry in entries if isinstance(entries, list) else ():
        try:
            digest = Digest.parse(entry["digest"])
            annotations = entry.get("annotations") or {}
            title = annotations.get(_CONTAINERD_NAME) or annotations.get(REF_NAME) or ""
            repository, tag = ("", title) if TAG.fullmatch(title) else split_name(title)
        except (DigestInvalid, KeyError, TypeError, AttributeError):
            told(f"{folder}index.json: {str(entry)[:256]} is no descriptor")
            continue
        repository = repository or default
        origin = found.setdefault(
            repository, Origin(repository, lambda each: f"{folder}blobs/{each.algorithm}/{each.encoded}")
        )
        if tag:
            origin.tags.append((tag, digest))
        if _OLAREG_REFERRERS in annotations:
            origin.manifests += await _children(tree, origin.path_of(digest), told)
        elif digest not in origin.manifests:
            origin.manifests.append(digest)
    for origin in _named(found, name):
        yield origin


def _named(found: dict[str, Origin], name: str | None) -> Iterable[Origin]:
    """``found`` under the ``name`` that was given, if one was: the only one bears it, several stand below it."""
    for origin in found.values():
        if name:
            origin.repository = name if len(found) == 1 else f"{name.rstrip('/')}/{origin.repository}"
        yield origin


async def _children(tree: Tree, path: str, told: Told) -> list[Digest]:
    document = await _json(tree, path, told)
    try:
        return [Digest.parse(each["digest"]) for each in document["manifests"]]
    except (DigestInvalid, KeyError, TypeError):
        told(f"{path} is no list of referrers")
        return []


async def _docker_archive(tree: Tree, name: str | None, told: Told) -> AsyncIterator[Origin]:
    """The images of an archive without an index: each becomes a manifest over the layers as they are."""
    images = await _json(tree, "manifest.json", told)
    found: dict[str, Origin] = {}
    paths: dict[Digest, str] = {}
    for image in images if isinstance(images, list) else ():
        try:
            tags = [split_name(each) for each in image.get("RepoTags") or ()] or [("", "")]
            content = await _manifest_of(tree, image["Config"], image["Layers"] or (), paths)
        except OSError as error:
            told(f"{tree.name}: {', '.join(image.get('RepoTags') or ()) or image['Config']}: {error}")
            continue
        except (KeyError, TypeError, AttributeError):
            told(f"manifest.json: {str(image)[:256]} is no image")
            continue
        digest = digests.compute(content)
        for repository, tag in tags:
            called = repository or tree.name
            origin = found.setdefault(called, Origin(called, lambda each: paths.get(each, each)))
            origin.made[digest] = content
            origin.manifests.append(digest)
            if tag:
                origin.tags.append((tag, digest))
    for origin in _named(found, name):
        yield origin


async def _manifest_of(tree: Tree, config: str, layers: Sequence[str], paths: dict[Digest, str]) -> bytes:
    described: list[dict[str, Any]] = []
    for path in (config, *layers):
        hasher, size, head = digests.new_hasher("sha256"), 0, b""
        async for piece in tree.read(path):
            head = head or piece[:4]
            size += len(piece)
            hasher.update(piece)
        digest = digests.digest_of(hasher, "sha256")
        paths[digest] = path
        packed = next((suffix for magic, suffix in _PACKED.items() if head.startswith(magic)), "")
        kind = f"{_OCI}.layer.v1.tar{packed}" if described else f"{_OCI}.config.v1+json"
        described.append({"mediaType": kind, "digest": digest, "size": size})
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0], "layers": described[1:]}
    return json.dumps(manifest, separators=(",", ":")).encode()


async def _json(tree: Tree, path: str, told: Told) -> Any:
    try:
        return json.loads(await read_whole(tree, path, _LONGEST))
    except (OSError, ValueError, RecursionError) as error:
        told(f"{path}: {error}")
        return None


def split_name(name: str) -> tuple[str, str]:
    """Repository and tag of an image's name, each empty if it has none; the registry's host is left out."""
    name = name.partition("@")[0]
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or set(".:") & set(first)):
        name = rest
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return folder + slash + last, tag
