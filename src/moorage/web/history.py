"""The history of tags, for clients: one function for each of its endpoint rows."""

from typing import Any, Final

from moorage.auth.base import ANONYMOUS
from moorage.metadata.history import TagChange
from moorage.spec import moments
from moorage.spec.actions import Action
from moorage.spec.digest import Digest
from moorage.spec.errors import MomentInvalid
from moorage.web.asgi import Response, empty, json_response
from moorage.web.v2 import NOT_MOVED, Call, Endpoint, linked, page_of

_UPDATES: Final = 1000


async def list_history(call: Call) -> Response:
    n, last = page_of(call.request)
    page = await call.registry.history.list(call.repository, call.reference, n, last)
    # Who is known here is nothing for whoever has not shown who he is himself.
    named = not call.permit.restricted or call.permit.identity.name != ANONYMOUS.name
    changes = [_change(each, each.actor if named else None) for each in page.items]
    response = json_response({"name": call.repository, "tag": call.reference, "history": changes})
    return linked(call, response, f"{call.repository}/_moorage/history/{call.reference}", n, page.last)


async def list_updates(call: Call) -> Response:
    """Serve the form of the reserved extension ``_chainguard``: what the tag named, the oldest first."""
    start, end = _moment(call, "start"), _moment(call, "end")
    found: list[dict[str, str]] = []
    last: str | None = ""
    while last is not None:
        page = await call.registry.history.list(call.repository, call.reference, None, last)
        found += [
            {"updateTimestamp": moments.text(each.at), "digest": each.after}
            for each in page.items
            if each.after and (start is None or each.at >= start) and (end is None or each.at <= end)
        ]
        last = page.last if len(found) < _UPDATES else None
    return json_response({"history": found[:_UPDATES][::-1]})


async def restore_tag(call: Call) -> Response:
    """Let a tag name again what it named: ``to`` is a moment or a digest, or not there: before its last change."""
    fixed = None if await call.permit.may(Action.RETAG, call.repository, call.reference) else NOT_MOVED
    to = call.request.parameter("to")
    wanted = None if to is None else Digest.parse(to) if _is_digest(to) else _moment(call, "to")
    digest = await call.registry.history.restore(
        call.repository, call.reference, wanted, actor=call.actor, create=await call.may_create(), fixed=fixed
    )
    location = call.location(f"{call.repository}/manifests/{digest}")
    return empty(201, [("Location", location), ("Docker-Content-Digest", digest)])


def _change(change: TagChange, actor: str | None) -> dict[str, Any]:
    return {
        "at": moments.text(change.at),
        "actor": actor,
        "action": change.action,
        "before": change.before,
        "after": change.after,
        "reason": change.reason,
    }


def _is_digest(text: str) -> bool:
    return ":" in text and text[:1].isalpha()


def _moment(call: Call, parameter: str) -> float | None:
    text = call.request.parameter(parameter)
    try:
        return None if text is None else moments.parse(text)
    except (ValueError, OverflowError) as error:
        raise MomentInvalid(detail={"parameter": parameter, "value": text[:64] if text else text}) from error


ENDPOINTS: Final[dict[str, Endpoint]] = {
    function.__name__: function for function in (list_history, list_updates, restore_tag)
}
