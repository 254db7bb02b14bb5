"""The endpoint rows of the specification: which path and method is which, and what access it needs.

Spec "Endpoints". A name may hold any component a path has (``blobs``, ``manifests``), so paths are read from the
right.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from moorage.spec.actions import Action
from moorage.spec.errors import EndpointUnknown, MethodNotAllowed
from moorage.spec.names import check_repository


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row: ``end`` is the specification's identifier, ``path`` a template.

    ``access`` is what a client must be allowed to do; where it is None, it must have shown who it is.
    """

    name: str
    end: str
    method: str
    path: str
    access: Action | None


def _rows(path: str, *rows: tuple[str, str, str, Action | None]) -> dict[str, Endpoint]:
    return {method: Endpoint(name, end, method, path, access) for name, end, method, access in rows}


_PULL, _PUSH, _DELETE = Action.PULL, Action.PUSH, Action.DELETE
BASE: Final = _rows("/v2/", ("base", "end-1", "GET", None), ("base", "end-1", "HEAD", None))
BLOB: Final = _rows(
    "/v2/{name}/blobs/{digest}",
    ("get_blob", "end-2", "GET", _PULL),
    ("get_blob", "end-2", "HEAD", _PULL),
    ("delete_blob", "end-10", "DELETE", _DELETE),
)
MANIFEST: Final = _rows(
    "/v2/{name}/manifests/{reference}",
    ("get_manifest", "end-3", "GET", _PULL),
    ("get_manifest", "end-3", "HEAD", _PULL),
    ("put_manifest", "end-7", "PUT", _PUSH),
    ("delete_manifest", "end-9", "DELETE", _DELETE),
)
UPLOADS: Final = _rows("/v2/{name}/blobs/uploads/", ("start_upload", "end-4", "POST", _PUSH))
UPLOAD: Final = _rows(
    "/v2/{name}/blobs/uploads/{upload}",
    ("append_upload", "end-5", "PATCH", _PUSH),
    ("finish_upload", "end-6", "PUT", _PUSH),
    ("get_upload", "end-13", "GET", _PUSH),
    ("get_upload", "end-13", "HEAD", _PUSH),
    ("cancel_upload", "end-14", "DELETE", _PUSH),
)
TAGS: Final = _rows(
    "/v2/{name}/tags/list", ("list_tags", "end-8", "GET", _PULL), ("list_tags", "end-8", "HEAD", _PULL)
)
REFERRERS: Final = _rows(
    "/v2/{name}/referrers/{digest}",
    ("list_referrers", "end-12", "GET", _PULL),
    ("list_referrers", "end-12", "HEAD", _PULL),
)
CATALOG: Final = _rows(
    "/v2/_catalog",
    ("list_repositories", "_catalog", "GET", Action.CATALOG),
    ("list_repositories", "_catalog", "HEAD", Action.CATALOG),
)
EXTENSIONS: Final = _rows(
    "/v2/_oci/ext/discover",
    ("list_extensions", "_oci", "GET", None),
    ("list_extensions", "_oci", "HEAD", None),
)
REPOSITORY_EXTENSIONS: Final = _rows(
    "/v2/{name}/_oci/ext/discover",
    ("list_extensions", "_oci", "GET", _PULL),
    ("list_extensions", "_oci", "HEAD", _PULL),
)
HISTORY: Final = _rows("/v2/{name}/_moorage/history/{reference}", ("list_history", "_moorage", "GET", _PULL))
RESTORE: Final = _rows("/v2/{name}/_moorage/restore/{reference}", ("restore_tag", "_moorage", "POST", _PUSH))
UPDATES: Final = _rows("/v2/{name}/_chainguard/history/{reference}", ("list_updates", "_chainguard", "GET", _PULL))
RELEASES: Final = _rows("/v2/_moorage/releases", ("list_releases", "_moorage", "GET", None))
RELEASE: Final = _rows(
    "/v2/_moorage/releases/{release}",
    ("get_release", "_moorage", "GET", None),
    ("put_release", "_moorage", "PUT", None),
    ("discard_release", "_moorage", "DELETE", None),
)
PUBLISH: Final = _rows("/v2/_moorage/releases/{release}/publish", ("publish_release", "_moorage", "POST", None))
ROLLBACK: Final = _rows("/v2/_moorage/releases/{release}/rollback", ("roll_back_release", "_moorage", "POST", None))
TABLE: Final = (
    BASE, BLOB, MANIFEST, UPLOADS, UPLOAD, TAGS, REFERRERS, CATALOG, EXTENSIONS, REPOSITORY_EXTENSIONS,
    HISTORY, RESTORE, UPDATES, RELEASES, RELEASE, PUBLISH, ROLLBACK,
)  # fmt: skip
ENDPOINTS: Final = tuple(endpoint for rows in TABLE for endpoint in rows.values())

