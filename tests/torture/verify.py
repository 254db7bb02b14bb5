"""What must hold after a restart: everything acknowledged is there, everything else is done whole or not at all."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.torture.model import Fact, Model, Operation, Pushed, Session, Value, Violation, digest_of
from tests.torture.pushes import Pusher
from tests.torture.wire import Connection, Unanswered, Unsent

READERS = 4
Seen = int | str | tuple[str, bytes] | None


@dataclass
class Verified:
    """What a verification looked at."""

    facts: int = 0
    listings: int = 0
    happened: int = 0  # operations of unknown outcome that turned out to have been done
    vanished: int = 0
    resumed: int = 0


async def verify(host: str, model: Model, random: Random, *, old: int | None) -> Verified:
    """Look at all that changed since the last time and at ``old`` older facts (None: at everything).

    Half of the unfinished uploads are resumed (where everything is looked at, all of them). Raises ``Violation``.
    """
    done = Verified()
    async with Connection(host) as connection:
        left = list(model.unknown)
        while left:
            # One may look half done until another, of the same blob, is known to have been done.
            halves = [operation for operation in left if not await resolve(connection, model, operation, done)]
            if len(halves) == len(left):
                raise await _half_done(connection, model, halves[0])
            left = halves
    older = model.verified if old is None else random.sample(model.verified, min(old, len(model.verified)))
    facts = list(dict.fromkeys([*sorted(model.fresh), *older]))
    touched = {fact.repository for fact in model.fresh}
    repositories = sorted(model.facts)
    if old is not None:
        others = [each for each in repositories if each not in touched]
        repositories = sorted(touched) + random.sample(others, min(10, len(others)))
    await _in_parallel(host, model, facts, repositories)
    model.settle(facts)
    done.facts, done.listings = len(facts), len(repositories)
    uploads = [fact for repository in sorted(model.facts) for fact, _ in model.of(repository, "upload")]
    async with Connection(host) as connection:
        pusher = Pusher(connection, model, random)
        for upload in uploads:
            if old is None or upload.repository.startswith("torture/shared/") or random.random() < 0.5:
                digest = await pusher.resume(upload)
                await verify_fact(connection, model, Fact("blob", upload.repository, digest))
                done.resumed += 1
    return done


async def verify_fact(connection: Connection, model: Model, fact: Fact) -> None:
    """Raise ``Violation`` unless the registry holds exactly what it acknowledged."""
    value = model.value(fact)
    seen = await see(connection, model, fact)
    if seen != _visible(value):
        raise model.violated(f"{fact} should be {_short(_visible(value))} but is {_short(seen)}", fact)


async def see(connection: Connection, model: Model, fact: Fact) -> Seen:
    """A fact as the registry shows it: what a blob, manifest or tag is, or how far a session is; None: not there."""
    collection = {"blob": "blobs", "manifest": "manifests", "tag": "manifests", "upload": "blobs/uploads"}[fact.kind]
    try:
        answer = await connection.request("GET", f"/v2/{fact.repository}/{collection}/{fact.name}")
    except (Unanswered, Unsent, TimeoutError) as error:
        error.add_note("\n".join(["reading it:", *model.story(fact)]))
        raise
    if answer.status == 404:
        return None
    if answer.status != (204 if fact.kind == "upload" else 200):
        raise model.violated(f"{fact} cannot be read: {answer.status} {answer.body[:500]!r}", fact)
    if fact.kind == "upload":
        # "0-0" stands for nothing as well as for one byte; no client here sends just one.
        last = int(answer.headers["range"].partition("-")[2])
        return last + 1 if last else 0
    digest = answer.headers.get("docker-content-digest", "")
    named = digest if fact.kind == "tag" else fact.name
    computed = digest_of(answer.body, named.partition(":")[0])
    if computed != named or digest != named:
        raise model.violated(f"{fact} is served as {digest} with bytes whose digest is {computed}", fact)
    if fact.kind == "tag":
        return digest
    return len(answer.body) if fact.kind == "blob" else (answer.headers["content-type"], answer.body)


async def resolve(connection: Connection, model: Model, operation: Operation, done: Verified) -> bool:
    """Find out whether an unanswered operation was done; False if it looks neither done nor not done."""
    seen = {fact: await see(connection, model, fact) for fact in operation.effects}
    if seen == {fact: _visible(value) for fact, value in operation.effects.items()}:
        done.happened += 1
        model.acknowledge(operation, "unanswered, and found done")
    elif seen == {fact: _visible(model.value(fact)) for fact in operation.effects}:
        done.vanished += 1
        model.drop(operation, "unanswered, and found not done")
    elif partial := _partial(model, operation, seen):
        done.happened += 1
        model.begin(partial)
        model.acknowledge(partial, "unanswered, and found done in part, as a PATCH may be")
        model.drop(operation, "unanswered, and found done in part")
    else:
        return False
    return True


async def _half_done(connection: Connection, model: Model, operation: Operation) -> Violation:
    seen = {fact: await see(connection, model, fact) for fact in operation.effects}
    before = {fact: _visible(model.value(fact)) for fact in operation.effects}
    after = {fact: _visible(value) for fact, value in operation.effects.items()}
    return model.violated(
        f"{operation.text} was not answered and is half done: before {_shorts(before)}; wanted {_shorts(after)}; "
        f"seen {_shorts(seen)}",
        *operation.effects,
    )


def _partial(model: Model, operation: Operation, seen: dict[Fact, Seen]) -> Operation | None:
    """A PATCH that arrived in part: a session may keep what it got of it."""
    if len(operation.effects) != 1:
        return None
    ((fact, after),) = operation.effects.items()
    before, received = model.value(fact), seen[fact]
    if not (isinstance(before, Session) and isinstance(after, Session) and isinstance(received, int)):
        return None
    if not before.received < received < after.received:
        return None
    effects: dict[Fact, Value] = {fact: Session(after.content, after.digest, received)}
    return Operation(operation.text, effects)


async def _in_parallel(host: str, model: Model, facts: Sequence[Fact], repositories: Sequence[str]) -> None:
    async def read(part: int) -> None:
        async with Connection(host) as connection:
            for fact in facts[part::READERS]:
                await verify_fact(connection, model, fact)
            for repository in repositories[part::READERS]:
                await _verify_listings(connection, model, repository)

    async with asyncio.TaskGroup() as group:
        for part in range(READERS):
            group.create_task(read(part))
    async with Connection(host) as connection:
        expected = {repository for repository in model.facts if model.of(repository, "blob")}
        seen = set((await _list(connection, model, "/v2/_catalog"))["repositories"])
        if missing := expected - seen:
            raise model.violated(f"the catalog lacks {sorted(missing)}")


async def _verify_listings(connection: Connection, model: Model, repository: str) -> None:
    """The tags, and the referrers of every subject, are those of the facts: no more, no less."""
    tags = {fact.name: fact for fact, _ in model.of(repository, "tag")}
    if any(fact.kind != "upload" and value is not None for fact, value in model.facts[repository].items()):
        listed = (await _list(connection, model, f"/v2/{repository}/tags/list"))["tags"]
        if listed != sorted(tags):
            wrong = sorted(set(listed) ^ set(tags))
            raise model.violated(
                f"the tags of {repository} should be {sorted(tags)}, are {listed}",
                *(Fact("tag", repository, tag) for tag in wrong),
            )
    subjects: dict[str, set[tuple[str, int]]] = {}
    for fact, pushed in model.facts[repository].items():
        if fact.kind == "manifest":
            subjects.setdefault(fact.name, set())
            if isinstance(pushed, Pushed) and pushed.subject:
                subjects.setdefault(pushed.subject, set()).add((fact.name, len(pushed.content)))
    for subject, expected in subjects.items():
        path = f"/v2/{repository}/referrers/{subject}"
        seen = {(each["digest"], each["size"]) for each in (await _list(connection, model, path))["manifests"]}
        if seen != expected:
            wrong = sorted({digest for digest, _ in seen ^ expected})
            raise model.violated(
                f"the referrers of {repository}@{subject} should be {sorted(expected)}, are {sorted(seen)}",
                *(Fact("manifest", repository, digest) for digest in wrong),
            )


async def _list(connection: Connection, model: Model, path: str) -> Any:
    answer = await connection.request("GET", path)
    if answer.status != 200 or "link" in answer.headers:
        raise model.violated(f"{path} should be listed on one page: {answer.status} {answer.body[:500]!r}")
    return json.loads(answer.body)


def _visible(value: Value) -> Seen:
    """A value as the registry shows it."""
    if isinstance(value, Session):
        return value.received
    return (value.media_type, value.content) if isinstance(value, Pushed) else value


def _short(seen: Seen) -> str:
    return f"{seen[0]} {digest_of(seen[1])}" if isinstance(seen, tuple) else str(seen)


def _shorts(seen: Mapping[Fact, Seen]) -> str:
    return "; ".join(f"{fact}: {_short(each)}" for fact, each in seen.items())
