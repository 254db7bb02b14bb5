"""Which path and method is which endpoint."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.spec.actions import Action
from moorage.spec.errors import EndpointUnknown, MethodNotAllowed, NameInvalid
from moorage.spec.routes import ENDPOINTS, TABLE, match, methods
from tests.spec.test_names import REPOSITORIES

DIGEST = "sha256:" + "a" * 64
# Repositories may be called like what follows them in a path.
NAMES = [
    "a",
    "a/b/c",
    "blobs",
    "manifests",
    "tags",
    "list",
    "uploads",
    "referrers",
    "v2",
    "a/blobs",
    "a/manifests",
    "a/tags",
    "a/tags/list",
    "a/referrers",
    "blobs/uploads",
    "a/blobs/uploads",
    "manifests/blobs/uploads",
    "blobs/uploads/manifests",
    "tags/list/blobs/uploads/referrers",
]
ROWS = [
    ("GET", "blobs/{}", DIGEST, "get_blob", "end-2"),
    ("HEAD", "blobs/{}", DIGEST, "get_blob", "end-2"),
    ("DELETE", "blobs/{}", DIGEST, "delete_blob", "end-10"),
    ("GET", "manifests/{}", "latest", "get_manifest", "end-3"),
    ("HEAD", "manifests/{}", DIGEST, "get_manifest", "end-3"),
    ("PUT", "manifests/{}", "latest", "put_manifest", "end-7"),
    ("DELETE", "manifests/{}", DIGEST, "delete_manifest", "end-9"),
    ("GET", "manifests/{}", "list", "get_manifest", "end-3"),
    ("GET", "manifests/{}", "uploads", "get_manifest", "end-3"),
    ("POST", "blobs/uploads/", "", "start_upload", "end-4"),
    ("POST", "blobs/uploads", "", "start_upload", "end-4"),
    ("PATCH", "blobs/uploads/{}", "id", "append_upload", "end-5"),
    ("PUT", "blobs/uploads/{}", "id", "finish_upload", "end-6"),
    ("GET", "blobs/uploads/{}", "id", "get_upload", "end-13"),
    ("HEAD", "blobs/uploads/{}", "id", "get_upload", "end-13"),
    ("DELETE", "blobs/uploads/{}", "id", "cancel_upload", "end-14"),
    ("GET", "tags/list", "", "list_tags", "end-8"),
    ("HEAD", "tags/list", "", "list_tags", "end-8"),
    ("GET", "referrers/{}", DIGEST, "list_referrers", "end-12"),
    ("HEAD", "referrers/{}", DIGEST, "list_referrers", "end-12"),
    ("GET", "_oci/ext/discover", "", "list_extensions", "_oci"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_row(name: str, row: tuple[str, str, str, str, str]) -> None:
    """Each row of the table is found, whatever the repository is called."""
    method, template, reference, endpoint, end = row
    found, repository, what = match(method, f"/v2/{name}/{template.format(reference)}")
    assert (found.name, found.end, found.method) == (endpoint, end, method)
    assert (repository, what) == (name, reference)


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v2", "base"),
        ("/v2/", "base"),
        ("/v2/_catalog", "list_repositories"),
        ("/v2/_oci/ext/discover", "list_extensions"),
    ],
)
def test_rows_without_repository(path: str, endpoint: str) -> None:
    """What concerns no repository has neither name nor reference."""
    for method in ("GET", "HEAD"):
        found, repository, reference = match(method, path)
        assert (found.name, repository, reference) == (endpoint, "", "")


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/v1/", "/v3/", "/v2//", "v2/a/tags/list", "/v2/a", "/v2/a/b", "/v2/a/b/c", "/v2/a/b/c/d/e",
        "/v2/a/manifests/", "/v2/a/blobs/", "/v2/a/tags/", "/v2/a/tags/all", "/v2/a/referrers/", "/v2/a/manifests",
        "/v2/_catalog/", "/x/v2/a/tags/list", "/V2/a/tags/list", "/v2/a/_oci/ext/other", "/v2/a/uploads/x",
        "/v2/_moorage/releases/", "/v2/_moorage/releases/r/", "/v2/_moorage/releases/r/other",
        "/v2/_moorage/releases/r/rollback/", "/v2/_moorage/releases//rollback", "/v2/_moorage/releases/manifests/x",
    ],
)  # fmt: skip
def test_unknown_path(path: str) -> None:
    """A path that no row has is 404 UNSUPPORTED."""
    with pytest.raises(EndpointUnknown) as caught:
        match("GET", path)
    assert (caught.value.code, caught.value.status) == ("UNSUPPORTED", 404)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/A/manifests/latest", "/v2/a//manifests/latest", "/v2/a/../manifests/latest", "/v2/-/tags/list",
        "/v2/a b/tags/list", "/v2//tags/list", "/v2/a/./blobs/uploads/", "/v2/blobs/uploads/id",
        "/v2//blobs/uploads/", f"/v2/{'a' * 256}/tags/list",
    ],
)  # fmt: skip
def test_malformed_name(path: str) -> None:
    """A path of a row whose name is malformed is NAME_INVALID."""
    with pytest.raises(NameInvalid):
        match("GET", path)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2/", "GET, HEAD"),
        ("PUT", "/v2/a/blobs/" + DIGEST, "DELETE, GET, HEAD"),
        ("POST", "/v2/a/manifests/latest", "DELETE, GET, HEAD, PUT"),
        ("GET", "/v2/a/blobs/uploads/", "POST"),
        ("POST", "/v2/a/blobs/uploads/id", "DELETE, GET, HEAD, PATCH, PUT"),
        ("DELETE", "/v2/a/tags/list", "GET, HEAD"),
        ("PUT", "/v2/a/referrers/" + DIGEST, "GET, HEAD"),
        ("DELETE", "/v2/_catalog", "GET, HEAD"),
        ("get", "/v2/", "GET, HEAD"),
        ("BREW", "/v2/a/tags/list", "GET, HEAD"),
        ("PUT", "/v2/_moorage/releases", "GET"),
        ("POST", "/v2/_moorage/releases/r", "DELETE, GET, PUT"),
        ("GET", "/v2/_moorage/releases/r/rollback", "POST"),
    ],
)
def test_wrong_method(method: str, path: str, allowed: str) -> None:
    """A method that the row does not have is 405 UNSUPPORTED naming those that it has."""
    with pytest.raises(MethodNotAllowed) as caught:
        match(method, path)
    assert (caught.value.code, caught.value.status) == ("UNSUPPORTED", 405)
    assert caught.value.details == ({"method": method, "allowed": allowed.split(", ")},)
    assert methods(path) == allowed.split(", ")


def test_every_row_is_reachable_by_its_template() -> None:
    """Each endpoint's own template leads to it."""
    for endpoint in ENDPOINTS:
        path = endpoint.path.format(
            name="some/name", digest=DIGEST, reference="latest", upload="id", release="manifests"
        )
        assert match(endpoint.method, path)[0] is endpoint
    assert len(ENDPOINTS) == sum(map(len, TABLE))


