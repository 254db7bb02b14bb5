"""Failed logins: who has to wait, how long, and who does not."""

import itertools

import pytest

from moorage.auth.attempts import Attempts
from moorage.spec.errors import TooManyRequests, Unauthorized

HERE, THERE = "192.0.2.1", "198.51.100.7"


class Door:
    """Logins at a time that passes when told to; ``right`` is everybody's password."""

    def __init__(self, longest: float = 60) -> None:
        self.now = 1000.0
        self.attempts = Attempts(longest, lambda: self.now)
        self.checked = 0
        self.number = itertools.count()

    def login(self, password: str, name: str = "alice", address: str | None = HERE) -> str:
        """What comes of it: ``right``, ``wrong``, or how long to wait."""
        try:
            with self.attempts.one(name, address, f"{name} {password}".encode()) as attempt:
                self.checked += 1
                attempt.right = password == "right"
        except TooManyRequests as error:
            return error.headers["Retry-After"]
        except Unauthorized:
            return "wrong"
        return "right" if attempt.right else "wrong"

    def guess(self, count: int, address: str | None = HERE, name: str = "alice") -> list[str]:
        """That many different wrong passwords, one after the other."""
        return [self.login(f"guess {next(self.number)}", name, address) for _ in range(count)]


@pytest.fixture
def door() -> Door:
    return Door()


def test_delay_grows(door: Door) -> None:
    """Five guesses are free; then each one costs twice the time of the one before, up to the longest delay."""
    assert door.guess(7) == ["wrong"] * 5 + ["1"] * 2
    waited = []
    for _ in range(10):
        wait = int(door.guess(1)[0])
        waited.append(wait)
        door.now += wait
        assert door.guess(1) == ["wrong"]
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_guesses_are_few_however_long_it_goes_on(door: Door) -> None:
    """An hour of guessing as fast as is allowed is not much more than a guess a minute."""
    until, wrong = door.now + 3600, 0
    while door.now < until:
        (found,) = door.guess(1)
        wrong += found == "wrong"
        door.now += 1 if found == "wrong" else int(found)
    assert wrong < 80


def test_others_go_on(door: Door) -> None:
    """Neither the owner of the name from elsewhere nor another user from the same address has to wait."""
    door.guess(20)
    assert door.login("right", address=THERE) == "right"
    assert door.login("right", name="bob") == "right"
    assert door.login("right") == "1"


def test_right_password_forgives(door: Door) -> None:
    """Whoever remembers his password after all starts anew."""
    door.guess(5)
    door.now += 1
    assert door.login("right") == "right"
    assert door.guess(5) == ["wrong"] * 5


def test_time_forgives(door: Door) -> None:
    """A quarter of an hour later nothing is held against anybody, and somebody who errs now and then never waits."""
    door.guess(9)
    door.now += 901
    assert door.guess(5) == ["wrong"] * 5
    door.now += 901
    for _ in range(50):
        assert door.guess(1) == ["wrong"]
        door.now += 181


def test_same_password_again(door: Door) -> None:
    """A script with an old password gets 401 for ever, keeps nobody out, and costs a check every ten seconds."""
    for _ in range(1000):
        assert door.login("old") == "wrong"
        door.now += 0.1
    assert 9 <= door.checked <= 11
    assert door.login("right") == "right"


def test_many_names_from_one_address(door: Door) -> None:
    """Who tries a password on every name waits too, after fifty; others do not."""
    found = [door.login("winter", name=f"user{number}") for number in range(60)]
    assert found == ["wrong"] * 50 + ["1"] * 10
    assert door.login("right", name="bob") == "1"
    assert door.login("right", name="bob", address=THERE) == "right"
    door.now += 1
    assert door.login("right", name="bob") == "right"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", None, "/run/socket"])
def test_a_proxy_on_this_machine(door: Door, address: str | None) -> None:
    """All clients behind one that was not declared look alike: a name is delayed, the address is not."""
    assert [door.login("winter", f"user{number}", address) for number in range(60)] == ["wrong"] * 60
    assert door.guess(7, address) == ["wrong"] * 5 + ["1"] * 2


def test_one_network_is_one_client(door: Door) -> None:
    """Whoever has an IPv6 network does not have a guess more for each of its addresses."""
    assert [door.login(f"guess {n}", address=f"2001:db8::{n:x}") for n in range(7)] == ["wrong"] * 5 + ["1"] * 2


def test_many_guesses_at_once(door: Door) -> None:
    """Guesses that are still being checked count as if they were wrong; the same password any number of times."""
    attempts, open_ones = door.attempts, []
    for number in range(5):
        open_ones.append(attempts.one("alice", HERE, b"%d" % number))
        open_ones[-1].__enter__()
    for _ in range(100):
        open_ones.append(attempts.one("alice", HERE, b"0"))
        open_ones[-1].__enter__()
    with pytest.raises(TooManyRequests), attempts.one("alice", HERE, b"another"):
        pass
    with attempts.one("alice", THERE, b"another") as attempt:
        attempt.right = True
    for each in open_ones:
        each.__exit__(None, None, None)
    assert door.login("right") == "1"


def test_what_breaks_off_does_not_count(door: Door) -> None:
    """A login that could not be checked is neither right nor wrong."""
    for number in range(20):
        with pytest.raises(OSError, match="broken"), door.attempts.one("alice", HERE, b"%d" % number):
            raise OSError("broken")
    assert door.login("right") == "right"


def test_off() -> None:
    """Without a delay nothing is counted."""
    assert Door(0).guess(100) == ["wrong"] * 100


def test_memory_is_bounded(door: Door) -> None:
    """However many names and addresses fail, only so many are remembered, and none that was right."""
    for number in range(12_000):
        address = f"10.0.{number >> 8}.{number & 255}"
        door.login("x" * 100, f"user{number}", address)
        door.login("right", f"other{number}", address)
    assert len(door.attempts._pairs) <= 10_000
    assert len(door.attempts._addresses) <= 10_000
    door.attempts = Attempts(60, lambda: door.now)
    for number in range(1000):
        door.login("right", f"other{number}")
    assert not door.attempts._pairs
    door.guess(1000)
    (failures,) = door.attempts._pairs.values()
    assert len(failures.wrong) <= 8
