"""What a load is, and the list of all; a new one is a class in one of the modules that ``all_loads`` names."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.client import LoadError, Server, Wire, sha256
from benchmarks.peers import Peer
from benchmarks.scale import Scale
from benchmarks.seeds import Seeds
from benchmarks.verbs import Store, Verbs


@dataclass(frozen=True, slots=True)
class Target:
    """A running peer, ready to be loaded: its address, its verbs, and where its content is put."""

    kind: str
    server: Server
    verbs: Verbs
    store: Store


class Work:
    """One kind of work for a peer, and what it needs; an operation is what is counted."""

    name: ClassVar[str]
    what: ClassVar[str]
    kinds: ClassVar[frozenset[str]]  # of peers that can do it
    tls: ClassVar[bool] = False
    accounts: ClassVar[bool] = False  # whether the peer lets in users only
    apart: ClassVar[bool] = (
        False  # measured with the server on one core only: a second has nothing to do, or nothing new
    )
    seeded: ClassVar[bool] = False  # whether ``seed`` puts what is read; the root then serves other such loads too
    forgets: ClassVar[bool] = True  # whether what was written in one turn may be gone in the next

    @classmethod
    def needs(cls) -> str | None:
        """What the load needs and this machine lacks, or None."""
        return None

    @classmethod
    def among(cls, peers: Sequence[Peer], scale: Scale) -> list[Peer]:  # noqa: ARG003 some loads make their own
        """Those of the peers that the load is for."""
        return [peer for peer in peers if peer.kind in cls.kinds]

    @classmethod
    def seed(cls, seeds: Seeds, scale: Scale) -> None:
        """Put what the load reads into the root of a peer that is not running."""

    @classmethod
    def rounds(cls, scale: Scale) -> int:
        return scale.rounds

    @classmethod
    def operations(cls, scale: Scale) -> int | None:  # noqa: ARG003 what is counted depends on it
        """How many operations a turn has, or None if it is as long as the scale says."""
        return None

    @classmethod
    def writes(cls, scale: Scale) -> list[int]:  # noqa: ARG003 what a writing load answers depends on it
        """The sizes of the files that the floor writes for one operation; none where nothing is written."""
        return []

    @classmethod
    def leaves(cls, scale: Scale) -> list[int]:
        """The sizes of the files in which a registry may keep what was written."""
        return cls.writes(scale)

    @classmethod
    def moved(cls, scale: Scale) -> int:
        """Bytes of content that one operation moves."""
        return sum(cls.writes(scale))


class Load(Work, ABC):
    """Work that clients do in a closed loop: an operation is what each does again and again."""

    clients: ClassVar[int] = 32
    wires: ClassVar[int] = 1  # connections of each client

    def __init__(self, target: Target, scale: Scale) -> None:
        self.target = target
        self.scale = scale
        self.verbs = target.verbs

    async def prepare(self) -> None:
        """Push what the load reads."""

    @abstractmethod
    async def check(self, wires: list[Wire]) -> None:
        """One operation whose every byte is looked at; raises ``LoadError`` where one is wrong."""

    @abstractmethod
    async def operate(self, wires: list[Wire]) -> None:
        """One operation; raises ``LoadError`` unless every answer has the right status and length."""


async def check_bytes(wire: Wire, request: bytes, digest: str, size: int, status: int = 200) -> None:
    """Raise ``LoadError`` unless what ``request`` brings is those bytes."""
    state = sha256()
    await wire.ask(request, status, hashing=state, length=size)
    if f"sha256:{state.hexdigest()}" != digest:
        raise LoadError(f"{request.split(b' HTTP')[0].decode()}: other bytes than {digest}")


def all_loads() -> dict[str, type[Work]]:
    """Every load by its name, in the order of the table."""
    from benchmarks import access, growth, lists, reads, start, tls, writes, zb  # noqa: PLC0415 they import what is above

    modules: list[Sequence[type[Work]]] = [
        module.LOADS for module in (reads, lists, writes, tls, access, zb, growth, start)
    ]
    return {load.name: load for loads in modules for load in loads}
