"""A real PostgreSQL: a throwaway cluster of this machine's binaries, below an unprivileged user."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from tests.clients.kit import missing, tool
from tests.server import free_port

TEMPLATE = "moorage_template"
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
_numbers = itertools.count()


def binary(name: str) -> str:
    """The path of one of PostgreSQL's programs; without it the test is skipped, or fails in CI."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: -int(each.parent.name))
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    return shutil.which(name, path=path) or missing(f"PostgreSQL's {name} is not on this machine")


class Databases(Protocol):
    """What makes databases, and drops them by their URLs."""

    def make_database(self) -> str: ...
    def drop(self, url: str) -> None: ...


@dataclass
class Cluster:
    """A server on a free loopback port, which can be stopped, killed and started again."""

    folder: Path
    port: int
    settings: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    user: dict[str, Any] = field(default_factory=dict)
    program: Sequence[str] = ()  # what runs instead of a server

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self, timeout: float = 60.0) -> None:
        """Start the server and return once it takes connections."""
        options = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}"]
        options += ["max_connections=100", "autovacuum=off", "jit=off", *self.settings]
        server = [binary("postgres"), "-D", str(self.folder / "data")]
        command = self.program or [*server, *(part for o in options for part in ("-c", o))]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self.user,
            )
        deadline = time.monotonic() + timeout
        while True:
            try:
                return psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text()[-2000:]) from None
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT disconnects all (fast), SIGQUIT leaves everything as it is (immediate)."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def follow(self, primary: "Cluster") -> None:
        """Start as a standby with a copy of ``primary``, whose commits wait for it from then on."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        copied = ["-d", primary.url(), "-D", str(self.folder / "data"), "-R", "-X", "stream", "-c", "fast"]
        subprocess.run(
            [binary("pg_basebackup"), *copied], check=True, capture_output=True, cwd=self.folder, **self.user
        )
        self.start()
        primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        with psycopg.connect(primary.url(), autocommit=True) as connection:
            while connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall() != [("sync",)]:
                time.sleep(0.05)

    def run(self, *statements: str, database: str = "postgres") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def make_database(self, template: str = "template0") -> str:
        """A new database; its URL."""
        name = f"t{next(_numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def empty(self, url: str) -> None:
        """Make a database what it was when it was made of the template: far quicker than to make another."""
        with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
            found = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL (%s)",
                (["moorage_schema", "access_version"],),
            )
            for (table,) in found.fetchall():
                connection.execute(f"DELETE FROM {table}".encode())
            connection.execute("UPDATE access_version SET number = 0")
            for (sequence,) in connection.execute("SELECT sequencename FROM pg_sequences").fetchall():
                connection.execute(f"ALTER SEQUENCE {sequence} RESTART".encode())

    def drop(self, url: str) -> None:
        self.run(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")


@dataclass
class Pair:
    """Two servers, of which one follows the other: URLs name both, and who connects finds the one that leads."""

    one: Cluster
    other: Cluster

    def make_database(self) -> str:
        return self.one.make_database().replace(f":{self.one.port}", f":{self.one.port},127.0.0.1:{self.other.port}")

    def drop(self, url: str) -> None:
        """Nothing: both go with the test."""


@contextmanager
def cluster(*, durable: bool = False) -> Iterator[Cluster]:
    """A new cluster for the length of the block; unless ``durable`` nothing is synced."""
    initdb = binary("initdb")
    with _place(() if durable else _FAST) as made:
        data = made.folder / "data"
        command = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        # A locale in which "a" and "B" are neighbours, where there is one: the registry must not depend on it.
        subprocess.run([*command, "--locale=C.UTF-8"], check=True, capture_output=True, cwd=made.folder, **made.user)
        access = data / "pg_hba.conf"
        access.write_text("host all locked 127.0.0.1/32 scram-sha-256\n" + access.read_text())
        made.start()
        yield made


@contextmanager
def standby(primary: Cluster) -> Iterator[Cluster]:
    """A cluster that follows ``primary``, for the length of the block."""
    with _place(primary.settings) as made:
        made.follow(primary)
        yield made


@contextmanager
def pgbouncer(server: Cluster, connections: int) -> Iterator[Cluster]:
    """PgBouncer, which gives each transaction another of so many connections to ``server``.

    What it starts like, stops like and has databases like is a cluster.
    """
    program = tool("pgbouncer")
    with _place(()) as made:
        made.program = [program, str(made.folder / "pgbouncer.ini")]
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": made.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": connections,
            "max_client_conn": 1000,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        databases = f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n"
        (made.folder / "pgbouncer.ini").write_text(f"{databases}[pgbouncer]\n" + "\n".join(lines) + "\n")
        made.start()
        yield made


@contextmanager
def _place(settings: tuple[str, ...]) -> Iterator[Cluster]:
    """A cluster that was neither made nor started: a folder, a port, and an unprivileged user."""
    folder, as_user = Path(tempfile.mkdtemp(prefix="moorage-pg-")), dict[str, Any]()
    if os.getuid() == 0:  # the server refuses to be root
        names = {each.pw_name for each in pwd.getpwall()}
        entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        as_user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": list[str]()}
    made = Cluster(folder, free_port(), settings, user=as_user)
    try:
        yield made
    finally:
        made.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One cluster for the whole run, which syncs nothing; it holds a template with the schema."""
    import asyncio

    from moorage.metadata.postgres import PostgresMetadata, PostgresOptions

    async def migrate(url: str) -> None:
        async with PostgresMetadata(PostgresOptions(url=url)):
            pass

    with cluster() as made:
        made.run(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
        asyncio.run(migrate(made.url(TEMPLATE)))
        yield made


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    """The URL of a database with the schema and nothing in it, for this test alone."""
    url = postgres.make_database(TEMPLATE)
    yield url
    postgres.drop(url)


@pytest.fixture
def new_database(postgres: Cluster) -> Iterator[str]:
    """The URL of a database without anything in it, for this test alone."""
    url = postgres.make_database()
    yield url
    postgres.drop(url)