_FIXED: Final = {
    "/v2": BASE,
    "/v2/": BASE,
    "/v2/_catalog": CATALOG,
    "/v2/_oci/ext/discover": EXTENSIONS,
    "/v2/_moorage/releases": RELEASES,
}
_OF_RELEASES: Final = "/v2/_moorage/releases/"
_OF_A_RELEASE: Final = {"": RELEASE, "publish": PUBLISH, "rollback": ROLLBACK}
_OF_A_TAG: Final = {
    ("_moorage", "history"): HISTORY,
    ("_moorage", "restore"): RESTORE,
    ("_chainguard", "history"): UPDATES,
}
_REMEMBERED: Final = 512  # characters of a path
_LAST: Final = {"manifests": MANIFEST, "blobs": BLOB, "referrers": REFERRERS}


def match(method: str, path: str) -> tuple[Endpoint, str, str]:
    """``(endpoint, repository, reference)`` of a request; the latter two are empty where the path has none.

    For releases the name of one takes the place of the reference. ``path`` is percent-decoded. Raises
    ``EndpointUnknown``, ``MethodNotAllowed``, ``NameInvalid``.
    """
    rows, name, reference = _find(path)
    endpoint = rows.get(method)
    if endpoint is None:
        raise MethodNotAllowed(detail={"method": method[:32], "allowed": sorted(rows)})
    return endpoint, name, reference


def methods(path: str) -> list[str]:
    """What ``path`` can be asked with; raises as ``match`` does."""
    return sorted(_find(path)[0])


def _find(path: str) -> tuple[dict[str, Endpoint], str, str]:
    return _remembered(path) if len(path) <= _REMEMBERED else _look(path)


def _look(path: str) -> tuple[dict[str, Endpoint], str, str]:
    if (fixed := _FIXED.get(path)) is not None:
        return fixed, "", ""
    if path.startswith(_OF_RELEASES):
        release, slash, verb = path[len(_OF_RELEASES) :].partition("/")
        if release and bool(slash) is bool(verb) and (of_it := _OF_A_RELEASE.get(verb)):
            return of_it, "", release
        raise EndpointUnknown(detail={"path": path[:512]})
    rows, name, reference = _read(path)
    return rows, check_repository(name), reference


_remembered: Final = lru_cache(2048)(_look)  # clients ask for the same again and again


def _read(path: str) -> tuple[dict[str, Endpoint], str, str]:
    parts = path.rsplit("/", 3)
    if path.startswith("/v2/") and len(parts) == 4:
        head, third, second, last = parts
        if second == "uploads" and third == "blobs":
            return (UPLOAD if last else UPLOADS), head[4:], last
        if second == "tags" and last == "list":
            return TAGS, f"{head}/{third}"[4:], ""
        if second == "blobs" and last == "uploads":
            return UPLOADS, f"{head}/{third}"[4:], ""
        if last and (rows := _LAST.get(second)):
            return rows, f"{head}/{third}"[4:], last
        if third == "_oci" and second == "ext" and last == "discover":
            return REPOSITORY_EXTENSIONS, head[4:], ""
        if last and (rows := _OF_A_TAG.get((third, second))):
            return rows, head[4:], last
    raise EndpointUnknown(detail={"path": path[:512]})
