"""The command ``moorage``."""

from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moorage import access_commands, release_commands
from moorage._version import __version__
from moorage.command_options import Config, Jobs, Limit, Metadata, Root, Storage, guarded, load_settings, on_registry

if TYPE_CHECKING:
    from moorage.settings import Settings

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
app.add_typer(release_commands.release, name="release")


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
    guarded(lambda: run(load_settings(config, arguments)))


@app.command()
def health(config: Config = None) -> None:
    """Ask the server on this machine, as the settings describe it, whether it answers; the exit code is 1 if not."""
    from moorage.health_command import health as run  # noqa: PLC0415

    guarded(lambda: run(load_settings(config, {})))


@app.command()
@on_registry
def check(
    settings: "Settings",
    *,
    full: Annotated[bool, typer.Option("--full", help="Also read every blob and compare its digest.")] = False,
) -> Awaitable[int]:
    """Verify a registry's invariants, changing nothing; the exit code is 1 if anything is wrong."""
    from moorage.check_command import check_root  # noqa: PLC0415

    return check_root(settings, full=full)


@app.command()
@on_registry
def collect(
    settings: "Settings",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go, and the bytes freed.")] = False,
    grace: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="How long what nothing holds stays; default: the setting."),
    ] = None,
    history: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="How far the history reaches back; default: the setting."),
    ] = None,
) -> Awaitable[int]:
    """Look at everything once and remove what nothing holds; a registry may serve the root meanwhile.

    With a grace shorter than a push lasts, pushes that are under way may have to send their blobs again.
    """
    from moorage.content_commands import collect as run  # noqa: PLC0415

    return run(settings, dry_run=dry_run, grace=grace, history=history)


@app.command()
@on_registry
def why(
    settings: "Settings",
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="DIGEST, REPOSITORY:TAG or REPOSITORY@DIGEST.")
    ],
) -> Awaitable[int]:
    """Say what holds a manifest or a blob, up to the tags, and until when; the exit code is 1 if it is nowhere."""
    from moorage.content_commands import why as run  # noqa: PLC0415

    return run(settings, reference)


@app.command()
@on_registry
def cost(
    settings: "Settings",
    references: Annotated[
        list[str],
        typer.Argument(metavar="REFERENCE...", help="REPOSITORY, REPOSITORY:TAG or REPOSITORY@DIGEST, several."),
    ],
) -> Awaitable[int]:
    """Say how many bytes would be free if all these went, with everything that they alone hold."""
    from moorage.content_commands import cost as run  # noqa: PLC0415

    return run(settings, references)


@app.command()
@on_registry
def history(
    settings: "Settings",
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="REPOSITORY or REPOSITORY:TAG.")],
    *,
    limit: Limit = 50,
) -> Awaitable[int]:
    """List what happened to a tag, or to all tags of a repository, the latest first."""
    from moorage.content_commands import history as run  # noqa: PLC0415

    return run(settings, reference, limit)


@app.command()
@on_registry
def restore(
    settings: "Settings",
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE",
            help="REPOSITORY:TAG for what it named before its last change; or with @MOMENT or @DIGEST after it.",
        ),
    ],
) -> Awaitable[int]:
    """Let a tag name again what it named, and bring back what was deleted."""
    from moorage.content_commands import restore as run  # noqa: PLC0415

    return run(settings, reference)


@app.command()
@on_registry
def retention(
    settings: "Settings",
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Take it away now.")] = False,
) -> Awaitable[int]:
    """List what the retention rules of the settings would take away, why, and the bytes that this would free."""
    from moorage.content_commands import retention as run  # noqa: PLC0415

    return run(settings, apply=apply)


@app.command()
@on_registry
def quota(
    settings: "Settings",
    *,
    recount: Annotated[bool, typer.Option("--recount", help="Count everything anew first.")] = False,
) -> Awaitable[int]:
    """List what quotas allow, and what is used of them."""
    from moorage.content_commands import quota as run  # noqa: PLC0415

    return run(settings, recount=recount)


