"""What a client sees that was granted something, everything or nothing: each endpoint row, through the door."""

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from moorage import Registry, create_app, open_registry
from moorage.auth.base import Challenge, Credentials, Decision, Identity
from moorage.auth.rules import Rule, Rules
from moorage.spec.actions import Action
from moorage.spec.errors import Unauthorized
from moorage.spec.routes import ENDPOINTS, Endpoint
from tests import login
from tests.support import (
    CONFIG,
    HOST,
    LAYER,
    OCI_MANIFEST,
    Exchange,
    Repository,
    detail,
    digest_of,
    encode,
    errors,
    image,
    next_url,
    pieces,
    served,
)

HELD = "team/held"
ABSENT = "team/absent"
NEW = b"bytes that nobody pushed yet"
BASIC = 'Basic realm="test",charset="UTF-8"'


class Names:
    """Whoever says the password ``right`` is who he says he is."""

    challenges = (Challenge("Basic", (("realm", "test"), ("charset", "UTF-8"))),)

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        if credentials.name is None:
            return None
        if credentials.password != "right":
            raise Unauthorized("wrong name or password")
        return Identity(credentials.name, method="test", local=True)


def basic(name: str, password: str = "right") -> dict[str, str]:
    return login.basic(name, password)


def allow(who: str, repositories: str, *actions: Action) -> Rule:
    return Rule((who,), (repositories,), frozenset(actions or Action))


def deny(who: str, repositories: str, *actions: Action) -> Rule:
    return Rule((who,), (repositories,), frozenset(actions or Action), allow=False)


@dataclass
class Guarded:
    """A registry with one repository, ``HELD``, in which an image has the tag ``v1``."""

    registry: Registry
    stack: AsyncExitStack

    async def client(self, *rules: Rule, **options: Any) -> httpx.AsyncClient:
        app = create_app(self.registry, authenticators=[Names()], authorizer=Rules(rules), **options)
        return await self.stack.enter_async_context(served(app))

    async def push(self, name: str) -> None:
        for content in (CONFIG, LAYER):
            await self.registry.uploads.push(name, digest_of(content), pieces(content))
        await self.registry.manifests.put(name, "v1", encode(image()), OCI_MANIFEST)


@pytest.fixture
async def guarded() -> AsyncIterator[Guarded]:
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(open_registry())
        found = Guarded(registry, stack)
        await found.push(HELD)
        yield found


@dataclass(frozen=True)
class Case:
    """How to ask for an endpoint so that it does what it is for, and what it answers then."""

    status: int
    query: str = ""
    content: bytes = b""
    reference: str = ""
    session: bool = False


