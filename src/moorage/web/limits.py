"""What a client may ask of a connection."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a client is waited for, in seconds, and how large a request's head may be, in bytes.

    ``keep_alive``: without a request. ``head_timeout``: from a head's first byte to its last. ``stall_timeout``: with
    a body on its way and nothing of it coming, or with an answer on its way and nothing of it taken. ``connections``:
    how many there may be at once, and ``connections_per_address`` how many of one address; None is without a limit.
    """

    head_limit: int = 64 * 1024
    head_timeout: float = 30.0
    stall_timeout: float = 60.0
    keep_alive: float = 75.0
    connections: int | None = None
    connections_per_address: int | None = None