@app.command()
@on_registry
def scrub(
    settings: "Settings",
    *,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="MIB", help="MiB a second at most; default no limit.")
    ] = None,
) -> Awaitable[int]:
    """Read every blob and quarantine what is damaged; the exit code is 1 if anything is."""
    from moorage.content_commands import scrub as run  # noqa: PLC0415

    return run(settings, rate)


@app.command()
@on_registry
def backup(
    settings: "Settings",
    destination: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where it goes; made if it is not there.")],
    *,
    jobs: Jobs = 4,
) -> Awaitable[int]:
    """Copy the registry as it is at one moment, while it serves; the next one to the same folder copies what is new.

    The folder then is the root of a registry: `moorage check --root FOLDER`, `moorage serve --root FOLDER`.
    """
    from moorage.transfer_commands import described, transfer  # noqa: PLC0415

    return transfer(settings, described(destination), jobs=jobs)


@app.command(name="restore-backup")
@on_registry
def restore_backup(
    settings: "Settings",
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="What a backup made.")],
    *,
    jobs: Jobs = 4,
) -> Awaitable[int]:
    """Make an empty registry what a backup holds."""
    from moorage.transfer_commands import described, transfer  # noqa: PLC0415

    return transfer(described(source), settings, jobs=jobs)


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
    from moorage.transfer_commands import described, transfer  # noqa: PLC0415

    guarded(lambda: transfer(described(source), described(target), jobs=jobs))


@app.command(name="import")
@on_registry
def import_(
    settings: "Settings",
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A storage tree of distribution, an OCI image layout or a folder of them, a tar of docker save; "
            "or s3://bucket/prefix, gs://…, az://… with one of the first three.",
        ),
    ],
    *,
    repository: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the repository; of several, what stands before their names."),
    ] = None,
    jobs: Jobs = 4,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be imported.")] = False,
) -> Awaitable[int]:
    """Take in what another registry or program stores; a registry may serve the root meanwhile.

    Every digest is verified; what is missing or damaged is listed, and the exit code then is 1. Done again, it takes
    what came since.
    """
    from moorage.import_commands import import_ as run  # noqa: PLC0415

    return run(settings, source, name=repository, jobs=jobs, dry_run=dry_run)


@app.command()
@on_registry
def adopt(
    settings: "Settings",
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="TREE",
            help="Storage tree of distribution: a folder, s3://bucket/prefix, gs://…, az://…; default: the setting.",
        ),
    ] = None,
    *,
    finish: Annotated[
        bool, typer.Option("--finish", help="Copy the bytes that are still read from the tree; then it may go.")
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="MIB", help="MiB a second at most, with --finish; default no limit."),
    ] = None,
    jobs: Jobs = 16,
) -> Awaitable[int]:
    """Take in what a storage tree of distribution holds, but for the bytes, which are read from there.

    The tree is never written to. A registry may serve the root meanwhile, and the old one the tree; done again, it
    takes what came since. What was deleted or moved here stays so.
    """
    from moorage.import_commands import adopt as run  # noqa: PLC0415

    return run(settings, source, finish=finish, rate=rate, jobs=jobs)


@app.command()
@on_registry
def export(
    settings: "Settings",
    references: Annotated[
        list[str],
        typer.Argument(metavar="REFERENCE...", help="REPOSITORY, REPOSITORY:TAG or REPOSITORY@DIGEST, several."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The layout; made if it is not there.")],
) -> Awaitable[int]:
    """Write an OCI image layout, with all that refers to what is exported; what is there is not written again."""
    from moorage.import_commands import export as run  # noqa: PLC0415

    return run(settings, references, folder)


def _number(text: str | None) -> Any:
    """A number if it looks like one: what is wrong with anything else, the settings say."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def main() -> None:
    """Run the command line."""
    app()
