"""Kills of what looks after content: collections, imports, migrations, backups and scrubs, beside clients that go on.

The clients are tenants, the grace is zero. Each duty is a process that is killed at random moments and then run again
to its end: what it was to do is done, and what must be there is.
"""

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from moorage.config import load
from moorage.metadata.base import load_migrations
from tests.server import Server, as_environment, environment_of, free_port
from tests.torture.ending import verify_the_end
from tests.torture.model import Violation, digest_of
from tests.torture.pushes import OCI_MANIFEST, image
from tests.torture.tenants import Tenant
from tests.torture.wire import Connection

TENANTS = 5
IMAGES = 8  # that are imported each time
WORK = 0.7  # seconds of the clients before each duty
RERUNS = 30  # of an import whose blobs are collected before their manifest comes
REFUSED = 2  # the exit code of what cannot be done
LOWEST = 0.15  # seconds: before that a process has done nothing
SETTINGS: Final = {"collect_grace": 0, "history_days": 0, "housekeeping_interval": 0.2, "scrub_rate": 0}
# A copy is looked at as it is, and may be brought up to date later.
STILL: Final = {"collection": False, "scrub_rate": 0}


@dataclass(kw_only=True)
class Duties:
    """``kills`` of processes over a root in ``folder``; everything random but the moments comes from ``seed``."""

    folder: Path
    kills: int
    seed: int
    tell: Callable[[str], None] = print
    done: int = 0
    finished: dict[str, int] = field(default_factory=dict)  # how often each duty came to its end
    tenants: list[Tenant] = field(default_factory=list)
    _lasts: dict[str, float] = field(default_factory=dict)
    _moment: str = "at the start"
    _over: bool = False

    async def run(self) -> None:
        """Raises ``Violation`` with the whole story."""
        self._random, self._gate = Random(self.seed), asyncio.Event()
        self._root, self._backup, self._layout = (self.folder / each for each in ("root-0", "backup", "layout"))
        self._images = _layout(self._layout, Random(f"{self.seed} layout"))
        self._port = free_port()
        self._server = self._serve(self._root, self._port, SETTINGS)
        try:
            await self._run()
        except* Violation as several:
            story = "\n".join(map(str, several.exceptions))
            raise Violation(f"seed {self.seed}, {self.done} kills done, {self._moment}: {story}") from None
        finally:
            self._server.kill()

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            for number in range(TENANTS):
                connections = [await stack.enter_async_context(Connection(self._server.host)) for _ in range(2)]
                choices = Random(f"{self.seed} {number}")
                self.tenants.append(Tenant(number, TENANTS, connections, choices, history=False))
            self._connection = await stack.enter_async_context(Connection(self._server.host))
            async with asyncio.TaskGroup() as group:
                for tenant in self.tenants:
                    group.create_task(tenant.work(lambda: self._over, self._gate))
                await self._turns()
                self._over = True
            self._moment = "at the end"
            await self._each(Tenant.verify)
            await verify_the_end(load(arguments={"root": str(self._root), **SETTINGS}), self.tenants)
            if "Traceback" in self._server.log:
                raise Violation(f"the server's log should hold no error: {self._server.log[-5000:]}")

    async def _turns(self) -> None:
        duties = [self._collect, self._import, self._back_up, self._migrate, self._scrub, self._restart]
        turn = 0
        while self.done < self.kills:
            if turn % len(duties) == 0:
                self._random.shuffle(duties)
            duty = duties[turn % len(duties)]
            name = duty.__name__.lstrip("_")
            self._moment = f"turn {turn} ({name})"
            self._gate.set()
            await asyncio.sleep(WORK)
            before = self.done
            await duty()
            await self._rest()
            await self._random.choice(self.tenants).verify()
            self.finished[name] = self.finished.get(name, 0) + 1
            operations = sum(each.done.operations for each in self.tenants)
            self.tell(f"{self._moment}: {self.done - before} kills, {self.done} in all; {operations} operations")
            turn += 1

    # The duties

    async def _collect(self) -> None:
        command = ("collect", "--grace", "0", "--root", self._root)
        await self._kill(*command)
        await self._finish(*command)

    async def _import(self) -> None:
        """It goes on where it was; what was collected while its manifest was on the way comes with the next run."""
        command = ("import", self._layout, "--repository", "imported", "--root", self._root)
        await self._kill(*command)
        for _ in range(RERUNS):
            if await self._finish(*command, among=(0, 1)) == 0:
                break
        else:
            raise Violation(f"an import was not complete after {RERUNS} runs")
        for tag, (manifest, blobs) in self._images.items():
            if (await self._ask("GET", f"/v2/imported/manifests/{tag}", among=(200,))) != manifest:
                raise Violation(f"imported:{tag} is not what it was")
            for content in blobs:
                path = f"/v2/imported/blobs/{digest_of(content)}"
                if await self._ask("GET", path, among=(200,)) != content:
                    raise Violation(f"{path} is not what it was")
            await self._ask("DELETE", f"/v2/imported/manifests/{digest_of(manifest)}", among=(202,))

    async def _back_up(self) -> None:
        """The copy is what the registry was when it was made, and so is what is restored from it."""
        backup = ("backup", self._backup, "--root", self._root)
        await self._kill(*backup)
        await self._look_at(self._backup)
        still = self._random.random() < 0.6
        if still:
            await self._rest()
        # Without a grace what it copies may go too fast for it: then it says so, and is done while the clients rest.
        if await self._finish(*backup, among=(0,) if still else (0, REFUSED)):
            still = True
            await self._rest()
            await self._finish(*backup)
        restored = self.folder / "restored"
        restore = ("restore-backup", self._backup, "--root", restored)
        await self._kill(*restore)
        await self._look_at(restored)
        await self._finish(*restore)
        for copy in (self._backup, restored):
            await self._finish("check", "--full", "--root", copy)
            if still:
                async with self._looking_at(copy):
                    await self._each(Tenant.verify)
        shutil.rmtree(restored)

    async def _migrate(self) -> None:
        """While the registry serves, and once more when it has stopped; from then on the new one serves."""
        target = self._root.with_name(f"root-{int(self._root.name.partition('-')[2]) + 1}")
        command = ("migrate", "--from", self._root, "--to", target)
        await self._kill(*command)
        await self._look_at(target)
        await self._rest()
        if await asyncio.to_thread(self._server.stop) != 0:
            raise Violation(f"the server should stop with 0: {self._server.log[-2000:]}")
        await self._kill(*command)
        await self._finish(*command)
        await self._finish("check", "--full", "--root", target)
        old = self._root
        await self._serve_again(target)
        await self._each(Tenant.verify)
        shutil.rmtree(old)

    async def _scrub(self) -> None:
        """A blob that is damaged before is found, however often the scrub is killed, and nothing else."""
        content = self._random.randbytes(50_000)
        digest = digest_of(content)
        manifest = image({digest: len(content)}, None).content
        refused = b"not tried"
        while refused:  # what is collected before its manifest comes is pushed again
            await self._ask("POST", f"/v2/damaged/blobs/uploads/?digest={digest}", content, among=(201,))
            refused = await self._ask("PUT", "/v2/damaged/manifests/v1", manifest, among=(201, 404))
        (file,) = self._files_with(content)
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        command = ("scrub", "--root", self._root)
        await self._kill(*command)
        await self._finish(*command, among=(1,))
        await self._ask("GET", f"/v2/damaged/blobs/{digest}", among=(404,))
        await self._ask("POST", f"/v2/damaged/blobs/uploads/?digest={digest}", content, among=(201,))
        if await self._ask("GET", f"/v2/damaged/blobs/{digest}", among=(200,)) != content:
            raise Violation(f"{digest} was pushed again, and is not right")
        await self._finish(*command)
        await self._ask("DELETE", f"/v2/damaged/manifests/{digest_of(manifest)}", among=(202,))

    async def _restart(self) -> None:
        """The server itself, while it collects what its clients let go of just before."""
        await self._rest()
        await asyncio.sleep(self._random.uniform(0, 0.3))
        self._server.kill()
        self.done += 1
        await self._serve_again(self._root)

    # Processes

    async def _kill(self, *command: str | Path) -> None:
        """Start it one to four times and kill it, at any moment of the time that it takes."""
        for _ in range(self._random.randint(1, 4)):
            most = self._lasts.get(str(command[0]), 1.0)
            process = await self._start(command)
            try:
                async with asyncio.timeout(self._random.uniform(LOWEST, most)):
                    await process.wait()
            except TimeoutError:
                process.kill()
                self.done += 1
            await self._ended(process, command, (0, 1, REFUSED, -signal.SIGKILL))

    async def _finish(self, *command: str | Path, among: tuple[int, ...] = (0,)) -> int:
        """Run it to its end; its exit code."""
        started = asyncio.get_running_loop().time()
        code = await self._ended(await self._start(command), command, among)
        self._lasts[str(command[0])] = asyncio.get_running_loop().time() - started
        return code

    async def _look_at(self, copy: Path) -> None:
        """What a transfer left that was killed is what it was before, or what it shall be."""
        if (facts := copy / "moorage.db").exists():
            with closing(sqlite3.connect(facts)) as connection:
                (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if schema == load_migrations()[-1][0]:  # else it was killed while it made an empty one
                await self._finish("check", "--root", copy)

    async def _start(self, command: tuple[str | Path, ...]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "moorage",
            *map(str, command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment_of(self._root, as_environment(SETTINGS)),
        )

    async def _ended(
        self, process: asyncio.subprocess.Process, command: tuple[str | Path, ...], among: tuple[int, ...]
    ) -> int:
        output, code = (await process.communicate())[0].decode(), process.returncode or 0
        if code not in among or "Traceback" in output:
            raise Violation(f"{' '.join(map(str, command))} ended with {code}: {output}")
        return code

    def _serve(self, root: Path, port: int, settings: Mapping[str, Any]) -> Server:
        return Server(root, ("--workers", "2"), as_environment(settings), port=port).start()

    async def _serve_again(self, root: Path) -> None:
        """A new server over ``root``, where the clients expect it."""
        if "Traceback" in self._server.log:
            raise Violation(f"the server's log should hold no error: {self._server.log[-5000:]}")
        self._root = root
        self._server = await asyncio.to_thread(self._serve, root, self._port, SETTINGS)
        for connection in self._connections():
            connection.close()

    @asynccontextmanager
    async def _looking_at(self, copy: Path) -> AsyncIterator[None]:
        """The clients see a copy instead, which is served as it is."""
        server = await asyncio.to_thread(self._serve, copy, 0, STILL)
        theirs = [tenant.connections for tenant in self.tenants]
        try:
            async with Connection(server.host) as connection:
                for tenant in self.tenants:
                    tenant.connections = [connection]
                yield
        finally:
            for tenant, connections in zip(self.tenants, theirs, strict=True):
                tenant.connections = connections
            server.kill()

    # The clients

    async def _rest(self) -> None:
        """No client does anything from now on."""
        self._gate.clear()
        for tenant in self.tenants:
            tenant.resting.clear()
            await tenant.resting.wait()

    async def _each(self, verify: Callable[[Tenant], Awaitable[None]]) -> None:
        for tenant in self.tenants:
            await verify(tenant)

    def _connections(self) -> list[Connection]:
        return [self._connection, *(each for tenant in self.tenants for each in tenant.connections)]

    async def _ask(self, method: str, path: str, body: bytes = b"", *, among: tuple[int, ...]) -> bytes:
        headers = {"Content-Type": OCI_MANIFEST} if method == "PUT" else {}
        answer = await self._connection.request(method, path, body, headers)
        if answer.status not in among:
            raise Violation(f"{method} {path} should be answered with {among}: {answer.status} {answer.body[:600]!r}")
        return answer.body

    def _files_with(self, content: bytes) -> list[Path]:
        found = []
        for file in self._root.glob("blobs/??/*"):
            with suppress(FileNotFoundError):  # it may be collected meanwhile
                if file.read_bytes() == content:
                    found.append(file)
        return found


def _layout(folder: Path, choices: Random) -> dict[str, tuple[bytes, list[bytes]]]:
    """Make an OCI image layout; its images by their tags: the manifest and the blobs."""
    images: dict[str, tuple[bytes, list[bytes]]] = {}
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    listed = []
    for n in range(IMAGES):
        layers = [choices.randbytes(60_000) for _ in range(3)]
        manifest = image({digest_of(each): len(each) for each in layers}, None, annotations={"n": str(n)}).content
        for content in (manifest, *layers):
            (blobs / digest_of(content).partition(":")[2]).write_bytes(content)
        images[f"v{n}"] = (manifest, layers)
        named = {"org.opencontainers.image.ref.name": f"v{n}"}
        described = {"mediaType": OCI_MANIFEST, "digest": digest_of(manifest), "size": len(manifest)}
        listed.append({**described, "annotations": named})
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
    return images
