"""The command ``moorage``."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from moorage.config import Settings

from moorage import access_commands
from moorage._version import __version__

app = typer.Typer(
    name="moorage",
    help="An OCI registry: push, pull, discover and manage container images and artifacts.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(access_commands.user, name="user")
app.add_typer(access_commands.key, name="key")
app.add_typer(access_commands.access, name="access")
app.add_typer(access_commands.token, name="token")

Config = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="Settings in TOML.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        "-s",
        metavar="NAME|URL",
        help="Where bytes are kept: filesystem, memory, file:///path; default filesystem.",
    ),
]
Root = Annotated[
    str | None,
    typer.Option(
        "--root",
        metavar="FOLDER",
        help="Folder of the filesystem storage; default /var/lib/oci-registry if writable, else the user's.",
    ),
]

Metadata = Annotated[
    str | None,
    typer.Option(
        "--metadata",
        "-m",
        metavar="NAME|URL",
        help="Where facts are kept: sqlite (in the root), postgresql://user@host/database; default sqlite.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moorage {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    *,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on; default 127.0.0.1.")
    ] = None,
    port: Annotated[
        str | None,
        typer.Option("--port", "-p", metavar="PORT", help="Port to listen on; 0 takes a free one; default 8968."),
    ] = None,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Processes that share the root; default 1.")
    ] = None,
    tls_certificate: Annotated[
        str | None,
        typer.Option(
            "--tls-certificate", metavar="FILE", help="Serve HTTPS with this certificate and its chain (PEM)."
        ),
    ] = None,
    tls_key: Annotated[
        str | None,
        typer.Option("--tls-key", metavar="FILE", help="Its key (PEM); default: in the file of the certificate."),
    ] = None,
    insecure_http: Annotated[
        bool | None,
        typer.Option(
            "--insecure-http", help="Serve plain HTTP beyond loopback, where others can read and change it."
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Run the registry until it is told to stop (SIGTERM).

    Every other setting stands in the file or in the environment (MOORAGE_…); docs/configuration.md lists them.
    """
    from moorage.server import serve as run  # noqa: PLC0415  `moorage --version` needs none of it

    arguments = {
        "host": host,
        "port": _number(port),
        "storage": storage,
        "root": root,
        "metadata": metadata,
        "workers": _number(workers),
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
        "insecure_http": insecure_http,
    }
    raise typer.Exit(_guarded(lambda: run(_settings(config, arguments))))


@app.command()
def check(
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
    full: Annotated[bool, typer.Option("--full", help="Also read every blob and compare its digest.")] = False,
) -> None:
    """Verify a registry's invariants, changing nothing; the exit code is 1 if anything is wrong."""
    from moorage.check_command import check_root  # noqa: PLC0415

    def run() -> int:
        settings = _settings(config, {"storage": storage, "root": root, "metadata": metadata})
        return asyncio.run(check_root(settings, full=full))

    raise typer.Exit(_guarded(run))


@app.command()
def collect(
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go, and the bytes freed.")] = False,
    grace: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="How long what nothing holds stays; default: the setting."),
    ] = None,
    history: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="How far the history reaches back; default: the setting."),
    ] = None,
) -> None:
    """Look at everything once and remove what nothing holds; a registry may serve the root meanwhile.

    With a grace shorter than a push lasts, pushes that are under way may have to send their blobs again.
    """
    from moorage.content_commands import collect as run  # noqa: PLC0415

    settings = {"storage": storage, "root": root, "metadata": metadata}
    raise typer.Exit(
        _guarded(lambda: asyncio.run(run(_settings(config, settings), dry_run=dry_run, grace=grace, history=history)))
    )


@app.command()
def why(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="DIGEST, REPOSITORY:TAG or REPOSITORY@DIGEST.")
    ],
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
) -> None:
    """Say what holds a manifest or a blob, up to the tags, and until when; the exit code is 1 if it is nowhere."""
    from moorage.content_commands import why as run  # noqa: PLC0415

    settings = {"storage": storage, "root": root, "metadata": metadata}
    raise typer.Exit(_guarded(lambda: asyncio.run(run(_settings(config, settings), reference))))


@app.command()
def cost(
    references: Annotated[
        list[str],
        typer.Argument(metavar="REFERENCE...", help="REPOSITORY, REPOSITORY:TAG or REPOSITORY@DIGEST, several."),
    ],
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
) -> None:
    """Say how many bytes would be free if all these went, with everything that they alone hold."""
    from moorage.content_commands import cost as run  # noqa: PLC0415

    settings = {"storage": storage, "root": root, "metadata": metadata}
    raise typer.Exit(_guarded(lambda: asyncio.run(run(_settings(config, settings), references))))


@app.command()
def history(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="REPOSITORY or REPOSITORY:TAG.")],
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The most changes to list.")] = 50,
) -> None:
    """List what happened to a tag, or to all tags of a repository, the latest first."""
    from moorage.content_commands import history as run  # noqa: PLC0415

    settings = {"storage": storage, "root": root, "metadata": metadata}
    raise typer.Exit(_guarded(lambda: asyncio.run(run(_settings(config, settings), reference, limit))))


@app.command()
def restore(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE",
            help="REPOSITORY:TAG for what it named before its last change; or with @MOMENT or @DIGEST after it.",
        ),
    ],
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
) -> None:
    """Let a tag name again what it named, and bring back what was deleted."""
    from moorage.content_commands import restore as run  # noqa: PLC0415

    settings = {"storage": storage, "root": root, "metadata": metadata}
    raise typer.Exit(_guarded(lambda: asyncio.run(run(_settings(config, settings), reference))))


