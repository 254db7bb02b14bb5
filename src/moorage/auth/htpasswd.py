"""Users of an htpasswd file, as ``htpasswd -B`` writes it: bcrypt only, read anew when it changes."""

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from moorage.auth.passwords import Entry
from moorage.auth.words import check_name

_log = logging.getLogger("moorage.auth")
_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_COSTS: Final = range(4, 32)  # what bcrypt can do
_PAUSE: Final = 1.0  # seconds between two looks at the file
_KINDS: Final = (("$apr1$", "MD5"), ("$1$", "MD5"), ("{SHA}", "SHA-1"), ("$5$", "SHA-256"), ("$6$", "SHA-512"))


class Htpasswd:
    """A ``PasswordSource``. ``file`` must be there at first, else ``OSError``; whom it cannot take is logged."""

    method = "htpasswd"

    def __init__(self, file: str | os.PathLike[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._file = Path(file).expanduser()
        self._clock = clock
        self._looked = clock()
        self._seen = self._stamp()
        self._entries: dict[str, Entry] = {}
        self._cost = 5
        self._read()

    @property
    def dummy(self) -> str:
        """A hash that costs as much as the most costly one of the file."""
        return f"$2b${self._cost:02}${'.' * 53}"

    async def entry(self, name: str) -> Entry | None:
        """The user of that name, as of a second ago at most."""
        now = self._clock()
        if now >= self._looked + _PAUSE:
            self._looked = now
            self._look()
        return self._entries.get(name)

    def _look(self) -> None:
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                self._read()
                self._seen = stamp
                _log.info("%s was read anew: %d users", self._file, len(self._entries))
        except (OSError, UnicodeDecodeError) as error:
            if self._seen is not None:
                _log.error("%s cannot be read, and what it held before stays in use: %s", self._file, error)
            self._seen = None

    def _stamp(self) -> tuple[int, ...] | None:
        found = self._file.stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> None:
        entries: dict[str, Entry] = {}
        costs = [4]
        for number, line in enumerate(self._file.read_text("utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, colon, hashed = line.strip().partition(":")
            found = _BCRYPT.fullmatch(hashed)
            if not colon or not found:
                _refuse(self._file, number, name if colon else "", _kind(hashed))
                continue
            cost = int(found[1])
            if cost not in _COSTS:
                _refuse(self._file, number, name, f"bcrypt knows no cost of {cost}")
                continue
            try:
                check_name(name)
            except ValueError as error:
                _refuse(self._file, number, name, str(error))
                continue
            if name not in entries:
                entries[name] = Entry(hashed)
                costs.append(cost)
        self._entries, self._cost = entries, max(costs)


def _refuse(file: Path, number: int, name: str, why: str) -> None:
    _log.warning("%s, line %d: %s cannot log in: %s", file, number, repr(name) if name else "whoever is meant", why)


def _kind(hashed: str) -> str:
    kind = next((kind for start, kind in _KINDS if hashed.startswith(start)), "crypt or plain text")
    return f"the password must be hashed with bcrypt (htpasswd -B), not {kind}"
