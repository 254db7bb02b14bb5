"""Clients that push through a balancer while what is behind it dies and comes back."""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from tests.nodes.kit import Nodes
from tests.torture.clients import CLIENTS, Client
from tests.torture.model import Fact, Model, Value, Violation
from tests.torture.pushes import Body
from tests.torture.verify import Verified, resolve, verify
from tests.torture.wire import Answer, Connection, Unanswered

PATIENCE = 60.0  # seconds until what is down must be up again
PAUSE = 0.3
ROUNDS = int(os.environ.get("MOORAGE_NODES_ROUNDS", "2"))  # how often each of it happens


class Balanced(Connection):
    """A connection to a balancer: reads are repeated until they are answered, as real clients do.

    A change is not known to be done, nor not to be, where the balancer answers for a node, a node cannot reach what
    it stands on, or the balancer asked a second node after a first had died: that one says 404.
    """

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                answer = await super().request(method, path, body, headers)
            except Unanswered:
                why = "the balancer hung up"
            else:
                if answer.status < 500 and not (answer.status == 404 and method in ("PUT", "DELETE")):
                    return answer
                why = f"{answer.status} {answer.body[:200]!r}"
            if method not in ("GET", "HEAD") or time.monotonic() > until:
                raise Unanswered(f"{method} {path}: {why}")
            await asyncio.sleep(PAUSE)


class Persistent(Client):
    """It finds out what became of an operation that was not answered before it goes on."""

    async def change(
        self,
        text: str,
        effects: Mapping[Fact, Value],
        expected: int,
        method: str,
        path: str,
        body: Body = b"",
        headers: Mapping[str, str] | None = None,
        **answered: str,
    ) -> Answer:
        try:
            return await super().change(text, effects, expected, method, path, body, headers, **answered)
        except Unanswered:
            await self._find_out(effects)
            raise

    async def _find_out(self, effects: Mapping[Fact, Value]) -> None:
        """What looks half done may be the work of another client who has no answer yet."""
        until = time.monotonic() + PATIENCE
        await asyncio.sleep(1.0)  # until the last that a dead node asked of the database is done
        (operation,) = [each for each in self.model.unknown if each.effects is effects]
        while not await resolve(self.connection, self.model, operation, self.seen):
            if time.monotonic() > until:
                raise self.model.violated(f"{operation.text} was not answered and is half done", *effects)
            await asyncio.sleep(PAUSE)

    async def work_on(self, seen: Verified) -> None:
        """One operation after another until ``dying``."""
        self.seen = seen
        while not self.dying():
            try:
                await self.operate()
            except Unanswered:
                continue


async def push_while(
    host: str, model: Model, seed: str, harm: Callable[[Random], Any], clients: int = CLIENTS
) -> Verified:
    """Clients push through ``host`` while ``harm`` does what it does; then all that was acknowledged is looked at.

    Raises ``Violation`` with the story of what was lost; returns what was seen.
    """
    seen, over = Verified(), asyncio.Event()

    async def client(number: int) -> None:
        async with Balanced(host, PATIENCE) as connection:
            each = Persistent(connection, model, Random(f"{seed} {number}"), over.is_set)
            each.set_up(number, 0)
            await each.work_on(seen)

    async def harmed() -> None:
        try:
            await asyncio.to_thread(harm, Random(seed))
        finally:
            over.set()

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(client(number))
            group.create_task(harmed())
        last = await verify(host, model, Random(seed), old=None)
    except* Violation as violations:
        raise Violation(f"seed {seed}: " + "\n".join(map(str, violations.exceptions))) from None
    seen.facts, seen.listings, seen.resumed = last.facts, last.listings, last.resumed
    return seen


def push(made: Nodes, harm: Callable[[Random], None], rounds: int = ROUNDS) -> None:
    """Push while ``harm`` is done ``rounds`` times; all that was acknowledged is there and the check is clean."""
    model, seed = Model(), str(secrets.randbelow(2**32))

    def harmed(choices: Random) -> None:
        for _ in range(rounds):
            time.sleep(choices.uniform(0.2, 1.5))
            harm(choices)
        time.sleep(0.5)

    seen = asyncio.run(push_while(made.host, model, seed, harmed))
    print(f"{model.acknowledged} acknowledged, {seen}")
    assert model.acknowledged > 20
    assert "nothing is wrong" in made.check()
    for server in made.servers:
        assert "Traceback" not in server.log, server.log