@app.command()
def retention(
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
    apply: Annotated[bool, typer.Option("--apply", help="Take it away now.")] = False,
) -> None:
    """List what the retention rules of the settings would take away, why, and the bytes that this would free."""
    from moorage.content_commands import retention as run  # noqa: PLC0415

    settings = {"storage": storage, "root": root, "metadata": metadata}
    raise typer.Exit(_guarded(lambda: asyncio.run(run(_settings(config, settings), apply=apply))))


@app.command()
def scrub(
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="MIB", help="MiB a second at most; default no limit.")
    ] = None,
) -> None:
    """Read every blob and quarantine what is damaged; the exit code is 1 if anything is."""
    from moorage.content_commands import scrub as run  # noqa: PLC0415

    settings = {"storage": storage, "root": root, "metadata": metadata}
    raise typer.Exit(_guarded(lambda: asyncio.run(run(_settings(config, settings), rate))))


Jobs = Annotated[int, typer.Option(min=1, max=256, metavar="N", help="Objects that are copied at once.")]


@app.command()
def backup(
    destination: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where it goes; made if it is not there.")],
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
    jobs: Jobs = 4,
) -> None:
    """Copy the registry as it is at one moment, while it serves; the next one to the same folder copies what is new.

    The folder then is the root of a registry: `moorage check --root FOLDER`, `moorage serve --root FOLDER`.
    """
    _transfer(lambda: _settings(config, {"storage": storage, "root": root, "metadata": metadata}), destination, jobs)


@app.command(name="restore-backup")
def restore_backup(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="What a backup made.")],
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
    jobs: Jobs = 4,
) -> None:
    """Make an empty registry what a backup holds."""
    _transfer(source, lambda: _settings(config, {"storage": storage, "root": root, "metadata": metadata}), jobs)


@app.command()
def migrate(
    *,
    source: Annotated[Path, typer.Option("--from", metavar="FILE|FOLDER", help="Settings or root of the old one.")],
    target: Annotated[Path, typer.Option("--to", metavar="FILE|FOLDER", help="Settings or root of the new one.")],
    jobs: Jobs = 4,
) -> None:
    """Take a registry to another database or storage, while it serves; run again, it copies what came since.

    So stop the old one only for the last run, which is short, and start the new one after it.
    """
    _transfer(source, target, jobs)


@app.command(name="import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A storage tree of distribution, an OCI image layout or a folder of them, a tar of docker save.",
        ),
    ],
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
    repository: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the repository; of several, what stands before their names."),
    ] = None,
    jobs: Jobs = 4,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be imported.")] = False,
) -> None:
    """Take in what another registry or program stores; a registry may serve the root meanwhile.

    Every digest is verified; what is missing or damaged is listed, and the exit code then is 1. Done again, it takes
    what came since.
    """
    from moorage.import_commands import import_ as run  # noqa: PLC0415

    settings = {"storage": storage, "root": root, "metadata": metadata}
    options: dict[str, Any] = {"name": repository, "jobs": jobs, "dry_run": dry_run}
    raise typer.Exit(_guarded(lambda: asyncio.run(run(_settings(config, settings), source, **options))))


@app.command()
def export(
    references: Annotated[
        list[str],
        typer.Argument(metavar="REFERENCE...", help="REPOSITORY, REPOSITORY:TAG or REPOSITORY@DIGEST, several."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The layout; made if it is not there.")],
    *,
    storage: Storage = None,
    root: Root = None,
    metadata: Metadata = None,
    config: Config = None,
) -> None:
    """Write an OCI image layout, with all that refers to what is exported; what is there is not written again."""
    from moorage.import_commands import export as run  # noqa: PLC0415

    settings = {"storage": storage, "root": root, "metadata": metadata}
    raise typer.Exit(_guarded(lambda: asyncio.run(run(_settings(config, settings), references, folder))))


def _transfer(source: Any, target: Any, jobs: int) -> None:
    from moorage.transfer_commands import described, transfer  # noqa: PLC0415

    def run() -> int:
        ends = (described(each) if isinstance(each, Path) else each() for each in (source, target))
        return asyncio.run(transfer(*ends, jobs=jobs))

    raise typer.Exit(_guarded(run))


def _number(text: str | None) -> Any:
    """A number if it looks like one: what is wrong with anything else, the settings say."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def _settings(config: Path | None, arguments: dict[str, Any]) -> "Settings":
    from moorage.config import SettingsError, load, without_password  # noqa: PLC0415

    url = arguments.get("metadata")
    if url is not None and without_password(url) != url:
        raise SettingsError(
            "--metadata: everyone on this machine can read a password there; "
            "allowed: in metadata_password_file, MOORAGE_METADATA, PGPASSWORD or PGPASSFILE"
        )
    return load(config, os.environ, arguments)


def _guarded(run: Any) -> int:
    from moorage.config import SettingsError  # noqa: PLC0415
    from moorage.spec.errors import RegistryError  # noqa: PLC0415

    try:
        return int(run())
    except RegistryError as error:
        details = [
            f"{key}={value}" for each in error.details if isinstance(each, dict) for key, value in each.items()
        ]
        print(f"moorage: {error.text}" + (f": {', '.join(details)}" if details else ""), file=sys.stderr)  # noqa: T201
        return 2
    except (SettingsError, OSError, RuntimeError) as error:
        print(f"moorage: {error}", file=sys.stderr)  # noqa: T201
        return 2


def main() -> None:
    """Run the command line."""
    app()
