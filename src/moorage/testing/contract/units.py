"""Small changes of facts that the contracts make."""

import itertools
import json
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from moorage.metadata import blobs, doomed, manifest_changes, repositories, tags, uploads
from moorage.metadata.base import Metadata, Query, Unit, run
from moorage.metadata.events import Change
from moorage.metadata.manifest_changes import Push
from moorage.metadata.uploads import UploadSession
from moorage.spec import digest as digests
from moorage.spec.manifest import OCI_MANIFEST, parse
from moorage.spec.preconditions import ALWAYS, Precondition
from moorage.storage.base import new_key

Result = TypeVar("Result")
LATER: Final = 4e9  # seconds since 1970: no session expires before
REPOSITORY: Final = "library/thing"
CHANGE: Final = Change(1.5, "someone")
DIGEST: Final = digests.compute(b"content")


def everything() -> Unit[None]:
    """Put something into most tables."""
    yield from blobs.add(REPOSITORY, DIGEST, 7, "key", CHANGE)
    yield from uploads.start(REPOSITORY, "upload", "sha256", 1.0, LATER)
    yield from run("add_segment", "upload", 0, 1, "segment")
    yield from manifest_changes.push(pushed("all", tags=["tag"]), CHANGE)
    yield from run("doom", "doomed", 1.0)


async def anything(metadata: Metadata) -> list[object]:
    """What ``everything`` would have left."""
    return [
        *await repositories.page(metadata, "", 10),
        *await tags.page(metadata, REPOSITORY, "", 10),
        *await doomed.page(metadata, 10),
        *await uploads.segments(metadata, "upload"),
        *await metadata.fetch("upload", "upload", REPOSITORY, 0.0),
        *await metadata.fetch("check_blobs", "", 10),
        *await metadata.fetch("check_manifests", 0, 10),
    ]


def refused(unit: Callable[[], Unit[Any]], error: Exception) -> Unit[None]:
    """Do all that ``unit`` does, then raise ``error``."""
    yield from unit()
    raise error


def spied(make: Callable[[], Unit[Result]], statements: list[Query], break_at: str | None = None) -> Unit[Result]:
    """A unit whose statements go into ``statements``; raises ``Broken`` instead of the query ``break_at``."""
    unit = make()
    statements.clear()
    try:
        asked = next(unit)
        while True:
            for statement in asked if isinstance(asked, list) else [asked]:
                if statement[0] == break_at:
                    raise Broken
                statements.append(statement)
            asked = unit.send((yield asked))
    except StopIteration as stop:
        result: Result = stop.value
        return result


class Broken(Exception):
    """What a spied unit raises."""


async def session(metadata: Metadata, repository: str = REPOSITORY) -> UploadSession:
    """A new upload session."""
    opened = UploadSession(repository, str(uuid.uuid4()), "sha256", 0, None)
    await metadata.transact(uploads.start, repository, opened.id, opened.algorithm, 1.0, LATER)
    return opened


def add_bytes(now: UploadSession, size: int) -> Unit[None]:
    """Move a session on by ``size`` bytes from where ``now`` saw it."""
    return uploads.append(now, new_key(), size, None, LATER)


async def received(metadata: Metadata, opened: UploadSession) -> int:
    """How many bytes a session has."""
    return (await uploads.find(metadata, opened.repository, opened.id, 0.0)).received


def pushed(
    text: str, *, tags: Sequence[str] = (), subject: str | None = None, precondition: Precondition = ALWAYS
) -> Push:
    """An artifact that says ``text`` on its way into ``REPOSITORY``."""
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digests.compute(b"{}"), "size": 2}
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.note",
        "config": empty,
        "layers": [],
        "annotations": {"text": text},
    }
    if subject:
        document["subject"] = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}
    content = json.dumps(document).encode()
    everything = frozenset({"manifest", "content", "config", "layer"})
    digest = digests.compute(content)
    return Push(REPOSITORY, digest, content, parse(content, OCI_MANIFEST), tags, precondition, everything)


_USED: Final = {"bytes", "tags", "repositories", "bytes_used", "tags_used", "repositories_used"}
_WHOLE: Final = _USED | {"size", "received", "start", "limit", "required", "repository_id", "seq", "beat", "allow"}
_TIMES: Final = {"at", "since"}
_BYTES: Final = {"content"}
_COMPARED: Final = re.compile(r"(\w+)\s*(?:=|<>|<=?|>=?)\s*(?:\w+ \+ )?\$(\d+)")
_LIMITED: Final = re.compile(r"(LIMIT)\s+\$(\d+)")
_INSERTED: Final = re.compile(
    r"INSERT INTO \w+\s*\((?P<columns>[^)]*)\)\s*(VALUES\s*\(|SELECT )(?P<values>[^)]*?)(\)| FROM | WHERE )"
)


def sample(text: str) -> list[int | float | str | bytes]:
    """Parameters that suit a query of ``queries.sql``, by the columns that they are compared with or put into.

    Raises ``LookupError`` for a parameter that the text says nothing about.
    """
    columns = {int(n): column.lower() for column, n in _COMPARED.findall(text) + _LIMITED.findall(text)}
    if found := _INSERTED.search(text):
        for column, value in zip(found["columns"].split(","), found["values"].split(","), strict=True):
            if value.strip().startswith("$"):
                columns.setdefault(int(value.strip()[1:]), column.strip())
    count = max(map(int, re.findall(r"\$(\d+)", text)), default=0)
    return [_value(columns[n], text) for n in range(1, count + 1)]


def _value(column: str, text: str) -> int | float | str | bytes:
    if column in _WHOLE or (column == "id" and "uploads" not in text):
        return 1
    if column in _TIMES or column.endswith(("_at", "_since")):
        return 1.0
    return b"{}" if column in _BYTES else "sample"


def reads(text: str) -> bool:
    """Whether a query changes nothing."""
    return text.lstrip().upper().startswith("SELECT") or bool(re.match(r"\s*(--[^\n]*\n\s*)+SELECT", text))


async def walk(page: Callable[[str], Any]) -> list[str]:
    """All pages, one after the other, each from where the one before ended."""
    found: list[str] = []
    for _ in itertools.count():
        more = await page(found[-1] if found else "")
        if not more:
            break
        found += more
    return found
