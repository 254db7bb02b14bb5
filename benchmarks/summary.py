"""The targets of the design and what a run has reached of them, computed from its document alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from benchmarks.report import ONE, OURS, Document, duration, quiet

Figure = Literal["cpu", "rate"]
KEYS: Mapping[Figure, str] = {"cpu": "cpu_seconds_per_operation", "rate": "operations_per_second"}
NOT_MEASURED = "not measured"
IDLE_MIB = 1.5 * 43
STREAM_MIB = 16
FLAT = 1.25  # the most that a figure may differ between sizes: two samples of the same thing differ by a tenth
GROWN = 1.05  # the most that memory may grow after the first turn


@dataclass(frozen=True, slots=True)
class Versus:
    """Moorage's figure over others': of CPU at most the target, of a rate at least."""

    label: str
    load: str
    figure: Figure
    distribution: float | None = None
    limit: tuple[str, float] | None = None

    def targets(self) -> Iterator[tuple[str, float]]:
        if self.distribution is not None:
            yield "distribution", self.distribution
        if self.limit is not None:
            yield self.limit
        yield "zot", 1.0
        yield "olareg", 1.0


VERSUS: Sequence[Versus] = (
    Versus("manifest GET by tag", "manifest-get-tag", "cpu", 1 / 5, ("nginx", 2.5)),
    Versus("manifest HEAD by tag", "manifest-head-tag", "cpu", 1 / 5, ("nginx", 2.5)),
    Versus("blob GET 10 MB", "blob-get-10m", "cpu", 0.6, ("nginx", 1.1)),
    Versus("blob GET 1 GiB", "blob-get-1g", "cpu", 0.6, ("nginx", 1.1)),
    Versus("blob PUT 1 GiB, POST and PUT", "blob-put-1g", "cpu", 0.9, ("floor", 1.9)),
    Versus("blob PUT 1 GiB, streamed PATCH", "blob-patch-1g", "cpu", 0.9, ("floor", 1.9)),
    Versus("blob PUT 1 GiB, 5 MiB chunks", "blob-chunks-1g", "cpu", 0.9, ("floor", 1.9)),
    Versus("blob PUT 4 KiB", "blob-put-4k", "rate", 3.0),
    Versus("1 KiB artifacts, one repository", "artifacts-one", "rate", 3.0),
    Versus("1 KiB artifacts, 1,000 repositories", "artifacts-many", "rate", 3.0),
    Versus("image push, 10 layers of 1 MB", "image-push", "rate", 1.3),
    Versus("tag page, first of 100,000 tags", "tags-first", "rate", 20.0),
    Versus("tag page, middle of 100,000 tags", "tags-middle", "rate", 20.0),
    Versus("catalog page, 10,000 repositories", "catalog", "rate", 20.0),
    Versus("all of 10,000 referrers", "referrers", "cpu"),
    Versus("pull of a manifest with login", "login-pull", "cpu"),
    Versus("TLS: manifest GET by tag", "tls-manifest-get-tag", "cpu", 1 / 3),
    Versus("TLS: blob GET 10 MB", "tls-blob-get-10m", "cpu", 1.3),
    Versus("TLS: blob PUT 10 MB", "tls-blob-put-10m", "cpu", 1.3),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure against its target; ``value`` is None where it was not measured."""

    label: str
    value: float | None
    target: float
    at_most: bool
    unit: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def wanted(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.target:.3g}{self.unit}"

    @property
    def reached(self) -> str:
        return "-" if self.value is None else f"{self.value:.3g}{self.unit}"

    @property
    def mark(self) -> str:
        return {True: "✓", False: "✗", None: ""}[self.met]


