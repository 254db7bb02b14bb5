"""How much of everything a run has."""

from dataclasses import dataclass

from benchmarks.content import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything: the sizes are the loads' names, so only ``smoke`` and small machines change them."""

    seconds: float = 0.4
    warm: float = 0.1
    rounds: int = 3
    clients: int = 200  # at most
    small: int = 4096
    medium: int = 10_000_000
    large: int = 1024 * MIB
    chunk: int = 5 * MIB
    layers: int = 10
    layer: int = 1_000_000
    tags: int = 100_000
    page: int = 100
    repositories: int = 1000
    catalog: int = 10_000
    referrers: int = 10_000
    growth: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)
    requests: int = 1_000_000
    competitor: int = 40  # requests in a run of zb


SMOKE = Scale(
    seconds=0.02,
    warm=0.0,
    rounds=1,
    clients=8,
    medium=2_000_000,
    large=6 * MIB,
    chunk=MIB,
    layer=100_000,
    tags=200,
    page=5,
    repositories=4,
    catalog=20,
    referrers=20,
    growth=(10, 100),
    requests=2000,
    competitor=4,
)