OTHER = encode(image(annotations={"other": "one"}))
MANIFEST = encode(image())
CASES: dict[tuple[str, str], Case] = {
    ("base", "GET"): Case(200),
    ("base", "HEAD"): Case(200),
    ("get_blob", "GET"): Case(200, reference=digest_of(LAYER)),
    ("get_blob", "HEAD"): Case(200, reference=digest_of(LAYER)),
    # It is needed by a manifest, which is found out only by whoever may delete.
    ("delete_blob", "DELETE"): Case(405, reference=digest_of(LAYER)),
    ("get_manifest", "GET"): Case(200, reference="v1"),
    ("get_manifest", "HEAD"): Case(200, reference="v1"),
    ("put_manifest", "PUT"): Case(201, content=MANIFEST, reference="v1"),
    ("delete_manifest", "DELETE"): Case(202, reference="v1"),
    ("start_upload", "POST"): Case(202),
    ("append_upload", "PATCH"): Case(202, content=NEW, session=True),
    ("finish_upload", "PUT"): Case(201, query=f"?digest={digest_of(NEW)}", content=NEW, session=True),
    ("get_upload", "GET"): Case(204, session=True),
    ("get_upload", "HEAD"): Case(204, session=True),
    ("cancel_upload", "DELETE"): Case(204, session=True),
    ("list_tags", "GET"): Case(200),
    ("list_tags", "HEAD"): Case(200),
    ("list_referrers", "GET"): Case(200, reference=digest_of(MANIFEST)),
    ("list_referrers", "HEAD"): Case(200, reference=digest_of(MANIFEST)),
    ("list_repositories", "GET"): Case(200),
    ("list_repositories", "HEAD"): Case(200),
    ("list_extensions", "GET"): Case(200),
    ("list_extensions", "HEAD"): Case(200),
    ("list_history", "GET"): Case(200, reference="v1"),
    ("list_updates", "GET"): Case(200, reference="v1"),
    # What is asked of a release depends on its content: test_releases.py.
    ("list_releases", "GET"): Case(200),
    ("get_release", "GET"): Case(404, reference="never"),
    ("put_release", "PUT"): Case(400, reference="never"),
    ("discard_release", "DELETE"): Case(404, reference="never"),
    ("publish_release", "POST"): Case(404, reference="never"),
    ("roll_back_release", "POST"): Case(404, reference="never"),
    ("restore_tag", "POST"): Case(201, reference="v1", query=f"?to={digest_of(MANIFEST)}"),
}
ROWS = pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: f"{row.method} {row.path}")
REPOSITORY_ROWS = pytest.mark.parametrize(
    "row", [row for row in ENDPOINTS if "{name}" in row.path], ids=lambda row: f"{row.method} {row.path}"
)


def case_of(row: Endpoint) -> Case:
    return CASES[row.name, row.method]