def summary(document: Document) -> str:
    """Markdown: one table against the others, one of Moorage by itself, and what was not reached."""
    machine = document["machine"]
    about = f"{document['started']}, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}"
    lines = [
        f"{about}, Moorage {revisions(document)}.",
        "",
        "Moorage's figure over the other's: of CPU at most the target, of a rate at least.",
        "",
        "| load | figure | Moorage | distribution v3 | the limit | zot | olareg |",
        "|---|---|---|---|---|---|---|",
        *(versus_row(document, one) for one in VERSUS),
        "",
        "| by itself | reached | target | |",
        "|---|---|---|---|",
        *(f"| {one.label} | {one.reached} | {one.wanted} | {one.mark} |" for one in alone(document)),
        "",
        *outcome(document),
        "",
        *quiet(document),
    ]
    return "\n".join(lines) + "\n"


def revisions(document: Document) -> str:
    seen = sorted({one["revision"] for entries in document["tables"].values() for one in entries.values()})
    return ", ".join(seen)


def versus_row(document: Document, one: Versus) -> str:
    ours = figure(document, one.load, OURS, KEYS[one.figure])
    shown = NOT_MEASURED if ours is None else duration(ours) if one.figure == "cpu" else f"{ours:,.0f}/s"
    cells = {verdict.label: verdict for verdict in verdicts(document, one)}

    def cell(peer: str) -> str:
        if peer not in cells:
            return ""
        verdict = cells[peer]
        name = f"{peer} " if one.limit and peer == one.limit[0] else ""
        return f"{name}{verdict.reached} ({verdict.wanted}) {verdict.mark}".rstrip()

    limit = cell(one.limit[0]) if one.limit else ""
    kind = "CPU" if one.figure == "cpu" else "rate"
    return f"| {one.label} | {kind} | {shown} | {cell('distribution')} | {limit} | {cell('zot')} | {cell('olareg')} |"


def verdicts(document: Document, one: Versus) -> Iterator[Verdict]:
    """Against each of the others that the design names."""
    for peer, target in one.targets():
        value = over(
            figure(document, one.load, OURS, KEYS[one.figure]), figure(document, one.load, peer, KEYS[one.figure])
        )
        yield Verdict(peer, value, target, one.figure == "cpu")


def alone(document: Document) -> Iterator[Verdict]:
    """What Moorage has to reach by itself, or against a bare application."""

    def of(load: str, key: str, peer: str = OURS) -> float | None:
        return figure(document, load, peer, key)

    one, many = of("artifacts-one", KEYS["rate"]), of("artifacts-many", KEYS["rate"])
    yield Verdict("1 KiB artifacts: rate of one repository over that of 1,000", over(one, many), 0.9, at_most=False)
    for load, what in (("manifest", "manifest GET"), ("page", "tag page"), ("push", "push")):
        value, sizes = growth(document, f"growth-{load}")
        yield Verdict(f"{what}: CPU at {sizes} tags over that at the fewest", value, FLAT, at_most=True)
    idle, bare = of("start", "peak_kib"), of("start", "peak_kib", "uvicorn")
    yield Verdict("memory of an idle worker", mib(idle), IDLE_MIB, at_most=True, unit=" MiB")
    yield Verdict("the same over that of a bare uvicorn application", over(idle, bare), 2.0, at_most=True)
    for load, what in (("get", "is pulled"), ("put", "is pushed by PUT"), ("patch", "is pushed by PATCH")):
        peak, before = of(f"blob-{load}-1g", "peak_kib"), of(f"blob-{load}-1g", "idle_kib")
        more = None if peak is None or before is None else peak - before
        yield Verdict(f"memory more while 1 GiB {what}", mib(more), STREAM_MIB, at_most=True, unit=" MiB")
    value, requests = endurance(document)
    yield Verdict(f"memory after {requests} requests over that after a tenth", value, GROWN, at_most=True)
    started, least = of("start", "p50_seconds"), of("start", "p50_seconds", "uvicorn")
    yield Verdict(
        "start to first answer over that of a bare uvicorn application", over(started, least), 2.5, at_most=True
    )


