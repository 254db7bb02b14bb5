"""The bucket: the requests of the XML interface (https://cloud.google.com/storage/docs/xml-api/reference-methods)."""

import base64
import hashlib
import itertools
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response

from tests.google.answers import document, elements, refused
from tests.google.identities import SIGNED, Identities

BUCKET: Final = "moorage"
_SMALLEST_PART: Final = 5 * 1024 * 1024
_CONDITION: Final = "x-goog-if-generation-match"
_LISTING: Final = {"list-type", "prefix", "delimiter", "continuation-token", "start-after", "max-keys"}


@dataclass(frozen=True)
class Stored:
    """An object, or a part of one."""

    content: bytes
    generation: int
    etag: str
    media_type: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def headers(self) -> dict[str, str]:
        return {
            "Accept-Ranges": "bytes",
            "Content-Type": self.media_type,
            "ETag": self.etag,
            "Last-Modified": format_datetime(self.at, usegmt=True),
            "x-goog-generation": str(self.generation),
            "x-goog-metageneration": "1",
            "x-goog-stored-content-encoding": "identity",
            "x-goog-stored-content-length": str(len(self.content)),
        }


class Bucket:
    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._objects: dict[str, Stored] = {}
        self._uploads: dict[str, tuple[str, str, dict[int, Stored]]] = {}  # name, media type, parts
        self._generations = itertools.count(time.time_ns() // 1000)

    async def answer(self, request: Request) -> Response:
        bucket, _, name = request.scope["path"].removeprefix("/").partition("/")
        body = b"".join([piece async for piece in request.stream()])
        self._identities.check(request)
        if bucket != BUCKET:
            raise refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        query = {
            key: value for key, value in request.query_params.items() if key not in {*SIGNED, "X-Goog-Signature"}
        }
        verb = " ".join([request.method, "object" if name else "bucket", *sorted(query)])
        if request.method == "GET" and not name and query.get("list-type") == "2" and query.keys() <= _LISTING:
            return self._list(query)
        unknown = [each for each in request.headers if each.startswith("x-goog-") and each != _CONDITION]
        if unknown:
            raise refused(400, "InvalidArgument", "Invalid argument.", f"not known here: {unknown}")
        match verb:
            case "GET object" | "HEAD object":
                return self._get(request, name)
            case "PUT object":
                self._check_generation(request, name)
                digest = hashlib.md5(body, usedforsecurity=False)
                stored = self._put(name, body, f'"{digest.hexdigest()}"', request.headers.get("content-type", ""))
                md5 = base64.b64encode(digest.digest()).decode()
                return Response(headers={**stored.headers(), "x-goog-hash": f"md5={md5}"})
            case "DELETE object":
                self._find(name)
                self._check_generation(request, name)
                del self._objects[name]
                return Response(status_code=204)
            case "GET bucket uploads":
                found = [("Upload", elements(Key=each[0], UploadId=key)) for key, each in self._uploads.items()]
                return document("ListMultipartUploadsResult", ("Bucket", BUCKET), *found)
            case "POST object uploads":
                upload = secrets.token_urlsafe(24)
                self._uploads[upload] = name, request.headers.get("content-type", ""), {}
                told = [("Bucket", BUCKET), ("Key", escape(name)), ("UploadId", upload)]
                return document("InitiateMultipartUploadResult", *told)
            case "PUT object partNumber uploadId":
                return self._put_part(name, query["uploadId"], query["partNumber"], body)
            case "POST object uploadId":
                return self._complete(name, query["uploadId"], body)
            case "DELETE object uploadId":
                self._find_upload(name, query["uploadId"])
                del self._uploads[query["uploadId"]]
                return Response(status_code=204)
            case _:
                raise refused(400, "InvalidArgument", "Invalid argument.", f"not known here: {verb}")

    def _find(self, name: str) -> Stored:
        if name not in self._objects:
            raise refused(404, "NoSuchKey", "The specified key does not exist.")
        return self._objects[name]

    def _find_upload(self, name: str, upload: str) -> tuple[str, str, dict[int, Stored]]:
        if upload not in self._uploads or self._uploads[upload][0] != name:
            raise refused(404, "NoSuchUpload", "The requested upload was not found.")
        return self._uploads[upload]

    def _put(self, name: str, content: bytes, etag: str, media_type: str) -> Stored:
        self._objects[name] = Stored(content, next(self._generations), etag, media_type)
        return self._objects[name]

    def _check_generation(self, request: Request, name: str) -> None:
        wanted = request.headers.get(_CONDITION)
        there = self._objects[name].generation if name in self._objects else 0
        if wanted is not None and wanted != str(there):
            told = "At least one of the pre-conditions you specified did not hold."
            raise refused(412, "PreconditionFailed", told, f"Expected generation {wanted}, found {there}")

    def _get(self, request: Request, name: str) -> Response:
        stored = self._find(name)
        self._check_generation(request, name)
        asked, size = request.headers.get("range"), len(stored.content)
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
        if not found or found[0] == "bytes=-":  # GCS passes over a range that it does not understand
            return Response(stored.content, headers=stored.headers())
        start = int(found[1]) if found[1] else max(0, size - int(found[2]))
        stop = min(size, int(found[2]) + 1) if found[1] and found[2] else size
        if start >= size or start >= stop:
            raise refused(416, "InvalidRange", "The requested range cannot be satisfied.", asked or "")
        headers = {**stored.headers(), "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        return Response(stored.content[start:stop], 206, headers)

    def _list(self, query: Mapping[str, str]) -> Response:
        after = max(query.get("start-after", ""), query.get("continuation-token", ""))
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        found = {each for each in self._objects if each.startswith(prefix)}
        if delimiter:  # what goes on after it stands for all that begins so
            found = {prefix + "".join(each.removeprefix(prefix).partition(delimiter)[:2]) for each in found}
        names = sorted(each for each in found if each > after)
        page = names[: min(1000, int(query.get("max-keys", "1000")))]
        more = len(page) < len(names)
        told = [("Name", BUCKET), ("KeyCount", str(len(page))), ("IsTruncated", str(more).lower())]
        for name in page:
            if delimiter and name.endswith(delimiter):
                told.append(("CommonPrefixes", elements(Prefix=name)))
                continue
            one = self._objects[name]
            at = one.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            facts = elements(Key=name, Generation=one.generation, MetaGeneration=1, LastModified=at, ETag=one.etag)
            told.append(("Contents", facts + elements(Size=len(one.content))))
        if more and page:
            told.append(("NextContinuationToken", escape(page[-1])))
        return document("ListBucketResult", *told)

    def _put_part(self, name: str, upload: str, number: str, content: bytes) -> Response:
        parts = self._find_upload(name, upload)[2]
        if not number.isdecimal() or not 1 <= int(number) <= 10_000:
            raise refused(400, "InvalidArgument", "Invalid argument.", f"partNumber {number}")
        etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        parts[int(number)] = Stored(content, 0, etag)
        return Response(headers={"ETag": etag})

    def _complete(self, name: str, upload: str, body: bytes) -> Response:
        _, media_type, parts = self._find_upload(name, upload)
        try:
            sent = ET.fromstring(body)
            named = [(int(part.findtext("PartNumber", "")), part.findtext("ETag")) for part in sent.iter("Part")]
        except (ET.ParseError, ValueError):
            raise refused(400, "MalformedXMLError", "The XML you provided was not well-formed.") from None
        numbers = [number for number, _ in named]
        if not numbers or numbers != sorted(set(numbers)):
            raise refused(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
        if any(number not in parts or parts[number].etag != etag for number, etag in named):
            raise refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
        if any(len(parts[number].content) < _SMALLEST_PART for number in numbers[:-1]):
            raise refused(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size.")
        whole = b"".join(parts[number].content for number in numbers)
        stored = self._put(name, whole, f'"-{secrets.token_urlsafe(9)}"', media_type)
        del self._uploads[upload]
        told = [("Bucket", BUCKET), ("Key", escape(name)), ("ETag", escape(stored.etag))]
        answer = document("CompleteMultipartUploadResult", *told)
        answer.headers["x-goog-generation"] = str(stored.generation)
        return answer
