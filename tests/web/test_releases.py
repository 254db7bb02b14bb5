"""Releases through the door: tags of several repositories go live together or not at all, and back."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from moorage import Registry, create_app
from moorage.registry.policy import ImmutableTags, Policy, QuotaRule
from moorage.spec.actions import Action
from tests.support import CONFIG, Json, Repository, detail, encode, errors, image, served
from tests.web.conftest import Opener
from tests.web.test_access import Guarded, allow, basic, deny, guarded
from tests.web.test_history import described

__all__ = ["guarded"]
SERVICES = ("shop/cart", "shop/pay", "shop/web")
RELEASES = "/v2/_moorage/releases"


async def push(client: httpx.AsyncClient, name: str, version: int, *tags: str) -> str:
    """Push a version of a service, by its digest unless there are tags; its digest."""
    repository = Repository(client, name)
    await repository.push_blob(CONFIG)
    document = image(CONFIG, [], annotations={"version": str(version)})
    return await repository.push(document, params=[("tag", tag) for tag in tags])


async def put(client: httpx.AsyncClient, name: str, *changes: Json, **more: Any) -> httpx.Response:
    response = await client.put(f"{RELEASES}/{name}", json={"changes": list(changes), **more})
    if response.status_code < 300:
        await described(response)
    return response


def to(name: str, digest: str, tag: str = "stable", **more: str) -> Json:
    return {"repository": name, "tag": tag, "digest": digest, **more}


async def named(client: httpx.AsyncClient, tag: str = "stable", services: Any = SERVICES) -> list[str | None]:
    """What the tag of each service names, None where it is not there."""
    found = [await client.head(f"/v2/{name}/manifests/{tag}") for name in services]
    return [each.headers.get("docker-content-digest") for each in found]


async def roll_back(client: httpx.AsyncClient, name: str, query: str = "") -> httpx.Response:
    return await client.post(f"{RELEASES}/{name}/rollback{query}")


async def both(client: httpx.AsyncClient) -> tuple[list[str], list[str]]:
    """The digests of version 1, which is ``stable``, and of version 2, which has no tag, of all services."""
    old = [await push(client, name, 1, "stable") for name in SERVICES]
    return old, [await push(client, name, 2) for name in SERVICES]


async def test_all_tags_go_live_and_back(client: httpx.AsyncClient) -> None:
    """Moved, new and deleted tags change at one moment, and a rollback undoes each of them; the history tells why."""
    old, new = await both(client)
    await push(client, "shop/web", 1, "old")
    moves = [to(name, digest, expected=was) for name, digest, was in zip(SERVICES, new, old, strict=True)]
    moves += [to("shop/pay", new[1], "v2", expected="absent"), to("shop/web", "absent", "old")]
    response = await put(client, "august", *moves)
    assert response.status_code == 201
    assert await named(client) == new
    assert await named(client, "v2") == [None, new[1], None]
    assert await named(client, "old") == [None] * 3
    made = response.json()
    assert (made["name"], made["state"], made["rolled_back_at"]) == ("august", "released", None)
    assert {(each["repository"], each["tag"]): each["before"] for each in made["changes"]} == {
        ("shop/cart", "stable"): old[0],
        ("shop/pay", "stable"): old[1],
        ("shop/web", "stable"): old[2],
        ("shop/pay", "v2"): "absent",
        ("shop/web", "old"): old[2],
    }
    back = await roll_back(client, "august")
    assert back.status_code == 200
    assert (await described(back))["kept"] == []
    assert back.json()["state"] == "rolled back"
    assert await named(client) == old
    assert await named(client, "v2") == [None] * 3
    assert await named(client, "old") == [None, None, old[2]]
    moments = set()
    for name, tag in (("shop/cart", "stable"), ("shop/pay", "v2"), ("shop/web", "old")):
        history = (await client.get(f"/v2/{name}/_moorage/history/{tag}")).json()["history"]
        assert [each["reason"] for each in history[:2]] == ["rollback of release august", "release august"]
        moments.add((history[0]["at"], history[1]["at"]))
    assert moments == {(back.json()["rolled_back_at"], made["released_at"])}


async def test_the_same_again(client: httpx.AsyncClient) -> None:
    """The same release sent again, in whatever order, is 200 and changes nothing; another of its name is 409."""
    old, new = await both(client)
    moves = [to(name, digest) for name, digest in zip(SERVICES, new, strict=True)]
    assert (await put(client, "r", *moves)).status_code == 201
    await Repository(client, "shop/cart").push(image(CONFIG, [], annotations={"version": "1"}), "stable")
    again = await put(client, "r", *moves[::-1])
    assert (again.status_code, again.json()["state"]) == (200, "released")
    assert await named(client) == [old[0], *new[1:]]
    for other in (moves[:2], [*moves[:2], to("shop/web", old[2])], [*moves[:2], moves[2] | {"expected": old[2]}]):
        assert detail(await put(client, "r", *other), 409, "DENIED")["state"] == "released"
    assert (await roll_back(client, "r", "?force=true")).status_code == 200
    assert detail(await put(client, "r", *moves), 409, "DENIED")["state"] == "rolled back"
    assert (await roll_back(client, "r")).status_code == 200
    assert await named(client) == old


async def test_what_is_missing_refuses_all(client: httpx.AsyncClient) -> None:
    """Every manifest that is not in its repository is named, and nothing changes."""
    old, new = await both(client)
    response = await put(
        client, "r", to("shop/cart", new[0]), to("shop/pay", "sha256:" + "0" * 64), to("shop/nowhere", new[2])
    )
    assert [each["detail"] for each in errors(response, 404, "MANIFEST_UNKNOWN")] == [
        {"name": "shop/nowhere", "tag": "stable", "reference": new[2]},
        {"name": "shop/pay", "tag": "stable", "reference": "sha256:" + "0" * 64},
    ]
    response = await put(client, "r", to("shop/cart", new[0]), to("shop/web", "absent", "never"))
    assert detail(response, 404, "MANIFEST_UNKNOWN") == {"name": "shop/web", "reference": "never"}
    assert await named(client) == old
    detail(await client.get(f"{RELEASES}/r"), 404, "NAME_UNKNOWN")


async def test_what_is_expected_must_be(client: httpx.AsyncClient) -> None:
    """Each tag that names something else than it must is told with what it names, and nothing changes."""
    old, new = await both(client)
    moves = [
        to("shop/cart", new[0], expected=old[0]),
        to("shop/pay", new[1], expected=new[1]),
        to("shop/web", new[2], expected="absent"),
        to("shop/web", new[2], "fresh", expected=old[2]),
    ]
    response = await put(client, "r", *moves)
    assert [each["detail"] for each in errors(response, 412, "DENIED")] == [
        {"name": "shop/pay", "tag": "stable", "expected": new[1], "current": old[1]},
        {"name": "shop/web", "tag": "fresh", "expected": old[2], "current": "absent"},
        {"name": "shop/web", "tag": "stable", "expected": "absent", "current": old[2]},
    ]
    assert await named(client) == old


async def test_one_of_two_wins_whole(client: httpx.AsyncClient) -> None:
    """Of releases that race over the same tags from what those name now, one is done, the others not at all."""
    current, _ = await both(client)
    for turn in range(5):
        rivals = [[await push(client, name, 10 * turn + n + 10) for name in SERVICES] for n in range(4)]
        wanted = [
            [to(name, new, expected=was) for name, new, was in zip(SERVICES, rival, current, strict=True)]
            for rival in rivals
        ]
        answers = await asyncio.gather(*(put(client, f"r{turn}.{n}", *each) for n, each in enumerate(wanted)))
        assert sorted(each.status_code for each in answers) == [201, 412, 412, 412]
        (current,) = [rival for rival, answer in zip(rivals, answers, strict=True) if answer.status_code == 201]
        assert await named(client) == current


async def test_the_same_release_at_once(client: httpx.AsyncClient) -> None:
    """A release that is sent by several at once is made by one of them; all are told that it is live."""
    _, new = await both(client)
    moves = [to(name, digest) for name, digest in zip(SERVICES, new, strict=True)]
    answers = await asyncio.gather(*(put(client, "r", *moves) for _ in range(6)))
    assert sorted(each.status_code for each in answers) == [200] * 5 + [201]
    backs = await asyncio.gather(*(roll_back(client, "r") for _ in range(4)))
    assert {each.status_code for each in backs} == {200}
    history = (await client.get("/v2/shop/pay/_moorage/history/stable")).json()["history"]
    assert len(history) == 3


async def test_rollback_refuses_what_was_moved_since(client: httpx.AsyncClient) -> None:
    """Tags that name something else by now are named and nothing changes, unless it is forced; those are left out
    that name already what they are to name."""
    old, new = await both(client)
    await put(client, "r", *(to(name, digest) for name, digest in zip(SERVICES, new, strict=True)))
    other = await push(client, "shop/pay", 3, "stable")
    await client.put("/v2/shop/web/manifests/stable", content=encode(image(CONFIG, [], annotations={"version": "1"})))
    response = await roll_back(client, "r")
    assert detail(response, 412, "DENIED") == {
        "name": "shop/pay", "tag": "stable", "released": new[1], "current": other,
    }  # fmt: skip
    assert await named(client) == [new[0], other, old[2]]
    detail(await roll_back(client, "r", "?force=yes"), 400, "UNSUPPORTED")
    assert (await roll_back(client, "r", "?force=true")).status_code == 200
    assert await named(client) == old


async def test_rollback_of_what_was_deleted(client: httpx.AsyncClient) -> None:
    """What tags named before comes back from the history, tags that were deleted since too."""
    old, new = await both(client)
    await put(client, "r", *(to(name, digest) for name, digest in zip(SERVICES, new, strict=True)))
    assert (await client.delete(f"/v2/shop/cart/manifests/{old[0]}")).status_code == 202
    assert (await client.delete(f"/v2/shop/cart/manifests/{new[0]}")).status_code == 202
    assert detail(await roll_back(client, "r"), 412, "DENIED")["current"] == "absent"
    assert (await roll_back(client, "r", "?force=true")).status_code == 200
    assert await named(client) == old


async def test_rollback_to_what_is_gone(opened: Opener) -> None:
    """Without a history there is nothing to go back to: all is refused, and each tag named."""
    client = (await opened(history_days=0)).client
    old, new = await both(client)
    await put(client, "r", *(to(name, digest) for name, digest in zip(SERVICES, new, strict=True)))
    await client.delete(f"/v2/shop/cart/manifests/{old[0]}")
    await client.delete(f"/v2/shop/web/manifests/{old[2]}")
    response = await roll_back(client, "r")
    assert [each["detail"]["reference"] for each in errors(response, 404, "MANIFEST_UNKNOWN")] == [old[0], old[2]]
    assert await named(client) == new
    assert (await client.get(f"{RELEASES}/r")).json()["state"] == "released"


async def test_drafts(client: httpx.AsyncClient) -> None:
    """A draft moves nothing until it is published, by its name or by the same content; or it is discarded."""
    old, new = await both(client)
    moves = [to(name, digest) for name, digest in zip(SERVICES, new, strict=True)]
    draft = await put(client, "one", *moves, draft=True)
    assert (draft.status_code, draft.json()["state"]) == (201, "draft")
    assert {each["before"] for each in draft.json()["changes"]} == {None}
    assert (await put(client, "one", *moves, draft=True)).status_code == 200
    assert await named(client) == old
    detail(await roll_back(client, "one"), 409, "DENIED")
    published = await described(await client.post(f"{RELEASES}/one/publish"))
    assert published["state"] == "released"
    assert await named(client) == new
    assert (await client.post(f"{RELEASES}/one/publish")).status_code == 200
    detail(await client.delete(f"{RELEASES}/one"), 409, "DENIED")
    assert (await put(client, "one", *moves, draft=True)).json()["state"] == "released"

    back = [to(name, digest) for name, digest in zip(SERVICES, old, strict=True)]
    await put(client, "two", *back, draft=True)
    assert (await client.delete(f"{RELEASES}/two")).status_code == 204
    for response in (
        await client.delete(f"{RELEASES}/two"),
        await client.get(f"{RELEASES}/two"),
        await client.post(f"{RELEASES}/two/publish"),
        await roll_back(client, "two"),
    ):
        assert detail(response, 404, "NAME_UNKNOWN") == {"release": "two"}
    await put(client, "two", *back, draft=True)
    assert (await put(client, "two", *back)).status_code == 201
    assert await named(client) == old


async def test_a_draft_of_what_is_not_there(client: httpx.AsyncClient) -> None:
    """It is refused at once, since it could hold nothing."""
    response = await put(client, "r", to("shop/cart", "sha256:" + "0" * 64), draft=True)
    assert detail(response, 404, "MANIFEST_UNKNOWN")["name"] == "shop/cart"
    detail(await client.get(f"{RELEASES}/r"), 404, "NAME_UNKNOWN")


async def test_list(client: httpx.AsyncClient) -> None:
    """The latest first, in pages that Link joins."""
    _, new = await both(client)
    for n in range(5):
        await put(client, f"r{n}", to("shop/cart", new[0]), draft=n == 4)
    whole = await described(await client.get(RELEASES))
    assert [each["name"] for each in whole["releases"]] == ["r4", "r3", "r2", "r1", "r0"]
    assert [each["state"] for each in whole["releases"]] == ["draft"] + ["released"] * 4
    found, target = [], f"{RELEASES}?n=2"
    while target:
        page = await client.get(target)
        found += (await described(page))["releases"]
        target = page.links["next"]["url"] if page.links else ""
    assert found == whole["releases"]
    detail(await client.get(f"{RELEASES}?last=x"), 400, "UNSUPPORTED")


GOOD = {"repository": "a", "tag": "b", "digest": "absent"}


@pytest.mark.parametrize(
    ("body", "path", "reason"),
    [
        (b"{", "$", "truncated"),
        (b"\xff", "$", ""),
        ({}, "$", "`changes`"),
        ({"changes": []}, "$.changes", "1 to 256"),
        ({"changes": [GOOD | {"tag": f"t{n}"} for n in range(257)]}, "$.changes", "1 to 256"),
        ({"changes": [GOOD], "more": 1}, "$", "`more`"),
        ({"changes": [GOOD], "name": "other"}, "$.name", "another name"),
        ({"changes": [{"repository": "a", "tag": "b"}]}, "$.changes[0]", "`digest`"),
        ({"changes": [GOOD, GOOD | {"repository": "A"}]}, "$.changes[1]", "invalid repository name"),
        ({"changes": [GOOD | {"repository": "at-2026-08-01/a"}]}, "$.changes[0]", "moment"),
        ({"changes": [GOOD | {"tag": ".b"}]}, "$.changes[0]", "tag"),
        ({"changes": [GOOD | {"digest": "sha256:0"}]}, "$.changes[0]", "invalid digest"),
        ({"changes": [GOOD | {"expected": "present"}]}, "$.changes[0]", "invalid digest"),
        ({"changes": [GOOD | {"tag": "sha256-" + "0" * 64}]}, "$.changes[0]", "the registry itself"),
        ({"changes": [GOOD, GOOD | {"expected": "absent"}]}, "$.changes[1]", "twice"),
    ],
)
async def test_what_is_no_release(client: httpx.AsyncClient, body: Any, path: str, reason: str) -> None:
    """It is refused with the place of the mistake."""
    content = body if isinstance(body, bytes) else encode(body)
    found = detail(await client.put(f"{RELEASES}/r", content=content), 400, "UNSUPPORTED")
    assert found["path"] == path
    assert reason in found["reason"]


async def test_names_and_paths(client: httpx.AsyncClient) -> None:
    """A release is named as a tag is; other paths are no endpoints, other methods not allowed."""
    for name in (".r", "r%20", "r" * 129):
        assert detail(await put(client, name, GOOD), 400, "UNSUPPORTED")["allowed"]
    for path in ("", "/", "/r/", "/r/x", "/r/publish/", "/manifests/x"):
        if path:
            errors(await client.get(f"{RELEASES}{path}"), 404, "UNSUPPORTED")
    assert (await client.put(RELEASES, json={})).headers["allow"] == "GET"
    assert (await client.post(f"{RELEASES}/r")).headers["allow"] == "DELETE, GET, PUT"
    assert (await client.get(f"{RELEASES}/r/rollback")).headers["allow"] == "POST"
    too_long = await client.put(f"{RELEASES}/r", content=b" " * (256 * 1024 + 1))
    assert detail(too_long, 400, "UNSUPPORTED")["path"] == "$"


async def test_immutable_tags(opened: Opener) -> None:
    """They are made, but neither moved nor deleted; a rollback leaves them and says so."""
    client = (await opened(immutable_tags=(ImmutableTags("shop/**", "v*"),))).client
    old, new = await both(client)
    await push(client, "shop/cart", 1, "v1")
    for digest in (new[0], "absent"):
        response = await put(client, "r", to("shop/web", new[2]), to("shop/cart", digest, "v1"))
        assert detail(response, 403, "DENIED") == {"name": "shop/cart", "tag": "v1"}
    assert await named(client) == old
    assert (await put(client, "r", to("shop/web", new[2]), to("shop/cart", new[0], "v2"))).status_code == 201
    back = await described(await roll_back(client, "r"))
    assert back["kept"] == [{"repository": "shop/cart", "tag": "v2"}]
    assert await named(client) == old
    assert await named(client, "v2") == [new[0], None, None]


async def test_deletion_turned_off(opened: Opener) -> None:
    """No release deletes a tag then; what one made stays when it is rolled back."""
    client = (await opened(deletion=False)).client
    old, new = await both(client)
    errors(await put(client, "r", to("shop/web", new[2]), to("shop/cart", "absent")), 405, "UNSUPPORTED")
    await put(client, "r", to("shop/web", new[2]), to("shop/cart", new[0], "v2"))
    assert (await roll_back(client, "r")).json()["kept"] == [{"repository": "shop/cart", "tag": "v2"}]
    assert await named(client) == old


async def test_quotas_of_tags(opened: Opener) -> None:
    """All tags that a release makes must fit together, less those that it deletes; a rollback counts them back."""
    quota = QuotaRule(repository="shop/*", tags=5)
    repository = await opened(quotas=(quota,))
    client = repository.client
    old, new = await both(client)
    moves = [to(name, digest, "v2") for name, digest in zip(SERVICES, new, strict=True)]
    found = detail(await put(client, "r", *moves), 403, "DENIED")
    assert (found["allowed"], found["used"], found["asked"]) == (5, 3, 3)
    assert await named(client, "v2") == [None] * 3
    assert (await put(client, "r", *moves, to("shop/cart", "absent"))).status_code == 201
    detail(await put(client, "more", to("shop/web", new[2], "v3")), 403, "DENIED")
    assert (await roll_back(client, "r")).status_code == 200
    assert await named(client) == old
    assert (await put(client, "two", *moves[:2])).status_code == 201
    detail(await put(client, "three", moves[2]), 403, "DENIED")


async def test_a_rollback_that_makes_a_repository_again_is_within_the_quota(
    make_registry: Callable[[Policy | None], Registry],
) -> None:
    """What it makes there counts as anywhere else."""
    policy = Policy(quotas=(QuotaRule(repository="shop/*", tags=3),))
    async with make_registry(policy) as registry, served(create_app(registry)) as client:
        old, new = await both(client)
        await put(client, "r", to("shop/pay", new[1]))
        for digest in (old[1], new[1]):
            assert (await client.delete(f"/v2/shop/pay/manifests/{digest}")).status_code == 202
        await registry.collect(Policy(collect_grace=0.0))
        await push(client, "shop/web", 1, "third")
        found = detail(await roll_back(client, "r", "?force=true"), 403, "DENIED")
        assert (found["allowed"], found["used"], found["asked"]) == (3, 3, 1)
        await client.delete("/v2/shop/web/manifests/third")
        assert (await roll_back(client, "r", "?force=true")).status_code == 200
        assert await named(client) == old


PULL, PUSH, RETAG, DELETE = Action.PULL, Action.PUSH, Action.RETAG, Action.DELETE


async def test_access(guarded: Guarded) -> None:
    """Each change needs its right; what may not be pulled makes the release one that is not there."""
    admin = await guarded.client(allow("admin", "**"))
    admin.headers.update(basic("admin"))
    old, new = await both(admin)
    client = await guarded.client(
        allow("admin", "**"),
        allow("most", "**", PULL, PUSH, RETAG),
        deny("most", "shop/web", PUSH),
        allow("blind", "**", PUSH, RETAG),
        allow("fixed", "**", PULL, PUSH, DELETE),
        allow("some", "shop/cart", PULL, PUSH, RETAG),
        allow("anonymous", "**"),
    )
    moves = [to(name, digest) for name, digest in zip(SERVICES, new, strict=True)]

    async def ask(who: str, method: str, path: str = "", **request: Any) -> httpx.Response:
        return await client.request(method, f"{RELEASES}{path}", headers=basic(who) if who else {}, **request)

    async def refused(who: str, *lacking: tuple[str, Action]) -> None:
        response = await ask(who, "PUT", "/r", json={"changes": moves})
        found = [(each["detail"]["name"], each["detail"]["action"]) for each in errors(response, 403, "DENIED")]
        assert found == [*lacking]

    assert (await ask("", "PUT", "/r", json={"changes": moves})).status_code == 401
    assert (await ask("", "GET")).status_code == 401
    await refused("most", ("shop/web", PUSH))
    await refused("blind", *((name, PULL) for name in SERVICES))
    await refused("some", *((name, action) for name in SERVICES[1:] for action in (PULL, PUSH)))
    response = await ask("fixed", "PUT", "/r", json={"changes": moves})
    assert detail(response, 403, "DENIED") == {"name": "shop/cart", "tag": "stable"}
    gone = to("shop/cart", "absent")
    response = await ask("most", "PUT", "/r", json={"changes": [gone]})
    assert detail(response, 403, "DENIED") == {"name": "shop/cart", "action": "delete"}
    assert await named(admin) == old
    assert (await ask("fixed", "PUT", "/new", json={"changes": [to("shop/cart", new[0], "v2")]})).status_code == 201

    assert (
        await ask("admin", "PUT", "/r", json={"changes": [*moves, to("shop/web", new[2], "v2")]})
    ).status_code == 201
    for who, method, path in (
        ("some", "GET", "/r"),
        ("some", "POST", "/r/publish"),
        ("some", "POST", "/r/rollback"),
        ("some", "DELETE", "/r"),
        ("blind", "GET", "/r"),
    ):
        detail(await ask(who, method, path), 404, "NAME_UNKNOWN")
    assert [each["name"] for each in (await ask("some", "GET")).json()["releases"]] == ["new"]
    assert [each["name"] for each in (await ask("most", "GET")).json()["releases"]] == ["r", "new"]
    assert (await ask("most", "GET", "/r")).json()["actor"] == "admin"
    rights = errors(await ask("most", "POST", "/r/rollback"), 403, "DENIED")
    assert {(each["detail"]["name"], each["detail"]["action"]) for each in rights} == {
        ("shop/web", "push"), ("shop/web", "delete"),
    }  # fmt: skip
    assert detail(await ask("fixed", "POST", "/r/rollback"), 403, "DENIED")["tag"] == "stable"
    errors(await ask("most", "DELETE", "/r"), 403, "DENIED")
    assert await named(admin) == new
    assert (await ask("admin", "POST", "/r/rollback")).status_code == 200
    assert await named(admin) == old


async def test_a_repository_that_went_is_made_again_by_who_may(guarded: Guarded) -> None:
    """A rollback into a repository that is not there any more needs the right to create it, or changes nothing."""
    admin = await guarded.client(allow("admin", "**"))
    admin.headers.update(basic("admin"))
    old, new = await both(admin)
    await put(admin, "r", *(to(name, digest) for name, digest in zip(SERVICES, new, strict=True)))
    for digest in (old[1], new[1]):
        assert (await admin.delete(f"/v2/shop/pay/manifests/{digest}")).status_code == 202
    await guarded.registry.collect(Policy(collect_grace=0.0))
    assert (await admin.get("/v2/shop/pay/tags/list")).status_code == 404
    client = await guarded.client(allow("pusher", "**", PULL, PUSH, RETAG, DELETE), allow("admin", "**"))
    response = await client.post(f"{RELEASES}/r/rollback?force=true", headers=basic("pusher"))
    assert detail(response, 403, "DENIED") == {"name": "shop/pay", "action": "create"}
    assert await named(admin) == [new[0], None, new[2]]
    assert (await roll_back(admin, "r", "?force=true")).status_code == 200
    assert await named(admin) == old
