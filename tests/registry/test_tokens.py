"""Tokens of several nodes over one database: SQLite as two processes have it, and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from moorage.auth.base import Credentials, Identity
from moorage.auth.scopes import parse
from moorage.metadata.postgres import PostgresMetadata, PostgresOptions
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.tokens import Tokens
from moorage.spec.errors import TokenInvalid
from tests.tokens import Staff

SCOPES = parse(["repository:team/app:pull,push"])


@pytest.fixture(params=["sqlite", "postgres"])
def facts(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SQLiteMetadata | PostgresMetadata]:
    """What makes one more way into the same database."""
    if request.param == "sqlite":
        return lambda: SQLiteMetadata(tmp_path / "facts.db")
    options = PostgresOptions(url=request.getfixturevalue("database"))
    return lambda: PostgresMetadata(options)


@pytest.fixture
async def nodes(
    facts: Callable[[], SQLiteMetadata | PostgresMetadata],
) -> AsyncIterator[tuple[Tokens, Tokens]]:
    """Two nodes that start at the same time, for the first time."""
    async with AsyncExitStack() as stack:
        made = [Tokens(await stack.enter_async_context(facts())) for _ in range(2)]
        await asyncio.gather(*(stack.enter_async_context(each) for each in made))
        for each in made:
            each.know([Staff()])
        yield made[0], made[1]


@pytest.fixture
async def alice() -> Identity:
    found = await Staff().authenticate(Credentials("alice", "right"))
    assert found is not None
    return found


async def test_nodes_share_their_keys(nodes: tuple[Tokens, Tokens], alice: Identity) -> None:
    """Whatever node gives a token, and whenever a key is rotated, each takes it."""
    given = []
    for round_ in range(3):
        for each in nodes:
            given.append((await each.issue(alice, SCOPES)).token)
        for each in nodes:
            for token in given:
                found = await each.authenticate(Credentials(token=token))
                assert found is not None
                assert (found.name, found.method) == ("alice", "staff")
        await nodes[round_ % 2].rotate_key()
    assert {key.kid for key in await nodes[0].keys()} == {key.kid for key in await nodes[1].keys()}


async def test_refresh_token_of_another_node(nodes: tuple[Tokens, Tokens], alice: Identity) -> None:
    """A refresh token is good at every node, and revoked at every node."""
    one, other = nodes
    kept, ended = await one.refresh_token(alice), await one.refresh_token(alice)
    assert await other.renew(kept) == alice
    await other.revoke(ended)
    with pytest.raises(TokenInvalid):
        await one.renew(ended)
    assert await other.revoke_all_of("alice") == 1
    with pytest.raises(TokenInvalid):
        await one.renew(kept)


async def test_used_twice_at_the_same_time(nodes: tuple[Tokens, Tokens], alice: Identity) -> None:
    """Of several that use up one refresh token at once one gets its successor, which is revoked with the family."""
    first = await nodes[0].refresh_token(alice)
    ended = await asyncio.gather(*(nodes[n % 2].succeed(first) for n in range(6)), return_exceptions=True)
    won = [each for each in ended if not isinstance(each, BaseException)]
    assert {type(each) for each in ended if isinstance(each, BaseException)} == {TokenInvalid}
    (successor,) = won
    for each in nodes:
        with pytest.raises(TokenInvalid):
            await each.renew(successor)