async def ask(
    guarded: Guarded, client: httpx.AsyncClient, row: Endpoint, name: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Ask for an endpoint in a repository, so that everything but the right to do it is there."""
    case = case_of(row)
    reference = case.reference
    if case.session:
        reference = (await guarded.registry.uploads.start(name)).id
    path = row.path.replace("{name}", name).replace("{digest}", reference)
    path = path.replace("{reference}", reference).replace("{upload}", reference).replace("{release}", reference)
    typed = {"content-type": OCI_MANIFEST} if row.name == "put_manifest" else {}
    return await client.request(
        row.method, path + case.query, content=case.content, headers={**typed, **(headers or {})}
    )


def needed(row: Endpoint) -> frozenset[Action]:
    return frozenset() if row.access is None else frozenset({row.access})


@ROWS
@pytest.mark.parametrize("action", [None, *Action])
async def test_each_action_grants_what_it_says_and_nothing_else(
    guarded: Guarded, row: Endpoint, action: Action | None
) -> None:
    """Whoever was granted one action on all repositories does what needs that, and is refused the rest."""
    granted = frozenset({action} if action else ())
    rules = [allow("alice", "**", *granted)] if granted else [allow("bob", "**")]
    client = await guarded.client(*rules)
    response = await ask(guarded, client, row, HELD, basic("alice"))
    if needed(row) <= granted:
        assert response.status_code == case_of(row).status, response.text
    elif row.access is Action.PULL:
        assert response.status_code == (200 if row.name in ("list_referrers", "list_extensions") else 404)
    elif row.method == "HEAD":
        assert response.status_code == 403
    else:
        assert detail(response, 403, "DENIED")["action"] == row.access
    assert "www-authenticate" not in response.headers


@ROWS
async def test_granted_elsewhere(guarded: Guarded, row: Endpoint) -> None:
    """What was granted on other repositories is of no use in this one."""
    client = await guarded.client(allow("alice", "other/**"), deny("alice", "**", Action.CATALOG))
    response = await ask(guarded, client, row, HELD, basic("alice"))
    if row.access is None:
        assert response.status_code == case_of(row).status
    elif row.access is Action.PULL:
        assert response.status_code in (404, 200)
        assert digest_of(LAYER) not in response.text or response.status_code == 404
    else:
        assert response.status_code == 403


@ROWS
@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("alice", "wrong"),
        basic("nobody", ""),
        basic("", ""),
        {"authorization": "Bearer x"},
        {"authorization": "Basic ???"},
        {"authorization": f"Basic {base64.b64encode(b'alice').decode()}"},
        {"authorization": "Digest x"},
        {"authorization": ""},
    ],
    ids=str,
)
async def test_without_credentials_or_with_wrong_ones(
    guarded: Guarded, row: Endpoint, headers: dict[str, str]
) -> None:
    """Everything is 401 and says what to bring, whether or not the repository is there."""
    client = await guarded.client(allow("*", "**"))
    seen = []
    for name in (HELD, ABSENT):
        response = await ask(guarded, client, row, name, headers)
        assert response.status_code == 401
        assert response.headers.get_list("www-authenticate") == [BASIC]
        if row.method != "HEAD":
            errors(response, 401, "UNAUTHORIZED")
        seen.append((response.text.replace(name, "NAME"), sorted(response.headers.keys())))
    assert seen[0] == seen[1]
    assert (await guarded.registry.manifests.get(HELD, "v1")).digest == digest_of(MANIFEST)


@ROWS
async def test_anonymous(guarded: Guarded, row: Endpoint) -> None:
    """What was granted to anonymous is pulled without credentials; everything else still asks for them."""
    client = await guarded.client(allow("anonymous", "team/**", Action.PULL, Action.CATALOG), allow("bob", "**"))
    response = await ask(guarded, client, row, HELD)
    pulled = row.access in (Action.PULL, Action.CATALOG)
    assert response.status_code == (case_of(row).status if pulled else 401)
    if "{name}" in row.path:
        assert (await ask(guarded, client, row, "other/thing")).status_code == 401


async def test_anonymous_does_not_learn_names(guarded: Guarded) -> None:
    """Who moved a tag is told to those who have shown who they are."""
    client = await guarded.client(allow("anonymous", "team/**", Action.PULL), allow("alice", "**"))
    await Repository(client, HELD).put(OTHER, "v1", headers=basic("alice"))
    path = f"/v2/{HELD}/_moorage/history/v1"
    for headers, actors in ((basic("alice"), ["alice", "anonymous"]), ({}, [None, None])):
        response = await client.get(path, headers=headers)
        assert [each["actor"] for each in response.json()["history"]] == actors


async def test_empty_name_and_password_are_no_credentials(guarded: Guarded) -> None:
    """Some clients send these when they have none: they are as anonymous as without."""
    client = await guarded.client(allow("anonymous", "team/**", Action.PULL))
    assert (await client.get(f"/v2/{HELD}/tags/list", headers=basic("", ""))).status_code == 200
    assert (await client.get(f"/v2/{HELD}/tags/list", headers=basic("", "x"))).status_code == 401


@REPOSITORY_ROWS
async def test_hidden_is_not_there(guarded: Guarded, row: Endpoint) -> None:
    """To whom may not pull it, a repository that is there looks in every byte like one that is not."""
    client = await guarded.client(allow("alice", "open/**"))
    hidden = await ask(guarded, client, row, HELD, basic("alice"))
    absent = await ask(guarded, client, row, ABSENT, basic("alice"))
    assert hidden.status_code == absent.status_code
    assert hidden.text.replace(HELD, "NAME") == absent.text.replace(ABSENT, "NAME")
    lengths = [{k: v for k, v in each.headers.items() if k != "content-length"} for each in (hidden, absent)]
    assert lengths[0] == lengths[1]
    if row.access is Action.PULL:  # and like one that may be pulled, but is not there
        granted = await ask(guarded, client, row, "open/absent", basic("alice"))
        assert granted.status_code == hidden.status_code
        assert granted.text.replace("open/absent", "NAME") == hidden.text.replace(HELD, "NAME")
        assert {k: v for k, v in granted.headers.items() if k != "content-length"} == lengths[0]


def test_every_row_has_a_case() -> None:
    """A new endpoint needs a case of its own here."""
    assert set(CASES) == {(row.name, row.method) for row in ENDPOINTS}


async def test_warnings_tell_nothing_of_hidden_repositories(guarded: Guarded) -> None:
    """A warning about a repository goes to those who may pull it."""
    from moorage.web.options import Warned

    warned = (Warned(repository="team/*", text="the code name is Zeus"),)
    client = await guarded.client(allow("alice", "team/**"), allow("bob", "b/**"), warnings=warned)
    path = f"/v2/{HELD}/referrers/{digest_of(MANIFEST)}"
    assert "Zeus" in (await client.get(path, headers=basic("alice"))).headers["warning"]
    response = await client.get(path, headers=basic("bob"))
    assert response.status_code == 200
    assert "warning" not in response.headers


async def test_open_without_access_control(guarded: Guarded) -> None:
    """Where nothing was set up everyone may do everything, whatever he sends."""
    client = await guarded.stack.enter_async_context(served(create_app(guarded.registry)))
    for row in ENDPOINTS:
        for headers in ({}, basic("alice", "wrong")):
            response = await ask(guarded, client, row, HELD, headers)
            assert response.status_code in (case_of(row).status, 404), row
        await guarded.push(HELD)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
async def test_services_stay_open(guarded: Guarded, path: str) -> None:
    """What watches the process needs no credentials."""
    client = await guarded.client(allow("alice", "**"))
    assert (await client.get(path)).status_code == 200


async def test_first_push_needs_create(guarded: Guarded) -> None:
    """Whoever may push but not create is refused in a repository that is not there, before any byte is sent."""
    client = await guarded.client(allow("alice", "**", Action.PULL, Action.PUSH, Action.RETAG))
    client.headers.update(basic("alice"))
    absent, held = Repository(client, ABSENT), Repository(client, HELD)
    for query in ("", f"?digest={digest_of(NEW)}", f"?mount={digest_of(LAYER)}&from={HELD}"):
        assert detail(await absent.post(query, content=NEW), 403, "DENIED") == {"name": ABSENT, "action": "create"}
    session = await guarded.registry.uploads.start(ABSENT)  # as one whose right to create was taken meanwhile
    response = await client.put(absent.at(f"blobs/uploads/{session.id}?digest={digest_of(NEW)}"), content=NEW)
    assert detail(response, 403, "DENIED")["action"] == "create"
    empty = encode({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
    response = await absent.put(empty, "v1", "application/vnd.oci.image.index.v1+json")
    assert detail(response, 403, "DENIED")["action"] == "create"
    assert ABSENT not in (await guarded.registry.repositories.list()).items
    await held.push_blob(NEW)


async def test_moving_a_tag_needs_retag(guarded: Guarded) -> None:
    """Without it a tag is made and pushed again as it is, but not moved; several tags are set all or none."""
    client = await guarded.client(allow("alice", "**", Action.PULL, Action.PUSH))
    client.headers.update(basic("alice"))
    held = Repository(client, HELD)
    await held.push(MANIFEST, "v1")
    assert detail(await held.put(OTHER, "v1"), 403, "DENIED") == {"name": HELD, "tag": "v1"}
    tags = [("tag", "v2"), ("tag", "v1")]
    assert detail(await held.put(OTHER, params=tags), 403, "DENIED")["tag"] == "v1"
    assert (await held.head("manifests/v2")).status_code == 404
    assert (await held.head(f"manifests/{digest_of(OTHER)}")).status_code == 404
    await held.push(OTHER, "v2")
    assert (await held.get("manifests/v1")).content == MANIFEST
    granted = Repository(await guarded.client(allow("alice", "**")), HELD)
    granted.client.headers.update(basic("alice"))
    await granted.push(OTHER, "v1")


async def test_mount_takes_from_what_may_be_pulled(guarded: Guarded) -> None:
    """A blob of a hidden repository is mounted by nobody: a session is opened, as if it were nowhere."""
    await guarded.push("hidden/thing")
    await guarded.registry.uploads.push("hidden/only", digest_of(NEW), pieces(NEW))
    client = await guarded.client(allow("alice", "team/**", Action.PULL), allow("alice", "mine/**"))
    client.headers.update(basic("alice"))
    mine = Repository(client, "mine/app")
    for query in (f"?mount={digest_of(NEW)}&from=hidden/only", f"?mount={digest_of(NEW)}"):
        response = await mine.post(query)
        assert response.status_code == 202, query
        nowhere = await mine.post(query.replace(digest_of(NEW), digest_of(b"nowhere")))
        assert nowhere.status_code == 202
        assert sorted(response.headers) == sorted(nowhere.headers)
    assert (await mine.head(f"blobs/{digest_of(NEW)}")).status_code == 404
    assert (await mine.post(f"?mount={digest_of(LAYER)}&from=hidden/thing")).status_code == 202
    assert (await mine.post(f"?mount={digest_of(LAYER)}&from={HELD}")).status_code == 201
    assert (await mine.post(f"?mount={digest_of(CONFIG)}")).status_code == 201
    errors(await mine.post("?mount=sha256:x&from=hidden/only"), 400, "DIGEST_INVALID")


async def test_mount_finds_the_one_that_may_be_pulled_among_many(guarded: Guarded) -> None:
    """Without ``from`` repositories that hold the blob are considered beyond those that are hidden."""
    for n in range(98):
        await guarded.registry.blobs.mount(f"hidden/n{n:03}", digest_of(LAYER), HELD)
    await guarded.registry.blobs.mount("zoo/seen", digest_of(LAYER), HELD)
    client = await guarded.client(allow("alice", "zoo/seen", Action.PULL), allow("alice", "mine/**"))
    client.headers.update(basic("alice"))
    assert (await Repository(client, "mine/app").post(f"?mount={digest_of(LAYER)}")).status_code == 201


async def test_pushing_what_is_stored_elsewhere_says_nothing(guarded: Guarded) -> None:
    """Content of a hidden repository must be sent whole, and a wrong body is not taken for it."""
    client = await guarded.client(allow("alice", "mine/**"))
    client.headers.update(basic("alice"))
    mine = Repository(client, "mine/app")
    assert (await mine.head(f"blobs/{digest_of(LAYER)}")).status_code == 404
    errors(await mine.post(f"?digest={digest_of(LAYER)}", content=b"not it"), 400, "DIGEST_INVALID")
    refused = await mine.put(image(), "v1")
    assert len(errors(refused, 404, "MANIFEST_BLOB_UNKNOWN")) == 2
    await mine.push_blob(LAYER)
    assert (await mine.get(f"blobs/{digest_of(LAYER)}")).content == LAYER


@pytest.mark.parametrize("n", [None, 1, 2, 3, 7, 100])
async def test_catalog_pages_are_full_and_hold_only_what_is_seen(guarded: Guarded, n: int | None) -> None:
    """Every page but the last is full, and all together are exactly what may be pulled."""
    for number in range(30):
        await guarded.registry.blobs.mount(
            f"{'seen' if number % 3 else 'hidden'}/n{number:02}", digest_of(LAYER), HELD
        )
    client = await guarded.client(allow("alice", "seen/**", Action.PULL, Action.CATALOG))
    client.headers.update(basic("alice"))
    expected = [f"seen/n{number:02}" for number in range(30) if number % 3]
    found: list[list[str]] = []
    url: str | None = "/v2/_catalog" + (f"?n={n}" if n else "")
    while url:
        response = await client.get(url)
        found.append(response.json()["repositories"])
        url = next_url(response)
    assert [name for page in found for name in page] == expected
    assert all(len(page) == n for page in found[:-1])


async def test_catalog_of_many_that_are_hidden(guarded: Guarded) -> None:
    """The one repository that is seen is found behind hundreds that are not."""
    for number in range(600):
        await guarded.registry.blobs.mount(f"hidden/n{number:03}", digest_of(LAYER), HELD)
    await guarded.registry.blobs.mount("zoo/seen", digest_of(LAYER), HELD)
    client = await guarded.client(allow("alice", "zoo/**", Action.PULL, Action.CATALOG))
    response = await client.get("/v2/_catalog?n=1", headers=basic("alice"))
    assert response.json() == {"repositories": ["zoo/seen"]}
    assert next_url(response) is None


async def test_sessions_are_of_whoever_may_push(guarded: Guarded) -> None:
    """A session is not its opener's: whoever may push to the repository goes on with it, nobody else."""
    client = await guarded.client(allow("alice", "team/**"), allow("bob", "team/**"), allow("eve", "other/**"))
    response = await client.post(f"/v2/{HELD}/blobs/uploads/", headers=basic("alice"))
    location = response.headers["location"]
    assert (await client.get(location, headers=basic("eve"))).status_code == 403
    elsewhere = location.replace(HELD, "other/thing")
    assert (await client.get(elsewhere, headers=basic("eve"))).status_code == 404
    assert (
        await client.put(f"{location}?digest={digest_of(NEW)}", content=NEW, headers=basic("eve"))
    ).status_code == 403
    assert (await client.patch(location, content=NEW, headers=basic("bob"))).status_code == 202
    assert (await client.put(f"{location}?digest={digest_of(NEW)}", headers=basic("alice"))).status_code == 201


async def test_events_bear_the_name(guarded: Guarded) -> None:
    """Every change is recorded under the name of whoever made it."""
    client = await guarded.client(allow("alice", "**"))
    client.headers.update(basic("alice"))
    mine = Repository(client, "mine/app")
    await mine.push_image("v1", layers=[NEW])
    await mine.post(f"?mount={digest_of(LAYER)}&from={HELD}")
    await mine.delete(f"blobs/{digest_of(LAYER)}")
    await mine.delete("manifests/v1")
    metadata = guarded.registry._parts.metadata
    connection = metadata._reader  # type: ignore[attr-defined]
    rows = connection.execute("SELECT DISTINCT actor, action FROM events WHERE repository = 'mine/app'").fetchall()
    assert {actor for actor, _ in rows} == {"alice"}
    assert {action for _, action in rows} == {
        "blob.push", "blob.mount", "blob.delete", "manifest.push", "tag.push", "tag.delete",
    }  # fmt: skip


class Tokens:
    """Knows no token; asks for one of the registry's own."""

    challenges = (Challenge("Bearer", (("realm", "/token"), ("service", "here")), scoped=True),)

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        if credentials.token is not None:
            raise Unauthorized("the token is not valid")
        return None


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v2/", None),
        ("GET", f"/v2/{HELD}/manifests/v1", f"repository:{HELD}:pull"),
        ("POST", f"/v2/{HELD}/blobs/uploads/", f"repository:{HELD}:pull,push"),
        ("DELETE", f"/v2/{HELD}/manifests/v1", f"repository:{HELD}:delete"),
        ("GET", "/v2/_catalog", "registry:catalog:*"),
    ],
)
async def test_challenge_of_the_token_flow(guarded: Guarded, method: str, path: str, scope: str | None) -> None:
    """Where tokens can be fetched nothing else is named, and it is said what to ask for, where."""
    app = create_app(guarded.registry, authenticators=[Names(), Tokens(), Names()], public_url="https://a.test/b")
    client = await guarded.stack.enter_async_context(served(app))
    for headers in ({}, {"authorization": "Bearer x"}):
        response = await client.request(method, path, headers=headers)
        assert response.status_code == 401
        bearer = 'Bearer realm="https://a.test/b/token",service="here"' + (f',scope="{scope}"' if scope else "")
        assert response.headers.get_list("www-authenticate") == [bearer]


