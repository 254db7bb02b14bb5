"""Releases over HTTP: one function for each of their endpoint rows.

Whoever makes, publishes, discards or rolls one back needs the right for each of its changes, and to pull from each of
its repositories: a release is not there for others.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from moorage.metadata.releases import Release, TagMoved
from moorage.spec import moments
from moorage.spec.actions import Action
from moorage.spec.errors import Denied, ReleaseInvalid, ReleaseUnknown
from moorage.spec.releases import ABSENT, LARGEST, TagMove, parse
from moorage.web.asgi import Response, empty, json_response
from moorage.web.v2 import NOT_MOVED, Call, Endpoint, linked, page_of

_RELEASES: Final = "_moorage/releases"


async def list_releases(call: Call) -> Response:
    n, last = page_of(call.request)
    seen = partial(call.permit.may, Action.PULL) if call.permit.restricted else None
    page = await call.registry.releases.list(n, last, seen=seen)
    response = json_response({"releases": [_described(each) for each in page.items]})
    return linked(call, response, _RELEASES, n, page.last)


async def get_release(call: Call) -> Response:
    await _seen(call)
    return await _shown(call)


async def put_release(call: Call) -> Response:
    body = await call.request.whole(LARGEST)
    if body is None:
        raise ReleaseInvalid(detail={"path": "$", "reason": f"allowed: at most {LARGEST} bytes"})
    name, wanted = parse(body, call.reference)
    fixed = await _granted(call, [(each, each.digest) for each in wanted.changes])
    made = await call.registry.releases.make(name, wanted.changes, draft=wanted.draft, actor=call.actor, fixed=fixed)
    return await _shown(call, 201 if made else 200)


async def publish_release(call: Call) -> Response:
    changes = await _seen(call)
    fixed = await _granted(call, [(each.move, each.move.digest) for each in changes])
    await call.registry.releases.publish(call.reference, actor=call.actor, fixed=fixed)
    return await _shown(call)


async def discard_release(call: Call) -> Response:
    await _granted(call, [(each.move, each.move.digest) for each in await _seen(call)])
    await call.registry.releases.discard(call.reference, actor=call.actor)
    return empty(204)


async def roll_back_release(call: Call) -> Response:
    """Roll back; with ``?force=true`` also tags that name something else by now."""
    force = call.request.parameter("force") or "false"
    if force not in ("true", "false"):
        raise ReleaseInvalid(detail={"parameter": "force", "value": force[:64], "allowed": ["true", "false"]})
    changes = await _seen(call)
    fixed = await _granted(call, [(each.move, each.before or each.move.digest) for each in changes])
    touched = {each.move.repository for each in changes}
    uncreated = {name for name in touched if not await call.permit.may(Action.CREATE, name)}
    stay = await call.registry.releases.roll_back(
        call.reference, force=force == "true", actor=call.actor, fixed=fixed, uncreated=uncreated
    )
    return await _shown(call, kept=[{"repository": each.move.repository, "tag": each.move.tag} for each in stay])


async def _seen(call: Call) -> list[TagMoved]:
    """The changes of the release that is asked for; raises ``ReleaseUnknown`` where one may not pull all of it."""
    _, changes = await call.registry.releases.get(call.reference)
    for repository in dict.fromkeys(each.move.repository for each in changes):
        if not await call.permit.may(Action.PULL, repository):
            raise ReleaseUnknown(detail={"release": call.reference})
    return changes


async def _granted(call: Call, changes: Sequence[tuple[TagMove, str]]) -> dict[tuple[str, str], str]:
    """Why, of each of the tags that the client may make but not move.

    ``changes`` are what shall become of tags. Raises ``Denied`` with each right that is lacking.
    """
    wanted: dict[tuple[Action, str, str | None], None] = {}
    for move, _ in changes:
        wanted |= {(Action.PULL, move.repository, None): None, (Action.PUSH, move.repository, None): None}
    wanted |= dict.fromkeys(
        (Action.DELETE, move.repository, move.tag) for move, digest in changes if digest == ABSENT
    )
    lacking = [each for each in wanted if not await call.permit.may(*each)]
    if lacking:
        raise Denied(details=[{"name": name, "action": action} for action, name, _ in lacking])
    return {
        (move.repository, move.tag): NOT_MOVED
        for move, _ in changes
        if not await call.permit.may(Action.RETAG, move.repository, move.tag)
    }


async def _shown(call: Call, status: int = 200, **more: Any) -> Response:
    release, changes = await call.registry.releases.get(call.reference)
    described = [
        {
            "repository": each.move.repository,
            "tag": each.move.tag,
            "digest": each.move.digest,
            "expected": each.move.expected,
            "before": each.before,
        }
        for each in changes
    ]
    return json_response({**_described(release), "changes": described, **more}, status=status)


def _described(release: Release) -> dict[str, Any]:
    return {
        "name": release.name,
        "state": release.state,
        "actor": release.actor,
        "created_at": moments.text(release.created_at),
        "released_at": _text(release.released_at),
        "rolled_back_at": _text(release.rolled_back_at),
    }


def _text(moment: float | None) -> str | None:
    return None if moment is None else moments.text(moment)


ENDPOINTS: Final[dict[str, Endpoint]] = {
    function.__name__: function
    for function in (
        list_releases,
        get_release,
        put_release,
        publish_release,
        discard_release,
        roll_back_release,
    )
}
