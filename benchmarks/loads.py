"""What a load is, and the list of all; a new one is a class in ``reads`` or ``writes`` and a name here."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.client import LoadError, Server, Wire, sha256
from benchmarks.content import MIB
from benchmarks.verbs import Store, Verbs


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything: the sizes are the loads' names, so only ``smoke`` and small machines change them."""

    seconds: float = 0.6
    warm: float = 0.2
    rounds: int = 3
    small: int = 4096
    medium: int = 10_000_000
    large: int = 1024 * MIB
    chunk: int = 5 * MIB
    layers: int = 10
    layer: int = 1_000_000
    tags: int = 1000
    page: int = 100
    repositories: int = 200


SMOKE = Scale(seconds=0.02, warm=0.0, rounds=1, large=6 * MIB, tags=20, page=5, repositories=4)


@dataclass(frozen=True, slots=True)
class Target:
    """A running peer, ready to be loaded: its address, its verbs, and where its content is put."""

    kind: str
    server: Server
    verbs: Verbs
    store: Store


class Load(ABC):
    """One kind of work against one peer; an operation is what a client does again and again."""

    name: ClassVar[str]
    what: ClassVar[str]
    clients: ClassVar[int] = 32
    wires: ClassVar[int] = 1  # connections of each client
    kinds: ClassVar[frozenset[str]]  # of peers that can do it
    rounds: ClassVar[int | None] = None  # fewer than asked for, where one takes long

    def __init__(self, target: Target, scale: Scale) -> None:
        self.target = target
        self.scale = scale
        self.verbs = target.verbs

    @classmethod
    def writes(cls, scale: Scale) -> list[int]:  # noqa: ARG003 what a writing load answers depends on it
        """The sizes of the files that the floor writes for one operation; none where nothing is written."""
        return []

    @classmethod
    def moved(cls, scale: Scale) -> int:
        """Bytes of content that one operation moves."""
        return sum(cls.writes(scale))

    @abstractmethod
    async def prepare(self) -> None:
        """Put what the load reads."""

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


def all_loads() -> dict[str, type[Load]]:
    """Every load by its name, in the order of the table."""
    from benchmarks import reads, writes  # noqa: PLC0415 they import what is above

    listed: list[type[Load]] = [*reads.LOADS, *writes.LOADS]
    return {load.name: load for load in listed}
