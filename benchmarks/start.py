"""How long a server takes from its start to its first answer, and the memory that it then has."""

from collections.abc import Sequence

from benchmarks.loads import Work


class Start(Work):
    name, what = "start", "from the start to the first answer, on an empty folder; memory is what it then has"
    kinds = frozenset({"registry", "files", "bare"})
    apart = True


LOADS: Sequence[type[Work]] = (Start,)
