"""Facts about tokens: the keys that sign them, and refresh tokens, of which only a digest is kept."""

from dataclasses import dataclass

from moorage.metadata.base import Metadata, Unit, later, one, run


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A signing key; it is valid until ``expires_at`` (seconds since 1970), or signs where that is None."""

    kid: str
    algorithm: str
    private: str
    created_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Whom a refresh token stands for. Those that came from one login, one from the other, are a family."""

    family: str
    name: str
    method: str
    proof: str
    expires_at: float
    used_at: float | None = None


async def keys(metadata: Metadata, now: float) -> list[StoredKey]:
    """The keys whose tokens are valid, the newest first."""
    return [StoredKey(*row) for row in await metadata.fetch("signing_keys", now)]


def add_key(new: StoredKey, keep_until: float) -> Unit[None]:
    """Sign with ``new`` from now on; tokens of the keys before are valid until ``keep_until`` at the longest."""
    yield from later("expire_signing_keys", keep_until)
    yield from later("delete_signing_keys", new.created_at)
    yield from later("add_signing_key", new.kid, new.algorithm, new.private, new.created_at)


def ensure_key(new: StoredKey, keep_until: float) -> Unit[None]:
    """``add_key``, unless a key of that algorithm signs already."""
    signing = yield from one("signing_key")
    if signing is None or signing[0] != new.algorithm:
        yield from add_key(new, keep_until)


def add_refresh(digest: str, token: RefreshToken, now: float) -> Unit[None]:
    """Keep a new refresh token, and forget those whose time is over."""
    yield from later("expire_refresh_tokens", now)
    yield from later(
        "add_refresh_token", digest, token.family, token.name, token.method, token.proof, now, token.expires_at
    )


async def refresh(metadata: Metadata, digest: str, now: float) -> RefreshToken | None:
    """Whom a token stands for, None if it is not valid; one that was used up is still known."""
    for row in await metadata.fetch("refresh_token", digest, now):
        return RefreshToken(*row)
    return None


def use_refresh(digest: str, now: float, successor: str, expires_at: float) -> Unit[bool]:
    """Use a token up and let its ``successor`` (a digest) take its place; whether it was not used up before.

    A token that was used up and comes again has been stolen, or its successor has: the whole family is revoked.
    """
    row = yield from one("refresh_token", digest, now)
    if row is None:
        return False
    token = RefreshToken(*row)
    if token.used_at is not None:
        yield from later("delete_refresh_family", token.family)
        return False
    yield from later("use_refresh_token", digest, now)
    yield from later(
        "add_refresh_token", successor, token.family, token.name, token.method, token.proof, now, expires_at
    )
    return True


def revoke_refresh(digest: str) -> Unit[None]:
    """End the family of a token, if there is one."""
    if row := (yield from one("refresh_token", digest, 0.0)):
        yield from later("delete_refresh_family", row[0])


def revoke_refresh_of(name: str) -> Unit[int]:
    """End every refresh token that stands for ``name``; how many families that were."""
    rows = yield from run("delete_refresh_tokens_of", name)
    return len({family for (family,) in rows})