def growth(document: Document, load: str) -> tuple[float | None, str]:
    sizes = [(name, found) for name, found in peers_of(document, load).items() if "samples" in found]
    if len(sizes) < 2:
        return None, "most"
    return over(*(found[KEYS["cpu"]] for _, found in (sizes[-1], sizes[0]))), sizes[-1][0].removesuffix(" tags")


def endurance(document: Document) -> tuple[float | None, str]:
    samples = peers_of(document, "endurance").get(OURS, {}).get("samples", [])
    if len(samples) < 2:
        return None, "a million"
    requests = sum(sample["operations"] for sample in samples)
    return over(samples[-1]["resident_kib"], samples[0]["resident_kib"]), f"{requests:,}"


def outcome(document: Document) -> list[str]:
    """How many targets are met, and which are not."""
    named = [(f"{one.label} against {each.label}", each) for one in VERSUS for each in verdicts(document, one)]
    named += [(each.label, each) for each in alone(document)]
    measured = [(name, each) for name, each in named if each.met is not None]
    missed = [f"{name}: {each.reached} instead of {each.wanted}" for name, each in measured if not each.met]
    lines = [f"{len(measured) - len(missed)} of {len(measured)} measured targets are met."]
    if len(measured) < len(named):
        lines[0] += f" {len(named) - len(measured)} were not measured."
    return [*lines, "", *(f"- not met: {each}" for each in missed)]


def sizing(document: Document) -> str:
    """Markdown: what one core and one worker of Moorage do, for whoever has to choose a machine."""

    def rate(load: str) -> str:
        cost = figure(document, load, OURS, KEYS["cpu"])
        return f"{1 / cost:,.0f}/s" if cost else NOT_MEASURED

    def volume(load: str) -> str:
        cost = figure(document, load, OURS, "cpu_seconds_per_gb")
        return f"{1 / cost:.2f} GB/s" if cost else NOT_MEASURED

    def memory(kib: float | None) -> str:
        return f"{kib / 1024:.0f} MiB" if kib else NOT_MEASURED

    peaks = [
        found.get(OURS, {}).get("peak_kib", 0) for found in map(partial(peers_of, document), document["tables"][ONE])
    ]
    cells = {
        "pulls of a manifest by tag": rate("manifest-get-tag"),
        "`HEAD` of a manifest or blob": rate("blob-head"),
        "blob bytes out, blobs of 10 MB": volume("blob-get-10m"),
        "blob bytes in, blobs of 10 MB": volume("blob-put-10m"),
        "blob bytes in, blobs of 1 GiB": volume("blob-put-1g"),
        "blob bytes out over TLS": volume("tls-blob-get-10m"),
        "pushes of an image of ten layers of 1 MB": rate("image-push"),
        "pushes of an artifact of 1 KiB": rate("artifacts-many"),
        "pages of 100 of 100,000 tags": rate("tags-middle"),
        "memory of an idle worker": memory(figure(document, "start", OURS, "peak_kib")),
        "most memory of a worker under any load here": memory(max(peaks, default=0)),
    }
    return "| one core, one worker | at most |\n|---|---|\n" + "".join(
        f"| {what} | {most} |\n" for what, most in cells.items()
    )


def peers_of(document: Document, load: str) -> dict[str, Any]:
    found: dict[str, Any] = document["tables"].get(ONE, {}).get(load, {}).get("peers", {})
    return found


def figure(document: Document, load: str, peer: str, key: str) -> float | None:
    """A peer's median in the table of one core, or None."""
    value: float | None = peers_of(document, load).get(peer, {}).get(key)
    return value


def over(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else ours / theirs


def mib(kib: float | None) -> float | None:
    return None if kib is None else kib / 1024


def in_block(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the markers of ``name`` replaced; raises ``ValueError`` without them."""
    start, end = f"<!-- {name}: written by make bench -->\n", f"<!-- end of {name} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"no block {name!r}")
    return f"{before}{start}{content}{end}{after}"
