"""Names and passwords: how often they are checked, what is remembered, what a check costs."""

import asyncio
import threading
from dataclasses import dataclass, field

import bcrypt
import pytest

from moorage.auth.base import Credentials, Identity
from moorage.auth.passwords import ARGON2_DUMMY, BASIC, Entry, Passwords, hash_password, verify_password
from moorage.spec.errors import Unauthorized


@dataclass
class Source:
    """Users whose hash is their password with a word before it."""

    users: dict[str, Entry] = field(default_factory=dict)
    method: str = "test"
    dummy: str = "dummy"

    async def entry(self, name: str) -> Entry | None:
        return self.users.get(name)


@dataclass
class Verify:
    """Compares and counts; waits for ``gate`` where there is one."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    gate: threading.Event | None = None

    def __call__(self, hashed: str, password: str) -> bool:
        self.asked.append((hashed, password))
        if self.gate:
            assert self.gate.wait(10)
        return hashed == f"hash of {password}"


def entry(password: str, *groups: str) -> Entry:
    return Entry(f"hash of {password}", frozenset(groups))


def shown(name: str | None, password: str | None) -> Credentials:
    return Credentials(name, password)


async def test_right_password_is_checked_once_a_minute() -> None:
    """A hundred requests in a minute cost one check; the next minute costs another."""
    now, verify = [0.0], Verify()
    passwords = Passwords([Source({"alice": entry("sesame", "dev")})], verify=verify, clock=lambda: now[0])
    for _ in range(100):
        identity = await passwords.authenticate(shown("alice", "sesame"))
        now[0] += 0.5
    assert identity is not None
    assert identity == Identity("alice", frozenset({"dev"}), "test", local=True, proof=identity.proof)
    assert len(verify.asked) == 1
    now[0] += 11
    await passwords.authenticate(shown("alice", "sesame"))
    assert len(verify.asked) == 2


async def test_wrong_password_is_never_remembered() -> None:
    """A wrong password is refused, costs a check each time, and does not undo a right one."""
    verify = Verify()
    passwords = Passwords([Source({"alice": entry("sesame")})], verify=verify)
    await passwords.authenticate(shown("alice", "sesame"))
    for _ in range(3):
        with pytest.raises(Unauthorized, match="wrong name or password"):
            await passwords.authenticate(shown("alice", "guess"))
    assert len(verify.asked) == 4
    assert await passwords.authenticate(shown("alice", "sesame"))
    assert len(verify.asked) == 4


@pytest.mark.parametrize("credentials", [Credentials(), Credentials(token="x"), Credentials("alice")])
async def test_other_credentials_are_not_its_business(credentials: Credentials) -> None:
    passwords = Passwords([Source({"alice": entry("")})], verify=Verify())
    assert await passwords.authenticate(credentials) is None


@pytest.mark.parametrize("change", ["password", "groups", "removed", "elsewhere"])
async def test_change_of_an_entry_counts_at_once(change: str) -> None:
    """What was remembered is good only for the entry that was checked."""
    first, second, verify = Source({"alice": entry("sesame")}), Source(method="other"), Verify()
    passwords = Passwords([first, second], verify=verify)
    assert await passwords.authenticate(shown("alice", "sesame"))
    if change == "password":
        first.users["alice"] = entry("another")
        with pytest.raises(Unauthorized):
            await passwords.authenticate(shown("alice", "sesame"))
        assert await passwords.authenticate(shown("alice", "another"))
    elif change == "groups":
        first.users["alice"] = entry("sesame", "ops")
        identity = await passwords.authenticate(shown("alice", "sesame"))
        assert identity is not None
        assert identity.groups == {"ops"}
    elif change == "removed":
        del first.users["alice"]
        assert await passwords.authenticate(shown("alice", "sesame")) is None
    else:
        second.users["alice"] = first.users.pop("alice")
        identity = await passwords.authenticate(shown("alice", "sesame"))
        assert identity is not None
        assert identity.method == "other"


async def test_every_attempt_costs_one_hash_of_each_source() -> None:
    """So the time it takes does not tell whether there is such a user, nor where."""
    verify = Verify()
    one, two = Source({"alice": entry("a")}, "one", "dummy one"), Source({"bob": entry("b")}, "two", "dummy two")
    passwords = Passwords([one, two], verify=verify)
    expected = {
        "alice": ["hash of a", "dummy two"],
        "bob": ["dummy one", "hash of b"],
        "eve": ["dummy one", "dummy two"],
    }
    for name, hashes in expected.items():
        verify.asked.clear()
        if name == "eve":
            assert await passwords.authenticate(shown(name, "x")) is None
        else:
            with pytest.raises(Unauthorized):
                await passwords.authenticate(shown(name, "x"))
        assert [hashed for hashed, _ in verify.asked] == hashes


async def test_dummy_opens_nothing() -> None:
    """Not even the password that the dummy would be right for lets an unknown name in."""
    source = Source(dummy="hash of x")
    assert await Passwords([source], verify=Verify()).authenticate(shown("eve", "x")) is None


async def test_same_question_at_once_is_answered_once() -> None:
    """Twenty requests that come together wait for one check; others have their own."""
    verify = Verify(gate=threading.Event())
    passwords = Passwords([Source({"alice": entry("sesame")})], verify=verify)
    asking = [asyncio.create_task(passwords.authenticate(shown("alice", "sesame"))) for _ in range(20)]
    other = asyncio.create_task(passwords.authenticate(shown("alice", "guess")))
    while len(verify.asked) < 2:
        await asyncio.sleep(0.001)
    asking[0].cancel()
    assert verify.gate
    verify.gate.set()
    answers = await asyncio.gather(*asking, other, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(not isinstance(each, BaseException) for each in answers[1:-1])
    assert isinstance(answers[-1], Unauthorized)
    assert len(verify.asked) == 2


async def test_what_is_remembered_is_bounded_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the users, and holds no password."""
    monkeypatch.setattr("moorage.auth.passwords._MOST", 10)
    passwords = Passwords([Source({f"u{n}": entry(f"p{n}") for n in range(30)})], verify=Verify())
    for n in range(30):
        await passwords.authenticate(shown(f"u{n}", f"p{n}"))
    assert len(passwords._known) == 10
    assert all(len(each) == 32 for each in passwords._known)
    assert b"p29" not in b"".join(passwords._known)
    other = Passwords([Source({"u29": entry("p29")})], verify=Verify())
    await other.authenticate(shown("u29", "p29"))
    assert not {*passwords._known} & {*other._known}, "the keyed hashes of two processes differ"