async def test_challenge_names_the_address_that_was_asked(guarded: Guarded) -> None:
    """Without a public URL the realm is at the host that the client asked."""
    app = create_app(guarded.registry, authenticators=[Tokens()])
    client = await guarded.stack.enter_async_context(served(app))
    challenge = (await client.get("/v2/")).headers["www-authenticate"]
    assert challenge == f'Bearer realm="{HOST}/token",service="here"'


async def test_unknown_names_go_on_to_the_next_authenticator(guarded: Guarded) -> None:
    """One that does not know the credentials leaves them to the next; one that refuses them ends it."""

    class Knows(Names):
        def __init__(self, name: str) -> None:
            self.name = name

        async def authenticate(self, credentials: Credentials) -> Identity | None:
            return await super().authenticate(credentials) if credentials.name == self.name else None

    app = create_app(guarded.registry, authenticators=[Knows("alice"), Knows("bob")])
    client = await guarded.stack.enter_async_context(served(app))
    for name, password, status in (
        ("alice", "right", 200), ("bob", "right", 200), ("eve", "right", 401), ("bob", "wrong", 401),
    ):  # fmt: skip
        assert (await client.get("/v2/", headers=basic(name, password))).status_code == status


async def test_parts_are_opened_and_closed_with_the_application(guarded: Guarded) -> None:
    """An authenticator or authorizer that is a context manager is entered once and left at the end."""
    log: list[str] = []

    class Opened(Names):
        async def __aenter__(self) -> None:
            log.append("opened")

        async def __aexit__(self, *exception: object) -> None:
            log.append("closed")

    app = create_app(guarded.registry, authenticators=[Opened()])
    async with served(app) as client:
        await client.get("/v2/")
        await client.get("/v2/")
        assert log == ["opened"]
    await app.aclose()
    assert log == ["opened", "closed"]


