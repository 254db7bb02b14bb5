"""Tasks that work until they are told to end."""

import asyncio
from typing import Final

_AGAIN: Final = 1.0  # seconds; time enough for what a task does when it ends


async def end(task: "asyncio.Task[None]") -> None:
    """Cancel ``task``, and return when it has ended; raises what it raises.

    As often as it takes: ``wait_for`` of Python 3.11, by which psycopg waits for the database, drops a cancellation
    that comes together with the answer.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_AGAIN)
    if not task.cancelled():
        task.result()
