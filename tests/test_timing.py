"""Whether time tells what words do not: is there such a user?"""

import os
import random
import statistics
import time
from pathlib import Path

import pytest

from moorage import create_app
from moorage.settings import Settings
from tests.login import NAME, basic, logged_in
from tests.support import Exchange

ROUNDS = 150


async def answered(app: object, name: str) -> tuple[float, float]:
    """The seconds that a login with a password never used before takes to be refused: on the clock, and of work."""
    request = Exchange(app, "GET", "/v2/", basic(name, os.urandom(8).hex()))
    started, worked = time.perf_counter(), time.process_time()
    await request.run()
    taken = time.perf_counter() - started, time.process_time() - worked
    assert request.sent[0]["status"] == 401
    return taken


@pytest.mark.long
@pytest.mark.parametrize("sources", [["htpasswd"], ["users"], ["htpasswd", "users"]], ids=" ".join)
async def test_a_missing_user_takes_as_long_as_a_wrong_password(tmp_path: Path, sources: list[str]) -> None:
    """Both cost the same work, to a tenth, and nobody can tell one from the other by the clock."""
    logged_in(tmp_path / "htpasswd", cost=10)
    htpasswd = str(tmp_path / "htpasswd") if "htpasswd" in sources else None
    settings = Settings(storage="memory", authentication=sources, htpasswd=htpasswd, login_delay=0)
    app = create_app(settings=settings)
    registry = await app.open()
    names = {"known": NAME, "unknown": "nobody"}
    if "users" in sources:
        await registry.access.add_user("bob", "sesame", [], actor="test")
        names["known"] = "bob" if htpasswd is None else names["known"]
    times: dict[str, list[tuple[float, float]]] = {each: [] for each in names}
    for _ in range(ROUNDS):
        for each in random.sample(sorted(names), len(names)):
            times[each].append(await answered(app, names[each]))
    await app.aclose()
    known, unknown = (statistics.median(work for _, work in times[each]) for each in ("known", "unknown"))
    assert abs(known - unknown) < 0.1 * known, (known, unknown)
    # How often the known one took longer, of all pairs; half of them where time tells nothing.
    longer = sum(a > b for a, _ in times["known"] for b, _ in times["unknown"]) / ROUNDS**2
    assert 0.25 < longer < 0.75, longer


@pytest.mark.long
async def test_a_difference_would_be_seen(tmp_path: Path) -> None:
    """Without a hash to check for a name that nobody has, the same measure tells the two apart."""
    logged_in(tmp_path / "htpasswd", cost=10)
    settings = Settings(
        storage="memory", authentication=["htpasswd"], htpasswd=str(tmp_path / "htpasswd"), login_delay=0
    )
    app = create_app(settings=settings)
    await app.open()
    _, known = await answered(app, NAME)
    (tmp_path / "cheap").write_text("")
    settings = Settings(
        storage="memory", authentication=["htpasswd"], htpasswd=str(tmp_path / "cheap"), login_delay=0
    )
    without = create_app(settings=settings)
    await without.open()
    _, unknown = await answered(without, NAME)
    await app.aclose()
    await without.aclose()
    assert abs(known - unknown) > 0.5 * known