def test_what_changes_needs_more_than_pull() -> None:
    """Reading needs pull, writing push, deleting content delete; a release, what each of its changes needs."""
    needs: dict[str, set[Action | None]] = {
        "GET": {None, Action.PULL, Action.PUSH, Action.CATALOG},
        "HEAD": {None, Action.PULL, Action.PUSH, Action.CATALOG},
        "DELETE": {Action.DELETE, Action.PUSH},
    }
    for endpoint in ENDPOINTS:
        if "release" in endpoint.name:
            assert endpoint.access is None
            continue
        assert endpoint.access in needs.get(endpoint.method, {Action.PUSH})


@given(REPOSITORIES, st.sampled_from(ROWS))
def test_any_name_is_read_back(name: str, row: tuple[str, str, str, str, str]) -> None:
    """Whatever name the specification allows comes out of the path as it went in."""
    method, template, reference, endpoint, _ = row
    found, repository, what = match(method, f"/v2/{name}/{template.format(reference)}")
    assert (found.name, repository, what) == (endpoint, name, reference)


@given(st.text(max_size=40), st.sampled_from(["GET", "PUT", "BREW"]))
def test_any_path_is_a_row_or_an_error(path: str, method: str) -> None:
    """No path makes anything but a row or an error of the specification."""
    for each in (path, f"/v2/{path}", f"/v2/a/{path}", f"/v2/{path}/manifests/x"):
        with contextlib.suppress(EndpointUnknown, MethodNotAllowed, NameInvalid):
            match(method, each)
