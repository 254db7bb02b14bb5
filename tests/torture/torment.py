"""The loop: a server, clients, a kill at a random moment, a restart, and a look at everything."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.server import Server, free_port
from tests.torture.clients import CLIENTS, Client
from tests.torture.ground import Ground
from tests.torture.model import Model, Violation
from tests.torture.verify import Verified, verify
from tests.torture.wire import Connection, Unanswered, Unsent

OLD = 150  # facts of earlier turns that each verification looks at again
START = 0.6  # seconds: kills of a server that is starting fall into them


@dataclass(kw_only=True)
class Torment:
    """``kills`` times; ``workers`` None alternates between 1 and 4. Everything random comes from ``seed``."""

    ground: Ground
    kills: int
    seed: int
    workers: int | None = None
    tell: Callable[[str], None] = print
    model: Model = field(default_factory=Model)
    totals: Verified = field(default_factory=Verified)
    done: int = 0
    _starts: int = 0
    _port: int = 0
    _root: Path = Path()
    _server: Server | None = None

    async def run(self) -> None:
        """Raises ``Violation`` with the whole story."""
        self._port = free_port()
        try:
            await self._run()
        except Exception as error:
            why = _first(error)
            if not isinstance(why, Violation | TimeoutError | RuntimeError | Unsent | Unanswered):
                raise
            log = self._server.log[-5000:] if self._server else ""
            where = f"seed {self.seed}, {self.done} kills done, {self.model.moment}"
            story = "\n".join([str(why) if isinstance(why, Violation) else repr(why), *getattr(why, "__notes__", [])])
            raise Violation(f"{where}: {story}\nthe server's log:\n{log}") from error
        finally:
            if self._server is not None and self._server.process is not None:
                self._server.kill()

    async def _run(self) -> None:
        server = await self._first_start()
        turn = 0
        while self.done < self.kills:
            server = await self._turn(server, turn)
            turn += 1
        self.model.moment = "at the end"
        seen = await self._verify(server, Random(f"{self.seed} end"), old=None)
        await self._stop(server)
        self.tell(f"at the end all of {seen.facts} facts in {seen.listings} repositories were verified")

    async def _first_start(self) -> Server:
        """A server on a new root. A tenth of the kills fall into the making of one."""
        folder, roots = self.ground.folder, max(1, self.kills // 10)
        for n in range(roots):
            self._root = folder / f"registry-{n}"
            await self._kill_while_starting(Random(f"{self.seed} root {n}"), "made its root")
            if n + 1 < roots:
                server = await self._start()
                await asyncio.to_thread(self._check, full=True)
                await self._stop(server)
        return await self._start()

    async def _turn(self, server: Server, turn: int) -> Server:
        """Pushes and a kill, sometimes another while the server starts again, then verification."""
        choices = Random(f"{self.seed} {turn}")
        self.model.moment = f"turn {turn}"
        before = self.model.acknowledged
        lasts = choices.uniform(0.05, 1.0)
        await self._load(server, turn, lasts)
        self._count(
            f"after {lasts:.2f} s of pushes: {self.model.acknowledged - before} acknowledged, "
            f"{len(self.model.unknown)} unanswered"
        )
        self.model.moment = f"after the kill of turn {turn}"
        while self.done < self.kills and choices.random() < 0.2:
            await self._kill_while_starting(choices, "was started again")
        server = await self._start()
        if self.done < self.kills and choices.random() < 0.1:
            await asyncio.sleep(choices.uniform(0, 0.05))
            await asyncio.to_thread(self._cut, server)
            self._count("as soon as it was up")
            server = await self._start()
        seen = await self._verify(server, Random(f"{self.seed} {turn} verify"), old=OLD)
        self.tell(
            f"    {seen.facts} facts, {seen.listings} repositories verified; of the unanswered {seen.happened} were "
            f"done, {seen.vanished} not; {seen.resumed} uploads resumed"
        )
        return server

    async def _load(self, server: Server, turn: int, lasts: float) -> None:
        """Let the clients push for ``lasts`` seconds until the server is killed."""
        dying = asyncio.Event()

        async def client(number: int) -> None:
            async with Connection(server.host) as connection:
                choices = Random(f"{self.seed} {turn} {number}")
                each = Client(
                    connection, self.model, choices, dying.is_set, lambda: self.ground.breaks and dying.is_set()
                )
                each.set_up(number, turn)
                await each.work()

        async def kill() -> None:
            await asyncio.sleep(lasts)
            dying.set()
            await asyncio.to_thread(self._cut, server)

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number))
            group.create_task(kill())
        self._read_log(server)

    def _next(self) -> Server:
        workers = self.workers or (1, 4)[self._starts % 2]
        self._starts += 1
        self._server = Server(self._root, ("--workers", str(workers)), port=self._port)
        return self._server

    async def _start(self) -> Server:
        server = self._next()
        await asyncio.to_thread(server.start)
        return server

    async def _stop(self, server: Server) -> None:
        code = await asyncio.to_thread(server.stop)
        if code != 0:
            raise Violation(f"SIGTERM should end the server with 0, but it ended with {code}")
        self._read_log(server)

    async def _kill_while_starting(self, choices: Random, what: str) -> None:
        server = self._next()
        delay = choices.uniform(0.0, START)
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        while server.process is None and not starting.done():
            await asyncio.sleep(0.001)
        await asyncio.sleep(delay)
        await asyncio.to_thread(self._cut, server)
        try:
            await starting
        except RuntimeError as error:
            if "ended with -9" not in str(error) and not self.ground.breaks:
                raise
        self._read_log(server)
        self._count(f"{delay:.2f} s after the start of a process that {what}")

    def _cut(self, server: Server) -> None:
        if server.process is None or server.process.poll() is not None:
            raise Violation("the server ended by itself")
        self.ground.cut(server)

    def _count(self, how: str) -> None:
        self.done += 1
        self.tell(f"kill {self.done} of {self.kills} {how}")

    async def _verify(self, server: Server, choices: Random, *, old: int | None) -> Verified:
        # The check runs beside the pulls and the resumed uploads: it must not mistake a change for a fault.
        seen, checked = await asyncio.gather(
            verify(server.host, self.model, choices, old=old),
            asyncio.to_thread(self._check, full=old is None),
            return_exceptions=True,
        )
        for result in (seen, checked):
            if isinstance(result, BaseException):
                raise result
        assert isinstance(seen, Verified)
        for name, count in vars(seen).items():
            setattr(self.totals, name, getattr(self.totals, name) + count)
        return seen

    def _check(self, *, full: bool) -> None:
        """``moorage check``, which reads every blob where ``full``."""
        command = [sys.executable, "-m", "moorage", "check", "--root", str(self._root), *(["--full"] if full else [])]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0 or "Traceback" in done.stderr:
            raise Violation(f"`moorage check` ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    def _read_log(self, server: Server) -> None:
        """A disk without power makes errors, and rightly; nothing else does."""
        if not self.ground.breaks and ("Traceback" in server.log or " ERROR " in server.log):
            raise Violation("the server's log should hold no error")


def _first(error: BaseException) -> BaseException:
    """What went wrong first of what several tasks raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