async def test_certificate_of_the_transport(guarded: Guarded) -> None:
    """What the transport says of the client's certificate reaches the authenticators."""
    from moorage.auth.base import Certificate

    class Certificates:
        challenges: tuple[Challenge, ...] = ()

        async def authenticate(self, credentials: Credentials) -> Identity | None:
            found = credentials.certificate
            return Identity(found.names[0].removeprefix("DNS:"), method="certificate") if found else None

    rules = Rules([allow("client.test", "**", Action.PULL)])
    app = create_app(guarded.registry, authenticators=[Certificates()], authorizer=rules)
    certificate = Certificate("CN=client", ("DNS:client.test",))
    for extensions, status in (({"moorage.certificate": certificate}, 200), ({}, 401)):
        exchange = await Exchange(app, "GET", f"/v2/{HELD}/tags/list", scope={"extensions": extensions}).run()
        assert exchange.response.status_code == status


async def test_a_page_of_another_site(guarded: Guarded) -> None:
    """What a foreign page lets a browser send is refused, whatever the browser knows of its user; reading is not."""
    client = await guarded.client(allow("ann", "**"))
    path = f"/v2/{HELD}/blobs/uploads/"
    foreign = (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": HOST},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    )
    for headers in foreign:
        refused = await client.post(path, headers=basic("ann") | headers)
        errors(refused, 403, "DENIED")
        assert (await client.get(f"/v2/{HELD}/tags/list", headers=basic("ann") | headers)).status_code == 200
    for headers in ({}, {"origin": HOST}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}):
        assert (await client.post(path, headers=basic("ann") | headers)).status_code == 202


async def test_a_mount_looks_at_few(guarded: Guarded) -> None:
    """However many repositories hold a blob, few are looked at for one that may be pulled."""
    asked: list[str] = []

    class Counting(Rules):
        def decide(self, identity: Identity, action: Action, repository: str | None) -> Decision:
            if action is Action.PULL:
                asked.append(str(repository))
            return super().decide(identity, action, repository)

    for number in range(150):
        await guarded.registry.blobs.mount(f"hidden/{number}", digest_of(LAYER), HELD)
    rules = Counting([allow("ann", "ann/**")])
    app = create_app(guarded.registry, authenticators=[Names()], authorizer=rules)
    async with served(app) as client:
        opened = await client.post(f"/v2/ann/app/blobs/uploads/?mount={digest_of(LAYER)}", headers=basic("ann"))
    assert (opened.status_code, len(asked)) == (202, 100)
