"""Keys of bytes that no fact needs any more."""

from collections.abc import Sequence

from moorage.metadata.base import Metadata, Unit, later
from moorage.storage.base import Key


async def page(metadata: Metadata, limit: int) -> list[Key]:
    """Up to ``limit`` keys, the longest doomed first."""
    return [key for (key,) in await metadata.fetch("doomed", limit)]


def forget(keys: Sequence[Key]) -> Unit[None]:
    """Their bytes are gone."""
    for key in keys:
        yield from later("forget_doomed", key)