async def test_name_and_password_do_not_run_into_each_other() -> None:
    """``ab`` with ``c`` is not remembered as ``a`` with ``bc``."""
    verify = Verify()
    passwords = Passwords([Source({"ab": entry("c"), "a": entry("c")})], verify=verify)
    assert await passwords.authenticate(shown("ab", "c"))
    with pytest.raises(Unauthorized):
        await passwords.authenticate(shown("a", "bc"))


async def test_loop_goes_on_meanwhile() -> None:
    """A check keeps a thread busy, not the loop."""
    verify = Verify(gate=threading.Event())
    passwords = Passwords([Source({"alice": entry("sesame")})], verify=verify)
    asking = asyncio.create_task(passwords.authenticate(shown("alice", "sesame")))
    while not verify.asked:
        await asyncio.sleep(0.001)
    assert not asking.done()
    assert verify.gate
    verify.gate.set()
    assert await asking


@pytest.mark.parametrize("password", ["sesame", "", "pässwörd", "x" * 200, "with\x00nul"])
def test_argon2(password: str) -> None:
    """A hash is of its password only, and differs each time."""
    hashed = hash_password(password)
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert hashed != hash_password(password)
    assert verify_password(hashed, password)
    assert not verify_password(hashed, f"{password}x")


def test_dummy_costs_what_a_hash_does() -> None:
    """The dummy has the parameters of real hashes, and is of no password that is likely."""
    assert ARGON2_DUMMY.rsplit("$", 2)[0] == hash_password("x").rsplit("$", 2)[0]
    for guess in ("", "x", "dummy"):
        assert not verify_password(ARGON2_DUMMY, guess)


@pytest.mark.parametrize("prefix", [b"2a", b"2b", b"2y"])
@pytest.mark.parametrize("password", ["sesame", "pässwörd", "x" * 200])
def test_bcrypt(prefix: bytes, password: str) -> None:
    """Hashes of all three marks are taken; what goes beyond 72 bytes does not count, as in every bcrypt."""
    hashed = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).replace(b"$2b$", b"$%s$" % prefix).decode()
    assert verify_password(hashed, password)
    assert not verify_password(hashed, f"y{password}")


@pytest.mark.parametrize(
    "hashed", ["", "plain", "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$x$y", "$2b$05$" + "z" * 53]
)
def test_what_is_no_hash_is_of_no_password(hashed: str) -> None:
    assert not verify_password(hashed, "plain")


def test_challenge() -> None:
    assert Passwords([]).challenges == (BASIC,)


async def test_recall() -> None:
    """Whoever was let in is known again, with the groups of now, until his password is another or he is gone."""
    users = {"alice": entry("sesame", "dev")}
    passwords = Passwords([Source({}), Source(users)], verify=Verify())
    identity = await passwords.authenticate(shown("alice", "sesame"))
    assert identity is not None
    assert identity.proof
    assert identity.method in passwords.methods
    assert await passwords.recall(identity) == identity
    users["alice"] = entry("sesame", "ops")
    assert (await passwords.recall(identity) or identity).groups == {"ops"}
    users["alice"] = entry("other", "dev")
    assert await passwords.recall(identity) is None
    del users["alice"]
    assert await passwords.recall(identity) is None
